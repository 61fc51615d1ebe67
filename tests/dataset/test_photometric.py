"""Photometric augmentation: each change has its effect and no other."""

import cv2
import numpy as np
import pytest
import torch

from lib.config.default import default_config
from lib.dataset.photometric import LUMINANCE, Photometric, _hue_saturation, photometric_of

SEED = (3, 1, 4)
KINDS = ("color", "gray", "blur", "noise", "jpeg", "erase")


@pytest.fixture
def images():
    """Four uint8 images (3, 40, 30) with edges, gradients and colors; 30 is not a multiple of 8."""
    rng = np.random.default_rng(0)
    ramp = np.linspace(40, 200, 40 * 30 * 3).reshape(3, 40, 30)
    pictures = np.stack([np.roll(ramp, shift * 311) for shift in range(4)])
    pictures[:, :, 10:20, 8:16] = rng.integers(0, 255, (4, 3, 1, 1))
    return torch.from_numpy(pictures.astype(np.uint8))


def test_by_default_images_are_unchanged(images):
    assert Photometric()(images, SEED) is images


@pytest.mark.parametrize("kind", KINDS)
def test_results_depend_only_on_the_seed_and_the_input_is_unchanged(images, kind):
    before = images.clone()
    change = Photometric(**{kind: 1.0})
    first, second = change(images, SEED), change(images, SEED)
    assert torch.equal(first, second)
    assert first.dtype == torch.uint8 and first.shape == images.shape
    assert torch.equal(images, before)
    assert not torch.equal(first, images)


def test_a_probability_is_the_share_of_images_that_change(images):
    many = images[:1].repeat(400, 1, 1, 1)
    changed = Photometric(noise=0.25)(many, SEED)
    share = (changed != many).flatten(1).any(1).float().mean().item()
    assert share == pytest.approx(0.25, abs=0.08)


def test_gray_has_the_luminance_in_every_channel(images):
    gray = Photometric(gray=1.0)(images, SEED).numpy()
    for image, result in zip(images.permute(0, 2, 3, 1).numpy(), gray, strict=True):
        wanted = cv2.cvtColor(image, cv2.COLOR_RGB2GRAY).astype(int)
        assert np.abs(result - wanted).max() <= 1


def test_blur_keeps_flat_areas_and_softens_edges(images):
    images[:, :, :, :15], images[:, :, :, 15:] = 50, 150
    blurred = Photometric(blur=1.0)(images, SEED).int()
    assert (blurred[..., :10] == 50).all() and (blurred[..., 20:] == 150).all()
    assert ((blurred[..., 14] > 50) & (blurred[..., 14] < 100)).all()


def test_noise_has_mean_zero_and_the_documented_strength():
    grey = torch.full((6, 3, 64, 64), 128, dtype=torch.uint8)
    difference = Photometric(noise=1.0)(grey, SEED).float() - 128
    assert (difference.mean((1, 2, 3)).abs() < 1.5).all()
    deviation = difference.std((1, 2, 3))
    assert ((deviation > 2.5) & (deviation < 26)).all()


def test_jpeg_errors_are_those_of_a_jpeg_encoder():
    """At qualities 15 to 60 the error is between that of a JPEG encoder at 75 and at 10."""
    rng = np.random.default_rng(5)
    small = rng.integers(30, 220, (16, 12, 3)).astype(np.uint8)
    picture = cv2.resize(small, (96, 128), interpolation=cv2.INTER_CUBIC)
    images = torch.from_numpy(picture).permute(2, 0, 1)[None].repeat(8, 1, 1, 1)
    ours = (Photometric(jpeg=1.0)(images, SEED).float() - images).square().mean((1, 2, 3)).sqrt()

    def encoder_error(quality):
        settings = [cv2.IMWRITE_JPEG_QUALITY, quality, cv2.IMWRITE_JPEG_SAMPLING_FACTOR, 0x111111]
        _, code = cv2.imencode(".jpg", picture, settings)
        decoded = cv2.imdecode(code, cv2.IMREAD_COLOR).astype(float)
        return np.sqrt(((decoded - picture) ** 2).mean())

    assert encoder_error(75) < ours.min() and ours.max() < encoder_error(10)


def test_erase_changes_rectangles_and_leaves_the_rest(images):
    many = images[:1].repeat(50, 1, 1, 1)
    changed = (Photometric(erase=1.0)(many, SEED) != many).any(1)
    share = changed.float().mean((1, 2))
    assert (share > 0).all() and (share < 3 * 0.36**2).all()


def test_color_changes_tone_but_not_structure(images):
    """All pixels of one color change to the same color."""
    images[:] = torch.tensor([90, 120, 60], dtype=torch.uint8).view(1, 3, 1, 1)
    changed = Photometric(color=1.0)(images, SEED).int()
    assert (changed - changed[..., :1, :1]).abs().max() <= 1
    assert ((changed - images.int()).abs().amax((1, 2, 3)) > 3).all()


def test_saturation_0_is_grey_and_hue_turns_the_chrominance():
    color = np.array([200.0, 90.0, 40.0])
    grey = np.dot(LUMINANCE, color)
    assert _hue_saturation(0.0, 1.0) @ color == pytest.approx(color)
    assert _hue_saturation(0.0, 0.0) @ color == pytest.approx([grey] * 3)
    # A rotation by 120 degrees about the gray axis turns the hue of red into green.
    turned = _hue_saturation(2 * np.pi / 3, 1.0) @ color
    assert turned - turned.mean() == pytest.approx(np.roll(color - grey, 1) - np.mean(color - grey))


def test_the_configuration_sets_each_probability():
    cfg = default_config()
    assert photometric_of(cfg) == Photometric()
    for number, kind in enumerate(KINDS):
        cfg.DATASET[f"PROB_{kind.upper()}"] = 0.1 * number
    assert photometric_of(cfg) == Photometric(0.0, 0.1, 0.2, 0.1 * 3, 0.4, 0.5)
