"""Score your own images: how strange does a trained model find them among its training images?

An image is a PNG or JPEG file, or a .npy array: uint8 of 0 to 255 (or of 0 and 1), float of 0.0 to 1.0 or
bool, in the shape (28, 28), (n, 28, 28) or (n, 784). It should show one digit on an even background. 28 x 28
pixels, or equal squares, are taken as they are; all else is brought into MNIST's form: gray, upright by its
EXIF, without its background, cropped to the ink, scaled to 20 pixels, its centre of mass in the middle of
28 x 28. Dark on light is inverted: 28 x 28 pixels with a light border, others with ink darker than the
background. What is transparent becomes what the rest stands out from. A picture of one colour is blank.

Scores are in nats, with the percentage of training images that score no more. An image is anomalous by a KL
or negative ELBO above their percentile anomaly.threshold_percentile in params.yaml, or by a reconstruction
below the opposite one: a blank image is the easiest to reconstruct. Every image is read before anything is
printed; one that cannot be read ends it with status 1, an anomalous one does not.
"""

import src_path  # noqa: F401
from vae import cli

cli.begin()

import argparse
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from vae.arithmetic import pin
from vae.data import IMAGE_SIDE, binarize, load_split
from vae.images import POLARITIES, load_trained, read_pictures, write_picture
from vae.params import read_params
from vae.scores import anomaly_scores, reconstruct

import numpy as np

Scores = Mapping[str, np.ndarray]
Row = dict[str, Any]
NAMES = {"kl": "KL", "reconstruction": "reconstruction", "negative_elbo": "negative ELBO"}


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("images", nargs="+", type=Path, metavar="IMAGE", help="PNG, JPEG or .npy")
    parser.add_argument(
        "--polarity", choices=POLARITIES, default="auto", help="of the digits (auto)"
    )
    parser.add_argument("--json", action="store_true", help="print one JSON document")
    parser.add_argument(
        "--figure", type=Path, help="PNG: input, binarized, reconstruction of the first 100"
    )
    parser.add_argument(
        "--model", type=Path, default=Path("models/20d.safetensors"), help="%(default)s"
    )
    parser.add_argument("--data", type=Path, default=Path("data/binarized"), help="%(default)s")
    options = parser.parse_args()
    arithmetic, binarized, settings = read_params("arithmetic", "binarize", "anomaly")
    pin(arithmetic)
    pictures = read_pictures(options.images, options.polarity)
    model = load_trained(options.model)
    training = load_split(options.data, "train").images
    images = binarize(np.stack([picture.pixels for picture in pictures]), binarized.threshold)
    scores, known = (
        anomaly_scores(model, which, settings.batch_size) for which in (images, training)
    )
    thresholds, rows = judge(scores, known, settings.threshold_percentile)
    for row, picture in zip(rows, pictures, strict=True):
        row |= {"name": picture.name, "polarity": POLARITIES[1 if picture.inverted else 2]}
    if options.figure:
        # Seconds to import, and few need it.
        from vae.report.figures import save_figure

        shown = zip(
            rows[:100],
            [p.gray / 255 for p in pictures],
            images,
            reconstruct(model, images),
            strict=False,
        )
        write_picture(options.figure, options.images, save_figure, figure(list(shown)))
    if options.json:
        about = {
            "model": str(options.model),
            "training_images": len(training),
            "thresholds": thresholds,
        }
        print(json.dumps({**about, "images": rows}, indent=2, allow_nan=False))
    else:
        print(table(rows, thresholds, len(training)))


def judge(
    scores: Scores, training: Scores, percentile: float
) -> tuple[dict[str, float], list[Row]]:
    """The thresholds, and each image's scores, percentiles and verdict, from `anomaly_scores` of both."""
    sides = {"kl": percentile, "negative_elbo": percentile, "reconstruction": 100 - percentile}
    limits = {name: float(np.percentile(training[name], side)) for name, side in sides.items()}
    rows = []
    for values in zip(*scores.values(), strict=True):
        row: Row = {name: float(value) for name, value in zip(scores, values, strict=True)}
        by = [name for name in ("kl", "negative_elbo") if row[name] > limits[name]]
        by += ["reconstruction"] if row["reconstruction"] < limits["reconstruction"] else []
        shares = {
            f"{name}_percentile": 100 * float((training[name] <= row[name]).mean()) for name in row
        }
        rows.append(
            {**row, **shares, "verdict": "anomalous" if by else "ordinary", "anomalous_by": by}
        )
    return limits, rows


def table(rows: list[Row], limits: dict[str, float], count: int) -> str:
    """A line for each image, and two on what the numbers mean."""
    width = max(len(row["name"]) for row in rows)
    lines = [" " * width + "".join(f"{name:>20}" for name in NAMES.values()) + "  verdict"]
    for row in rows:
        cells = "".join(f"{row[name]:10.2f} {row[f'{name}_percentile']:7.2f} %" for name in NAMES)
        by = ", ".join(NAMES[name] for name in row["anomalous_by"])
        lines.append(f"{row['name']:{width}}{cells}  {row['verdict']}{by and f' by {by}'}")
    lines.append(
        f"in nats, and the percentage of the {count:,} training images that score no more; anomalous:"
    )
    high = f"KL above {limits['kl']:.2f}, negative ELBO above {limits['negative_elbo']:.2f}"
    return "\n".join([*lines, f"{high} or reconstruction below {limits['reconstruction']:.2f}"])


def figure(shown: list[tuple[Row, np.ndarray, np.ndarray, np.ndarray]]) -> Any:
    """A row for each image: as read `(height, width)`, then `(784,)`: binarized and its reconstruction."""
    from matplotlib.figure import Figure

    drawn = Figure(figsize=(9, 3.1 * len(shown)), layout="constrained")
    for line, (row, gray, *images) in zip(
        drawn.subplots(len(shown), 3, squeeze=False), shown, strict=True
    ):
        squares = (image.reshape(IMAGE_SIDE, IMAGE_SIDE) for image in images)
        terms = f"KL {row['kl']:.2f} + reconstruction {row['reconstruction']:.2f} nats"
        titles = (Path(row["name"]).name[-40:], f"binarized: {row['verdict']}", terms)
        for axes, picture, title in zip(line, (gray, *squares), titles, strict=True):
            axes.imshow(picture, cmap="gray", vmin=0, vmax=1)
            # A file's name may hold dollar signs.
            axes.set_title(title, fontsize=9, parse_math=False)
            axes.set(xticks=[], yticks=[])
    return drawn


if __name__ == "__main__":
    cli.run(main)
