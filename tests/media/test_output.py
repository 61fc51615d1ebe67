"""Drawn people, and tables of their keypoints."""

import csv
import io

import numpy as np
import pytest

from lib.keypoints.skeletons import COCO, CROWDPOSE
from lib.media.output import PeopleDrawer, TableWriter, check_folder
from lib.media.video import CAMERA, IMAGE, Frame, Item
from lib.utils.drawing import LEFT_COLOR, RIGHT_COLOR, track_color
from lib.utils.errors import InputError
from tests.poses import people


def two_people(joints: int = 17):
    shape = np.random.default_rng(0).uniform(5, 75, (joints, 2))
    return people([(0, 0, 80, 80), (100, 0, 80, 80)], [shape, np.add(shape, (100, 0))])


def colors_of(image: np.ndarray) -> set[tuple[int, ...]]:
    values, counts = np.unique(image.reshape(-1, 3), axis=0, return_counts=True)
    return {tuple(color) for color in values[counts > 20].tolist()}


@pytest.mark.parametrize("track_ids", [[], [7, 3]])
def test_colors_depend_on_the_side_or_on_the_person_or_track(track_ids):
    first, second = (track_color(n) for n in track_ids or (1, 2))
    image = np.zeros((90, 190, 3), np.uint8)
    PeopleDrawer(COCO, 0.2, color_by="person")(image, two_people(), track_ids)
    left, right = colors_of(image[:, :90]), colors_of(image[:, 95:])
    assert first in left and first not in right and second in right and second not in left
    assert not {LEFT_COLOR, RIGHT_COLOR} & (left | right)
    image[:] = 0
    PeopleDrawer(COCO, 0.2)(image, two_people(), track_ids)
    assert {LEFT_COLOR, RIGHT_COLOR} <= colors_of(image[:, :90])


def test_the_frame_rate_is_drawn_in_the_corner():
    image = np.zeros((100, 200, 3), np.uint8)
    PeopleDrawer(COCO, 0.2, rate=lambda: 12.34)(image, two_people()[:0], [])
    assert image[:30, :120].max() > 250 and not image[40:].any()


@pytest.mark.parametrize("skeleton", [COCO, CROWDPOSE])
def test_the_table_has_a_row_per_person_and_the_original_columns(skeleton):
    file = io.BytesIO()
    table = TableWriter(file, skeleton)
    found = two_people(len(skeleton))
    video, image = Item("x/a.mp4", "a.mp4", "video"), Item("x/b.jpg", "b.jpg", "image")
    pixels = np.zeros((9, 9, 3), np.uint8)
    table.add(Frame(video, pixels, 4, 25.0), found, [2, 1])
    table.add(Frame(video, pixels, 5, 25.0), found[:0], [])
    table.add(Frame(image, pixels), found[:1], [])
    head, *rows = csv.reader(io.StringIO(file.getvalue().decode()))
    joints = [f"{name}_{axis}" for name in skeleton.names for axis in ("x", "y")]
    assert head == ["frame", *joints, "file_name", "track_id"]
    expected = found.keypoints.astype(int).reshape(2, -1).astype(str).tolist()
    assert rows == [
        ["4", *expected[0], "a.mp4", "2"],
        ["4", *expected[1], "a.mp4", "1"],
        ["0", *expected[0], "b.jpg", ""],
    ]


def test_a_folder_with_inputs_is_an_error(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    items = [Item("photos/a.jpg", "a.jpg", IMAGE), Item("0", "camera0", CAMERA)]
    check_folder(tmp_path, items)
    link = tmp_path / "links" / "a.jpg"
    link.parent.mkdir()
    link.symlink_to(tmp_path / "photos" / "a.jpg")
    linked = [Item(str(link), "a.jpg", IMAGE)]
    for folder in (link.parent, tmp_path / "photos"):
        with pytest.raises(InputError, match="contains inputs"):
            check_folder(folder, linked)
    with pytest.raises(InputError, match="photos contains inputs"):
        check_folder(tmp_path / "photos", items)
