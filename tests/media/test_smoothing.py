"""The One Euro filter."""

import numpy as np
import pytest

from lib.media.smoothing import OneEuro

VISIBLE = np.ones(3, bool)


def follow(coords: np.ndarray, size: float = 200.0, rate: float = 25.0) -> np.ndarray:
    """Smooth keypoints (T, K, 2) frame by frame."""
    smooth = OneEuro(rate)
    return np.stack([smooth(point, size, VISIBLE) for point in coords])


def test_joints_at_rest_jitter_less():
    noisy = 100 + np.random.default_rng(0).normal(0, 2, (200, 3, 2))
    smoothed = follow(noisy)
    assert smoothed[50:].std() < 0.6 * noisy.std()
    assert abs(smoothed[50:].mean() - 100) < 0.3


@pytest.mark.parametrize("rate", [10.0, 25.0, 60.0])
def test_moving_joints_hardly_lag_at_any_frame_rate(rate):
    seconds = np.arange(int(3 * rate)) / rate
    coords = np.zeros((len(seconds), 3, 2)) + (seconds * 300)[:, None, None]
    lag = np.abs(coords - follow(coords, rate=rate))[int(rate) :].max()
    assert 0.1 < lag < 0.04 * 300  # at most the distance covered in 40 ms


def test_the_filter_follows_the_paper():
    smooth = OneEuro(10.0, min_cutoff=1.0, beta=2.0, speed_cutoff=1.0)
    smooth(np.zeros((1, 2)), 1.0, VISIBLE[:1])
    found = smooth(np.array([[3.0, 4.0]]), 10.0, VISIBLE[:1])
    # The speed is 5 / 10 sizes in 0.1 s, or 5 per second, before the first filter.
    share = 1 / (1 + 1 / (2 * np.pi * 1.0) / 0.1)
    cutoff = 1.0 + 2.0 * 5 * share
    alpha = 1 / (1 + 1 / (2 * np.pi * cutoff) / 0.1)
    np.testing.assert_allclose(found, alpha * np.array([[3.0, 4.0]]))


def test_smoothing_does_not_depend_on_the_scale():
    coords = np.random.default_rng(0).uniform(0, 100, (30, 3, 2)).cumsum(0)
    np.testing.assert_allclose(follow(coords * 7, size=1400), follow(coords, size=200) * 7)


def test_a_hidden_joint_resets_its_filter():
    smooth = OneEuro(25.0)
    first, far = np.zeros((3, 2)), np.full((3, 2), 500.0)
    smooth(first, 100.0, VISIBLE)
    hidden = np.array([True, False, True])
    np.testing.assert_array_equal(smooth(far, 100.0, hidden)[1], far[1])
    again = smooth(far + 3, 100.0, VISIBLE)
    np.testing.assert_array_equal(again[1], far[1] + 3)
    assert (again[0] < far[0] + 3).all()


def test_missed_frames_give_the_new_value_more_weight():
    moved = np.full((3, 2), 1.0)
    found = []
    for frames in (1, 5):
        smooth = OneEuro(25.0, beta=0.0)
        smooth(np.zeros((3, 2)), 100.0, VISIBLE)
        found.append(smooth(moved, 100.0, VISIBLE, frames)[0, 0])
    assert found[0] < found[1] < 1
