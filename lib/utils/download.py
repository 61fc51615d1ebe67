"""HTTP downloads that resume after an interruption and verify the SHA-256."""

import hashlib
import http.client
import logging
import re
import shutil
import time
import urllib.error
import urllib.parse
import urllib.request
from pathlib import Path
from typing import Any, BinaryIO, NoReturn

from tqdm import tqdm

from lib.utils.errors import InputError, os_errors_as
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


def is_url(text: str) -> bool:
    """Return True if ``text`` is an http or https URL."""
    return text.startswith(("http://", "https://"))


def download(url: str, path: str | Path, sha256: str = "") -> Path:
    """Download an http or https URL to the file ``path``, unless it exists.

    Partial downloads are kept in ``<path>.part`` and resumed by the next call. Proxies are taken
    from the environment (``http_proxy``, ``https_proxy``, ``no_proxy``).

    Args:
        sha256: SHA-256 of the file in hexadecimal, or its first digits; '' if unknown.

    Raises:
        InputError: the existing or the downloaded file has a different hash, the server does not
            have the file, the connection keeps failing, or the disk is full.
    """
    path = Path(path)
    if not is_url(url):
        raise InputError(f"{url}: the URL must begin with http:// or https://")
    if path.exists():
        message = "a different file already exists; move it away to download the expected file"
        check_hash(path, sha256, message)
        return path
    make_folder(path.parent)
    part = path.with_name(f"{path.name}.part")
    is_resumed = _size(part) > 0
    _download_part(url, part)
    if is_resumed and not _has_hash(part, sha256):
        logger.info(
            "=> %s: the partial file does not match; downloading the whole file again", path.name
        )
        part.unlink()
        _download_part(url, part)
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
    with os_errors_as(f"{path}: cannot read"), path.open("rb") as file:
        while chunk := file.read(1 << 20):
            digest.update(chunk)
    return digest.hexdigest()


def _has_hash(path: Path, sha256: str) -> bool:
    return not sha256 or file_hash(path).startswith(sha256.lower())


def _size(path: Path) -> int:
    return path.stat().st_size if path.exists() else 0


def _download_part(url: str, part: Path) -> None:
    """Complete the partial file, with retries; the delays start again after any progress."""
    delays, furthest = list(RETRY_DELAYS), _size(part)
    while True:
        try:
            _attempt(url, part)
            return
        except _TransientError as error:
            reason = error
        if _size(part) > furthest:
            delays, furthest = list(RETRY_DELAYS), _size(part)
        if not delays:
            hint = f"; run the same command again to resume from {part}" if furthest else ""
            raise InputError(f"{url}: {reason}, {len(RETRY_DELAYS) + 1} times in a row{hint}")
        delay = delays.pop(0)
        logger.info("=> %s: %s; retrying in %g s", part.stem, reason, delay)
        time.sleep(delay)


class _WebRedirects(urllib.request.HTTPRedirectHandler):
    """Follow redirects to http and https only; urllib also follows those to ftp."""

    def redirect_request(self, request, response, code, message, headers, url):
        if urllib.parse.urlsplit(url).scheme not in ("http", "https"):
            raise urllib.error.HTTPError(url, code, f"redirect to {url}", headers, response)
        return super().redirect_request(request, response, code, message, headers, url)


def _attempt(url: str, part: Path) -> None:
    """Append the missing bytes to ``part``, in one connection."""
    start = _size(part)
    headers = {"User-Agent": "HRPose"}
    if start:
        headers["Range"] = f"bytes={start}-"
    try:
        request = urllib.request.Request(url, headers=headers)
        response = urllib.request.build_opener(_WebRedirects).open(request, timeout=TIMEOUT)
    except urllib.error.HTTPError as error:
        with error:
            _handle_status(error, url, part)
        return
    except (*_CONNECTION_ERRORS, ValueError) as error:
        raise _TransientError(_describe(getattr(error, "reason", error))) from None
    with response:
        start, total = _content_range(response, start, part)
        free = shutil.disk_usage(part.parent).free + _size(part) - start
        if total is not None and total - start > free:
            raise InputError(
                f"{part.parent}: not enough disk space: {total - start} bytes needed, {free} free"
            )
        with os_errors_as(f"{part}: cannot write"), part.open("ab") as file:
            file.truncate(start)
            _receive(response, file, start, total)
    if total is not None and _size(part) < total:
        raise _TransientError(f"the connection closed after {_size(part)} of {total} bytes")


def _handle_status(error: urllib.error.HTTPError, url: str, part: Path) -> None:
    """Raise the exception for an HTTP error status; return if ``part`` is already complete."""
    if error.code == 416:  # range not satisfiable: part is complete, or belongs to another file
        total = re.fullmatch(r"bytes \*/(\d+)", error.headers.get("Content-Range", ""))
        if total and int(total.group(1)) == _size(part):
            return
        _discard(part)
    status = f"the server returned {error.code} {error.reason}".rstrip()
    if error.code in _TRANSIENT_STATUS:
        raise _TransientError(status)
    raise InputError(f"{url}: {status}")


def _content_range(response: Any, start: int, part: Path) -> tuple[int, int | None]:
    """Return the offset of the response body in the file, and the file size if it is known."""
    if response.status == 206:
        found = re.fullmatch(r"bytes (\d+)-\d+/(\d+|\*)", response.headers.get("Content-Range", ""))
        if found and int(found.group(1)) == start:
            return start, None if found.group(2) == "*" else int(found.group(2))
        _discard(part)
    length = response.headers.get("Content-Length", "")
    return 0, int(length) if length.isdecimal() else None


def _discard(part: Path) -> NoReturn:
    """Delete a partial file, to retry from the start."""
    part.unlink(missing_ok=True)
    raise _TransientError("the partial file does not match the server's file")


def _receive(response: Any, file: BinaryIO, start: int, total: int | None) -> None:
    """Write the response to ``file``, with a progress bar, or log lines without a terminal."""
    name, done, last_log = Path(file.name).stem, start, time.monotonic()
    bar = tqdm(  # disable=None: no bar if standard error is not a terminal
        None, name, total, initial=start, unit="B", unit_scale=True, disable=None, leave=False
    )
    with bar:
        while True:
            try:
                chunk = response.read1(_CHUNK_SIZE)
            except (*_CONNECTION_ERRORS, ValueError) as error:
                raise _TransientError(_describe(error)) from None
            if not chunk:
                return
            file.write(chunk)
            bar.update(len(chunk))
            done += len(chunk)
            if bar.disable and time.monotonic() - last_log > _LOG_INTERVAL:
                logger.info("=> %s: %.2f of %.2f GB", name, done / 1e9, (total or done) / 1e9)
                last_log = time.monotonic()


def _describe(error: object) -> str:
    if isinstance(error, TimeoutError):
        return f"no data received for {TIMEOUT:g} s"
    reason = getattr(error, "strerror", None) or str(error) or type(error).__name__
    return f"the connection failed ({reason})"
