"""Samplers and data loaders."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np
import torch
from torch.utils.data import DataLoader, Dataset, Sampler

from lib.dataset.bottom_up import SceneDataset
from lib.dataset.broken import BrokenImages, BrokenTestImages
from lib.dataset.top_down import TopDownDataset
from lib.utils import distributed, signals
from lib.utils.errors import InputError

Batch = dict[str, torch.Tensor]
WORKER_TIMEOUT = 600  # seconds to wait for a batch


@dataclass(eq=False)
class EpochSampler(Sampler):
    """Sampler of the (epoch, row) of each sample, in an order that depends on (seed, epoch).

    The epoch is part of each index so that persistent workers know it. In distributed training,
    each process takes every ``world_size``-th row, so that the batches of all processes together
    equal those of a single process. Rows beyond a multiple of ``world_size`` are dropped.

    Args:
        size: number of samples.
        first: number of this process's rows to skip, because an interrupted run has already used
            them in this epoch.
    """

    size: int
    shuffle: bool
    seed: int = 0
    rank: int = 0
    world_size: int = 1
    epoch: int = 0
    first: int = 0

    def __len__(self) -> int:
        return self.size // self.world_size

    def __iter__(self) -> Iterator[tuple[int, int]]:
        order = np.arange(self.size)
        if self.shuffle:
            # Four numbers, so that the seed differs from the samples' (seed, epoch, row).
            np.random.default_rng((self.seed, self.epoch, self.size, 1)).shuffle(order)
        order = order[: len(self) * self.world_size]
        rows = order[self.rank :: self.world_size][self.first :]
        return iter([(self.epoch, int(row)) for row in rows])


def train_loader(
    dataset: TopDownDataset | SceneDataset,
    batch_size: int,
    workers: int,
    shuffle: bool = True,
    pin_memory: bool = False,
    devices: int = 1,
    max_broken: float = 0.0,
) -> DataLoader:
    """Return a loader of training batches; set ``loader.sampler.epoch`` before each epoch.

    The last batch is dropped if one of ``devices`` would get a single sample, from which batch norm
    over a 1x1 map cannot compute a variance. In distributed training each process loads its share.
    Broken images are replaced by others; iteration raises an InputError if their share of all
    images is above ``max_broken``.
    """
    sampler = EpochSampler(
        len(dataset), shuffle, dataset.seed, distributed.rank(), distributed.world_size()
    )
    last_batch = len(sampler) % batch_size
    per_device = -(-last_batch // devices)
    leaves_one = last_batch > 0 and (per_device == 1 or last_batch % per_device == 1)
    return _Loader(
        dataset,
        BrokenImages(dataset, max_broken),
        batch_size=batch_size,
        drop_last=leaves_one and len(sampler) > batch_size,
        sampler=sampler,
        num_workers=workers,
        pin_memory=pin_memory,
    )


class TestLoader:
    """Loader of test batches for top-down networks, which reads each image only once.

    Workers load all people of an image. These are then regrouped into batches of exactly
    ``batch_size``; only the last may be smaller. In distributed evaluation each process loads a
    share of the images. Broken images are left out; iteration raises an InputError if their share
    of all images is above ``max_broken``.

    Attributes:
        has_joints: True if the joints are annotated, so that the loss can be computed.
    """

    __test__ = False  # keeps pytest from collecting this class

    def __init__(
        self,
        dataset: TopDownDataset,
        batch_size: int,
        workers: int,
        pin_memory: bool = False,
        max_broken: float = 0.0,
    ) -> None:
        self.dataset = dataset
        self.broken = BrokenTestImages(dataset, max_broken)
        self._batch_size = batch_size
        self._pin_memory = pin_memory
        self.has_joints = bool(dataset.table.visible.any())
        images = _Images(dataset)
        share = np.arange(distributed.rank(), len(images), distributed.world_size())
        self._count = int(images.counts[share].sum())
        self._loader = _Loader(
            images,
            self.broken,
            batch_sampler=_group_images(share, images.counts, batch_size),
            collate_fn=_concatenate,
            num_workers=workers,
        )

    def __len__(self) -> int:
        return -(-self._count // self._batch_size)

    def __iter__(self) -> Iterator[Batch]:
        size = self._batch_size
        rest: Batch | None = None
        for people in self._loader:
            rest = people if rest is None else _concatenate([rest, people])
            while len(rest["index"]) >= size:
                yield self._pinned({name: value[:size] for name, value in rest.items()})
                rest = {name: value[size:] for name, value in rest.items()}
        if rest is not None and len(rest["index"]):
            yield self._pinned(rest)

    def _pinned(self, batch: Batch) -> Batch:
        # ``_loader`` does not pin its batches, because regrouping copies them to new memory.
        if not self._pin_memory:
            return batch
        return {name: value.pin_memory() for name, value in batch.items()}


class SceneLoader:
    """Loader of test batches of one image each, for bottom-up networks.

    Distributed evaluation and broken images are handled as by ``TestLoader``.
    """

    has_joints = False  # test batches of whole images have no joints, so there is no loss

    def __init__(
        self, dataset: SceneDataset, workers: int, pin_memory: bool = False, max_broken: float = 0.0
    ) -> None:
        self.dataset = dataset
        self.broken = BrokenTestImages(dataset, max_broken)
        share = range(distributed.rank(), len(dataset), distributed.world_size())
        self._loader = _Loader(
            _Scenes(dataset),
            self.broken,
            sampler=share,
            batch_size=None,
            num_workers=workers,
            pin_memory=pin_memory,
        )

    def __len__(self) -> int:
        return len(self._loader)

    def __iter__(self) -> Iterator[Batch]:
        return iter(self._loader)


def test_loader(
    dataset: TopDownDataset | SceneDataset,
    batch_size: int,
    workers: int,
    pin_memory: bool = False,
    max_broken: float = 0.0,
) -> TestLoader | SceneLoader:
    """Return a loader of test batches: of ``batch_size`` people, or of one whole image."""
    if isinstance(dataset, SceneDataset):
        return SceneLoader(dataset, workers, pin_memory, max_broken)
    return TestLoader(dataset, batch_size, workers, pin_memory, max_broken)


test_loader.__test__ = False  # keeps pytest from collecting this function


class _Loader(DataLoader):
    """DataLoader that reports errors of its workers in one line.

    The entry ``broken`` of each batch is removed and passed to ``BrokenImages.count``. Batches
    without other entries are skipped.
    """

    def __init__(
        self, dataset: Dataset, broken: BrokenImages, num_workers: int, **options: Any
    ) -> None:
        self._broken = broken
        super().__init__(
            dataset,
            num_workers=num_workers,
            timeout=WORKER_TIMEOUT if num_workers else 0,
            persistent_workers=num_workers > 0,
            worker_init_fn=_start_worker,
            **options,
        )

    def __iter__(self) -> Iterator[Any]:
        try:
            with signals.blocked():  # workers that are started here never receive them
                batches = super().__iter__()
            for batch in batches:
                self._broken.count(batch.pop("broken"))
                if batch:
                    yield batch
        except InputError as error:  # PyTorch prepends the traceback to a worker's message
            _, mark, message = error.args[0].rpartition(f"{InputError.__name__}: ")
            if not mark:
                raise
            raise InputError(message.strip()) from None
        except RuntimeError as error:
            raise worker_error(error) or error from None


def worker_error(error: RuntimeError) -> InputError | None:
    """Return an error for the user if ``error`` is about a data-loading process, else None.

    PyTorch raises such errors in a signal handler, so they can occur anywhere in the main process.
    """
    text = str(error)
    if "shared memory" in text:
        return InputError(
            "the shared memory for data-loading processes is full; reduce WORKERS, or provide "
            "more shared memory (docker run --ipc=host or --shm-size)"
        )
    if "DataLoader timed out" in text:
        return InputError(
            f"a data-loading process has not answered for {WORKER_TIMEOUT} seconds; check the "
            "disk, or use WORKERS 0 to see what it waits for"
        )
    if "DataLoader worker" in text:
        return InputError(
            "a data-loading process was killed, usually because the memory is full; reduce "
            "WORKERS (with 0 the main process loads the data) or the batch size"
        )
    return None


class _Images(Dataset):
    """Dataset with one item per image: a batch of all people in it, and the entry ``broken``.

    ``broken`` is -1 or, if the image is broken, the row of a person in it. The item of a broken
    image has no other entry.
    """

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
        rows = self._rows[start : start + self.counts[number]]
        try:
            people = self._dataset.people_in_one_image(rows)
        except InputError:
            return {"broken": torch.tensor(rows[:1])}
        return {**people, "broken": torch.tensor([-1])}


class _Scenes(Dataset):
    """Dataset of the test images of a ``SceneDataset``, with ``broken`` as in ``_Images``."""

    def __init__(self, dataset: SceneDataset) -> None:
        self._dataset = dataset

    def __len__(self) -> int:
        return len(self._dataset)

    def __getitem__(self, number: int) -> Batch:
        try:
            batch = self._dataset[number]
        except InputError:
            return {"broken": torch.tensor([number])}
        return {**batch, "broken": torch.tensor([-1])}


def _group_images(images: np.ndarray, counts: np.ndarray, batch_size: int) -> list[list[int]]:
    """Group images, given by their indices, into lists with at most ``batch_size`` people each.

    An image with more people forms its own list. ``counts[i]`` is the number of people in image i.
    """
    groups: list[list[int]] = []
    people = 0
    for number in images.tolist():
        people += counts[number]
        if not groups or people > batch_size:
            groups.append([])
            people = counts[number]
        groups[-1].append(number)
    return groups


def _concatenate(parts: list[Batch]) -> Batch:
    """Concatenate batches. Those of broken images have only the entry ``broken``."""
    names = dict.fromkeys(name for part in parts for name in part)
    return {name: torch.cat([part[name] for part in parts if name in part]) for name in names}


def to_device(batch: Batch, device: torch.device) -> Batch:
    """Copy a batch to ``device``, asynchronously if it is in pinned memory."""
    return {name: value.to(device, non_blocking=True) for name, value in batch.items()}


def _start_worker(_: int) -> None:
    # The worker processes together already use all cores.
    torch.set_num_threads(1)
    cv2.setNumThreads(0)
    signals.end_with_parent()
