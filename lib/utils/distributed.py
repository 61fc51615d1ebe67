"""Helpers for distributed runs.

Without an initialized process group there is one process, with rank 0.
"""

import sys
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import torch


def rank() -> int:
    """Return the rank of this process."""
    dist = _initialized()
    return dist.get_rank() if dist else 0


def world_size() -> int:
    """Return the number of processes."""
    dist = _initialized()
    return dist.get_world_size() if dist else 1


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


def _initialized() -> Any:
    """Return ``torch.distributed`` if a process group is initialized, else None."""
    # Not imported here: writing a file must not cost the seconds that importing PyTorch takes.
    dist = sys.modules.get("torch.distributed")
    return dist if dist and dist.is_available() and dist.is_initialized() else None
