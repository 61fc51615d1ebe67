"""Compilation of networks with torch.compile."""

import logging
import sys
from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn

from lib.utils.errors import InputError

logger = logging.getLogger(__name__)

CUDA_GRAPHS = {"triton.cudagraphs": True}


def compile_in_place(network: nn.Module, devices: Sequence[torch.device], key: str) -> None:
    """Compile ``network`` for training on ``devices``; the state dict does not change.

    Raises:
        InputError: torch.compile does not work here; the message names the setting ``key``.
    """
    check_compiler(devices, key)
    network.compile()


def compile_for_inference(
    network: nn.Module, devices: Sequence[torch.device], key: str
) -> Callable[[Tensor], Tensor | Sequence[Tensor]]:
    """Compile ``network``, which must be in evaluation mode, and return a function that runs it.

    The weights must not change afterwards. Call the function in inference mode. On a GPU, batches
    of the same size as the first one run as CUDA graphs, which saves the time to launch small
    operations.

    Raises:
        InputError: torch.compile does not work here; the message names the setting ``key``.
    """
    check_compiler(devices, key)
    if devices[0].type != "cuda":
        return torch.compile(network, options={"freezing": True})
    # Graphs for many sizes would take too much memory. Other sizes are compiled separately, because
    # torch.compile would use code for any size, without a graph, for the first size as well.
    run_first_size = torch.compile(network, dynamic=False, options=CUDA_GRAPHS)
    run_other_sizes = torch.compile(network)
    first_size: torch.Size | None = None

    def run_compiled(images: Tensor) -> Tensor | Sequence[Tensor]:
        nonlocal first_size
        first_size = first_size or images.shape
        if images.shape != first_size:
            return run_other_sizes(images)
        outputs = run_first_size(images)
        # The next run overwrites the outputs of a CUDA graph.
        return outputs.clone() if isinstance(outputs, Tensor) else [x.clone() for x in outputs]

    return run_compiled


def compiler_error(error: RuntimeError) -> InputError | None:
    """Return an InputError if ``error``, raised by a compiled network, comes from torch.compile."""
    dynamo = sys.modules.get("torch._dynamo")
    if dynamo is None or not isinstance(error, dynamo.exc.TorchDynamoException):
        return None
    reason = next(iter(str(error).splitlines()), type(error).__name__)
    return InputError(
        f"torch.compile failed ({reason}); set TRAIN.COMPILE and TEST.COMPILE to False"
    )


def check_compiler(devices: Sequence[torch.device], key: str) -> None:
    """Compile a small function, or raise an InputError if torch.compile does not work here."""
    if len(devices) > 1:
        raise InputError(
            f"{key}: works on one device only; use a single GPU, or several with torchrun, or set "
            "it to False"
        )
    # With a cached result, a missing compiler would not be noticed.
    trial = torch.compile(lambda x: x.sin() + 1, options={"fx_graph_cache": False})
    try:
        trial(torch.zeros(8, device=devices[0]))
    except Exception as error:  # torch.compile raises exceptions of many types
        reason = next(iter(str(error).splitlines()), type(error).__name__)
        raise InputError(
            f"{key}: torch.compile does not work here ({reason}); install a C++ compiler and the "
            "headers of Python, or set it to False"
        ) from None
    logger.info("=> %s: the network is compiled in its first steps, which can take minutes", key)
