"""Backends that run a network, in PyTorch or from an exported file, behind one interface."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from pathlib import Path

import torch
from torch import Tensor, nn
from yacs.config import CfgNode

from lib.core.codecs import build_codec
from lib.core.codecs.codec import Codec, Outputs, RawOutputs, as_float, as_outputs
from lib.core.exported import Runner, check_precision, is_exported, open_exported
from lib.keypoints.geometry import normalize
from lib.keypoints.skeletons import Skeleton
from lib.models import build_model
from lib.models.checkpoint import load_checkpoint
from lib.models.folding import fold_batch_norms
from lib.utils.compiling import compile_for_inference
from lib.utils.devices import has_bfloat16, to_devices
from lib.utils.errors import InputError

Network = Callable[[Tensor], RawOutputs]


class Backend(ABC):
    """Interface of a backend.

    A call takes uint8 RGB crops (N, 3, H, W) on the CPU and returns keypoints (N, K, 2) in crop
    pixels and scores (N, K), both float32 on the CPU. Only backends of top-down networks can be
    called.

    Attributes:
        device: device of the tensors that ``outputs`` returns.
        codec: codec of the network's outputs.
        outputs_are_decoded: False if ``outputs`` returns the network's own outputs, True if it
            returns what is decoded from them: keypoints and scores or, for an exported bottom-up
            network, heatmaps, tags and candidates.
    """

    device: torch.device
    codec: Codec
    outputs_are_decoded: bool

    def train(self, mode: bool) -> None:
        """Set training or evaluation mode. Exported files cannot be trained."""
        if mode:
            raise InputError("an exported file cannot be trained")

    def training_outputs(self, crops: Tensor, autocast: torch.dtype | None) -> Outputs:
        """Return float32 outputs with gradients, without a flip test.

        The network runs under autocast with the type ``autocast``, or in float32 if that is None.
        """
        raise InputError("an exported file cannot be trained")

    @abstractmethod
    def outputs(self, crops: Tensor) -> Outputs:
        """Return float32 outputs, after the flip test if that is enabled; see
        ``outputs_are_decoded``.
        """

    def decode(self, outputs: Outputs) -> tuple[Tensor, Tensor]:
        """Return keypoints (N, K, 2) in crop pixels and scores (N, K), float32 on ``device``."""
        keypoints, scores = outputs if self.outputs_are_decoded else self.codec.decode(outputs)
        return keypoints.float(), scores.float()

    @torch.inference_mode()
    def __call__(self, crops: Tensor) -> tuple[Tensor, Tensor]:
        keypoints, scores = self.decode(self.outputs(crops))
        return keypoints.cpu(), scores.cpu()


def predict(network: Network, codec: Codec, images: Tensor, flip_test: bool) -> Outputs:
    """Run the network on normalised crops (N, 3, H, W).

    With ``flip_test``, the outputs are averaged with those of the mirrored crops. Crops and
    mirrored crops share one batch, which is faster than two batches.
    """
    if not flip_test:
        return as_outputs(network(images))
    both = as_outputs(network(torch.cat([images, images.flip(3)])))
    count = images.shape[0]  # during an export, may be symbolic, unlike len(images)
    outputs, mirrored = [part[:count] for part in both], [part[count:] for part in both]
    return as_outputs(codec.average(outputs, codec.flip(mirrored)))


class TorchBackend(Backend):
    """Backend that runs a network, with normalisation, flip test and decoding in PyTorch.

    Args:
        network: maps normalised crops to outputs, on ``device``.
        is_rgb: the network takes RGB crops; if False, BGR.
        flip_test: average the outputs with those of the mirrored crops.
        precision: float32 or, to run the network under autocast, bfloat16 or (only on a GPU)
            float16. Decoding always uses float32.

    Raises:
        InputError: the device does not support the precision.
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
        self.outputs_are_decoded = False
        self.codec = codec
        self._network = network
        self._is_rgb = is_rgb
        self._flip_test = flip_test
        self.device = torch.device(device)
        check_precision(precision)
        self._autocast = None if precision == "float32" else getattr(torch, precision)
        if precision == "bfloat16" and not has_bfloat16(self.device):
            raise InputError("precision: this device does not support bfloat16; use float32")
        if precision == "float16" and self.device.type != "cuda":
            raise InputError("precision: float16 needs a GPU; use float32")

    def train(self, mode: bool) -> None:
        if isinstance(self._network, nn.Module):
            self._network.train(mode)
        else:
            super().train(mode)

    def training_outputs(self, crops: Tensor, autocast: torch.dtype | None) -> Outputs:
        images = normalize(crops.to(self.device), self._is_rgb)
        with torch.autocast(self.device.type, autocast, enabled=autocast is not None):
            return as_float(self._network(images))

    @torch.inference_mode()
    def outputs(self, crops: Tensor) -> Outputs:
        images = normalize(crops.to(self.device), self._is_rgb)
        autocast = self._autocast
        with torch.autocast(self.device.type, autocast, enabled=autocast is not None):
            return as_float(predict(self._network, self.codec, images, self._flip_test))


class DecodingBackend(Backend):
    """Backend for an exported file that includes normalisation, flip test and decoding."""

    def __init__(self, runner: Callable[[Tensor], Outputs], codec: Codec) -> None:
        self.device = torch.device("cpu")
        self.codec = codec
        self.outputs_are_decoded = True
        self._runner = runner

    def outputs(self, crops: Tensor) -> Outputs:
        return self._runner(crops)


def build_backend(
    cfg: CfgNode,
    skeleton: Skeleton,
    weights: str | Path | dict,
    device: torch.device | str | Sequence[torch.device] = "cpu",
    precision: str = "float32",
    fold: bool = True,
) -> Backend:
    """Build the backend for ``weights``.

    Args:
        weights: a state dict, a checkpoint in any layout that ``load_checkpoint`` reads, or a file
            written by ``tools/export.py``, recognised by its suffix.
        device: one device or several GPUs (DataParallel). Exported files use the first.
        fold: fold the batch norms of PyTorch weights into the convolutions before them.

    If TEST.COMPILE is set, a PyTorch network is compiled. Exported files are not affected.

    Raises:
        InputError: the file cannot be read, does not match the experiment, or cannot run here.
    """
    check_precision(precision)
    devices = [torch.device(device)] if isinstance(device, (str, torch.device)) else list(device)
    codec = build_codec(cfg, skeleton)
    if isinstance(weights, dict) or not is_exported(weights):
        network = to_devices(load_network(cfg, weights, devices[0], fold), devices)
        if cfg.TEST.COMPILE:
            network = compile_for_inference(network, devices, "TEST.COMPILE")
        return network_backend(cfg, network, codec, devices[0], precision)
    path = Path(weights)
    runner = open_exported(path, precision, devices[0])
    runner.description.check(path, cfg, skeleton)
    return exported_backend(cfg, runner, codec)


def exported_backend(cfg: CfgNode, runner: Runner, codec: Codec) -> Backend:
    """Build the backend for the runner of an exported file."""
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
    """Build a ``TorchBackend`` for ``network`` with the experiment's settings."""
    return TorchBackend(
        network, codec, cfg.DATASET.COLOR_RGB, cfg.TEST.FLIP_TEST, device, precision
    )


def load_network(
    cfg: CfgNode, weights: str | Path | dict, device: torch.device, fold: bool = True
) -> nn.Module:
    """Build the experiment's network in evaluation mode and load its weights.

    ``fold`` folds the batch norms into the convolutions before them.
    """
    network = build_model(cfg)
    load_checkpoint(network, weights)
    return (fold_batch_norms(network) if fold else network.eval()).to(device)
