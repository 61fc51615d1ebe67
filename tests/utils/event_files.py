"""Reading of TensorBoard event files."""

import struct
from pathlib import Path

from tensorboardX.proto.event_pb2 import Event
from tensorboardX.record_writer import masked_crc32c


def read_events(path: Path) -> list[Event]:
    """Return all events of a file; asserts every length and checksum."""
    data = path.read_bytes()
    events, at = [], 0
    while at < len(data):
        header = data[at : at + 8]
        (length,) = struct.unpack("<Q", header)
        assert struct.unpack("<I", data[at + 8 : at + 12])[0] == masked_crc32c(header)
        body = data[at + 12 : at + 12 + length]
        assert len(body) == length
        (checksum,) = struct.unpack("<I", data[at + 12 + length : at + 16 + length])
        assert checksum == masked_crc32c(body)
        events.append(Event.FromString(body))
        at += 16 + length
    return events
