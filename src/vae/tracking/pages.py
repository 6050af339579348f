"""What MLflow's pages show first: notes with links, and shared views with columns and charts."""

import json
from collections.abc import Sequence
from pathlib import Path

from vae.params import MODELS

# A shared view in the form in which MLflow keeps it in a tag of the experiment.
VIEW = Path(__file__).with_name("view.json")


def runs_page(experiment: str, view: str = "trainings") -> str:
    """The address of a shared view: `trainings`, the table of all runs, or a model's name."""
    return f"#/experiments/{experiment}/runs?viewStateShareKey={view}"


def experiment_tags(experiment: str) -> dict[str, str]:
    """Tags with an experiment's note and views. Each model has its own charts, because the losses
    of the two have no common scale."""
    view = json.loads(VIEW.read_text())
    filters = {"trainings": ""} | {name: f"tags.model = '{name}'" for name in MODELS}
    tags = {
        f"mlflow.sharedViewState.{name}": json.dumps(view | {"searchFilter": text})
        for name, text in filters.items()
    }
    kind = "&workflowType=machine_learning"  # of the two that MLflow's side bar offers
    charts = " and ".join(
        f"[{name}]({runs_page(experiment, name)}{kind}&compareRunsMode=CHART)" for name in MODELS
    )
    tags["mlflow.note.content"] = (
        f"Runs: [table]({runs_page(experiment)}{kind}), curves and images of {charts}. "
        "A step is an epoch; the images of step 0 are the trained model's."
    )
    return tags


def run_note(experiment: str, run_id: str, files: Sequence[Path]) -> str:
    """A run's note: links to its files, in one line, of which MLflow hides none."""
    place = f"#/experiments/{experiment}/runs/{run_id}/artifacts"
    return ", ".join(f"[{path.name}]({place}/{path})" for path in files)
