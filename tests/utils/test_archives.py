"""Extraction: only the requested files, only to their targets, and only once."""

import io
import tarfile
import zipfile

import pytest

from lib.utils.archives import unpack
from lib.utils.errors import InputError

FILES = {
    "top/a.jpg": b"one",
    "top/b.jpg": b"two" * 1000,
    "../../c.jpg": b"three",
    "/d.jpg": b"four",
    "__MACOSX/top/._a.jpg": b"no picture",
    "top/note.txt": b"not asked for",
    "top/list_train.json": b"{}",
}


def make_zip(path):
    with zipfile.ZipFile(path, "w") as file:
        file.writestr("top/", b"")
        for name, content in FILES.items():
            file.writestr(name, content)
    return path


def make_tar(path):
    with tarfile.open(path, "w:gz") as file:
        link = tarfile.TarInfo("top/link.jpg")
        link.type, link.linkname = tarfile.SYMTYPE, "/etc/passwd"
        file.addfile(link)
        for name, content in FILES.items():
            info = tarfile.TarInfo(name)
            info.size = len(content)
            file.addfile(info, io.BytesIO(content))
    return path


def files(folder) -> dict[str, bytes]:
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in folder.rglob("*")
        if path.is_file()
    }


@pytest.fixture(params=[make_zip, make_tar])
def archive(request, tmp_path):
    return request.param(tmp_path / "deep" / "er" / "all.archive")


@pytest.fixture(autouse=True)
def folder(tmp_path):
    (tmp_path / "deep" / "er").mkdir(parents=True)
    return tmp_path / "deep" / "er"


def test_files_are_only_written_to_their_targets(archive, folder, tmp_path):
    places = {"*.jpg": folder / "images", "list_*.json": folder / "annot" / "train.json"}
    assert unpack(archive, places) == 5
    expected = {f"deep/er/images/{name}.jpg" for name in "abcd"} | {"deep/er/annot/train.json"}
    assert set(files(tmp_path)) == {*expected, "deep/er/all.archive"}
    assert files(folder)["images/b.jpg"] == FILES["top/b.jpg"]


def test_existing_files_are_kept_unless_empty(archive, folder):
    (folder / "images").mkdir()
    (folder / "images" / "a.jpg").write_bytes(b"mine")
    (folder / "images" / "b.jpg").write_bytes(b"")
    unpack(archive, {"*.jpg": folder / "images"})
    assert files(folder)["images/a.jpg"] == b"mine"
    assert files(folder)["images/b.jpg"] == FILES["top/b.jpg"]


def test_without_matching_files_nothing_is_written(archive, folder):
    assert unpack(archive, {"*.png": folder / "images"}) == 0
    assert not (folder / "images").exists()


def test_a_truncated_archive_is_one_line_and_leaves_no_partial_file(archive, folder):
    archive.write_bytes(archive.read_bytes()[:-150])
    with pytest.raises(InputError, match=r"all\.archive: damaged or not an .*download it again"):
        unpack(archive, {"*.jpg": folder / "images"})
    assert not list(folder.rglob(".*"))


def test_a_wrong_checksum_is_noticed(folder):
    path = make_zip(folder / "a.zip")
    content = path.read_bytes()
    path.write_bytes(content.replace(b"twotwotwo", b"twotw0two", 1))
    with pytest.raises(InputError, match=r"a\.zip: damaged"):
        unpack(path, {"b.jpg": folder / "images"})
    assert set(files(folder)) == {"a.zip"}


def test_a_missing_archive_is_one_line(folder):
    with pytest.raises(InputError, match="there is no such archive"):
        unpack(folder / "none.zip", {"*.jpg": folder})
