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


def make_wheel(folder: Path, name: str, release: str, files: dict[str, bytes]) -> None:
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


@pytest.fixture(scope="module")
def index(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A package index as files: `simple/NAME/` for each package, and all wheels in `wheels`."""
    folder = tmp_path_factory.mktemp("index")
    (folder / "wheels").mkdir()
    uv = (Path(sys.executable).parent / "uv").read_bytes()
    make_wheel(folder / "wheels", "uv", UV, {f"uv-{UV}.data/scripts/uv": uv})
    for module in MODULES:
        name, _, inner = module.partition(".")
        files = {f"{name}/__init__.py": b"def javascript_bundle(text): return text\n"}
        make_wheel(folder / "wheels", name, "1.0", files | {f"{name}/{inner}.py": b""})
    make_wheel(folder / "wheels", "numpy", "2.0", {"numpy/__init__.py": b""})
    for wheel in (folder / "wheels").iterdir():
        page = folder / "simple" / wheel.name.partition("-")[0].replace("_", "-") / "index.html"
        page.parent.mkdir(parents=True, exist_ok=True)
        with page.open("a") as file:
            file.write(f'<a href="../../wheels/{wheel.name}">{wheel.name}</a><br>\n')
    return folder


@pytest.fixture(scope="module")
def served(index: Path) -> Iterator[str]:
    """The address of that index on a server of this process."""
    with serving(index) as port:
        yield f"http://127.0.0.1:{port}"


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

    def run(self, **variables: str) -> subprocess.CompletedProcess:
        """Run `make setup` in an environment of its own."""
        environment = {"PATH": os.environ["PATH"], "HOME": str(self.home), **NOWHERE}
        return subprocess.run(
            ["make", "setup", f"PYTHON={sys.executable}"],
            cwd=self.folder,
            env=environment | {"NO_PROXY": "127.0.0.1"} | variables,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )

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
def checkout(tmp_path: Path, index: Path) -> Checkout:
    return Checkout(tmp_path, index)


def test_variables_name_the_index_but_no_other_place(checkout, served, tmp_path):
    elsewhere = tmp_path / "elsewhere"
    checkout.configure(f"[install]\ntarget = {elsewhere}\n[global]\nuser = true\n")
    checkout.make(
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
    assert not elsewhere.exists()
    assert checkout.make(BASH_ENV="/no/such") == "make: Nothing to be done for 'setup'.\n"


def test_an_index_that_uvs_settings_name_serves_pip_too(checkout, served):
    checkout.make(UV_INDEX_URL=f"{served}/simple")


def test_a_folder_of_wheels_serves_without_an_index(checkout, index, tmp_path):
    other = tmp_path / "other"
    other.mkdir()
    shutil.copy(index / f"wheels/uv-{UV}-py3-none-any.whl", other)
    checkout.configure(
        f"[global]\nno-index = true\nfind-links =\n    {other}\n    {index}/wheels\n"
    )
    checkout.make()


@pytest.fixture
def installed(checkout: Checkout, served: str) -> Checkout:
    """A checkout whose packages came from the index that pip's settings file names."""
    checkout.configure(f"[global]\nindex-url = {served}/simple\n")
    checkout.make()
    return checkout


def test_missing_files_are_installed_again(installed, served):
    programs, kept = installed.folder / ".venv/bin", installed.packages / "own.py"
    kept.touch()  # a user's own package stays
    install = f"install --quiet --index-url {served}/simple numpy==2.0"
    subprocess.run([programs / "pip", *install.split()], check=True)
    shutil.rmtree(installed.packages / "torch")
    (programs / "uv").unlink()
    installed.make()
    assert (installed.packages / "numpy-1.0.dist-info").exists()
    assert (programs / "uv").exists()
    assert kept.exists()
    assert "Nothing to be done" in installed.make()


def test_an_environment_without_its_interpreter_is_made_again(installed, tmp_path):
    python = installed.folder / ".venv/bin/python"
    python.unlink()
    python.symlink_to(tmp_path / "gone")
    assert "Making the environment" in installed.make()
    assert subprocess.run([python, "-c", "import torch"]).returncode == 0


@pytest.mark.parametrize(
    ("repository", "reason"), [(False, "not a git repository"), (True, "dubious ownership")]
)
def test_set_up_without_git_says_why_and_makes_nothing(checkout, repository, reason):
    """In the folder of a source archive, and in a checkout that another user owns."""
    if not repository:
        shutil.rmtree(checkout.folder / ".git")
    # Git's own switch for its tests of this.
    result = checkout.run(GIT_TEST_ASSUME_DIFFERENT_OWNER=str(int(repository)), LC_ALL="C")
    assert result.returncode
    assert reason in result.stdout
    assert "error: git cannot use this folder, for the reason above" in result.stdout
    assert not (checkout.folder / ".venv").exists()
