"""Clones share outputs through a DVC remote: a folder, or a real SFTP server."""

import asyncio
import getpass
import threading
from pathlib import Path

import pytest

from conftest import call
from vae.rebuild.compare import hashes


def share(repository: Path, tmp_path: Path, url: str, settings: dict[str, str]) -> Path:
    """Push from `repository` to the remote at `url`, with settings that git does not see; pull in
    a clone, as docs/sharing.md says."""
    call(repository, "dvc", "remote", "add", "--force", "--default", "store", url)
    call(repository, "git", "commit", "--quiet", "-m", "remote", ".dvc/config")
    clone = tmp_path / "clone"
    call(tmp_path, "git", "clone", "--quiet", repository, clone)
    for folder in (repository, clone):
        for name, value in settings.items():
            call(folder, "dvc", "remote", "modify", "--local", "store", name, value)
    call(repository, "dvc", "push")
    call(clone, "dvc", "pull")
    return clone


def check_shared(repository: Path, clone: Path) -> None:
    """Assert that the clone has every output and that no stage need run."""
    call(clone, "dvc", "status", "--quiet")  # fails if anything has changed
    assert "Running stage" not in call(clone, "dvc", "repro")
    locked = hashes(clone / "dvc.lock")
    assert {"models/20d.safetensors", "plots/manifold.gif", "report.html"} < set(locked)
    for path in (path for name in locked for path in [clone / name, *(clone / name).rglob("*")]):
        original = repository / path.relative_to(clone)
        assert path.is_dir() or path.read_bytes() == original.read_bytes()
    assert call(clone, "git", "status", "--porcelain") == ""


def test_clones_pull_outputs_from_a_folder_instead_of_computing_them(repository, tmp_path):
    check_shared(repository, share(repository, tmp_path, str(tmp_path / "store"), {}))
    fresh = tmp_path / "fresh"
    call(tmp_path, "git", "clone", "--quiet", repository, fresh)
    assert "Running stage" not in call(fresh, "dvc", "repro", "--pull")
    check_shared(repository, fresh)


@pytest.fixture
def sftp_server(tmp_path):
    """The address of a folder on an SFTP server, and settings with its user's key and another."""
    pytest.importorskip("dvc_ssh", reason="dvc-ssh reaches a remote over SSH: make test-all")
    import asyncssh  # which dvc-ssh brings

    host, user, other = (asyncssh.generate_private_key("ssh-ed25519") for _ in range(3))
    keys = str(tmp_path / "key"), str(tmp_path / "stranger")
    user.write_private_key(keys[0])
    other.write_private_key(keys[1])
    user.write_public_key(tmp_path / "authorized_keys")
    users = str(tmp_path / "authorized_keys")
    options = {"server_host_keys": [host], "authorized_client_keys": users}
    loop = asyncio.new_event_loop()
    server = loop.run_until_complete(asyncssh.listen("127.0.0.1", 0, sftp_factory=True, **options))
    threading.Thread(target=loop.run_forever, daemon=True).start()
    url = f"ssh://127.0.0.1:{server.get_port()}{tmp_path}/store"
    yield url, *({"user": getpass.getuser(), "keyfile": key} for key in keys)
    loop.call_soon_threadsafe(server.close)
    loop.call_soon_threadsafe(loop.stop)


def test_ssh_shares_the_outputs_and_git_sees_no_key(repository, tmp_path, sftp_server):
    url, settings, _ = sftp_server
    clone = share(repository, tmp_path, url, settings)
    assert list((tmp_path / "store/files/md5").iterdir())
    check_shared(repository, clone)
    for folder in (repository, clone):
        seen = call(folder, "git", "grep", "--untracked", "-h", "", "--", ".dvc")
        assert settings["keyfile"] not in seen


def test_ssh_without_the_key_shares_nothing(repository, tmp_path, sftp_server):
    url, _, others = sftp_server
    with pytest.raises(AssertionError, match="Permission denied"):
        share(repository, tmp_path, url, others)
    assert not (tmp_path / "store").exists()
