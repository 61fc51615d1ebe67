"""A run's state on disk, always whole: a run that is killed leaves the last state that was
complete."""

import pickle
import re
from pathlib import Path
from typing import Any

import numpy as np
import torch

from lib.utils.errors import InputError
from lib.utils.files import write_atomically
from lib.utils.zoo import how_to_get

# A zip archive (torch 1.6 and later) or a pickle (before).
EXPORTED = (".onnx", ".xml", ".ts", ".torchscript")  # what tools/export.py writes
FILE_STARTS = (b"PK\x03\x04", b"\x80")


def save(state: Any, path: Path) -> None:
    """Write ``state`` (tensors, numbers, text, lists and dicts) to ``path``.

    Raises:
        InputError: no space, or the folder cannot be written.
    """
    try:
        write_atomically(path, lambda file: torch.save(state, file))
    except RuntimeError as error:
        # How torch says that the file could not take any more; why, the file itself had said.
        reason = error.__context__ if isinstance(error.__context__, OSError) else error
        text = getattr(reason, "strerror", None) or str(reason).splitlines()[0]
        raise InputError(f"{path}: cannot write: {text}") from error


def read(path: Path) -> dict[str, Any]:
    """The training state at ``path``.

    Raises:
        InputError: the file is missing, broken, or no training state.
    """
    state = read_file(path)
    if not isinstance(state, dict) or not {"epoch", "state_dict", "optimizer"} <= state.keys():
        raise InputError(
            f"{path}: holds weights but no training state (epoch, state_dict, optimizer)"
        )
    return state


def read_file(path: Path) -> Any:
    """The content of a checkpoint file, on the CPU; reading never runs code that the file brings.

    Raises:
        InputError: the file is missing, broken, or holds more than tensors, numbers and texts.
    """
    if path.suffix in EXPORTED and path.exists():
        raise InputError(
            f"{path}: is an exported network, not weights; Predictor and tools/demo.py run it"
        )
    try:
        with path.open("rb") as file:
            start = file.read(24)
    except FileNotFoundError:
        raise InputError(f"{path}: there is no such checkpoint file{how_to_get(path)}") from None
    except OSError as error:
        raise InputError(f"{path}: cannot read the checkpoint: {error.strerror}") from None
    if not start.startswith(FILE_STARTS):
        what = f"it begins with {start!r}" if start else "it is empty"
        raise InputError(f"{path}: not a PyTorch checkpoint: {what}; download it again")
    try:
        return _load(path)
    except Exception as error:  # a damaged file can fail in any way, in any layer of the reader
        raise InputError(f"{path}: {_why_unreadable(error)}") from None


def _load(path: Path) -> Any:
    try:
        return torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as refused:
        try:
            with torch.serialization.safe_globals(_numpy_values()):
                return torch.load(path, map_location="cpu", weights_only=True)
        # PyTorch before 2.6 cannot be told what to allow; a bare pickle of arrays is no checkpoint.
        except (AttributeError, TypeError, RuntimeError):
            raise refused from None


def _numpy_values() -> list[Any]:
    """What NumPy's numbers and arrays are pickled with: HRNet writes its score (``perf``) as the
    one, mmpose 1.x the data set's sigmas and colours beside the weights as the other."""
    names: list[Any] = []
    for name, value in (("scalar", np.float64(0)), ("_reconstruct", np.zeros(0))):
        rebuild = value.__reduce__()[0]
        names += [(rebuild, f"numpy.{core}.multiarray.{name}") for core in ("core", "_core")]
    kinds = {type(np.dtype(name)) for name in ("f4", "f8", "i4", "i8", "u1", "?")}
    return [np.dtype, np.ndarray, *kinds, *names]


def _why_unreadable(error: Exception) -> str:
    text = str(error)
    if isinstance(error, pickle.UnpicklingError) and "nsupported" in text:
        named = re.search(r"GLOBAL (\S+)", text)
        what = named.group(1) if named else "an object that is no tensor"
        return (
            f"refused: it holds {what}, and reading that could run code; if you trust the file, "
            "save its weights alone: torch.save(model.state_dict(), file)"
        )
    reason = text.strip().splitlines()[0].split(". ")[0] if text.strip() else type(error).__name__
    return f"damaged or cut short ({reason[:120]}); download or copy it again"
