"""Broken images, and data-loading processes that fail."""

import logging
import os
import signal
import subprocess
import time

import pytest
import torch

from lib.config import load_config
from lib.dataset import build_dataset, loading
from lib.dataset.broken import BrokenImages
from lib.dataset.loading import test_loader, train_loader
from lib.utils import distributed, signals
from lib.utils.errors import InputError
from tests import tiny


@pytest.fixture(params=["experiment", "scenes"])
def build(request, tmp_path):
    """Five images of two people, the second broken: crops, or whole images."""
    tiny.write_coco(tmp_path, images=5)
    cfg = load_config(getattr(tiny, request.param)(tmp_path / "tiny.yaml", tmp_path))
    (tmp_path / "images" / "val2017" / "000000000002.jpg").write_bytes(b"\xff\xd8 no image")
    return lambda is_train: build_dataset(cfg, "val2017", is_train)


@pytest.fixture
def dataset(build):
    return build(is_train=True)


def indices(loader) -> list[int]:
    return torch.cat([batch["index"] for batch in loader]).tolist()


def test_a_broken_image_is_replaced_by_the_next_and_logged_once(dataset, caplog):
    loader = train_loader(dataset, 2, 0, shuffle=False, max_broken=0.2)
    with caplog.at_level(logging.WARNING):
        first, second = indices(loader), indices(loader)
    is_scene = len(dataset) == 5
    expected = [0, 2, 2, 3] if is_scene else [0, 1, 4, 4, *range(4, 10)]
    assert first == second == expected
    (record,) = caplog.records
    assert "000000000002.jpg" in record.getMessage()


def test_too_many_broken_images_are_an_error(dataset):
    loader = train_loader(dataset, 2, 0, shuffle=False, max_broken=0.1)
    with pytest.raises(InputError, match=r"000000000002\.jpg: .*1 of 5 images are broken.*0\.1\)"):
        indices(loader)


@pytest.mark.parametrize("workers", [0, 2])
def test_every_test_skips_and_reports_broken_images(build, workers, caplog):
    dataset = build(is_train=False)
    loader = test_loader(dataset, 3, workers, max_broken=0.2)
    expected = [0, 2, 3, 4] if len(dataset) == 5 else [0, 1, *range(4, 10)]
    for _ in range(2):
        caplog.clear()
        assert indices(loader) == expected
        loader.broken.report()
        file, total = (record.getMessage() for record in caplog.records)
        assert file.startswith("=> broken image, left out: ") and "000000000002.jpg: " in file
        assert total == "=> 1 of 5 images are broken; 2 people in them count as not found"


def test_broken_images_of_all_processes_are_counted(build, monkeypatch):
    loader = test_loader(build(is_train=False), 3, 0, max_broken=0.2)
    indices(loader)
    monkeypatch.setattr(distributed, "gather", lambda own: [{"a.jpg": "a.jpg: is empty"}, own])
    with pytest.raises(InputError, match=r"a\.jpg: is empty \(2 of 5 .*TEST\.MAX_BROKEN is 0\.2"):
        loader.broken.report()


def test_by_default_a_broken_image_stops_a_test(build):
    with pytest.raises(InputError, match=r"002\.jpg: .*1 of 5 images.*TEST\.MAX_BROKEN is 0\)"):
        indices(test_loader(build(is_train=False), 3, 0))


class _Failing(torch.utils.data.Dataset):
    def __init__(self, action, size: int) -> None:
        self._action = action
        self._size = size

    def __len__(self) -> int:
        return self._size

    def __getitem__(self, _) -> dict[str, torch.Tensor]:
        self._action()
        return {"index": torch.zeros(1), "broken": torch.tensor(-1)}


def failing(action, workers: int = 1, size: int = 1) -> loading._Loader:
    dataset = _Failing(action, size)
    return loading._Loader(dataset, BrokenImages(dataset, 0), workers)


def test_a_killed_worker_is_reported_in_one_line():
    loader = failing(lambda: os.kill(os.getpid(), signal.SIGKILL))
    with pytest.raises(InputError, match=r"process was killed, usually .*WORKERS"):
        list(loader)


def test_a_hanging_worker_is_reported_in_one_line(monkeypatch):
    monkeypatch.setattr(loading, "WORKER_TIMEOUT", 0.5)
    loader = failing(lambda: time.sleep(2))
    with pytest.raises(InputError, match=r"has not answered for 0\.5 seconds.*WORKERS 0"):
        list(loader)


def test_workers_ignore_signals():
    loader = failing(lambda: None, workers=2, size=20)
    batches = iter(loader)
    next(batches)
    pids = " ".join(str(worker.pid) for worker in loader._iterator._workers)
    for name in signals.NAMES:  # not from this process, which is the workers' parent
        subprocess.run(["sh", "-c", f"kill -{name[3:]} {pids}"], check=True)
    assert len(list(batches)) == 19


def test_a_hanging_worker_ends_when_its_parent_terminates_it():
    loader = failing(lambda: time.sleep(60))
    with signals.blocked():
        (worker,) = loader._get_iterator()._workers
    worker.terminate()
    worker.join(20)
    assert worker.exitcode == 0


def test_pytorchs_errors_about_workers_are_translated():
    error = RuntimeError("DataLoader worker (pid 7) is killed by signal: Killed.")
    assert "was killed" in str(loading.worker_error(error))
    assert "--ipc=host" in str(loading.worker_error(RuntimeError("unable to open shared memory")))
    assert loading.worker_error(RuntimeError("shapes do not match")) is None
