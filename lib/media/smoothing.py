"""Steadier coordinates in videos: the One-Euro filter.

Casiez, Roussel, Vogel: 1 Euro Filter: A Simple Speed-based Low-pass Filter for Noisy Input in
Interactive Systems. CHI 2012.
"""

import numpy as np


class OneEuro:
    """A low-pass filter for the joints of one person, whose cutoff rises with their speed: what
    rests does not tremble, what moves does not lag.

    Speeds are counted in sizes of the person a second, so that the same settings fit people near
    and far, and every frame rate.

    Args:
        rate: frames a second.
        min_cutoff: hertz, of a joint at rest; lower is steadier.
        beta: by how many hertz the cutoff rises at a speed of one size a second; higher lags less.
        speed_cutoff: hertz, of the filter of the speed itself.
    """

    def __init__(
        self, rate: float, min_cutoff: float = 1.5, beta: float = 10.0, speed_cutoff: float = 1.0
    ) -> None:
        self._rate = rate
        self._min_cutoff = min_cutoff
        self._beta = beta
        self._speed_cutoff = speed_cutoff
        self._places: np.ndarray | None = None
        self._speeds: np.ndarray | None = None
        self._is_known: np.ndarray | None = None

    def __call__(
        self, keypoints: np.ndarray, size: float, is_seen: np.ndarray, frames: int = 1
    ) -> np.ndarray:
        """The next places, smoothed.

        Args:
            keypoints: (K, 2) pixels.
            size: of the person, pixels.
            is_seen: (K,) flags; a joint that is not seen comes back as it is and starts afresh.
            frames: since the last call.

        Returns:
            (K, 2) pixels.
        """
        places = np.array(keypoints, np.float64)
        if self._places is None:
            self._places, self._speeds = places, np.zeros_like(places)
            self._is_known = np.array(is_seen, bool)
            return places.copy()
        period = frames / self._rate
        speeds = (places - self._places) / period / max(size, 1e-6)
        share = self._share(np.float64(self._speed_cutoff), period)
        smooth_speeds = self._speeds + share * (speeds - self._speeds)
        # The length of the speed, not each axis: else a filtered path would bend.
        speed = np.linalg.norm(smooth_speeds, axis=1, keepdims=True)
        share = self._share(self._min_cutoff + self._beta * speed, period)
        smoothed = self._places + share * (places - self._places)
        continues = (self._is_known & is_seen)[:, None]
        self._places = np.where(continues, smoothed, places)
        self._speeds = np.where(continues, smooth_speeds, 0.0)
        self._is_known = np.array(is_seen, bool)
        return self._places.copy()

    @staticmethod
    def _share(cutoff: np.ndarray, period: float) -> np.ndarray:
        """How much of a new value is taken over by a first-order low-pass filter of that cutoff in
        hertz, its samples ``period`` seconds apart."""
        return 1 / (1 + 1 / (2 * np.pi * cutoff * period))
