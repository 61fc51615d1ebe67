"""Top-down samples: crops, augmentation, and consistency of images and joints."""

from dataclasses import replace

import cv2
import numpy as np
import pytest
import torch

from lib.config import load_config
from lib.dataset import build_dataset, top_down
from lib.dataset.coco import CocoKeypoints
from lib.dataset.top_down import Augmentation, TopDownDataset
from lib.keypoints.geometry import Crop, flip_permutation, transform_points
from lib.keypoints.skeletons import COCO
from lib.utils.errors import InputError
from tests import tiny

STILL = Augmentation(flip=False, scale_factor=0.0, rotation_factor=0.0)


@pytest.fixture
def source(tmp_path):
    tiny.write_coco(tmp_path)
    return CocoKeypoints(str(tmp_path), "val2017", COCO, aspect_ratio=0.75)


def dataset(source, augmentation=None, seed=0, size=(48, 64)) -> TopDownDataset:
    return TopDownDataset(source, Crop(size), augmentation, seed)


def views(data: TopDownDataset, count: int, row: int = 0) -> list[dict]:
    """``count`` samples of one person, each of another epoch."""
    return [data[epoch, row] for epoch in range(count)]


def test_a_sample_has_the_documented_fields(source):
    sample = dataset(source)[3]
    expected = {
        "image": (torch.uint8, (3, 64, 48)),
        "joints": (torch.float32, (17, 2)),
        "visible": (torch.float32, (17,)),
        "center": (torch.float32, (2,)),
        "scale": (torch.float32, (2,)),
        "rotation": (torch.float32, ()),
        "box": (torch.float32, (4,)),
        "box_score": (torch.float32, ()),
        "index": (torch.int64, ()),
        "image_index": (torch.int64, ()),
    }
    assert {k: (v.dtype, tuple(v.shape)) for k, v in sample.items()} == expected
    assert sample["box"].tolist() == [63, 12, 43, 63] and sample["image_index"] == 1
    assert sample["index"] == 3 and sample["box_score"] == 1 and sample["rotation"] == 0


def test_a_test_sample_is_an_rgb_crop_with_its_joints(source):
    data, table = dataset(source), source.table
    sample = data[2]
    matrix = Crop((48, 64)).matrix(table.center[2], table.scale[2])
    picture = cv2.imread(table.path(2))
    expected = cv2.warpAffine(picture, matrix, (48, 64))[..., ::-1]
    np.testing.assert_array_equal(sample["image"].permute(1, 2, 0).numpy(), expected)
    seen = table.visible[2] > 0
    joints = transform_points(table.joints[2], matrix)
    np.testing.assert_allclose(sample["joints"][seen].numpy(), joints[seen], atol=1e-4)
    assert not sample["joints"][~seen].any() and (~seen).sum() == 2
    np.testing.assert_array_equal(sample["visible"].numpy(), seen)


def test_a_udp_sample_uses_the_udp_matrix(source):
    table = source.table
    sample = TopDownDataset(source, Crop((48, 64), is_udp=True))[2]
    matrix = Crop((48, 64), is_udp=True).matrix(table.center[2], table.scale[2])
    seen = table.visible[2] > 0
    joints = transform_points(table.joints[2], matrix)
    np.testing.assert_allclose(sample["joints"][seen].numpy(), joints[seen], atol=1e-4)
    expected = cv2.warpAffine(cv2.imread(table.path(2)), matrix, (48, 64))[..., ::-1]
    np.testing.assert_array_equal(sample["image"].permute(1, 2, 0).numpy(), expected)


def test_training_samples_without_augmentation_equal_test_samples(source):
    still, plain = dataset(source, STILL)[5, 1], dataset(source)[1]
    for name, value in plain.items():
        torch.testing.assert_close(still[name], value)


def test_a_sample_depends_only_on_seed_epoch_and_row(source):
    how = Augmentation(half_body_probability=0.5)
    first = dataset(source, how, seed=1)
    samples = {(epoch, row): first[epoch, row] for epoch in range(2) for row in range(4)}
    again = dataset(source, how, seed=1)
    for key in reversed(samples):
        for name, value in again[key].items():
            assert torch.equal(value, samples[key][name]), (key, name)
    images = [sample["image"].numpy().tobytes() for sample in samples.values()]
    images.append(dataset(source, how, seed=2)[0, 0]["image"].numpy().tobytes())
    assert len(set(images)) == len(images)


def test_flips_rotations_and_scales_have_the_published_distributions(source):
    count = 1500
    samples = views(dataset(source, Augmentation(scale_factor=0.35, rotation_factor=45)), count)
    table = source.table
    is_mirrored = np.array([sample["center"][0] != float(table.center[0, 0]) for sample in samples])
    rotation = np.array([sample["rotation"] for sample in samples])
    zoom = np.array([sample["scale"][0] / table.scale[0, 0] for sample in samples])
    error = 4 * np.sqrt(0.25 / count)
    assert abs(is_mirrored.mean() - 0.5) < error
    assert abs((rotation != 0).mean() - 0.6) < error
    turned = rotation[rotation != 0]
    assert np.abs(turned).max() == 90
    # A normal variable with standard deviation 45 is clipped at 90 in 4.6 % of cases.
    assert abs((np.abs(turned) == 90).mean() - 0.0455) < 0.03
    assert abs((np.abs(turned) < 45).mean() - 0.683) < error
    assert abs((turned > 0).mean() - 0.5) < 2 * error
    assert zoom.min() == pytest.approx(0.65) and zoom.max() == pytest.approx(1.35)
    # One with standard deviation s is clipped at 1 - s or 1 + s in 31.7 %.
    at_bound = np.isclose(zoom, 0.65, atol=1e-5) | np.isclose(zoom, 1.35, atol=1e-5)
    assert abs(at_bound.mean() - 0.317) < error
    for a, b in ((is_mirrored, rotation != 0), (is_mirrored, at_bound), (rotation != 0, at_bound)):
        assert abs(np.corrcoef(a, b)[0, 1]) < 0.12


def test_half_bodies_are_as_frequent_as_configured_and_mostly_upper(source):
    how = replace(STILL, half_body_probability=0.3)
    count = 1500
    table = source.table
    centers = np.array([s["center"].numpy() for s in views(dataset(source, how), count)])
    seen = table.visible[0] > 0
    upper = table.joints[0][:11][seen[:11]].mean(0)
    lower = table.joints[0][11:][seen[11:]].mean(0)
    whole, is_upper, is_lower = (
        np.isclose(centers, place, atol=1e-3).all(1) for place in (table.center[0], upper, lower)
    )
    assert (whole | is_upper | is_lower).all()
    error = 4 * np.sqrt(0.25 / count)
    assert abs(whole.mean() - 0.7) < error
    # The probability that a standard normal variable is below 0.5.
    assert abs(is_upper.sum() / (is_upper | is_lower).sum() - 0.691) < 0.09


def test_people_with_few_joints_get_no_half_body(source):
    table = source.table
    visible = int(table.visible[0].sum())
    for joints, is_split in ((visible, False), (visible - 1, True)):
        how = Augmentation(False, 0.0, 0.0, half_body_probability=1.0, half_body_joints=joints)
        center = dataset(source, how)[0, 0]["center"].numpy()
        assert (not np.allclose(center, table.center[0])) == is_split


def test_a_half_body_without_extent_still_gives_a_crop(source):
    source.table.joints[0] = [50, 40]
    how = Augmentation(half_body_probability=1.0)
    for sample in views(dataset(source, how), 8):
        assert torch.isfinite(sample["joints"]).all()


@pytest.mark.parametrize("row", [0, 1])
def test_a_mirrored_sample_is_the_sample_of_the_mirrored_image(tmp_path, source, row):
    """A flipped sample equals the sample without flip of an image and annotation mirrored by hand,
    with the same random numbers."""
    seed = next(
        seed
        for seed in range(100)
        if dataset(source, Augmentation(), seed)[0, row]["center"][0] != source.table.center[row][0]
        and dataset(source, Augmentation(), seed)[0, row]["rotation"] != 0
    )
    mirrored = dataset(source, Augmentation(), seed)[0, row]
    path = source.table.path(row)
    picture = cv2.imread(path)
    table = source.table
    order = flip_permutation(17, COCO.flip_pairs)
    table.center[row, 0] = tiny.WIDTH - 1 - table.center[row, 0]
    table.joints[row] = table.joints[row][order]
    table.joints[row, :, 0] = tiny.WIDTH - 1 - table.joints[row, :, 0]
    table.visible[row] = table.visible[row][order]
    other = path.replace(".jpg", ".png")
    cv2.imwrite(other, picture[:, ::-1])
    table.paths = np.array([name.replace(b".jpg", b".png") for name in table.paths])
    direct = dataset(source, Augmentation(flip=False), seed)[0, row]
    for name in ("joints", "visible", "center", "scale", "rotation"):
        torch.testing.assert_close(direct[name], mirrored[name], atol=1e-4, rtol=1e-5)
    difference = (direct["image"].int() - mirrored["image"].int()).abs()
    assert difference.max() <= 2
    assert direct["image"].float().std() > 10


def test_joints_stay_on_the_image_content_under_any_transform(source):
    """The image has a disc of a different hue at each joint. The crop must show that hue at the
    joint, or in flipped crops the hue of its flip pair."""
    row = 0
    path = source.table.path(row)
    black = np.zeros_like(cv2.imread(path))
    joints = np.array([(12 + 24 * (n % 5), 10 + 20 * (n // 5), 1) for n in range(17)])
    tiny.draw_joints(black, joints)
    # PNG, because it is lossless.
    cv2.imwrite(path.replace(".jpg", ".png"), black)
    source.table.paths = np.array([n.replace(b".jpg", b".png") for n in source.table.paths])
    source.table.joints[row] = joints[:, :2]
    source.table.visible[row] = 1
    partner = flip_permutation(17, COCO.flip_pairs)
    checked = {True: 0, False: 0}
    for sample in views(dataset(source, Augmentation(), size=(96, 128)), 30):
        is_mirrored = bool(sample["center"][0] != float(source.table.center[row, 0]))
        picture = sample["image"].permute(1, 2, 0).numpy()
        hues = cv2.cvtColor(picture, cv2.COLOR_RGB2HSV)
        for joint, (x, y) in enumerate(sample["joints"].round().int().tolist()):
            if 0 <= x < 96 and 0 <= y < 128:
                drawn = partner[joint] if is_mirrored else joint
                assert abs(int(hues[y, x, 0]) - 10 * drawn) <= 2, (joint, is_mirrored)
                checked[is_mirrored] += 1
    assert min(checked.values()) > 50


def test_people_in_one_image_equal_their_samples_and_read_it_once(source, monkeypatch):
    data = dataset(source)
    separate = [data[row] for row in (2, 3)]
    read = []
    original = top_down.read_image
    monkeypatch.setattr(top_down, "read_image", lambda path: read.append(path) or original(path))
    together = data.people_in_one_image(np.array([2, 3]))
    assert len(read) == 1
    for name, values in together.items():
        torch.testing.assert_close(values, torch.stack([sample[name] for sample in separate]))


def test_an_image_too_large_for_crops_is_an_error_that_names_it(tmp_path, source):
    source.table.paths = np.array([f"{tmp_path}/huge.png".encode()] * 3)
    tiny.write_huge_png(tmp_path / "huge.png")
    data = dataset(source)
    for read in (lambda: data[0], lambda: data.people_in_one_image(np.array([0, 1]))):
        with pytest.raises(InputError, match=r"huge\.png is 30000 x 30000 pixels"):
            read()


def load(tmp_path, **sections):
    return load_config(tiny.experiment(tmp_path / "tiny.yaml", tmp_path, **sections))


def test_build_dataset_uses_the_keys_of_dataset(tmp_path, source):
    keys = {
        "FLIP": False,
        "SCALE_FACTOR": 0.1,
        "ROT_FACTOR": 7,
        "PROB_HALF_BODY": 0.25,
        "NUM_JOINTS_HALF_BODY": 5,
        "PROB_SHIFT": 0.5,
    }
    cfg = load(tmp_path, DATASET=keys, SEED=9)
    data = build_dataset(cfg, "val2017", is_train=True)
    assert data.augmentation == Augmentation(False, 0.1, 7.0, 0.25, 5, 0.5)
    assert (data.crop.size, data.seed, len(data), data.skeleton) == ((64, 64), 9, 6, COCO)
    assert build_dataset(cfg, "val2017", is_train=False).augmentation is None


def test_select_data_skips_badly_centered_people_only_in_training(tmp_path, source):
    path = tmp_path / "annotations" / "person_keypoints_val2017.json"
    text = path.read_text().replace('"bbox": [63, 12, 44, 64]', '"bbox": [10, 60, 20, 20]', 1)
    path.write_text(text)
    cfg = load(tmp_path, DATASET={"SELECT_DATA": True})
    assert len(build_dataset(cfg, "val2017", is_train=False)) == 6
    assert len(build_dataset(cfg, "val2017", is_train=True)) == 5
    path.write_text(text.replace('"bbox": [', '"bbox": [0, 0, 10, 10], "x": ['))
    with pytest.raises(InputError, match="SELECT_DATA: no person"):
        build_dataset(cfg, "val2017", is_train=True)


@pytest.mark.parametrize(
    ("sections", "message"),
    [
        ({"DATASET": {"DATASET": "cocoa"}}, "DATASET.DATASET: unknown data set 'cocoa'"),
        ({"MODEL": {"NUM_JOINTS": 16}}, "MODEL.NUM_JOINTS is 16, but coco has 17 joints"),
        ({"TEST": {"USE_GT_BBOX": False}}, "TEST.COCO_BBOX_FILE: no file"),
    ],
)
def test_a_data_set_that_cannot_be_built_is_an_error_that_names_the_key(
    tmp_path, source, sections, message
):
    with pytest.raises(InputError, match=message):
        build_dataset(load(tmp_path, **sections), "val2017", is_train=False)


def test_detected_boxes_are_used_only_in_tests(tmp_path, source):
    content = tiny.write_coco(tmp_path)
    tiny.write_detections(tmp_path / "boxes.json", content)
    test = {"USE_GT_BBOX": False, "COCO_BBOX_FILE": str(tmp_path / "boxes.json"), "IMAGE_THRE": 0.6}
    cfg = load(tmp_path, TEST=test)
    tested = build_dataset(cfg, "val2017", is_train=False)
    assert len(tested) == 4 and tested[0]["box_score"] == pytest.approx(0.95)
    assert not tested[0]["visible"].any()
    assert len(build_dataset(cfg, "val2017", is_train=True)) == 6


def test_boxes_are_shifted_by_up_to_a_fifth_equally_in_every_epoch(source):
    share, table = 0.5, source.table
    moves = []
    for seed in range(40):
        data = dataset(source, replace(STILL, shift_probability=share), seed)
        for row in range(len(data)):
            first, later = data[0, row]["center"].numpy(), data[7, row]["center"].numpy()
            assert (first == later).all()
            moves.append((first - table.center[row]) / table.size[row])
    moves = np.array(moves)
    is_moved = (np.abs(moves) > 1e-6).any(1)
    assert abs(is_moved.mean() - share) < 0.1
    assert 0.17 < np.abs(moves).max() <= 0.2 + 1e-4


def test_missing_figures_are_an_error_that_gives_the_command(tmp_path):
    cfg = load(tmp_path, DATASET={"DATASET": "figures", "ROOT": str(tmp_path / "none")})
    with pytest.raises(InputError, match=r"create it with: .*get_data\.py figures --root .*none"):
        build_dataset(cfg, "val", is_train=False)
