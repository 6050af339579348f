"""The outputs of two builds, compared by their bytes."""

from pathlib import Path

from ruamel.yaml import YAML


def hashes(lock: Path) -> dict[str, str]:
    """Read the hash of every output in a dvc.lock, sorted by path."""
    stages = YAML(typ="safe").load(lock)["stages"].values()
    outputs = [output for stage in stages for output in stage.get("outs", ())]
    return dict(sorted((output["path"], output["md5"]) for output in outputs))


def compare(one: Path, other: Path, committed: dict[str, str]) -> list[str]:
    """Print the hash of each output; describe each one that differs between the two builds.

    If there are `committed` hashes, also describe each output that differs from them.
    """
    found, again = hashes(one / "dvc.lock"), hashes(other / "dvc.lock")
    differing = []
    for name, value in found.items():
        print(f"{name:<32} {value}")
        if again[name] != value:
            place = first_difference(one / name, other / name)
            differing.append(f"{name}, the builds differ at {place}")
        elif committed and committed.get(name) != value:
            differing.append(f"{name}, dvc.lock has {committed.get(name)}")
    return differing


def first_difference(one: Path, other: Path) -> str:
    """Name the place where two outputs first differ: a folder's file, a text's line, or a byte."""
    if one.is_dir():
        paths = (path.relative_to(top) for top in (one, other) for path in top.rglob("*"))
        for name in sorted(name for name in paths if not (one / name).is_dir()):
            if not ((one / name).exists() and (other / name).exists()):
                return f"{name}, missing in one of them"
            if (one / name).read_bytes() != (other / name).read_bytes():
                return f"{name}, {first_difference(one / name, other / name)}"
    a, b = one.read_bytes(), other.read_bytes()
    pairs = enumerate(zip(a, b, strict=False))
    same = next((index for index, pair in pairs if pair[0] != pair[1]), min(len(a), len(b)))
    text = one.suffix in (".csv", ".json", ".html")
    return f"line {a[:same].count(10) + 1}" if text else f"byte {same + 1}"
