"""Small real data, and copies of a demo's finished pipeline, which is run once for all tests."""

import contextlib
import os
import shutil
import signal
import ssl
import subprocess
import sys
import threading
from collections.abc import Iterator
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
import vae.environment  # noqa: F401

import numpy as np
import psutil
import pytest
import torch
from filelock import FileLock

import download
import exact
from vae.data import Split, binarize, raw_files, read_idx, save_split
from vae.model import VAE, build_model
from vae.params import Architecture, Params, check_params
from vae.rebuild.build import scratch_environment
from vae.stream import RandomStream

# Those of `make test` are not for a make that a test starts.
for name in ("MAKEFLAGS", "MAKELEVEL", "MFLAGS"):
    os.environ.pop(name, None)

# What a shell runs in the background ignores Ctrl-C, and so would the processes that tests start.
signal.signal(signal.SIGINT, signal.default_int_handler)

ROOT = Path(__file__).resolve().parents[1]


@pytest.fixture(scope="session")
def params() -> Params:
    """The committed parameters."""
    return check_params(ROOT / "params.yaml")


@pytest.fixture(scope="session")
def digits(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder like data/binarized, of scikit-learn's digits."""
    raw, folder = tmp_path_factory.mktemp("raw"), tmp_path_factory.mktemp("binarized")
    download.write_digits(raw)
    for name, (images, labels) in raw_files(raw).items():
        pixels, classes = read_idx(images, 3), read_idx(labels, 1)
        save_split(Split(binarize(pixels, 128), classes), folder / f"{name}.safetensors")
    return folder


@pytest.fixture
def images() -> np.ndarray:
    """100 random binary images, `(100, 784)` uint8."""
    return np.random.default_rng(0).integers(0, 2, (100, 784), dtype=np.uint8)


def model_of(architecture: Architecture, seed: int = 1) -> VAE:
    """A model with the initial values that a seed draws."""
    model = build_model(architecture)
    RandomStream(seed, 16, 1, 1).initialise(model)
    return model


def bits(*tensors: torch.Tensor) -> bytes:
    """The bytes of tensors, each row by row."""
    return b"".join(tensor.detach().contiguous().numpy().tobytes() for tensor in tensors)


@pytest.fixture
def restored_modes() -> Iterator[None]:
    """Leave to other tests the arithmetic, the threads and PyTorch's modes."""
    threads = torch.get_num_threads()
    yield
    exact.set_arithmetic("exact")
    exact.set_threads(exact.default_threads())
    torch.use_deterministic_algorithms(False)
    torch.set_flush_denormal(False)
    torch.set_num_threads(threads)


@pytest.fixture
def small() -> Architecture:
    """An architecture that trains in no time."""
    return Architecture(hidden_sizes=(16, 8), latent_size=2)


@pytest.fixture(scope="session")
def finished_demo(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a finished demo, the whole pipeline on digits. Tests only read it.

    pytest-xdist's workers share it: their temporary folders have one parent.
    """
    shared = tmp_path_factory.getbasetemp()
    if "PYTEST_XDIST_WORKER" in os.environ:
        shared = shared.parent
    folder, finished = shared / "finished-demo", shared / "demo-is-finished"
    with FileLock(shared / "demo.lock"):
        if not finished.exists():
            command = [sys.executable, ROOT / "src/tools/demo.py", folder]
            subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
            finished.touch()
    return folder


def copy_demo(finished_demo: Path, folder: Path) -> Path:
    """Copy a finished demo to the new `folder`; opening its store makes its runs' files its own."""
    return Path(shutil.copytree(finished_demo, folder))


@pytest.fixture
def demo(finished_demo: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A finished demo for a test to change; its 200 MB are removed after the test."""
    folder = copy_demo(finished_demo, tmp_path_factory.mktemp("copy") / "demo")
    yield folder
    shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture
def repository(demo: Path) -> Path:
    """A finished demo as a git repository, as a user's clone is."""
    commit_all(demo)
    return demo


@pytest.fixture
def bare(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A working folder with the committed parameters and no variables of a user or of DVC."""
    for name in ("MLFLOW_TRACKING_URI", "DVC_ROOT", "DVC_STAGE", "DVC_EXP_NAME"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.chdir(tmp_path)
    shutil.copy(ROOT / "params.yaml", tmp_path)
    return tmp_path


def commit_all(demo: Path) -> None:
    """Commit a demo's folder to a git repository of its own."""
    names = [".gitattributes", ".dvc/config"]
    names += [f"{folder}.gitignore" for folder in ("", "data/", "models/", "plots/")]
    for name in names:
        shutil.copy(ROOT / name, demo / name)
    (demo / ".dvc/.gitignore").write_text("/config.local\n/tmp\n/cache\n")
    commands = "init --quiet", "config user.name a", "config user.email a@b", "add ."
    for command in (*commands, "commit --quiet --message demo"):
        subprocess.run(["git", *command.split()], cwd=demo, check=True)


def link_environment(folder: Path) -> None:
    """Give a folder the Makefile and a finished .venv: the environment of the tests."""
    for name in ("Makefile", "requirements.lock"):
        shutil.copy(ROOT / name, folder)
    (folder / ".venv").mkdir()
    for name in ("bin", "lib", "pyvenv.cfg"):
        (folder / ".venv" / name).symlink_to(Path(sys.prefix) / name)
    for name in ("installed", "study", "services", "ci", "bench"):
        (folder / f".venv/.{name}").write_text(f"{folder.resolve()}\n")


def listening(pid: int) -> set[str]:
    """Find the addresses at which a process and its descendants listen."""
    found = set()
    for process in [psutil.Process(pid), *psutil.Process(pid).children(recursive=True)]:
        with contextlib.suppress(psutil.Error):  # it has ended
            connections = process.net_connections(kind="inet")
            found |= {each.laddr.ip for each in connections if each.status == psutil.CONN_LISTEN}
    return found


class FileHandler(SimpleHTTPRequestHandler):
    """Serves files, those in /encoded as gzipped."""

    def log_message(self, *arguments: object) -> None:
        pass

    def end_headers(self) -> None:
        if self.path.startswith("/encoded"):
            self.send_header("Content-Encoding", "gzip")
        super().end_headers()


@contextlib.contextmanager
def serving(folder: Path, context: ssl.SSLContext | None = None) -> Iterator[int]:
    """Serve a folder, by HTTPS where a context is given; yield the port."""
    handler = partial(FileHandler, directory=folder)
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        server.handle_error = lambda *_: None  # a client that closed the connection
        if context:
            server.socket = context.wrap_socket(server.socket, server_side=True)
        threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
        yield server.server_port
        server.shutdown()


def call(folder: Path, *command: str | Path, **variables: str) -> str:
    """Run a command in `folder`, under this Python; return its output. It must succeed."""
    environment = scratch_environment() | variables
    result = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True)
    assert result.returncode == 0, result.stdout + result.stderr
    return result.stdout
