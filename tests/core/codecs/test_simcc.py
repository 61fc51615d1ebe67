"""SimCC targets, losses, flip test and decoding give the published code's numbers."""

import numpy as np
import pytest
import torch

from lib.config import load_config
from lib.core.codecs import build_codec
from lib.core.codecs.simcc import SimCCCodec
from lib.keypoints.geometry import Crop
from lib.keypoints.skeletons import COCO
from lib.utils.errors import InputError
from tests.golden_arrays import golden
from tests.tiny import experiment

META, ARRAYS = golden("ops/simcc_published")
SIZE = tuple(META["image_size"])


def codec(sigma: float | None = META["sigma"], **options) -> SimCCCodec:
    pair = None if sigma is None else (sigma, sigma)
    return SimCCCodec(SIZE, META["split_ratio"], pair, COCO.flip_pairs, **options)


def tensors(*names: str) -> list[torch.Tensor]:
    return [torch.from_numpy(ARRAYS[name]).float() for name in names]


def encoded(ours: SimCCCodec):
    joints, visible = tensors("joints", "joints_vis")
    return ours.encode(joints[..., :2], visible[..., 0])


def test_targets_and_weights_match_the_published_code():
    target = encoded(codec())
    for ours, name in zip(target, ("target_x", "target_y", "target_weight"), strict=True):
        theirs = ARRAYS[name].reshape(ours.shape)
        np.testing.assert_allclose(ours.numpy(), theirs, atol=1e-6, err_msg=name)
    target = encoded(codec(None))
    np.testing.assert_array_equal(target.weight.numpy(), ARRAYS["simdr_weight"][..., 0])
    counts = ARRAYS["simdr_weight"][..., 0] > 0
    bins = np.stack([target.x.argmax(2), target.y.argmax(2)], axis=-1)
    np.testing.assert_array_equal(bins[counts], ARRAYS["simdr_target"][counts])


def test_losses_match_the_published_code():
    logits = tensors("logits_x", "logits_y")
    values = {
        "kl": codec(),
        "nmt_0.1": codec(None),
        "nmtnorm_0.1": codec(None, mean_over_bins=True),
    }
    for name, ours in values.items():
        loss = ours.loss(logits, encoded(ours)).item()
        assert loss == pytest.approx(float(ARRAYS[name]), rel=2e-6), name


def test_one_hot_targets_without_smoothing_and_a_batch_of_one_work():
    ours = codec(None, smoothing=0.0)
    target = ours.encode(torch.full((1, 17, 2), 20.0), torch.ones(1, 17))
    logits = [torch.zeros(1, 17, bins) for bins in ours.bins]
    loss = ours.loss(logits, target).item()
    assert loss == pytest.approx(17 * (np.log(ours.bins[0]) + np.log(ours.bins[1])), rel=1e-5)


def test_decoding_and_the_flip_test_match_the_published_code():
    ours = codec()
    logits, flipped = tensors("logits_x", "logits_y"), tensors("flipped_x", "flipped_y")
    boxes = tensors("center", "scale")
    averaged = ours.average(logits, ours.flip(flipped))
    for outputs, end in ((logits, ""), (averaged, "_flip")):
        keypoints, scores = ours.decode(outputs)
        np.testing.assert_array_equal(keypoints.numpy(), ARRAYS[f"coords{end}"])
        np.testing.assert_allclose(scores.numpy(), ARRAYS[f"maxvals{end}"][..., 0], rtol=2e-5)
        image = Crop(SIZE).to_image(keypoints, *boxes).numpy()
        np.testing.assert_allclose(image, ARRAYS[f"preds{end}"], atol=2e-4)


def test_one_hot_codecs_average_probabilities():
    ours = codec(None)
    logits, flipped = tensors("logits_x", "logits_y"), tensors("flipped_x", "flipped_y")
    back = ours.flip(flipped)
    averaged = ours.average(logits, back)
    expected = (logits[0].softmax(2) + back[0].softmax(2)) / 2
    np.testing.assert_allclose(averaged[0].softmax(2).numpy(), expected.numpy(), atol=1e-7)


def test_probabilities_that_underflow_keep_the_loss_finite():
    ours = codec(None)
    target = ours.encode(torch.full((1, 17, 2), 20.0), torch.ones(1, 17))
    logits = [torch.zeros(1, 17, bins) for bins in ours.bins]
    logits[0][..., 7] = 300
    averaged = ours.average(logits, logits)
    assert ours.loss(averaged, target).item() == pytest.approx(ours.loss(logits, target).item())


def test_a_target_decodes_to_its_joint_with_full_accuracy():
    ours = codec()
    joints = torch.rand(3, 17, 2, generator=torch.Generator().manual_seed(0)) * 150 + 20
    target = ours.encode(joints, torch.ones(3, 17))
    logits = [axis.clamp(min=1e-12).log() for axis in target[:2]]
    keypoints, _ = ours.decode(logits)
    assert (keypoints - joints).abs().max() <= 0.5 / META["split_ratio"] + 1e-4
    accuracy, count = ours.accuracy(logits, target)
    assert accuracy == 1 and count == 17
    wrong = [axis.roll(200, dims=2) for axis in logits]
    assert ours.accuracy(wrong, target)[0] < 0.1
    maps = ours.maps(logits)
    assert maps.shape == target.heatmaps.shape == (3, 17, 64, 48)
    peak = maps.flatten(2).argmax(2)
    assert ((peak % 48 - joints[..., 0] / 4).abs() < 1.5).all()


def test_settings_reach_the_codec_and_invalid_ones_are_refused(tmp_path):
    def made(**sections):
        sections.setdefault("MODEL", {})
        sections["MODEL"] |= {"HEAD": "simcc", "SIGMA": 6}
        path = experiment(tmp_path / "e.yaml", tmp_path, **sections)
        return build_codec(load_config(path), COCO)

    ours = made(MODEL={"TARGET_TYPE": "sa_simcc"}, TEST={"SHIFT_HEATMAP": False})
    assert (ours.sigma, ours.shift, ours.bins) == ((6, 6), False, (128, 128))
    ours = made(MODEL={"TARGET_TYPE": "simcc"}, LOSS={"LABEL_SMOOTHING": 0.2})
    assert (ours.sigma, ours.smoothing, ours.mean_over_bins) == (None, 0.2, False)
    with pytest.raises(InputError, match=r"TARGET_TYPE: must be simcc or sa_simcc or mm_simcc"):
        made(MODEL={"TARGET_TYPE": "gaussian"})
    with pytest.raises(InputError, match=r"LOSS.LABEL_SMOOTHING"):
        made(MODEL={"TARGET_TYPE": "simcc"}, LOSS={"LABEL_SMOOTHING": 1.0})
    with pytest.raises(InputError, match=r"LOSS.USE_OHKM is for heatmaps"):
        made(MODEL={"TARGET_TYPE": "simcc"}, LOSS={"USE_OHKM": True})
    pair = {"TARGET_TYPE": "rtm_simcc", "SIMDR_SIGMA": [4.9, 5.66]}
    ours = made(MODEL=pair, TEST={"POST_PROCESS": True})
    assert (ours.sigma, ours.round_centers) == ((4.9, 5.66), True)
    assert (ours.beta, ours.blur) == (10, (29, 35))
    ours = made(MODEL=pair, TEST={"POST_PROCESS": True, "BLUR_KERNEL": 9})
    assert ours.blur == (9, 9)
    for wrong in (8, -3):
        with pytest.raises(InputError, match=rf"BLUR_KERNEL: must be an odd number.*not {wrong}"):
            made(MODEL=pair, TEST={"POST_PROCESS": True, "BLUR_KERNEL": wrong})
    ours = made(MODEL={"TARGET_TYPE": "mm_simcc"}, TEST={"POST_PROCESS": True})
    assert (ours.sigma, ours.round_centers, ours.beta, ours.blur) == ((6, 6), True, None, None)
    with pytest.raises(
        InputError, match=r"MODEL.SIMDR_SIGMA must be \[\] or two numbers between 0 and 1000"
    ):
        made(MODEL={"TARGET_TYPE": "sa_simcc", "SIMDR_SIGMA": [4.9, 0]})
    with pytest.raises(InputError, match=r"TEST.REFINE: must be '' for simcc, not dark"):
        made(MODEL={"TARGET_TYPE": "simcc"}, TEST={"REFINE": "dark"})
    with pytest.raises(InputError, match=r"TEST.REFINE: must be '' or dark for rtm_simcc, not udp"):
        made(MODEL={"TARGET_TYPE": "rtm_simcc"}, TEST={"REFINE": "udp"})
    with pytest.raises(InputError, match=r"SPLIT_RATIO: requires 128 and 128 bins.*have none"):
        ours.decode(torch.zeros(1, 17, 64, 64))


MMPOSE = {
    "standard": (3.0, None, {"smoothing": 0.1}),
    "onehot": (2.0, None, {"smoothing": 0}),
    "gaussian": (2.0, (6, 6), {"round_centers": True}),
    "gaussian_pair": (2.0, (4.9, 5.66), {"round_centers": True, "beta": 10.0, "blur": (29, 35)}),
}


@pytest.mark.parametrize("name", MMPOSE)
def test_simcc_matches_mmpose(name):
    _, arrays = golden("ops/codec_simcc")
    ratio, sigma, options = MMPOSE[name]
    ours = SimCCCodec(SIZE, ratio, sigma, COCO.flip_pairs, **options)
    joints, visible = (torch.from_numpy(arrays[key]).float() for key in ("keypoints", "visible"))
    target = ours.encode(joints, visible)
    counts = target.weight.numpy() > 0
    if sigma is None:  # mmpose drops joints that are rounded up to the border; SimCC keeps them
        counts &= arrays[f"{name}_weights"] > 0
    else:
        np.testing.assert_array_equal(target.weight.numpy(), arrays[f"{name}_weights"])
    assert counts[:2].sum() > 15
    for axis, theirs in ((target.x, arrays[f"{name}_x"]), (target.y, arrays[f"{name}_y"])):
        np.testing.assert_allclose(axis[:2].numpy()[counts[:2]], theirs[counts[:2]], atol=1e-6)
    noisy = [torch.from_numpy(arrays[f"{name}_noisy_{axis}"]) for axis in "xy"]
    keypoints, scores = ours.decode(noisy)
    # The refinement divides by second derivatives that may be almost 0.
    atol = 1e-4 if ours.blur is None else 1e-3
    np.testing.assert_allclose(keypoints.numpy(), arrays[f"{name}_decoded"], atol=atol)
    if ours.beta is not None:
        np.testing.assert_allclose(scores.numpy(), arrays[f"{name}_scores"], rtol=1e-6)


def test_the_loss_with_beta_matches_mmpose():
    """Same as KLDiscretLoss(beta=10, label_softmax=True), but averaged over people, not summed."""
    ours = codec(4.0, round_centers=True, beta=10.0)
    target = encoded(ours)
    logits = tensors("logits_x", "logits_y")
    expected = 0
    for axis, heights in zip(logits, target[:2], strict=True):
        share = np.exp(10 * heights.double().numpy())
        share /= share.sum(2, keepdims=True)
        said = np.exp(10 * axis.double().numpy())
        said /= said.sum(2, keepdims=True)
        divergence = (share * np.log(share / said)).mean(2)
        expected += (divergence * target.weight.numpy()).mean()
    assert ours.loss(logits, target).item() == pytest.approx(expected, rel=1e-5)


def test_refinement_finds_the_centre_of_a_gaussian_and_ignores_flat_vectors():
    ours = codec(4.0, round_centers=True, beta=10.0, blur=(23, 23))
    bins = [torch.arange(float(n)) for n in ours.bins]
    middle = (100.3, 200.8)
    peaks = [torch.exp(-((b - m) ** 2) / 32) for b, m in zip(bins, middle, strict=True)]
    keypoints, scores = ours.decode([peak[None, None].repeat(1, 2, 1) for peak in peaks])
    found = keypoints * META["split_ratio"]
    assert (found - torch.tensor(middle)).abs().max() < 0.02
    flat = [torch.zeros(1, 2, n) for n in ours.bins]
    keypoints, scores = ours.decode(flat)
    assert (keypoints == 0).all() and (scores == 0).all()
    for edge in (0, -1):
        at_edge = [axis.index_fill(2, torch.tensor(edge % axis.shape[2]), 1.0) for axis in flat]
        keypoints, _ = ours.decode(at_edge)
        assert keypoints.isfinite().all()
        assert (keypoints - torch.tensor(SIZE) * (edge % 2)).abs().max() < 2
