"""Heatmaps of the size of the crop, and their pooled targets."""

import pytest
import torch

from lib.config import load_config
from lib.core.codecs import build_codec
from lib.core.codecs.full import FullCodec
from lib.core.codecs.refinement import quarter_step
from lib.keypoints.skeletons import COCO
from lib.utils.errors import InputError
from tests.tiny import experiment

SIZE = (48, 64)


def codec(**options) -> FullCodec:
    return FullCodec(SIZE, SIZE, 4.0, COCO.flip_pairs, **options)


@pytest.fixture
def target():
    joints = torch.rand(2, 17, 2, generator=torch.Generator().manual_seed(0)) * 40 + 4
    visible = torch.ones(2, 17)
    visible[1, 3] = 0
    return codec().encode(joints, visible)


def test_outputs_are_compared_with_the_pooled_target(target):
    coarse, middle, fine = (torch.rand(2, 17, *size) for size in ((2, 3), (16, 12), (64, 48)))
    weight = target.weight[..., None, None]

    def squared(output, pooled):
        return ((output - pooled) * weight).square().mean()

    blocks = target.heatmaps.unflatten(2, (16, 4)).unflatten(4, (12, 4)).mean((3, 5))
    corner = target.heatmaps[0, 0, :32, :16].mean()
    expected = squared(middle, blocks) + squared(fine, target.heatmaps)
    pooled = torch.nn.functional.adaptive_avg_pool2d(target.heatmaps, (2, 3))
    assert pooled[0, 0, 0, 0] == pytest.approx(corner.item(), abs=1e-6)
    loss = codec().loss([coarse, middle, fine], target)
    torch.testing.assert_close(loss, expected + 1e-4 * squared(coarse, pooled))
    torch.testing.assert_close(codec().loss(fine, target), squared(fine, target.heatmaps))


def test_decoding_without_refinement_is_exact_to_half_a_pixel(target):
    joints = torch.rand(2, 17, 2, generator=torch.Generator().manual_seed(1)) * 40 + 4
    target = codec().encode(joints, torch.ones(2, 17))
    keypoints, scores = codec(refine=None).decode(target.heatmaps)
    assert (keypoints - joints).abs().max() <= 0.5 and (scores == 1).all()


def test_the_flip_test_shifts_by_one_column():
    maps = torch.rand(1, 17, 64, 48)
    ours = codec(shift=True).flip(maps)
    mirrored = codec(shift=False).flip(maps)
    assert torch.equal(ours[..., 1:], mirrored[..., :-1])
    assert torch.equal(ours[..., 0], mirrored[..., 0])


def test_settings(tmp_path):
    def made(**model):
        model = {"HEAD": "srpose", "TARGET_TYPE": "full", "SIGMA": 4, **model}
        path = experiment(tmp_path / "e.yaml", tmp_path, MODEL=model, TEST={"POST_PROCESS": True})
        return build_codec(load_config(path), COCO)

    assert made(HEATMAP_SIZE=[64, 64]).refine is quarter_step
    with pytest.raises(InputError, match=r"HEATMAP_SIZE: must equal MODEL.IMAGE_SIZE, \[64, 64\]"):
        made()
    with pytest.raises(InputError, match=r"TARGET_TYPE: must be full for MODEL.HEAD srpose"):
        made(TARGET_TYPE="udp")
