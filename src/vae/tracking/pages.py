"""What MLflow's pages show first: notes with links, and shared views with columns and charts."""

import json
from collections.abc import Sequence
from pathlib import Path

from vae.params import MODELS

# A shared view in the form in which MLflow keeps it in a tag of the experiment.
VIEW = Path(__file__).with_name("view.json")
# The images of each model's run.
IMAGES = {"20d": ["reconstructions"], "2d": ["manifold", "reconstructions"]}


def runs_page(experiment: str, view: str = "trainings") -> str:
    """The address of a shared view: `trainings`, the table of all runs, or a model's name."""
    # Of the two kinds of pages that MLflow's side bar offers.
    kind = "workflowType=machine_learning"
    return f"#/experiments/{experiment}/runs?viewStateShareKey={view}&{kind}"


def experiment_tags(experiment: str) -> dict[str, str]:
    """Tags with an experiment's note and views. Each model has its own charts, because the losses
    of the two have no common scale."""
    view, tags = json.loads(VIEW.read_text()), {}
    for name in ("trainings", *MODELS):
        view["searchFilter"] = f"tags.model = '{name}'" if name in MODELS else ""
        kinds = IMAGES.get(name, IMAGES["2d"])
        view["compareRunCharts"][0]["imageKeys"] = [f"images/{kind}" for kind in kinds]
        tags[f"mlflow.sharedViewState.{name}"] = json.dumps(view)
    charts = " and ".join(
        f"[{name}]({runs_page(experiment, name)}&compareRunsMode=CHART)" for name in MODELS
    )
    tags["mlflow.note.content"] = (
        f"Runs: [table]({runs_page(experiment)}), curves and images of {charts}. "
        "A step is an epoch; the images of step 0 are the trained model's."
    )
    return tags


def run_note(experiment: str, run_id: str, files: Sequence[Path]) -> str:
    """A run's note: links to its files, in one line, of which MLflow hides none."""
    place = f"#/experiments/{experiment}/runs/{run_id}/artifacts"
    return ", ".join(f"[{path.name}]({place}/{path})" for path in files)
