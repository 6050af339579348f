"""Fetch the four original MNIST files into data/raw, in torchvision's layout, checked by their MD5 sums."""

from vae import cli

cli.begin()

import errno
import os
import shutil
import sys
import time
from pathlib import Path
from urllib.parse import urlsplit
from urllib.request import url2pathname

from vae.cli import UserError, arguments
from vae.data import FILE_NAMES, RAW_FOLDER, upscaled_digits, write_idx
from vae.files import md5, shown, written_whole
from vae.params import Download, read_params

import requests
from tqdm import tqdm

WAYS_OUT = (
    "Set MNIST_MIRROR to a folder or an URL that has the four files, "
    "or run `make demo`, which needs none of them."
)

# Bytes; MNIST's largest file has 10 million.
LARGEST = 2**26
TOO_LARGE = f"more than {LARGEST} bytes, so not MNIST's; discarded"


class NoSuchFileHere(Exception):
    """This mirror does not have the file: trying again would not help."""


def main() -> None:
    (root,) = arguments(__doc__, "folder")
    (settings,) = read_params("download")
    if settings.dataset == "digits":
        write_digits(root)
    else:
        fetch_mnist(root, settings)


def fetch_mnist(root: Path, settings: Download) -> None:
    """Fetch MNIST below `root`, each file from the first mirror that gives it. Raises UserError."""
    # Seconds to import, and of use to this branch alone.
    from torchvision.datasets import MNIST

    for name, checksum in MNIST.resources:
        fetch_from_any(mirrors(settings), name, checksum, root / RAW_FOLDER / name, settings)
    for train in (True, False):
        # torchvision checks the sums again and unpacks the files beside the originals, as its users expect.
        MNIST(root, train=train, download=True)


def mirrors(settings: Download) -> list[str]:
    """Where to look, in order: the environment variable MNIST_MIRROR goes before the parameters."""
    return [*filter(None, [os.environ.get("MNIST_MIRROR")]), *settings.mirrors]


def fetch_from_any(
    places: list[str], name: str, checksum: str, path: Path, settings: Download
) -> None:
    """Fetch one file from the first mirror that gives it with the right MD5 sum. Raises UserError."""
    failures = []
    for mirror in places:
        for attempt in range(1, settings.attempts + 1):
            if attempt > 1:
                time.sleep(settings.pause)
            try:
                with written_whole(path) as temporary:
                    fetch(mirror, name, temporary, settings.timeout)
                    if (found := md5(temporary)) != checksum:
                        raise NoSuchFileHere(f"its MD5 sum is {found}, not {checksum}; discarded")
                print(f"{name} from {shown(mirror)}")
                return
            except NoSuchFileHere as error:
                reason = str(error)
                break
            except (requests.RequestException, ValueError) as error:
                reason = f"{connection_problem(error)} ({attempt} attempts)"
        failures.append(f"{shown(mirror)}: {reason}")
        print(f"{name} not from {failures[-1]}", file=sys.stderr)
    raise UserError(f"no mirror gives {name}: {'; '.join(failures)}. {WAYS_OUT}")


def fetch(mirror: str, name: str, path: Path, timeout: float) -> None:
    """Copy or download the file `name` of a mirror to `path`. Raises NoSuchFileHere or RequestException."""
    address = urlsplit(mirror)
    if address.scheme in ("http", "https"):
        download(f"{mirror.rstrip('/')}/{name}", path, timeout)
        return
    # From the repository's root, where DVC copied it for an experiment as well.
    place = url2pathname(address.path) if address.scheme == "file" else mirror
    folder = Path(os.environ.get("DVC_ROOT", ""), place)
    if not folder.is_dir():
        raise NoSuchFileHere("no such folder")
    try:
        if (folder / name).stat().st_size > LARGEST:
            raise NoSuchFileHere(TOO_LARGE)
        shutil.copyfile(folder / name, path)
    except OSError as error:
        # Not the mirror's fault: the disk is full, or `path` cannot be written.
        if error.errno == errno.ENOSPC or error.filename == str(path):
            raise
        raise NoSuchFileHere(error.strerror or str(error)) from None


def download(url: str, path: Path, timeout: float) -> None:
    """Download `url` with a progress bar; a connection silent for `timeout` seconds is given up."""
    with requests.get(url, stream=True, timeout=timeout) as response:
        if 400 <= response.status_code < 500:
            raise NoSuchFileHere(f"HTTP {response.status_code}")
        response.raise_for_status()
        bar = tqdm(
            total=int(response.headers.get("Content-Length", 0)) or None,
            desc=path.name.removeprefix(".tmp-"),
            unit="B",
            unit_scale=True,
            leave=False,
            disable=not sys.stderr.isatty(),
        )
        with bar, path.open("wb") as file:
            for piece in response.iter_content(2**16):
                file.write(piece)
                bar.update(len(piece))
                if file.tell() > LARGEST:
                    raise NoSuchFileHere(TOO_LARGE)


def connection_problem(error: requests.RequestException | ValueError) -> str:
    """The kind of failure in a few words, where requests tells half a page."""
    if isinstance(error, requests.Timeout):
        return "timed out"
    if isinstance(error, requests.HTTPError):
        return f"HTTP {error.response.status_code}"
    if isinstance(error, ValueError):  # requests' own, or that of the URL's parser
        return "not a valid URL or answer"
    return "no connection" if isinstance(error, requests.ConnectionError) else type(error).__name__


def write_digits(root: Path) -> None:
    """Write scikit-learn's 1,797 digits as MNIST files, the last 297 for test."""
    images, labels = upscaled_digits()
    for split, part in (("train", slice(0, 1500)), ("test", slice(1500, None))):
        image_name, label_name = FILE_NAMES[split]
        write_idx(root / RAW_FOLDER / image_name, images[part])
        write_idx(root / RAW_FOLDER / label_name, labels[part])


if __name__ == "__main__":
    cli.run(main)
