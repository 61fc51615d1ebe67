"""Time the loading of samples and the post-processing of outputs."""

import tempfile
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import _init_paths
import numpy as np
import torch
from torch.utils.data import default_collate

from benchmarks import inputs
from benchmarks.measure import Row, fastest
from lib.config import load_config
from lib.core.codecs import build_codec
from lib.dataset import crop_of
from lib.dataset.image import read_image
from lib.dataset.top_down import Augmentation, TopDownDataset
from lib.keypoints.geometry import normalize
from lib.keypoints.skeletons import COCO

EXPERIMENT = _init_paths.ROOT / "experiments/coco/hrnet/w32_256x192_adam_lr1e-3.yaml"
AUGMENTATION = Augmentation(  # as in this experiment
    flip=True,
    scale_factor=0.35,
    rotation_factor=45,
    half_body_probability=0.3,
    half_body_joints=8,
)
MAX_TEST_IMAGES = 8


def run(images: int = 64, people: int = 20, batch: int = 32, repeats: int = 7) -> list[Row]:
    """Time the processing of ``images`` images with ``people`` people each."""
    cfg = load_config(EXPERIMENT)
    codec = build_codec(cfg, COCO)
    with tempfile.TemporaryDirectory() as folder:
        paths = inputs.write_photos(Path(folder), images)
        source = SimpleNamespace(skeleton=COCO, table=inputs.people_in(paths, people))
        training = TopDownDataset(source, crop_of(cfg), AUGMENTATION)
        rows = np.arange(images) * people  # one person of each image
        return [
            training_row(training, codec, rows, batch, repeats),
            test_row(TopDownDataset(source, crop_of(cfg)), codec, people, repeats),
            post_processing_row(training, codec, np.resize(rows, batch), repeats),
        ]


def training_row(
    dataset: TopDownDataset, codec: Any, rows: np.ndarray, batch: int, repeats: int
) -> Row:
    """Time the steps from JPEG file to network input and targets; reference: decoding the JPEG."""
    samples = default_collate([dataset[row] for row in np.resize(rows, batch)])
    sample, prepared, decoded = fastest(
        [
            lambda: [dataset[row] for row in rows],
            lambda: prepare(samples, codec),
            lambda: [read_image(dataset.table.path(row)) for row in rows],
        ],
        repeats,
    )
    value = sample / len(rows) + prepared / batch
    reference = decoded / len(rows)
    return Row("training sample", "ms", 1e3 * value, 1e3 * reference, "reference: decoding alone")


def test_row(dataset: TopDownDataset, codec: Any, people: int, repeats: int) -> Row:
    """Time loading all people of an image at once; reference: one person at a time."""
    images = min(len(dataset.table.paths), MAX_TEST_IMAGES)
    rows = np.arange(images * people).reshape(images, people)

    def by_image() -> list[torch.Tensor]:
        return [prepare(dataset.people_in_one_image(image), codec) for image in rows]

    def by_person() -> list[torch.Tensor]:
        return [prepare(dataset.people_in_one_image([row]), codec) for row in rows.flat]

    value, reference = (1e3 * s / rows.size for s in fastest([by_image, by_person], repeats))
    agrees = torch.allclose(torch.cat(by_image()), torch.cat(by_person()), atol=1e-5)
    name = f"box in a test with {people} boxes per image"
    return Row(name, "ms", value, reference, "reference: one person at a time", agrees)


def post_processing_row(dataset: TopDownDataset, codec: Any, rows: np.ndarray, repeats: int) -> Row:
    """Time flip test, accuracy and decoding of a batch; reference: one sample at a time."""
    batch = default_collate([dataset[row] for row in rows])
    target = codec.encode(batch["joints"], batch["visible"])
    generator = torch.Generator().manual_seed(0)
    outputs, mirrored = (
        target.heatmaps + 0.1 * torch.rand(target.heatmaps.shape, generator=generator)
        for _ in range(2)
    )

    def process(i: slice) -> torch.Tensor:
        heatmaps = codec.average(outputs[i], codec.flip(mirrored[i]))
        codec.accuracy(heatmaps, type(target)(target.heatmaps[i], target.weight[i]))
        keypoints, _ = codec.decode(heatmaps)
        return dataset.crop.to_image(keypoints, batch["center"][i], batch["scale"][i])

    def by_batch() -> torch.Tensor:
        return process(slice(None))

    def by_sample() -> torch.Tensor:
        return torch.cat([process(slice(i, i + 1)) for i in range(len(rows))])

    value, reference = (1e3 * s / len(rows) for s in fastest([by_batch, by_sample], repeats))
    agrees = torch.allclose(by_batch(), by_sample(), atol=1e-3)
    remark = "reference: one sample at a time"
    return Row("post-processing of a sample", "ms", value, reference, remark, agrees)


def prepare(batch: dict[str, torch.Tensor], codec: Any) -> torch.Tensor:
    """Encode targets as training does on the device, and return the normalised crops."""
    codec.encode(batch["joints"], batch["visible"])
    return normalize(batch["image"])
