"""Broken images: replaced by others in training, left out of tests, counted and reported."""

import logging
from collections.abc import Callable

import numpy as np
import torch

from lib.dataset.image import read_image
from lib.utils import distributed
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
        limit: the share of images that may be broken.
    """

    setting = "DATASET.MAX_BROKEN"

    def __init__(self, dataset: torch.utils.data.Dataset, limit: float) -> None:
        self._dataset = dataset
        self._limit = limit
        self._messages: dict[str, str] = {}

    def count(self, broken: torch.Tensor) -> None:
        """Count the samples of a batch whose image is broken; -1 stands for none.

        Raises:
            InputError: more images are broken than allowed.
        """
        for index in broken[broken >= 0].tolist():
            (path,) = self._dataset.image_files([index])
            if path in self._messages:
                continue
            try:
                self._read(index, path)
                self._messages[path] = f"{path}: could not be read at first, but at a second try"
            except InputError as error:
                self._messages[path] = str(error)
            self._log(self._messages[path])
            self._check(self._messages)

    def _read(self, index: int, path: str) -> None:
        read_image(path)

    def _log(self, message: str) -> None:
        logger.warning("=> broken image, replaced by another: %s", message)

    def _check(self, messages: dict[str, str]) -> None:
        total = len(self._dataset.table.paths)
        if len(messages) > self._limit * total:
            raise InputError(
                f"{next(iter(messages.values()))} ({len(messages)} of {total} images are broken; "
                f"{self.setting} is {self._limit:g})"
            )


class BrokenTestImages(BrokenImages):
    """Count of the broken images of a test set; there are no predictions for the people in them."""

    setting = "TEST.MAX_BROKEN"

    def report(self) -> None:
        """Log the broken images since the last call, of all processes; each must call this.

        Raises:
            InputError: more images are broken than allowed.
        """
        messages = {k: v for part in distributed.gather(self._messages) for k, v in part.items()}
        self._messages = {}
        if not messages:
            return
        self._check(messages)
        for message in messages.values():
            logger.warning("=> broken image, left out: %s", message)
        table = self._dataset.table
        is_broken = np.isin(table.paths, [path.encode() for path in messages])
        logger.warning(
            "=> %d of %d images are broken; %d %s in them count as not found",
            len(messages),
            len(table.paths),
            is_broken[table.image].sum(),
            "people" if table.visible.any() else "boxes",
        )

    def _read(self, index: int, path: str) -> None:
        self._dataset[index]  # bottom-up networks also refuse images that are too long and narrow

    def _log(self, message: str) -> None:
        """Do nothing: ``report`` logs the images of all processes."""
