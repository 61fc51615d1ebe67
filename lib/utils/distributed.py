"""Helpers for distributed runs.

Without an initialized process group there is one process, with rank 0.
"""

from typing import Any

import torch
import torch.distributed as dist


def rank() -> int:
    """Return the rank of this process."""
    return dist.get_rank() if _is_running() else 0


def world_size() -> int:
    """Return the number of processes."""
    return dist.get_world_size() if _is_running() else 1


def is_main() -> bool:
    """Return True in the process that writes files and logs."""
    return rank() == 0


def gather(value: Any) -> list[Any]:
    """Return the values of all processes, by rank; ``value`` must be picklable."""
    if world_size() == 1:
        return [value]
    values: list[Any] = [None] * world_size()
    dist.all_gather_object(values, value)
    return values


def all_reduce_sum(value: torch.Tensor) -> torch.Tensor:
    """Return the sum of a tensor over all processes."""
    if world_size() > 1:
        value = value.clone()
        dist.all_reduce(value)
    return value


def _is_running() -> bool:
    return dist.is_available() and dist.is_initialized()
