"""Atomic writing of files."""

import errno
import os
import shutil

import pytest

from lib.utils.errors import InputError
from lib.utils.files import atomic_file, make_folder, write_atomically


def fail(number: int):
    def raising(*_):
        raise OSError(number, os.strerror(number))

    return raising


def test_bytes_and_functions_are_written_and_folders_made(tmp_path):
    path = tmp_path / "a" / "b" / "c.bin"
    write_atomically(path, b"one")
    assert path.read_bytes() == b"one"
    write_atomically(str(path), lambda file: file.write(b"two"))
    assert path.read_bytes() == b"two"
    assert path.stat().st_mode & 0o777 == 0o644
    assert os.listdir(path.parent) == ["c.bin"]


@pytest.mark.parametrize("when", ["fsync", "replace"])
def test_without_space_the_old_file_stays_and_nothing_else(tmp_path, monkeypatch, when):
    path = tmp_path / "state.pth"
    write_atomically(path, b"old")
    monkeypatch.setattr(os, when, fail(errno.ENOSPC))
    with pytest.raises(InputError, match=r"state\.pth: cannot write: No space left on device"):
        write_atomically(path, b"new")
    monkeypatch.undo()
    assert os.listdir(tmp_path) == ["state.pth"] and path.read_bytes() == b"old"


@pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt])
def test_an_end_in_the_middle_leaves_the_old_file_and_nothing_else(tmp_path, error):
    path = tmp_path / "state.pth"
    write_atomically(path, b"old")
    with pytest.raises(error), atomic_file(path) as file:
        file.write(b"half")
        file.flush()
        assert path.read_bytes() == b"old"
        raise error
    assert os.listdir(tmp_path) == ["state.pth"] and path.read_bytes() == b"old"


def test_a_folder_that_cannot_be_is_an_error_that_names_it(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match=r"file/x/a: cannot write: Not a directory"):
        write_atomically(tmp_path / "file" / "x" / "a", b"")
    with pytest.raises(InputError, match=r"file: cannot create this folder"):
        make_folder(tmp_path / "file")
    with pytest.raises(InputError, match=r"cannot write: Is a directory"):
        write_atomically(tmp_path, b"")
    assert sorted(os.listdir(tmp_path)) == ["file"]
    assert make_folder(tmp_path / "x" / "y").is_dir()


def test_a_folder_removed_in_the_middle_is_made_again(tmp_path):
    path = tmp_path / "run" / "state.pth"

    def write(file) -> None:
        file.write(b"whole")
        if not removed:
            removed.append(shutil.rmtree(path.parent))

    removed: list = []
    write_atomically(path, write)
    assert removed and path.read_bytes() == b"whole"
