"""Two builds of the pipeline compared: by their bits, or by their values where bits cannot agree."""

from pathlib import Path

from vae.params import MODELS
from vae.reproduction.published import load_losses

import numpy as np
from PIL import Image, ImageSequence
from ruamel.yaml import YAML

# How far the losses of a run on another processor may be from the committed ones, by model and split, in nats
# per image: one rounding apart at the start, two runs are as far apart at the end as two replays can be.
LOSS_TOLERANCES = {
    ("20d", "train"): 0.1,
    ("20d", "test"): 0.5,
    ("2d", "train"): 1.2,
    ("2d", "test"): 2.0,
}

# Mean difference in gray values, of 0 to 255, that pictures made on another processor may have.
PIXEL_TOLERANCE = 15.0


def hashes(lock: Path) -> dict[str, str]:
    """Every output that a dvc.lock names, with its MD5 sum."""
    stages = YAML(typ="safe").load(lock)["stages"]
    return {out["path"]: out["md5"] for stage in stages.values() for out in stage["outs"]}


def first_difference(one: Path, other: Path) -> str:
    """Where two files, or the files of two folders, part: the line of a text, else the byte."""
    if one.is_dir():
        for path in sorted(one.rglob("*")):
            twin = other / path.relative_to(one)
            if path.is_file() and (not twin.exists() or path.read_bytes() != twin.read_bytes()):
                where = first_difference(path, twin) if twin.exists() else "missing in the other"
                return f"{path.relative_to(one)}, {where}"
        return "a file is missing in the first"
    unit, split = (
        ("line", bytes.splitlines) if one.suffix in (".csv", ".json", ".html") else ("byte", bytes)
    )
    pieces, others = split(one.read_bytes()), split(other.read_bytes())
    pairs = zip(pieces, others, strict=False)
    number = next(
        (n for n, (a, b) in enumerate(pairs, 1) if a != b), min(len(pieces), len(others)) + 1
    )
    return f"{unit} {number}"


def loss_differences(one: Path, other: Path) -> dict[tuple[str, str], float]:
    """The largest difference of any epoch's loss, by model and split, in nats per image; infinite if an
    epoch is missing."""
    differences = {}
    for model in MODELS:
        name = f"plots/{model}-losses.csv"
        a, b = (load_losses(folder / name).set_index("epoch") for folder in (one, other))
        apart = (a - b).abs().max(skipna=False) if a.index.equals(b.index) else None
        for split in ("train", "test"):
            differences[model, split] = (
                float("inf") if apart is None else float(apart[f"{split}_loss"])
            )
    return differences


def pixel_difference(one: Path, other: Path) -> float:
    """Mean absolute difference of two pictures' gray values, over all frames; infinite if sizes differ."""
    a, b = _frames(one), _frames(other)
    return float(np.abs(a - b).mean()) if a.shape == b.shape else float("inf")


def _frames(path: Path) -> np.ndarray:
    """A picture's frames `(frames, height, width)` as they play: each repeated for its share of the time."""
    with Image.open(path) as picture:
        frames = [
            (frame.convert("L"), frame.info.get("duration", 10))
            for frame in ImageSequence.Iterator(picture)
        ]
    step = min(duration for _, duration in frames)
    played = [
        np.asarray(frame, np.float32) for frame, duration in frames for _ in range(duration // step)
    ]
    return np.stack(played)
