"""Tests of tools/draw.py: results of any program drawn into their images."""

import json

import cv2
import numpy as np
import pytest

from tests.tools.runs import is_one_line, leftovers


@pytest.fixture
def draw(command, tmp_path):
    """Write results and draw them: draw(entries, options ...) draws photos/ to drawn/."""
    folder = tmp_path / "photos"
    (folder / "sub").mkdir(parents=True)
    for name in ("000000000007.jpg", "a.png", "sub/b.png"):
        cv2.imwrite(str(folder / name), np.zeros((80, 80, 3), np.uint8))

    def run(entries, *options):
        file = tmp_path / "results.json"
        file.write_text(json.dumps(entries))
        return command("draw", file, "--images", folder, "--output", run.folder, *options)

    run.folder = tmp_path / "drawn"
    return run


def person(joints: int = 17, score: float = 0.9, **values) -> dict:
    coords = np.random.default_rng(joints).uniform(10, 70, (joints, 2)).round(1)
    keypoints = np.column_stack([coords, np.full(joints, 0.8)]).ravel().tolist()
    return {"image_id": 7, "keypoints": keypoints, "score": score, **values}


def annotations(path, joints: int, images=()):
    names = [f"left_{n}" for n in range(joints)]
    category = {"id": 1, "name": "animal", "keypoints": names, "skeleton": [[1, 2]]}
    images = [{"id": n, "file_name": name, "width": 80, "height": 80} for n, name in images]
    path.write_text(json.dumps({"images": images, "categories": [category], "annotations": []}))
    return path


def drawn(draw) -> dict[str, bool]:
    """Return the written files, and True for those in which something is drawn."""
    return {p.name: cv2.imread(str(p)).max() > 100 for p in sorted(draw.folder.iterdir())}


def test_images_are_found_by_file_name_then_annotations_then_image_id(draw, tmp_path):
    entries = [person(), person(file_name="sub/b.png"), person(image_id=3)]
    file = annotations(tmp_path / "a.json", 17, [(3, "elsewhere/a.png"), (9, "c.png")])
    ended = draw(entries, "--annotations", file)
    assert ended.code == 0 and ended.err == "" and "3 people in 3 files" in ended.out, ended
    assert drawn(draw) == {"000000000007.jpg": True, "a.png": True, "b.png": True}
    assert not leftovers(draw.folder)


def test_missing_images_are_skipped_with_one_line(draw):
    ended = draw([person(), person(image_id=8), person(file_name="c.png")])
    assert is_one_line(
        ended, "2 of the 3 files named in the results do not exist", "000000000008.jpg"
    )
    assert drawn(draw) == {"000000000007.jpg": True}


def test_the_folder_of_the_images_is_not_an_output_folder(draw, tmp_path):
    path = tmp_path / "photos/a.png"
    ended = draw([person(file_name="a.png")], "--output", path.parent)
    assert is_one_line(ended, "--output", "contains inputs") and not cv2.imread(str(path)).any()


def test_people_and_joints_with_low_scores_are_not_drawn(draw):
    entries = [person(score=0.2), person(file_name="a.png", score=0.4)]
    assert "2 people in 2 files" in draw(entries).out
    ended = draw(entries, "--person-threshold", "0.3")
    assert "1 person in 2 files" in ended.out
    assert "left out 1 with a score below 0.3" in ended.out
    assert drawn(draw) == {"000000000007.jpg": False, "a.png": True}
    assert draw(entries, "--threshold", "0.8").code == 0
    assert drawn(draw) == {"000000000007.jpg": False, "a.png": False}


def test_the_skeleton_follows_from_the_annotations_or_the_number_of_joints(draw, tmp_path):
    for joints in (14, 16, 17):
        assert draw([person(joints)]).code == 0
    message = "the results have 5 joints; give --annotations"
    assert is_one_line(draw([person(5)]), message)
    assert draw([person(5)], "--annotations", annotations(tmp_path / "a.json", 5)).code == 0
    ended = draw([person(5)], "--annotations", annotations(tmp_path / "a.json", 6))
    assert is_one_line(ended, "have 5 joints, but the annotations", "name 6")


def test_options_of_the_original_script_work(draw, succeed, tmp_path):
    (tmp_path / "r.json").write_text(json.dumps([person()]))
    words = ["--prediction", tmp_path / "r.json", "--image-path", tmp_path / "photos"]
    succeed("draw", *words, "--save-path", draw.folder, "--color-by", "person")
    assert drawn(draw) == {"000000000007.jpg": True}


def test_results_are_drawn_on_the_frames_of_a_video(draw, tmp_path):
    writer = cv2.VideoWriter(
        str(tmp_path / "photos" / "v.mp4"), cv2.VideoWriter_fourcc(*"mp4v"), 10, (80, 80)
    )
    for _ in range(3):
        writer.write(np.zeros((80, 80, 3), np.uint8))
    writer.release()
    entries = [person(file_name="v.mp4", frame=n, track_id=4, bbox=[5, 5, 70, 70]) for n in (0, 2)]
    assert "2 people in 1 file:" in draw(entries).out
    video = cv2.VideoCapture(str(draw.folder / "v.mp4"))
    assert [video.read()[1].max() > 100 for _ in range(3)] == [True, False, True]


@pytest.mark.parametrize(
    ("entry", "message"),
    [
        ({"image_id": 7, "bbox": [1, 2, 3, 4]}, "missing required field `keypoints`"),
        (person(16), "has 48 keypoint values, not 51"),
        (person(score=float("nan")), "contains NaN or Inf"),
        ({**person(), "image_id": None}, "neither a file_name nor an image_id"),
        (17, "Expected `object`"),
    ],
)
def test_invalid_entries_are_skipped_with_one_line(draw, entry, message):
    ended = draw([person(), entry, entry])
    assert is_one_line(ended, "skipped 2 of 3 entries. The first: entry 1: ", message)
    assert drawn(draw) == {"000000000007.jpg": True}


@pytest.mark.parametrize("content", [{"images": []}, [], [{"image_id": 1}]])
def test_a_file_without_results_is_a_one_line_error(draw, content):
    assert is_one_line(draw(content), "results.json", "keypoint")
    assert not draw.folder.exists()
