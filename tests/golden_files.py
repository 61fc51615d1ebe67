"""Reference outputs of the published networks (``tests/golden/models``), and their weights.

No weights are stored: each state-dict entry is drawn from a generator seeded with its name.
"""

import json
import zlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

GOLDEN = Path(__file__).parent / "golden"


@dataclass(frozen=True)
class GoldenModel:
    """State dict, input and outputs of a published network.

    Only every ``meta["stride"]``-th pixel of the outputs is stored.
    """

    meta: dict[str, Any]
    state: dict[str, Tensor]
    image: Tensor
    outputs: list[Tensor]
    stds: list[float]

    def errors(self, outputs: list[Tensor]) -> list[float]:
        """Return the largest difference of each output from its reference, in its std."""
        assert len(outputs) == len(self.outputs)
        return [
            float((self._cut(ours) - golden).abs().max()) / std
            for ours, golden, std in zip(outputs, self.outputs, self.stds, strict=True)
        ]

    def _cut(self, output: Tensor) -> Tensor:
        step = self.meta["stride"]
        return output[..., ::step, ::step] if output.ndim >= 4 else output[..., ::step]


def golden_model(name: str) -> GoldenModel:
    """Read ``tests/golden/models/<name>.npz``."""
    with np.load(GOLDEN / "models" / f"{name}.npz", allow_pickle=False) as file:
        meta = json.loads(str(file["meta"]))
        shapes = json.loads(str(file["shapes"]))
        names = [str(key) for key in file["keys"]]
        count = sum(key.startswith("out") for key in file.files)
        outputs = [torch.from_numpy(file[f"out{i}"]) for i in range(count)]
        stds = [float(file[f"std{i}"]) for i in range(count)]
    return GoldenModel(
        meta=meta,
        state={key: known_weight(key, shape) for key, shape in zip(names, shapes, strict=True)},
        image=known_image(meta.get("batch", 2), meta["height"], meta["width"], meta.get("seed", 0)),
        outputs=outputs,
        stds=stds,
    )


def known_weight(key: str, shape: list[int]) -> Tensor:
    """Return the value of the state-dict entry ``key`` with which the outputs were computed."""
    if key.endswith("num_batches_tracked"):
        return torch.zeros(shape, dtype=torch.int64)
    draw = _legacy_generator(zlib.crc32(key.encode()))
    if len(shape) >= 2 and not key.endswith(("running_mean", "running_var")):
        fan_in = max(1, int(np.prod(shape[1:])))
        value = draw.standard_normal(shape) / np.sqrt(fan_in)
    elif key.endswith(("running_var", "weight")):
        value = draw.uniform(0.5, 1.5, shape)
    else:
        value = 0.1 * draw.standard_normal(shape)
    return torch.from_numpy(np.asarray(value, dtype=np.float32))


def known_image(batch: int, height: int, width: int, seed: int = 0) -> Tensor:
    """Return the input of the reference outputs (batch, 3, height, width), standard normal."""
    value = _legacy_generator(seed).standard_normal((batch, 3, height, width))
    return torch.from_numpy(value.astype(np.float32))


def _legacy_generator(seed: int) -> np.random.RandomState:
    # NumPy guarantees that its old generator always gives the same numbers.
    return np.random.RandomState(seed)
