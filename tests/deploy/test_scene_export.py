"""Exported bottom-up networks: whole images of any size in, people out."""

import numpy as np
import pytest
import torch

from lib.config import load_config, skeleton_of
from lib.core import build_task
from lib.core.backends import build_backend, load_network, network_backend
from lib.core.codecs import build_codec
from lib.core.exported import Description
from lib.core.inference import Predictor
from lib.deploy.export import EXPORTERS, decoding_network, export, write_draft
from lib.deploy.parity import random_scene, real_scenes, scene_difference
from lib.models import build_model
from lib.utils.errors import InputError
from tests import tiny
from tests.deploy.exports import skip_without_graphs

TINY = 1e-4


@pytest.fixture
def scene(tmp_path):
    """Return a tiny bottom-up experiment and a folder with its random weights, ``w.pth``."""
    cfg = load_config(tiny.scenes(tmp_path / "scenes.yaml", tmp_path / "data"))
    network = build_model(cfg)
    tiny.randomize_weights(network)
    torch.save(network.state_dict(), tmp_path / "w.pth")
    return cfg, tmp_path


def write(cfg, folder, kind="torchscript", decodes=True):
    """Export the network of ``folder`` and return the file."""
    network = load_network(cfg, folder / "w.pth", torch.device("cpu"))
    codec, skeleton = build_codec(cfg, skeleton_of(cfg)), skeleton_of(cfg)
    module = decoding_network(cfg, network, codec) if decodes else network
    description = Description.of(cfg, skeleton, decodes, dynamic_batch=True)
    return write_draft(folder / "scene", export(module, description, kind))


@pytest.mark.parametrize(("decodes", "flip_test"), [(True, True), (True, False), (False, True)])
@pytest.mark.parametrize("kind", list(EXPORTERS))
def test_files_match_pytorch_for_images_of_any_size(scene, kind, decodes, flip_test):
    if kind != "torchscript":
        skip_without_graphs()
    _, folder = scene
    cfg = load_config(folder / "scenes.yaml", ["TEST.FLIP_TEST", str(flip_test)])
    skeleton = skeleton_of(cfg)
    path = write(cfg, folder, kind, decodes)
    task = build_task(cfg, build_backend(cfg, skeleton, path))
    network = load_network(cfg, folder / "w.pth", torch.device("cpu"))
    reference = build_task(cfg, network_backend(cfg, network, build_codec(cfg, skeleton)))
    images, source = real_scenes(cfg, 2)
    assert source == "synthetic people"
    shapes = {tuple(batch["image0"].shape) for batch in images}
    assert len(shapes) == 2  # one is upright
    for batch in (random_scene(128), *images):
        found = scene_difference(task, reference, batch)
        # Not the people: with random weights, rounding decides who they are.
        assert found.largest < TINY


def test_candidates_with_swapped_coordinates_are_noticed(scene, monkeypatch):
    cfg, folder = scene
    task = build_task(cfg, build_backend(cfg, skeleton_of(cfg), folder / "w.pth"))
    batch = random_scene(128)  # square, so that swapped coordinates are inside
    assert scene_difference(task, task, batch).candidate_values == 0
    right = task.codec.candidates

    def swapped(outputs):
        candidates = right(outputs)
        return candidates._replace(xy=candidates.xy.flip(-1))

    monkeypatch.setattr(task.codec, "candidates", swapped)
    found = scene_difference(task, task, batch)
    assert found.largest == found.candidate_values > 0.1


def test_predictor_accepts_a_bottom_up_file(scene):
    cfg, folder = scene
    image = np.random.default_rng(0).integers(0, 256, (90, 150, 3), np.uint8)
    found = Predictor(cfg, write(cfg, folder), "cpu")(image)
    assert len(found) > 0 and found.keypoints.shape[1:] == (17, 2)


def test_a_file_with_candidates_supports_one_scale(scene):
    cfg, folder = scene
    path = write(cfg, folder)
    cfg = load_config(folder / "scenes.yaml", ["TEST.SCALE_FACTOR", "[1.0, 2.0]"])
    with pytest.raises(InputError, match=r"TEST\.SCALE_FACTOR: this file includes decoding"):
        Predictor(cfg, path, "cpu")


def test_a_bottom_up_file_accepts_other_sizes_but_not_another_flip_test(scene):
    cfg, folder = scene
    path = write(cfg, folder)
    larger = ["MODEL.IMAGE_SIZE", "[256, 256]", "MODEL.HEATMAP_SIZE", "[64, 64]"]
    Predictor(load_config(folder / "scenes.yaml", larger), path, "cpu")
    cfg = load_config(folder / "scenes.yaml", ["TEST.FLIP_TEST", "True"])
    with pytest.raises(InputError, match=r"was exported with TEST\.FLIP_TEST"):
        Predictor(cfg, path, "cpu")
