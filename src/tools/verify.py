"""Rebuild the committed state twice, with all varied that must not matter, and compare the outputs.

Two clones are built without any cache. They differ in folder, time zone, locale, umask, hash seed,
home with its matplotlib and DVC settings, visible cores, threads, tracking and file times. They are
compared with each other and, where the processor and PyTorch are those that reproducibility.json
names, with the hashes it has.
"""

import src_path  # noqa: F401
from vae import cli

cli.begin()

import argparse
import os
import tempfile
from pathlib import Path
from typing import Any

import demo
from vae import arithmetic
from vae.cli import UserError
from vae.files import md5, read_json, write_json, write_text
from vae.rebuild.build import ROOT, build
from vae.rebuild.compare import first_difference, hashes

RECORD = ROOT / "reproducibility.json"
# The quick form: an epoch of the demo, so it needs neither MNIST nor minutes.
QUICK = {**demo.OVERRIDES, "train": {**demo.OVERRIDES["train"], "epochs": 1}}
# Of a home's owner, who wants other figures and another cache than the pipeline.
SETTINGS = {
    "matplotlib/matplotlibrc": "font.size: 20\nsavefig.dpi: 40\nimage.cmap: jet\n",
    "dvc/config": "[core]\n    autostage = true\n[cache]\n    type = hardlink,symlink\n",
}
MODELS = ("models/20d.safetensors", "models/2d.safetensors")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    full = parser.add_mutually_exclusive_group()
    full.add_argument("--quick", action="store_true", help="one epoch of scikit-learn's digits")
    full.add_argument("--record", action="store_true", help="write reproducibility.json")
    parser.add_argument("--portable", action="store_true", help="only portable arithmetic's models")
    options = parser.parse_args()
    owner, kind = arithmetic.owner(), "portable" if options.portable else "native"
    with tempfile.TemporaryDirectory(prefix="vae-verify-") as scratch:
        if options.portable:
            folder, owner = Path(scratch, "clone"), {"torch": owner["torch"]}
            build(folder, {"arithmetic": "portable"}, {}, targets=("train-20d", "train-2d"))
            found = {name: md5(folder / name) for name in MODELS}
        else:
            found = build_twice(Path(scratch), QUICK if options.quick else {})
    if options.record:
        write_json(RECORD, {**read_json(RECORD), kind: {**owner, "outputs": found}})
        print(f"{RECORD.name} written")
    elif not options.quick:
        compare_with_record(read_json(RECORD)[kind], owner, found)


def build_twice(scratch: Path, overrides: dict[str, Any]) -> dict[str, str]:
    """Return the MD5 sum of each output of two builds. Raises UserError naming what differs."""
    one, other = scratch / "one/clone", scratch / "other/much deeper/folder with a longer name"
    first = {"TZ": "UTC", "LC_ALL": "C.UTF-8", "PYTHONHASHSEED": "0"}
    second = {"TZ": "Asia/Kathmandu", "LC_ALL": "tr_TR.UTF-8", "PYTHONHASHSEED": "4242"}
    build(one, {**overrides, "tracking": {"enabled": True}}, first)
    for name, text in SETTINGS.items():
        write_text(other.parent / ".config" / name, text)
    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})
    untracked = {**overrides, "tracking": {"enabled": False}}
    build(other, untracked, {**second, "OMP_NUM_THREADS": "1"}, umask=0o077, mtime=2 * 10**9)

    found, again = hashes(one / "dvc.lock"), hashes(other / "dvc.lock")
    differing = [name for name in found if again[name] != found[name]]
    for name, value in found.items():
        print(f"{name:<32} {value:<36} {'differs' if name in differing else 'equal'}")
    if differing:
        places = [f"{name} ({first_difference(one / name, other / name)})" for name in differing]
        raise UserError(f"the two builds have not the same bits: {', '.join(places)}")
    print(f"{len(found)} outputs: the same bits in both builds")
    return found


def compare_with_record(
    recorded: dict[str, Any], owner: dict[str, Any], found: dict[str, str]
) -> None:
    """Compare MD5 sums with those recorded for `owner`. Raises UserError naming what differs."""
    other = [
        f"{key} {recorded[key]}, here {owner[key]}" for key in owner if owner[key] != recorded[key]
    ]
    if other:
        print(
            f"the recorded hashes belong to another processor or PyTorch ({'; '.join(other)}), "
            "so only the two rebuilds are compared"
        )
    elif differing := sorted(dict(found.items() ^ recorded["outputs"].items())):
        raise UserError(f"not the bits that {RECORD.name} has: {', '.join(differing)}")
    else:
        print(f"the same bits as {RECORD.name} has")


if __name__ == "__main__":
    cli.run(main)
