"""One pass over a split: the keypoints of everybody in it."""

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from lib.core.backends import Backend, TorchBackend
from lib.core.codecs.codec import Codec, Outputs
from lib.core.train import EpochStats, Meter, to_device
from lib.dataset.loading import Batch, TestLoader
from lib.keypoints.geometry import to_image
from lib.utils.logs import progress

# Called as training's is, and with the keypoints (N, K, 2) in crop pixels; the outputs are None
# where the backend has decoding inside.
Observer = Callable[[int, EpochStats, Batch, Outputs | None, Any, torch.Tensor], None]


@dataclass
class Validation:
    """keypoints: (N, K, 3) x, y in image pixels and score, in the order of the data set's table."""

    keypoints: np.ndarray
    stats: EpochStats


@torch.inference_mode()
def validate(
    backend: Backend,
    loader: TestLoader,
    codec: Codec,
    print_freq: int = 100,
    observe: Observer | None = None,
) -> Validation:
    """Everybody's keypoints, each person once.

    Loss and accuracy compare the network's outputs with the joints of the table; they mean nothing
    where that has none (detected boxes). There are none (``EpochStats.has_loss``) where the backend
    is an exported file with decoding inside, which does not show outputs.
    """
    dataset = loader.dataset
    shows_outputs = isinstance(backend, TorchBackend)
    device = backend.device if shows_outputs else torch.device("cpu")
    found: list[tuple[torch.Tensor, torch.Tensor]] = []
    whole, part = Meter(device), Meter(device)
    asked = time.perf_counter()
    for step, batch in enumerate(progress(loader, len(loader), "Test")):
        waited = time.perf_counter() - asked
        batch = to_device(batch, device)
        target = codec.encode(batch["joints"], batch["visible"])
        if shows_outputs:
            outputs = backend.outputs(batch["image"])
            in_crop, scores = codec.decode(outputs)
            measured = codec.loss(outputs, target), *codec.accuracy(outputs, target)
        else:
            outputs = measured = None
            in_crop, scores = backend(batch["image"])
        places = to_image(
            in_crop, batch["center"], batch["scale"], dataset.size, dataset.is_aligned
        )
        found.append((batch["index"], torch.cat([places, scores[..., None]], dim=-1)))
        for meter in (whole, part):
            meter.add(measured, len(batch["index"]), waited)
        if observe is not None and step % print_freq == 0:
            observe(step, part.read(), batch, outputs, target, in_crop)
            part.restart()
        asked = time.perf_counter()
    index, people = (torch.cat(parts).cpu().numpy() for parts in zip(*found, strict=True))
    keypoints = np.empty((len(dataset), *people.shape[1:]), np.float32)
    keypoints[index] = people
    return Validation(keypoints, whole.read())
