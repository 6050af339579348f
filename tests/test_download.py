import contextlib
import gzip
import hashlib
import re
import shutil
import socket
import ssl
import subprocess
import threading
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from importlib.util import find_spec
from itertools import chain
from pathlib import Path

import pytest
import torchvision

import download
from conftest import ROOT
from vae.cli import UserError
from vae.data import FILE_NAMES, raw_files, read_idx
from vae.files import md5
from vae.rebuild.build import override_params

CONTENT = b"the right bytes" * 1000
CHECKSUM = hashlib.md5(CONTENT).hexdigest()
NAME = "train-labels-idx1-ubyte.gz"


@pytest.fixture
def settings(params):
    return params.download.model_copy(update={"attempts": 2, "pause": 0.0, "timeout": 0.5})


@pytest.fixture
def folders(tmp_path):
    """Mirror folders: one with the right file, one with a damaged one, one without."""
    for name, content in (("good", CONTENT), ("damaged", b"<html>" + CONTENT), ("empty", None)):
        (tmp_path / name).mkdir()
        if content:
            (tmp_path / name / NAME).write_bytes(content)
    return tmp_path


class Handler(SimpleHTTPRequestHandler):
    """Serves files, those in /encoded as gzipped; /circle redirects to itself."""

    def log_message(self, *arguments):
        pass

    def do_GET(self):
        if self.path.startswith("/circle"):
            self.send_response(302)
            self.send_header("Location", self.path)
            self.end_headers()
        else:
            super().do_GET()

    def end_headers(self):
        if self.path.startswith("/encoded"):
            self.send_header("Content-Encoding", "gzip")
        super().end_headers()


class Server(ThreadingHTTPServer):
    def handle_error(self, request, client_address):
        pass  # a client that closed the connection


@contextlib.contextmanager
def serving(folder, context=None):
    """Serve a folder; give the port."""
    with Server(("127.0.0.1", 0), partial(Handler, directory=folder)) as httpd:
        if context:
            httpd.socket = context.wrap_socket(httpd.socket, server_side=True)
        threading.Thread(target=httpd.serve_forever, args=(0.01,), daemon=True).start()
        yield httpd.server_port
        httpd.shutdown()


@pytest.fixture
def server(folders):
    """The URL of an HTTP server of the mirror folders."""
    with serving(folders) as port:
        yield f"http://127.0.0.1:{port}"


@pytest.fixture
def silent():
    """The URL of a server that accepts connections and never answers."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        yield f"http://127.0.0.1:{listener.getsockname()[1]}"


def fetched(settings, folder, *mirrors, name=NAME, checksum=CHECKSUM) -> bytes:
    """Fetch a file from the first mirror that gives it; return its bytes."""
    path = folder / "raw" / name
    download.fetch_from_any([*map(str, mirrors)], name, checksum, path, settings)
    assert list(path.parent.iterdir()) == [path]
    content = path.read_bytes()
    path.unlink()
    return content


def test_a_folder_a_file_url_and_a_server_are_mirrors(folders, server, settings):
    for mirror in (folders / "good", (folders / "good").as_uri(), f"{server}/good"):
        assert fetched(settings, folders, mirror) == CONTENT


def test_a_transfer_encoding_of_gzip_is_not_undone(folders, server, settings):
    """Some servers name the compression of the file itself."""
    content = gzip.compress(CONTENT)
    (folders / "encoded").mkdir()
    (folders / "encoded" / NAME).write_bytes(content)
    checksum = hashlib.md5(content).hexdigest()
    assert fetched(settings, folders, f"{server}/encoded", checksum=checksum) == content


def test_a_relative_mirror_is_found_from_an_experiments_folder(folders, settings, monkeypatch):
    monkeypatch.setenv("DVC_ROOT", str(folders / "empty"))
    monkeypatch.chdir(folders)
    assert fetched(settings, folders, "../good") == CONTENT


def test_any_failure_leads_to_the_next_mirror(folders, server, silent, settings):
    mirrors = [f"{server}/damaged", f"{server}/empty", silent, "http://127.0.0.1:1"]
    assert fetched(settings, folders, *mirrors, f"{server}/good") == CONTENT


def test_when_all_mirrors_fail_each_is_named_with_its_reason(folders, server, silent, settings):
    path = folders / "raw" / NAME
    reasons = {
        f"{server}/damaged": "its checksum is",
        f"{server}/empty": "HTTP 404",
        silent: "too slow (2 attempts)",
        f"{server}/circle": "HTTP 302",
        "http://127.0.0.1:1": "no connection (2 attempts)",
        str(folders / "nowhere"): "No such file or directory",
        str(folders / "folder"): "Is a directory",
        "http://[": "not a valid URL or answer",
    }
    (folders / "folder" / NAME).mkdir(parents=True)
    with pytest.raises(UserError) as caught:
        download.fetch_from_any(list(reasons), NAME, CHECKSUM, path, settings)
    message = str(caught.value)
    for mirror, reason in reasons.items():
        assert re.search(re.escape(f"{mirror}: {reason}"), message)
    assert "MNIST_MIRROR" in message
    assert "make demo" in message
    assert list(path.parent.iterdir()) == []


def test_the_environment_variable_goes_before_the_parameters(params, monkeypatch):
    monkeypatch.setenv("MNIST_MIRROR", "/here")
    assert download.mirrors(params.download) == ["/here", *params.download.mirrors]
    monkeypatch.delenv("MNIST_MIRROR")
    assert download.mirrors(params.download) == list(params.download.mirrors)
    fashion = params.download.model_copy(update={"dataset": "fashion-mnist"})
    assert download.mirrors(fashion) == [download.MIRRORS["fashion-mnist"]]


def checksums() -> dict[str, list[tuple[str, str]]]:
    """Names and checksums of the files of src/download.md5, by the name of torchvision's class."""
    found = {}
    for line in download.CHECKSUMS.read_text().splitlines():
        checksum, path = line.split("  ")
        folder, raw, name = path.split("/")
        assert raw == "raw"
        found.setdefault(folder, []).append((name, checksum))
    return found


@pytest.mark.parametrize("dataset", download.FOLDERS)
def test_files_checksums_and_mirrors_are_torchvisions(dataset):
    kind = getattr(torchvision.datasets, download.FOLDERS[dataset])
    assert checksums()[kind.__name__] == kind.resources
    assert [name for name, _ in kind.resources] == [*chain(*FILE_NAMES.values())]
    if dataset != "mnist":
        assert kind.mirrors == [download.MIRRORS[dataset] + "/"]


@pytest.mark.parametrize("dataset", download.FOLDERS)
def test_torchvision_reads_a_downloaded_data_set(tmp_path, monkeypatch, dataset):
    """Of other data with their checksums: the data sets themselves are on the internet."""
    name = download.FOLDERS[dataset]
    download.write_digits(tmp_path)
    mirror = tmp_path / "Digits/raw"
    shutil.copy(ROOT / "params.yaml", tmp_path)
    change = {"dataset": dataset, "attempts": 1, "mirrors": ["http://127.0.0.1:9"]}
    override_params(tmp_path / "params.yaml", {"download": change})
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("MNIST_MIRROR", str(mirror))
    monkeypatch.setattr("sys.argv", ["download.py", "data"])
    monkeypatch.setattr(download, "MIRRORS", dict.fromkeys(download.MIRRORS, "http://127.0.0.1:9"))
    with pytest.raises(UserError, match=r"its checksum is .*, not "):
        download.main()
    lines = [f"{md5(mirror / file)}  {name}/raw/{file}" for file, _ in checksums()[name]]
    (tmp_path / "checksums").write_text("\n".join(lines))
    monkeypatch.setattr(download, "CHECKSUMS", tmp_path / "checksums")
    download.main()
    files = raw_files(Path("data"))
    assert files["train"][0] == Path("data", name, "raw", "train-images-idx3-ubyte.gz")
    assert len(read_idx(files["test"][1], 1)) == 297
    assert len(getattr(torchvision.datasets, name)("data", train=False)) == 297


def test_an_offline_copy_comes_before_the_public_mirrors(params):
    first, *rest = params.download.mirrors
    assert first == "../shared/mnist"
    assert rest
    assert all(mirror.startswith("https://") for mirror in rest)


def test_a_mirrors_password_is_not_printed(settings, tmp_path, capsys):
    with pytest.raises(UserError, match="no mirror gives") as caught:
        fetched(settings, tmp_path, "http://user:secret@127.0.0.1:9/mnist?token=secret")
    printed = capsys.readouterr()
    assert "http://127.0.0.1:9/mnist: no connection" in printed.err
    assert "secret" not in printed.out + printed.err + str(caught.value)


@pytest.fixture
def certified(folders, monkeypatch):
    """The URL of a TLS server of the mirror folders; its certificate is cert.pem there."""
    for name in ("REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE", "HTTPS_PROXY", "ALL_PROXY", "NO_PROXY"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.lower(), raising=False)
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
    assert fetched(settings, folders, f"{certified}/good") == CONTENT


@pytest.mark.parametrize(
    ("variables", "words"),
    [
        ({}, "certificate: .*certificate verify failed: self-signed certificate"),
        ({"REQUESTS_CA_BUNDLE": "/gone"}, "certificate: .* invalid path: /gone"),
        ({"CURL_CA_BUNDLE": "/gone"}, "certificate: .* invalid path: /gone"),
        ({"REQUESTS_CA_BUNDLE": "params.yaml"}, "certificate: .*no certificate or crl found"),
        pytest.param(
            {"ALL_PROXY": "socks5h://127.0.0.1:9"},
            "ALL_PROXY is not valid",
            marks=pytest.mark.skipif(
                bool(find_spec("socks")), reason="tests/services brings PySocks"
            ),
        ),
        ({"ALL_PROXY": "socks://127.0.0.1:9/"}, "ALL_PROXY is not valid"),
        ({"HTTPS_PROXY": "ftp://127.0.0.1:9"}, "HTTPS_PROXY or ALL_PROXY"),
        ({"HTTPS_PROXY": "http://a:secret@127.0.0.1:9"}, r"proxy: \[Errno 111\] Connection"),
        ({"HTTPS_PROXY": "a:secret@127.0.0.1:9"}, "HTTPS_PROXY or ALL_PROXY"),
        ({"HTTPS_PROXY": "http://a:secret@["}, "HTTPS_PROXY or ALL_PROXY"),
    ],
)
def test_a_certificate_or_proxy_that_fails_is_named_at_once(
    folders, certified, settings, monkeypatch, capsys, variables, words
):
    monkeypatch.chdir(ROOT)
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    assert fetched(settings, folders, f"{certified}/good", folders / "good") == CONTENT
    printed = capsys.readouterr().err
    assert re.match(f"{NAME} not from {certified}/good: .*{words}", printed)
    assert "attempts" not in printed  # of which there was one
    assert printed.count("\n") == 1
    assert "secret" not in printed
