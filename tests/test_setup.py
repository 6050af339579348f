"""Set-up of a small lock of made-up packages: where they come from, and what is repaired."""

import hashlib
import os
import shutil
import subprocess
import sys
import zipfile
from collections.abc import Iterator
from importlib.metadata import version
from pathlib import Path

import pytest

from conftest import ROOT, serving

UV = version("uv")
# What set-up imports, by the module; each is a package of its own here.
MODULES = ["dvc.cli", "matplotlib.figure", "mlflow", "numpy", "pandas", "safetensors"]
MODULES += ["sklearn.datasets", "torch", "vl_convert"]
# No server listens at the discard port, so that a request to any other place fails at once.
NOWHERE = {f"{name}_PROXY": "http://127.0.0.1:9" for name in ("HTTP", "HTTPS", "ALL")}


def make_wheel(folder: Path, name: str, release: str, files: dict[str, str | bytes]) -> None:
    """Write a wheel of these files; those below NAME.data/scripts become programs."""
    about = f"{name}-{release}.dist-info"
    metadata = f"Metadata-Version: 2.1\nName: {name}\nVersion: {release}\n"
    wheel = "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n"
    files = {**files, f"{about}/METADATA": metadata, f"{about}/WHEEL": wheel}
    files[f"{about}/RECORD"] = "".join(f"{file},,\n" for file in files)
    with zipfile.ZipFile(folder / f"{name}-{release}-py3-none-any.whl", "w") as archive:
        for file, content in files.items():
            entry = zipfile.ZipInfo(file)
            entry.external_attr = 0o100755 << 16  # a file that can be run
            archive.writestr(entry, content)


@pytest.fixture(scope="module")
def index(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Path, str]]:
    """A folder with packages in `wheels` and a lock of them; the URL of an index of them."""
    folder = tmp_path_factory.mktemp("index")
    wheels, lock = folder / "wheels", ""
    wheels.mkdir()
    uv = (Path(sys.executable).parent / "uv").read_bytes()
    make_wheel(wheels, "uv", UV, {f"uv-{UV}.data/scripts/uv": uv})
    for module in MODULES:
        name, _, inner = module.partition(".")
        files = {f"{name}/__init__.py": "def javascript_bundle(text): return text\n"}
        make_wheel(wheels, name, "1.0", files | {f"{name}/{inner}.py": ""})
    make_wheel(wheels, "numpy", "2.0", {"numpy/__init__.py": ""})
    for wheel in sorted(wheels.iterdir()):
        name, release, *_ = wheel.name.replace("_", "-").rsplit("-", 4)
        (folder / "simple" / name).mkdir(parents=True, exist_ok=True)
        # The server lists a folder's files as links.
        (folder / "simple" / name / wheel.name).hardlink_to(wheel)
        if release != "2.0":
            checksum = hashlib.sha256(wheel.read_bytes()).hexdigest()
            lock += f"{name}=={release} \\\n    --hash=sha256:{checksum}\n"
    (folder / "requirements.lock").write_text(lock)
    with serving(folder) as port:
        yield folder, f"http://127.0.0.1:{port}/simple"


class Checkout:
    """A checkout with a small lock, in which `make` runs without any network."""

    def __init__(self, folder: Path, index: Path, url: str) -> None:
        self.folder, self.home = folder / "checkout", folder / "home"
        self.index, self.url = index, url
        self.home.mkdir()
        for name in ("Makefile", "src/tools/install.sh", "src/vae/environment.mk"):
            (self.folder / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(ROOT / name, self.folder / name)
        subprocess.run(["git", "init", "--quiet", self.folder], check=True)
        shutil.copy(index / "requirements.lock", self.folder)
        self.packages = self.folder / f".venv/lib/python{sys.version_info[0]}.{sys.version_info[1]}"
        self.packages /= "site-packages"

    def run(self, **variables: str) -> subprocess.CompletedProcess:
        """Run `make setup` in an environment of its own."""
        environment = {"PATH": os.environ["PATH"], "HOME": str(self.home), "NO_PROXY": "127.0.0.1"}
        command = ["make", "setup", f"PYTHON={sys.executable}"]
        options = {"cwd": self.folder, "env": environment | NOWHERE | variables, "text": True}
        return subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, **options)

    def make(self, **variables: str) -> str:
        """Return what `make setup` prints. It must succeed."""
        result = self.run(**variables)
        assert (self.packages / "torch/__init__.py").exists(), result.stdout
        return result.stdout

    def configure(self, text: str) -> None:
        """Write the user's pip.conf."""
        path = self.home / ".config/pip/pip.conf"
        path.parent.mkdir(parents=True)
        path.write_text(text)


@pytest.fixture
def checkout(tmp_path: Path, index: tuple[Path, str]) -> Checkout:
    return Checkout(tmp_path, *index)


def test_variables_name_the_index_but_no_other_place(checkout, tmp_path):
    elsewhere = tmp_path / "elsewhere"
    checkout.configure(f"[install]\ntarget = {elsewhere}\n[global]\nuser = true\n")
    places = ("PIP_TARGET", "PIP_PREFIX", "UV_PROJECT_ENVIRONMENT", "BASH_ENV")
    switches = ("PIP_USER", "UV_SYSTEM_PYTHON", "UV_NO_VERIFY_HASHES")
    variables = dict.fromkeys(places, str(elsewhere)) | dict.fromkeys(switches, "1")
    variables |= {"PIP_NO_DEPS": "junk", "PYTHONWARNINGS": "error"}
    checkout.make(PIP_INDEX_URL=checkout.url, **variables)
    assert not elsewhere.exists()
    assert checkout.make(BASH_ENV="/no/such") == "make: Nothing to be done for 'setup'.\n"


def test_an_index_that_uvs_settings_name_serves_pip_too(checkout):
    checkout.make(UV_INDEX_URL=checkout.url)


def test_a_folder_of_wheels_serves_without_an_index(checkout, tmp_path):
    other = tmp_path / "other"
    other.mkdir()
    shutil.copy(checkout.index / f"wheels/uv-{UV}-py3-none-any.whl", other)
    links = f"    {other}\n    {checkout.index}/wheels\n"
    checkout.configure(f"[global]\nno-index = true\nfind-links =\n{links}")
    checkout.make()


def test_what_is_missing_is_installed_again(checkout, tmp_path):
    """Files of packages, a package's version, and the interpreter."""
    checkout.configure(f"[global]\nindex-url = {checkout.url}\n")
    checkout.make()
    programs, kept = checkout.folder / ".venv/bin", checkout.packages / "own.py"
    kept.touch()  # a user's own package stays
    install = f"install --quiet --index-url {checkout.url} numpy==2.0"
    subprocess.run([programs / "pip", *install.split()], check=True)
    shutil.rmtree(checkout.packages / "torch")
    (programs / "uv").unlink()
    checkout.make()
    assert (checkout.packages / "numpy-1.0.dist-info").exists()
    assert (programs / "uv").exists()
    assert kept.exists()
    assert "Nothing to be done" in checkout.make()
    (programs / "python").unlink()
    (programs / "python").symlink_to(tmp_path / "gone")
    assert "Making the environment" in checkout.make()
    assert subprocess.run([programs / "python", "-c", "import torch"]).returncode == 0


@pytest.mark.parametrize("reason", ["not a git repository", "dubious ownership"])
def test_set_up_without_git_says_why_and_makes_nothing(checkout, reason):
    """In the folder of a source archive, and in a checkout that another user owns."""
    owned = reason == "dubious ownership"
    if not owned:
        shutil.rmtree(checkout.folder / ".git")
    # Git's own switch for its tests of this.
    result = checkout.run(GIT_TEST_ASSUME_DIFFERENT_OWNER=str(int(owned)), LC_ALL="C")
    assert result.returncode
    assert reason in result.stdout
    assert "error: git cannot use this folder, for the reason above" in result.stdout
    assert not (checkout.folder / ".venv").exists()
