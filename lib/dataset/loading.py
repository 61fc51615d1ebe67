"""From data sets to batches."""

import contextlib
from collections.abc import Iterator
from typing import Any

import cv2
import numpy as np
import torch
from torch.utils.data import DataLoader, Dataset, Sampler

from lib.dataset.top_down import TopDownDataset
from lib.utils import distributed
from lib.utils.errors import InputError

Batch = dict[str, torch.Tensor]


class EpochSampler(Sampler):
    """(epoch, row) of every sample once; the order follows from (seed, epoch) alone.

    The epoch travels with the row, so that worker processes that live on know it. Of several
    processes each takes every ``world_size``-th row, so that together their batches hold what one
    process would take; rows that would give some processes one more are left out.
    """

    def __init__(
        self, size: int, shuffle: bool, seed: int = 0, rank: int = 0, world_size: int = 1
    ) -> None:
        self._size = size
        self._shuffle = shuffle
        self._seed = seed
        self._rank = rank
        self._world_size = world_size
        self.epoch = 0

    def __len__(self) -> int:
        return self._size // self._world_size

    def __iter__(self) -> Iterator[tuple[int, int]]:
        order = np.arange(self._size)
        if self._shuffle:
            # The third number keeps this draw apart from the samples' own, which begin alike.
            np.random.default_rng((self._seed, self.epoch, self._size, 1)).shuffle(order)
        order = order[: len(self) * self._world_size]
        return iter([(self.epoch, int(row)) for row in order[self._rank :: self._world_size]])


def train_loader(
    dataset: TopDownDataset,
    batch_size: int,
    workers: int,
    shuffle: bool = True,
    pin_memory: bool = False,
    devices: int = 1,
) -> DataLoader:
    """Batches of training samples; set ``loader.sampler.epoch`` before each epoch.

    The last batch is dropped if it would leave one of ``devices`` with one sample: batch norm over
    a 1x1 map cannot compute a variance from that. Of several processes each gets its share.
    """
    sampler = EpochSampler(
        len(dataset), shuffle, dataset.seed, distributed.rank(), distributed.world_size()
    )
    rest = len(sampler) % batch_size
    share = -(-rest // devices)
    leaves_one = rest > 0 and (share == 1 or rest % share == 1)
    return _Loader(
        dataset,
        batch_size=batch_size,
        drop_last=leaves_one and len(sampler) > batch_size,
        sampler=sampler,
        num_workers=workers,
        pin_memory=pin_memory,
        persistent_workers=workers > 0,
        worker_init_fn=_one_thread,
    )


class TestLoader:
    """Batches of exactly ``batch_size`` people (the last may be smaller), by image, each image read
    once.

    Workers take whole images; their people are then cut into even batches, which a GPU likes better
    than uneven ones. Of several processes each takes a share of the images.
    """

    __test__ = False  # no test class, whatever pytest thinks of the name

    def __init__(
        self, dataset: TopDownDataset, batch_size: int, workers: int, pin_memory: bool = False
    ) -> None:
        self.dataset = dataset
        self._batch_size = batch_size
        self.has_joints = bool(dataset.table.visible.any())
        images = _Images(dataset)
        share = np.arange(distributed.rank(), len(images), distributed.world_size())
        self._count = int(images.counts[share].sum())
        self._loader = _Loader(
            images,
            batch_sampler=_packs(share, images.counts, batch_size),
            collate_fn=_join,
            num_workers=workers,
            pin_memory=pin_memory,
            persistent_workers=workers > 0,
            worker_init_fn=_one_thread,
        )

    def __len__(self) -> int:
        return -(-self._count // self._batch_size)

    def __iter__(self) -> Iterator[Batch]:
        size = self._batch_size
        rest: Batch | None = None
        for people in self._loader:
            rest = people if rest is None else _join([rest, people])
            count = len(rest["index"])
            for start in range(0, count - count % size, size):
                yield {name: value[start : start + size] for name, value in rest.items()}
            left = {name: value[count - count % size :] for name, value in rest.items()}
            rest = left if count % size else None
        if rest is not None:
            yield rest


class _Loader(DataLoader):
    """A DataLoader whose workers' InputErrors lose PyTorch's traceback."""

    def __iter__(self) -> Iterator[Any]:
        with _plain_errors():
            yield from super().__iter__()


@contextlib.contextmanager
def _plain_errors() -> Iterator[None]:
    """Takes out the traceback that PyTorch puts before the message of a worker's InputError."""
    try:
        yield
    except InputError as error:
        _, mark, message = str(error).rpartition(f"{InputError.__name__}: ")
        if not mark:
            raise
        raise InputError(message.strip()) from None


class _Images(Dataset):
    """The images of a data set, each with all its people."""

    def __init__(self, dataset: TopDownDataset) -> None:
        self._dataset = dataset
        image = dataset.table.image
        self._rows = np.argsort(image, kind="stable")
        _, self._starts, self.counts = np.unique(
            image[self._rows], return_index=True, return_counts=True
        )

    def __len__(self) -> int:
        return len(self.counts)

    def __getitem__(self, number: int) -> Batch:
        start = self._starts[number]
        return self._dataset.people_in_one_image(self._rows[start : start + self.counts[number]])


def _packs(images: np.ndarray, counts: np.ndarray, batch_size: int) -> list[list[int]]:
    """The image numbers ``images`` in runs that hold about ``batch_size`` people; ``counts`` are
    those of all images."""
    packs: list[list[int]] = [[]]
    people = 0
    for number in images.tolist():
        count = counts[number]
        if packs[-1] and people + count > batch_size:
            packs.append([])
            people = 0
        packs[-1].append(number)
        people += count
    return packs if len(images) else []


def _join(parts: list[Batch]) -> Batch:
    return {name: torch.cat([part[name] for part in parts]) for name in parts[0]}


def to_device(batch: Batch, device: torch.device) -> Batch:
    """The batch on ``device``; from pinned memory the copy does not wait."""
    return {name: value.to(device, non_blocking=True) for name, value in batch.items()}


def _one_thread(_: int) -> None:
    # Many workers run at once; threads of their own would only compete.
    torch.set_num_threads(1)
    cv2.setNumThreads(0)
