"""The built-in data set: people drawn from a seed and an index, laid out as COCO is."""
