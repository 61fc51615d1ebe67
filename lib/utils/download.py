"""Files from the web: taken up again where they broke off, and checked before they take their
place."""

import contextlib
import hashlib
import http.client
import logging
import re
import shutil
import socket
import time
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Sequence
from pathlib import Path
from typing import Any, BinaryIO

from tqdm import tqdm

from lib.utils.errors import InputError
from lib.utils.files import make_folder

logger = logging.getLogger(__name__)

TIMEOUT = 30.0  # seconds without a byte
WAITS = (1.0, 2.0, 5.0, 15.0, 30.0)  # seconds before each further attempt
_PIECE = 1 << 16
_QUIET = 30.0  # seconds from one line of progress to the next where there is no terminal
# What may be gone the next moment: too busy, or a proxy that has no answer yet.
_PASSING = (408, 425, 429, 500, 502, 503, 504)
# http.client has its own errors for an answer that is cut off or makes no sense.
_BROKEN = (OSError, http.client.HTTPException)


class _Interrupted(Exception):
    """The connection failed in a way that may pass."""


class _Refused(Exception):
    """The server's answer will not change."""


class _Misfit(_Interrupted):
    """What had come before does not go on as the server's file does."""

    def __str__(self) -> str:
        return "what had come before does not fit"


def download(
    url: str,
    path: str | Path,
    sha256: str = "",
    timeout: float = TIMEOUT,
    waits: Sequence[float] = WAITS,
) -> Path:
    """The file at ``url``, written to ``path``; a file that is already there stays.

    What has come lies in ``<path>.part``; the next call goes on from its end. Proxies are those of
    the environment (``http_proxy``, ``https_proxy``, ``no_proxy``).

    Args:
        url: http or https.
        sha256: the file's SHA-256 in hexadecimal, or its beginning; '' where none is known.
        timeout: seconds without a byte before the connection counts as broken.
        waits: seconds before each further attempt; an attempt that brought something starts them
            anew.

    Raises:
        InputError: a file with another hash is at ``path``, or comes; the server does not have it;
            the connection keeps breaking; there is no space.
    """
    path = Path(path)
    if urllib.parse.urlsplit(url).scheme not in ("http", "https"):
        raise InputError(f"{url}: an address to download from begins with http:// or https://")
    if path.exists():
        check_hash(path, sha256, "another file is here already; move it away to download this one")
        return path
    make_folder(path.parent)
    part = path.with_name(f"{path.name}.part")
    is_resumed = _size(part) > 0
    _complete(url, part, timeout, waits)
    if is_resumed and not _fits(part, sha256):
        logger.info("=> %s: what had come before does not fit; once more from the start", path.name)
        part.unlink()
        _complete(url, part, timeout, waits)
    try:
        check_hash(part, sha256, f"{url} sent another file; it is deleted")
    except InputError:
        part.unlink()
        raise
    part.replace(path)
    return path


def check_hash(path: Path, sha256: str, otherwise: str) -> None:
    """Raise an InputError that ends with ``otherwise`` unless the file's SHA-256 begins so."""
    if not _fits(path, sha256):
        raise InputError(
            f"{path}: its SHA-256 should begin with {sha256}, but is {file_hash(path)} "
            f"({_size(path)} bytes): {otherwise}"
        )


def file_hash(path: Path) -> str:
    """The file's SHA-256 in hexadecimal."""
    digest = hashlib.sha256()
    try:
        with path.open("rb") as file:
            while piece := file.read(1 << 20):
                digest.update(piece)
    except OSError as error:
        raise InputError(f"{path}: cannot read: {error.strerror}") from None
    return digest.hexdigest()


def _fits(path: Path, sha256: str) -> bool:
    return not sha256 or file_hash(path).startswith(sha256.lower())


def _size(path: Path) -> int:
    return path.stat().st_size if path.exists() else 0


def _complete(url: str, part: Path, timeout: float, waits: Sequence[float]) -> None:
    """Bring ``part`` to its full size, in as many attempts as bring something."""
    left, furthest = list(waits), _size(part)
    while True:
        try:
            _attempt(url, part, timeout)
            return
        except _Refused as error:
            raise InputError(f"{url}: {error}") from None
        except _Interrupted as error:
            reason = error
            if isinstance(error, _Misfit):
                part.unlink(missing_ok=True)
        if _size(part) > furthest:
            left, furthest = list(waits), _size(part)
        if not left:
            kept = f"; {part} keeps what has come: the same command goes on" if furthest else ""
            raise InputError(f"{url}: {reason}, {len(waits) + 1} times in a row{kept}")
        wait = left.pop(0)
        logger.info("=> %s: %s; again in %g s", part.stem, reason, wait)
        time.sleep(wait)


def _attempt(url: str, part: Path, timeout: float) -> None:
    """One connection: append to ``part`` what is missing."""
    start = _size(part)
    headers = {"User-Agent": "HRPose"}
    if start:
        headers["Range"] = f"bytes={start}-"
    try:
        response = _opener().open(urllib.request.Request(url, headers=headers), timeout=timeout)
    except urllib.error.HTTPError as error:
        with error:
            _judge(error, part)
        return
    except urllib.error.URLError as error:
        raise _Interrupted(_why(error.reason, timeout)) from None
    except (*_BROKEN, ValueError) as error:
        raise _Interrupted(_why(error, timeout)) from None
    with response:
        start, total = _extent(response, start)
        _check_space(part, start, total)
        with _opened(part, start) as file:
            _receive(response, file, start, total, timeout)
    if total is not None and _size(part) < total:
        raise _Interrupted(f"broke off after {_size(part)} of {total} bytes")


def _opener() -> urllib.request.OpenerDirector:
    """What opens http and https alone, also where an answer leads elsewhere."""
    opener = urllib.request.OpenerDirector()
    for handler in (
        urllib.request.ProxyHandler,
        urllib.request.HTTPHandler,
        urllib.request.HTTPSHandler,
        urllib.request.HTTPRedirectHandler,
        urllib.request.HTTPDefaultErrorHandler,
        urllib.request.HTTPErrorProcessor,
        urllib.request.UnknownHandler,
    ):
        opener.add_handler(handler())
    return opener


def _judge(error: urllib.error.HTTPError, part: Path) -> None:
    """What an error status means; returns where ``part`` is complete."""
    if error.code == 416:  # nothing beyond what is here: it is all, or it is of another file
        total = re.fullmatch(r"bytes \*/(\d+)", error.headers.get("Content-Range", ""))
        if total and int(total.group(1)) == _size(part):
            return
        raise _Misfit
    answer = f"the server answers {error.code} {error.reason}".rstrip()
    raise _Interrupted(answer) if error.code in _PASSING else _Refused(answer)


def _extent(response: Any, start: int) -> tuple[int, int | None]:
    """Where the bytes that follow belong, and the size of the whole file if it is told."""
    if response.status == 206:
        told = re.fullmatch(r"bytes (\d+)-\d+/(\d+|\*)", response.headers.get("Content-Range", ""))
        if told and int(told.group(1)) == start:
            return start, None if told.group(2) == "*" else int(told.group(2))
        raise _Misfit
    length = response.headers.get("Content-Length", "")
    return 0, int(length) if length.isdecimal() else None


def _check_space(part: Path, start: int, total: int | None) -> None:
    free = shutil.disk_usage(part.parent).free + _size(part) - start
    if total is not None and total - start > free:
        raise InputError(
            f"{part.parent}: {total - start} bytes are still to come, and {free} are free"
        )


@contextlib.contextmanager
def _opened(part: Path, start: int):
    """``part`` cut to ``start`` bytes, to append to."""
    try:
        with part.open("ab") as file:
            file.truncate(start)
            yield file
    except OSError as error:
        raise InputError(f"{part}: cannot write: {error.strerror}") from None


def _receive(response: Any, file: BinaryIO, start: int, total: int | None, timeout: float) -> None:
    name, done, told = Path(file.name).stem, start, time.monotonic()
    # disable=None: only where standard error is no terminal; a line now and then has to do there.
    with tqdm(
        None,
        name,
        total,
        **{"initial": start, "unit": "B", "unit_scale": True, "disable": None, "leave": False},
    ) as bar:
        while True:
            try:
                piece = response.read1(_PIECE)
            except (*_BROKEN, ValueError) as error:
                raise _Interrupted(_why(error, timeout)) from None
            if not piece:
                return
            file.write(piece)
            bar.update(len(piece))
            done += len(piece)
            if bar.disable and time.monotonic() - told > _QUIET:
                logger.info("=> %s: %.2f of %.2f GB", name, done / 1e9, (total or done) / 1e9)
                told = time.monotonic()


def _why(error: object, timeout: float) -> str:
    if isinstance(error, (TimeoutError, socket.timeout)):
        return f"nothing came for {timeout:g} s"
    reason = getattr(error, "strerror", None) or str(error) or type(error).__name__
    return f"the connection failed ({reason})"
