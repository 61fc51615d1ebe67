"""What the published networks compute (``tests/golden/models``), and the weights they had then.

No weights are stored: each state-dict entry is drawn from a generator that its own name seeds.
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
    """A published network: state dict, input, and the outputs, cut by ``meta['stride']``."""

    meta: dict[str, Any]
    state: dict[str, Tensor]
    image: Tensor
    outputs: list[Tensor]
    stds: list[float]

    def errors(self, outputs: list[Tensor]) -> list[float]:
        """Each output's largest difference from the golden one, in units of that one's std."""
        assert len(outputs) == len(self.outputs)
        return [
            float((self._cut(ours) - golden).abs().max()) / std
            for ours, golden, std in zip(outputs, self.outputs, self.stds, strict=True)
        ]

    def _cut(self, output: Tensor) -> Tensor:
        step = self.meta["stride"]
        return output[..., ::step, ::step] if output.ndim >= 4 else output[..., ::step]


def golden_model(name: str) -> GoldenModel:
    """The file ``tests/golden/models/<name>.npz``."""
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
    """The value that the golden files gave to the state-dict entry ``key``."""
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
    """The golden files' network input (batch, 3, height, width), standard normal."""
    value = _legacy_generator(seed).standard_normal((batch, 3, height, width))
    return torch.from_numpy(value.astype(np.float32))


def _legacy_generator(seed: int) -> np.random.RandomState:
    # The golden files were drawn from NumPy's old generator, whose stream is frozen for good.
    return np.random.RandomState(seed)
