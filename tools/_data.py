"""The samples' part of tools/benchmark.py: a sample on its way to the network and back."""

import argparse
import tempfile
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import _init_paths
import _made_up
import _plain
import cv2
import numpy as np
import torch
from _measure import Row, fastest, positive

from lib.config import load_config
from lib.core.codecs import build_codec
from lib.dataset.image import read_image
from lib.dataset.top_down import Augmentation, TopDownDataset
from lib.keypoints.geometry import normalize, to_image
from lib.keypoints.skeletons import COCO
from lib.utils.errors import InputError

EXPERIMENT = _init_paths.ROOT / "experiments/coco/hrnet/w32_256x192_adam_lr1e-3.yaml"


def add_data(parser: argparse.ArgumentParser) -> None:
    parser.set_defaults(run=data, title="one 256x192 sample, {people} people an image, CPU")
    parser.add_argument("--images", type=Path, help="a folder of JPEG files; else made-up ones")
    parser.add_argument(
        "--count", type=positive, default=64, help="samples, and images at most (default: 64)"
    )
    parser.add_argument("--people", type=positive, default=20, help="of each image (default: 20)")
    parser.add_argument("--batch", type=positive, default=32, help="samples (default: 32)")
    parser.add_argument("--repeats", type=positive, default=7, help="of which the best counts")


def data(args: argparse.Namespace) -> list[Row]:
    """A sample on its way to the network and back."""
    with tempfile.TemporaryDirectory() as folder:
        if args.images is None:
            paths = _made_up.write_photos(Path(folder), args.count)
        else:
            paths = sorted(str(path) for path in args.images.glob("*.jpg"))[: args.count]
        if not paths:
            raise InputError(f"{args.images}: holds no *.jpg")
        cfg = load_config(str(EXPERIMENT))
        source = SimpleNamespace(
            skeleton=COCO, table=_made_up.people_in(paths, args.people, _made_up.ASPECT_RATIO)
        )
        how = Augmentation(
            cfg.DATASET.FLIP,
            cfg.DATASET.SCALE_FACTOR,
            cfg.DATASET.ROT_FACTOR,
            cfg.DATASET.PROB_HALF_BODY,
            cfg.DATASET.NUM_JOINTS_HALF_BODY,
        )
        size = tuple(cfg.MODEL.IMAGE_SIZE)
        training, test = TopDownDataset(source, size, how), TopDownDataset(source, size)
        codec = build_codec(cfg, COCO)
        rows = train_rows(training, codec, args)
        rows.append(test_row(test, codec, args))
        rows.append(post_row(training, codec, args))
    return rows


def train_rows(dataset: TopDownDataset, codec: Any, args: argparse.Namespace) -> list[Row]:
    """People of every image in turn, from its JPEG file to what the network takes."""
    images, numbers = len(dataset.table.paths), np.arange(args.count)
    people = numbers % images * args.people + numbers // images % args.people
    paths = [dataset.table.path(row) for row in people]
    batch = stack([dataset[int(row)] for row in np.resize(people, args.batch)])
    records = [plain_person(dataset, row) for row in people]

    def plain_samples() -> list[tuple]:
        return [
            plain_sample(dataset, codec, path, record, np.random.default_rng((0, 0, row)))
            for path, record, row in zip(paths, records, people, strict=True)
        ]

    worker, plain, device, decode, plain_decode = fastest(
        args.repeats,
        lambda: [dataset[int(row)] for row in people],
        plain_samples,
        lambda: prepare(batch, codec),
        lambda: [read_image(path) for path in paths],
        lambda: [cv2.imread(path) for path in paths],
    )
    worker, plain, decode, plain_decode = (
        1e3 * s / len(people) for s in (worker, plain, decode, plain_decode)
    )
    device = 1e3 * device / args.batch
    ready = prepare(stack([dataset[int(row)] for row in people]), codec)
    agree = alike_samples(ready, plain_samples())
    return [
        Row("training sample, JPEG to network-ready", "ms", worker + device, plain, agree),
        Row("  of it in a worker: decode, vary, crop", "ms", worker),
        Row("  of it on the device: normalise, targets", "ms", device),
        Row("  of it decoding the JPEG", "ms", decode, plain_decode),
    ]


def test_row(dataset: TopDownDataset, codec: Any, args: argparse.Namespace) -> Row:
    """Everybody in a few images, from JPEG files to what the network and the loss take."""
    images = min(len(dataset.table.paths), 8)
    rows = np.arange(images * args.people).reshape(images, args.people)
    records = [[plain_person(dataset, row) for row in image] for image in rows]

    def ours() -> list[tuple]:
        return [prepare(dataset.people_in_one_image(image), codec) for image in rows]

    def plain() -> list[list[tuple]]:
        return [
            [plain_sample(dataset, codec, dataset.table.path(image[0]), r) for r in people]
            for image, people in zip(rows, records, strict=True)
        ]

    seconds = fastest(args.repeats, ours, plain)
    milliseconds = [1e3 * s / rows.size for s in seconds]
    agree = all(alike_samples(a, b) for a, b in zip(ours(), plain(), strict=True))
    return Row("box in a test, to network-ready", "ms", *milliseconds, agree)


def post_row(dataset: TopDownDataset, codec: Any, args: argparse.Namespace) -> Row:
    """Flip back, average, accuracy, decode, to image pixels; a batch of crops."""
    rows = np.resize(np.arange(len(dataset)), args.batch)
    batch = stack([dataset[int(row)] for row in rows])
    target = codec.encode(batch["joints"], batch["visible"])
    generator = torch.Generator().manual_seed(0)
    outputs, mirrored = (
        target.heatmaps + 0.1 * torch.rand(target.heatmaps.shape, generator=generator)
        for _ in range(2)
    )
    center, scale = batch["center"], batch["scale"]

    def ours() -> tuple:
        heatmaps = codec.average(outputs, codec.flip(mirrored))
        accuracy, _ = codec.accuracy(heatmaps, target)
        places, _ = codec.decode(heatmaps)
        return to_image(places, center, scale, dataset.size, dataset.is_aligned), accuracy

    def plain() -> tuple:
        boxes = (center.numpy(), scale.numpy())
        return _plain.post_process(outputs, mirrored, target.heatmaps, *boxes, COCO.flip_pairs)

    seconds = fastest(args.repeats, ours, plain)
    (places, accuracy), (plain_places, plain_accuracy) = ours(), plain()
    agree = np.allclose(places.numpy(), plain_places, atol=0.05) and bool(
        abs(float(accuracy) - plain_accuracy) < 1e-5
    )
    milliseconds = [1e3 * s / args.batch for s in seconds]
    return Row("post-processing: flip, accuracy, decode", "ms", *milliseconds, agree)


def stack(samples: list[dict]) -> dict[str, torch.Tensor]:
    return {name: torch.stack([s[name] for s in samples]) for name in samples[0]}


def prepare(batch: dict[str, torch.Tensor], codec: Any) -> tuple:
    """What is done on the device, a batch at a time."""
    return normalize(batch["image"]), codec.encode(batch["joints"], batch["visible"])


def plain_person(dataset: TopDownDataset, row: int) -> dict[str, np.ndarray]:
    names = ("center", "scale", "joints", "visible")
    return {name: getattr(dataset.table, name)[row].astype(np.float64) for name in names}


def plain_sample(
    dataset: TopDownDataset,
    codec: Any,
    path: str,
    person: dict,
    rng: np.random.Generator | None = None,
) -> tuple:
    how = dataset.augmentation
    return _plain.sample(
        path, person, dataset.size, codec.heatmap_size, codec.sigma, COCO, how, rng
    )


def alike_samples(ours: tuple, plain: list[tuple]) -> bool:
    """Whether pictures agree but for rounding (half a grey level), and targets and weights in all
    but a hundredth of the joints: a joint may lie where rounding decides on its pixel."""
    images, heatmaps, weights = (torch.stack(parts) for parts in zip(*plain, strict=True))
    grey_level = 1 / 255 / 0.225
    target = ours[1]
    is_alike = (target.heatmaps - heatmaps).abs().amax(dim=(2, 3)) < 1e-4
    is_alike &= target.weight == weights[..., 0]
    pictures = (ours[0] - images).abs().mean() < 0.5 * grey_level
    return bool(pictures and is_alike.float().mean() >= 0.99)
