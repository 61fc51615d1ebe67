"""COCO format: the table of people, errors of bad files, and the evaluation of predictions."""

import copy
import json
import logging

import numpy as np
import pytest

from lib.dataset.coco import CocoKeypoints
from lib.dataset.image import read_image
from lib.dataset.table import Table
from lib.keypoints.geometry import box_to_center_scale
from lib.keypoints.skeletons import COCO
from lib.utils.errors import InputError
from tests import tiny
from tests.golden_arrays import golden, golden_annotations
from tests.poses import annotated, poses_of

STATS = {
    **{"AP": "AP", "Ap .5": "AP50", "AP .75": "AP75", "AP (M)": "AP_M", "AP (L)": "AP_L"},
    **{"AR": "AR", "AR .5": "AR50", "AR .75": "AR75", "AR (M)": "AR_M", "AR (L)": "AR_L"},
}


def coco(root, split="val2017", **options) -> CocoKeypoints:
    return CocoKeypoints(str(root), split, COCO, aspect_ratio=0.75, **options)


def test_the_table_has_all_people_by_image_with_their_box_and_joints(tmp_path, content):
    # The annotations are sorted by image; within an image they keep their order.
    shuffled = copy.deepcopy(content)
    shuffled["annotations"] = [content["annotations"][n] for n in (4, 0, 2, 1, 5, 3)]
    tiny.save_coco(tmp_path, shuffled)
    table = coco(tmp_path).table
    expected = [content["annotations"][n] for n in (0, 1, 2, 3, 4, 5)]
    assert [int(table.image_ids[image]) for image in table.image] == [1, 1, 2, 2, 3, 3]
    joints = np.array([person["keypoints"] for person in expected]).reshape(-1, 17, 3)
    np.testing.assert_array_equal(table.joints, joints[..., :2])
    np.testing.assert_array_equal(table.visible, joints[..., 2] > 0)
    assert set(np.unique(joints[..., 2])) == {0, 1, 2}
    # As in the published code, the last pixel of a box is at x + width - 1.
    boxes = np.array([person["bbox"] for person in expected]) - [0, 0, 1, 1]
    center, scale = box_to_center_scale(boxes, 0.75)
    np.testing.assert_array_equal(table.center, center)
    np.testing.assert_array_equal(table.scale, scale)
    assert (table.score == 1).all()
    assert table.path(2) == f"{tmp_path}/images/val2017/000000000002.jpg"
    assert {table.joints.dtype, table.visible.dtype, table.center.dtype} == {np.dtype("float32")}
    assert read_image(table.path(5)).shape == (tiny.HEIGHT, tiny.WIDTH, 3)


def test_boxes_are_clipped_to_the_image_as_published(tmp_path, content):
    boxes = [[-10, -5, 50, 40], [100, 70, 50, 50], [119, 89, 5, 5], [0, 0, 1, 60]]
    for person, box in zip(content["annotations"], boxes, strict=False):
        person["bbox"] = box
    tiny.save_coco(tmp_path, content)
    table = coco(tmp_path).table
    # The published code first moves the corner inside and keeps the size.
    cleaned = [[0, 0, 49, 39], [100, 70, 19, 19], [119, 89, 0, 0], [0, 0, 0, 59]]
    center, scale = box_to_center_scale(np.array(cleaned, float), 0.75)
    np.testing.assert_array_equal(table.center[:4], center)
    np.testing.assert_array_equal(table.scale[:4], scale)


def test_unusable_people_are_skipped_and_counted(tmp_path, content, caplog):
    crowd, no_box, outside, no_joints, kept, other = content["annotations"]
    crowd.update(iscrowd=1, keypoints=[])
    no_box.update(bbox=[0, 0, 0, 0], keypoints=[0] * 48 + [5, 5, 2])
    outside["bbox"] = [500, 10, 20, 20]
    no_joints.update(keypoints=[0] * 51, num_keypoints=0)
    other.update(category_id=7, keypoints=[1, 2, 2])
    content["categories"].append({"id": 7, "name": "dog"})
    tiny.save_coco(tmp_path, content)
    with caplog.at_level(logging.INFO):
        table = coco(tmp_path).table
    assert len(table) == 1
    np.testing.assert_array_equal(table.joints[0].ravel()[:2], kept["keypoints"][:2])
    counts = "1 person; skipped 1 without labelled joints and 2 with no box or a box outside"
    assert counts in caplog.text
    assert len(table.image_ids) == 3


def test_a_missing_box_is_replaced_by_that_of_the_labelled_joints(tmp_path, content, caplog):
    people = content["annotations"]
    for person, box in zip(people[:4], ([0, 0, 0, 0], [5, 5, 0, 40], None, ()), strict=True):
        person["keypoints"] = [0] * 42 + [20, 10, 1, 70, 2, 2, 90, 80, 0]
        person["bbox"] = box
    del people[3]["bbox"]
    expected = coco_table(tmp_path, content, [[15, 0, 60, 15]] * 4)
    tiny.save_coco(tmp_path, content)
    with caplog.at_level(logging.WARNING):
        table = coco(tmp_path).table
    np.testing.assert_array_equal(table.center, expected.center)
    np.testing.assert_array_equal(table.size, expected.size)
    assert "4 people have no box; using the bounding box of their labelled joints" in caplog.text


def coco_table(root, content: dict, boxes: list) -> Table:
    """Return the table with the first ``boxes`` replaced."""
    other = copy.deepcopy(content)
    for person, box in zip(other["annotations"], boxes, strict=False):
        person["bbox"] = box
    tiny.save_coco(root, other)
    return coco(root).table


def test_people_with_only_flags_of_0_are_skipped_with_a_warning(tmp_path, content, caplog):
    for person in content["annotations"][:2]:
        person["keypoints"][2::3] = [0] * 17
    tiny.save_coco(tmp_path, content)
    source = coco(tmp_path)
    assert len(source.table) == 4
    # They do not count as missed, even if their num_keypoints is wrong.
    poses = poses_of(source.table, annotated(source.table))
    values, _ = source.evaluate(poses, str(tmp_path / "out"))
    assert values["AP"] == 1
    assert "2 people have coordinates, but visibility flag 0 for every joint" in caplog.text


def test_detected_boxes_are_selected_by_category_and_score(tmp_path, content):
    path = tmp_path / "boxes.json"
    boxes = tiny.write_detections(path, content)
    boxes[0]["category_id"] = 2
    boxes[5], boxes[1] = boxes[1], boxes[5]
    path.write_text(json.dumps(boxes))
    source = coco(tmp_path, detections=str(path), score_threshold=0.55)
    table = source.table
    kept = sorted(
        (box for box in boxes if box["score"] >= 0.55 and box["category_id"] == 1),
        key=lambda box: box["image_id"],
    )
    assert [int(table.image_ids[image]) for image in table.image] == [b["image_id"] for b in kept]
    assert len(kept) == 4
    np.testing.assert_allclose(table.score, [box["score"] for box in kept])
    center, scale = box_to_center_scale(np.array([box["bbox"] for box in kept]), 0.75)
    np.testing.assert_array_equal(table.center, center)
    np.testing.assert_array_equal(table.scale, scale)
    assert not table.visible.any() and table.joints.shape == (4, 17, 2)


@pytest.mark.parametrize("has_folder", [False, True])
def test_images_in_an_archive_equal_the_plain_files(tmp_path, content, has_folder):
    plain = [read_image(coco(tmp_path).table.path(row)) for row in range(6)]
    tiny.zip_images(tmp_path, "val2017", has_folder)
    table = coco(tmp_path, data_format="zip").table
    for row in range(6):
        np.testing.assert_array_equal(read_image(table.path(row)), plain[row])


def test_png_files_are_found_by_the_jpg_names_of_the_annotations(tmp_path, content):
    assert coco(tmp_path, data_format="png").table.path(0).endswith("val2017/000000000001.png")


def test_a_file_name_may_be_spelt_filename(tmp_path, content):
    for image in content["images"]:
        image["filename"] = image.pop("file_name")
    tiny.save_coco(tmp_path, content)
    assert coco(tmp_path).table.path(0).endswith("images/val2017/000000000001.jpg")


def test_cocos_test_splits_share_an_image_folder_and_have_no_ground_truth(tmp_path, content):
    info = {key: content[key] for key in ("images", "categories")}
    (tmp_path / "annotations" / "image_info_test-dev2017.json").write_text(json.dumps(info))
    tiny.write_detections(tmp_path / "boxes.json", content)
    source = coco(tmp_path, "test-dev2017", detections=str(tmp_path / "boxes.json"))
    assert source.table.path(0) == f"{tmp_path}/images/test2017/000000000001.jpg"
    assert not source.has_ground_truth
    answer = np.ones((6, 17, 3), np.float32) * np.arange(1, 7)[:, None, None] * [50, 50, 0.1]
    values, score = source.evaluate(poses_of(source.table, answer), str(tmp_path / "out"))
    assert dict(values) == {"Null": 0.0} and score == 0
    results = tmp_path / "out" / "results" / "keypoints_test-dev2017_results_0.json"
    assert len(json.loads(results.read_text())) == 6


def everybody(content: dict, **changes) -> None:
    for person in content["annotations"]:
        person.update(changes)


def clear_flags(content: dict) -> None:
    for person in content["annotations"]:
        person["keypoints"][2::3] = [0] * 17


@pytest.mark.parametrize(
    ("edit", "message"),
    [
        (lambda c: c["images"].clear(), "`images` or `categories` is empty"),
        (lambda c: c["categories"].clear(), "`images` or `categories` is empty"),
        (lambda c: c["annotations"].clear(), "has no annotations"),
        (lambda c: c.pop("annotations"), "has no annotations"),
        (lambda c: everybody(c, keypoints=[0] * 51), "no person has a labelled joint$"),
        (
            lambda c: everybody(c, bbox=[900, 900, 9, 9]),
            "no person has a labelled joint and a valid box",
        ),
        (clear_flags, "no person has a labelled joint: 6 people have coordinates, but visibility"),
        (
            lambda c: c["annotations"][3].update(bbox=[1, 2, "wide", 4]),
            r"annotations\[3\]: Expected `float`, got `str` at bbox\[2\]",
        ),
        (
            lambda c: c["annotations"][3].update(bbox=[1, 2, 3]),
            r"annotations\[3\]: .*length 4.* at bbox",
        ),
        (
            lambda c: c["annotations"][3].update(keypoints=[1] * 48),
            r"annotations\[3\] of image 2 has 48 keypoint values.* need 51",
        ),
        (
            lambda c: c["annotations"][3].update(image_id=99),
            r"image id 99 is not listed .* \(1 entries affected\)",
        ),
        (lambda c: c["images"][1].pop("file_name"), r"images\[1\] has no file_name"),
        (lambda c: c["images"][2].update(id="three"), r"images\[2\].*"),
        (
            lambda c: c["images"][2].update(width=2**31),
            r"images\[2\]: Expected `int` <= 2147483647 at width",
        ),
    ],
)
def test_wrong_annotations_are_an_error_that_names_the_file_and_the_entry(
    tmp_path, content, edit, message
):
    edit(content)
    path = tiny.save_coco(tmp_path, content)
    with pytest.raises(InputError, match=message) as caught:
        coco(tmp_path)
    assert str(path) in str(caught.value) and "\n" not in str(caught.value)


@pytest.mark.parametrize("data_format", ["jpg", "png"])
def test_an_image_without_a_name_is_an_error_in_every_format(tmp_path, content, data_format):
    del content["images"][1]["file_name"]
    tiny.save_coco(tmp_path, content)
    with pytest.raises(InputError, match=r"images\[1\] has no file_name"):
        coco(tmp_path, data_format=data_format)


@pytest.mark.parametrize(
    ("edit", "message"),
    [
        (lambda boxes: boxes[2].update(image_id=77), "boxes.json: image id 77"),
        (lambda boxes: boxes[2].update(score="high"), r"boxes.json: entry 2: Expected"),
        (lambda boxes: boxes[2].pop("bbox"), r"entry 2: .*missing required field `bbox`"),
        (lambda boxes: boxes.clear(), "no valid box of category 1"),
        (lambda boxes: [b.update(category_id=3) for b in boxes], "no valid box of category 1"),
    ],
)
def test_wrong_detections_are_an_error_that_names_the_file_and_the_entry(
    tmp_path, content, edit, message
):
    path = tmp_path / "boxes.json"
    boxes = tiny.write_detections(path, content)
    edit(boxes)
    path.write_text(json.dumps(boxes))
    with pytest.raises(InputError, match=message):
        coco(tmp_path, detections=str(path))


def test_empty_and_outside_detected_boxes_are_skipped_and_counted(tmp_path, content, caplog):
    path = tmp_path / "boxes.json"
    boxes = tiny.write_detections(path, content)
    count = len(coco(tmp_path, detections=str(path)).table)
    beside = {"image_id": boxes[0]["image_id"], "category_id": 1, "score": 0.9}
    for bbox in ([5, 5, 0, 9], [-30, 5, 20, 20], [9000, 5, 20, 20], [1e300, 0, 5, 5]):
        boxes.append({**beside, "bbox": bbox})
    path.write_text(json.dumps(boxes))
    with caplog.at_level(logging.INFO):
        assert len(coco(tmp_path, detections=str(path)).table) == count
    assert "skipped 4 that are empty or outside the image" in caplog.text


def test_only_people_kept_by_nms_are_drawn(tmp_path, content):
    path = tmp_path / "boxes.json"
    boxes = tiny.write_detections(path, content)
    twice = [*boxes, {**boxes[0], "score": 0.5 * boxes[0]["score"]}]
    path.write_text(json.dumps(twice))
    data = coco(tmp_path, detections=str(path))
    keypoints = np.zeros((len(data.table), 17, 3), np.float32)
    keypoints[..., :2] = data.table.center[:, None] + 3 * np.arange(34).reshape(17, 2)
    keypoints[..., 2] = 1
    double = np.argmin(np.abs(data.table.score - twice[-1]["score"]))
    assert data.table.score[double] == np.float32(twice[-1]["score"])
    poses = poses_of(data.table, keypoints)
    assert double not in data.rows_to_draw(poses, threshold=0.0)
    assert len(data.rows_to_draw(poses, threshold=0.0)) > len(
        data.rows_to_draw(poses, threshold=0.95)
    )


def test_a_missing_or_malformed_detections_file_is_an_error(tmp_path, content):
    with pytest.raises(InputError, match="COCO_BBOX_FILE"):
        coco(tmp_path, detections=str(tmp_path / "none.json"))
    path = tmp_path / "boxes.json"
    path.write_text("{}")
    with pytest.raises(InputError, match=r"boxes\.json.*Expected `array`, got `object`"):
        coco(tmp_path, detections=str(path))


def test_the_ground_truth_scores_1_and_is_written_in_cocos_format(tmp_path, content, caplog):
    source = coco(tmp_path)
    poses = poses_of(source.table, annotated(source.table))
    with caplog.at_level(logging.INFO):
        values, score = source.evaluate(poses, str(tmp_path / "out"))
    assert score == values["AP"] == values["AR"] == 1.0
    assert tuple(values) == tuple(STATS)
    assert "Average Precision" in caplog.text
    path = tmp_path / "out" / "results" / "keypoints_val2017_results_0.json"
    results = json.loads(path.read_text())
    assert len(results) == 6
    first = results[0]
    keys = {"image_id", "category_id", "keypoints", "score", "center", "scale", "bbox"}
    assert set(first) == keys
    assert (first["image_id"], first["category_id"], first["score"]) == (1, 1, 1.0)
    np.testing.assert_allclose(first["keypoints"], annotated(source.table)[0].ravel())
    np.testing.assert_allclose(first["center"], source.table.center[0])
    boxes = [entry["bbox"] for entry in results]
    np.testing.assert_allclose(boxes, poses.box, atol=0.005)
    assert path.stat().st_mode & 0o777 == 0o644
    assert [p.name for p in path.parent.iterdir()] == [path.name]


def test_annotations_without_ids_and_joint_counts_give_the_same_score(tmp_path, content):
    rng = np.random.default_rng(1)
    source = coco(tmp_path)
    keypoints = annotated(source.table)
    keypoints[..., :2] += rng.normal(0, 3, keypoints[..., :2].shape)
    poses = poses_of(source.table, keypoints)
    values, _ = source.evaluate(poses, str(tmp_path / "out"))
    assert 0 < values["AP"] < 1
    for person in content["annotations"]:
        del person["id"], person["num_keypoints"], person["iscrowd"]
    tiny.save_coco(tmp_path, content)
    again, _ = coco(tmp_path).evaluate(poses, str(tmp_path / "out"))
    assert values == again


@pytest.mark.parametrize("name", ["coco_sample", "coco_synthetic"])
@pytest.mark.parametrize("setting", ["hard", "soft", "loose"])
def test_rescoring_suppression_and_ap_are_the_published_ones(tmp_path, name, setting):
    meta, arrays = golden(f"eval/{name}")
    expected = meta["expected"][setting]
    (tmp_path / "annotations").mkdir()
    file = tmp_path / "annotations" / "person_keypoints_val2017.json"
    file.write_bytes(golden_annotations(name))
    boxes = arrays["boxes"]
    # Detections that give the same crops as the golden file.
    sizes = boxes[:, 2:4] * 200 / 1.25
    detections = [
        {"image_id": int(image), "category_id": 1, "bbox": [*box], "score": float(score)}
        for image, box, score in zip(
            arrays["image_ids"],
            np.hstack([boxes[:, :2] - sizes / 2, sizes]).tolist(),
            boxes[:, 5],
            strict=True,
        )
    ]
    (tmp_path / "boxes.json").write_text(json.dumps(detections))
    source = coco(
        tmp_path,
        detections=str(tmp_path / "boxes.json"),
        oks_threshold=expected["oks_thre"],
        visible_threshold=expected["in_vis_thre"],
        soft_nms=expected["soft_nms"],
    )
    # The table is sorted by image; within an image the file's order is kept.
    ids = source.table.image_ids.tolist()
    order = np.argsort([ids.index(image) for image in arrays["image_ids"]], kind="stable")
    np.testing.assert_allclose(source.table.center, boxes[order, :2], rtol=1e-5, atol=1e-3)
    # Exactly the areas that the published evaluation used.
    source.table.scale[:] = boxes[order, 2:4]
    source.table.score = boxes[order, 5]
    values, score = source.evaluate(
        poses_of(source.table, arrays["preds"][order]), str(tmp_path / "out")
    )
    for ours, theirs in STATS.items():
        assert values[ours] == pytest.approx(expected[theirs], abs=1e-9), ours
    assert score == values["AP"]
    written = tmp_path / "out" / "results" / "keypoints_val2017_results_0.json"
    results = json.loads(written.read_text())
    assert len(results) == expected["kept"] == arrays[f"kept_{setting}"].sum()
    found = {tuple(entry["keypoints"]): entry["score"] for entry in results}
    for person, kept, rescored in zip(
        arrays["preds"], arrays[f"kept_{setting}"], arrays[f"score_{setting}"], strict=True
    ):
        key = tuple(person.astype(np.float64).ravel().tolist())
        assert (key in found) == kept
        if kept:
            assert found[key] == pytest.approx(rescored, rel=1e-6)


def test_a_missing_area_is_replaced_by_that_of_the_box(tmp_path, content, caplog):
    people = content["annotations"]
    del people[0]["area"]
    people[1]["area"] = 0
    people[2].update(area=0, bbox=[0, 0, 0, 0], keypoints=[0] * 45 + [20, 10, 2, 70, 2, 2])
    tiny.save_coco(tmp_path, content)
    source = coco(tmp_path)
    areas = [entry["area"] for entry in source.ground_truth.dataset["annotations"]]
    assert areas[:3] == [44 * 64, 44 * 64, 60 * 15]
    assert areas[3:] == [person["area"] for person in people[3:]]
    assert "3 annotations have no area, or an area of 0" in caplog.text
    poses = poses_of(source.table, annotated(source.table))
    assert source.evaluate(poses, str(tmp_path))[1] > 0.99
