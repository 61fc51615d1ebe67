"""The networks. A new one is a file here with a ``build(cfg)``, and one line in ``MODELS``."""

from collections.abc import Callable

from torch import nn
from yacs.config import CfgNode

from lib.models import dite_hrnet, lite_hrnet, pose_hrnet, pose_resnet, wide_hrnet
from lib.utils.errors import InputError

__all__ = ["MODELS", "build_model"]

MODELS: dict[str, Callable[[CfgNode], nn.Module]] = {
    "dite_hrnet": dite_hrnet.build,
    "lite_hrnet": lite_hrnet.build,
    "pose_hrnet": pose_hrnet.build,
    "pose_resnet": pose_resnet.build,
    "wide_hrnet": wide_hrnet.build,
}


def build_model(cfg: CfgNode) -> nn.Module:
    """The network MODEL.NAME as MODEL.EXTRA describes it, initialised if MODEL.INIT_WEIGHTS.

    Its ``forward`` takes normalised images (N, 3, H, W) and returns heatmaps (N, K, H/4, W/4), K
    being MODEL.NUM_JOINTS. MODEL.PRETRAINED is not read here, but by
    ``lib.models.checkpoint.load_pretrained_backbone``.

    Raises:
        InputError: no network of that name, or a value that cannot be built; it names the key.
    """
    name = cfg.MODEL.NAME
    if name not in MODELS:
        raise InputError(f"MODEL.NAME: there is no network {name!r}; known are {', '.join(MODELS)}")
    return MODELS[name](cfg)
