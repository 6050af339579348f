"""The run of a training in MLflow, updated while it trains."""

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from vae.cli import UserError
from vae.params import check_params
from vae.tracking.store import Store
from vae.tracking.sync import log_epoch_losses, start_run, sync_training
from vae.training import Epoch


@contextmanager
def live_run(
    name: str, values: dict[str, str], files: Iterable[Path], training_id: str
) -> Iterator[Callable[[Epoch], None]]:
    """Start a run for the training of model `name`; yield a function that logs an epoch.

    `values` are the flat parameters, `files` the data. The run ends as FINISHED, as FAILED or, on
    Ctrl-C, as KILLED. When the store fails meanwhile, the training continues, and what is missing
    is logged at its end or by `make track`. Raises UserError when the store fails at the start.
    """
    settings = check_params(Path("params.yaml")).tracking
    if not settings.enabled:
        yield lambda epoch: None
        return
    store, lost = Store(settings), False
    with store.errors():
        run_id = start_run(store, name, values, files, {"identity": training_id})

    def attempt(log: Callable[..., None], *arguments: Any) -> None:
        nonlocal lost
        try:
            with store.errors():
                log(store, run_id, *arguments)
        except UserError as error:
            if not lost:
                print(f"tracking stopped: {error}", flush=True)
            lost = True

    try:
        # A store that was lost is left alone, since each attempt takes seconds.
        yield lambda epoch: None if lost else attempt(log_epoch_losses, epoch.row())
    except BaseException as error:
        status = "KILLED" if isinstance(error, KeyboardInterrupt) else "FAILED"
        with suppress(UserError), store.errors():
            store.client.set_terminated(run_id, status)
        raise
    attempt(sync_training, name, Path("models"), Path("plots"))
