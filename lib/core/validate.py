"""One pass over a split: flip test, decoding, and the keypoints of everybody in it."""

import time
from dataclasses import dataclass

import numpy as np
import torch

from lib.core.codecs.codec import Codec, Outputs
from lib.core.train import Meter, Observer, Pass, to_device
from lib.dataset.loading import TestLoader
from lib.dataset.transforms import normalize, to_image
from lib.utils.logs import progress


@dataclass
class Validation:
    """keypoints: (N, K, 3) x, y in image pixels and score, in the order of the data set's table."""

    keypoints: np.ndarray
    passed: Pass


def predict(model: torch.nn.Module, codec: Codec, images: torch.Tensor, flip_test: bool) -> Outputs:
    """The network's outputs for normalised crops (N, 3, H, W), averaged with those of the mirrored
    crops if asked."""
    outputs = model(images)
    if flip_test:
        outputs = codec.average(outputs, codec.flip(model(images.flip(3))))
    return outputs


@torch.inference_mode()
def validate(
    model: torch.nn.Module,
    loader: TestLoader,
    codec: Codec,
    device: torch.device,
    flip_test: bool = True,
    is_rgb: bool = True,
    print_freq: int = 100,
    observe: Observer | None = None,
) -> Validation:
    """Everybody's keypoints, each person once.

    Loss and accuracy compare with the joints of the table; they mean nothing where that has none
    (detected boxes).
    """
    model.eval()
    dataset = loader.dataset
    found: list[tuple[torch.Tensor, torch.Tensor]] = []
    whole, part = Meter(device), Meter(device)
    asked = time.perf_counter()
    for step, batch in enumerate(progress(loader, len(loader), "Test")):
        waited = time.perf_counter() - asked
        batch = to_device(batch, device)
        outputs = predict(model, codec, normalize(batch["image"], is_rgb), flip_test)
        places, scores = codec.decode(outputs)
        places = to_image(
            *(places, batch["center"], batch["scale"]), dataset.size, dataset.is_aligned
        )
        found.append((batch["index"], torch.cat([places, scores[..., None]], dim=-1)))
        target = codec.encode(batch["joints"], batch["visible"])
        loss = codec.loss(outputs, target)
        accuracy, joints = codec.accuracy(outputs, target)
        for meter in (whole, part):
            meter.add(loss, accuracy, joints, len(batch["index"]), waited)
        if observe is not None and step % print_freq == 0:
            observe(step, part.read(), batch, outputs, target)
            part.restart()
        asked = time.perf_counter()
    index, people = (torch.cat(parts).cpu().numpy() for parts in zip(*found, strict=True))
    keypoints = np.empty((len(dataset), *people.shape[1:]), np.float32)
    keypoints[index] = people
    return Validation(keypoints, whole.read())
