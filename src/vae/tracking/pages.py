"""What MLflow's pages open with: notes with links, and shared views with columns and charts."""

import json
from collections.abc import Sequence
from pathlib import Path

from vae.params import MODELS

# A shared view, as MLflow's page keeps it in a tag of the experiment.
VIEW = Path(__file__).with_name("view.json")


def runs_page(experiment: str, view: str = "trainings") -> str:
    """Where a shared view is: `trainings`, the table of all runs, or a model's, by its name."""
    return f"#/experiments/{experiment}/runs?viewStateShareKey={view}"


def experiment_tags(experiment: str) -> dict[str, str]:
    """Tags with an experiment's note and views. Each model has charts of its own: the losses of
    both have no common scale."""
    view = json.loads(VIEW.read_text())
    filters = {"trainings": ""} | {name: f"tags.model = '{name}'" for name in MODELS}
    tags = {
        f"mlflow.sharedViewState.{name}": json.dumps(view | {"searchFilter": text})
        for name, text in filters.items()
    }
    kind = "&workflowType=machine_learning"  # what MLflow's side bar offers
    table, *charts = (f"{runs_page(experiment, name)}{kind}" for name in filters)
    links = [
        f"[{name}]({place}&compareRunsMode=CHART)"
        for name, place in zip(MODELS, charts, strict=True)
    ]
    note = f"Runs: [table]({table}), curves and pictures of {' and '.join(links)}. "
    note += "A step is an epoch; the pictures of step 0 are the trained model's."
    return tags | {"mlflow.note.content": note}


def run_note(experiment: str, run_id: str, files: Sequence[Path]) -> str:
    """A run's note: a link to each of its files, on lines so few that MLflow folds none away."""
    place = f"#/experiments/{experiment}/runs/{run_id}/artifacts"
    return ", ".join(f"[{path.name}]({place}/{path})" for path in files)
