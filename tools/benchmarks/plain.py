"""Plain PyTorch code for training, inference and tests, to compare this project with.

It runs in float32, in eager mode and in the contiguous layout, without folding batch norms.
Normalisation, targets and decoding run on the CPU. The flip test makes two passes. Tests read the
image again for each person, and training reads the loss after every step.
"""

import time

import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset

from lib.core.codecs.codec import Codec, Outputs, RawOutputs, as_outputs
from lib.core.train import Stats
from lib.dataset.top_down import TopDownDataset
from lib.keypoints.geometry import Crop, normalize


class SamplesWithTargets(Dataset):
    """Training samples together with their targets, so that the data workers compute both."""

    def __init__(self, dataset: TopDownDataset, codec: Codec) -> None:
        self._dataset = dataset
        self._codec = codec

    def __len__(self) -> int:
        return len(self._dataset)

    def __getitem__(self, key: tuple[int, int]) -> dict:
        sample = self._dataset[key]
        target = self._codec.encode(sample["joints"][None], sample["visible"][None])
        return {**sample, "target": type(target)(*(part[0] for part in target))}


def train_epoch(
    network: nn.Module,
    codec: Codec,
    loader: DataLoader,
    optimizer: torch.optim.Optimizer,
    is_rgb: bool,
) -> Stats:
    """Train for an epoch on batches of ``SamplesWithTargets``."""
    network.train()
    device = next(network.parameters()).device
    total, samples, waiting = 0.0, 0, 0.0
    start = end = time.perf_counter()
    for batch in loader:
        waiting += time.perf_counter() - end
        outputs = network(normalize(batch["image"], is_rgb).to(device))
        target = type(batch["target"])(*(part.to(device) for part in batch["target"]))
        loss = codec.loss(outputs, target)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        codec.accuracy(to_cpu(outputs), batch["target"])
        total += loss.item() * len(batch["index"])
        samples += len(batch["index"])
        end = time.perf_counter()
    return Stats(total / samples, 0.0, samples, end - start, waiting)


@torch.no_grad()
def predict(
    network: nn.Module, codec: Codec, crops: Tensor, is_rgb: bool, flip_test: bool
) -> tuple[Tensor, Tensor]:
    """Return keypoints (N, K, 2) in crop pixels and scores (N, K) of uint8 crops (N, 3, H, W)."""
    images = normalize(crops, is_rgb).to(next(network.parameters()).device)
    outputs = to_cpu(network(images))
    if flip_test:
        outputs = codec.average(outputs, codec.flip(to_cpu(network(images.flip(3)))))
    return codec.decode(outputs)


def test(
    network: nn.Module, codec: Codec, crop: Crop, loader: DataLoader, is_rgb: bool, flip_test: bool
) -> tuple[Tensor, Stats]:
    """Predict all people, and return keypoints (N, K, 2) in image pixels, and statistics."""
    keypoints, waiting = [], 0.0
    start = end = time.perf_counter()
    for batch in loader:
        waiting += time.perf_counter() - end
        found, _ = predict(network, codec, batch["image"], is_rgb, flip_test)
        keypoints.append(crop.to_image(found, batch["center"], batch["scale"]))
        end = time.perf_counter()
    people = sum(map(len, keypoints))
    return torch.cat(keypoints), Stats(0.0, 0.0, people, end - start, waiting, False)


def to_cpu(outputs: RawOutputs) -> Outputs:
    return tuple(output.detach().cpu() for output in as_outputs(outputs))
