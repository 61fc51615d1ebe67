"""The exception for errors that the user can fix, and helpers for its messages."""

import contextlib
import re
from collections.abc import Iterator

_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f]")


class InputError(Exception):
    """Invalid input: a file, setting or value that cannot be used.

    The message is one line that says what is wrong, where (file, key, image id), and how to fix it.
    The commands in ``tools/`` print it without a traceback and exit with code 1.
    """

    def __str__(self) -> str:
        return printable(super().__str__())


def printable(text: str, kept: str = "") -> str:
    """Replace control characters, except ``kept``, by escapes such as ``\\x1b``.

    A file name could otherwise send commands to the terminal.
    """
    return _CONTROL.sub(lambda m: m[0] if m[0] in kept else repr(m[0])[1:-1], text)


@contextlib.contextmanager
def os_errors_as(message: str) -> Iterator[None]:
    """Within the block, turn an OSError into an InputError: ``message`` and the reason."""
    try:
        yield
    except OSError as error:
        raise InputError(f"{message}: {error.strerror or error}") from error
