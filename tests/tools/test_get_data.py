"""Tests of tools/get_data.py: data sets and error messages."""

import io
import json
import subprocess
import sys
import zipfile
from fnmatch import fnmatch
from pathlib import Path

import cv2
import pytest

from lib.dataset import downloads
from lib.utils import download
from tests.web import serving

TOOL = Path(__file__).resolve().parents[2] / "tools" / "get_data.py"
DATA = Path(__file__).resolve().parents[3] / "shared" / "data"


def test_figures_are_written_from_any_folder_and_what_goes_wrong_is_one_line(
    tool, monkeypatch, tmp_path, capsys
):
    options = ["figures", "--root", "made", "--train", "2", "--val", "1", "--workers", "1"]
    command = [sys.executable, str(TOOL), *options]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "made" in done.stdout and "3/3 images" in done.stderr and "\r" not in done.stderr
    file = tmp_path / "made" / "annotations" / "person_keypoints_train.json"
    assert len(json.loads(file.read_text())["images"]) == 2
    monkeypatch.chdir(tmp_path)
    main = tool("get_data").main
    assert main([*options, "--seed", "1"]) == 1
    refused = capsys.readouterr().err
    assert refused.startswith("error: ") and refused.count("\n") == 1
    with pytest.raises(SystemExit, match="2"):
        main(["mscoco"])
    assert "figures" in capsys.readouterr().err


def test_a_sheet_is_written_and_nothing_else(tool, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    assert tool("get_data").main(["figures", "--sheet", "sheet.png"]) == 0
    assert [path.name for path in tmp_path.iterdir()] == ["sheet.png"]
    assert cv2.imread(str(tmp_path / "sheet.png")).shape[1] == 1760


def archive(files: dict[str, bytes]) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as file:
        for name, content in files.items():
            file.writestr(name, content)
    return buffer.getvalue()


@pytest.fixture
def tiny_set(tool, monkeypatch):
    """Return a server with a data set of two images, and a function that runs the tool on it."""
    module = tool("get_data")
    monkeypatch.setattr(download.time, "sleep", lambda _: None)
    listing = {"images": [{"filename": "1.jpg"}, {"file_name": "2.jpg"}]}
    with serving() as site:
        site.files["lists.zip"] = archive({"annotations/val.json": json.dumps(listing).encode()})
        site.files["val.zip"] = archive({"val/1.jpg": b"one", "val/2.jpg": b"two"})
        lists = downloads.Archive("lists.zip", {"val.json": "annotations"}, site.url("lists.zip"))
        places = {"*.jpg": "images/val"}
        by_url = downloads.Archive("images/val.zip", places, site.url("val.zip"))
        by_hand = downloads.Archive(
            "images/val.zip", places, instructions="the images behind a form"
        )
        splits = {
            name: downloads.Split(
                "annotations/val.json", "images/val", lists, pictures, optional_files=extras
            )
            for name, pictures, extras in (
                ("val", by_url, {"boxes.json": "a friend"}),
                ("form", by_hand, {}),
            )
        }
        data_set = downloads.PublicDataset("nobody's", splits, ("val",))
        monkeypatch.setitem(downloads.DOWNLOADS, "coco", data_set)
        yield site, lambda *arguments: module.main(["coco", *map(str, arguments)])


def names(folder: Path) -> set[str]:
    return {str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()}


def test_a_data_set_comes_through_a_bad_connection_and_is_complete(tiny_set, tmp_path, capsys):
    site, get = tiny_set
    site.tricks = ["cut", 503, "", "cut"]
    assert get("--root", tmp_path) == 0
    written = capsys.readouterr().out
    assert "all of its 2 images" in written and "boxes.json" in written and "a friend" in written
    images = {"images/val/1.jpg", "images/val/2.jpg"}
    expected = {"lists.zip", "annotations/val.json", "images/val.zip", *images}
    assert names(tmp_path) == expected
    asked = len(site.asked)
    for name in ("lists.zip", "images/val.zip"):
        (tmp_path / name).unlink()
    assert get("--root", tmp_path, "--split", "val") == 0 and len(site.asked) == asked


def test_an_image_that_is_lost_comes_back_from_the_archive(tiny_set, tmp_path):
    site, get = tiny_set
    assert get("--root", tmp_path) == 0
    asked = len(site.asked)
    (tmp_path / "images/val/1.jpg").unlink()
    (tmp_path / "images/val/2.jpg").write_bytes(b"")
    assert get("--root", tmp_path) == 0 and len(site.asked) == asked
    assert (tmp_path / "images/val/2.jpg").read_bytes() == b"two"


def test_an_incomplete_data_set_is_one_line_with_a_number(tiny_set, tmp_path, capsys):
    site, get = tiny_set
    site.files["val.zip"] = archive({"val/1.jpg": b"one"})
    assert get("--root", tmp_path) == 1
    error = capsys.readouterr().err
    assert error.startswith("error: ") and error.count("\n") == 1
    assert "1 of the 2 images" in error and "2.jpg" in error


def test_a_wrong_archive_is_one_line(tiny_set, tmp_path, capsys):
    site, get = tiny_set
    site.files["lists.zip"] = b"<html>please log in</html>"
    assert get("--root", tmp_path) == 1
    assert "lists.zip: damaged or not an archive" in capsys.readouterr().err
    (tmp_path / "lists.zip").unlink()
    site.files["lists.zip"] = archive({"other.json": b"{}"})
    assert get("--root", tmp_path) == 1
    assert "has no val.json" in capsys.readouterr().err


def test_what_only_a_person_can_get_is_said_and_then_used(tiny_set, tmp_path, capsys):
    site, get = tiny_set
    assert get("--root", tmp_path, "--split", "form") == 1
    error = capsys.readouterr().err
    assert "the images behind a form" in error and str(tmp_path / "images/val.zip") in error
    (tmp_path / "images").mkdir(exist_ok=True)
    (tmp_path / "images" / "val.zip").write_bytes(site.files["val.zip"])
    assert get("--root", tmp_path, "--split", "form") == 0


def test_every_split_that_is_offered_is_where_its_experiments_look():
    for name, data_set in downloads.DOWNLOADS.items():
        assert set(data_set.default) <= set(data_set.splits)
        for split in data_set.splits.values():
            for archive in (split.annotation_archive, split.image_archive):
                assert archive.url.startswith("http") != bool(archive.instructions), (name, archive)
            patterns = [*split.annotation_archive.members.items()]
            for place in (split.annotations, *split.other_files):
                assert any(
                    place == target
                    or (place.startswith(f"{target}/") and fnmatch(Path(place).name, pattern))
                    for pattern, target in patterns
                ), place
            assert split.image_folder in split.image_archive.members.values()


@pytest.mark.skipif(not DATA.is_dir(), reason="../shared/data is not here")
@pytest.mark.parametrize("name", ["coco", "mpii", "atrw"])
def test_official_layouts_count_as_complete(tool, capsys, name):
    assert tool("get_data").main([name, "--root", str(DATA / name)]) == 0
    assert capsys.readouterr().out.count("all of its") == 2
