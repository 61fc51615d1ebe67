"""Find the keypoints of people in pictures, videos and from cameras, and draw them.

  python tools/demo.py --input photo.jpg
  python tools/demo.py --cfg experiments/coco/hrnet/w32_256x192_adam_lr1e-3.yaml \\
      --weights models/pytorch/pose_coco/hrnet_w32_coco_256x192-c78dce93_20200708.pth \\
      --input photos/ --detector fasterrcnn_resnet50_fpn

Without --cfg it takes the network that comes with the project (models/hrpose/), for COCO's 17
joints. --input takes a file, a folder, a video, a camera's number, or a pattern such as
'photos/*.jpg'.

Leaves drawn pictures and videos, and results.json in COCO's results layout, in
output/demo/<experiment>/; with --annotations also the errors of all keypoints and the worst
pictures. docs/demo.md says more.
"""

import argparse
import contextlib
import itertools
import logging
import re
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import _init_paths  # noqa: F401
import numpy as np
import torch
from _demo import Follower, Pictures, Results, Style
from cli import (
    experiment_parser,
    model_file,
    parse_experiment,
    run,
    set_cudnn,
)
from tqdm import tqdm
from yacs.config import CfgNode

from lib.analysis.accuracy import Accuracy
from lib.config.default import default_config
from lib.core.inference import Person, Predictor
from lib.keypoints.skeletons import SKELETONS
from lib.media.boxes import BoxFile
from lib.media.detectors import build_detector
from lib.media.pipeline import batches, overlap
from lib.media.truth import Truth
from lib.media.video import (
    Frame,
    Item,
    count_frames,
    find_items,
    name_numbers,
    quieten,
    read_frames,
)
from lib.models import built_in
from lib.utils.devices import choose_devices
from lib.utils.errors import InputError
from lib.utils.files import atomic_file, make_folder
from lib.utils.logs import experiment_folders, experiment_name, progress, start_log

logger = logging.getLogger(__name__)

PERSON = 1  # COCO's category
BATCH_BYTES = 1 << 26  # of the frames of a batch; some seven batches are in memory at a time

SETTINGS = default_config()
Found = tuple[list[Frame], list[np.ndarray | None], list[np.ndarray]]
Posed = tuple[list[Frame], list[list[Person]]]


class Problems:
    """What went wrong so far: a line each on standard error, while the rest goes on."""

    def __init__(self) -> None:
        self.count = 0

    def __call__(self, message: str) -> None:
        self.count += 1
        tqdm.write(f"error: {message}", file=sys.stderr)

    @contextlib.contextmanager
    def kept(self) -> Iterator[None]:
        """Bad input in the block is a problem, and no more."""
        try:
            yield
        except InputError as error:
            self(str(error))


def main() -> None:
    quieten()
    args, cfg = parse_experiment(demo_parser())
    check_options(args)
    name = experiment_name(cfg, args.cfg)
    folder = make_folder(args.output or args.work_dir or Path(cfg.OUTPUT_DIR) / "demo" / name)
    start_log(folder, name, "demo")
    set_cudnn(cfg)
    problems = Problems()
    device = choose_device(args.device, cfg)
    weights = choose_weights(args, cfg)
    predictor = Predictor(cfg, weights, device, precision=args.precision)
    logger.info("=> %s: results go to %s", weights, folder)

    items = find_items(args.input, problems)
    truth = None
    if args.annotations:
        names = cfg.DATASET.CATEGORIES
        truth = Truth(args.annotations, predictor.skeleton, problems, names)
        items = annotated(items, truth, problems)
    if not items:
        sys.exit(1)
    find = people_finder(args, cfg, device, truth, problems)
    frames = numbered(read_frames(items, problems, is_upright=truth is None), items, truth)
    total = count_frames(items)
    pose = posing(predictor)
    size = 1 if total is None else args.batch  # nobody waits for a camera's next frames
    groups = batches(frames, size, lambda frame: frame.image.nbytes, BATCH_BYTES)
    posed = overlap(groups, [find, pose], depth=1)
    write_all(args, folder, predictor, posed, total, truth, problems)
    if problems.count:
        sys.exit(1)


def demo_parser() -> argparse.ArgumentParser:
    parser = experiment_parser(__doc__, built_in.EXPERIMENT)
    add = parser.add_argument
    add("--input", action=Words, nargs="+", required=True, metavar="INPUT", help="see above")
    add(
        "--weights",
        metavar="FILE",
        help="default: TEST.MODEL_FILE, else model_best.pth; without --cfg the built-in weights",
    )
    add("--output", metavar="DIR", help="default: output/demo/<experiment>")
    add("--boxes", metavar="FILE", help="a JSON of boxes, as COCO's detections")
    add("--detector", metavar="NAME", help="a model of torchvision, an ONNX detector's YAML, none")
    add("--detector-weights", default="", metavar="FILE", help="default: see docs/demo.md")
    add("--detector-threshold", type=float, metavar="P", help="leave out boxes below this score")
    add("--detector-classes", action=Words, nargs="+", metavar="CLASS", help="default: people")
    add("--annotations", metavar="FILE", help="ground truth in COCO's layout: errors, worst.jpg")
    add("--batch", type=int, default=8, metavar="N", help="frames in one pass (default: 8)")
    add("--threshold", type=float, default=0.2, metavar="P", help="joints drawn (default: 0.2)")
    add("--scores", action="store_true", help="write the scores beside the joints")
    add("--draw-boxes", action="store_true", help="draw the boxes of pictures, too")
    add("--no-pictures", action="store_true", help="write only results.json")
    add("--smooth", action="store_true", help="steadier joints in videos")
    add("--no-track", action="store_true", help="no numbers for the people in videos")
    add("--precision", default="float32", metavar="P", help="float32 (default) or bfloat16")
    add("--device", metavar="DEVICE", help="cpu, cuda, cuda:1; default: GPUS")
    return parser


class Words(argparse.Action):
    """An option's words, as many as a shell makes of a pattern; KEY VALUE after them stay that."""

    def __call__(self, parser, namespace, values, option_string=None):
        count = len(values)
        for number, word in enumerate(values[1:], 1):
            is_key = word in SETTINGS or re.fullmatch(r"[A-Z][A-Z0-9_]*(\.[A-Z0-9_]+)+", word)
            if is_key and not Path(word).exists():
                count = number
                break
        setattr(namespace, self.dest, [*(getattr(namespace, self.dest) or []), *values[:count]])
        namespace.late_opts = [*getattr(namespace, "late_opts", []), *values[count:]]


def check_options(args: argparse.Namespace) -> None:
    """Options that exclude or need each other, and numbers out of range."""
    if args.weights and is_built_in(args):
        raise InputError("--weights: also give --cfg, the experiment they were trained with")
    if args.boxes and args.detector:
        raise InputError("--boxes, --detector: both say where people are; give one")
    if args.smooth and args.no_track:
        raise InputError("--smooth: needs the people's numbers; leave --no-track out")
    if args.batch < 1:
        raise InputError(f"--batch: must be 1 or more, not {args.batch}")
    if args.detector_threshold is not None and args.detector in (None, "none") and not args.boxes:
        raise InputError("--detector-threshold: there is no --detector or --boxes that it is for")
    for word in ("detector_weights", "detector_classes"):
        if getattr(args, word) and args.detector in (None, "none"):
            raise InputError(f"--{word.replace('_', '-')}: there is no --detector that it is for")


def is_built_in(args: argparse.Namespace) -> bool:
    """Whether --cfg was left out."""
    return args.cfg is built_in.EXPERIMENT


def choose_weights(args: argparse.Namespace, cfg: CfgNode) -> Path:
    """--weights, else the built-in ones without --cfg, else what training left."""
    if args.weights:
        return Path(args.weights)
    if is_built_in(args) and not cfg.TEST.MODEL_FILE:
        return built_in.WEIGHTS
    return model_file(cfg, experiment_folders(cfg, args.cfg)[0], args.cfg)


def choose_device(name: str | None, cfg: CfgNode) -> torch.device:
    """--device, else the first of GPUS that is here."""
    if name is None:
        return choose_devices(cfg.GPUS)[0]
    try:
        device = torch.device(name)
        torch.empty(1, device=device)
    except (RuntimeError, AssertionError) as error:
        reason = str(error).splitlines()[0]
        raise InputError(f"--device: {name} cannot be used here: {reason}") from None
    return device


def annotated(items: list[Item], truth: Truth, problems: Problems) -> list[Item]:
    """The items that the annotations list; the others are left out, in one line."""
    known, others = [], []
    for item in items:
        is_known = item.kind == "picture" and truth.image_id(item.path) is not None
        (known if is_known else others).append(item)
    if others:
        problems(
            f"{others[0].path}: is not among the images of {truth.path} ({len(others)} such files "
            "are left out)"
        )
    return known


def numbered(frames: Iterator[Frame], items: list[Item], truth: Truth | None) -> Iterator[Frame]:
    """``frames`` with their ids: the annotations', else the numbers that files are called, else
    running ones from 1."""
    names = name_numbers(items)
    running = itertools.count(1)
    with contextlib.closing(frames):
        for frame in frames:
            name = frame.item.name
            known = truth.image_id(frame.item.path) if truth else names.get(name)
            frame.image_id = next(running) if known is None else known
            yield frame


def people_finder(
    args: argparse.Namespace,
    cfg: CfgNode,
    device: torch.device,
    truth: Truth | None,
    problems: Problems,
) -> Callable[[list[Frame]], Found]:
    """What finds the boxes of a batch of frames, None for a whole image."""
    threshold = args.detector_threshold
    if args.boxes:
        people = (PERSON,) if cfg.DATASET.DATASET in SKELETONS else ()
        categories = truth.categories if truth else people
        file = BoxFile(args.boxes, problems, threshold or 0.0, categories)
        return lambda frames: (frames, *zip(*map(file.of, frames), strict=True))
    if args.detector and args.detector != "none":
        weights, classes = args.detector_weights, args.detector_classes or ()
        detect = build_detector(args.detector, weights, threshold, classes, device)
        return lambda frames: (frames, *zip(*detect([f.image for f in frames]), strict=True))
    if truth is not None and args.detector is None:
        return lambda frames: (frames, *zip(*(true_boxes(f, truth) for f in frames), strict=True))
    if not args.detector:
        logger.info(
            "=> no boxes: each whole image is taken as one person; --detector NAME or --boxes FILE "
            "says where people are"
        )
    return lambda frames: (frames, [None] * len(frames), [np.ones(1)] * len(frames))


def true_boxes(frame: Frame, truth: Truth) -> tuple[np.ndarray, np.ndarray]:
    """The annotated boxes (N, 4) of a picture, and their scores (N,), 1."""
    boxes = np.array([person.box for person in truth.people(frame.image_id)]).reshape(-1, 4)
    return boxes, np.ones(len(boxes))


def posing(predictor: Predictor) -> Callable[[Found], Posed]:
    """What finds the people in their boxes."""

    def pose(found: Found) -> Posed:
        frames, boxes, scores = found
        everybody = predictor([frame.image for frame in frames], list(boxes))
        for people, values in zip(everybody, scores, strict=True):
            for person, score in zip(people, values, strict=True):
                person.box_score = float(score)
        return frames, everybody

    return pose


def write_all(
    args: argparse.Namespace,
    folder: Path,
    predictor: Predictor,
    posed: Iterator[Posed],
    total: int | None,
    truth: Truth | None,
    problems: Problems,
) -> None:
    """Everything that is written. An interrupt or an error keeps what is finished."""
    skeleton = predictor.skeleton
    style = Style(args.threshold, args.scores, args.draw_boxes)
    pictures = None if args.no_pictures else Pictures(folder / "pictures", skeleton, style)
    follow = None if args.no_track else Follower(skeleton, args.threshold, args.smooth)
    accuracy = Accuracy(skeleton) if truth is not None else None
    is_in_order = not args.boxes and args.detector is None
    start, count, empty, failure = time.monotonic(), 0, 0, None
    with atomic_file(folder / "results.json") as file:
        results = Results(file, truth.categories[0] if truth else PERSON)
        try:
            with contextlib.closing(posed), contextlib.closing(flat(posed)) as everything:
                for frame, people in progress(everything, total, "frames"):
                    count += 1
                    empty += not people
                    numbers = follow(frame, people) if follow else []
                    known = truth.people(frame.image_id) if truth else []
                    of_truth = [one.category for one in known] if is_in_order else []
                    results.add(frame, people, numbers, of_truth)
                    if accuracy is not None:
                        accuracy.add(frame.item.name, frame.image, people, known, is_in_order)
                    if pictures is not None:
                        with problems.kept():
                            pictures.write(frame, people, numbers)
        except BaseException as error:
            if not count:
                raise
            failure = error
        results.close()
    if pictures is not None:
        with problems.kept():
            pictures.close()
    seconds = time.monotonic() - start
    rate = count / max(seconds, 1e-9)
    logger.info(
        "=> %d people in %d frames (%d without anybody), %.1f s, %.1f frames a second: %s",
        results.count,
        count,
        empty,
        seconds,
        rate,
        folder / "results.json",
    )
    if accuracy is not None and count:
        logger.info(accuracy.write(folder))
        logger.info("=> errors.csv, errors_by_joint.csv and worst.jpg: %s", folder)
    if failure is not None:
        raise failure


def flat(posed: Iterator[Posed]) -> Iterator[tuple[Frame, list[Person]]]:
    for frames, everybody in posed:
        yield from zip(frames, everybody, strict=True)


if __name__ == "__main__":
    run(main)
