"""DARK and UDP refinement give the published code's numbers."""

import cv2
import numpy as np
import pytest
import torch

from lib.config import load_config
from lib.core.codecs.refinement import (
    _blur,
    blur_kernel,
    build_refinement,
    dark_step,
    quarter_step,
    udp_step,
)
from lib.utils.errors import InputError
from tests.golden_arrays import golden
from tests.tiny import experiment


@pytest.mark.parametrize("name", ["dark_sigma2", "dark_sigma3"])
def test_every_refinement_matches_the_published_code(name):
    meta, arrays = golden(f"ops/{name}")
    kernel = meta["blur_kernel_size"]
    maps, coords, scores = (
        torch.from_numpy(arrays[key])[None] for key in ("heatmaps", "maximum", "score")
    )
    blurred, gain = _blur(maps, scores, kernel)
    ours = (blurred * gain[..., None, None])[0, :4].numpy()
    np.testing.assert_allclose(ours, arrays["blurred"], atol=1e-6)
    x, y = arrays["maximum"].T
    is_inside = (x > 1) & (x < maps.shape[3] - 1) & (y > 1) & (y < maps.shape[2] - 1)
    ours = quarter_step(maps, coords)[0].numpy()  # as in HRNet, maxima at the border do not move
    np.testing.assert_array_equal(ours[is_inside], arrays["quarter"][is_inside])
    steps = {
        "dark": dark_step(maps, coords, scores, kernel),
        "dark_udp": udp_step(maps, coords, scores, kernel),
    }
    for key, ours in steps.items():
        np.testing.assert_allclose(ours[0].numpy(), arrays[key], atol=2e-3, err_msg=key)
    assert not np.allclose(arrays["dark"], arrays["quarter"], atol=0.05)


def test_the_blur_matches_opencv_with_zero_padding():
    image = np.random.default_rng(0).random((20, 14), np.float32)
    padded = np.pad(image, 9)
    theirs = cv2.GaussianBlur(padded, (9, 9), 0)[9:-9, 9:-9]
    ours, _ = _blur(torch.from_numpy(image)[None, None], torch.ones(1, 1), 9)
    np.testing.assert_allclose(ours[0, 0].numpy(), theirs, atol=1e-6)


@pytest.mark.parametrize("step", [dark_step, udp_step])
def test_maxima_of_a_tiny_empty_heatmap_do_not_move(step):
    maps = torch.zeros(1, 2, 3, 4)
    ours = step(maps, torch.zeros(1, 2, 2), torch.zeros(1, 2), 11)
    assert torch.equal(ours, torch.zeros(1, 2, 2))


@pytest.mark.parametrize("step", [dark_step, udp_step])
def test_negative_heatmaps_give_finite_coordinates(step):
    maps = -5 - torch.rand(1, 2, 16, 12, generator=torch.Generator().manual_seed(0))
    coords = torch.tensor([[[5.0, 5.0], [0.0, 0.0]]])
    assert step(maps, coords, maps.flatten(2).amax(2), 11).isfinite().all()


def test_kernel_sizes_match_the_papers():
    assert [blur_kernel(sigma) for sigma in (2, 3, 1.25, 0.1)] == [11, 17, 5, 3]


def test_settings_select_the_refinement_and_invalid_ones_are_refused(tmp_path):
    def refine(**test):
        path = experiment(tmp_path / "e.yaml", tmp_path, MODEL={"SIGMA": 2}, TEST=test)
        return build_refinement(load_config(path), "dark")

    assert refine(POST_PROCESS=False) is None
    assert refine(POST_PROCESS=True, REFINE="quarter") is quarter_step
    ours = refine(POST_PROCESS=True)
    assert (ours.func, ours.keywords) == (dark_step, {"kernel": 11})
    ours = refine(POST_PROCESS=True, REFINE="udp", BLUR_KERNEL=7)
    assert (ours.func, ours.keywords) == (udp_step, {"kernel": 7})
    with pytest.raises(InputError, match=r"REFINE: unknown method 'newton'.*quarter, dark, udp"):
        refine(REFINE="newton")
    with pytest.raises(InputError, match=r"TEST.BLUR_KERNEL: must be an odd"):
        refine(POST_PROCESS=True, BLUR_KERNEL=4)
