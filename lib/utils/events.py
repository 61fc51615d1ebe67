"""TensorBoard event files."""

import os
import socket
import struct
import time
from pathlib import Path

import numpy as np
from tensorboardX import summary
from tensorboardX.proto.event_pb2 import Event
from tensorboardX.record_writer import masked_crc32c

from lib.utils import distributed
from lib.utils.errors import os_errors_as
from lib.utils.files import make_folder


class EventWriter:
    """Synchronous writer of a TensorBoard event file. Only the main process writes.

    On a full disk, the thread of tensorboardX's SummaryWriter dies and the run hangs. This class
    raises an InputError instead.
    """

    def __init__(self, folder: str | Path) -> None:
        name = f"events.out.tfevents.{time.time():.0f}.{socket.gethostname()}"
        is_main = distributed.is_main()
        self._path = make_folder(folder) / name if is_main else Path(os.devnull)
        with os_errors_as(f"{self._path}: cannot write"):
            # Unbuffered, so that a failed write is not repeated when the file is closed.
            self._file = self._path.open("ab", buffering=0)
        self._write(Event(file_version="brain.Event:2"))

    def add_scalar(self, tag: str, value: float, step: int) -> None:
        """Write one point of the curve ``tag``."""
        self._write(Event(summary=summary.scalar(tag, value), step=step))

    def add_image(self, tag: str, image: np.ndarray, step: int) -> None:
        """Write an image (H, W, 3), uint8 RGB."""
        self._write(Event(summary=summary.image(tag, image, dataformats="HWC"), step=step))

    def add_text(self, tag: str, text: str, step: int) -> None:
        """Write text in Markdown."""
        self._write(Event(summary=summary.text(tag, text), step=step))

    def close(self) -> None:
        self._file.close()

    def _write(self, event: Event) -> None:
        event.wall_time = time.time()
        data = event.SerializeToString()
        header = struct.pack("<Q", len(data))
        with os_errors_as(f"{self._path}: cannot write"):
            self._file.write(header + _checksum(header) + data + _checksum(data))


def _checksum(data: bytes) -> bytes:
    return struct.pack("<I", masked_crc32c(data))
