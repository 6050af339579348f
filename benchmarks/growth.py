"""How the time of an epoch grows with batch size, width, latent size and number of epochs.

Prints a table of the library's time per epoch against the bare matrix products (`torch.mm`), on a
subset of MNIST, and draws it to benchmarks/growth.png.
"""

import time
from pathlib import Path
from statistics import median

from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator, StrMethodFormatter

from bench import ratio
from contestants import mm, ours
from vae import cli
from vae.files import written_whole
from work import Work, mnist

IMAGES = 6_000
EPOCHS_IMAGES = 600
ROUNDS = 7
GROWTH = {
    "batch size": (32, 64, 128, 256, 512, 1024, 2048, 4096),
    "hidden width": (100, 200, 400, 800, 1600, 3200),
    "latent size": (2, 5, 10, 20, 50, 100, 200),
    "epochs": (1, 3, 10, 30, 100),
}


def main() -> None:
    base = mnist("20d")
    # Frames cost the same whatever the size: keep one before training and one after a batch.
    base = base._replace(figures=base.figures.model_copy(update={"interval": 10**6}))
    rows = {}
    for quantity, values in GROWTH.items():
        print(
            f"\n| {quantity} | epoch, ms | bare products, ms | ratio |\n"
            "| ---: | ---: | ---: | ---: |"
        )
        for value in values:
            work = varied(base, quantity, value)
            *times, share = milliseconds(work)
            rows[quantity, value] = times
            print(f"| {value} | {times[0]:.1f} | {times[1]:.1f} | {share:.2f} |", flush=True)
    draw(rows, Path("benchmarks/growth.png"))


def varied(base: Work, quantity: str, value: int) -> Work:
    """Give the 20-d model's work with one quantity set to `value`, on a subset of the images."""
    work = base._replace(pixels=base.pixels[: EPOCHS_IMAGES if quantity == "epochs" else IMAGES])
    match quantity:
        case "hidden width":
            change = {"hidden_sizes": (value,)}
            return work._replace(architecture=base.architecture.model_copy(update=change))
        case "latent size":
            change = {"latent_size": value}
            return work._replace(architecture=base.architecture.model_copy(update=change))
        case "batch size":
            return work._replace(settings=base.settings.model_copy(update={"batch_size": value}))
        case _:
            return work._replace(settings=base.settings.model_copy(update={"epochs": value}))


def milliseconds(work: Work) -> tuple[float, float, float]:
    """Measure median milliseconds of an epoch of ours and of its bare products, taking turns, and
    the median of the rounds' ratios."""
    times: dict = {ours: [], mm: []}
    for _ in range(ROUNDS + 1):
        for contestant, seconds in times.items():
            timed = contestant(work)
            start = time.perf_counter()
            timed()
            seconds.append(time.perf_counter() - start)
    each = [seconds / work.settings.epochs for seconds in times[ours][1:]]
    bare = times[mm][1:]
    return 1000 * median(each), 1000 * median(bare), ratio(each, bare)


def draw(rows: dict, path: Path) -> None:
    """Draw a panel for each quantity, both axes logarithmic."""
    figure = Figure(figsize=(10, 7), layout="constrained")
    for axes, (quantity, values) in zip(figure.subplots(2, 2).flat, GROWTH.items(), strict=True):
        for label, column in (("epoch of fit", 0), ("bare products, torch.mm", 1)):
            axes.loglog(
                values, [rows[quantity, value][column] for value in values], "o-", label=label
            )
        images = EPOCHS_IMAGES if quantity == "epochs" else IMAGES
        axes.set(xlabel=quantity, ylabel=f"ms per epoch of {images:,} images")
        axes.set_xticks(values, labels=values, minor=False)
        axes.minorticks_off()
        axes.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
        axes.yaxis.set_major_formatter(StrMethodFormatter("{x:g}"))
    axes.legend()
    with written_whole(path) as temporary:
        figure.savefig(temporary, dpi=100, metadata={"Software": None})


if __name__ == "__main__":
    cli.run(main)
