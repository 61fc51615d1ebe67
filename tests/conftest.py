"""Processes of pytest-xdist share the processor's cores."""

import os

# Before PyTorch is imported, and for the commands that tests start. Threads that outnumber the cores
# wait for each other. A given OMP_NUM_THREADS stays.
workers = int(os.environ.get("PYTEST_XDIST_WORKER_COUNT", "1"))
if workers > 1:
    threads = max(1, len(os.sched_getaffinity(0)) // workers)
    os.environ.setdefault("OMP_NUM_THREADS", str(threads))
