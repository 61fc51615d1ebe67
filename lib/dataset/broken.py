"""Broken images in training: replaced by others, counted and reported."""

import logging
from collections.abc import Callable

import numpy as np
import torch

from lib.dataset.image import read_image
from lib.utils.errors import InputError

logger = logging.getLogger(__name__)

MAX_TRIES = 100


def read_or_replace(path_of: Callable[[int], str], row: int, count: int) -> tuple[np.ndarray, int]:
    """Read the image of sample ``row``, or of the first sample after it whose image can be read.

    Returns:
        The image, and the sample that it belongs to.

    Raises:
        InputError: none of the next samples has a readable image.
    """
    failure = None
    for number in range(row, row + min(count, MAX_TRIES)):
        try:
            return read_image(path_of(number % count)), number % count
        except InputError as error:
            failure = failure or error
    raise failure


class BrokenImages:
    """Count of the broken images of a training set.

    Args:
        dataset: has ``image_files``, and its images in ``table.paths``.
        limit: DATASET.MAX_BROKEN, the share of images that may be broken.
    """

    def __init__(self, dataset: torch.utils.data.Dataset, limit: float) -> None:
        self._dataset = dataset
        self._limit = limit
        self._messages: dict[str, str] = {}

    def count(self, replaced: torch.Tensor) -> None:
        """Count the samples that were replaced in a batch; -1 stands for none. Log new images.

        Raises:
            InputError: more images are broken than allowed.
        """
        for path in self._dataset.image_files(replaced[replaced >= 0].tolist()):
            if path in self._messages:
                continue
            try:
                read_image(path)
                self._messages[path] = f"{path}: could not be read once"
            except InputError as error:
                self._messages[path] = str(error)
            logger.warning("=> broken image, replaced by another: %s", self._messages[path])
        total = len(self._dataset.table.paths)
        if len(self._messages) > self._limit * total:
            raise InputError(
                f"{next(iter(self._messages.values()))} ({len(self._messages)} of {total} images "
                f"are broken; DATASET.MAX_BROKEN is {self._limit:g})"
            )
