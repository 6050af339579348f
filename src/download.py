"""Fetch a data set's files, in torchvision's layout, checked by their MD5 sums, or write them."""

import gzip
import os
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import BinaryIO
from urllib.request import url2pathname
import vae.environment  # noqa: F401

import numpy as np
import requests
import urllib3
from tqdm import tqdm

from vae import cli
from vae.data import FILE_NAMES, upscaled_digits, write_idx
from vae.files import md5, shown, written_whole
from vae.own_images import OWN, Arrays, own_images
from vae.params import Download, read_params

# As torchvision has them, whose import takes seconds: the sums and names of all files, and where
# they lie, by the names of params.yaml.
SUMS = Path(__file__).with_suffix(".md5")
FOLDERS = {"mnist": "MNIST", "fashion-mnist": "FashionMNIST", "kmnist": "KMNIST"}
MIRRORS = {
    "fashion-mnist": "http://fashion-mnist.s3-website.eu-central-1.amazonaws.com",
    "kmnist": "http://codh.rois.ac.jp/kmnist/dataset/kmnist",
}
SLOWEST = 1000  # bytes per second; a mirror below it for longer than the timeout is given up
LARGEST = 2**26  # bytes; a mirror that sends more is given up before it fills the disk


class NoSuchFileHere(Exception):
    """This mirror does not have the file: trying again would not help."""


def main() -> None:
    (root,) = cli.arguments(__doc__, "folder")
    (settings,) = read_params("download")
    if settings.dataset == "digits":
        return write_digits(root)
    if settings.dataset.startswith(OWN):
        return write_splits(root / "Own/raw", own_images(Path(settings.dataset)))
    for line in SUMS.read_text(encoding="utf-8").splitlines():
        checksum, name = line.split()
        if name.startswith(f"{FOLDERS[settings.dataset]}/"):
            path = root / name
            fetch_from_any(mirrors(settings), path.name, checksum, path, settings)
            # Unpacked too, as torchvision's users expect.
            with written_whole(path.with_suffix("")) as temporary:
                temporary.write_bytes(gzip.decompress(path.read_bytes()))


def mirrors(settings: Download) -> list[str]:
    """List where to look, in order: at MNIST_MIRROR, then at the parameters' places for MNIST."""
    places = [MIRRORS[settings.dataset]] if settings.dataset in MIRRORS else settings.mirrors
    return [*filter(None, [os.environ.get("MNIST_MIRROR")]), *places]


def fetch_from_any(
    places: list[str], name: str, checksum: str, path: Path, settings: Download
) -> None:
    """Fetch a file from the first mirror that has it with this MD5 sum. Raises UserError."""
    failures = []
    for mirror in places:
        for attempt in range(1, settings.attempts + 1):
            time.sleep(settings.pause if attempt > 1 else 0)
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
            except (requests.RequestException, urllib3.exceptions.HTTPError, ValueError) as error:
                reason = f"{connection_problem(error)} ({attempt} attempts)"
        failures.append(f"{shown(mirror)}: {reason}")
        print(f"{name} not from {failures[-1]}", file=sys.stderr)
    raise cli.UserError(
        f"no mirror gives {name}: {'; '.join(failures)}. Set MNIST_MIRROR to a folder or an URL "
        "that has the four files, or run `make demo`, which needs none of them."
    )


def fetch(mirror: str, name: str, path: Path, timeout: float) -> None:
    """Copy the file `name` of a mirror to `path`, with a progress bar on a terminal."""
    source, size = opened(mirror, name, timeout)
    options = {"unit": "B", "unit_scale": True, "leave": False, "disable": not sys.stderr.isatty()}
    with source, path.open("wb") as file, tqdm(desc=name, total=size, **options) as bar:
        start = time.monotonic()
        # read1 returns what has come: a mirror that drips is noticed before 64 KiB are there.
        while piece := source.read1(2**16):
            bar.update(file.write(piece))
            if file.tell() < SLOWEST * (time.monotonic() - start - timeout):
                raise requests.Timeout
            if file.tell() > LARGEST:
                raise NoSuchFileHere(f"more than {LARGEST} bytes, too many; discarded")


def opened(mirror: str, name: str, timeout: float) -> tuple[BinaryIO, int | None]:
    """Open the file `name` of a mirror, and find its size in bytes.

    Silence of `timeout` seconds ends it. Raises NoSuchFileHere, requests' errors or ValueError.
    """
    if mirror.startswith(("http://", "https://")):
        response = requests.get(f"{mirror.rstrip('/')}/{name}", stream=True, timeout=timeout)
        if not response.ok:
            raise NoSuchFileHere(f"HTTP {response.status_code}")
        # Raw: some servers name a .gz file's own compression as one of the transfer's.
        return response.raw, int(response.headers.get("Content-Length", 0)) or None
    place = url2pathname(mirror.removeprefix("file://")) if "://" in mirror else mirror
    # From the repository's root, where DVC copied it for an experiment as well.
    path = Path(os.environ.get("DVC_ROOT", ""), place, name)
    try:
        return path.open("rb"), path.stat().st_size
    except OSError as error:
        raise NoSuchFileHere(error.strerror) from None


def connection_problem(error: Exception) -> str:
    """Say in a few words what failed, where requests takes half a page."""
    if isinstance(error, requests.Timeout | urllib3.exceptions.TimeoutError):
        return "too slow"
    if isinstance(error, requests.TooManyRedirects):
        return "redirects without end"
    return "not a valid URL or answer" if isinstance(error, ValueError) else "no connection"


def write_digits(root: Path) -> None:
    """Write scikit-learn's 1,797 digits, the last 297 for test."""
    parts = zip(*(np.split(array, [1500]) for array in upscaled_digits()), strict=True)
    write_splits(root / "Digits/raw", dict(zip(FILE_NAMES, parts, strict=True)))


def write_splits(folder: Path, splits: Mapping[str, Arrays]) -> None:
    """Write images and, where there are any, labels in files like MNIST's."""
    for split, arrays in splits.items():
        for name, values in zip(FILE_NAMES[split], arrays, strict=True):
            if values is not None:
                write_idx(folder / name, values)
        print(f"{split}: {len(arrays[0])} images")


if __name__ == "__main__":
    cli.run(main)
