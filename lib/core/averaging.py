"""Exponential moving average of the weights (TRAIN.EMA)."""

import contextlib
from collections.abc import Iterator

import torch
from torch import Tensor, nn


class AveragedWeights:
    """Moving average of the weights and batch norm statistics of ``network``.

    Each step moves it by ``1 - decay`` towards the network. With ``decay`` 0 there is no average,
    and all methods use the network itself.
    """

    def __init__(self, network: nn.Module, decay: float) -> None:
        self._network = network
        self._decay = decay
        self.average: dict[str, Tensor] = {}
        if decay:
            self.average = {key: v.detach().clone() for key, v in network.state_dict().items()}

    @torch.no_grad()
    def update(self) -> None:
        """Follow a step of the optimizer."""
        if not self._decay:
            return
        state = self._network.state_dict()
        is_float = {key: value.is_floating_point() for key, value in state.items()}
        torch._foreach_lerp_(
            [value for key, value in self.average.items() if is_float[key]],
            [value for key, value in state.items() if is_float[key]],
            1 - self._decay,
        )
        for key, value in state.items():
            if not is_float[key]:
                self.average[key].copy_(value)

    @contextlib.contextmanager
    def applied(self) -> Iterator[None]:
        """Within the block, the network has the averaged weights."""
        if not self._decay:
            yield
            return
        own = {key: v.detach().clone() for key, v in self._network.state_dict().items()}
        self._network.load_state_dict(self.average)
        try:
            yield
        finally:
            self._network.load_state_dict(own)
