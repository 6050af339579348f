"""A training's run in MLflow, written to while it trains."""

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

from vae.cli import UserError
from vae.params import read_params
from vae.tracking.origin import origin
from vae.tracking.store import Store
from vae.tracking.sync import start_training, sync_training
from vae.training import Epoch


@contextmanager
def live_run(
    name: str, values: dict[str, str], files: Iterable[Path], device: str, identity: str
) -> Iterator[Callable[[Epoch], None]]:
    """Start a run for the training of model `name`; yield what logs an epoch.

    `values` are the flat parameters, `files` the data. The run ends as FINISHED, with all that the
    files in models/ and plots/ have, as FAILED or, on Ctrl-C, as KILLED. A store that is lost does
    not stop the training: one warning, then nothing until the end. Raises UserError when the store
    cannot be used to begin with.
    """
    (settings,) = read_params("tracking")
    if not settings.enabled:
        yield lambda epoch: None
        return
    store, lost = Store(settings), False
    with store.errors():
        store.close_killed()
        tags = {**origin(), "identity": identity, "device": device}
        run_id = start_training(store, name, values, files, tags)

    def attempt(log: Callable[[], None]) -> None:
        nonlocal lost
        try:
            with store.errors():
                log()
            lost = False
        except UserError as error:
            if not lost:
                print(f"tracking: {error}. The training goes on", flush=True)
            lost = True

    def log_epoch(epoch: Epoch) -> None:
        if not lost:
            attempt(lambda: store.log_points(run_id, epoch.row()))

    with store.failure_marked(run_id):
        yield log_epoch
    missed = lost
    attempt(lambda: sync_training(store, run_id, name, Path("models"), Path("plots")))
    if missed and not lost:
        print("tracking: the MLflow store is back, and what it had missed is logged")
