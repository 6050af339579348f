"""Download a data set in torchvision's layout and check its files, or convert other images."""

import gzip
import os
import sys
from collections.abc import Mapping
from pathlib import Path
import vae.environment  # noqa: F401

import numpy as np

from vae import cli
from vae.custom_data import CUSTOM, Arrays, read_custom_data
from vae.data import FILE_NAMES, upscaled_digits, write_idx
from vae.files import md5, written_whole
from vae.mirror import NotFetched, fetch, shown
from vae.params import Download, read_params

# Copied from torchvision, whose import takes seconds: checksums, folders and mirrors.
CHECKSUMS = Path(__file__).with_suffix(".md5")
FOLDERS = {"mnist": "MNIST", "fashion-mnist": "FashionMNIST", "kmnist": "KMNIST"}
MIRRORS = {
    "fashion-mnist": "http://fashion-mnist.s3-website.eu-central-1.amazonaws.com",
    "kmnist": "http://codh.rois.ac.jp/kmnist/dataset/kmnist",
}


def main() -> None:
    (root,) = cli.arguments(__doc__, "folder")
    (settings,) = read_params("download")
    if settings.dataset == "digits":
        return write_digits(root)
    if settings.dataset.startswith(CUSTOM):
        return write_splits(root / "Own/raw", read_custom_data(Path(settings.dataset)))
    for line in CHECKSUMS.read_text(encoding="utf-8").splitlines():
        checksum, name = line.split()
        if name.startswith(f"{FOLDERS[settings.dataset]}/"):
            path = root / name
            fetch_from_any(mirrors(settings), path.name, checksum, path, settings)
            # torchvision leaves the decompressed file beside it.
            with written_whole(path.with_suffix("")) as temporary:
                temporary.write_bytes(gzip.decompress(path.read_bytes()))


def mirrors(settings: Download) -> list[str]:
    """List the mirrors to try: MNIST_MIRROR, then the data set's; MNIST's are parameters."""
    places = [MIRRORS[settings.dataset]] if settings.dataset in MIRRORS else settings.mirrors
    return [*filter(None, [os.environ.get("MNIST_MIRROR")]), *places]


def fetch_from_any(
    places: list[str], name: str, checksum: str, path: Path, settings: Download
) -> None:
    """Download a file from the first mirror where it has this checksum. Raises UserError."""
    failures = []
    for mirror in places:
        try:
            with written_whole(path) as temporary:
                fetch(mirror, name, temporary, settings)
                if (found := md5(temporary)) != checksum:
                    raise NotFetched(f"its checksum is {found}, not {checksum}")
            print(f"{name} from {shown(mirror)}")
            return
        except NotFetched as error:
            failures.append(cli.printable(f"{shown(mirror)}: {error}"))
            print(f"{name} not from {failures[-1]}", file=sys.stderr)
    raise cli.UserError(
        f"no mirror gives {name}: {'; '.join(failures)}. Set MNIST_MIRROR to a folder or URL with "
        "the four files, or run `make demo`, which needs no download."
    )


def write_digits(root: Path) -> None:
    """Write scikit-learn's 1,797 digits; the last 297 are for test."""
    parts = zip(*(np.split(array, [1500]) for array in upscaled_digits()), strict=True)
    write_splits(root / "Digits/raw", dict(zip(FILE_NAMES, parts, strict=True)))


def write_splits(folder: Path, splits: Mapping[str, Arrays]) -> None:
    """Write images, and labels if there are any, in MNIST's format."""
    for split, arrays in splits.items():
        for name, values in zip(FILE_NAMES[split], arrays, strict=True):
            if values is not None:
                write_idx(folder / name, values)
        print(f"{split}: {len(arrays[0])} images")


if __name__ == "__main__":
    cli.run(main)
