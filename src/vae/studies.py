"""A study's table: a row for each trial and epoch, in a CSV that grows as trials end."""

import io
from pathlib import Path
from typing import Any

from vae.errors import UserError

import pandas as pd

# The arm in which only the seed differs from params.yaml.
DEFAULTS = "defaults"
COLUMNS = ["trial", "model", "arm", "seed", "epoch", "noise_kl", "train_loss", "test_loss"]


def append_rows(path: Path, rows: list[dict[str, Any]]) -> None:
    """Append a finished trial's rows to a CSV, with one write."""
    text = pd.DataFrame(rows).to_csv(index=False, header=not path.stat().st_size, lineterminator="\n")
    with path.open("a", encoding="utf-8", newline="") as file:
        file.write(text)


def read_rows(path: Path) -> pd.DataFrame:
    """The finished trials of a CSV; what a kill left of another is left out. Empty if there is no file.

    Raises UserError when it is something else.
    """
    try:
        text = path.read_text(encoding="utf-8")
        lines = text[: text.rfind("\n") + 1]
        if not lines:
            return pd.DataFrame(columns=COLUMNS)
        table = pd.read_csv(io.StringIO(lines), dtype={"trial": str})
        table[COLUMNS]  # which raises KeyError where one is missing, as the next line ValueError on a text
        table.drop(columns=COLUMNS[:3]).apply(pd.to_numeric)
        finished = table.loc[table["noise_kl"].notna(), "trial"]
        return table[table["trial"].isin(finished)].drop_duplicates(["trial", "epoch"])
    except FileNotFoundError:
        return pd.DataFrame(columns=COLUMNS)
    except (OSError, ValueError, KeyError) as error:
        reason = " ".join(str(error).split())
        raise UserError(f"{path} is no table of a study ({reason}); name another, or delete it") from None
