"""The experiment in MLflow: where its runs are compared, a view of them that a note links to."""

import json
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from mlflow import MlflowClient

# A shared view, as MLflow's page keeps one in a tag; tests/services looks at it in a browser.
VIEW_TAG = "mlflow.sharedViewState.trainings"
COLUMNS = {
    "attributes": ["Version"],
    "metrics": ["test_loss", "train_loss"],
    "params": ["train.learning_rate"],
    "tags": ["model", "dvc.stage", "dvc.experiment", "device"],
}
PICTURES = ["pictures/manifold", "pictures/reconstructions"]


def find_experiment(client: "MlflowClient", name: str, artifacts: str | None) -> str:
    """The experiment's id; it is made where it is missing, and so is its view."""
    found = client.get_experiment_by_name(name)
    experiment = (
        found.experiment_id
        if found
        else client.create_experiment(name, artifact_location=artifacts)
    )
    if not found or VIEW_TAG not in found.tags:
        runs = f"#/experiments/{experiment}/runs?viewStateShareKey=trainings&workflowType=machine_learning"
        links = f"[table]({runs}), [curves and pictures]({runs}&compareRunsMode=CHART)"
        note = f"A run for each training: {links}. A step is an epoch, 0 is before training."
        client.set_experiment_tag(experiment, "mlflow.note.content", note)
        client.set_experiment_tag(experiment, VIEW_TAG, json.dumps(view()))
    return experiment


def view() -> dict[str, Any]:
    """Telling columns, and one grid of all pictures instead of MLflow's one for each kind."""
    sections = [
        {"uuid": name, "name": name, "display": True}
        for name in ("Model metrics", "pictures", "scores")
    ]
    sections[1] |= {"columns": 1, "cardHeight": 480}
    grid = {"type": "IMAGE", "metricSectionId": "pictures", "runsCountToCompare": 10, "step": 10}
    every = {**grid, "uuid": "all", "imageKeys": PICTURES, "showRunParams": False, "deleted": False}
    gone = {**grid, "isGenerated": True, "deleted": True}
    each = [{**gone, "uuid": key, "imageKeys": [key]} for key in PICTURES]
    return {
        "searchFilter": "",
        "orderByKey": "attributes.start_time",
        "orderByAsc": False,
        "startTime": "ALL",
        "lifecycleFilter": "Active",
        "modelVersionFilter": "All Runs",
        "datasetsFilter": [],
        "selectedColumns": [
            f"{kind}.`{name}`" for kind, names in COLUMNS.items() for name in names
        ],
        "compareRunSections": sections,
        "isAccordionReordered": True,  # or the losses, whose names have no slash, would come last
        "compareRunCharts": [every, *each],
    }
