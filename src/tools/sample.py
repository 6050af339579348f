"""Draw samples of a trained model's prior, or a path between two pictures, read as by score.py.

The path leads between their posterior means along the sphere: the direction turns evenly while the distance
from 0 changes evenly. In many dimensions the prior's samples lie near a sphere, and a straight line leaves it
(White 2016, arXiv:1609.04468): half-way between test images of MNIST the entropy of the 20-d model's decoded
pixels was 86 nats on the line, 64 on the sphere, 58 at the ends. An output file that exists is overwritten.
"""

import src_path  # noqa: F401
from vae import cli

cli.begin()

import argparse
import math
from pathlib import Path

from vae.arithmetic import pin
from vae.cli import UserError
from vae.data import IMAGE_SIDE, binarize
from vae.images import POLARITIES, load_trained, read_pictures, write_picture
from vae.params import read_params
from vae.report import figures as draw
from vae.scores import posterior_means

import numpy as np
import torch


def main() -> None:
    options = parse()
    arithmetic, binarized, settings = read_params("arithmetic", "binarize", "visualize")
    pin(arithmetic)
    ends = read_pictures(options.inputs, options.polarity)
    if len(ends) != len(options.inputs):
        raise UserError(
            f"a path has two ends; {' and '.join(map(str, options.inputs))} hold {len(ends)}"
        )
    model = load_trained(options.model)
    if ends:
        images = binarize(np.stack([end.pixels for end in ends]), binarized.threshold)
        latent = along_sphere(*posterior_means(model, torch.from_numpy(images)), options.count)
    else:
        # This generator's numbers are the same in every NumPy; more samples begin with the same ones.
        latent = np.random.RandomState(options.seed).standard_normal(
            (options.count, model.latent_size)
        )
    with torch.no_grad():
        decoded = torch.sigmoid(model.decode(torch.from_numpy(latent).float())).numpy()
    if ends:
        picture = draw.strip(np.stack((images[0], *decoded, images[1])))
    else:
        side = math.ceil(math.sqrt(len(decoded)))
        picture = draw.mosaic(np.pad(decoded, ((0, side**2 - len(decoded)), (0, 0))))
        picture = picture[: IMAGE_SIDE * math.ceil(len(decoded) / side)]
    picture = draw.enlarged(np.uint8((picture * 255).round()), settings.image_scale)
    write_picture(options.output, options.inputs, draw.save_png, picture)
    print(f"{options.output} has {len(decoded)} decoded images")


def parse() -> argparse.Namespace:
    """The command line. A mistake in it ends the script with the usage and one line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    kinds = parser.add_subparsers(required=True)
    grid = kinds.add_parser("grid", help="samples of the prior, row by row")
    grid.add_argument("--seed", type=int, default=0, help="0")
    grid.add_argument("--count", type=int, default=64, help="64")
    grid.set_defaults(inputs=[], polarity="auto")
    path = kinds.add_parser(
        "interpolate", help="A and B, binarized, and decoded images between them"
    )
    path.add_argument("inputs", nargs=2, type=Path, metavar=("A", "B"), help="PNG, JPEG or .npy")
    path.add_argument(
        "--steps", type=int, default=10, dest="count", help="decoded, both ends with them (10)"
    )
    path.add_argument("--polarity", choices=POLARITIES, default="auto", help="of the digits (auto)")
    path.set_defaults(seed=0)
    for kind, name in ((grid, "samples.png"), (path, "between.png")):
        kind.add_argument("--output", type=Path, default=Path(name), help=name)
        kind.add_argument(
            "--model", type=Path, default=Path("models/20d.safetensors"), help="%(default)s"
        )
    options = parser.parse_args()
    if not (1 <= options.count <= 1024 and 0 <= options.seed < 2**32):
        parser.error("--count and --steps should be 1 to 1024, --seed 0 to 2^32 - 1")
    return options


def along_sphere(first: np.ndarray, last: np.ndarray, steps: int) -> np.ndarray:
    """Points `(steps, latent)` from one `(latent,)` to the other; on the line where they are parallel."""
    share = np.linspace(0, 1, steps)[:, None]
    near, far = np.linalg.norm(first), np.linalg.norm(last)
    angle = math.acos(np.clip(first @ last / (near * far), -1, 1)) if near * far else 0
    if math.sin(angle) < 1e-6:
        return (1 - share) * first + share * last
    direction = np.sin((1 - share) * angle) * first / near + np.sin(share * angle) * last / far
    return direction / math.sin(angle) * ((1 - share) * near + share * far)


if __name__ == "__main__":
    cli.run(main)
