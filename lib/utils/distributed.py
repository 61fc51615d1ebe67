"""Helpers for distributed runs.

Without an initialized process group there is one process, with rank 0.
"""

import contextlib
import os
import re
import sys
import warnings
from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING, Any

from lib.utils.errors import InputError

if TYPE_CHECKING:
    import torch


# Variables that launchers set, by torchrun's names.
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
STARTED_BY = {"pytorch": "torchrun", "slurm": "srun", "mpi": "mpirun of Open MPI"}
PORT = 29500


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
        os.environ.setdefault("MASTER_PORT", str(PORT))


def _first_node() -> str:
    """Return the first of the nodes in SLURM_JOB_NODELIST, such as ``node[01-04,07]``."""
    nodes = os.environ.get("SLURM_JOB_NODELIST", "")
    return re.sub(r"^([^,\[]*)(?:\[(\w+)[^\]]*\])?.*$", r"\1\2", nodes) or "127.0.0.1"


@contextlib.contextmanager
def process_group(launcher: str = "none") -> Iterator[None]:
    """Within the block, join the processes that torchrun or ``launcher`` started, if any."""
    read_launcher(launcher)
    if int(os.environ.get("WORLD_SIZE", "1")) == 1:
        yield
        return
    import torch

    if torch.cuda.is_available():
        torch.cuda.set_device(local_gpu())
    torch.distributed.init_process_group("nccl" if torch.cuda.is_available() else "gloo")
    try:
        yield
    finally:
        torch.distributed.destroy_process_group()


def rank() -> int:
    """Return the rank of this process."""
    dist = _initialized()
    return dist.get_rank() if dist else 0


def world_size() -> int:
    """Return the number of processes."""
    dist = _initialized()
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
    _initialized().all_gather_object(values, value)
    return values


def all_reduce_sum(value: "torch.Tensor") -> "torch.Tensor":
    """Return the sum of a tensor over all processes."""
    if world_size() > 1:
        value = value.clone()
        _initialized().all_reduce(value)
    return value


def any_of(flag: bool) -> bool:
    """Return True if ``flag`` is True in any process; each must call this."""
    return any(gather(flag))


def average(tensors: "Iterable[torch.Tensor]") -> None:
    """Average floating-point tensors over all processes, in place; others are left unchanged."""
    if world_size() == 1:
        return
    for tensor in tensors:
        if tensor.is_floating_point():
            tensor.copy_(all_reduce_sum(tensor) / world_size())


def sync_batch_norms(model: "torch.nn.Module", device: "torch.device") -> "torch.nn.Module":
    """Return the network with batch norms that use the batches of all processes.

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

    Batch norm statistics are computed by each process; see ``average``.
    """
    if world_size() == 1:
        return model
    from torch.nn.parallel import DistributedDataParallel

    warnings.filterwarnings("ignore", "Grad strides do not match")  # harmless, in channels-last
    with warnings.catch_warnings():
        # Newer releases of PyTorch have other names for broadcast_buffers.
        warnings.simplefilter("ignore", FutureWarning)
        # Buffers are not broadcast: it would also happen in evaluation, where processes have
        # different numbers of batches and would wait for each other forever.
        return DistributedDataParallel(model, broadcast_buffers=False, gradient_as_bucket_view=True)


def _initialized() -> Any:
    """Return ``torch.distributed`` if a process group is initialized, else None."""
    # Not imported here: writing a file must not cost the seconds that importing PyTorch takes.
    dist = sys.modules.get("torch.distributed")
    return dist if dist and dist.is_available() and dist.is_initialized() else None
