"""Helpers for distributed runs.

Without an initialized process group there is one process, with rank 0.
"""

import contextlib
import os
import re
import secrets
import sys
import time
import warnings
from collections.abc import Callable, Iterable, Iterator
from datetime import timedelta
from typing import TYPE_CHECKING, Any

from lib.utils.errors import InputError
from lib.utils.peers import Watch

if TYPE_CHECKING:
    import torch


# For each launcher, the environment variables that correspond to those of torchrun.
LAUNCHERS = {
    "none": {},
    "pytorch": {},
    "slurm": {"RANK": "SLURM_PROCID", "WORLD_SIZE": "SLURM_NTASKS", "LOCAL_RANK": "SLURM_LOCALID"},
    "mpi": {
        "RANK": "OMPI_COMM_WORLD_RANK",
        "WORLD_SIZE": "OMPI_COMM_WORLD_SIZE",
        "LOCAL_RANK": "OMPI_COMM_WORLD_LOCAL_RANK",
    },
}
STARTED_BY = {"pytorch": "torchrun", "slurm": "srun", "mpi": "Open MPI's mpirun"}
PORT = 29500  # torchrun's default
START_SECONDS = 600  # time within which all processes must start


def read_launcher(launcher: str) -> None:
    """Set torchrun's environment variables from those of ``launcher``.

    MASTER_ADDR and MASTER_PORT keep their values if they are set. Otherwise, the address is
    SLURM's first node or this machine.

    Raises:
        InputError: the process was not started by this launcher.
    """
    names = LAUNCHERS[launcher]
    required = list(names.values()) or (["WORLD_SIZE"] if launcher == "pytorch" else [])
    missing = [name for name in required if name not in os.environ]
    if missing:
        raise InputError(
            f"--launcher {launcher}: {missing[0]} is not set; start the command with "
            f"{STARTED_BY[launcher]}, or use --launcher none"
        )
    os.environ.update({name: os.environ[source] for name, source in names.items()})
    if names:
        os.environ.setdefault("MASTER_ADDR", _first_node())
        # A different port for each job, because several may share a node.
        port = PORT + int(os.environ.get("SLURM_JOB_ID", 0)) % 1000
        os.environ.setdefault("MASTER_PORT", str(port))


def _first_node() -> str:
    """Return the first of the nodes in SLURM_JOB_NODELIST, such as ``node[01-04,07]``."""
    nodes = os.environ.get("SLURM_JOB_NODELIST", "")
    first = re.match(r"([^,\[]|\[[^\]]*\])*", nodes)[0]  # to the first comma outside brackets
    return re.sub(r"\[(\w+)[^\]]*\]", r"\1", first) or "127.0.0.1"


@contextlib.contextmanager
def process_group(launcher: str = "none") -> Iterator[None]:
    """Within the block, join the processes that torchrun or ``launcher`` started, if any.

    If a process ends early, the others report which one it was, and end as well (see ``Watch``).
    """
    read_launcher(launcher)
    if int(os.environ.get("WORLD_SIZE", "1")) == 1:
        yield
        return
    import torch
    from torch.distributed.rendezvous import rendezvous

    if torch.cuda.is_available():
        torch.cuda.set_device(local_gpu())
    store, own_rank, count = next(rendezvous("env://", timeout=timedelta(seconds=START_SECONDS)))
    torch.distributed.init_process_group(
        "nccl" if torch.cuda.is_available() else "gloo",
        store=_fresh_store(store, own_rank, count),
        rank=own_rank,
        world_size=count,
    )
    watch = Watch(rank(), gather)
    try:
        yield
    except BaseException as error:
        if cause := watch.leave(error):
            raise cause from None
        raise
    watch.leave()
    torch.distributed.destroy_process_group()


def _fresh_store(store: Any, own_rank: int, count: int) -> Any:
    """Return a ``PrefixStore`` on ``store`` that has no keys of earlier processes.

    When torchrun restarts processes, its store may still have the addresses of the dead ones.
    Therefore, rank 0 publishes a new token, which becomes the prefix. Each of the other ranks
    answers with this token and a token of its own. When all have answered, rank 0 sets a key named
    after each rank's own token. This confirms that the rank did not read an old token of rank 0.

    Raises:
        InputError: a process has not started after START_SECONDS.
    """
    from torch.distributed import PrefixStore

    def wait(is_done: Callable[[], bool], other: int) -> None:
        while not is_done():
            if time.monotonic() > deadline:
                raise InputError(f"rank {other} has not started after {START_SECONDS} seconds")
            time.sleep(0.05)

    def read(key: str) -> str:
        return store.get(key).decode() if store.check([key]) else ""

    def answer() -> bool:
        store.set(f"answer {own_rank}", f"{read('token')} {own_token}")
        return store.check([own_token])

    own_token, deadline = secrets.token_hex(8), time.monotonic() + START_SECONDS
    if own_rank > 0:
        wait(answer, 0)
        return PrefixStore(read(own_token), store)
    store.set("token", own_token)
    others = range(1, count)
    for other in others:
        wait(lambda key=f"answer {other}": read(key).startswith(own_token), other)
    for other in others:
        store.set(read(f"answer {other}").split()[1], own_token)
    return PrefixStore(own_token, store)


def rank() -> int:
    """Return the rank of this process."""
    dist = _torch_distributed()
    return dist.get_rank() if dist else 0


def world_size() -> int:
    """Return the number of processes."""
    dist = _torch_distributed()
    return dist.get_world_size() if dist else 1


def local_rank() -> int:
    """Return the rank of this process among those on its machine."""
    return int(os.environ.get("LOCAL_RANK", "0"))


def local_gpu() -> int:
    """Return the index of this process's GPU; 0 if the process sees only one."""
    import torch

    return local_rank() % max(torch.cuda.device_count(), 1)


def is_main() -> bool:
    """Return True in the process that writes files and logs."""
    return rank() == 0


def gather(value: Any) -> list[Any]:
    """Return the values of all processes, by rank; ``value`` must be picklable."""
    if world_size() == 1:
        return [value]
    values: list[Any] = [None] * world_size()
    _torch_distributed().all_gather_object(values, value)
    return values


def all_reduce_sum(value: "torch.Tensor") -> "torch.Tensor":
    """Return the sum of a tensor over all processes."""
    if world_size() > 1:
        value = value.clone()
        _torch_distributed().all_reduce(value)
    return value


def any_of(flag: bool) -> bool:
    """Return True if ``flag`` is True in any process; every process must call this."""
    return any(gather(flag))


def check_equal(values: dict[str, Any]) -> None:
    """Raise InputError if a value differs between processes.

    A difference means that the processes see different files. Every process must call this.
    """
    for name, value in values.items():
        first, *others = gather(value)
        for other, found in enumerate(others, 1):
            if found != first:
                raise InputError(
                    f"{name}: {first} for rank 0, but {found} for rank {other}; all processes "
                    "must see the same data and the same OUTPUT_DIR"
                )


def average(tensors: "Iterable[torch.Tensor]") -> None:
    """Average floating-point tensors over all processes, in place; others are left unchanged."""
    if world_size() == 1:
        return
    for tensor in tensors:
        if tensor.is_floating_point():
            tensor.copy_(all_reduce_sum(tensor) / world_size())


def sync_batch_norms(model: "torch.nn.Module", device: "torch.device") -> "torch.nn.Module":
    """Replace batch norms with SyncBatchNorm, which uses the batches of all processes.

    With a single process, the model is returned unchanged.

    Raises:
        InputError: ``device`` is not a GPU, which PyTorch requires.
    """
    if world_size() == 1:
        return model
    if device.type != "cuda":
        raise InputError("TRAIN.SYNC_BN: needs GPUs; set it to False")
    import torch

    return torch.nn.SyncBatchNorm.convert_sync_batchnorm(model)


def data_parallel(model: "torch.nn.Module") -> "torch.nn.Module":
    """Wrap a network so that training averages the gradients of all processes.

    Each process keeps its own running statistics of batch norms; ``average`` averages them.
    """
    if world_size() == 1:
        return model
    from torch.nn.parallel import DistributedDataParallel

    warnings.filterwarnings("ignore", "Grad strides do not match")  # harmless in channels-last
    with warnings.catch_warnings():
        # Newer releases of PyTorch rename broadcast_buffers.
        warnings.simplefilter("ignore", FutureWarning)
        # A broadcast of buffers would also happen in evaluation, where processes have different
        # numbers of batches and would wait for each other forever.
        return DistributedDataParallel(
            model,
            broadcast_buffers=False,
            gradient_as_bucket_view=True,
            # The search for unused parameters takes time in every step.
            find_unused_parameters=any(
                hasattr(m, "has_unused_parameters") for m in model.modules()
            ),
        )


def _torch_distributed() -> Any:
    """Return ``torch.distributed`` if a process group is initialized, else None."""
    # Not imported here: every command that writes a file calls this, and importing PyTorch is slow.
    dist = sys.modules.get("torch.distributed")
    return dist if dist and dist.is_available() and dist.is_initialized() else None
