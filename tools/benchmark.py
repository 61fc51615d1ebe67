"""Time the network in its faster forms, and what surrounds it beside the straightforward way.

    python tools/benchmark.py data                   samples for training and tests, post-processing
    python tools/benchmark.py data --images FOLDER   the same with JPEG files of your own
    python tools/benchmark.py nms                    OKS-NMS of COCO val's 104,125 detections
    python tools/benchmark.py load                   an annotation file as large as train2017's
    python tools/benchmark.py forward --cfg FILE     a network: plain, folded, compiled, exported
    python tools/benchmark.py predict --cfg FILE     from an image to keypoints, by each engine

For data, nms and load both ways run in turns on one thread; the CPU time of the best run counts, so
that other work on the machine disturbs little. Files come from the system's cache, and putting
samples together to batches is not counted. The answers are compared too: where they differ the exit
code is 1. For forward and predict the clock on the wall counts, on all threads.
"""

import argparse
import json
import logging
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from unittest import mock

import _init_paths
import _made_up
import _plain
import cv2
import numpy as np
import torch
from _forward import add_forward, forward, forward_rows, forward_table
from _measure import Row, fastest, machine, memory, one_thread, table
from _predict import add_predict, predict, predict_rows, predict_table

from lib.config import load_config
from lib.core.codecs import build_codec
from lib.dataset.coco import CocoKeypoints
from lib.dataset.image import read_image
from lib.dataset.skeletons import COCO
from lib.dataset.top_down import Augmentation, TopDownDataset
from lib.dataset.transforms import normalize, to_image
from lib.nms import backend, box_nms, oks_nms_groups
from lib.utils.errors import InputError

EXPERIMENT = _init_paths.ROOT / "experiments/coco/hrnet/w32_256x192_adam_lr1e-3.yaml"
ASPECT_RATIO = 192 / 256
SPLIT = "made_up"


def main(argv: Sequence[str] | None = None) -> int:
    args = parse_args(argv)
    try:
        if args.command == "forward":
            timings = forward(args)
            rows = forward_rows(timings)
            text = forward_table(timings)
        elif args.command == "predict":
            ways = predict(args)
            rows = predict_rows(ways)
            text = predict_table(ways, args.weights is not None)
        else:
            with one_thread():
                rows = args.run(args)
    except InputError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    where = machine()
    is_network = args.command in ("forward", "predict")
    if is_network:
        where = machine(torch.get_num_threads(), torch.cuda.is_available())
    if args.json:
        report = [asdict(row) | {"ratio": row.ratio} for row in rows]
        print(json.dumps({"what": args.command, "machine": where, "rows": report}, indent=2))
    elif is_network:
        print(f"{args.cfg}\n{where}\n\n{text}")
    else:
        print(table(args.title.format(**vars(args)), rows))
    return 0 if all(row.agree is not False for row in rows) else 1


def parse_args(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    commands = parser.add_subparsers(dest="command", required=True)
    add_data(commands.add_parser("data", help="training samples, test samples, post-processing"))
    add_nms(commands.add_parser("nms", help="suppression of people and boxes"))
    add_load(commands.add_parser("load", help="building the data set from its annotation file"))
    add_forward(commands.add_parser("forward", help="a network, as it is and in faster forms"))
    add_predict(commands.add_parser("predict", help="an image's person, by each engine"))
    for command in commands.choices.values():
        command.add_argument("--json", action="store_true", help="print JSON instead of a table")
    return parser.parse_args(argv)


def positive(text: str) -> int:
    value = int(text)
    if value < 1:
        raise argparse.ArgumentTypeError(f"must be 1 or more, not {value}")
    return value


# Samples


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
            skeleton=COCO, table=_made_up.people_in(paths, args.people, ASPECT_RATIO)
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


# Suppression


def add_nms(parser: argparse.ArgumentParser) -> None:
    parser.set_defaults(
        run=nms, title="suppression of {detections:,} people in {images:,} images, CPU"
    )
    parser.add_argument("--detections", type=positive, default=104_125)
    parser.add_argument("--images", type=positive, default=5_000)
    parser.add_argument("--boxes", type=positive, default=10_000, help="in one image")
    parser.add_argument("--repeats", type=positive, default=2, help="of which the best counts")


def nms(args: argparse.Namespace) -> list[Row]:
    """OKS-NMS, hard and soft, and box NMS; compiled if built, and on NumPy."""
    people = _made_up.detections(args.detections, args.images)
    boxes = _made_up.boxes(args.boxes)
    sigmas = np.array(COCO.sigmas)
    rows = []
    for name, soft in (("OKS-NMS", False), ("soft OKS-NMS", True)):
        rows += nms_rows(
            name,
            lambda soft=soft: oks_nms_groups(*people, 0.9, sigmas, soft=soft),
            lambda soft=soft: _plain.oks_nms(*people, 0.9, sigmas, soft),
            args.repeats,
        )
    ours, plain = (lambda: box_nms(boxes, 0.5)), (lambda: _plain.box_nms(boxes, 0.5))
    return rows + nms_rows(f"box NMS of {args.boxes:,}", ours, plain, args.repeats)


def nms_rows(
    name: str, ours: Callable[[], np.ndarray], plain: Callable[[], np.ndarray], repeats: int
) -> list[Row]:
    def on_numpy() -> np.ndarray:
        with mock.patch.multiple(backend, compiled=None, _warned=True):
            return ours()

    slow, reference = (1e3 * s for s in fastest(repeats, on_numpy, plain))
    answer = plain()
    rows = [Row(f"{name}, NumPy", "ms", slow, reference, np.array_equal(on_numpy(), answer))]
    if backend.compiled is not None:
        (quick,) = fastest(max(repeats, 3), ours)
        agree = np.array_equal(ours(), answer)
        rows.insert(0, Row(f"{name}, compiled", "ms", 1e3 * quick, reference, agree))
    return rows


# Annotations


def add_load(parser: argparse.ArgumentParser) -> None:
    parser.set_defaults(
        run=load,
        title="a data set of {used:,} people, from {annotations:,} annotations of {images:,} "
        "images with outlines of {outline} numbers, CPU",
    )
    parser.add_argument("--annotations", type=positive, default=262_465)
    parser.add_argument("--used", type=positive, default=149_980, help="annotations with joints")
    parser.add_argument("--images", type=positive, default=118_287)
    parser.add_argument("--outline", type=int, default=60, help="numbers of a segmentation")
    parser.add_argument("--repeats", type=positive, default=2, help="of which the best counts")
    parser.add_argument("--child", help=argparse.SUPPRESS)  # in a fresh process: "ours", "plain"
    parser.add_argument("--root", type=Path, help=argparse.SUPPRESS)


def load(args: argparse.Namespace) -> list[Row]:
    """Time and memory of building the data set, each time in a fresh process."""
    if args.child:
        print(json.dumps(build(args.child, args.root)))
        sys.exit()
    with tempfile.TemporaryDirectory() as folder:
        path = annotation_file(Path(folder))
        path.parent.mkdir()
        used = min(args.used, args.annotations)
        _made_up.write_annotations(path, args.images, args.annotations, used, max(args.outline, 0))
        file_size = path.stat().st_size / 2**20
        results = [(fresh("ours", folder), fresh("plain", folder)) for _ in range(args.repeats)]
    (ours, plain), agree = results[0], True
    for pair in results:
        agree &= all(np.allclose(r["sums"], ours["sums"], rtol=1e-5) for r in pair)
        for best, result in zip((ours, plain), pair, strict=True):
            best.update({k: min(best[k], result[k]) for k in ("seconds", "peak")})
    return [
        Row("building the data set", "s", ours["seconds"], plain["seconds"], agree),
        Row("  its peak memory", "MiB", ours["peak"], plain["peak"]),
        Row("  memory that it keeps", "MiB", ours["kept"], plain["kept"]),
        Row("  of it mapped files", "MiB", ours["mapped"], plain["mapped"]),
        Row("  the annotation file", "MiB", file_size),
    ]


def annotation_file(root: Path) -> Path:
    return root / "annotations" / f"person_keypoints_{SPLIT}.json"


def fresh(version: str, root: str) -> dict:
    """What ``build`` says, in a process of its own."""
    command = [sys.executable, __file__, "load", "--child", version, "--root", root]
    result = subprocess.run(command, capture_output=True, text=True)
    if result.returncode:
        raise InputError(f"building the data set failed: {result.stderr.strip()}")
    return json.loads(result.stdout)


def build(version: str, root: Path) -> dict[str, Any]:
    """CPU seconds, growth of the resident memory in MiB (its peak; kept; kept in mapped files) and
    sums over the people, of one way to build the data set."""
    logging.disable()
    before, start = memory(), time.process_time()
    if version == "ours":
        people = CocoKeypoints(str(root), SPLIT, COCO, ASPECT_RATIO).table
    else:
        people = _plain.load(str(annotation_file(root)), "images", ASPECT_RATIO)
    seconds, after = time.process_time() - start, memory()
    if version == "ours":
        arrays = [people.center, people.scale, people.joints, people.visible]
    else:
        arrays = [np.array([p[k] for p in people]) for k in ("center", "scale", "joints")]
        arrays.append(np.array([p["visible"][:, 0] for p in people]))
    return {
        "seconds": seconds,
        "peak": after["VmHWM"] - before["VmRSS"],
        "kept": after["VmRSS"] - before["VmRSS"],
        "mapped": after["RssFile"] - before["RssFile"],
        "sums": [len(arrays[0]), *(float(array.sum(dtype=np.float64)) for array in arrays)],
    }


if __name__ == "__main__":
    sys.exit(main())
