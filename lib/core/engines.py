"""What makes keypoints of crops: PyTorch with a network's weights, or an exported file.

An engine is a function of uint8 RGB crops (N, 3, H, W) on the CPU; it returns keypoints (N, K, 2)
in crop pixels and scores (N, K), float32, on the CPU too.
"""

from collections.abc import Callable, Sequence
from pathlib import Path

import torch
from torch import Tensor, nn
from yacs.config import CfgNode

from lib.core.codecs import build_codec
from lib.core.codecs.codec import Codec, Outputs
from lib.core.exported import PRECISIONS, RUNNERS, Runner, open_exported
from lib.core.validate import predict
from lib.dataset.skeletons import Skeleton
from lib.dataset.transforms import normalize
from lib.models import build_model
from lib.models.checkpoint import load_checkpoint
from lib.models.folding import fold_batch_norms
from lib.utils.devices import has_bfloat16
from lib.utils.errors import InputError

Engine = Callable[[Tensor], Sequence[Tensor]]


class TorchEngine:
    """Normalising, network, flip test and decoding in PyTorch.

    Args:
        network: from normalised crops to outputs; in evaluation mode and on ``device``.
        precision: float32, or bfloat16 for what autocast leaves to it; decoding is in float32.
    """

    def __init__(
        self,
        network: Callable[[Tensor], Outputs],
        codec: Codec,
        is_rgb: bool = True,
        flip_test: bool = False,
        device: torch.device | str = "cpu",
        precision: str = "float32",
    ) -> None:
        self.codec = codec
        self._network = network
        self._is_rgb = is_rgb
        self._flip_test = flip_test
        self._device = torch.device(device)
        self._is_half = precision == "bfloat16"
        if self._is_half and not has_bfloat16(self._device):
            raise InputError("precision: this device has no bfloat16; float32 is what it can do")

    @torch.inference_mode()
    def outputs(self, crops: Tensor) -> Outputs:
        """What is decoded, on the device."""
        images = normalize(crops.to(self._device), self._is_rgb)
        with torch.autocast(self._device.type, torch.bfloat16, enabled=self._is_half):
            return predict(self._network, self.codec, images, self._flip_test)

    @torch.inference_mode()
    def __call__(self, crops: Tensor) -> tuple[Tensor, Tensor]:
        places, scores = self.codec.decode(self.outputs(crops))
        return places.float().cpu(), scores.float().cpu()


def build_engine(
    cfg: CfgNode,
    skeleton: Skeleton,
    weights: str | Path | dict,
    device: torch.device | str = "cpu",
    precision: str = "float32",
) -> Engine:
    """The engine for ``weights``: a state dict, a checkpoint in any layout that ``load_checkpoint``
    knows, or a file of ``tools/export.py``, told by its suffix.

    Raises:
        InputError: a file that cannot be read, does not fit the experiment, or cannot be run here.
    """
    if precision not in PRECISIONS:
        raise InputError(f"precision: must be {' or '.join(PRECISIONS)}, not {precision!r}")
    device = torch.device(device)
    codec = build_codec(cfg, skeleton)
    how = (codec, cfg.DATASET.COLOR_RGB, cfg.TEST.FLIP_TEST)
    if isinstance(weights, dict) or Path(weights).suffix not in RUNNERS:
        return TorchEngine(load_network(cfg, weights, device), *how, device, precision)
    path = Path(weights)
    runner = open_exported(path, precision, device)
    runner.description.check(path, cfg, skeleton)
    if runner.description.decodes:
        return runner  # everything is inside: it gives keypoints and scores itself
    return TorchEngine(_as_network(runner), *how)


def load_network(
    cfg: CfgNode, weights: str | Path | dict, device: torch.device, folds: bool = True
) -> nn.Module:
    """The experiment's network with its weights, for evaluation only unless not ``folds``."""
    network = build_model(cfg)
    load_checkpoint(network, weights)
    return (fold_batch_norms(network) if folds else network.eval()).to(device)


def _as_network(runner: Runner) -> Callable[[Tensor], Outputs]:
    def run(images: Tensor) -> Outputs:
        outputs = runner(images)
        return outputs if len(outputs) > 1 else outputs[0]

    return run
