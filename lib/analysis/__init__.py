"""Errors of keypoints against ground truth."""
