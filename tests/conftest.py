"""What all tests share: threads, and networks without numbers."""

import os

import pytest

# Before PyTorch is imported, and for the commands that tests start. More threads than cores wait
# for each other. A given OMP_NUM_THREADS stays.
workers = int(os.environ.get("PYTEST_XDIST_WORKER_COUNT", "1"))
if workers > 1:
    threads = max(1, len(os.sched_getaffinity(0)) // workers)
    os.environ.setdefault("OMP_NUM_THREADS", str(threads))


@pytest.fixture
def quick_shapes(monkeypatch):
    """Networks for the meta device: weights stay as PyTorch makes them, and batch norms only check
    their channels. Both are written in Python there, and would take longer than everything else.
    """
    from lib.models.blocks import init_method  # not before the threads are set

    def batch_norm(x, mean, *args, **kwargs):
        assert x.shape[1] == len(mean)
        return x

    monkeypatch.setattr("torch.nn.functional.batch_norm", batch_norm)
    monkeypatch.setattr("lib.models.init_method", lambda cfg: init_method(cfg) and None)
