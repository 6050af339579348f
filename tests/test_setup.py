"""Set-up of a small lock of made-up packages: where they come from, and what is repaired."""

import hashlib
import os
import shutil
import subprocess
import sys
import zipfile
from collections.abc import Iterator
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from importlib.metadata import version
from pathlib import Path
from threading import Thread

import pytest

from conftest import ROOT

UV = version("uv")
# What set-up imports, by the module; each is a package of its own here.
MODULES = ["dvc.cli", "matplotlib.figure", "mlflow", "numpy", "pandas", "safetensors"]
MODULES += ["sklearn.datasets", "torch", "vl_convert"]
# No server listens at the discard port, so that a request to any other place fails at once.
NOWHERE = {f"{name}_PROXY": "http://127.0.0.1:9" for name in ("HTTP", "HTTPS", "ALL")}


def make_wheel(folder: Path, name: str, release: str, files: dict[str, bytes]) -> Path:
    """Write a wheel of these files; those below NAME.data/scripts become programs."""
    path = folder / f"{name}-{release}-py3-none-any.whl"
    about = f"{name}-{release}.dist-info"
    metadata = f"Metadata-Version: 2.1\nName: {name}\nVersion: {release}\n"
    files = {
        **files,
        f"{about}/METADATA": metadata.encode(),
        f"{about}/WHEEL": b"Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
    }
    with zipfile.ZipFile(path, "w") as archive:
        for file, content in files.items():
            entry = zipfile.ZipInfo(file)
            entry.external_attr = 0o100755 << 16  # a file that can be run
            archive.writestr(entry, content)
        archive.writestr(f"{about}/RECORD", "".join(f"{file},,\n" for file in files))
    return path


@pytest.fixture(scope="module")
def index(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A package index as files: `simple/NAME/` for each package, and all wheels in `wheels`."""
    folder = tmp_path_factory.mktemp("index")
    (folder / "wheels").mkdir()
    uv = (Path(sys.executable).parent / "uv").read_bytes()
    make_wheel(folder / "wheels", "uv", UV, {f"uv-{UV}.data/scripts/uv": uv})
    for module in MODULES:
        name, _, inner = module.partition(".")
        text = b"def javascript_bundle(text): return text\n"
        files = {f"{name}/__init__.py": text, **({f"{name}/{inner}.py": b""} if inner else {})}
        make_wheel(folder / "wheels", name, "1.0", files)
    make_wheel(folder / "wheels", "numpy", "2.0", {"numpy/__init__.py": b""})
    for wheel in (folder / "wheels").iterdir():
        page = folder / "simple" / wheel.name.partition("-")[0].replace("_", "-") / "index.html"
        page.parent.mkdir(parents=True, exist_ok=True)
        with page.open("a") as file:
            file.write(f'<a href="../../wheels/{wheel.name}">{wheel.name}</a><br>\n')
    return folder


class Quiet(SimpleHTTPRequestHandler):
    def log_message(self, *arguments: object) -> None:
        pass


@pytest.fixture(scope="module")
def served(index: Path) -> Iterator[str]:
    """The address of that index on a server of this process."""
    handler = partial(Quiet, directory=index)
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()


class Checkout:
    """A checkout with a small lock, in which `make` runs without any network."""

    def __init__(self, folder: Path, index: Path) -> None:
        self.folder, self.home = folder / "checkout", folder / "home"
        self.home.mkdir()
        for name in ("Makefile", "src/tools/install.sh", "src/vae/environment.mk"):
            (self.folder / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(ROOT / name, self.folder / name)
        subprocess.run(["git", "init", "--quiet", self.folder], check=True)
        lock = ""
        for wheel in sorted((index / "wheels").iterdir()):
            name, release, *_ = wheel.name.split("-")
            if (name, release) != ("numpy", "2.0"):
                checksum = hashlib.sha256(wheel.read_bytes()).hexdigest()
                lock += f"{name.replace('_', '-')}=={release} \\\n    --hash=sha256:{checksum}\n"
        (self.folder / "requirements.lock").write_text(lock)
        self.packages = self.folder / f".venv/lib/python{sys.version_info[0]}.{sys.version_info[1]}"
        self.packages /= "site-packages"

    def make(self, *arguments: str, **variables: str) -> subprocess.CompletedProcess:
        """Run `make setup` in an environment of its own."""
        environment = {"PATH": os.environ["PATH"], "HOME": str(self.home), **NOWHERE}
        environment |= {"NO_PROXY": "127.0.0.1"} | variables
        return subprocess.run(
            ["make", "setup", f"PYTHON={sys.executable}", *arguments],
            cwd=self.folder,
            env=environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )

    def configure(self, text: str) -> None:
        """Write the user's pip.conf."""
        path = self.home / ".config/pip/pip.conf"
        path.parent.mkdir(parents=True)
        path.write_text(text)

    def installed(self) -> bool:
        return (self.packages / "torch/__init__.py").exists()


@pytest.fixture
def checkout(tmp_path: Path, index: Path) -> Checkout:
    return Checkout(tmp_path, index)


def test_packages_come_from_the_index_that_pips_settings_file_names(checkout, served):
    checkout.configure(f"[global]\nindex-url = {served}/simple\n")
    result = checkout.make()
    assert checkout.installed(), result.stdout


def test_variables_name_the_index_but_no_other_place(checkout, served, tmp_path):
    elsewhere = tmp_path / "elsewhere"
    checkout.configure(f"[install]\ntarget = {elsewhere}\n[global]\nuser = true\n")
    result = checkout.make(
        PIP_INDEX_URL=f"{served}/simple",
        PIP_TARGET=str(elsewhere),
        PIP_PREFIX=str(elsewhere),
        PIP_USER="1",
        PIP_NO_DEPS="junk",
        UV_SYSTEM_PYTHON="1",
        UV_NO_VERIFY_HASHES="1",
        UV_PROJECT_ENVIRONMENT=str(elsewhere),
        BASH_ENV=str(tmp_path / "no such file"),
        PYTHONWARNINGS="error",
    )
    assert checkout.installed(), result.stdout
    assert not elsewhere.exists()
    # All these are still set: nothing to do, and nothing said about them.
    assert checkout.make(BASH_ENV="/no/such").stdout == "make: Nothing to be done for 'setup'.\n"


def test_an_index_that_uvs_settings_name_serves_pip_too(checkout, served):
    result = checkout.make(UV_INDEX_URL=f"{served}/simple")
    assert checkout.installed(), result.stdout


def test_a_folder_of_wheels_serves_without_an_index(checkout, index, tmp_path):
    other = tmp_path / "other"
    other.mkdir()
    shutil.copy(index / f"wheels/uv-{UV}-py3-none-any.whl", other)
    checkout.configure(
        f"[global]\nno-index = true\nfind-links =\n    {other}\n    {index}/wheels\n"
    )
    result = checkout.make()
    assert checkout.installed(), result.stdout


def test_missing_files_are_installed_again(checkout, served):
    checkout.configure(f"[global]\nindex-url = {served}/simple\n")
    checkout.make()
    pip, kept = checkout.folder / ".venv/bin/pip", checkout.packages / "own.py"
    kept.touch()  # a user's own package stays
    install = [pip, "install", "--quiet", "--index-url", f"{served}/simple", "numpy==2.0"]
    subprocess.run(install, check=True)
    shutil.rmtree(checkout.packages / "torch")
    (checkout.folder / ".venv/bin/uv").unlink()
    result = checkout.make()
    assert checkout.installed(), result.stdout
    assert (checkout.packages / "numpy-1.0.dist-info").exists()
    assert (checkout.folder / ".venv/bin/uv").exists()
    assert kept.exists()
    assert "Nothing to be done" in checkout.make().stdout


def test_an_environment_without_its_interpreter_is_made_again(checkout, served, tmp_path):
    checkout.configure(f"[global]\nindex-url = {served}/simple\n")
    checkout.make()
    python = checkout.folder / ".venv/bin/python"
    python.unlink()
    python.symlink_to(tmp_path / "gone")
    result = checkout.make()
    assert "Making the environment" in result.stdout
    assert subprocess.run([python, "-c", "import torch"]).returncode == 0
