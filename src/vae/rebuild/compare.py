"""The outputs of two builds, compared by their bytes."""

from pathlib import Path

from ruamel.yaml import YAML


def hashes(lock: Path) -> dict[str, str]:
    """Read the MD5 sum of every output that a dvc.lock names, sorted by path."""
    stages = YAML(typ="safe").load(lock)["stages"].values()
    outputs = [output for stage in stages for output in stage.get("outs", ())]
    return dict(sorted((output["path"], output["md5"]) for output in outputs))


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
