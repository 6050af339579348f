"""Run the committed pipeline twice, in surroundings that differ, and compare the outputs.

Two clones are built without any cache. They differ in folder, time zone, locale, umask, hash seed,
settings of matplotlib and DVC, visible cores, threads, the libraries' code for the processor, and
tracking. Each output must have the same bits in both clones and in dvc.lock.
"""

import argparse
import hashlib
import json
import os
import platform
import tempfile
from pathlib import Path
from typing import Any
import src_path  # noqa: F401

import demo
from exact.library import compilers
from vae import cli
from vae.cli import UserError
from vae.files import write_json, write_text
from vae.rebuild.build import ROOT, build, processor
from vae.rebuild.compare import compare, hashes

# One epoch of the demo: seconds, without MNIST.
QUICK = {**demo.OVERRIDES, "train": {**demo.OVERRIDES["train"], "epochs": 1}}
FIRST = {"TZ": "UTC", "LC_ALL": "C.UTF-8", "PYTHONHASHSEED": "0"}
SECOND = {
    "TZ": "Asia/Kathmandu",
    "LC_ALL": "tr_TR.UTF-8",
    "PYTHONHASHSEED": "4242",
    "OMP_NUM_THREADS": "1",
    "MKL_CBWR": "COMPATIBLE",
    "ATEN_CPU_CAPABILITY": "default",
    "OPENBLAS_CORETYPE": "Nehalem",
    "NPY_DISABLE_CPU_FEATURES": "X86_V3",
}
# Files below ~/.config of the second build.
SETTINGS = {
    "matplotlib/matplotlibrc": "font.size: 20\nsavefig.dpi: 40\nimage.cmap: jet\n",
    "dvc/config": "[core]\n    autostage = true\n[cache]\n    type = hardlink,symlink\n",
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="one epoch of scikit-learn's digits")
    parser.add_argument("--output", type=Path, help="JSON of this machine and the result")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="vae-verify-") as scratch:
        folders = build_twice(Path(scratch), QUICK if options.quick else {})
        found = hashes(folders[0] / "dvc.lock")
        differing = compare(*folders, {} if options.quick else hashes(ROOT / "dvc.lock"))
    digest = hashlib.md5(json.dumps(found, sort_keys=True).encode()).hexdigest()
    if options.output:
        machine = {"processor": processor(), "system": platform.platform()}
        machine |= {"compiler": compilers()[0][-1], "python": platform.python_version()}
        write_json(options.output, {**machine, "outputs": digest, "differing": differing})
    if differing:
        raise UserError(f"not the same bits: {'; '.join(differing)}")
    ending = "" if options.quick else " and in dvc.lock"
    print(f"{len(found)} outputs: the same bits in both builds{ending} ({digest[:12]})")


def build_twice(scratch: Path, overrides: dict[str, Any]) -> list[Path]:
    """Build the committed state in two folders of `scratch`; return them."""
    one, other = scratch / "one/clone", scratch / "other/much deeper/folder with a longer name"
    tracked, untracked = ({**overrides, "tracking": {"enabled": on}} for on in (True, False))
    first = build(one, tracked, FIRST, umask=0o022)
    for name, text in SETTINGS.items():
        write_text(other.parent / ".config" / name, text)
    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})
    return [first, build(other, untracked, SECOND, umask=0o077)]


if __name__ == "__main__":
    cli.run(main)
