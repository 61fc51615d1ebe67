"""Users' images and videos: reading, detectors, tracking, smoothing."""
