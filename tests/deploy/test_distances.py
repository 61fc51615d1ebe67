"""Distances between keypoints, of crops and of the people in whole images."""

import numpy as np
import torch

from lib.deploy.distances import CropDistances, SceneDistances, build_distances, match_people
from lib.keypoints.poses import Poses
from lib.keypoints.skeletons import COCO
from tests.deploy.exports import small, small_scenes


def people(*corners: tuple[float, float]) -> Poses:
    """Return people of 100 by 100 pixels with these top left corners."""
    offsets = np.random.default_rng(0).uniform(0, 100, (17, 2))
    offsets[:2] = [[0, 0], [100, 100]]
    keypoints = (np.array(corners)[:, None] + offsets).astype(np.float32)
    count = len(corners)
    return Poses(
        image=np.zeros(count, np.int64),
        keypoints=keypoints,
        scores=np.ones((count, 17), np.float32),
        score=np.ones(count, np.float32),
        box=np.array([[*corner, 100, 100] for corner in corners], np.float32),
        box_score=np.ones(count, np.float32),
        row=np.full(count, -1),
    )


def test_the_same_people_are_matched_in_any_order():
    expected = people((0, 0), (50, 0), (400, 0))
    found = people((51, 1), (900, 0), (1, 0))
    assert match_people(expected, found, COCO.sigmas) == [(0, 2), (1, 0)]
    assert match_people(expected, Poses.empty(17), COCO.sigmas) == []
    assert match_people(Poses.empty(17), found, COCO.sigmas) == []


def test_keypoints_of_crops_are_compared(tmp_path):
    made = small(tmp_path)
    distances = build_distances(made.cfg, made.backend, 2)
    assert isinstance(distances, CropDistances) and len(distances.inputs) == 2

    def moved(crops):
        keypoints, scores = made.backend(crops)
        return keypoints + torch.tensor([3.0, 4.0]), scores

    (found,) = distances.compare(moved, [1])
    assert torch.allclose(found.distances, torch.full((17,), 5.0))


def test_people_of_whole_images_are_compared(tmp_path, monkeypatch):
    made = small_scenes(tmp_path)
    backend = made.backend
    distances = build_distances(made.cfg, backend, 2)
    assert isinstance(distances, SceneDistances) and distances.source == "synthetic people"
    for found in distances.compare(backend, [0, 1]):
        assert found.expected == found.found == found.common > 0
        assert not found.distances.any()
    find = distances._find
    batch = distances._batches[0]
    zoom = batch["image0"].shape[3] / (200 * float(batch["scale"][0, 0]))

    def moved(backend, batch):
        poses = find(backend, batch)
        poses.keypoints = poses.keypoints + np.float32([0.3, 0.4])
        return poses[1:]  # one person is not found

    monkeypatch.setattr(distances, "_find", moved)
    (found,) = distances.compare(backend, [0])
    assert found.found == found.common == found.expected - 1
    finite = found.distances[found.distances.isfinite()]
    assert 0 < len(finite) < len(found.distances)
    assert torch.allclose(finite, torch.tensor(0.5 * zoom), atol=1e-3)


def test_a_joint_that_is_not_found_is_infinitely_far(tmp_path, monkeypatch):
    made = small_scenes(tmp_path)
    distances = build_distances(made.cfg, made.backend, 1)
    expected = distances._people[0]
    joint = int(np.argmax(expected.scores[0] > 0))
    found = expected[:]
    found.scores = found.scores.copy()
    found.scores[0, joint] = 0
    monkeypatch.setattr(distances, "_find", lambda backend, batch: found)
    (compared,) = distances.compare(made.backend, [0])
    assert compared.common == len(expected)
    assert compared.distances.isinf().tolist() == [True] + [False] * (len(compared.distances) - 1)
