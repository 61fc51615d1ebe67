"""Checkpoint files."""

import errno
import os

import numpy as np
import pytest
import torch

from lib.utils import checkpoint
from lib.utils.errors import InputError


def state(value: float) -> dict:
    return {
        "epoch": 3,
        "model": "pose_hrnet",
        "state_dict": {"a": torch.full((200, 200), value)},
        "best_perf": -float("inf"),
        "optimizer": {"state": {0: {"step": torch.tensor(2.0)}}, "param_groups": [{"lr": 0.1}]},
    }


def test_a_state_is_restored(tmp_path):
    checkpoint.save(state(0.1), tmp_path / "checkpoint.pth")
    read = checkpoint.read(tmp_path / "checkpoint.pth")
    assert torch.equal(read["state_dict"].pop("a"), state(0.1)["state_dict"]["a"])
    assert read["optimizer"] == state(0)["optimizer"]
    assert (read["epoch"], read["best_perf"]) == (3, -float("inf"))


def test_a_numpy_scalar_in_a_checkpoint_is_read(tmp_path):
    torch.save(state(0.1) | {"perf": np.float64(0.75)}, tmp_path / "checkpoint.pth")
    assert checkpoint.read(tmp_path / "checkpoint.pth")["perf"] == 0.75


@pytest.mark.skipif(
    tuple(map(int, torch.__version__.split(".")[:2])) < (2, 6),
    reason="this PyTorch cannot be told what to allow",
)
def test_numpy_arrays_in_a_checkpoint_are_read(tmp_path):
    meta = {"sigmas": np.array([0.026, 0.025]), "colors": np.zeros((2, 3), np.uint8)}
    torch.save(state(0.1) | {"meta": meta}, tmp_path / "checkpoint.pth")
    read = checkpoint.read(tmp_path / "checkpoint.pth")["meta"]
    assert read["sigmas"].tolist() == [0.026, 0.025] and read["colors"].shape == (2, 3)


class NoSpace:
    """A file on a disk that is full after some bytes."""

    def __init__(self, file) -> None:
        self._file = file
        self._left = 1000

    def __getattr__(self, name):
        return getattr(self._file, name)

    def write(self, data) -> int:
        self._left -= len(data)
        if self._left < 0:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        return self._file.write(data)


def test_on_a_full_disk_the_previous_checkpoint_is_kept(tmp_path, monkeypatch):
    path = tmp_path / "checkpoint.pth"
    checkpoint.save(state(0.1), path)
    save = torch.save
    monkeypatch.setattr(torch, "save", lambda value, file: save(value, NoSpace(file)))
    with pytest.raises(InputError, match=r"checkpoint\.pth: cannot write: No space") as caught:
        checkpoint.save(state(0.2), path)
    assert "\n" not in str(caught.value)
    assert os.listdir(tmp_path) == ["checkpoint.pth"]
    assert checkpoint.read(path)["state_dict"]["a"][0, 0] == pytest.approx(0.1)


def cut(path) -> None:
    path.write_bytes(path.read_bytes()[:-2000])


class Harmful:
    def __reduce__(self):
        return os.mkdir, ("harm",)


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda path: path.unlink(), "no such checkpoint file"),
        (lambda path: path.write_bytes(b""), "not a PyTorch checkpoint: it is empty"),
        (lambda path: path.write_text("hello"), "not a PyTorch checkpoint: it begins"),
        (cut, "damaged or truncated"),
        (lambda path: (path.unlink(), path.mkdir()), "cannot read the checkpoint"),
        (lambda path: torch.save({"a": torch.ones(1)}, path), "contains no training state"),
        (lambda path: torch.save([1], path), "contains no training state"),
        (lambda path: torch.save({"a": Harmful()}, path), "refused: it contains"),
    ],
    ids=["missing", "empty", "text", "cut off", "folder", "weights", "list", "code"],
)
def test_an_invalid_checkpoint_is_one_line_that_names_the_file(
    tmp_path, monkeypatch, damage, message
):
    monkeypatch.chdir(tmp_path)
    path = tmp_path / "checkpoint.pth"
    checkpoint.save(state(0.1), path)
    damage(path)
    with pytest.raises(InputError, match=message) as caught:
        checkpoint.read(path)
    assert "checkpoint.pth" in str(caught.value) and "\n" not in str(caught.value)
    assert not (tmp_path / "harm").exists()


def test_a_flipped_bit_is_noticed(tmp_path):
    path = tmp_path / "checkpoint.pth"
    checkpoint.save(state(0.1), path)
    data = bytearray(path.read_bytes())
    data[data.index(np.float32(0.1).tobytes()) + 400] ^= 1
    path.write_bytes(data)
    with pytest.raises(InputError, match=r"checkpoint\.pth: damaged: the checksum of .* is wrong"):
        checkpoint.read(path)


def test_a_tensor_that_is_marked_as_a_folder_is_noticed(tmp_path):
    path = tmp_path / "checkpoint.pth"
    checkpoint.save({"layer": torch.arange(4.0)}, path)
    data = bytearray(path.read_bytes())
    entry = data.rindex(b"PK\x01\x02", 0, data.rindex(b"/data/0"))
    data[entry + 38] ^= 0x10
    path.write_bytes(data)
    with pytest.raises(InputError, match=r"pth: damaged: .*data/0 is marked as a folder"):
        checkpoint.read_file(path)


@pytest.mark.parametrize("epoch", ["3", -1, True, 1.5, None])
def test_an_invalid_epoch_is_refused(tmp_path, epoch):
    torch.save(state(0.1) | {"epoch": epoch}, tmp_path / "checkpoint.pth")
    with pytest.raises(InputError, match="its epoch must be an integer, 0 or more"):
        checkpoint.read(tmp_path / "checkpoint.pth")


def test_a_pipe_is_not_read(tmp_path):
    os.mkfifo(tmp_path / "checkpoint.pth")
    with pytest.raises(InputError, match="is a pipe or device"):
        checkpoint.read(tmp_path / "checkpoint.pth")
