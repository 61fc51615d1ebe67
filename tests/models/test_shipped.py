"""The built-in networks: complete, small, documented, and able to find drawn people."""

import hashlib
from pathlib import Path

import numpy as np
import pytest
import torch

from lib.config import load_config, skeleton_of
from lib.core.inference import PersonDetector, Predictor
from lib.figures.drawing import draw_scene
from lib.keypoints.skeletons import COCO
from lib.media.boxes import box_iou
from lib.models import build_model, shipped
from lib.models.checkpoint import load_checkpoint

MAX_BYTES = 8_000_000

each_network = pytest.mark.parametrize("network", [shipped.TOP_DOWN, shipped.BOTTOM_UP])


@each_network
def test_the_built_in_weights_match_their_experiment_and_are_small(network):
    cfg = load_config(network.experiment)
    assert skeleton_of(cfg) == COCO
    load_checkpoint(build_model(cfg), network.weights)
    assert network.weights.stat().st_size <= MAX_BYTES
    state = torch.load(network.weights, weights_only=True)
    assert all(value.isfinite().all() for value in state.values())
    assert any(value.dtype == torch.float16 for value in state.values())


@each_network
def test_the_model_card_has_the_hash_of_the_weights(network):
    card = Path(__file__).resolve().parents[2] / "docs" / "models.md"
    digest = hashlib.sha256(network.weights.read_bytes()).hexdigest()
    assert digest in card.read_text(encoding="utf-8")


def test_people_are_found_without_boxes():
    """Most people who are neither small nor mostly hidden have a box that overlaps theirs."""
    detector = PersonDetector()
    overlaps = []
    for index in range(6):
        image, people = draw_scene(0, "val", index)
        ((boxes, _),) = detector([image])
        clear = [p for p in people if p["num_keypoints"] >= 12 and p["area"] > 48**2]
        overlaps += [box_iou(np.array(p["bbox"]), boxes).max(initial=0) for p in clear]
    assert len(overlaps) > 5
    assert np.mean(np.array(overlaps) > 0.5) > 0.7


def test_it_finds_the_joints_of_drawn_people():
    """Most joints of unseen people are within a tenth of the person's size."""
    predictor = Predictor()
    errors = []
    for index in range(6):
        image, people = draw_scene(0, "val", index)
        people = [p for p in people if p["num_keypoints"] >= 8 and p["area"] > 64**2]
        found = predictor(image, [p["bbox"] for p in people])
        for person, ground_truth in zip(found, people, strict=True):
            joints = np.reshape(ground_truth["keypoints"], (17, 3))
            distance = np.linalg.norm(person.keypoints - joints[:, :2], axis=1)
            errors += (distance[joints[:, 2] == 2] / max(ground_truth["bbox"][2:])).tolist()
    assert len(errors) > 40
    assert np.mean(np.array(errors) < 0.1) > 0.7
