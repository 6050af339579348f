"""A study's trials on Ray: on this machine's cores or on a cluster."""

import os
import platform
import socket
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

from vae.cli import UserError, one_line
from vae.data import Split
from vae.identity import torch_version
from vae.study.trials import Trial, run_trial

# An HTTP/2 connection, which Ray uses, begins with this text and a settings frame (type 4).
HTTP_2 = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + bytes((0, 0, 0, 4, 0, 0, 0, 0, 0))

Rows = list[dict[str, Any]]


def run_trials(
    trials: list[Trial], splits: tuple[Split, Split], address: str | None
) -> Iterator[tuple[Trial, Rows | str]]:
    """Yield each trial when it ends, with its rows or the reason why it failed. Raises UserError.

    A trial takes one core and, in a cluster with GPUs, a quarter of a GPU.
    """
    if not trials:
        return
    ray = _start(address)
    try:
        # The trials of a node share one copy.
        shared = [ray.put(split) for split in splits]
        gpus = 0.25 if ray.cluster_resources().get("GPU") else 0
        # A trial is retried if its worker or node is lost, not if it raises.
        remote = ray.remote(run_on_node).options(num_cpus=1, num_gpus=gpus, max_retries=5)
        pending = {remote.remote(torch_version(), trial, *shared): trial for trial in trials}
        for done in range(1, len(trials) + 1):
            (ended,), _ = ray.wait(list(pending), num_returns=1)
            trial = pending.pop(ended)
            try:
                result = ray.get(ended)
                said = f"test loss {result[-1]['test_loss']:.3f}"
            except ray.exceptions.RayError as error:
                result = said = one_line(getattr(error, "cause", error))
            print(f"{done} of {len(trials)}: {trial}: {said}", flush=True)
            yield trial, result
    finally:
        ray.shutdown()


def run_on_node(torch: str, trial: Trial, train: Split, test: Split) -> Rows:
    """Run a trial on a node. Raises UserError if its PyTorch is not of version `torch`."""
    if (here := torch_version()) != torch:
        raise UserError(
            f"{platform.node()} has torch {here}, and the study torch {torch}; install "
            "requirements.lock there"
        )
    return run_trial(trial, train, test)


def _start(address: str | None) -> ModuleType:
    """Import Ray and connect it to the cluster at `address` or RAY_ADDRESS, or start it here."""
    address = address or os.environ.get("RAY_ADDRESS") or "local"
    if address == "local":
        # Makes Ray listen on loopback only, also on Linux: its ports have no password.
        os.environ["RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER"] = "0"
    try:
        import ray  # an optional package, which reads the variable above when imported
    except ImportError:
        raise UserError(
            "a study runs on Ray, which is not installed: make study, or pip install -e .[study]"
        ) from None
    src = Path(__file__).parents[2]
    code = {"py_modules": [str(src / name) for name in ("exact", "networks", "vae")]}
    quiet = {"include_dashboard": False, "log_to_driver": False, "logging_level": "error"}
    try:
        if address not in ("auto", "local") and "RAY_USE_TLS" not in os.environ:
            # Ray itself tries for minutes.
            host, _, port = address.rpartition("://")[2].rpartition(":")
            with socket.create_connection((host, int(port)), timeout=10) as server:
                server.sendall(HTTP_2)
                if server.recv(9)[3:4] != b"\x04":
                    raise OSError("the server there is not Ray")
        ray.init(address, runtime_env=code, **quiet)
    except (OSError, ValueError, RuntimeError) as error:
        raise UserError(
            f"cannot use the Ray cluster at {address} ({one_line(error)}); without --address and "
            "RAY_ADDRESS, Ray starts on this machine"
        ) from None
    return ray
