"""The vocabulary: skeletons and geometry, pure functions on arrays and tensors."""
