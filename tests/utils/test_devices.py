"""Devices, memory settings and random seeds."""

import logging
import os
import platform
import random
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from lib.utils import devices


@pytest.mark.parametrize("gpus", [(0,), (0, 1, 2, 3), ()])
def test_without_a_gpu_the_cpu_is_used_and_logged(monkeypatch, caplog, gpus):
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 0)
    with caplog.at_level(logging.INFO):
        assert devices.choose_devices(gpus) == [torch.device("cpu")]
    assert "CPU" in caplog.text


def test_missing_gpus_are_skipped_and_logged(monkeypatch, caplog):
    current = []
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    monkeypatch.setattr(torch.cuda, "set_device", current.append)
    with caplog.at_level(logging.INFO):
        chosen = devices.choose_devices((1, 0, 3))
    assert chosen == [torch.device("cuda", 1), torch.device("cuda", 0)] and current == chosen[:1]
    assert "2 of the 3" in caplog.text


def test_there_are_at_most_as_many_workers_as_cores():
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    assert devices.choose_workers(10_000) == cores
    assert devices.choose_workers(0) == 0


@pytest.mark.parametrize(
    ("flags", "has_it"),
    [("flags: avx2 avx512_bf16", True), ("flags: amx_bf16 avx2", True), ("flags: avx512f", False)],
)
def test_bfloat16_is_found_in_cpuinfo(monkeypatch, flags, has_it):
    monkeypatch.setattr(Path, "read_text", lambda *_, **__: flags)
    assert devices.has_bfloat16(torch.device("cpu")) is has_it


def test_without_cpuinfo_there_is_no_bfloat16(monkeypatch):
    def refuse(*_, **__):
        raise OSError

    monkeypatch.setattr(Path, "read_text", refuse)
    assert not devices.has_bfloat16(torch.device("cpu"))


def test_a_seed_sets_all_three_generators():
    draws = []
    for _ in range(2):
        devices.seed_everything(5)
        draws.append((random.random(), np.random.rand(), torch.rand(1).item()))  # noqa: NPY002
    assert draws[0] == draws[1]


ROOT = Path(__file__).resolve().parents[2]
GROWING_TENSORS = """
import resource, sys, torch
from lib.utils.devices import keep_memory
if sys.argv[1:]:
    keep_memory()
faults = lambda: resource.getrusage(resource.RUSAGE_SELF).ru_minflt
before = faults()
for number in range(1, 21):
    torch.ones(number * 256 * 1024)  # `number` MiB, freed immediately
print(faults() - before)
"""


@pytest.mark.skipif(
    sys.platform != "linux" or platform.libc_ver()[0] != "glibc", reason="needs glibc"
)
def test_keep_memory_avoids_page_faults():
    def faults(*args: str) -> int:
        command = [sys.executable, "-c", GROWING_TENSORS, *args]
        run = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
        return int(run.stdout)

    by_default = faults()
    if by_default < 40_000:  # 210 MiB in pages of 4 KiB
        pytest.skip("this system uses larger pages")
    assert faults("keep") < by_default / 2
