"""A file from a mirror: a folder or a web server; and in a few words why it does not come."""

import os
import time
from contextlib import suppress
from pathlib import Path
from typing import BinaryIO
from urllib.request import url2pathname

import requests
import urllib3
from requests.exceptions import ProxyError, SSLError
from requests.utils import get_environ_proxies, select_proxy

from vae.cli import one_line
from vae.files import shown

SLOWEST = 1000  # bytes per second; a mirror below it for longer than the timeout is given up


class NotFetched(Exception):
    """Why a mirror does not give a file, and whether it may when it is asked again."""


def fetch(mirror: str, name: str, path: Path, timeout: float) -> None:
    """Copy the file `name` of a mirror to `path`. Silence of `timeout` seconds ends it.

    Raises NotFetched.
    """
    try:
        with _opened(mirror, name, timeout) as source, path.open("wb") as file:
            start = time.monotonic()
            # read1 returns what has come: a mirror that drips is noticed before 64 KiB are there.
            while piece := source.read1(2**16):
                file.write(piece)
                if file.tell() < SLOWEST * (time.monotonic() - start - timeout):
                    raise requests.Timeout
    except (OSError, ValueError, urllib3.exceptions.HTTPError) as error:
        if getattr(error, "strerror", None):
            raise  # the disk's: the errors of requests have none
        raise NotFetched(*_problem(error, mirror)) from None


def _opened(mirror: str, name: str, timeout: float) -> BinaryIO:
    """Open the file `name` of a mirror."""
    if mirror.startswith(("http://", "https://")):
        response = requests.get(f"{mirror.rstrip('/')}/{name}", stream=True, timeout=timeout)
        response.raise_for_status()
        return response.raw  # some servers name a .gz file's own compression as the transfer's
    place = url2pathname(mirror.removeprefix("file://")) if "://" in mirror else mirror
    try:
        # From the repository's root, where DVC copied it for an experiment as well.
        return Path(os.environ.get("DVC_ROOT", ""), place, name).open("rb")
    except OSError as error:
        raise NotFetched(error.strerror, False) from None


def _problem(error: Exception, url: str) -> tuple[str, bool]:
    """Say in a few words what failed, and whether to try again; requests takes half a page."""
    proxy = None
    with suppress(ValueError):  # not a URL
        proxy = select_proxy(url, get_environ_proxies(url))
    through = f" through the proxy {shown(proxy)}" if proxy else ""
    if isinstance(error, requests.HTTPError | requests.TooManyRedirects):
        return f"HTTP {error.response.status_code}{through}", False
    if isinstance(error, ValueError):  # in its own words there may be a password
        wrong = f"no connection{through}; HTTPS_PROXY or ALL_PROXY should be http://HOST:PORT"
        return wrong if proxy else "not a valid URL or answer", False
    # A plain OSError: REQUESTS_CA_BUNDLE names no file.
    if isinstance(error, SSLError | ProxyError) or type(error) is OSError:
        cause: BaseException = error
        while inner := cause.__cause__ or cause.__context__:
            cause = inner
        hint = "REQUESTS_CA_BUNDLE names certificates to trust, HTTPS_PROXY or ALL_PROXY a proxy"
        return f"no connection{through}: {one_line(cause)}; {hint}", False
    slow = isinstance(error, requests.Timeout | urllib3.exceptions.TimeoutError)
    return f"{'too slow' if slow else 'no connection'}{through}", True
