"""Find what the 2-d loss table would read after some batches of earlier training, for several seeds."""

from pathlib import Path

from vae.arithmetic import pin
from vae.data import load_split
from vae.errors import arguments, run_stage
from vae.files import write_text
from vae.params import check_params
from vae.pretraining import shifted_losses

import pandas as pd

SEEDS = range(8)
BATCHES = range(0, 301, 25)


def main() -> None:
    data, output = map(Path, arguments("binarized", "output"))
    params = check_params(Path("params.yaml"))
    pin(params.arithmetic)
    train, test = load_split(data, "train"), load_split(data, "test")
    rows = []
    for seed in SEEDS:
        rows += shifted_losses(params, seed, BATCHES, train, test)
        print(f"seed {seed} of {SEEDS[0]} to {SEEDS[-1]}", flush=True)
    write_text(output, pd.DataFrame(rows).to_csv(index=False, lineterminator="\n"))


if __name__ == "__main__":
    run_stage(main)
