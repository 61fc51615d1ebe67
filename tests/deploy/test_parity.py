"""Parity checks find wrong backends, and ignore joints with two almost equal maxima."""

import torch

from lib.core.backends import TorchBackend
from lib.deploy.parity import difference, drawn_crops, random_crops, real_crops
from tests.deploy.exports import small


def test_a_backend_that_moves_a_joint_is_noticed(tmp_path):
    made = small(tmp_path)
    crops = random_crops(made.cfg.MODEL.IMAGE_SIZE, 2)

    def moved(crops):
        keypoints, scores = made.backend(crops)
        return keypoints + torch.tensor([3.0, 4.0]), scores * 1.5

    found = difference(moved, made.backend, crops)
    assert found.joints == 34 and found.stable > 20
    assert abs(found.largest - 5) < 1e-4 and abs(found.mean - 5) < 1e-4
    assert abs(found.stable_largest - 5) < 1e-4
    assert abs(found.scores - 0.5) < 1e-4
    same = difference(made.backend, made.backend, crops)
    assert same.largest == same.scores == 0


def test_joints_with_two_equal_maxima_are_not_stable(tmp_path):
    made = small(tmp_path)
    heatmaps = torch.zeros(1, 17, 16, 16)
    heatmaps[:, :, 8, 8] = 1.0
    heatmaps[:, 3, 4, 4] = 1.0
    # A gradient along both axes makes the quarter-pixel step stable, too.
    heatmaps += 0.1 * torch.linspace(0, 1, 16) + 0.1 * torch.linspace(0, 1, 16)[:, None]
    heatmaps[:, 3, 4, 4] = heatmaps[:, 3, 8, 8]
    reference = TorchBackend(lambda images: heatmaps, made.codec)
    found = difference(reference, reference, random_crops(made.cfg.MODEL.IMAGE_SIZE, 1))
    assert (found.joints, found.stable) == (17, 16)


def test_without_a_test_set_people_are_drawn(tmp_path):
    made = small(tmp_path)
    crops, source = real_crops(made.cfg, 3)
    assert source == "synthetic people"
    assert crops.shape == (3, 3, 64, 64) and crops.dtype == torch.uint8
    assert torch.equal(crops, drawn_crops(made.cfg, 3))
    assert crops.float().std() > 10
