"""Backends: what runs a network, PyTorch or an exported file, behind one interface."""

from collections.abc import Callable
from pathlib import Path
from typing import Protocol

import torch
from torch import Tensor, nn
from yacs.config import CfgNode

from lib.core.codecs import build_codec
from lib.core.codecs.codec import Codec, Outputs, RawOutputs, as_float, as_outputs
from lib.core.exported import check_precision, is_exported, open_exported
from lib.keypoints.geometry import normalize
from lib.keypoints.skeletons import Skeleton
from lib.models import build_model
from lib.models.checkpoint import load_checkpoint
from lib.models.folding import fold_batch_norms
from lib.utils.devices import has_bfloat16, to_channels_last
from lib.utils.errors import InputError

Network = Callable[[Tensor], RawOutputs]


class Backend(Protocol):
    """Called with uint8 RGB crops (N, 3, H, W) on the CPU, it returns keypoints (N, K, 2) in crop
    pixels and scores (N, K), float32, on the CPU too.

    device: where ``outputs`` are.
    codec: of the network's outputs.
    decodes: the outputs are the keypoints and scores themselves, as in most exported files.
    """

    device: torch.device
    codec: Codec
    decodes: bool

    def train(self, mode: bool) -> None:
        """Switch between training, which exported files refuse, and evaluation."""

    def training_outputs(self, crops: Tensor, autocast: bool = False) -> Outputs:
        """The network's outputs for crops, with gradients."""

    def outputs(self, crops: Tensor) -> Outputs:
        """The network's outputs for crops, or their keypoints and scores if it ``decodes``."""

    def __call__(self, crops: Tensor) -> tuple[Tensor, Tensor]: ...


def predict(network: Network, codec: Codec, images: Tensor, flip_test: bool) -> Outputs:
    """The network's outputs for normalised crops (N, 3, H, W), averaged with those of the mirrored
    crops if asked."""
    outputs = network(images)
    if flip_test:
        outputs = codec.average(outputs, codec.flip(network(images.flip(3))))
    return as_outputs(outputs)


class TorchBackend:
    """Normalising, network, flip test and decoding in PyTorch.

    Args:
        network: from normalised crops to outputs, on ``device``.
        precision: float32, or bfloat16 for what autocast leaves to it; decoding is in float32.

    Raises:
        InputError: a precision that the device does not have.
    """

    def __init__(
        self,
        network: Network,
        codec: Codec,
        is_rgb: bool = True,
        flip_test: bool = False,
        device: torch.device | str = "cpu",
        precision: str = "float32",
    ) -> None:
        self.decodes = False
        self.codec = codec
        self._network = network
        self._is_rgb = is_rgb
        self._flip_test = flip_test
        self.device = torch.device(device)
        check_precision(precision)
        self._is_half = precision == "bfloat16"
        if self._is_half and not has_bfloat16(self.device):
            raise InputError("precision: this device does not support bfloat16; use float32")

    def train(self, mode: bool) -> None:
        """Switch the network between training and evaluation."""
        if isinstance(self._network, nn.Module):
            self._network.train(mode)
        elif mode:
            raise InputError("an exported file cannot be trained")

    def training_outputs(self, crops: Tensor, autocast: bool = False) -> Outputs:
        """Float32 outputs with gradients, without flip test; ``autocast`` runs the network in
        bfloat16 where PyTorch considers it safe."""
        images = normalize(crops.to(self.device), self._is_rgb)
        with torch.autocast(self.device.type, torch.bfloat16, enabled=autocast):
            return as_float(self._network(images))

    @torch.inference_mode()
    def outputs(self, crops: Tensor) -> Outputs:
        """Float32 outputs on the device, with the flip test."""
        images = normalize(crops.to(self.device), self._is_rgb)
        with torch.autocast(self.device.type, torch.bfloat16, enabled=self._is_half):
            return as_float(predict(self._network, self.codec, images, self._flip_test))

    @torch.inference_mode()
    def __call__(self, crops: Tensor) -> tuple[Tensor, Tensor]:
        keypoints, scores = self.codec.decode(self.outputs(crops))
        return keypoints.float().cpu(), scores.float().cpu()


class DecodingBackend:
    """An exported file with normalising, flip test and decoding inside."""

    def __init__(self, runner: Callable[[Tensor], Outputs], codec: Codec) -> None:
        self.device = torch.device("cpu")
        self.codec = codec
        self.decodes = True
        self._runner = runner

    def train(self, mode: bool) -> None:
        if mode:
            raise InputError("an exported file cannot be trained")

    def training_outputs(self, crops: Tensor, autocast: bool = False) -> Outputs:
        raise InputError("an exported file cannot be trained")

    def outputs(self, crops: Tensor) -> Outputs:
        """Keypoints (N, K, 2) in crop pixels and scores (N, K)."""
        return self._runner(crops)

    def __call__(self, crops: Tensor) -> tuple[Tensor, Tensor]:
        keypoints, scores = self._runner(crops)
        return keypoints, scores


def build_backend(
    cfg: CfgNode,
    skeleton: Skeleton,
    weights: str | Path | dict,
    device: torch.device | str = "cpu",
    precision: str = "float32",
) -> Backend:
    """Build the backend for ``weights``: a state dict, a checkpoint in any layout that
    ``load_checkpoint`` knows, or a file of ``tools/export.py``, told by its suffix.

    Raises:
        InputError: a file that cannot be read, does not fit the experiment, or cannot be run here.
    """
    check_precision(precision)
    device = torch.device(device)
    codec = build_codec(cfg, skeleton)
    if isinstance(weights, dict) or not is_exported(weights):
        network = load_network(cfg, weights, device)
        if device.type == "cpu":
            to_channels_last(network)
        return network_backend(cfg, network, codec, device, precision)
    path = Path(weights)
    runner = open_exported(path, precision, device)
    runner.description.check(path, cfg, skeleton)
    if runner.description.decodes:
        return DecodingBackend(runner, codec)
    return network_backend(cfg, runner, codec)


def network_backend(
    cfg: CfgNode,
    network: Network,
    codec: Codec,
    device: torch.device | str = "cpu",
    precision: str = "float32",
) -> TorchBackend:
    """A ``TorchBackend`` for ``network`` with the experiment's settings."""
    return TorchBackend(
        network, codec, cfg.DATASET.COLOR_RGB, cfg.TEST.FLIP_TEST, device, precision
    )


def load_network(
    cfg: CfgNode, weights: str | Path | dict, device: torch.device, folds: bool = True
) -> nn.Module:
    """The experiment's network with its weights, in evaluation mode; its batch norms are folded
    unless not ``folds``."""
    network = build_model(cfg)
    load_checkpoint(network, weights)
    return (fold_batch_norms(network) if folds else network.eval()).to(device)
