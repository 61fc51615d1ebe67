"""Skeletons, poses, crop geometry and metrics: functions on arrays and tensors, without files."""
