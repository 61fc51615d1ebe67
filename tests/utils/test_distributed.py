"""Distributed helpers, with several gloo processes."""

import multiprocessing
import os
import socket

import pytest
import torch
import torch.distributed as dist

from lib.utils import distributed
from lib.utils.errors import InputError
from lib.utils.events import EventWriter
from lib.utils.files import write_atomically


def test_a_single_process_is_the_main_one():
    assert (distributed.rank(), distributed.world_size(), distributed.is_main()) == (0, 1, True)
    assert distributed.gather("a") == ["a"]
    assert distributed.all_reduce_sum(torch.tensor([2.0])).tolist() == [2]


def _work(rank: int, port: int, results) -> None:
    dist.init_process_group("gloo", f"tcp://localhost:{port}", rank=rank, world_size=2)
    total = distributed.all_reduce_sum(torch.tensor([1.0 + rank]))
    results.put((rank, distributed.is_main(), distributed.gather(rank), total.tolist()))
    with pytest.raises(InputError, match="epoch: 7 for rank 0, but 8 for rank 1"):
        distributed.check_equal({"step": 2, "epoch": 7 + rank})
    dist.destroy_process_group()


@pytest.mark.skipif(not dist.is_gloo_available(), reason="this PyTorch has no gloo")
def test_two_processes_gather_by_rank_and_sum():
    with socket.socket() as free:
        free.bind(("localhost", 0))
        port = free.getsockname()[1]
    context = multiprocessing.get_context("spawn")
    results = context.SimpleQueue()
    processes = [context.Process(target=_work, args=(rank, port, results)) for rank in (0, 1)]
    for process in processes:
        process.start()
    for process in processes:
        process.join(60)
    assert [process.exitcode for process in processes] == [0, 0]
    assert sorted(results.get() for _ in processes) == [
        (0, True, [0, 1], [3.0]),
        (1, False, [0, 1], [3.0]),
    ]


def test_only_the_main_process_writes_files_and_logs(tmp_path, monkeypatch):
    monkeypatch.setattr(distributed, "rank", lambda: 1)
    write_atomically(tmp_path / "results.json", b"[]")
    writer = EventWriter(tmp_path / "log")
    writer.add_scalar("loss", 1.0, 0)
    writer.close()
    assert list(tmp_path.iterdir()) == []
    monkeypatch.setattr(distributed, "rank", lambda: 0)
    write_atomically(tmp_path / "results.json", b"[]")
    assert (tmp_path / "results.json").read_bytes() == b"[]"


@pytest.mark.parametrize(
    ("nodes", "first"),
    [
        ("node[03-04,07],other", "node03"),
        ("a1,a2", "a1"),
        ("gpu-[2]", "gpu-2"),
        ("rack[1-2]n[05-06],b1", "rack1n05"),
        ("", "127.0.0.1"),
    ],
)
def test_slurm_variables_are_read(monkeypatch, nodes, first):
    for name in ("RANK", "WORLD_SIZE", "LOCAL_RANK", "MASTER_ADDR", "MASTER_PORT"):
        monkeypatch.setenv(name, "")
        monkeypatch.delenv(name)
    values = {"PROCID": "5", "NTASKS": "8", "LOCALID": "1", "JOB_ID": "1234567"}
    for name, value in values.items():
        monkeypatch.setenv(f"SLURM_{name}", value)
    monkeypatch.setenv("SLURM_JOB_NODELIST", nodes)
    distributed.read_launcher("slurm")
    assert [os.environ[n] for n in ("RANK", "WORLD_SIZE", "LOCAL_RANK")] == ["5", "8", "1"]
    assert (os.environ["MASTER_ADDR"], os.environ["MASTER_PORT"]) == (first, "30067")
