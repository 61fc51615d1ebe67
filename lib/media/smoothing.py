"""Smoothing of keypoints in videos with the One Euro filter.

Casiez, Roussel, Vogel: 1 Euro Filter: A Simple Speed-based Low-pass Filter for Noisy Input in
Interactive Systems. CHI 2012.
"""

import numpy as np


class OneEuro:
    """One Euro filter for the joints of one person.

    The cutoff frequency of this low-pass filter rises with the speed of a joint. This reduces both
    the jitter of joints at rest and the lag of moving joints. Speeds are measured in person sizes
    per second, so that the same settings work at any distance and frame rate.

    Args:
        rate: frames per second.
        min_cutoff: cutoff of a joint at rest, in Hz. Lower values smooth more.
        beta: increase of the cutoff in Hz for each person size per second. Higher values reduce
            lag.
        speed_cutoff: cutoff of the low-pass filter that smooths the velocity, in Hz.
    """

    def __init__(
        self, rate: float, min_cutoff: float = 1.5, beta: float = 10.0, speed_cutoff: float = 1.0
    ) -> None:
        self._rate = rate
        self._min_cutoff = min_cutoff
        self._beta = beta
        self._speed_cutoff = speed_cutoff
        self._coords: np.ndarray | None = None

    def __call__(
        self, keypoints: np.ndarray, size: float, is_visible: np.ndarray, frames: int = 1
    ) -> np.ndarray:
        """Smooth the keypoints of the next frame.

        Args:
            keypoints: (K, 2) pixels.
            size: size of the person in pixels, such as the square root of the area of the box.
            is_visible: (K,) flags. Joints that are not visible are returned unchanged, and their
                filter is reset.
            frames: number of frames since the last call.

        Returns:
            (K, 2) pixels.
        """
        coords = np.array(keypoints, np.float64)
        if self._coords is None:
            self._coords, self._velocity = coords, np.zeros_like(coords)
            self._was_visible = np.zeros(len(coords), bool)
        period = frames / self._rate
        raw_velocity = (coords - self._coords) / period / max(size, 1e-6)
        alpha = _alpha(self._speed_cutoff, period)
        velocity = self._velocity + alpha * (raw_velocity - self._velocity)
        # Both axes have the same cutoff, because different cutoffs would distort the path.
        speed = np.linalg.norm(velocity, axis=1, keepdims=True)
        alpha = _alpha(self._min_cutoff + self._beta * speed, period)
        smoothed = self._coords + alpha * (coords - self._coords)
        is_filtered = (self._was_visible & is_visible)[:, None]
        self._coords = np.where(is_filtered, smoothed, coords)
        self._velocity = np.where(is_filtered, velocity, 0.0)
        self._was_visible = np.array(is_visible, bool)
        return self._coords.copy()


def _alpha(cutoff: float | np.ndarray, period: float) -> float | np.ndarray:
    """Return the smoothing factor of a low-pass filter: ``cutoff`` in Hz, ``period`` in seconds."""
    return 1 / (1 + 1 / (2 * np.pi * cutoff * period))
