"""The exception for errors that the user can fix."""


class InputError(Exception):
    """Invalid input: a file, setting or value that cannot be used.

    The message is one line that says what is wrong, where (file, key, image id), and how to fix it.
    The commands in ``tools/`` print it without a traceback and exit with code 1.
    """
