"""Pictures for people."""

import warnings

import cv2
import numpy as np
import pytest

from lib.dataset.skeletons import COCO, SKELETONS
from lib.utils.drawing import (
    LEFT,
    MIDDLE,
    RIGHT,
    draw_person,
    heatmap_rows,
    sheet,
    side_colors,
    write_curves,
    write_picture,
)
from lib.utils.errors import InputError


@pytest.mark.parametrize("name", SKELETONS)
def test_left_right_and_middle_have_their_colours_in_every_skeleton(name):
    skeleton = SKELETONS[name]
    colors = side_colors(len(skeleton), skeleton.flip_pairs)
    for joint, color in zip(skeleton.names, colors, strict=True):
        side = {"left": LEFT, "right": RIGHT}.get(joint.split("_")[0], MIDDLE)
        assert color == side, joint


@pytest.mark.parametrize("name", SKELETONS)
def test_skeletons_are_consistent(name):
    skeleton = SKELETONS[name]
    count = len(skeleton)
    assert len(skeleton.sigmas) == len(skeleton.joint_weights) == count
    for a, b in skeleton.flip_pairs:
        assert {skeleton.names[a].split("_")[0], skeleton.names[b].split("_")[0]} == {
            "left",
            "right",
        }
        assert skeleton.names[a].split("_")[1] == skeleton.names[b].split("_")[1]
    mirror = {a: b for pair in skeleton.flip_pairs for a, b in (pair, pair[::-1])}
    limbs = {frozenset(limb) for limb in skeleton.limbs}
    assert {frozenset(mirror.get(j, j) for j in limb) for limb in limbs} == limbs
    assert {mirror.get(j, j) for j in skeleton.upper_body} == set(skeleton.upper_body)
    assert all(j in range(count) for limb in skeleton.limbs for j in limb)


def test_shown_joints_and_the_limbs_between_them_are_drawn():
    places = np.zeros((17, 2))
    places[[5, 7, 9]] = (20, 20), (60, 20), (60, 60)
    shown = np.zeros(17)
    shown[[5, 7]] = 1
    image = np.zeros((80, 80, 3), np.uint8)
    draw_person(image, places, shown, COCO.limbs, COCO.flip_pairs)
    assert image[20, 20].tolist() == list(LEFT)
    np.testing.assert_allclose(image[20, 40], np.multiply(LEFT, 0.9), atol=30)
    assert not image[40, 60].any() and not image[60, 60].any() and not image[0, 0].any()


def test_nobody_and_places_far_outside_are_no_trouble():
    image = np.zeros((20, 20, 3), np.uint8)
    draw_person(image, np.zeros((17, 2)), np.zeros(17), COCO.limbs, COCO.flip_pairs)
    assert not image.any()
    far = np.full((17, 2), 1e12)
    far[0] = -1e12
    draw_person(image, far, np.ones(17), COCO.limbs, COCO.flip_pairs)


def test_a_sheet_has_rows_of_the_columns_asked_for():
    images = [np.full((4, 6, 3), n, np.uint8) for n in range(5)]
    page = sheet(images, columns=3, gap=1)
    assert page.shape == (2 * 5 + 1, 3 * 7 + 1, 3)
    assert page[1, 1, 0] == 0 and page[1, 8, 0] == 1 and page[6, 8, 0] == 4
    assert page[6, 15, 0] == 255 and page[0, 0, 0] == 255


def test_heatmaps_lie_over_the_crop_red_where_they_are_high():
    images = np.zeros((2, 32, 24, 3), np.uint8)
    heatmaps = np.zeros((2, 3, 8, 6))
    heatmaps[1, 2, 5, 4] = 1
    rows = heatmap_rows(images, heatmaps)
    assert rows.shape == (16, 4 * 6, 3)
    red, _, blue = rows[8 + 5, 3 * 6 + 4].astype(int)
    assert red > blue
    red, _, blue = rows[8 + 5, 2 * 6 + 4].astype(int)
    assert blue > red


def test_a_picture_is_written_in_rgb_and_whole(tmp_path):
    image = np.zeros((4, 4, 3), np.uint8)
    image[..., 0] = 255
    write_picture(tmp_path / "x" / "a.png", image)
    assert cv2.imread(str(tmp_path / "x" / "a.png"))[0, 0].tolist() == [0, 0, 255]


def test_a_picture_of_an_unknown_kind_is_an_error(tmp_path):
    with pytest.raises(InputError, match=r"a\.abc"):
        write_picture(tmp_path / "a.abc", np.zeros((4, 4, 3), np.uint8))
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    "history",
    [
        [{"epoch": 0, "train_loss": 0.5, "train_acc": 0.1}],
        [
            {"epoch": 0, "train_loss": 0.5, "train_acc": 0.1, "valid_loss": 0.0, "AP": -1.0},
            {"epoch": 1, "train_loss": 0.0, "train_acc": 0.1},
        ],
        [{"epoch": 0, "train_loss": 0.5, "train_acc": 0.1, "Mean": 50.0, "valid_acc": 0.2}],
    ],
)
def test_curves_are_drawn_without_a_warning(tmp_path, history):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        write_curves(tmp_path / "curves.png", history)
    assert cv2.imread(str(tmp_path / "curves.png")).std() > 1
