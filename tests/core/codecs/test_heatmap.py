"""Heatmap targets, losses, flip test and decoding give the published code's numbers."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from lib.core.codecs import build_codec
from lib.core.codecs.heatmap import HeatmapCodec, Target, joints_mse, maxima
from lib.core.codecs.refinement import quarter_step
from lib.keypoints.geometry import Crop
from lib.keypoints.skeletons import COCO, MPII
from lib.utils.errors import InputError
from tests.golden_arrays import golden
from tests.tiny import experiment

TARGETS = ["coco_256x192", "coco_384x288", "mpii_256x256"]
PAIRS = {"coco": COCO.flip_pairs, "mpii": MPII.flip_pairs}


def codec(width: int, height: int, pairs=(), **options) -> HeatmapCodec:
    """Build a codec for heatmaps of that size, with the published stride of 4."""
    return HeatmapCodec((4 * width, 4 * height), (width, height), 2, pairs, **options)


def tensors(arrays: dict[str, np.ndarray], *names: str) -> list[torch.Tensor]:
    return [torch.from_numpy(arrays[name]) for name in names]


@pytest.mark.parametrize("name", TARGETS)
def test_targets_and_weights_match_the_published_code(name):
    meta, arrays = golden(f"ops/gaussian_target_{name}")
    skeleton = COCO if name.startswith("coco") else MPII
    weights = skeleton.joint_weights if meta["use_different_joints_weight"] else None
    ours = HeatmapCodec(
        meta["image_size"],
        meta["heatmap_size"],
        meta["sigma"],
        skeleton.flip_pairs,
        joint_weights=weights,
    ).encode(
        torch.from_numpy(arrays["joints"][..., :2]).float(),
        torch.from_numpy(arrays["joints_vis"][..., 0]).float(),
    )
    np.testing.assert_allclose(ours.heatmaps.numpy(), arrays["target"], atol=2e-7)
    np.testing.assert_array_equal(ours.weight.numpy(), arrays["target_weight"][..., 0])
    assert ours.heatmaps.dtype == torch.float32
    if weights:
        np.testing.assert_allclose(weights, arrays["joints_weight"][:, 0], rtol=1e-7)


def test_a_target_has_a_peak_of_1_ends_at_three_sigma_and_is_empty_for_invisible_joints():
    joints = torch.tensor([[[80.0, 120.0], [80.0, 120.0], [-400.0, 10.0]]])
    heatmaps, weight = codec(48, 64).encode(joints, torch.tensor([[1.0, 0.0, 1.0]]))
    assert heatmaps[0, 0, 30, 20] == 1 and heatmaps[0, 0].max() == 1
    assert heatmaps[0, 0, 30, 26] > 0 and heatmaps[0, 0, 30, 27] == 0
    assert not heatmaps[0, 1].any() and not heatmaps[0, 2].any()
    assert weight.tolist() == [[1.0, 0.0, 0.0]]


@pytest.mark.parametrize("name", ["coco", "mpii"])
def test_maxima_and_decoding_match_the_published_code(name):
    _, arrays = golden(f"ops/decode_{name}")
    heatmaps, center, scale = tensors(arrays, "heatmaps", "center", "scale")
    height, width = heatmaps.shape[2:]
    coords, scores = maxima(heatmaps)
    np.testing.assert_array_equal(coords.numpy(), arrays["max_preds"])
    np.testing.assert_array_equal(scores.numpy(), arrays["maxvals"][..., 0])
    for key, refine in (("final_preds_post", quarter_step), ("final_preds", None)):
        keypoints, scores = codec(width, height, refine=refine).decode(heatmaps)
        ours = Crop((4 * width, 4 * height)).to_image(keypoints, center, scale)
        np.testing.assert_allclose(ours.numpy(), arrays[key], atol=2e-4)
        np.testing.assert_array_equal(scores.numpy(), arrays["maxvals"][..., 0])


@pytest.mark.parametrize("name", ["coco", "mpii"])
def test_the_flip_test_matches_the_published_code(name):
    meta, arrays = golden(f"ops/decode_{name}")
    assert sorted(map(sorted, PAIRS[name])) == sorted(map(sorted, arrays["flip_pairs"].tolist()))
    heatmaps, flipped, center, scale = tensors(arrays, "heatmaps", "flipped", "center", "scale")
    height, width = heatmaps.shape[2:]
    joints = slice(None, None, meta["joint_stride"])
    plain = codec(width, height, PAIRS[name], shift=False).flip(flipped)
    np.testing.assert_array_equal(plain[:1, joints].numpy(), arrays["flip_back"])
    ours = codec(width, height, PAIRS[name])
    averaged = ours.average(heatmaps, ours.flip(flipped))
    np.testing.assert_array_equal(averaged[:1, joints].numpy(), arrays["averaged"])
    keypoints, scores = ours.decode(averaged)
    keypoints = Crop((4 * width, 4 * height)).to_image(keypoints, center, scale)
    np.testing.assert_allclose(keypoints.numpy(), arrays["final_preds_flip"], atol=2e-4)
    np.testing.assert_array_equal(scores.numpy(), arrays["maxvals_flip"][..., 0])


def test_losses_and_accuracy_match_the_published_code():
    _, arrays = golden("ops/loss_accuracy")
    output, target, weight = tensors(arrays, "output", "target", "target_weight")
    weight = weight[..., 0]
    output.requires_grad_()
    for name, topk in (("mse", None), ("ohkm4", 4), ("ohkm8", 8)):
        for kind, factor in (("weighted", weight), ("plain", None)):
            ours = joints_mse(output, target, factor, topk).item()
            assert ours == pytest.approx(float(arrays[f"{name}_{kind}"]), rel=1e-6), (name, kind)
    joints_mse(output, target, weight).backward()
    norm = output.grad.norm().item()
    assert norm == pytest.approx(float(arrays["mse_weighted_grad_norm"]), rel=1e-6)
    coords, _ = maxima(output.detach())
    np.testing.assert_array_equal(coords.numpy(), arrays["pred"])
    accuracy, joints = codec(24, 32).accuracy(output.detach(), Target(target, weight))
    assert accuracy.item() == pytest.approx(float(arrays["average"]), abs=1e-7)
    assert arrays["accuracy"][0] == arrays["average"]
    assert joints == (arrays["accuracy"][1:] >= 0).sum() == arrays["count"]


def test_the_accuracy_of_each_joint_matches_the_published_code():
    # The codec returns only the mean. For a single joint it is the value of that joint.
    _, arrays = golden("ops/loss_accuracy")
    output, target, weight = tensors(arrays, "output", "target", "target_weight")
    for joint, expected in enumerate(arrays["accuracy"][1:]):
        one = slice(joint, joint + 1)
        accuracy, joints = codec(24, 32).accuracy(
            output[:, one], Target(target[:, one], weight[:, one, 0])
        )
        assert (accuracy.item() if joints else -1) == pytest.approx(expected, abs=1e-7)


def test_decoded_targets_are_within_half_a_heatmap_pixel_of_the_joints():
    joints = torch.rand(5, 17, 2, generator=torch.Generator().manual_seed(0)) * 150 + 20
    ours = codec(48, 64, COCO.flip_pairs)
    keypoints, scores = ours.decode(ours.encode(joints, torch.ones(5, 17)).heatmaps)
    assert (scores == 1).all()
    assert (keypoints - joints).abs().max() <= 2.0


def test_flipping_back_mirrored_targets_restores_them():
    # Without the shift, column x of a heatmap becomes exactly column W - 1 - x.
    ours = codec(48, 64, COCO.flip_pairs, shift=False)
    rng = np.random.default_rng(0)
    keypoints = torch.from_numpy(rng.integers(8, 40, (2, 17, 2))).float()
    order = [0, 2, 1, 4, 3, 6, 5, 8, 7, 10, 9, 12, 11, 14, 13, 16, 15]
    mirrored = keypoints[:, order].clone()
    mirrored[..., 0] = 47 - mirrored[..., 0]
    visible = torch.ones(2, 17)
    there, back = (ours.encode(4 * p, visible).heatmaps for p in (keypoints, mirrored))
    torch.testing.assert_close(ours.flip(back), there)


def test_the_last_of_several_outputs_is_decoded_and_all_are_in_the_loss():
    ours = codec(12, 16, COCO.flip_pairs)
    joints = torch.full((1, 17, 2), 20.0)
    target = ours.encode(joints, torch.ones(1, 17))
    wrong = torch.zeros_like(target.heatmaps)
    outputs = [wrong, target.heatmaps]
    assert torch.equal(ours.decode(outputs)[0], torch.full((1, 17, 2), 20.0))
    assert ours.loss(outputs, target) == ours.loss(wrong, target) > 0
    assert ours.accuracy(outputs, target)[0] == 1


def load(tmp_path, **sections):
    from lib.config import load_config

    return load_config(experiment(tmp_path / "tiny.yaml", tmp_path, **sections))


def test_the_codec_follows_the_settings_of_loss_and_test(tmp_path):
    generator = torch.Generator().manual_seed(1)
    output = torch.rand(2, 17, 16, 16, generator=generator)
    visible = (torch.rand(2, 17, generator=generator) > 0.3).float()
    joints = torch.rand(2, 17, 2, generator=generator) * 64

    def loss(**keys) -> float:
        ours = build_codec(load(tmp_path, LOSS=keys), COCO)
        return ours.loss(output, ours.encode(joints, visible)).item()

    ours = build_codec(load(tmp_path), COCO)
    heatmaps, weight = ours.encode(joints, visible)
    assert loss() == pytest.approx(joints_mse(output, heatmaps, weight).item())
    plain = joints_mse(output, heatmaps, None).item()
    assert loss(USE_TARGET_WEIGHT=False) == pytest.approx(plain)
    hard = joints_mse(output, heatmaps, weight, topk=3).item()
    assert loss(USE_OHKM=True, TOPK=3) == pytest.approx(hard)
    differ = weight * torch.tensor(COCO.joint_weights)
    by_joint = joints_mse(output, heatmaps, differ).item()
    assert loss(USE_DIFFERENT_JOINTS_WEIGHT=True) == pytest.approx(by_joint)
    assert len({round(value, 7) for value in (loss(), plain, hard, by_joint)}) == 4
    off = build_codec(load(tmp_path, TEST={"POST_PROCESS": False, "SHIFT_HEATMAP": False}), COCO)
    assert (off.refine, off.shift, off.stride) == (None, False, (4, 4))
    assert (ours.refine, ours.shift) == (quarter_step, True)


@pytest.mark.parametrize(
    ("sections", "message"),
    [
        ({"MODEL": {"TARGET_TYPE": "gausian"}}, "MODEL.TARGET_TYPE: unknown target type 'gausian'"),
        ({"LOSS": {"USE_OHKM": True, "TOPK": 18}}, "LOSS.TOPK"),
        ({"LOSS": {"USE_OHKM": True, "TOPK": 0}}, "LOSS.TOPK"),
    ],
)
def test_an_invalid_setting_is_an_error_that_names_the_key(tmp_path, sections, message):
    with pytest.raises(InputError, match=message):
        build_codec(load(tmp_path, **sections), COCO)


def test_different_joint_weights_need_joint_weights(tmp_path):
    cfg = load(tmp_path, LOSS={"USE_DIFFERENT_JOINTS_WEIGHT": True})
    with pytest.raises(InputError, match=r"needs DATASET\.JOINT_WEIGHTS"):
        build_codec(cfg, replace(COCO, joint_weights=()))


def test_heatmaps_of_the_wrong_size_are_refused():
    ours = codec(12, 16, COCO.flip_pairs)
    target = ours.encode(torch.full((1, 17, 2), 20.0), torch.ones(1, 17))
    other = torch.zeros(1, 17, 32, 24)
    with pytest.raises(InputError, match=r"MODEL.HEATMAP_SIZE is \[12, 16\].*\[24, 32\]"):
        ours.loss(other, target)
    with pytest.raises(InputError, match=r"MODEL\.HEATMAP_SIZE"):
        ours.decode(other)
