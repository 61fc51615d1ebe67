"""The built-in data set of synthetic people, reproducible from a seed, in COCO format."""
