"""Downloads: copy a file from a mirror, a folder or a web server, or say in few words why not."""

import os
import shutil
import time
from pathlib import Path
from typing import BinaryIO

import requests
import urllib3
from requests.exceptions import ProxyError, SSLError

from vae.cli import one_line
from vae.params import Download


class NotFetched(Exception):
    """Why a mirror does not give a file."""


def shown(address: str) -> str:
    """Return a server's address without user, password and query, for messages."""
    scheme, separator, place = address.partition("://") if "://" in address else ("", "", address)
    return f"{scheme}{separator}{place.rpartition('@')[2].partition('?')[0]}"


def fetch(mirror: str, name: str, path: Path, settings: Download) -> None:
    """Copy the file `name` of a mirror to `path`; try again where that can help.

    Raises NotFetched.
    """
    for attempt in range(1, settings.attempts + 1):
        time.sleep(settings.pause if attempt > 1 else 0)
        try:
            with _opened(mirror, name, settings.timeout) as source, path.open("wb") as file:
                shutil.copyfileobj(source, file)
                return
        except (OSError, ValueError, urllib3.exceptions.HTTPError) as error:
            if getattr(error, "strerror", None):
                raise  # the disk's: the errors of requests have none
            reason, retry = _problem(error)
            if not retry:
                raise NotFetched(reason) from None
    raise NotFetched(f"{reason} ({attempt} attempts)")


def _opened(mirror: str, name: str, timeout: float) -> BinaryIO:
    """Open the file `name` of a mirror."""
    if mirror.startswith(("http://", "https://")):
        response = requests.get(f"{mirror.rstrip('/')}/{name}", stream=True, timeout=timeout)
        response.raise_for_status()
        return response.raw  # not decompressed: some servers name a .gz file's own compression
    try:
        # A relative path is that from the repository, also in the folder of an experiment.
        folder = Path(os.environ.get("DVC_ROOT", ""), mirror.removeprefix("file://"))
        return (folder / name).open("rb")
    except OSError as error:
        raise NotFetched(error.strerror) from None


def _problem(error: Exception) -> tuple[str, bool]:
    """Say in few words what failed, and whether another attempt could help."""
    if isinstance(error, requests.HTTPError):
        return f"HTTP {error.response.status_code}", False
    if isinstance(error, ValueError):  # whose own message may have a password
        return "not a valid URL or answer, or HTTPS_PROXY or ALL_PROXY is not valid", False
    cause: BaseException = error
    while inner := cause.__cause__ or cause.__context__:
        cause = inner
    if isinstance(error, ProxyError):
        return f"proxy: {one_line(cause)}; HTTPS_PROXY or ALL_PROXY names it", False
    # A plain OSError: REQUESTS_CA_BUNDLE names no file.
    if isinstance(error, SSLError) or type(error) is OSError:
        return f"certificate: {one_line(cause)}; REQUESTS_CA_BUNDLE names those to trust", False
    return one_line(cause), True
