"""Checkpoint files, written atomically: an interrupted write leaves the previous file intact."""

import pickle
import re
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import torch

from lib.utils.errors import InputError, os_errors_as
from lib.utils.files import check_regular, write_atomically
from lib.utils.zoo import download_hint

EXPORT_SUFFIXES = (".onnx", ".xml", ".ts", ".torchscript")  # written by tools/export.py
FOLDER_ATTRIBUTE = 0x10  # marks an entry of a zip archive as a folder
MAGIC_BYTES = (b"PK\x03\x04", b"\x80")  # zip archive (torch 1.6 and later), pickle (before)


def save(state: Any, path: Path) -> None:
    """Write ``state``, made of tensors and plain values, or raise an InputError."""
    try:
        write_atomically(path, lambda file: torch.save(state, file))
    except RuntimeError as error:
        if "DataLoader worker" in str(error):  # a worker died while the file was written
            raise
        # torch raises RuntimeError when a write fails; the cause is the file's OSError.
        reason = error.__context__ if isinstance(error.__context__, OSError) else error
        text = getattr(reason, "strerror", None) or str(reason).splitlines()[0]
        raise InputError(f"{path}: cannot write: {text}") from error


def read(path: Path) -> dict[str, Any]:
    """Read a training checkpoint; raise InputError if the file is anything else."""
    state = read_file(path)
    if not isinstance(state, dict) or not {"epoch", "state_dict", "optimizer"} <= state.keys():
        raise InputError(
            f"{path}: contains no training state (epoch, state_dict, optimizer), so training "
            "cannot resume from it"
        )
    epoch = state["epoch"]
    if not isinstance(epoch, int) or isinstance(epoch, bool) or epoch < 0:
        raise InputError(f"{path}: its epoch must be an integer, 0 or more, not {epoch!r}")
    return state


def read_file(path: Path) -> Any:
    """Read a checkpoint file to the CPU, without executing code from it.

    Raises:
        InputError: the file is missing or damaged, or contains objects other than tensors, NumPy
            arrays, numbers and strings.
    """
    if path.suffix in EXPORT_SUFFIXES and path.exists():
        raise InputError(
            f"{path} is an exported network, not a checkpoint; run it with Predictor or "
            "tools/demo.py"
        )
    check_regular(path)
    if not path.exists():
        raise InputError(f"{path}: no such checkpoint file{download_hint(path)}")
    with os_errors_as(f"{path}: cannot read the checkpoint"), path.open("rb") as file:
        start = file.read(24)
    if not start.startswith(MAGIC_BYTES):
        reason = f"it begins with {start!r}" if start else "it is empty"
        raise InputError(f"{path}: not a PyTorch checkpoint: {reason}; download it again")
    check_integrity(path)
    try:
        return _load(path)
    except Exception as error:  # a damaged file can raise anything
        raise InputError(f"{path}: {_read_error(error)}") from None


def check_integrity(path: Path) -> None:
    """Raise InputError if the checkpoint is a damaged zip archive.

    PyTorch does not verify the checksums in the archive. If the entry of a tensor is marked as a
    folder, PyTorch leaves the tensor uninitialised.
    """
    try:
        if not zipfile.is_zipfile(path):  # PyTorch before 1.6 wrote no checksums
            return
        with zipfile.ZipFile(path) as archive:
            for info in archive.infolist():
                if info.external_attr & FOLDER_ATTRIBUTE and not info.is_dir():
                    raise zipfile.BadZipFile(f"{info.filename} is marked as a folder")
            broken = archive.testzip()
            if broken and archive.getinfo(broken).CRC:  # 0 in a file written without checksums
                raise zipfile.BadZipFile(f"the checksum of {broken} is wrong")
    except Exception as error:  # a damaged archive can raise anything
        raise InputError(
            f"{path}: damaged: {error or type(error).__name__}; download or copy it again, or, for "
            "the checkpoint of a run, start over with AUTO_RESUME False"
        ) from None


def _load(path: Path) -> Any:
    try:
        return torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as refused:
        try:
            with torch.serialization.safe_globals(_numpy_globals()):
                return torch.load(path, map_location="cpu", weights_only=True)
        # PyTorch before 2.6 does not accept (object, name) pairs. A pickle that torch.save did
        # not write raises RuntimeError.
        except (AttributeError, TypeError, RuntimeError):
            raise refused from None


def _numpy_globals() -> list[Any]:
    """Return the globals needed to unpickle NumPy scalars and arrays.

    HRNet checkpoints contain a scalar (``perf``); mmpose 1.x checkpoints contain arrays (the data
    set's sigmas and colors).
    """
    pairs: list[Any] = []  # (function, its name in NumPy 1 or 2)
    for name, value in (("scalar", np.float64(0)), ("_reconstruct", np.zeros(0))):
        rebuild = value.__reduce__()[0]
        pairs += [(rebuild, f"numpy.{core}.multiarray.{name}") for core in ("core", "_core")]
    dtype_classes = {type(np.dtype(name)) for name in ("f4", "f8", "i4", "i8", "u1", "?")}
    return [np.dtype, np.ndarray, *dtype_classes, *pairs]


def _read_error(error: Exception) -> str:
    text = str(error)
    if isinstance(error, pickle.UnpicklingError) and "nsupported" in text:
        named = re.search(r"GLOBAL (\S+)", text)
        item = named.group(1) if named else "an object that is not a tensor"
        return (
            f"refused: it contains {item}, and loading that could execute code; if you trust the "
            "file, save only its weights: torch.save(model.state_dict(), file)"
        )
    reason = text.strip().splitlines()[0].split(". ")[0] if text.strip() else type(error).__name__
    return f"damaged or truncated ({reason[:120]}); download or copy it again"
