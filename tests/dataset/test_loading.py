"""Loaders: the same batches for any number of workers, each person and image read once."""

import collections

import numpy as np
import pytest
import torch

from lib.dataset import top_down
from lib.dataset.coco import CocoKeypoints
from lib.dataset.loading import EpochSampler, TestLoader, train_loader
from lib.dataset.top_down import Augmentation, TopDownDataset
from lib.keypoints.geometry import Crop
from lib.keypoints.skeletons import COCO
from lib.utils import distributed
from lib.utils.errors import InputError
from tests import tiny


@pytest.fixture
def data(tmp_path):
    """Eleven people in seven images, one to three per image, unsorted."""
    content = tiny.write_coco(tmp_path, images=7, people=2)
    order = [13, 0, 4, 1, 8, 6, 10, 11, 2, 9, 12]
    content["annotations"] = [content["annotations"][n] for n in order]
    content["annotations"][1]["image_id"] = 7
    tiny.save_coco(tmp_path, content)
    source = CocoKeypoints(str(tmp_path), "val2017", COCO, aspect_ratio=0.75)
    return TopDownDataset(source, Crop((24, 32)), Augmentation(half_body_probability=0.3), seed=5)


def epoch_of(loader, epoch: int) -> list[dict[str, torch.Tensor]]:
    loader.sampler.epoch = epoch
    return list(loader)


def assert_equal(first, second) -> None:
    assert len(first) == len(second)
    for a, b in zip(first, second, strict=True):
        assert a.keys() == b.keys()
        for name in a:
            assert torch.equal(a[name], b[name]), name


def test_the_order_depends_only_on_seed_and_epoch():
    sampler = EpochSampler(50, shuffle=True, seed=1)
    orders = []
    for epoch in (0, 1, 0):
        sampler.epoch = epoch
        orders.append(list(sampler))
        assert sorted(orders[-1]) == [(epoch, row) for row in range(50)]
    assert orders[0] == orders[2] != [(0, row) for row in range(50)]
    assert [row for _, row in orders[0]] != [row for _, row in orders[1]]
    other = EpochSampler(50, shuffle=True, seed=2)
    assert list(other) != orders[0]
    plain = EpochSampler(4, shuffle=False)
    plain.epoch = 3
    assert list(plain) == [(3, 0), (3, 1), (3, 2), (3, 3)] and len(plain) == 4


@pytest.mark.parametrize("world_size", [1, 2, 3])
def test_batches_of_several_processes_together_equal_those_of_one(world_size):
    size, batch = 20, 6 // world_size
    whole = [row for _, row in EpochSampler(size, shuffle=True, seed=1)]
    shares = [
        [row for _, row in EpochSampler(size, True, 1, rank, world_size)]
        for rank in range(world_size)
    ]
    assert {len(share) for share in shares} == {size // world_size}
    for start in range(0, 3):
        together = {row for s in shares for row in s[start * batch : (start + 1) * batch]}
        assert together == set(whole[start * 6 : (start + 1) * 6])


def test_test_loaders_of_several_processes_yield_each_person_once(data, monkeypatch):
    data.augmentation = None
    monkeypatch.setattr(distributed, "world_size", lambda: 3)
    rows = []
    for rank in range(3):
        monkeypatch.setattr(distributed, "rank", lambda rank=rank: rank)
        loader = TestLoader(data, 2, workers=0)
        batches = list(loader)
        assert len(batches) == len(loader)
        rows += [row for batch in batches for row in batch["index"].tolist()]
    assert sorted(rows) == list(range(11))


def test_the_same_seed_gives_the_same_batches_with_0_1_and_2_workers(data):
    loaders = [train_loader(data, 4, workers) for workers in (0, 1, 2)]
    epochs = [[epoch_of(loader, epoch) for loader in loaders] for epoch in (0, 1)]
    for alone, one, two in epochs:
        assert [len(batch["index"]) for batch in alone] == [4, 4, 3]
        assert sorted(torch.cat([batch["index"] for batch in alone]).tolist()) == list(range(11))
        assert_equal(alone, one)
        assert_equal(alone, two)
    first, second = epochs[0][0][0], epochs[1][0][0]
    assert not torch.equal(first["image"], second["image"])
    # Repeating an epoch, as after a resume, gives the same batches.
    assert_equal(epoch_of(loaders[2], 0), epochs[0][0])


@pytest.mark.parametrize(("workers", "batch_size"), [(0, 1), (0, 4), (0, 11), (0, 20), (2, 4)])
def test_a_test_loader_yields_each_person_once_in_full_batches(data, workers, batch_size):
    data.augmentation = None
    loader = TestLoader(data, batch_size, workers)
    for _ in range(2):
        batches = list(loader)
        sizes = [len(batch["index"]) for batch in batches]
        assert len(batches) == len(loader)
        assert sizes[:-1] == [batch_size] * (len(sizes) - 1) and 0 < sizes[-1] <= batch_size
        index = torch.cat([batch["index"] for batch in batches])
        assert sorted(index.tolist()) == list(range(11))
        for row, image in zip(index, torch.cat([b["image"] for b in batches]), strict=True):
            assert torch.equal(data[int(row)]["image"], image)


def test_a_test_loader_pins_the_regrouped_batches(data, monkeypatch):
    pinned = []  # needs a GPU
    monkeypatch.setattr(torch.Tensor, "pin_memory", lambda self: pinned.append(self) or self)
    batches = list(TestLoader(data, 2, workers=0, pin_memory=True))
    given = [id(value) for batch in batches for value in batch.values()]
    assert [id(value) for value in pinned] == given


def test_a_test_loader_reads_each_image_once(data, monkeypatch):
    data.augmentation = None
    read = collections.Counter()
    original = top_down.read_image

    def count(path):
        read[path] += 1
        return original(path)

    monkeypatch.setattr(top_down, "read_image", count)
    list(TestLoader(data, 3, 0))
    images = {data.table.path(row) for row in range(11)}
    assert len(images) < 11
    assert read == dict.fromkeys(images, 1)


def test_a_test_loader_accepts_people_in_any_order(data):
    data.augmentation = None
    data.table = data.source.table = data.table.select(np.array([10, 0, 5, 2, 7, 1, 9]))
    index = torch.cat([batch["index"] for batch in TestLoader(data, 2, 0)])
    assert sorted(index.tolist()) == list(range(7))


@pytest.mark.parametrize("workers", [0, 1])
@pytest.mark.parametrize("is_train", [True, False])
def test_a_broken_image_is_reported_in_one_line_also_by_workers(data, workers, is_train):
    path = data.table.path(4)
    with open(path, "r+b") as file:
        file.truncate(700)
    if not is_train:
        data.augmentation = None
    loader = train_loader(data, 4, workers) if is_train else TestLoader(data, 4, workers)
    with pytest.raises(InputError) as caught:
        list(loader)
    assert str(caught.value).startswith(f"{path}: the image file is truncated after 700 bytes")
    assert "\n" not in str(caught.value)
