"""Grouping gives the published code's people, and bounded, clear results for bad input."""

import numpy as np
import pytest
import torch

from lib.core.codecs.grouping import (
    Candidates,
    Grouping,
    adjust,
    find_candidates,
    joint_order,
    refine,
)
from lib.keypoints.skeletons import COCO
from lib.utils.errors import InputError
from tests.golden_arrays import golden

CASES = "abcd"


def case(name: str):
    """Return the grouping, the arrays and the candidates of a golden case."""
    meta, arrays = golden("ops/associative_grouping")
    settings = meta["cases"][name]
    grouping = Grouping(
        joint_order(COCO.names),
        max_people=settings["max_num_people"],
        detection_threshold=settings["detection_threshold"],
        tag_threshold=settings["tag_threshold"],
        uses_score=settings["use_detection_val"],
        ignores_excess=settings["ignore_too_much"],
        kernel=settings["nms_kernel"],
    )
    assert grouping.kernel // 2 == settings["nms_padding"]
    own = {key[2:]: value for key, value in arrays.items() if key.startswith(f"{name}_")}
    heatmaps, tags = (torch.from_numpy(own[key]) for key in ("heatmaps", "tags"))
    found = find_candidates(heatmaps, tags, grouping.max_people, grouping.kernel)
    return grouping, own, found


def as_people(candidates: Candidates) -> np.ndarray:
    xy, score, tag = (part[0].numpy() for part in candidates)
    return np.concatenate([xy, score[..., None], tag], axis=2)


@pytest.mark.parametrize("name", CASES)
def test_candidates_match_the_published_code(name):
    _, own, found = case(name)
    np.testing.assert_array_equal(found.score, own["top_score"])
    # Peaks of score 0 are in any order.
    is_peak = own["top_score"] > 0
    np.testing.assert_array_equal(found.xy.numpy()[is_peak], own["top_xy"][is_peak])
    np.testing.assert_array_equal(found.tag.numpy()[is_peak], own["top_tag"][is_peak])


@pytest.mark.parametrize("name", CASES)
def test_people_match_the_published_code_at_every_step(name):
    grouping, own, found = case(name)
    people = grouping.match(as_people(found))
    np.testing.assert_allclose(people, own["grouped"], atol=1e-6)
    adjust(people, own["heatmaps"][0])
    np.testing.assert_allclose(people, own["adjusted"], atol=1e-6)
    refine(people, own["heatmaps"][0], own["tags"][0])
    np.testing.assert_allclose(people, own["refined"], atol=1e-6)


@pytest.mark.parametrize("name", CASES)
def test_the_whole_grouping_and_its_scores_match_the_published_code(name):
    grouping, own, found = case(name)
    people, scores = grouping.group(own["heatmaps"][0], own["tags"][0], found)
    np.testing.assert_allclose(people, own["refined"], atol=1e-6)
    np.testing.assert_allclose(scores, own["scores"], atol=1e-6)


@pytest.mark.parametrize("size", [(40, 33), (16, 16), (5, 70)])
def test_refine_finds_the_same_pixels_as_a_search_of_all_pixels(size):
    rng = np.random.default_rng(0)
    heatmaps = rng.normal(0, 0.5, (3, *size)).astype(np.float32).round(1)  # with ties
    tags = rng.normal(0, 2, (3, *size, 2)).astype(np.float32)
    people = np.zeros((6, 3, 5), np.float32)
    people[:, 0] = (2, 3, 0.5, 0, 0)
    people[:, 0, 0] += np.arange(6) % 3
    filled = people.copy()
    refine(filled, heatmaps, tags)
    for person, before in zip(filled, people, strict=True):
        x, y = before[0, :2].astype(int)
        for joint in (1, 2):
            distance = np.round(np.linalg.norm(tags[joint] - tags[0, y, x], axis=2))
            best = np.unravel_index(np.argmax(heatmaps[joint] - distance), size)
            expected = max(heatmaps[joint][best], 0)
            assert person[joint, 2] == pytest.approx(expected)
            if expected:
                assert tuple(person[joint, 1::-1].astype(int)) == best


def scene(tags: torch.Tensor, people: int = 3):
    """Return heatmaps of ``people`` with clear peaks, and their candidates with these tags."""
    heatmaps = torch.zeros(1, 17, 32, 64)
    for person in range(people):
        for joint in range(17):
            heatmaps[0, joint, 1 + joint, 4 + 6 * person] = 0.9
    return heatmaps, find_candidates(heatmaps, tags, 30, 5)


def test_equal_tags_give_finite_people():
    tags = torch.zeros(1, 17, 32, 64, 1)
    heatmaps, found = scene(tags)
    grouping = Grouping(joint_order(COCO.names))
    people, scores = grouping.group(heatmaps[0].numpy(), tags[0].numpy(), found)
    assert len(people) and np.isfinite(people).all() and np.isfinite(scores).all()


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_nan_and_infinite_tags_are_an_error(value):
    tags = torch.full((1, 17, 32, 64, 1), value)
    heatmaps, found = scene(tags)
    with pytest.raises(InputError, match="NaN or Inf; check the weights"):
        Grouping(joint_order(COCO.names)).group(heatmaps[0].numpy(), tags[0].numpy(), found)


def test_at_most_thirty_people_are_found():
    heatmaps, tags = torch.zeros(1, 17, 80, 200), torch.zeros(1, 17, 80, 200, 1)
    grouping = Grouping(joint_order(COCO.names))
    found = find_candidates(heatmaps, tags, 30, 5)
    people, _ = grouping.group(heatmaps[0].numpy(), tags[0].numpy(), found)
    assert people.shape == (0, 17, 4)
    for person in range(60):
        x, y = 5 + 6 * (person % 30), 3 + 40 * (person // 30)
        for joint in range(17):
            heatmaps[0, joint, y + 2 * joint, x] = 0.5 + 0.005 * person
        tags[0, :, y : y + 36, x - 2 : x + 3] = 10.0 * person
    found = find_candidates(heatmaps, tags, 30, 5)
    people, scores = grouping.group(heatmaps[0].numpy(), tags[0].numpy(), found)
    assert people.shape == (30, 17, 4), "the thirty with the highest scores"
    assert scores.min() > 0.5 + 0.005 * 29
