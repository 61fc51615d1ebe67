"""Poses: people as flat arrays."""

import numpy as np
import pytest
import torch

from lib.keypoints.poses import Poses
from lib.utils.errors import InputError
from tests.poses import people


def three() -> Poses:
    """Three people with two keypoints, in descending order of ``row``."""
    boxes = np.arange(12).reshape(3, 4)
    poses = people(boxes, np.arange(12).reshape(3, 2, 2), 0.5)
    poses.row = np.array([2, 1, 0])
    poses.image = np.array([4, 4, 7])
    return poses


def test_one_person_has_the_values_of_its_row():
    pose = three()[1]
    assert (pose.image, pose.row, pose.score, pose.box_score) == (4, 1, 0.5, 1.0)
    assert pose.keypoints.tolist() == [[4, 5], [6, 7]] and pose.scores.tolist() == [0.5, 0.5]
    assert pose.box.tolist() == [4, 5, 6, 7]


def test_people_are_selected_by_slices_indices_and_masks():
    poses = three()
    assert [pose.row for pose in poses] == [2, 1, 0]
    for chosen in (poses[1:], poses[[1, 2]], poses[np.array([False, True, True])]):
        assert len(chosen) == 2 and chosen.row.tolist() == [1, 0]
        assert chosen.keypoints.shape == (2, 2, 2)
    with pytest.raises(IndexError):
        poses[3]


def test_concatenated_poses_are_sorted_and_made_unique_by_row():
    poses = three()
    twice = Poses.concatenate([Poses.empty(2), poses, poses[1:]])
    assert len(twice) == 5
    ordered = twice.sorted_unique()
    assert ordered.row.tolist() == [0, 1, 2] and ordered.image.tolist() == [7, 4, 4]
    np.testing.assert_array_equal(ordered.keypoints_with_scores()[0, :, 2], [0.5, 0.5])


def test_tensors_become_arrays():
    poses = three()
    tensors = Poses(*(torch.from_numpy(np.array(value)) for value in vars(poses).values()))
    np.testing.assert_array_equal(tensors.numpy().keypoints, poses.keypoints)
    assert isinstance(tensors.numpy().row, np.ndarray)


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_keypoints_that_are_not_finite_are_an_error(value):
    poses = three()
    poses.check_finite()
    poses.keypoints[1, 0, 0] = value
    with pytest.raises(InputError, match="NaN or Inf; check the weights"):
        poses.check_finite()


def test_people_without_a_row_are_all_kept_by_image():
    poses = three()
    poses.row = np.full(3, -1)
    poses.image = np.array([7, 4, 4])
    assert poses.sorted_unique().image.tolist() == [4, 4, 7]
    assert len(Poses.empty(2).sorted_unique()) == 0
