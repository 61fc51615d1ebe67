"""TensorBoard event files."""

import os

import numpy as np
import pytest

from lib.utils.errors import InputError
from lib.utils.events import EventWriter
from tests.utils.event_files import read_events


def test_events_are_written_at_once(tmp_path):
    writer = EventWriter(tmp_path / "a" / "b")
    (path,) = (tmp_path / "a" / "b").iterdir()
    assert path.name.startswith("events.out.tfevents.")
    assert [e.file_version for e in read_events(path)] == ["brain.Event:2"]
    writer.add_scalar("loss", 0.5, 3)
    event = read_events(path)[-1]
    assert (event.step, event.summary.value[0].tag, event.summary.value[0].simple_value) == (
        3,
        "loss",
        0.5,
    )
    assert event.wall_time > 1.6e9
    writer.add_text("note", "**bold**", 1)
    writer.add_image("crop", np.full((4, 6, 3), 200, np.uint8), 2)
    note, crop = (e.summary.value[0] for e in read_events(path)[-2:])
    assert note.tensor.string_val == [b"**bold**"]
    assert (crop.tag, crop.image.height, crop.image.width) == ("crop", 4, 6)
    writer.close()


def test_an_impossible_folder_is_an_error_that_names_it(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match=r"file/log: cannot create this folder"):
        EventWriter(tmp_path / "file" / "log")


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="Linux's full disk is not here")
def test_a_full_disk_is_an_error(tmp_path):
    writer = EventWriter(tmp_path)
    with open("/dev/full", "wb", buffering=0) as full:
        os.dup2(full.fileno(), writer._file.fileno())
    with pytest.raises(InputError, match="cannot write: No space left on device"):
        writer.add_scalar("loss", 0.5, 3)
    writer.close()
