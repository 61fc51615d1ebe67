"""Exponential moving average of the weights (TRAIN.EMA)."""

import contextlib
from collections.abc import Iterator

import torch
from torch import Tensor, nn


class AveragedWeights:
    """Moving average of the weights and batch norm statistics of ``network``.

    ``update`` sets the average to ``decay * average + (1 - decay) * weights``. With ``decay`` 0
    there is no average, and ``applied`` leaves the network unchanged.

    Attributes:
        weights: state dict of the averaged weights; empty if there is no average.
    """

    def __init__(self, network: nn.Module, decay: float) -> None:
        self._network = network
        self._decay = decay
        state = network.state_dict() if decay else {}
        self.weights = {key: value.clone() for key, value in state.items()}
        # `_floats` and `_counters` are pairs of lists: tensors of the average, and those of the
        # network in the same order. Floating point tensors are averaged; counters (numbers of
        # batches seen by batch norms) are copied.
        floats = [key for key, value in state.items() if value.is_floating_point()]
        self._floats = [self.weights[k] for k in floats], [state[k] for k in floats]
        counters = [key for key in state if key not in floats]
        self._counters = [self.weights[k] for k in counters], [state[k] for k in counters]

    @property
    def buffers(self) -> list[Tensor]:
        """The averaged batch norm statistics; empty if there is no average."""
        names = dict(self._network.named_buffers())
        return [value for key, value in self.weights.items() if key in names]

    @torch.no_grad()
    def update(self) -> None:
        """Update the average after a step of the optimizer."""
        if self._decay:
            torch._foreach_lerp_(*self._floats, 1 - self._decay)
            torch._foreach_copy_(*self._counters)

    @contextlib.contextmanager
    def applied(self) -> Iterator[None]:
        """Context in which the network has the averaged weights."""
        if not self._decay:
            yield
            return
        original = {key: value.clone() for key, value in self._network.state_dict().items()}
        self._network.load_state_dict(self.weights)
        try:
            yield
        finally:
            self._network.load_state_dict(original)
