import contextlib
import gzip
import hashlib
import re
import shutil
import socket
import ssl
import subprocess
import threading
import time
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
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


@pytest.fixture
def server(folders):
    """The URL of a real HTTP server over the mirror folders, which calls /encoded gzipped."""

    class Quiet(SimpleHTTPRequestHandler):
        def log_message(self, *arguments):
            pass

        def do_GET(self):
            if self.path.startswith("/circle"):
                self.send_response(302)
                self.send_header("Location", self.path)
                self.end_headers()
            elif self.path.startswith("/drip"):
                self.send_response(200)
                self.end_headers()
                with contextlib.suppress(ConnectionError):
                    for _ in range(100):
                        self.wfile.write(b"x")
                        time.sleep(0.1)
            else:
                super().do_GET()

        def end_headers(self):
            if self.path.startswith("/encoded"):
                self.send_header("Content-Encoding", "gzip")
            super().end_headers()

    class QuietServer(ThreadingHTTPServer):
        def handle_error(self, request, client_address):
            pass  # a client that has seen enough

    with QuietServer(("127.0.0.1", 0), partial(Quiet, directory=folders)) as httpd:
        threading.Thread(target=httpd.serve_forever, args=(0.01,), daemon=True).start()
        yield f"http://127.0.0.1:{httpd.server_port}"
        httpd.shutdown()


@pytest.fixture
def silent():
    """The URL of a server that accepts connections and never answers."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        yield f"http://127.0.0.1:{listener.getsockname()[1]}"


def test_a_folder_a_file_url_and_a_server_all_serve_as_mirrors(folders, server, settings, tmp_path):
    for mirror in (str(folders / "good"), (folders / "good").as_uri(), f"{server}/good"):
        path = tmp_path / "raw" / NAME
        download.fetch_from_any([mirror], NAME, CHECKSUM, path, settings)
        assert path.read_bytes() == CONTENT
        path.unlink()


def test_a_server_that_names_the_files_compression_as_the_transfers_serves_as_mirror(
    folders, server, settings, tmp_path
):
    content = gzip.compress(CONTENT)
    (folders / "encoded").mkdir()
    (folders / "encoded" / NAME).write_bytes(content)
    checksum = hashlib.md5(content).hexdigest()
    download.fetch_from_any([f"{server}/encoded"], NAME, checksum, tmp_path / NAME, settings)
    assert (tmp_path / NAME).read_bytes() == content


def test_a_relative_mirror_is_found_from_a_copy_that_dvc_made_for_an_experiment(
    folders, settings, monkeypatch
):
    monkeypatch.setenv("DVC_ROOT", str(folders / "empty"))
    monkeypatch.chdir(folders)
    download.fetch_from_any(["../good"], NAME, CHECKSUM, folders / NAME, settings)
    assert (folders / NAME).read_bytes() == CONTENT


def test_a_wrong_checksum_a_missing_file_and_silence_each_lead_to_the_next_mirror(
    folders, server, silent, settings, tmp_path
):
    path = tmp_path / "raw" / NAME
    mirrors = [
        f"{server}/damaged",
        f"{server}/empty",
        silent,
        "http://127.0.0.1:1",
        f"{server}/good",
    ]
    download.fetch_from_any(mirrors, NAME, CHECKSUM, path, settings)
    assert path.read_bytes() == CONTENT
    assert list(path.parent.iterdir()) == [path]


def test_when_all_mirrors_fail_each_is_named_with_its_reason_and_nothing_stays(
    folders, server, silent, settings, tmp_path
):
    path = tmp_path / "raw" / NAME
    reasons = {
        f"{server}/damaged": "its MD5 sum is",
        f"{server}/empty": "HTTP 404",
        silent: "too slow (2 attempts)",
        f"{server}/drip": "too slow (2 attempts)",
        f"{server}/circle": "HTTP 302",
        "http://127.0.0.1:1": "no connection (2 attempts)",
        str(folders / "empty"): "No such file or directory",
        str(folders / "nowhere"): "No such file or directory",
        str(folders / "loop"): "Too many levels of symbolic links",
        str(folders / "folder"): "Is a directory",
        str(folders / "html"): "its MD5 sum is",
        "http://[": "not a valid URL or answer",
        "http://": "not a valid URL or answer",
    }
    for name in ("loop", "folder", "html"):
        (folders / name).mkdir()
    (folders / "loop" / NAME).symlink_to(NAME)
    (folders / "folder" / NAME).mkdir()
    (folders / "html" / NAME).write_text("<html>not found</html>")
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


def sums() -> dict[str, list[tuple[str, str]]]:
    """Names and sums of the files of src/download.md5, by the name of torchvision's class."""
    found = {}
    for line in download.SUMS.read_text().splitlines():
        checksum, path = line.split("  ")
        folder, raw, name = path.split("/")
        assert raw == "raw"
        found.setdefault(folder, []).append((name, checksum))
    return found


@pytest.mark.parametrize("dataset", download.FOLDERS)
def test_files_sums_and_mirrors_are_torchvisions(dataset):
    kind = getattr(torchvision.datasets, download.FOLDERS[dataset])
    assert sums()[kind.__name__] == kind.resources
    assert [name for name, _ in kind.resources] == [*chain(*FILE_NAMES.values())]
    if dataset != "mnist":
        assert kind.mirrors == [download.MIRRORS[dataset] + "/"]


@pytest.mark.parametrize("dataset", download.FOLDERS)
def test_a_data_set_is_fetched_by_its_sums_and_read_by_torchvision(tmp_path, monkeypatch, dataset):
    """With other sums: the data sets themselves are on the internet."""
    name = download.FOLDERS[dataset]
    download.write_digits(tmp_path)
    mirror = tmp_path / "Digits/raw"
    shutil.copy(ROOT / "params.yaml", tmp_path)
    change = {"dataset": dataset, "attempts": 1, "mirrors": ["http://127.0.0.1:9"]}
    override_params(tmp_path / "params.yaml", {"download": change})
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("MNIST_MIRROR", str(mirror))
    monkeypatch.setattr("sys.argv", ["download.py", "data"])
    monkeypatch.setitem(download.MIRRORS, "kmnist", "http://127.0.0.1:9")
    monkeypatch.setitem(download.MIRRORS, "fashion-mnist", "http://127.0.0.1:9")
    with pytest.raises(UserError, match=r"its MD5 sum is .*, not "):
        download.main()
    lines = [f"{md5(mirror / file)}  {name}/raw/{file}" for file, _ in sums()[name]]
    (tmp_path / "sums").write_text("\n".join(lines))
    monkeypatch.setattr(download, "SUMS", tmp_path / "sums")
    download.main()
    files = raw_files(Path("data"))
    assert files["train"][0] == Path("data", name, "raw", "train-images-idx3-ubyte.gz")
    assert len(read_idx(files["test"][1], 1)) == 297
    assert len(getattr(torchvision.datasets, name)("data", train=False)) == 297


def test_the_offline_copy_beside_the_checkout_comes_before_the_public_mirrors(params):
    first, *rest = params.download.mirrors
    assert first == "../shared/mnist"
    assert rest
    assert all(mirror.startswith("https://") for mirror in rest)


def test_a_mirrors_password_is_not_printed(settings, tmp_path, capsys):
    with pytest.raises(UserError, match="no mirror gives") as caught:
        mirror = "http://user:secret@127.0.0.1:9/mnist?token=secret"
        download.fetch_from_any([mirror], NAME, CHECKSUM, tmp_path / NAME, settings)
    printed = capsys.readouterr()
    assert "http://127.0.0.1:9/mnist: no connection" in printed.err
    assert "secret" not in printed.out + printed.err + str(caught.value)


@pytest.fixture
def certified(folders, monkeypatch):
    """The URL of a real TLS server over the mirror folders; its certificate is cert.pem there."""
    for name in ("REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE", "HTTPS_PROXY", "ALL_PROXY", "NO_PROXY"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.lower(), raising=False)
    certificate = ["openssl", "req", "-x509", "-nodes", "-days", "1", "-newkey", "ec"]
    certificate += [
        "-pkeyopt",
        "ec_paramgen_curve:prime256v1",
        "-keyout",
        "key.pem",
        "-out",
        "cert.pem",
        "-subj",
        "/CN=localhost",
    ]
    certificate += ["-addext", "subjectAltName=DNS:localhost"]
    subprocess.run(certificate, cwd=folders, check=True, capture_output=True)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(folders / "cert.pem", folders / "key.pem")

    class Quiet(SimpleHTTPRequestHandler):
        def log_message(self, *arguments):
            pass

    class QuietServer(ThreadingHTTPServer):
        def handle_error(self, request, client_address):
            pass  # a client that does not trust it

    with QuietServer(("127.0.0.1", 0), partial(Quiet, directory=folders)) as httpd:
        httpd.socket = context.wrap_socket(httpd.socket, server_side=True)
        threading.Thread(target=httpd.serve_forever, args=(0.01,), daemon=True).start()
        yield f"https://localhost:{httpd.server_port}"
        httpd.shutdown()


def test_a_server_with_its_own_certificate_serves_once_that_is_trusted(
    folders, certified, settings, monkeypatch
):
    monkeypatch.setenv("REQUESTS_CA_BUNDLE", str(folders / "cert.pem"))
    download.fetch_from_any([f"{certified}/good"], NAME, CHECKSUM, folders / NAME, settings)
    assert (folders / NAME).read_bytes() == CONTENT


PROXY = "no connection through the proxy"


@pytest.mark.parametrize(
    ("variables", "words"),
    [
        ({}, "certificate verify failed: self-signed certificate"),
        ({"REQUESTS_CA_BUNDLE": "/gone"}, "TLS CA certificate bundle, invalid path: /gone"),
        ({"CURL_CA_BUNDLE": "/gone"}, "TLS CA certificate bundle, invalid path: /gone"),
        ({"REQUESTS_CA_BUNDLE": "params.yaml"}, "no certificate or crl found"),
        ({"ALL_PROXY": "socks5h://127.0.0.1:9"}, f"{PROXY} socks5h://127.0.0.1:9; HTTPS_PROXY or"),
        ({"ALL_PROXY": "socks://127.0.0.1:9/"}, f"{PROXY} socks://127.0.0.1:9/; HTTPS_PROXY or"),
        ({"HTTPS_PROXY": "ftp://127.0.0.1:9"}, f"{PROXY} ftp://127.0.0.1:9; HTTPS_PROXY or ALL"),
        ({"HTTPS_PROXY": "http://a:secret@127.0.0.1:9"}, "127.0.0.1:9: [Errno 111] Connection"),
        ({"HTTPS_PROXY": "a:secret@127.0.0.1:9"}, f"{PROXY} 127.0.0.1:9; HTTPS_PROXY or ALL"),
        ({"HTTPS_PROXY": "http://a:secret@["}, f"{PROXY} http://[; HTTPS_PROXY or ALL_PROXY"),
    ],
)
def test_a_certificate_or_a_proxy_that_fails_is_named_at_once_and_the_next_mirror_is_asked(
    folders, certified, settings, monkeypatch, capsys, variables, words
):
    monkeypatch.chdir(ROOT)
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    mirrors = [f"{certified}/good", str(folders / "good")]
    download.fetch_from_any(mirrors, NAME, CHECKSUM, folders / NAME, settings)
    printed = capsys.readouterr().err
    assert printed.startswith(f"{NAME} not from {certified}/good: no connection")
    assert words in printed
    assert "attempts" not in printed  # of which there was one
    assert printed.count("\n") == 1
    assert "secret" not in printed


def test_a_proxys_own_answer_names_the_proxy(folders, server, certified, settings, monkeypatch):
    monkeypatch.setenv("HTTPS_PROXY", server)
    monkeypatch.setenv("HTTP_PROXY", server)
    with pytest.raises(UserError) as caught:
        mirrors = [f"{certified}/good", "http://nowhere.invalid/good"]
        download.fetch_from_any(mirrors, NAME, CHECKSUM, folders / NAME, settings)
    assert f"{PROXY} {server}: Tunnel connection failed: 501" in str(caught.value)
    assert f"HTTP 404 through the proxy {server}" in str(caught.value)
