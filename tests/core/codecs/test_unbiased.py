"""DARK and UDP: targets, decoding and the flip test."""

import numpy as np
import pytest
import torch

from lib.config import load_config
from lib.core.codecs import build_codec
from lib.core.codecs.dark import DarkCodec
from lib.core.codecs.udp import UdpCodec
from lib.keypoints.geometry import flip_permutation
from lib.keypoints.skeletons import COCO
from tests.golden_arrays import golden
from tests.tiny import experiment

SIZES = ["codec_heatmap_x256", "codec_heatmap_x384"]


@pytest.fixture
def made(tmp_path):
    """Return a function that builds a codec from a TARGET_TYPE and a golden file's settings."""

    def make(kind: str, meta: dict):
        model = {
            "TARGET_TYPE": kind,
            "IMAGE_SIZE": meta["input_size"],
            "HEATMAP_SIZE": meta["heatmap_size"],
            "SIGMA": meta["sigma"],
        }
        test = {"BLUR_KERNEL": meta["blur_kernel_size"], "POST_PROCESS": True}
        path = experiment(tmp_path / "e.yaml", tmp_path, MODEL=model, TEST=test)
        return build_codec(load_config(path), COCO)

    return make


@pytest.mark.parametrize("name", SIZES)
@pytest.mark.parametrize("kind", ["dark", "udp"])
def test_targets_and_decoding_match_the_published_code(made, kind, name):
    meta, arrays = golden(f"ops/{name}")
    codec = made(kind, meta)
    joints, visible = (torch.from_numpy(arrays[key]) for key in ("keypoints", "visible"))
    target = codec.encode(joints, visible)
    theirs = arrays[f"{kind}_heatmaps"]
    np.testing.assert_allclose(target.heatmaps[: len(theirs)].numpy(), theirs, atol=1e-6)
    np.testing.assert_array_equal(target.weight.numpy(), arrays[f"{kind}_weights"])
    keypoints, scores = codec.decode(target.heatmaps)
    np.testing.assert_allclose(scores.numpy(), arrays[f"{kind}_scores"], atol=1e-6)
    theirs = arrays[f"{kind}_decoded"].copy()
    if kind == "udp":  # mmpose decodes with the size W, but encodes with W - 1
        size = np.array(meta["input_size"])
        theirs *= (size - 1) / size
    is_there = arrays[f"{kind}_scores"] > 0
    assert is_there.sum() > 50
    np.testing.assert_allclose(keypoints.numpy()[is_there], theirs[is_there], atol=5e-3)
    assert not keypoints[torch.from_numpy(~is_there)].any()


@pytest.mark.parametrize(("kind", "bound"), [("dark", 0.05), ("udp", 0.02)])
def test_decoding_has_sub_pixel_accuracy(made, kind, bound):
    meta, _ = golden("ops/codec_heatmap_x256")
    codec = made(kind, meta)
    joints = torch.rand(4, 17, 2, generator=torch.Generator().manual_seed(0)) * 100 + 40
    keypoints, _ = codec.decode(codec.encode(joints, torch.ones(4, 17)).heatmaps)
    assert (keypoints - joints).norm(dim=-1).max() < bound


def test_mirrored_udp_heatmaps_align_without_a_shift():
    codec = UdpCodec((192, 256), (48, 64), 2.0, COCO.flip_pairs)
    joints = torch.rand(2, 17, 2, generator=torch.Generator().manual_seed(1)) * 150 + 20
    mirrored = joints[:, flip_permutation(17, COCO.flip_pairs)].clone()
    mirrored[..., 0] = 191 - mirrored[..., 0]
    there, back = (
        codec.encode(points, torch.ones(2, 17)).heatmaps for points in (joints, mirrored)
    )
    # Gaussians are truncated around rounded pixels, at values of up to 0.012.
    is_inside = (joints[..., 0] < 160) & (joints[..., 0] > 30)
    difference = (codec.flip(back) - there).abs().amax((2, 3))
    assert difference[is_inside].max() < 0.012


def test_an_invisible_joint_has_an_empty_heatmap():
    for kind in (DarkCodec, UdpCodec):
        target = kind((192, 256), (48, 64), 2.0, ()).encode(
            torch.tensor([[[50.0, 50.0], [50.0, 50.0]]]), torch.tensor([[1.0, 0.0]])
        )
        assert target.heatmaps[0, 0].max() > 0.9 and not target.heatmaps[0, 1].any()
        assert target.weight.tolist() == [[1.0, 0.0]]
