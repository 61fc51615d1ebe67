"""What every network here is: features of a picture, and a head that makes an answer of them."""

from torch import Tensor, nn

HEAD = "head."


class PoseNetwork(nn.Module):
    """A backbone with a head on it.

    ``feature_channels`` and ``feature_strides`` tell what ``features`` returns, from the finest map
    to the coarsest; ``main_level`` is the one that a head for a single map takes.

    In the state dict the head's entries stand beside the backbone's, without ``head.`` before them,
    as in the published files of HRNet, SimpleBaseline, TransPose and SimCC.
    """

    feature_channels: tuple[int, ...]
    feature_strides: tuple[int, ...] = (4,)
    main_level: int = 0
    head: nn.Module

    def features(self, x: Tensor) -> list[Tensor]:
        """Normalised images (N, 3, H, W) -> maps (N, C_i, H / stride_i, W / stride_i)."""
        raise NotImplementedError

    def forward(self, x: Tensor) -> Tensor | list[Tensor]:
        """Normalised images (N, 3, H, W) -> what the head makes of them (lib/models/heads.py)."""
        return self.head(self.features(x))

    def state_dict(self, *args, destination=None, prefix: str = "", keep_vars: bool = False):
        state = super().state_dict(
            *args, destination=destination, prefix=prefix, keep_vars=keep_vars
        )
        for key in [key for key in state if key.startswith(prefix + HEAD)]:
            state[prefix + key.removeprefix(prefix + HEAD)] = state.pop(key)
        return state

    def _load_from_state_dict(self, state_dict, prefix: str, *args) -> None:
        # The children's entries are looked up after this, under their names here.
        for name in self.head.state_dict():
            if prefix + name in state_dict:
                state_dict[prefix + HEAD + name] = state_dict.pop(prefix + name)
        super()._load_from_state_dict(state_dict, prefix, *args)
