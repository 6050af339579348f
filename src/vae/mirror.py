"""Downloads: copy a file from a mirror, a folder or a web server, or say in few words why not."""

import os
import shutil
from pathlib import Path
from typing import BinaryIO
from urllib.request import url2pathname

import requests
import urllib3
from requests.exceptions import ProxyError, SSLError

from vae.cli import one_line


class NotFetched(Exception):
    """Why a mirror does not give a file, and whether another attempt could help."""


def fetch(mirror: str, name: str, path: Path, timeout: float) -> None:
    """Copy the file `name` of a mirror to `path`; give up after `timeout` seconds of silence.

    Raises NotFetched.
    """
    try:
        with _opened(mirror, name, timeout) as source, path.open("wb") as file:
            shutil.copyfileobj(source, file)
    except (OSError, ValueError, urllib3.exceptions.HTTPError) as error:
        if getattr(error, "strerror", None):
            raise  # the disk's: the errors of requests have none
        raise NotFetched(*_problem(error)) from None


def _opened(mirror: str, name: str, timeout: float) -> BinaryIO:
    """Open the file `name` of a mirror."""
    if mirror.startswith(("http://", "https://")):
        response = requests.get(f"{mirror.rstrip('/')}/{name}", stream=True, timeout=timeout)
        response.raise_for_status()
        return response.raw  # not decompressed: some servers name a .gz file's own compression
    place = url2pathname(mirror.removeprefix("file://")) if "://" in mirror else mirror
    try:
        # A relative path is that from the repository, also in the folder of an experiment.
        return Path(os.environ.get("DVC_ROOT", ""), place, name).open("rb")
    except OSError as error:
        raise NotFetched(error.strerror, False) from None


def _problem(error: Exception) -> tuple[str, bool]:
    """Say in few words what failed, and whether another attempt could help."""
    if isinstance(error, requests.HTTPError | requests.TooManyRedirects):
        return f"HTTP {error.response.status_code}", False
    if isinstance(error, ValueError):  # whose own message may have a password
        return "not a valid URL or answer, or HTTPS_PROXY or ALL_PROXY is not valid", False
    # A plain OSError: REQUESTS_CA_BUNDLE names no file.
    if isinstance(error, SSLError | ProxyError) or type(error) is OSError:
        cause: BaseException = error
        while inner := cause.__cause__ or cause.__context__:
            cause = inner
        if isinstance(error, ProxyError):
            return f"proxy: {one_line(cause)}; HTTPS_PROXY or ALL_PROXY names it", False
        return f"certificate: {one_line(cause)}; REQUESTS_CA_BUNDLE names those to trust", False
    slow = isinstance(error, requests.Timeout | urllib3.exceptions.TimeoutError)
    return "too slow" if slow else "no connection", True
