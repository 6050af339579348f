"""Score your own images as anomalies under a trained model.

An image is a picture of one digit on an even background, or a .npy array of images.
docs/images.md explains the scores. The status is 1 if an image cannot be read.
"""

import argparse
import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any
import src_path  # noqa: F401

import numpy as np
from matplotlib.figure import Figure

from vae import cli
from vae.cli import UserError
from vae.data import IMAGE_SIDE, load_split, preprocess
from vae.inference import anomaly_scores, reconstruct
from vae.model import load_model
from vae.params import read_params
from vae.preprocessing import POLARITIES, Picture, read_pictures
from vae.report.figures import save_figure
from vae.scores import SCORE_NAMES, limits

Row = dict[str, Any]
Scores = Mapping[str, np.ndarray]


def main() -> None:
    options = parse()
    figure, inputs = options.figure, [path.resolve() for path in options.images]
    if figure and (figure.suffix.lower() != ".png" or figure.resolve() in inputs):
        raise UserError(f"cannot write {figure}: name a PNG file (.png) that is none of the inputs")
    binarized, settings = read_params("binarize", "anomaly")
    pictures, unread = [], []
    for path in options.images:
        try:
            pictures += read_pictures(path, options.polarity)
        except (UserError, OSError) as error:
            unread.append(str(error))
    if not pictures:
        raise UserError("; ".join(unread))
    model = load_model(options.model)
    known = load_split(options.data, "train").images
    pixels = np.stack([picture.pixels for picture in pictures])
    images = preprocess(pixels, binarized.threshold, known.dtype)
    scores = anomaly_scores(model, images, settings.batch_size)
    training = anomaly_scores(model, known, settings.batch_size)
    beyond = limits(training, settings.threshold_percentile)
    rows = score_rows(scores, training, beyond)
    for row, picture in zip(rows, pictures, strict=True):
        row |= {"name": picture.name, "polarity": POLARITIES[1 if picture.inverted else 2]}
        row["notes"] = picture.notes(binarized.threshold)
    if figure:
        save_figure(figure, drawing(rows[:100], pictures, images, reconstruct(model, images)))
    if options.json:
        about = {"model": str(options.model), "training_images": len(known), "thresholds": beyond}
        print(json.dumps({**about, "images": rows}, indent=2, allow_nan=False))
    else:
        print(table(rows, beyond, len(known), settings.threshold_percentile))
    if unread:
        raise UserError("; ".join(unread))


def parse() -> argparse.Namespace:
    """Parse the command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    add = parser.add_argument
    add("images", nargs="+", type=Path, metavar="IMAGE", help="picture or .npy")
    add("--polarity", choices=POLARITIES, default="auto", help="of the digits (%(default)s)")
    add("--json", action="store_true", help="print one JSON document")
    add("--figure", type=Path, help="PNG for the first 100: input, preprocessed, reconstruction")
    add("--model", type=Path, default=Path("models/20d.safetensors"), help="%(default)s")
    add("--data", type=Path, default=Path("data/binarized"), help="%(default)s")
    return parser.parse_args()


def score_rows(scores: Scores, training: Scores, beyond: Mapping[str, float]) -> list[Row]:
    """Return one row per image: `anomaly_scores`, their percentiles, the verdict by `limits`."""
    rows = []
    for values in zip(*scores.values(), strict=True):
        row: Row = dict(zip(scores, map(float, values), strict=True))
        over = {name: row[name] - limit for name, limit in beyond.items()}
        over["reconstruction"] *= -1
        by = [name for name, distance in over.items() if distance > 0]
        for name in scores:
            row[f"{name}_percentile"] = 100 * float((training[name] <= row[name]).mean())
        rows.append({**row, "verdict": "anomalous" if by else "ordinary", "anomalous_by": by})
    return rows


def table(rows: Sequence[Row], beyond: Mapping[str, float], count: int, percentile: float) -> str:
    """Write verdicts, notes and scores as text in 80 columns, with a legend of two lines.

    `percentile` is that of the limits `beyond`, `count` the number of training images.
    """
    marks = "".join(f"{mark:^5}" for mark in ("0.1", "1", "10", "50", "90", "99", "99.9"))
    lines = [f"{'nats':>25}   {marks}".rstrip()]
    for row in rows:
        by = ", ".join(SCORE_NAMES[name] for name in row["anomalous_by"])
        rare = f": by no score among the strangest {100 - percentile:.3g} %"
        lines += [row["name"], f"  {row['verdict']}{f' by {by}' if by else rare}"]
        lines += [f"  note: {note}" for note in row["notes"]]
        for name, label in SCORE_NAMES.items():
            share = row[f"{name}_percentile"]
            lines.append(f"  {label:14}{row[name]:9.2f}     {scale(share)} {share:7.2f} %")
    high = f"KL above {beyond['kl']:.2f}, negative ELBO above {beyond['negative_elbo']:.2f}"
    low = f"reconstruction below {beyond['reconstruction']:.2f} nats"
    share = f"scale: % of the {count:,} training images that score no more"
    return "\n".join([*lines, f"{share}; anomalous:", f"{high} or {low}"])


def scale(percentage: float) -> str:
    """Draw a percentage on a log-odds scale from 0.1 to 99.9, 31 columns wide."""
    share = min(max(percentage / 100, 0.001), 0.999)
    place = round(15 + 15 * math.log(share / (1 - share)) / math.log(999))
    return "".join("o" if at == place else "|" if at % 5 == 0 else "." for at in range(31))


def drawing(
    rows: Sequence[Row], pictures: Sequence[Picture], images: np.ndarray, decoded: np.ndarray
) -> Figure:
    """Draw each picture beside the image that the model sees and `decoded`, `(images, 784)`."""
    across = min(len(rows), math.ceil(len(rows) ** 0.5 / 1.5))
    down = math.ceil(len(rows) / across)
    drawn = Figure(figsize=(9 * across, 3.1 * down), layout="constrained")
    places = drawn.subplots(down, 3 * across, squeeze=False).reshape(-1, 3)
    for axes in places[len(rows) :].ravel():
        axes.axis("off")
    for line, row, picture, *squares in zip(places, rows, pictures, images, decoded, strict=False):
        terms = "\n".join(
            f"{SCORE_NAMES[name]} {row[name]:.2f} nats, above {row[f'{name}_percentile']:.1f} %"
            for name in ("kl", "reconstruction")
        )
        titles = (Path(row["name"]).name[-40:], f"preprocessed: {row['verdict']}", terms)
        shown = (picture.gray / 255, *(each.reshape(IMAGE_SIDE, -1) for each in squares))
        for axes, image, title in zip(line, shown, titles, strict=True):
            axes.imshow(image, cmap="gray", vmin=0, vmax=1)
            # A file name may have dollar signs.
            axes.set_title(title, fontsize=9, parse_math=False)
            axes.set(xticks=[], yticks=[])
    return drawn


if __name__ == "__main__":
    cli.run(main)
