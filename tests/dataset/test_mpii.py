"""MPII annotations, and PCKh compared with the published code."""

import json

import numpy as np
import pytest
from scipy.io import loadmat, savemat

from lib.dataset.image import read_image
from lib.dataset.mpii import MpiiKeypoints
from lib.utils.errors import InputError
from tests import tiny
from tests.poses import annotated, poses_of


@pytest.fixture
def people(tmp_path):
    return tiny.write_mpii(tmp_path)


def save(tmp_path, people) -> None:
    (tmp_path / "annot" / "valid.json").write_text(json.dumps(people))


def test_joints_are_0_based_and_boxes_moved_and_enlarged_as_published(tmp_path, people):
    people[1].update(center=[-1.0, -1.0], scale=-1.0)
    save(tmp_path, people)
    source = MpiiKeypoints(str(tmp_path), "valid")
    table = source.table
    assert len(table) == 6 and source.has_ground_truth
    np.testing.assert_allclose(table.joints + 1, [person["joints"] for person in people])
    np.testing.assert_array_equal(table.visible, [person["joints_vis"] for person in people])
    x, y = people[0]["center"]
    np.testing.assert_allclose(table.center[0], [x - 1, y + 15 * 0.32 - 1], rtol=1e-6)
    np.testing.assert_allclose(table.scale[0], [0.4, 0.4], rtol=1e-6)
    # Without a box only the 1-based coordinates are converted.
    assert table.center[1].tolist() == [-2, -2] and table.scale[1].tolist() == [-1, -1]
    assert [table.path(row) for row in range(6)] == [
        f"{tmp_path}/images/valid{row // 2}.jpg" for row in range(6)
    ]
    assert table.image.tolist() == [0, 0, 1, 1, 2, 2]
    assert read_image(table.path(0)).shape == (tiny.HEIGHT, tiny.WIDTH, 3)


def test_the_table_has_the_order_of_the_file(tmp_path, people):
    save(tmp_path, people[::-1])
    table = MpiiKeypoints(str(tmp_path), "valid").table
    np.testing.assert_allclose(table.joints[0] + 1, people[-1]["joints"])
    assert table.path(0).endswith("valid2.jpg") and table.path(5).endswith("valid0.jpg")


def test_the_test_set_has_no_joints_and_no_score(tmp_path, people):
    bare = [{key: person[key] for key in ("image", "center", "scale")} for person in people]
    (tmp_path / "annot" / "test.json").write_text(json.dumps(bare))
    source = MpiiKeypoints(str(tmp_path), "test")
    assert not source.has_ground_truth and not source.table.visible.any()
    answer = annotated(MpiiKeypoints(str(tmp_path), "valid").table)
    values, score = source.evaluate(poses_of(source.table, answer), str(tmp_path / "out"))
    assert dict(values) == {"Null": 0.0} and score == 0
    written = loadmat(tmp_path / "out" / "pred.mat")["preds"]
    np.testing.assert_allclose(written, answer[..., :2] + 1)


def test_images_can_be_in_an_archive(tmp_path, people):
    path = MpiiKeypoints(str(tmp_path), "valid", data_format="zip").table.path(0)
    assert path == f"{tmp_path}/images.zip@/valid0.jpg"


def test_the_ground_truth_scores_100_and_is_written_1_based(tmp_path, people):
    source = MpiiKeypoints(str(tmp_path), "valid")
    answer = annotated(source.table)
    values, score = source.evaluate(poses_of(source.table, answer), str(tmp_path / "out"))
    assert score == values["Mean"] == 100
    written = loadmat(tmp_path / "out" / "pred.mat")["preds"]
    assert written.shape == (6, 16, 2)
    np.testing.assert_allclose(written, [person["joints"] for person in people], atol=1e-5)
    # The threshold is half of 0.6 times the diagonal of a 20 x 20 pixel head box: 8.5 pixels.
    for distance, expected in ((8.4, 100), (8.6, 0)):
        moved = answer + np.array([distance, 0, 0])
        assert source.evaluate(poses_of(source.table, moved), str(tmp_path / "out"))[1] == expected


@pytest.mark.parametrize(
    ("edit", "message"),
    [
        (lambda people: people.clear(), "lists no people"),
        (lambda people: people[1].pop("image"), r"entry 1: .*missing required field `image`"),
        (lambda people: people[1].update(scale="large"), "entry 1: Expected `float`, got `str`"),
        (lambda people: people[1].update(center=[1]), r"entry 1: .*length 2.* at center"),
        (lambda people: people[1]["joints"].pop(), r"\[1\] \(valid0.jpg\) has 15 joints and 16"),
        (lambda people: people[1].pop("joints_vis"), r"\[1\] \(valid0.jpg\) has 16 joints and 0"),
    ],
)
def test_wrong_annotations_are_an_error_that_names_the_file_and_the_entry(
    tmp_path, people, edit, message
):
    edit(people)
    save(tmp_path, people)
    with pytest.raises(InputError, match=message) as caught:
        MpiiKeypoints(str(tmp_path), "valid")
    assert "valid.json" in str(caught.value) and "\n" not in str(caught.value)


def test_a_split_that_does_not_exist_is_an_error_that_names_the_file(tmp_path, people):
    with pytest.raises(InputError, match=r"annot/val\.json: there is no such file"):
        MpiiKeypoints(str(tmp_path), "val")


def index_array(path, name: str, index: slice) -> None:
    values = {k: v for k, v in loadmat(path).items() if not k.startswith("_")}
    values[name] = values[name][..., index]
    savemat(path, values)


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda path: path.unlink(), "file not found; it is needed to compute PCKh"),
        (lambda path: path.write_bytes(b""), "not an MPII ground truth file"),
        (lambda path: path.write_bytes(b"nothing at all" * 20), "not an MPII ground truth file"),
        (lambda path: path.write_bytes(path.read_bytes()[:300]), "not an MPII ground truth file"),
        (lambda path: savemat(path, {"x": 1}), "not an MPII ground truth file"),
        (lambda path: index_array(path, "dataset_joints", slice(None, None, -1)), "its joints are"),
        (lambda path: index_array(path, "headboxes_src", slice(2)), "inconsistent array shapes"),
    ],
    ids=["missing", "empty", "text", "cut off", "other", "joints", "heads"],
)
def test_an_invalid_ground_truth_file_is_an_error_that_names_it(tmp_path, people, damage, message):
    source = MpiiKeypoints(str(tmp_path), "valid")
    damage(tmp_path / "annot" / "gt_valid.mat")
    with pytest.raises(InputError, match=message) as caught:
        source.evaluate(poses_of(source.table, annotated(source.table)), str(tmp_path / "out"))
    assert "gt_valid.mat" in str(caught.value)


def test_people_without_a_pose_count_as_not_found(tmp_path, people):
    source = MpiiKeypoints(str(tmp_path), "valid")
    poses = poses_of(source.table, annotated(source.table))[2:]
    values, _ = source.evaluate(poses, str(tmp_path / "out"))
    labelled = np.delete(source.table.visible, (6, 7), axis=1).sum(1)
    assert values["Mean"] == pytest.approx(100 * labelled[2:].sum() / labelled.sum())
    is_missing = np.isnan(loadmat(tmp_path / "out" / "pred.mat")["preds"]).all((1, 2))
    assert is_missing.tolist() == [True, True, False, False, False, False]


def test_a_ground_truth_file_with_another_number_of_people_is_an_error(tmp_path, people):
    tiny.write_mpii_truth(tmp_path / "annot" / "gt_valid.mat", people[:4])
    source = MpiiKeypoints(str(tmp_path), "valid")
    with pytest.raises(InputError, match=r"has 4 people, valid\.json has 6"):
        source.evaluate(poses_of(source.table, annotated(source.table)), str(tmp_path / "out"))
