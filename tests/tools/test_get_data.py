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
from tests.tools.runs import annotations, is_one_line

TOOL = Path(__file__).resolve().parents[2] / "tools" / "get_data.py"
DATA = Path(__file__).resolve().parents[3] / "shared" / "data"


def test_figures_are_written_from_any_folder_and_errors_are_one_line(
    command, monkeypatch, tmp_path
):
    options = ["figures", "--root", "made", "--train", "2", "--val", "1", "--workers", "1"]
    words = [sys.executable, str(TOOL), *options]
    done = subprocess.run(words, cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert done.stderr == "1/3 images\n2/3 images\n3/3 images\n"
    assert "2 train and 1 val images in made" in done.stdout
    assert len(json.loads(annotations(tmp_path / "made", "train").read_text())["images"]) == 2
    monkeypatch.chdir(tmp_path)
    assert is_one_line(command("get_data", *options, "--seed", "1"), "another version of figures")
    ended = command("get_data", "mscoco")
    assert ended.code == 2 and "figures" in ended.err


def test_a_sheet_is_written_and_nothing_else(succeed, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    succeed("get_data", "figures", "--sheet", "sheet.png")
    assert [path.name for path in tmp_path.iterdir()] == ["sheet.png"]
    assert cv2.imread(str(tmp_path / "sheet.png")).shape[1] == 1760


@pytest.mark.parametrize("option", ["--train", "--val", "--seed", "--workers"])
def test_a_negative_number_is_reported_in_one_line(command, option, tmp_path):
    ended = command("get_data", "figures", "--sheet", tmp_path / "a.png", option, "-1")
    assert is_one_line(ended, f"{option}: must be ", "not -1")


def archive(files: dict[str, bytes]) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as file:
        for name, content in files.items():
            file.writestr(name, content)
    return buffer.getvalue()


@pytest.fixture
def get(site, command, monkeypatch, tmp_path):
    """Put a data set of two images on the server; get(options ...) downloads it to ``tmp_path``."""
    listing = {"images": [{"filename": "1.jpg"}, {"file_name": "2.jpg"}]}
    site.files["lists.zip"] = archive({"annotations/val.json": json.dumps(listing).encode()})
    site.files["val.zip"] = archive({"val/1.jpg": b"one", "val/2.jpg": b"two"})
    lists = downloads.Archive("lists.zip", {"val.json": "annotations"}, site.url("lists.zip"))
    images, places = "images/val.zip", {"*.jpg": "images/val"}
    by_url = downloads.Archive(images, places, site.url("val.zip"))
    by_hand = downloads.Archive(images, places, instructions="the images behind a form")
    splits = {
        name: downloads.Split("annotations/val.json", "images/val", lists, source, optional_files=f)
        for name, source, f in (
            ("val", by_url, {"boxes.json": "a friend"}),
            ("form", by_hand, {}),
        )
    }
    data_set = downloads.PublicDataset("nobody's", splits, ("val",))
    monkeypatch.setitem(downloads.DOWNLOADS, "coco", data_set)
    return lambda *options: command("get_data", "coco", "--root", tmp_path, *options)


def names(folder: Path) -> set[str]:
    return {str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()}


def test_a_download_over_a_bad_connection_is_complete(get, site, tmp_path):
    site.tricks = ["cut", 503, "", "cut"]
    ended = get()
    written = ended.out
    assert ended.code == 0
    assert "all of its 2 images" in written and "boxes.json" in written and "a friend" in written
    images = {"images/val/1.jpg", "images/val/2.jpg"}
    expected = {"lists.zip", "annotations/val.json", "images/val.zip", *images}
    assert names(tmp_path) == expected
    asked = len(site.asked)
    for name in ("lists.zip", "images/val.zip"):
        (tmp_path / name).unlink()
    assert get("--split", "val").code == 0 and len(site.asked) == asked


def test_missing_images_are_extracted_again(get, site, tmp_path):
    assert get().code == 0
    asked = len(site.asked)
    (tmp_path / "images/val/1.jpg").unlink()
    (tmp_path / "images/val/2.jpg").write_bytes(b"")
    assert get().code == 0 and len(site.asked) == asked
    assert (tmp_path / "images/val/2.jpg").read_bytes() == b"two"


def test_an_incomplete_data_set_is_a_one_line_error(get, site, tmp_path):
    site.files["val.zip"] = archive({"val/1.jpg": b"one"})
    assert is_one_line(get(), "1 of the 2 images", "2.jpg")


def test_a_wrong_archive_is_a_one_line_error(get, site, tmp_path):
    site.files["lists.zip"] = b"<html>please log in</html>"
    assert is_one_line(get(), "lists.zip: damaged or not an archive")
    (tmp_path / "lists.zip").unlink()
    site.files["lists.zip"] = archive({"other.json": b"{}"})
    assert is_one_line(get(), "has no val.json")


def test_files_to_download_by_hand_are_named_and_then_used(get, site, tmp_path):
    ended = get("--split", "form")
    assert is_one_line(ended, "the images behind a form", str(tmp_path / "images/val.zip"))
    (tmp_path / "images").mkdir(exist_ok=True)
    (tmp_path / "images" / "val.zip").write_bytes(site.files["val.zip"])
    assert get("--split", "form").code == 0


def test_archives_contain_the_files_of_every_split():
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
def test_data_sets_in_the_official_layout_are_complete(succeed, name):
    assert succeed("get_data", name, "--root", DATA / name).out.count("all of its") == 2
