"""A run's state on disk, always whole: a run that is killed leaves the last state that was
complete."""

import pickle
from pathlib import Path
from typing import Any

import torch

from lib.utils.errors import InputError
from lib.utils.files import write_atomically


def save(state: Any, path: Path) -> None:
    """Write ``state`` (tensors, numbers, text, lists and dicts) to ``path``.

    Raises:
        InputError: no space, or the folder cannot be written.
    """
    try:
        write_atomically(path, lambda file: torch.save(state, file))
    except RuntimeError as error:  # how torch says that the file could not take any more
        raise InputError(f"{path}: cannot write: {str(error).splitlines()[0]}") from error


def read(path: Path) -> dict[str, Any]:
    """The training state at ``path``.

    Raises:
        InputError: the file is missing, broken, or no training state.
    """
    try:
        state = torch.load(path, map_location="cpu", weights_only=True)
    except FileNotFoundError:
        raise InputError(f"{path}: there is no such checkpoint") from None
    except (OSError, RuntimeError, EOFError, KeyError, ValueError, pickle.UnpicklingError) as error:
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise InputError(f"{path}: cannot be read as a checkpoint: {reason}") from None
    if not isinstance(state, dict) or not {"epoch", "state_dict", "optimizer"} <= state.keys():
        raise InputError(
            f"{path}: holds weights but no training state (epoch, state_dict, optimizer)"
        )
    return state
