"""Users' images and videos: reading, person detection, tracking, smoothing, writing."""
