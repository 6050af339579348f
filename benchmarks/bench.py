"""Time an epoch of the library against what people would use instead, and against the processor.

Prints ratios and writes benchmarks/results.json. Each contestant has a process of its own, and they
take turns, round after round, so that whatever else the machine does slows all alike.
"""

import datetime
import multiprocessing
import os
import platform
import time
from concurrent.futures import ProcessPoolExecutor
from importlib.metadata import version
from pathlib import Path
from statistics import median

from vae import cli
from vae.files import write_json
from vae.rebuild.build import processor
from work import mnist

ROUNDS = 7
MODELS = ("20d", "2d")
# In the table's order: the name, what it is, and the most that our time may be of it.
EPOCHS = {
    "ours": ("this library, figures included", None),
    "torch_kernels": ("the same by PyTorch's kernels (`train.arithmetic: torch`)", 0.75),
    "post": ("the post's way, figures included", None),
    "examples": ("pytorch/examples' vae, no figures", None),
    "jax_epoch": ("JAX, jit and scan, no figures", 0.85),
    "linear": ("bare matrix products, exact.nn.Linear", None),
    "mm": ("bare matrix products, torch.mm", None),
    "best": ("bare matrix products, fastest", 1.35),
}
SCORES = ("kl_ours", "kl_torch", "kl_post")
# A study trains each seed on one core and records no figures.
ONE_CORE = {"ours": "ours, one core", "torch_kernels": "torch_kernels, one core"}
TRIAL_TARGET = 0.65
IMAGES = 60_000
# Image by image takes long: so many of the 60,000 are used, and the time scaled to all of them.
PART = {"post": 12_000, "examples": 12_000, "kl_post": 2_000}


def main() -> None:
    mnist("20d")  # a missing file ends it here, in one line
    context = multiprocessing.get_context("spawn")
    names = [*EPOCHS, *SCORES, *ONE_CORE.values()]
    pools = {name: ProcessPoolExecutor(1, context, pin, (name,)) for name in names}
    turns = [(name, model) for model in MODELS for name in EPOCHS]
    turns += [(name, "20d") for name in SCORES]
    turns += [(name, model) for model in MODELS for name in ONE_CORE.values()]
    runs = {turn: [] for turn in turns}
    for number in range(ROUNDS + 1):  # the first one warms up
        for turn in turns:
            runs[turn].append(pools[turn[0]].submit(run, *turn).result())
        print(f"round {number} of {ROUNDS}", flush=True)
    for pool in pools.values():
        pool.shutdown()

    seconds = {
        turn: [IMAGES / PART.get(turn[0], IMAGES) * timed for _, timed, _ in results[1:]]
        for turn, results in runs.items()
    }
    results = describe_machine() | {"rounds": ROUNDS}
    for model in MODELS:
        by_round = {name: seconds[name, model] for name in EPOCHS}
        results[f"epoch-{model}"] = {
            "seconds": {name: median(times) for name, times in by_round.items()},
            "least_seconds": {name: min(times) for name, times in by_round.items()},
            "seconds_by_round": by_round,
            "ours_to": {name: ratio(by_round["ours"], times) for name, times in by_round.items()},
            "jax_compile_seconds": runs["jax_epoch", model][0][0],
        }
    scores = {name: seconds[name, "20d"] for name in SCORES}
    results["kl-scores"] = {
        "seconds": {name: median(times) for name, times in scores.items()},
        "ours_to_torch": ratio(scores["kl_ours"], scores["kl_torch"]),
        "ours_to_post": ratio(scores["kl_ours"], scores["kl_post"]),
    }
    trials = {name: [seconds[name, model] for model in MODELS] for name in ONE_CORE.values()}
    results["epoch-on-one-core"] = {
        "seconds": {name: [median(times) for times in each] for name, each in trials.items()},
        "ours_to_torch": [ratio(*times) for times in zip(*trials.values(), strict=True)],
    }
    write_json(Path("benchmarks/results.json"), results)
    print(table(results))


def ratio(ours: list[float], theirs: list[float]) -> float:
    """The median of the rounds' own ratios: what slows the machine for a while is in both."""
    return median(mine / other for mine, other in zip(ours, theirs, strict=True))


def pin(name: str) -> None:
    """Keep the process of a contestant on one core to that, with one thread."""
    if name in ONE_CORE.values() and hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})
        import torch  # not at the top: JAX's process needs none of torch's threads

        torch.set_num_threads(1)


def run(name: str, model: str) -> tuple[float, float, float | None]:
    """Seconds of preparation, seconds of the work, and the loss it ended at."""
    work = mnist(model)
    work = work._replace(pixels=work.pixels[: PART.get(name)])
    if name in ONE_CORE.values():
        work = work._replace(figures=work.figures.model_copy(update={"interval": 10**6}))
    # Imported here: no process needs both torch's and JAX's threads.
    contestants = __import__("jax_peer" if name == "jax_epoch" else "contestants")
    start = time.perf_counter()
    timed = getattr(contestants, name.partition(",")[0])(work)
    middle = time.perf_counter()
    loss = timed()
    return middle - start, time.perf_counter() - middle, loss


def describe_machine() -> dict:
    """Processor, cores that this process may use, versions and date."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    return {
        "date": datetime.date.today().isoformat(),
        "machine": {"processor": processor(), "cores": cores},
        "versions": {
            "python": platform.python_version(),
            "torch": version("torch"),
            "jax": version("jax"),
        },
    }


def table(results: dict) -> str:
    """Format the results in Markdown: seconds, and our time as a share of each contestant's."""
    lines = [
        f"An epoch of {IMAGES:,} images in batches of 128: median and minimum of "
        f"{results['rounds']} rounds, and the median of the rounds' own ratios; the post's way and "
        f"the examples scaled from {PART['post']:,} images.",
        "",
        "| | 20-d | ours to it | 2-d | ours to it | target |",
        "| --- | ---: | ---: | ---: | ---: | ---: |",
    ]
    for name, (label, target) in EPOCHS.items():
        cells = []
        for model in MODELS:
            epoch = results[f"epoch-{model}"]
            both = f"{epoch['seconds'][name]:.2f} s ({epoch['least_seconds'][name]:.2f})"
            cells += [both, f"{epoch['ours_to'][name]:.2f}"]
        lines.append(f"| {label} | {' | '.join(cells)} | {f'at most {target}' if target else ''} |")
    compiling = [results[f"epoch-{model}"]["jax_compile_seconds"] for model in MODELS]
    scores = results["kl-scores"]
    lines += [
        "",
        f"JAX compiles for {compiling[0]:.1f} s and {compiling[1]:.1f} s before that.",
        f"KL of {IMAGES:,} images: {scores['seconds']['kl_ours']:.2f} s, "
        f"{scores['ours_to_torch']:.2f} of PyTorch's and {scores['ours_to_post']:.3f} of one pass "
        f"for each image: {scores['seconds']['kl_post']:.1f} s, scaled from {PART['kl_post']:,}.",
    ]
    trial = results["epoch-on-one-core"]
    for number, model in enumerate(MODELS):
        mine = trial["seconds"][ONE_CORE["ours"]][number]
        lines.append(
            f"{model}, an epoch on one core without figures, as in a study: {mine:.2f} s, "
            f"{trial['ours_to_torch'][number]:.2f} of PyTorch's kernels' (at most {TRIAL_TARGET})."
        )
    return "\n".join(lines)


if __name__ == "__main__":
    cli.run(main)
