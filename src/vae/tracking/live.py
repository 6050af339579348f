"""A training's run in MLflow, written to while it trains."""

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from vae.cli import UserError
from vae.params import read_params
from vae.tracking.store import Store
from vae.tracking.sync import log_points, start_training, sync_training
from vae.training import Epoch


@contextmanager
def live_run(
    name: str, values: dict[str, str], files: Iterable[Path], identity: str
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
        run_id = start_training(store, name, values, files, {"identity": identity})

    def log_epoch(epoch: Epoch) -> None:
        nonlocal lost
        if lost:
            return
        try:
            with store.errors():
                log_points(store, run_id, epoch.row())
        except UserError as error:
            print(f"tracking: {error}. The training goes on", flush=True)
            lost = True

    try:
        yield log_epoch
    except BaseException as error:
        status = "KILLED" if isinstance(error, KeyboardInterrupt) else "FAILED"
        with suppress(UserError), store.errors():
            store.client.set_terminated(run_id, status)
        raise
    try:
        with store.errors():
            sync_training(store, run_id, name, Path("models"), Path("plots"))
        if lost:
            print("tracking: the MLflow store is back, and what it had missed is logged")
    except UserError as error:
        if not lost:
            print(f"tracking: {error}")
