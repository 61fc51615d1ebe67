"""TransPose-R and TransPose-H against outputs of the published code."""

import numpy as np
import pytest
import torch

from lib.models import build_model
from lib.models.transpose import sine_positions
from lib.utils.errors import InputError
from tests.golden_arrays import golden
from tests.golden_files import golden_model
from tests.models.configs import tiny, with_head
from tests.models.test_heads import build_with_weights


def test_transpose_r_matches_the_published_network():
    expected = golden_model("transpose_r_a4")
    network = build_with_weights(expected, with_head("transpose_r"))
    with torch.inference_mode():
        layer1, encoded = network.features(expected.image)
        outputs = [network(expected.image), encoded[:, ::4], layer1[:, ::8]]
    assert max(expected.errors(outputs)) < 1e-4
    assert sum(p.numel() for p in network.parameters()) == expected.meta["params"]


def test_transpose_h_matches_the_published_network():
    expected = golden_model("transpose_h_s")
    network = build_with_weights(expected, with_head("transpose_h"))
    with torch.inference_mode():
        errors = expected.errors([network(expected.image)])
    # Limit: the difference between the published code in float32 and in float64.
    assert errors[0] < 2 * expected.meta["float32_noise"][0] < 1e-3
    assert sum(p.numel() for p in network.parameters()) == expected.meta["params"]


def test_sine_positions_match_the_published_ones_and_are_not_trained():
    _, arrays = golden("ops/sine_position_embedding")
    name = next(iter(arrays))
    ours = sine_positions(32, 24, 256).numpy()
    theirs = arrays[name].reshape(-1, 1, 256)
    np.testing.assert_allclose(ours[::7], theirs, atol=2e-6)
    network = build_model(tiny("transpose_r", "heatmap"))
    assert not network.pos_embedding.requires_grad


@pytest.mark.parametrize("kind", ["learnable", "none"])
def test_positions_can_be_learned_or_omitted(kind):
    cfg = tiny("transpose_h", "heatmap")
    cfg.MODEL.EXTRA.POS_EMBEDDING = kind
    network = build_model(cfg)
    assert ("pos_embedding" in network.state_dict()) == (kind == "learnable")
    assert network(torch.zeros(1, 3, 96, 64)).shape == (1, 5, 24, 16)


def test_an_image_size_that_the_stride_does_not_divide_is_refused():
    cfg = tiny("transpose_r", "heatmap")
    cfg.MODEL.IMAGE_SIZE = [60, 96]
    with pytest.raises(InputError, match="IMAGE_SIZE must be multiples of 16 for transpose_r"):
        build_model(cfg)
