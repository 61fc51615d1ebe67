"""HTTP downloads that resume after an interruption and verify the SHA-256."""

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

TIMEOUT = 30.0  # seconds without data
RETRY_DELAYS = (1.0, 2.0, 5.0, 15.0, 30.0)  # seconds before each retry
_CHUNK_SIZE = 1 << 16
_LOG_INTERVAL = 30.0  # seconds between progress lines when there is no terminal
_TRANSIENT_STATUS = (408, 425, 429, 500, 502, 503, 504)
# http.client has its own exceptions for truncated and malformed responses.
_CONNECTION_ERRORS = (OSError, http.client.HTTPException)


class _TransientError(Exception):
    """A failure that may go away on retry."""


class _PermanentError(Exception):
    """A failure that a retry would not change."""


class _ResumeError(_TransientError):
    """The partial file does not match the server's file."""

    def __str__(self) -> str:
        return "the partial file does not match the server's file"


def is_url(text: str) -> bool:
    """Return True if ``text`` is an address that ``download`` takes."""
    return text.startswith(("http://", "https://"))


def download(
    url: str,
    path: str | Path,
    sha256: str = "",
    timeout: float = TIMEOUT,
    retry_delays: Sequence[float] = RETRY_DELAYS,
) -> Path:
    """Download ``url`` to ``path``, unless the file exists.

    Partial downloads are kept in ``<path>.part`` and resumed by the next call. Proxies are taken
    from the environment (``http_proxy``, ``https_proxy``, ``no_proxy``).

    Args:
        url: http or https URL.
        path: target file.
        sha256: SHA-256 of the file in hexadecimal, or its first digits; '' if unknown.
        timeout: seconds without data after which the connection counts as failed.
        retry_delays: seconds before each retry; the list restarts after any progress.

    Raises:
        InputError: if the existing or the downloaded file has a different hash, the server does not
            have the file, the connection keeps failing, or the disk is full.
    """
    path = Path(path)
    if not is_url(url):
        raise InputError(f"{url}: the URL must begin with http:// or https://")
    if path.exists():
        check_hash(
            path,
            sha256,
            "a different file already exists; move it away to download the expected file",
        )
        return path
    make_folder(path.parent)
    part = path.with_name(f"{path.name}.part")
    is_resumed = _size(part) > 0
    _download_part(url, part, timeout, retry_delays)
    if is_resumed and not _has_hash(part, sha256):
        logger.info(
            "=> %s: the partial file does not match; downloading the whole file again", path.name
        )
        part.unlink()
        _download_part(url, part, timeout, retry_delays)
    try:
        check_hash(part, sha256, f"{url} sent a different file; it has been deleted")
    except InputError:
        part.unlink()
        raise
    part.replace(path)
    return path


def check_hash(path: Path, sha256: str, message: str) -> None:
    """Raise an InputError ending in ``message`` unless the SHA-256 begins with ``sha256``."""
    if not _has_hash(path, sha256):
        raise InputError(
            f"{path} ({_size(path)} bytes): its SHA-256 should begin with {sha256}, but is "
            f"{file_hash(path)}: {message}"
        )


def file_hash(path: Path) -> str:
    """Return the SHA-256 of a file in hexadecimal."""
    digest = hashlib.sha256()
    try:
        with path.open("rb") as file:
            while chunk := file.read(1 << 20):
                digest.update(chunk)
    except OSError as error:
        raise InputError(f"{path}: cannot read: {error.strerror}") from None
    return digest.hexdigest()


def _has_hash(path: Path, sha256: str) -> bool:
    return not sha256 or file_hash(path).startswith(sha256.lower())


def _size(path: Path) -> int:
    return path.stat().st_size if path.exists() else 0


def _download_part(url: str, part: Path, timeout: float, retry_delays: Sequence[float]) -> None:
    """Complete the partial file, with retries."""
    delays, furthest = list(retry_delays), _size(part)
    while True:
        try:
            _attempt(url, part, timeout)
            return
        except _PermanentError as error:
            raise InputError(f"{url}: {error}") from None
        except _TransientError as error:
            reason = error
            if isinstance(error, _ResumeError):
                part.unlink(missing_ok=True)
        if _size(part) > furthest:
            delays, furthest = list(retry_delays), _size(part)
        if not delays:
            hint = f"; run the same command again to resume from {part}" if furthest else ""
            attempts = len(retry_delays) + 1
            raise InputError(f"{url}: {reason}, {attempts} times in a row{hint}")
        delay = delays.pop(0)
        logger.info("=> %s: %s; retrying in %g s", part.stem, reason, delay)
        time.sleep(delay)


def _attempt(url: str, part: Path, timeout: float) -> None:
    """Append the missing bytes to ``part``, in one connection."""
    start = _size(part)
    headers = {"User-Agent": "HRPose"}
    if start:
        headers["Range"] = f"bytes={start}-"
    try:
        response = _opener().open(urllib.request.Request(url, headers=headers), timeout=timeout)
    except urllib.error.HTTPError as error:
        with error:
            _handle_status(error, part)
        return
    except urllib.error.URLError as error:
        raise _TransientError(_describe(error.reason, timeout)) from None
    except (*_CONNECTION_ERRORS, ValueError) as error:
        raise _TransientError(_describe(error, timeout)) from None
    with response:
        start, total = _content_range(response, start)
        _check_space(part, start, total)
        with _opened(part, start) as file:
            _receive(response, file, start, total, timeout)
    if total is not None and _size(part) < total:
        raise _TransientError(f"the connection closed after {_size(part)} of {total} bytes")


def _opener() -> urllib.request.OpenerDirector:
    """Return an opener that allows only http and https, also for redirects."""
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


def _handle_status(error: urllib.error.HTTPError, part: Path) -> None:
    """Raise the exception for an HTTP error status; return if ``part`` is already complete."""
    if error.code == 416:  # range not satisfiable: the file is complete, or a different file
        total = re.fullmatch(r"bytes \*/(\d+)", error.headers.get("Content-Range", ""))
        if total and int(total.group(1)) == _size(part):
            return
        raise _ResumeError
    status = f"the server returned {error.code} {error.reason}".rstrip()
    raise _TransientError(status) if error.code in _TRANSIENT_STATUS else _PermanentError(status)


def _content_range(response: Any, start: int) -> tuple[int, int | None]:
    """Return the offset of the response body in the file, and the file size if it is known."""
    if response.status == 206:
        found = re.fullmatch(r"bytes (\d+)-\d+/(\d+|\*)", response.headers.get("Content-Range", ""))
        if found and int(found.group(1)) == start:
            return start, None if found.group(2) == "*" else int(found.group(2))
        raise _ResumeError
    length = response.headers.get("Content-Length", "")
    return 0, int(length) if length.isdecimal() else None


def _check_space(part: Path, start: int, total: int | None) -> None:
    free = shutil.disk_usage(part.parent).free + _size(part) - start
    if total is not None and total - start > free:
        raise InputError(
            f"{part.parent}: not enough disk space: {total - start} bytes needed, {free} free"
        )


@contextlib.contextmanager
def _opened(part: Path, start: int):
    """Truncate ``part`` to ``start`` bytes and open it for appending."""
    try:
        with part.open("ab") as file:
            file.truncate(start)
            yield file
    except OSError as error:
        raise InputError(f"{part}: cannot write: {error.strerror}") from None


def _receive(response: Any, file: BinaryIO, start: int, total: int | None, timeout: float) -> None:
    name, done, last_log = Path(file.name).stem, start, time.monotonic()
    # disable=None: no bar if standard error is not a terminal; progress is then logged instead.
    with tqdm(
        None,
        name,
        total,
        **{"initial": start, "unit": "B", "unit_scale": True, "disable": None, "leave": False},
    ) as bar:
        while True:
            try:
                chunk = response.read1(_CHUNK_SIZE)
            except (*_CONNECTION_ERRORS, ValueError) as error:
                raise _TransientError(_describe(error, timeout)) from None
            if not chunk:
                return
            file.write(chunk)
            bar.update(len(chunk))
            done += len(chunk)
            if bar.disable and time.monotonic() - last_log > _LOG_INTERVAL:
                logger.info("=> %s: %.2f of %.2f GB", name, done / 1e9, (total or done) / 1e9)
                last_log = time.monotonic()


def _describe(error: object, timeout: float) -> str:
    if isinstance(error, (TimeoutError, socket.timeout)):
        return f"no data received for {timeout:g} s"
    reason = getattr(error, "strerror", None) or str(error) or type(error).__name__
    return f"the connection failed ({reason})"
