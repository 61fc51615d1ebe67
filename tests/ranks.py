"""Run a command in several processes, as srun does, with faults in some of them.

The processes are forks of a server that has already imported the libraries, which takes seconds.
As a script, ``tests/ranks.py "RANK FAULT" train ARGUMENTS`` runs tools/train.py with a fault in one
rank, unless torchrun has restarted it.
"""

import errno
import importlib.util
import multiprocessing
import os
import signal
import socket
import sys
import time
from pathlib import Path
from typing import NamedTuple
from unittest import mock

ROOT = Path(__file__).resolve().parents[1]
# Imported once by the server.
MODULES = ("torch._dynamo", "torch._refs", "torch.nn.parallel", "tensorboardX", "train")
TIMEOUT = 120
SIGNALS = {"kill": signal.SIGKILL, "term": signal.SIGTERM, "usr1": signal.SIGUSR1}

context = multiprocessing.get_context("forkserver")
context.set_forkserver_preload(list(MODULES))


class Ended(NamedTuple):
    """Exit codes and standard errors by rank, and the output of rank 0."""

    codes: list[int]
    errors: list[str]
    out: str
    seconds: float


def free_port() -> int:
    with socket.socket() as free:
        free.bind(("localhost", 0))
        return free.getsockname()[1]


def run(folder: Path, name: str, count: int, *arguments: object, faults=None, **options) -> Ended:
    """Run ``tools/<name>.py`` with ``arguments`` in ``count`` processes.

    Args:
        folder: for the outputs of the processes.
        faults: see ``break_command``; by rank.
        options: of ``break_command``, for all ranks.
    """
    shared = {"WORLD_SIZE": str(count), "MASTER_ADDR": "localhost"}
    shared["MASTER_PORT"] = str(free_port())
    words, faults = [str(word) for word in arguments], faults or {}
    processes = []
    for rank in range(count):
        environment = {**shared, "RANK": str(rank), "LOCAL_RANK": str(rank)}
        files = [str(folder / f"{kind}{rank}.txt") for kind in ("out", "err")]
        args = (name, words, environment, files, faults.get(rank, ""), options)
        processes.append(context.Process(target=_main, args=args))
    start = time.monotonic()
    with mock.patch.dict(os.environ, PYTHONPATH=f"{ROOT}:{ROOT}/tools"):  # of the server
        for process in processes:
            process.start()
    for process in processes:
        process.join(max(TIMEOUT + start - time.monotonic(), 0))
    seconds = time.monotonic() - start
    for process in processes:
        process.kill()
        process.join()
    errors = [(folder / f"err{rank}.txt").read_text() for rank in range(count)]
    out = (folder / "out0.txt").read_text()
    return Ended([process.exitcode for process in processes], errors, out, seconds)


def _main(name: str, words: list[str], environment, files: list[str], fault: str, options) -> None:
    for number, file in enumerate(files, 1):
        os.dup2(os.open(file, os.O_WRONLY | os.O_CREAT | os.O_TRUNC), number)
    os.environ.update(environment)
    sys.stdout, sys.stderr = os.fdopen(1, "w", 1), os.fdopen(2, "w", 1)
    import torch

    torch.set_num_threads(1)
    run_command(name, words, fault, **options)


def run_command(name: str, words: list[str], fault: str = "", **options) -> None:
    """Run a command in this process."""
    folder = ROOT / "tools"
    sys.path[:0] = [str(folder), str(ROOT)]
    spec = importlib.util.spec_from_file_location(f"hrpose_tools_{name}", folder / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    break_command(module, fault, **options)
    sys.argv = [str(folder / f"{name}.py"), *words]
    module.run(module.main)


def break_command(
    module, fault: str = "", frozen: bool = False, agreement: int = 0, grace: float = 0
) -> None:
    """Put a fault into a command.

    Args:
        fault: "KIND EPOCH STEP": in this step the process gets a signal (a key of SIGNALS), sleeps
            ("sleep"), or has a NaN loss ("nan"; with "nans" also in all later steps). Or "full
            FILE": the disk is full when this file is written.
        frozen: batch norms keep their statistics, so that many processes compute the same as one.
        agreement: number of updates between agreements of the processes.
        grace: seconds that a process has to end by itself after another one failed.
    """
    import torch

    from lib.core import recorder
    from lib.utils import peers

    recorder.write_curves = lambda *_: None  # takes half of the time
    if frozen:
        torch.nn.BatchNorm2d.train = lambda self, mode=True: torch.nn.Module.train(self, False)
    if agreement:
        module.AGREEMENT_FREQ = agreement
    peers.GRACE_SECONDS = grace or peers.GRACE_SECONDS
    kind, _, where = fault.partition(" ")
    if kind == "full":
        _fill_disk(where)
    elif fault:
        _break_step(module, kind, tuple(map(int, where.split())))


def _fill_disk(name: str) -> None:
    fsync = os.fsync

    def full(handle: int) -> None:
        if name in os.readlink(f"/proc/self/fd/{handle}"):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        fsync(handle)

    os.fsync = full


def _break_step(module, kind: str, where: tuple[int, int]) -> None:
    from lib.core.top_down import TopDown

    step_seed, loss, now = module.step_seed, TopDown.loss, [(-1, -1)]

    def step_seed_with_fault(seed: int, epoch: int, step: int) -> int:
        now[0] = (epoch, step)
        if now[0] == where and kind in SIGNALS:
            os.kill(os.getpid(), SIGNALS[kind])
        if now[0] == where and kind == "sleep":
            time.sleep(TIMEOUT)
        return step_seed(seed, epoch, step)

    def loss_with_fault(self, outputs, batch):
        losses = loss(self, outputs, batch)
        if (kind == "nan" and now[0] == where) or (kind == "nans" and now[0] >= where):
            losses.total = losses.total * float("nan")
        return losses

    module.step_seed, TopDown.loss = step_seed_with_fault, loss_with_fault


if __name__ == "__main__":
    is_meant = sys.argv[1].startswith(os.environ["RANK"] + " ")
    is_meant &= os.environ.get("TORCHELASTIC_RESTART_COUNT", "0") == "0"
    run_command(sys.argv[2], sys.argv[3:], sys.argv[1][2:] if is_meant else "")
