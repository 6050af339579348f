"""The outputs of two builds, compared by their bytes."""

from pathlib import Path

from ruamel.yaml import YAML


def hashes(lock: Path) -> dict[str, str]:
    """Read the hash of every output that a dvc.lock names, sorted by path."""
    stages = YAML(typ="safe").load(lock)["stages"].values()
    outputs = [output for stage in stages for output in stage.get("outs", ())]
    return dict(sorted((output["path"], output["md5"]) for output in outputs))


def compare(one: Path, other: Path, committed: dict[str, str]) -> list[str]:
    """Print the hash of each output of two builds; return what differs between them and where, or
    from the `committed` hashes, if any."""
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
    """Name where two files or folders first differ: the line of a text, else the byte."""
    if one.is_dir():
        for path in sorted(path for path in one.rglob("*") if path.is_file()):
            name = path.relative_to(one)
            if not (other / name).exists():
                return f"{name}, missing in the other"
            if path.read_bytes() != (other / name).read_bytes():
                return f"{name}, {first_difference(path, other / name)}"
        return "a file is missing in the first"
    a, b = one.read_bytes(), other.read_bytes()
    pairs = enumerate(zip(a, b, strict=False))
    same = next((index for index, pair in pairs if pair[0] != pair[1]), min(len(a), len(b)))
    text = one.suffix in (".csv", ".json", ".html")
    return f"line {a[:same].count(10) + 1}" if text else f"byte {same + 1}"
