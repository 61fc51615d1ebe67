"""The base class of all networks: a backbone with a head."""

from typing import Any

from torch import Tensor, nn

HEAD_PREFIX = "head."


class PoseNetwork(nn.Module):
    """A backbone with a head.

    ``feature_channels`` and ``feature_strides`` describe the maps returned by ``features``, from
    fine to coarse. ``main_level`` is the index of the map used by heads that take a single map.

    In the state dict the head's entries have no ``head.`` prefix, as in the published files of
    HRNet, SimpleBaseline, TransPose and SimCC.
    """

    feature_channels: tuple[int, ...]
    feature_strides: tuple[int, ...] = (4,)
    main_level: int = 0
    head: nn.Module

    def __init__(self) -> None:
        super().__init__()
        self.register_state_dict_post_hook(_remove_prefix)
        self.register_load_state_dict_pre_hook(_add_prefix)

    def features(self, x: Tensor) -> list[Tensor]:
        """Run the backbone: images (N, 3, H, W) -> maps (N, C_i, H / stride_i, W / stride_i)."""
        raise NotImplementedError

    def forward(self, x: Tensor) -> Tensor | list[Tensor]:
        """Run backbone and head on normalised images (N, 3, H, W).

        Returns a tensor or a list of tensors, as the published code does.
        """
        return self.head(self.features(x))


def _remove_prefix(network: PoseNetwork, state: dict[str, Any], prefix: str, _: Any) -> None:
    for key in [key for key in state if key.startswith(prefix + HEAD_PREFIX)]:
        state[prefix + key.removeprefix(prefix + HEAD_PREFIX)] = state.pop(key)


def _add_prefix(network: PoseNetwork, state: dict[str, Any], prefix: str, *_: Any) -> None:
    for name in network.head.state_dict():
        if prefix + name in state:
            state[prefix + HEAD_PREFIX + name] = state.pop(prefix + name)
