"""PCK and PCKh, compared with the published code."""

import numpy as np
import pytest
import torch

from lib.keypoints.metrics import pck, pckh
from tests.golden_arrays import golden


def test_pck_has_the_peculiarities_of_the_published_code():
    """On 48 x 64 heatmaps x is divided by a tenth of the height and y by a tenth of the width;
    ground truth with x or y of at most 1 is ignored."""

    def accuracy(ground_truth, found) -> tuple[float, int]:
        coords = [torch.tensor([[place]], dtype=torch.float32) for place in (found, ground_truth)]
        fraction, joints = pck(*coords, (48, 64))
        return fraction.item(), int(joints)

    assert accuracy((20, 20), (23, 20)) == (1, 1)
    assert accuracy((20, 20), (24, 20)) == (0, 1)
    assert accuracy((20, 20), (20, 22)) == (1, 1)
    assert accuracy((20, 20), (20, 23)) == (0, 1)
    assert accuracy((2, 2), (2, 2)) == (1, 1)
    assert accuracy((1, 20), (1, 20)) == accuracy((20, 1), (20, 1)) == (0, 0)


@pytest.mark.parametrize("name", ["newell", "tompson", "hg_s1", "hg_s2", "hg_s8"])
def test_pckh_equals_the_published_one(name):
    meta, arrays = golden("eval/mpii_subset")
    predicted = arrays[f"pred_{name}"].astype(np.float64)
    ground_truth = (arrays["gt"], arrays["missing"], arrays["head_size"])
    values = pckh(predicted, *ground_truth)
    assert list(values) == list(meta["expected"][name])
    for key, expected in meta["expected"][name].items():
        assert values[key] == pytest.approx(expected, abs=1e-10), key
    joints = arrays[f"joint_{name}"]
    assert [str(joint) for joint in meta["joints"]][9] == "head"
    assert values["Head"] == pytest.approx(joints[9], abs=1e-10)
    assert values["Wrist"] == pytest.approx((joints[10] + joints[15]) / 2, abs=1e-10)
    # Any threshold is equivalent to 0.5 with rescaled head sizes.
    for index in (5, 11, 30, 50):
        larger = (arrays["gt"], arrays["missing"], arrays["head_size"] * index / 50)
        mean = pckh(predicted, *larger)["Mean"]
        assert mean == pytest.approx(arrays[f"curve_{name}"][index], abs=0.05)


def test_predictions_count_up_to_half_a_head_size():
    ground_truth = np.zeros((1, 16, 2))
    missing = np.zeros((1, 16))
    for distance, expected in ((5.0, 100.0), (5.001, 0.0)):
        predicted = ground_truth + np.array([distance, 0])
        values = pckh(predicted, ground_truth, missing, np.array([10.0]))
        assert values["Mean"] == values["Head"] == expected


def test_the_mean_ignores_missing_joints_pelvis_and_thorax():
    ground_truth = np.zeros((2, 16, 2))
    predicted = ground_truth.copy()
    predicted[:, [0, 6, 7]] = 100  # right ankle, pelvis, thorax
    missing = np.zeros((2, 16))
    values = pckh(predicted, ground_truth, missing, np.ones(2))
    assert values["Mean"] == pytest.approx(100 * 13 / 14)
    missing[:, 0] = 1
    values = pckh(predicted, ground_truth, missing, np.ones(2))
    assert values["Mean"] == 100
    assert values["Ankle"] == 50  # as published, a joint never annotated counts as 0
