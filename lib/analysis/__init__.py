"""Analysis of keypoint errors against ground truth."""
