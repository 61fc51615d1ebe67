"""The one exception for everything a user can mend."""


class InputError(Exception):
    """Bad input: a file, a setting or a value that cannot be used.

    The message is one line for a person: what is wrong, where (file, key, image id), and what would
    be right. The commands in ``tools/`` print it without a traceback and exit with code 1.
    """
