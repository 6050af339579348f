"""Draw samples of a trained model's prior, or a path between two pictures; see docs/images.md."""

import argparse
import math
from pathlib import Path

import numpy as np

import src_path  # noqa: F401
from vae import cli
from vae.cli import UserError
from vae.data import IMAGE_SIDE, binarize
from vae.images import POLARITIES, read_pictures, write_picture
from vae.params import read_params
from vae.report import figures as draw
from vae.scores import posterior_means
from vae.terms import probabilities
from vae.weights import load_network


def main() -> None:
    options = parse()
    binarized, settings = read_params("binarize", "visualize")
    ends = read_pictures(options.inputs, options.polarity)
    if len(ends) != len(options.inputs):
        both = " and ".join(map(str, options.inputs))
        raise UserError(f"a path has two ends; {both} hold {len(ends)}")
    network = load_network(options.model)
    if ends:
        images = binarize(np.stack([end.pixels for end in ends]), binarized.threshold)
        latent = along_sphere(*posterior_means(network, images), options.count)
    else:
        # This generator's numbers are the same in every NumPy, and more begin with the same ones.
        shape = (options.count, network.latent)
        latent = np.random.RandomState(options.seed).standard_normal(shape)
    decoded = probabilities(network.decode(latent.astype(np.float32)))
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
    """Read the command line. A mistake in it ends the script with the usage and one line."""
    parser = argparse.ArgumentParser(description=__doc__)
    kinds = parser.add_subparsers(required=True)
    grid = kinds.add_parser("grid", help="samples of the prior, row by row")
    grid.add_argument("--seed", type=int, default=0, help="%(default)s")
    grid.add_argument("--count", type=int, default=64, help="%(default)s")
    path = kinds.add_parser("interpolate", help="two pictures, and decoded images between them")
    path.add_argument("inputs", nargs=2, type=Path, metavar="IMAGE", help="picture or .npy")
    path.add_argument("--steps", type=int, default=10, dest="count", help="both ends included (10)")
    path.add_argument("--polarity", choices=POLARITIES, default="auto", help="of the digits (auto)")
    weights = Path("models/20d.safetensors")
    for kind, name in ((grid, "samples.png"), (path, "between.png")):
        kind.set_defaults(inputs=[], polarity="auto", seed=0)
        kind.add_argument("--output", type=Path, default=Path(name), help="%(default)s")
        kind.add_argument("--model", type=Path, default=weights, help="%(default)s")
    options = parser.parse_args()
    if not (1 <= options.count <= 1024 and 0 <= options.seed < 2**32):
        parser.error("--count and --steps should be 1 to 1024, --seed 0 to 2^32 - 1")
    return options


def along_sphere(first: np.ndarray, last: np.ndarray, steps: int) -> np.ndarray:
    """Lead from one point `(latent,)` to another in steps `(steps, latent)`.

    The direction turns evenly while the distance from 0 changes evenly (White 2016,
    arXiv:1609.04468); between parallel points this is the line.
    """
    share = np.linspace(0, 1, steps)[:, None]
    near, far = np.linalg.norm(first), np.linalg.norm(last)
    angle = math.acos(np.clip(first @ last / (near * far), -1, 1)) if near * far else 0
    if math.sin(angle) < 1e-6:
        return (1 - share) * first + share * last
    direction = np.sin((1 - share) * angle) * first / near + np.sin(share * angle) * last / far
    return direction / math.sin(angle) * ((1 - share) * near + share * far)


if __name__ == "__main__":
    cli.run(main)
