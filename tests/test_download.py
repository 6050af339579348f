import gzip
import hashlib
import os
import re
import shutil
import socket
import ssl
import subprocess
from importlib.util import find_spec
from itertools import chain
from pathlib import Path

import pytest
import torchvision

import download
from conftest import ROOT, serving
from vae.cli import UserError
from vae.data import FILE_NAMES, raw_files
from vae.files import md5
from vae.mirror import fetch
from vae.rebuild.build import override_params

CONTENT = gzip.compress(b"the right bytes", mtime=0)
CHECKSUM = hashlib.md5(CONTENT).hexdigest()
NAME = "train-labels-idx1-ubyte.gz"
NO_SOCKS = pytest.mark.skipif(bool(find_spec("socks")), reason="tests/services brings PySocks")


@pytest.fixture
def settings(params):
    return params.download.model_copy(update={"attempts": 2, "pause": 0.0, "timeout": 0.5})


@pytest.fixture
def folders(tmp_path):
    """Mirror folders: two with the right file, one with a damaged one, one without."""
    for name in ("good", "encoded", "damaged", "empty"):
        (tmp_path / name).mkdir()
        (tmp_path / name / NAME).write_bytes(CONTENT)
    (tmp_path / "damaged" / NAME).write_bytes(b"<html>")
    (tmp_path / "empty" / NAME).unlink()
    return tmp_path


@pytest.fixture
def server(folders):
    """The URL of an HTTP server of the mirror folders."""
    with serving(folders) as port:
        yield f"http://127.0.0.1:{port}"


def assert_fetched(settings, folder, *mirrors) -> None:
    """Fetch a file from the first mirror that gives it."""
    path = folder / "raw" / NAME
    download.fetch_from_any([*map(str, mirrors)], NAME, CHECKSUM, path, settings)
    assert {file.name: file.read_bytes() for file in path.parent.iterdir()} == {NAME: CONTENT}
    path.unlink()


def test_a_folder_a_file_url_and_a_server_are_mirrors(folders, server, settings):
    good = folders / "good"
    # Some servers name the file's own compression as that of the transfer.
    for mirror in (good, good.as_uri(), f"{server}/good", f"{server}/encoded"):
        assert_fetched(settings, folders, mirror)


def test_a_relative_mirror_is_found_from_an_experiments_folder(folders, settings, monkeypatch):
    monkeypatch.setenv("DVC_ROOT", str(folders / "empty"))
    monkeypatch.chdir(folders)
    assert_fetched(settings, folders, "../good")


def test_when_all_mirrors_fail_each_is_named_with_its_reason(folders, server, settings, capsys):
    (folders / "folder" / NAME).mkdir(parents=True)
    silent = socket.create_server(("127.0.0.1", 0))  # accepts connections and never answers
    reasons = {
        f"{server}/damaged": "its checksum is",
        f"{server}/empty": "HTTP 404",
        f"http://127.0.0.1:{silent.getsockname()[1]}": "timed out (2 attempts)",
        str(folders / "nowhere"): "No such file or directory",
        str(folders / "folder"): "Is a directory",
        "http://[": "not a valid URL or answer",
    }
    private = "http://user:secret@127.0.0.1:1/mnist?token=secret"
    with silent, pytest.raises(UserError, match=r"MNIST_MIRROR .* `make demo`") as caught:
        assert_fetched(settings, folders, private, *reasons)
    reasons["http://127.0.0.1:1/mnist"] = "[Errno 111] Connection refused (2 attempts)"
    for mirror, reason in reasons.items():
        assert f"{mirror}: {reason}" in str(caught.value)
    assert list((folders / "raw").iterdir()) == []
    assert "secret" not in f"{caught.value} {capsys.readouterr()}"


def test_a_full_disk_is_not_blamed_on_the_mirror(folders, settings):
    with pytest.raises(OSError, match="No space left on device"):
        fetch(str(folders / "good"), NAME, Path("/dev/full"), settings)


def test_variable_offline_copy_and_public_mirrors_are_tried_in_order(params, monkeypatch):
    monkeypatch.setenv("MNIST_MIRROR", "/here")
    variable, copy, *public = download.mirrors(params.download)
    assert (variable, copy) == ("/here", "../shared/mnist")
    assert public and all(mirror.startswith("https://") for mirror in public)
    monkeypatch.delenv("MNIST_MIRROR")
    fashion = params.download.model_copy(update={"dataset": "fashion-mnist"})
    assert download.mirrors(fashion) == [download.MIRRORS["fashion-mnist"]]


@pytest.mark.parametrize("dataset", download.FOLDERS)
def test_files_checksums_and_mirrors_are_torchvisions(dataset):
    kind = getattr(torchvision.datasets, download.FOLDERS[dataset])
    assert [name for name, _ in kind.resources] == [*chain(*FILE_NAMES.values())]
    lines = [f"{checksum}  {kind.__name__}/raw/{name}" for name, checksum in kind.resources]
    assert set(lines) <= set(download.CHECKSUMS.read_text().splitlines())
    assert dataset == "mnist" or kind.mirrors == [download.MIRRORS[dataset] + "/"]


@pytest.mark.parametrize("dataset", download.FOLDERS)
def test_torchvision_reads_a_downloaded_data_set(tmp_path, monkeypatch, dataset):
    """Of other data with their checksums: the data sets themselves are on the internet."""
    name = download.FOLDERS[dataset]
    download.write_digits(tmp_path)
    mirror = tmp_path / "Digits/raw"
    shutil.copy(ROOT / "params.yaml", tmp_path)
    override_params(tmp_path / "params.yaml", {"download": {"dataset": dataset}})
    lines = [f"{md5(mirror / file)}  {name}/raw/{file}\n" for file in chain(*FILE_NAMES.values())]
    (tmp_path / "checksums").write_text("".join(lines))
    monkeypatch.setattr(download, "CHECKSUMS", tmp_path / "checksums")
    monkeypatch.setenv("MNIST_MIRROR", str(mirror))
    monkeypatch.setattr("sys.argv", ["download.py", "data"])
    monkeypatch.chdir(tmp_path)
    download.main()
    assert raw_files(Path("data"))["train"][1] == Path("data", name, "raw", NAME)
    assert len(getattr(torchvision.datasets, name)("data", train=False)) == 297


@pytest.fixture
def certified(folders, monkeypatch):
    """The URL of a TLS server of the mirror folders; its certificate is cert.pem there."""
    for name in os.environ:
        if name.upper().endswith(("_CA_BUNDLE", "_PROXY")):
            monkeypatch.delenv(name)
    command = "openssl req -x509 -nodes -days 1 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1"
    command += " -keyout key.pem -out cert.pem -subj /CN=localhost"
    command += " -addext subjectAltName=DNS:localhost"
    subprocess.run(command.split(), cwd=folders, check=True, capture_output=True)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(folders / "cert.pem", folders / "key.pem")
    with serving(folders, context) as port:
        yield f"https://localhost:{port}"


def test_a_servers_own_certificate_can_be_trusted(folders, certified, settings, monkeypatch):
    monkeypatch.setenv("REQUESTS_CA_BUNDLE", str(folders / "cert.pem"))
    assert_fetched(settings, folders, f"{certified}/good")


@pytest.mark.parametrize(
    ("variables", "words"),
    [
        ({}, "certificate: .*certificate verify failed: self-signed certificate"),
        ({"REQUESTS_CA_BUNDLE": "/gone"}, "certificate: .* invalid path: /gone"),
        ({"CURL_CA_BUNDLE": "/gone"}, "certificate: .* invalid path: /gone"),
        ({"REQUESTS_CA_BUNDLE": "params.yaml"}, "certificate: .*no certificate or crl found"),
        pytest.param(
            {"ALL_PROXY": "socks5h://127.0.0.1:9"}, "ALL_PROXY is not valid", marks=NO_SOCKS
        ),
        ({"ALL_PROXY": "socks://127.0.0.1:9/"}, "ALL_PROXY is not valid"),
        ({"HTTPS_PROXY": "ftp://127.0.0.1:9"}, "HTTPS_PROXY or ALL_PROXY"),
        ({"HTTPS_PROXY": "http://a:secret@127.0.0.1:9"}, r"proxy: \[Errno 111\] Connection"),
        ({"HTTPS_PROXY": "http://a:secret@["}, "HTTPS_PROXY or ALL_PROXY"),
    ],
)
def test_a_certificate_or_proxy_that_fails_is_named_at_once(
    folders, certified, settings, monkeypatch, capsys, variables, words
):
    monkeypatch.chdir(ROOT)
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    assert_fetched(settings, folders, f"{certified}/good", folders / "good")
    printed = capsys.readouterr().err
    assert re.fullmatch(f"{NAME} not from {certified}/good: .*{words}.*\n", printed)
    assert "attempts" not in printed  # of which there was one
    assert "secret" not in printed
