"""A study's trials on Ray: this machine's cores, or a cluster's."""

import os
import socket
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

from vae.arithmetic import PORTABLE
from vae.cli import UserError
from vae.data import Split
from vae.study.trials import Trial, run_trial

from tqdm import tqdm

# Trials handed to Ray at a time, so that a study of very many does not wait on all of them.
PENDING = 500

Rows = list[dict[str, Any]]


def run_trials(
    trials: list[Trial],
    done: int,
    train: Split,
    test: Split,
    address: str | None,
    cpus: int,
    gpus: float,
) -> Iterator[tuple[Trial, Rows | str]]:
    """Each trial as it ends, with its rows, or with the reason why it failed; `done` have ended before.

    Each takes `cpus` cores and, where the cluster has GPUs, the share `gpus` of one. Raises UserError when
    Ray is missing or its cluster cannot be reached.
    """
    if not trials:
        return
    portable = trials[0].params.arithmetic == "portable"
    ray = _start(address, PORTABLE if portable else {})
    try:
        # One copy on each node, which its trials share.
        splits = ray.put(train), ray.put(test)
        resources = ray.cluster_resources()
        cpus = int(PORTABLE["OMP_NUM_THREADS"]) if portable else cpus
        gpus = gpus if resources.get("GPU") else 0
        slots = max(1, int(resources["CPU"] // cpus))
        # A worker or a node that is lost costs another try; a trial that raises would raise again.
        remote = ray.remote(run_trial).options(num_cpus=cpus, num_gpus=gpus, max_retries=5)
        waiting, pending, failed = iter(trials), {}, 0
        total = done + len(trials)
        with tqdm(total=total, initial=done, unit="trial", disable=not sys.stderr.isatty()) as bar:
            while True:
                while len(pending) < PENDING and (trial := next(waiting, None)):
                    pending[remote.remote(trial, *splits)] = trial
                if not pending:
                    return
                bar.set_postfix_str(f"{min(slots, len(pending))} running, {failed} failed")
                (ended,), _ = ray.wait(list(pending), num_returns=1)
                trial = pending.pop(ended)
                result = _result(ray, ended)
                failed += isinstance(result, str)
                yield trial, result
                done += 1
                bar.update()
                if bar.disable:
                    said = (
                        result
                        if isinstance(result, str)
                        else f"test loss {result[-1]['test_loss']:.3f}"
                    )
                    print(f"{done} of {total}: {trial}: {said}", flush=True)
    finally:
        ray.shutdown()


def _start(address: str | None, variables: dict[str, str]) -> ModuleType:
    """Ray, connected to the cluster at `address` or RAY_ADDRESS, or started in this process."""
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    address = address or os.environ.get("RAY_ADDRESS") or "local"
    if address == "local":
        # What makes Ray listen on the loopback alone, on Linux too: its ports have no password.
        os.environ["RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER"] = "0"
    try:
        import ray
    except ImportError:
        raise UserError(
            "a study runs on Ray, which is not installed: make study, or pip install -e .[study]"
        ) from None
    if address not in ("auto", "local"):
        _reach(address)
    environment = {"py_modules": [str(Path(__file__).parents[1])], "env_vars": variables}
    quiet = {"include_dashboard": False, "log_to_driver": False, "logging_level": "error"}
    try:
        ray.init(address, runtime_env=environment, **quiet)
    except (ConnectionError, ValueError, RuntimeError) as error:
        raise _unusable(address, error) from None
    return ray


def _reach(address: str) -> None:
    """Raise UserError unless somebody listens at `host:port`; Ray itself would try for minutes."""
    host, _, port = address.rpartition("://")[2].rpartition(":")
    try:
        socket.create_connection((host, int(port)), timeout=10).close()
    except (OSError, ValueError) as error:
        raise _unusable(address, error) from None


def _unusable(address: str | None, error: Exception) -> UserError:
    reason = " ".join(str(error).split())
    return UserError(
        f"cannot use the Ray cluster at {address} ({reason}); without an address, Ray starts on this machine"
    )


def _result(ray: ModuleType, ended: Any) -> Rows | str:
    """A trial's rows, or in one line why it has none."""
    try:
        return ray.get(ended)
    except ray.exceptions.RayTaskError as error:
        return " ".join(str(error.cause).split())
    except ray.exceptions.RayError as error:
        return " ".join(str(error).split())
