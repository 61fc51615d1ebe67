"""Crops, boxes and mirror images, compared with the published code and with warped images."""

import cv2
import numpy as np
import pytest
import torch

from lib.keypoints.geometry import (
    Crop,
    box_to_center_scale,
    half_body_box,
    mirror_joints,
    mirror_matrix,
    normalize,
    transform_points,
)
from lib.keypoints.skeletons import COCO, MPII
from tests.golden_arrays import golden

SKELETONS = {"coco": COCO, "mpii": MPII}
# The published code rounds its three source points to float32. Far from the origin this moves a
# crop by up to a hundredth of a pixel; this project does not round.
ROUNDED = 0.02


def test_boxes_give_the_published_centers_and_scales():
    _, arrays = golden("ops/box_to_center_scale")
    for width, height in ((192, 256), (288, 384), (256, 256), (256, 192)):
        center, scale = box_to_center_scale(arrays["box"], width / height)
        np.testing.assert_array_equal(center, arrays[f"center_{width}x{height}"])
        np.testing.assert_allclose(scale, arrays[f"scale_{width}x{height}"], rtol=2e-7)
        assert center.dtype == scale.dtype == np.float32


def test_crop_transforms_equal_the_published_ones():
    _, arrays = golden("ops/affine_transform")
    worst = 0.0
    for n in range(len(arrays["rot"])):
        box = (arrays["center"][n], arrays["scale"][n])
        size = tuple(int(side) for side in arrays["output_size"][n])
        crop = Crop(size)
        ours = crop.matrix(*box, arrays["rot"][n])
        moved = transform_points(arrays["points"][n], ours)
        worst = max(worst, np.abs(moved - arrays["points_forward"][n]).max())
        published = transform_points(arrays["points"][n], arrays["forward"][n])
        np.testing.assert_allclose(published, arrays["points_forward"][n], atol=1e-9)
        # The inverse of the published matrix undoes ours.
        back = transform_points(moved, arrays["inverse"][n])
        np.testing.assert_allclose(back, arrays["points"][n], atol=ROUNDED)
        points = torch.from_numpy(arrays["heatmap_points"][n][None])
        upright = crop.to_image(points, *(torch.from_numpy(value[None]) for value in box))
        expected = arrays["heatmap_points_back"][n]
        np.testing.assert_allclose(upright[0].numpy(), expected, rtol=1e-5, atol=ROUNDED)
    assert worst < ROUNDED


def test_the_udp_matrix_equals_the_published_one():
    _, arrays = golden("ops/udp_transform")
    for center, box, degrees, size, theirs in zip(
        *(arrays[name] for name in ("center", "scale", "rot", "output_size", "matrix")), strict=True
    ):
        ours = Crop(tuple(size), is_udp=True).matrix(center, box / 200, -degrees)
        corners = np.array([center - box, center, center + box])
        moved, published = transform_points(corners, ours), transform_points(corners, theirs)
        np.testing.assert_allclose(moved, published, atol=2e-3)


def test_the_mirror_image_of_a_udp_crop_is_the_crop_of_the_mirrored_image():
    center, scale, size = np.array([70.3, 60.8]), np.array([0.3, 0.4]), (97, 129)
    crop = Crop(size, is_udp=True)
    matrix = crop.matrix(center, scale)
    corners = transform_points(np.array([center - scale * 100, center + scale * 100]), matrix)
    np.testing.assert_allclose(corners, [[0, 0], [96, 128]], atol=1e-9)
    there = crop.matrix(np.array([159 - 70.3, 60.8]), scale)
    points = np.random.default_rng(0).uniform(0, 100, (5, 2))
    mirrored = transform_points(points * [-1, 1] + [159, 0], there)
    np.testing.assert_allclose(mirrored, [96, 0] + transform_points(points, matrix) * [-1, 1])


@pytest.mark.parametrize("is_udp", [False, True])
def test_to_image_inverts_the_crop_matrix(is_udp):
    rng = np.random.default_rng(0)
    center, scale = rng.uniform(50, 400, (6, 2)), rng.uniform(0.2, 3, (6, 2))
    points = rng.uniform(-50, 300, (6, 4, 2))
    crop = Crop((192, 256), is_udp)
    back = crop.to_image(*map(torch.from_numpy, (points, center, scale))).numpy()
    for n in range(6):
        matrix = crop.matrix(center[n], scale[n])
        np.testing.assert_allclose(transform_points(back[n], matrix), points[n], atol=1e-9)


@pytest.mark.parametrize("name", ["coco", "mpii"])
def test_half_bodies_equal_the_published_ones(name):
    meta, arrays = golden(f"ops/half_body_flip_{name}")
    skeleton = SKELETONS[name]
    assert list(skeleton.upper_body) == meta["upper_body_ids"]
    width, height = meta["image_size"]
    for kind, prefers_upper in (("upper", True), ("lower", False)):
        assert 0 < arrays[f"{kind}_valid"].sum() < len(arrays["joints"])
        for n, joints in enumerate(arrays["joints"]):
            box = half_body_box(
                joints[:, :2],
                arrays["joints_vis"][n, :, 0],
                skeleton.upper_body,
                prefers_upper,
                width / height,
            )
            assert (box is not None) == arrays[f"{kind}_valid"][n]
            if box is not None:
                np.testing.assert_allclose(box[0], arrays[f"{kind}_center"][n], rtol=1e-6)
                np.testing.assert_allclose(box[1], arrays[f"{kind}_scale"][n], rtol=1e-6)


@pytest.mark.parametrize("name", ["coco", "mpii"])
def test_mirrored_joints_equal_the_published_ones(name):
    meta, arrays = golden(f"ops/half_body_flip_{name}")
    pairs = SKELETONS[name].flip_pairs
    assert sorted(map(sorted, pairs)) == sorted(map(sorted, arrays["flip_pairs"].tolist()))
    for n, joints in enumerate(arrays["joints"]):
        flags = arrays["joints_vis"][n, :, 0]
        before = joints.copy()
        moved, visible = mirror_joints(joints[:, :2], flags, meta["flip_width"], pairs)
        np.testing.assert_array_equal(visible, arrays["flipped_vis"][n, :, 0])
        expected = arrays["flipped_joints"][n, :, :2]
        np.testing.assert_allclose(moved * visible[:, None], expected, atol=1e-12)
        np.testing.assert_array_equal(joints, before)


@pytest.mark.parametrize("rotation", [0.0, 25.0])
def test_the_mirror_matrix_gives_the_crop_of_the_mirrored_image(rotation):
    rng = np.random.default_rng(0)
    image = cv2.resize(rng.integers(0, 255, (9, 12, 3), np.uint8), (160, 120))
    matrix = Crop((96, 96)).matrix(np.array([70.0, 60.0]), np.array([0.4, 0.4]), rotation)
    direct = cv2.warpAffine(np.ascontiguousarray(image[:, ::-1]), matrix, (96, 96))
    ours = cv2.warpAffine(image, mirror_matrix(matrix, 160), (96, 96))
    assert np.abs(direct.astype(int) - ours).max() <= 2
    points = rng.uniform(0, 100, (5, 2))
    mirrored = points * [-1, 1] + [159, 0]
    np.testing.assert_allclose(
        transform_points(points, mirror_matrix(matrix, 160)), transform_points(mirrored, matrix)
    )


def test_a_box_without_area_still_gives_a_crop():
    matrix = Crop((64, 64)).matrix(np.array([10.0, 20.0]), np.zeros(2))
    assert np.isfinite(matrix).all()
    np.testing.assert_allclose(transform_points(np.array([10.0, 20.0]), matrix), [32, 32])


@pytest.mark.parametrize("is_rgb", [True, False])
def test_normalize_uses_imagenets_mean_and_deviation_of_each_channel(is_rgb):
    images = torch.arange(2 * 3 * 2 * 2, dtype=torch.uint8).view(2, 3, 2, 2) * 10
    ours = normalize(images, is_rgb)
    fed = images if is_rgb else images[:, [2, 1, 0]]
    for channel, (mean, std) in enumerate([(0.485, 0.229), (0.456, 0.224), (0.406, 0.225)]):
        expected = (fed[:, channel].double() / 255 - mean) / std
        torch.testing.assert_close(ours[:, channel].double(), expected, atol=1e-6, rtol=1e-6)
