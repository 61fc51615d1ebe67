"""Set-up for all tests: the number of threads, and faster networks on the meta device."""

import os

import pytest

# With more threads than cores, threads wait for each other. The limit must be set before PyTorch is
# imported, and also holds for the commands that tests start. A given OMP_NUM_THREADS is kept.
workers = int(os.environ.get("PYTEST_XDIST_WORKER_COUNT", "1"))
if workers > 1:
    has_affinity = hasattr(os, "sched_getaffinity")  # macOS has none
    cores = len(os.sched_getaffinity(0)) if has_affinity else os.cpu_count() or 1
    threads = max(1, cores // workers)
    os.environ.setdefault("OMP_NUM_THREADS", str(threads))


@pytest.fixture(autouse=True)
def trusted(monkeypatch):
    """Trust TorchScript files: the tests write them."""
    monkeypatch.setenv("HRPOSE_TRUST_TORCHSCRIPT", "1")


@pytest.fixture
def quick_shapes(monkeypatch):
    """Make networks on the meta device faster: skip initialization and most of batch norms.

    Both run in Python there, and would take longer than everything else.
    """
    from lib.models.layers.blocks import init_function  # not before the threads are set

    def batch_norm(x, mean, *args, **kwargs):
        assert x.shape[1] == len(mean)
        return x

    monkeypatch.setattr("torch.nn.functional.batch_norm", batch_norm)
    monkeypatch.setattr("lib.models.init_function", lambda cfg: init_function(cfg) and None)
