"""Targets and losses of scenes give the published code's numbers, and so do merged outputs."""

import numpy as np
import pytest
import torch
from torch.nn import functional

from lib.core.codecs import tags
from lib.core.codecs.grouping import Grouping, joint_order
from lib.core.codecs.tags import SceneTarget, TagCodec, masked_mse, tag_losses
from lib.keypoints.geometry import flip_permutation
from lib.keypoints.skeletons import COCO
from tests.golden_arrays import golden


def codec(*sizes, sigma=2.0, **options) -> TagCodec:
    grouping = Grouping(joint_order(COCO.names))
    return TagCodec(sizes, sigma, COCO.flip_pairs, grouping, **options)


@pytest.mark.parametrize(("sigma", "name"), [(2, "heatmap_sigma2"), (1, "heatmap_sigma_auto")])
def test_heatmaps_match_the_published_code(sigma, name):
    _, arrays = golden("ops/bottom_up_target")
    joints = torch.from_numpy(arrays["joints"]).float()
    [target] = codec((64, 64), sigma=sigma).encode(
        joints[None, None, :, :, :2], joints[None, :, :, 2], [torch.ones(1, 64, 64)]
    )
    np.testing.assert_allclose(target.heatmaps[0], arrays[name], atol=1e-6)


def test_the_gpu_code_path_gives_the_same_heatmaps(monkeypatch):
    joints = torch.from_numpy(golden("ops/bottom_up_target")[1]["joints"]).float()[None]
    xy, is_visible = joints[..., :2], joints[..., 2] > 0
    expected = tags.scene_heatmaps(xy, is_visible, (64, 64), 2.0)
    assert not is_visible.all() and expected.any()
    monkeypatch.setattr(tags, "joint_indices", tags.all_indices)
    torch.testing.assert_close(tags.scene_heatmaps(xy, is_visible, (64, 64), 2.0), expected)


def test_the_tagged_pixels_match_the_published_code():
    _, arrays = golden("ops/bottom_up_target")
    joints = torch.from_numpy(arrays["joints"]).float()
    [target] = codec((64, 64)).encode(
        joints[None, None, :, :, :2], joints[None, :, :, 2], [torch.ones(1, 64, 64)]
    )
    for person, published in enumerate(arrays["joints_per_joint"][: len(joints)]):
        x, y = target.joints[0, person].trunc().long().unbind(-1)
        index = torch.arange(17) * 64 * 64 + y * 64 + x
        ours = index[target.visible[0, person] > 0].tolist()
        assert sorted(ours) == sorted(published[published[:, 1] > 0, 0].tolist())


@pytest.mark.parametrize("form", ["exp", "max"])
def test_losses_and_gradients_match_the_published_code(form):
    _, arrays = golden("ops/associative_loss")
    maps = torch.from_numpy(arrays["tags"]).requires_grad_()
    heatmaps, heatmap, mask = (
        torch.from_numpy(arrays[name]) for name in ("heatmaps", "target", "mask")
    )
    target = scene_target(arrays["joints"], maps.shape)
    push, pull = tag_losses(maps, target, is_hinge=form == "max")
    np.testing.assert_allclose(push.detach(), arrays[f"push_{form}"], rtol=1e-5, atol=1e-7)
    np.testing.assert_allclose(pull.detach(), arrays[f"pull_{form}"], rtol=1e-5)
    (push.sum() + pull.sum()).backward()
    assert float(maps.grad.norm()) == pytest.approx(float(arrays[f"grad_norm_{form}"]), rel=1e-5)
    loss = masked_mse(heatmaps, heatmap, mask)
    np.testing.assert_allclose(loss, arrays["heatmap_loss"], rtol=1e-5)


def scene_target(index: np.ndarray, shape: tuple[int, ...]) -> SceneTarget:
    """Convert the published lists of tagged pixels (N, P, K, 2)."""
    images, _, height, width = shape
    joints = torch.zeros(images, index.shape[1], 17, 2)
    visible = torch.zeros(images, index.shape[1], 17)
    for image, person, entry in np.argwhere(index[..., 1] > 0):
        joint, pixel = divmod(int(index[image, person, entry, 0]), height * width)
        joints[image, person, joint] = torch.tensor([pixel % width, pixel // width]).float()
        visible[image, person, joint] = 1
    return SceneTarget(torch.zeros(()), torch.zeros(()), joints, visible)


def test_the_loss_is_the_sum_over_outputs():
    ours = codec((8, 8), (16, 16), sigma=1.0)
    generator = torch.Generator().manual_seed(0)
    joints = 8 * torch.rand(2, 1, 3, 17, 2, generator=generator)
    joints = torch.cat([joints, 2 * joints], dim=1)
    masks = [torch.ones(2, 8, 8), torch.ones(2, 16, 16)]
    targets = ours.encode(joints, torch.ones(2, 3, 17), masks)
    outputs = [torch.rand(2, 34, 8, 8, generator=generator), torch.rand(2, 17, 16, 16)]
    push, pull = tag_losses(outputs[0][:, 17:], targets[0])
    expected = 0.001 * (push.mean() + pull.mean())
    for output, target in zip(outputs, targets, strict=True):
        expected += functional.mse_loss(output[:, :17], target.heatmaps)
    assert ours.loss(outputs, targets) == pytest.approx(float(expected))


def test_people_beyond_the_limit_have_heatmaps_but_no_tags():
    ours = codec((32, 32), max_tagged=1)
    joints = torch.full((1, 1, 2, 17, 2), 8.0)
    joints[:, :, 1] = 24.0
    [target] = ours.encode(joints, torch.ones(1, 2, 17), [torch.ones(1, 32, 32)])
    assert target.heatmaps[0, :, 24, 24].tolist() == [1.0] * 17
    outputs = torch.zeros(1, 34, 32, 32, requires_grad=True)
    outputs.data[:, 17:, 24, 24] = torch.arange(17.0)
    ours.loss(outputs, [target]).backward()
    assert not outputs.grad[:, 17:].any()


def test_mirrored_outputs_are_flipped_back():
    ours = codec((4, 4), (8, 8))
    outputs = (torch.rand(1, 34, 4, 4), torch.rand(1, 17, 8, 8))
    mirrored = tuple(output.flip(3) for output in outputs)
    heatmaps, tags = ours.average(outputs, ours.flip(mirrored))
    order = flip_permutation(17, COCO.flip_pairs)
    resized = functional.interpolate(outputs[0], size=(8, 8), mode="bilinear")
    own = (resized[:, :17] + outputs[1]) / 2
    torch.testing.assert_close(heatmaps, (own + own[:, order]) / 2)
    torch.testing.assert_close(tags[..., 0], resized[:, 17:])
    torch.testing.assert_close(tags[..., 1], resized[:, 17:][:, order])
