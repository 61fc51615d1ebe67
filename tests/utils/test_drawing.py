"""Drawing of skeletons, image grids and curves."""

import warnings

import cv2
import numpy as np
import pytest

from lib.keypoints.skeletons import COCO, SKELETONS
from lib.utils.drawing import (
    LEFT_COLOR,
    MIDDLE_COLOR,
    RIGHT_COLOR,
    draw_box,
    draw_person,
    heatmap_rows,
    image_grid,
    mosaic,
    side_colors,
    track_color,
    write_curves,
    write_image,
)
from lib.utils.errors import InputError


@pytest.mark.parametrize("name", SKELETONS)
def test_left_right_and_middle_joints_have_their_colors(name):
    skeleton = SKELETONS[name]
    colors = side_colors(len(skeleton), skeleton.flip_pairs)
    for joint, color in zip(skeleton.names, colors, strict=True):
        side = {"left": LEFT_COLOR, "right": RIGHT_COLOR}.get(joint.split("_")[0], MIDDLE_COLOR)
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


def test_visible_joints_and_the_limbs_between_them_are_drawn():
    places = np.zeros((17, 2))
    places[[5, 7, 9]] = (20, 20), (60, 20), (60, 60)
    shown = np.zeros(17)
    shown[[5, 7]] = 1
    image = np.zeros((80, 80, 3), np.uint8)
    draw_person(image, places, shown, COCO.limbs, COCO.flip_pairs)
    assert image[20, 20].tolist() == list(LEFT_COLOR)
    np.testing.assert_allclose(image[20, 40], np.multiply(LEFT_COLOR, 0.9), atol=30)
    assert not image[40, 60].any() and not image[60, 60].any() and not image[0, 0].any()


def test_nobody_and_joints_far_outside_can_be_drawn():
    image = np.zeros((20, 20, 3), np.uint8)
    draw_person(image, np.zeros((17, 2)), np.zeros(17), COCO.limbs, COCO.flip_pairs)
    assert not image.any()
    far = np.full((17, 2), 1e12)
    far[0] = -1e12
    draw_person(image, far, np.ones(17), COCO.limbs, COCO.flip_pairs)


def test_a_grid_has_the_given_number_of_columns():
    images = [np.full((4, 6, 3), n, np.uint8) for n in range(5)]
    page = image_grid(images, columns=3)
    assert page.shape == (2 * 6 + 2, 3 * 8 + 2, 3)
    assert page[2, 2, 0] == 0 and page[2, 10, 0] == 1 and page[8, 10, 0] == 4
    assert page[8, 18, 0] == 255 and page[0, 0, 0] == 255


def test_high_values_of_heatmaps_are_red():
    images = np.zeros((2, 32, 24, 3), np.uint8)
    heatmaps = np.zeros((2, 3, 8, 6))
    heatmaps[1, 2, 5, 4] = 1
    rows = heatmap_rows(images, heatmaps)
    assert rows.shape == (16, 4 * 6, 3)
    red, _, blue = rows[8 + 5, 3 * 6 + 4].astype(int)
    assert red > blue
    red, _, blue = rows[8 + 5, 2 * 6 + 4].astype(int)
    assert blue > red


def test_a_mosaic_scales_images_to_fill_rows():
    widths, colors = (40, 60, 90, 20, 30), (10, 60, 110, 160, 210)
    images = [np.full((30, w, 3), c, np.uint8) for w, c in zip(widths, colors, strict=True)]
    page = mosaic(images, width=120)
    # The first three fill a row, scaled by 112 / 190; the last two keep their size.
    assert page.shape == (2 + 18 + 2 + 30 + 2, 120, 3)
    first = [255] * 2 + [10] * 24 + [255] * 2 + [60] * 35 + [255] * 2 + [110] * 53 + [255] * 2
    assert page[10, :, 0].tolist() == first
    assert page[40, :, 0].tolist() == [255] * 2 + [160] * 20 + [255] * 2 + [210] * 30 + [255] * 66
    assert mosaic(images[:1], width=120).shape == (34, 44, 3)


def test_a_mosaic_accepts_extreme_shapes():
    images = [np.zeros((30, width, 3), np.uint8) for width in (5000, 1, 1, 5000)]
    assert mosaic(images, width=120).shape[1] == 120


def test_an_rgb_image_is_written(tmp_path):
    image = np.zeros((4, 4, 3), np.uint8)
    image[..., 0] = 255
    write_image(tmp_path / "x" / "a.png", image)
    assert cv2.imread(str(tmp_path / "x" / "a.png"))[0, 0].tolist() == [0, 0, 255]


def test_an_unknown_image_format_is_an_error(tmp_path):
    with pytest.raises(InputError, match=r"a\.abc"):
        write_image(tmp_path / "a.abc", np.zeros((4, 4, 3), np.uint8))
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
    with warnings.catch_warnings(record=True) as caught:
        write_curves(tmp_path / "curves.png", history)
    assert not [str(w.message) for w in caught if w.category is UserWarning]  # about a bad layout
    assert cv2.imread(str(tmp_path / "curves.png")).std() > 1


def standing(height: float, top: float = 10) -> np.ndarray:
    """Joints (17, 2) of a person of the given height, seen from the front."""
    rows = np.array(
        [0, 0, 0, 0.02, 0.02, 0.2, 0.2, 0.35, 0.35, 0.5, 0.5, 0.5, 0.5, 0.75, 0.75, 1, 1]
    )
    columns = np.where(np.arange(17) % 2, 0.12, -0.12)
    columns[0] = 0
    return np.column_stack([columns * height + height * 0.3, rows * height + top])


def thickness(image: np.ndarray, row: int, color) -> int:
    """Count the pixels of a row that have about the given color."""
    return int((np.abs(image[row].astype(int) - color).max(1) < 60).sum())


def test_line_widths_depend_on_person_and_image():
    widths = []
    for size, height in ((200, 60), (700, 600), (4000, 3000)):
        image = np.zeros((size, size, 3), np.uint8)
        draw_person(image, standing(height), np.ones(17), COCO.limbs, COCO.flip_pairs)
        widths.append(thickness(image, int(10 + 0.87 * height), LEFT_COLOR))
    assert widths[0] in (1, 2) and widths[1] in range(4, 9) and widths[2] in range(15, 30)
    # The same person in a larger image, displayed at the same size.
    small = np.zeros((4000, 4000, 3), np.uint8)
    draw_person(small, standing(300), np.ones(17), COCO.limbs, COCO.flip_pairs)
    assert thickness(small, int(10 + 0.87 * 300), LEFT_COLOR) in (4, 5)


def test_limbs_have_the_color_of_their_side():
    image = np.zeros((700, 700, 3), np.uint8)
    draw_person(image, standing(600), np.ones(17), SKELETONS["coco"].limbs, COCO.flip_pairs)
    hips = standing(600)[[11, 12]]
    x, y = hips.mean(0).round().astype(int)
    assert image[y, x].tolist() == list(MIDDLE_COLOR)
    one = np.full((17, 2), np.nan)
    one[[0, 1]] = (20, 20), (80, 20)
    image = np.zeros((40, 120, 3), np.uint8)
    draw_person(image, one, np.ones(17), COCO.limbs, COCO.flip_pairs)
    np.testing.assert_allclose(image[20, 50], LEFT_COLOR, atol=40)


def test_scores_are_only_written_next_to_large_people():
    for height, is_written in ((60, False), (400, True)):
        plain = np.zeros((500, 500, 3), np.uint8)
        scored = plain.copy()
        draw_person(plain, standing(height), np.ones(17), COCO.limbs, COCO.flip_pairs)
        places, scores = standing(height), np.full(17, 0.25)
        draw_person(scored, places, np.ones(17), COCO.limbs, COCO.flip_pairs, scores)
        assert (plain != scored).any() == is_written


@pytest.mark.parametrize("y", [0, 40])
def test_a_label_is_above_its_box_if_there_is_room(y):
    image = np.zeros((100, 200, 3), np.uint8)
    draw_box(image, (10.0, y, 60.0, 50.0), "12", (255, 0, 0))
    is_red = (image == (255, 0, 0)).all(2)
    assert is_red[y, 10:71].all() and is_red[y + 50, 10:71].all() and not is_red[60, 40]
    above, inside = is_red[:y, 10:40].sum(), is_red[y + 2 : y + 12, 12:40].sum()
    assert (above > 50) == (y == 40) and (inside > 50) == (y == 0)
    draw_box(image, (-1e9, -1e9, 1e10, 1e10), "1")


def test_track_colors_differ():
    colors = np.array([track_color(n) for n in range(1, 25)])
    assert (np.abs(np.diff(colors, axis=0)).max(1) > 60).all()
    distances = np.abs(colors[:, None] - colors).max(2)
    assert (distances[~np.eye(24, dtype=bool)] > 40).all()
