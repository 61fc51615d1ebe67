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
    """Read the image of sample ``row`` or, if it is broken, the next readable one.

    Args:
        path_of: function from a sample's row to its image file.
        count: number of samples; the first follows the last.

    Returns:
        The image, and the row of its sample.

    Raises:
        InputError: if the images of all of the next ``MAX_TRIES`` samples are broken.
    """
    failure = None
    for candidate in range(row, row + min(count, MAX_TRIES)):
        try:
            return read_image(path_of(candidate % count)), candidate % count
        except InputError as error:
            failure = failure or error
    raise failure


class BrokenImages:
    """Counter of the broken images of a training set.

    Args:
        dataset: a ``TopDownDataset`` or ``SceneDataset``.
        limit: maximum share of broken images.
    """

    setting = "DATASET.MAX_BROKEN"  # for error messages
    logs_at_once = True  # a broken image is logged as soon as it is counted

    def __init__(self, dataset: torch.utils.data.Dataset, limit: float) -> None:
        self._dataset = dataset
        self._limit = limit
        self._messages: dict[str, str] = {}

    def count(self, broken: torch.Tensor) -> None:
        """Count the broken images of a batch.

        Args:
            broken: (N,) indices of samples with a broken image; -1 for other samples.

        Raises:
            InputError: if more images are broken than allowed.
        """
        for index in broken[broken >= 0].tolist():
            (path,) = self._dataset.image_files([index])
            if path in self._messages:
                continue
            try:
                self._read(index, path)
                self._messages[path] = f"{path}: could be read only at the second attempt"
            except InputError as error:
                self._messages[path] = str(error)
            if self.logs_at_once:
                logger.warning("=> broken image, replaced by another: %s", self._messages[path])
            self._check(self._messages)

    def _read(self, index: int, path: str) -> None:
        read_image(path)

    def _check(self, messages: dict[str, str]) -> None:
        total = len(self._dataset.table.paths)
        if len(messages) > self._limit * total:
            raise InputError(
                f"{next(iter(messages.values()))} ({len(messages)} of {total} images are broken; "
                f"{self.setting} is {self._limit:g})"
            )


class BrokenTestImages(BrokenImages):
    """Counter of the broken images of a test set. People in them have no predictions."""

    setting = "TEST.MAX_BROKEN"
    logs_at_once = False  # ``report`` logs the broken images of all processes

    def report(self) -> None:
        """Log the broken images of all processes since the last call. All processes must call this.

        Raises:
            InputError: if more images are broken than allowed.
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
        count, noun = is_broken[table.image].sum(), "people" if table.visible.any() else "boxes"
        text = "=> %d of %d images are broken; %d %s in them count as not found"
        logger.warning(text, len(messages), len(table.paths), count, noun)

    def _read(self, index: int, path: str) -> None:
        self._dataset[index]  # bottom-up networks also reject images that are too long and narrow
