"""The vocabulary: skeletons, geometry and metrics, pure functions on arrays and tensors."""
