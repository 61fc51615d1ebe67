"""Atomic writing of files."""

import errno
import os
import shutil

import pytest

from lib.utils.errors import InputError
from lib.utils.files import atomic_file, hold_lock, make_folder, write_atomically


def fail(number: int):
    def raising(*_):
        raise OSError(number, os.strerror(number))

    return raising


def test_bytes_and_functions_are_written(tmp_path):
    path = tmp_path / "a" / "b" / "c.bin"
    write_atomically(path, b"one")
    assert path.read_bytes() == b"one"
    write_atomically(str(path), lambda file: file.write(b"two"))
    assert path.read_bytes() == b"two"
    assert path.stat().st_mode & 0o777 == 0o644
    assert os.listdir(path.parent) == ["c.bin"]


@pytest.mark.parametrize("when", ["fsync", "replace"])
def test_on_a_full_disk_the_old_file_is_kept(tmp_path, monkeypatch, when):
    path = tmp_path / "state.pth"
    write_atomically(path, b"old")
    monkeypatch.setattr(os, when, fail(errno.ENOSPC))
    with pytest.raises(InputError, match=r"state\.pth: cannot write: No space left on device"):
        write_atomically(path, b"new")
    monkeypatch.undo()
    assert os.listdir(tmp_path) == ["state.pth"] and path.read_bytes() == b"old"


def test_on_a_full_disk_a_lock_is_an_error_and_leaves_no_file(tmp_path, monkeypatch):
    monkeypatch.setattr(os, "write", fail(errno.ENOSPC))
    message = r"train\.lock: cannot write: No space left on device"
    with pytest.raises(InputError, match=message), hold_lock(tmp_path, "train"):
        pass
    assert os.listdir(tmp_path) == []


@pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt])
def test_an_interrupted_write_keeps_the_old_file(tmp_path, error):
    path = tmp_path / "state.pth"
    write_atomically(path, b"old")
    with pytest.raises(error), atomic_file(path) as file:
        file.write(b"half")
        file.flush()
        assert path.read_bytes() == b"old"
        raise error
    assert os.listdir(tmp_path) == ["state.pth"] and path.read_bytes() == b"old"


def test_an_impossible_path_is_an_error_that_names_it(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match=r"file/x/a: cannot write: Not a directory"):
        write_atomically(tmp_path / "file" / "x" / "a", b"")
    with pytest.raises(InputError, match=r"file: cannot create this folder"):
        make_folder(tmp_path / "file")
    with pytest.raises(InputError, match=r"cannot write: Is a directory"):
        write_atomically(tmp_path, b"")
    assert sorted(os.listdir(tmp_path)) == ["file"]
    assert make_folder(tmp_path / "x" / "y").is_dir()


def test_a_folder_removed_during_a_write_is_created_again(tmp_path):
    path = tmp_path / "run" / "state.pth"

    def write(file) -> None:
        file.write(b"whole")
        if not removed:
            removed.append(shutil.rmtree(path.parent))

    removed: list = []
    write_atomically(path, write)
    assert removed and path.read_bytes() == b"whole"
