"""Prove that the committed state gives the same bits: rebuild it twice, with all varied that must not matter.

Two clones in scratch folders are built without any cache and compared with each other and with the committed
dvc.lock, output by output. They differ in folder, time zone, locale, umask, hash seed, home folder with its
matplotlib and DVC settings, visible cores and threads, tracking, and the files' times. On a processor or a
PyTorch other than reproducibility.json names, the committed values are compared, not the bits.
"""

import src_path  # noqa: F401
from vae import cli

cli.begin()

import argparse
import json
import os
import tempfile
from pathlib import Path
from typing import Any

import demo
from vae import arithmetic
from vae.cli import UserError
from vae.files import md5, write_json
from vae.rebuild.build import ROOT, build, checkout, unsettle
from vae.rebuild.compare import (
    LOSS_TOLERANCES,
    PIXEL_TOLERANCE,
    first_difference,
    hashes,
    loss_differences,
    pixel_difference,
)

RECORD = ROOT / "reproducibility.json"
# The quick form: an epoch of the demo, so it needs neither MNIST nor minutes.
QUICK = {**demo.OVERRIDES, "train": {**demo.OVERRIDES["train"], "epochs": 1}}
MODELS = ("models/20d.safetensors", "models/2d.safetensors")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--quick", action="store_true", help="one epoch of scikit-learn's digits")
    parser.add_argument(
        "--portable", action="store_true", help="check portable arithmetic's model hashes"
    )
    parser.add_argument(
        "--record", action="store_true", help="write what is found to reproducibility.json"
    )
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="vae-verify-") as scratch:
        if options.portable:
            verify_portable(Path(scratch), options.record)
        else:
            verify_native(Path(scratch), QUICK if options.quick else {}, options.record)


def verify_native(scratch: Path, overrides: dict[str, Any], record: bool) -> None:
    """Build twice and compare. Raises UserError naming what differs."""
    one, other = scratch / "one/clone", scratch / "other/much deeper/folder with a longer name"
    cores = os.sched_getaffinity(0) if hasattr(os, "sched_getaffinity") else set()
    first = {"TZ": "UTC", "LC_ALL": "C.UTF-8", "PYTHONHASHSEED": "0"}
    second = {
        "TZ": "Asia/Kathmandu",
        "LC_ALL": "tr_TR.UTF-8",
        "PYTHONHASHSEED": "4242",
        "OMP_NUM_THREADS": "1",
    }
    unsettle(other.parent)
    build(one, {**overrides, "tracking": {"enabled": True}}, first, umask=0o022, cores=cores)
    build(
        other,
        {**overrides, "tracking": {"enabled": False}},
        second,
        umask=0o077,
        dated=10**9,
        cores=set(list(cores)[:1]),
    )

    found, again = hashes(one / "dvc.lock"), hashes(other / "dvc.lock")
    owned = not overrides and (record or owns_committed_hashes())
    committed = hashes(ROOT / "dvc.lock") if owned else found
    differing = []
    for name, value in found.items():
        verdict = "equal"
        if again[name] != value:
            verdict = f"the builds part at {first_difference(one / name, other / name)}"
        elif committed[name] != value:
            verdict = f"dvc.lock has {committed[name]}"
        differing += [name] if verdict != "equal" else []
        print(f"{name:<32} {value:<36} {verdict}")
    if differing:
        raise UserError(f"not the same bits: {', '.join(differing)}")
    print(
        f"{len(found)} outputs: the same bits in both builds{' and as committed' if owned else ''}"
    )
    if record:
        update_record("native", {**arithmetic.owner(), "dvc.lock": md5(ROOT / "dvc.lock")})
    elif not overrides and not owned:
        compare_values(one, checkout(scratch / "committed"))


def owns_committed_hashes() -> bool:
    """Whether the committed hashes were made on such a processor, with this PyTorch; says so if not."""
    recorded, here = json.loads(RECORD.read_text(encoding="utf-8"))["native"], arithmetic.owner()
    apart = [
        f"{key} {here[key]}, there {recorded[key]}" for key in here if here[key] != recorded[key]
    ]
    if apart:
        print(f"other hardware: comparing values, not bits ({'; '.join(apart)})")
    return not apart


def compare_values(built: Path, committed: Path) -> None:
    """Compare losses and pictures with the committed ones, within tolerances. Raises UserError."""
    rows = [
        (f"{model} {split} loss, nats", difference, LOSS_TOLERANCES[model, split])
        for (model, split), difference in loss_differences(built, committed).items()
    ]
    rows += [
        (
            f"{path.name}, gray values",
            pixel_difference(built / "plots" / path.name, path),
            PIXEL_TOLERANCE,
        )
        for path in sorted((committed / "docs/figures").iterdir())
    ]
    for name, difference, tolerance in rows:
        print(f"{name:<36} differs by {difference:8.3f}, tolerance {tolerance}")
    if beyond := [name for name, difference, tolerance in rows if not difference <= tolerance]:
        raise UserError(f"beyond the tolerance: {', '.join(beyond)}")


def update_record(name: str, value: dict[str, Any]) -> None:
    """Put `value` under `name` in reproducibility.json."""
    record = json.loads(RECORD.read_text(encoding="utf-8")) if RECORD.exists() else {}
    write_json(RECORD, {**record, name: value})
    print(f"{RECORD.name} written")


def verify_portable(scratch: Path, record: bool) -> None:
    """Train both models with portable arithmetic and compare their hashes. Raises UserError."""
    folder = scratch / "portable"
    build(folder, {"arithmetic": "portable"}, {}, targets=("train-20d", "train-2d"))
    found = {"torch": arithmetic.owner()["torch"], **{name: md5(folder / name) for name in MODELS}}
    if record:
        update_record("portable", found)
        return
    expected = json.loads(RECORD.read_text(encoding="utf-8"))["portable"]
    for name, value in expected.items():
        print(
            f"{name:<24} {value:<36} {'equal' if found[name] == value else f'differs: {found[name]}'}"
        )
    if found != expected:
        raise UserError("portable arithmetic gives other models here; the lines above say which")


if __name__ == "__main__":
    cli.run(main)
