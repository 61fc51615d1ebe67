"""Boxes in JSON files."""

import json
import re

import numpy as np
import pytest

from lib.media.boxes import BoxFile
from lib.media.video import Frame, Item
from lib.utils.errors import InputError


def frame(name: str, number: int = 0, rate: float = 0.0, image_id: int = 0) -> Frame:
    kind = "video" if rate else "image"
    return Frame(Item(f"x/{name}", name, kind), np.zeros((9, 9, 3)), number, rate, image_id)


def load(tmp_path, content, **options):
    (tmp_path / "boxes.json").write_text(json.dumps(content))
    problems = []
    return BoxFile(tmp_path / "boxes.json", problems.append, **options), problems


def test_boxes_are_found_by_file_name_frame_or_image_id(tmp_path):
    file, problems = load(
        tmp_path,
        [
            {"image_id": 7, "category_id": 1, "bbox": [1, 2, 3, 4], "score": 0.5},
            {"image_id": 7, "bbox": [5, 6, 7, 8.5], "score": 0.1},
            {"file_name": "val/a.jpg", "image_id": 3, "bbox": [1, 1, 1, 1]},
            {"file_name": "v.mp4", "frame": 2, "bbox": [2, 2, 2, 2]},
        ],
    )
    assert not problems
    boxes, scores = file.boxes_of(frame("7.jpg", image_id=7))
    assert boxes.tolist() == [[1, 2, 3, 4], [5, 6, 7, 8.5]] and scores.tolist() == [0.5, 0.1]
    assert file.boxes_of(frame("a.jpg", image_id=9))[0].tolist() == [[1, 1, 1, 1]]
    assert file.boxes_of(frame("v.mp4", 2, 25.0))[0].tolist() == [[2, 2, 2, 2]]
    for other in (frame("v.mp4", 1, 25.0), frame("b.jpg", image_id=8)):
        assert file.boxes_of(other)[0].shape == (0, 4) and file.boxes_of(other)[1].shape == (0,)


def test_files_of_the_same_name_in_two_folders_are_distinguished(tmp_path):
    boxes = [
        {"file_name": f"{folder}/a.jpg", "bbox": [n, 1, 5, 5]} for n, folder in enumerate("xy")
    ]
    file, _ = load(tmp_path, boxes)
    for number, (folder, name) in enumerate((("x", "a.jpg"), ("y", "a_2.jpg"))):
        item = Item(f"/all/{folder}/a.jpg", name, "image")
        assert file.boxes_of(Frame(item, np.zeros((9, 9, 3))))[0].tolist() == [[number, 1, 5, 5]]


def test_boxes_of_other_categories_are_skipped(tmp_path):
    boxes = [{"image_id": 1, "category_id": c, "bbox": [c, 1, 5, 5]} for c in (1, 62)]
    boxes.append({"image_id": 1, "bbox": [9, 1, 5, 5]})
    file, problems = load(tmp_path, boxes, categories=(1,))
    assert file.boxes_of(frame("a.jpg", image_id=1))[0][:, 0].tolist() == [1, 9] and not problems
    file, _ = load(tmp_path, boxes)
    assert len(file.boxes_of(frame("a.jpg", image_id=1))[0]) == 3


def test_coco_annotations_are_read_and_low_scores_are_skipped(tmp_path):
    images = [{"id": 7, "file_name": "a.jpg"}, {"id": 8, "filename": "b.jpg"}]
    boxes = [
        {"image_id": 7, "bbox": [1, 2, 3, 4], "iscrowd": 0},
        {"image_id": 7, "bbox": [1, 2, 30, 40], "iscrowd": 1},
        {"image_id": 8, "bbox": [5, 6, 7, 8]},
    ]
    file, problems = load(tmp_path, {"images": images, "annotations": boxes})
    assert file.boxes_of(frame("a.jpg"))[0].tolist() == [[1, 2, 3, 4]]
    assert file.boxes_of(frame("b.jpg"))[0].tolist() == [[5, 6, 7, 8]]
    scored = [{"image_id": 1, "bbox": [1, 1, 1, 1], "score": s} for s in (0.2, 0.6)]
    file, problems = load(tmp_path, scored, threshold=0.5)
    assert file.boxes_of(frame("a.jpg", image_id=1))[1].tolist() == [0.6] and not problems


@pytest.mark.parametrize(
    ("entry", "message"),
    [
        ({"image_id": 1, "bbox": [1, 2, float("nan"), 4]}, "nan"),
        ({"image_id": 1, "bbox": [1, 2, 0, 4]}, r"\[1, 2, 0, 4\] has no area"),
        ({"image_id": 1, "bbox": [1, 2, 3, -4]}, "has no area"),
        ({"image_id": 1, "bbox": [1, 2, 3]}, "bbox must be four numbers"),
        ({"image_id": 1, "bbox": "none"}, "bbox must be four numbers"),
        ({"image_id": 1, "bbox": [1, 2, 3, 1e300]}, "bbox must be four numbers"),
        ({"image_id": 1, "bbox": [1, 2, 3, 4], "score": None}, ", None"),
        ({"bbox": [1, 2, 3, 4]}, "neither a file_name nor"),
        ({"image_id": [1], "bbox": [1, 2, 3, 4]}, "neither a file_name nor"),
        (17, "not an object"),
    ],
)
def test_an_invalid_entry_is_reported_and_the_rest_is_used(tmp_path, entry, message):
    right = {"image_id": 1, "bbox": [1, 2, 3, 4]}
    file, problems = load(tmp_path, [entry, right])
    assert file.boxes_of(frame("a.jpg", image_id=1))[0].tolist() == [[1, 2, 3, 4]]
    (problem,) = problems
    assert "boxes.json: entry 0 is skipped" in problem
    assert re.search(message, problem)


@pytest.mark.parametrize("content", ["", "[1,", '{"images": []}', '"text"'])
def test_a_file_without_boxes_is_an_error(tmp_path, content):
    (tmp_path / "boxes.json").write_text(content)
    with pytest.raises(
        InputError, match=r"boxes\.json: (contains no boxes|cannot be read as JSON)"
    ):
        BoxFile(tmp_path / "boxes.json", print)
    with pytest.raises(InputError, match=r"none\.json: there is no such file"):
        BoxFile(tmp_path / "none.json", print)
