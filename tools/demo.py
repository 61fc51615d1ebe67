"""Find and draw the keypoints of people in images, videos and camera streams.

  python tools/demo.py --input photo.jpg
  python tools/demo.py --cfg experiments/coco/hrnet/w32_256x192_adam_lr1e-3.yaml \\
      --weights models/pytorch/pose_coco/hrnet_w32_coco_256x192-c78dce93_20200708.pth \\
      --input photos/ --detector fasterrcnn_resnet50_fpn

Without --cfg, the demo uses two built-in networks (models/hrpose/): one finds the people, and the
other predicts COCO's 17 keypoints of each person. --input takes images, videos, folders, patterns
such as 'photos/*.jpg', camera numbers and stream URLs.

Writes the images and videos with skeletons, and results.json in COCO's results format, to
output/demo/<experiment>/. With --show, it also shows the frames in a window. With --annotations, it
also writes keypoint errors and a contact sheet of the worst images. See docs/demo.md for details.
"""

import argparse
import contextlib
import logging
import math
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import _init_paths  # noqa: F401
import torch
from cli import (
    ListBeforeSettings,
    experiment_parser,
    model_file,
    parse_experiment,
    run,
    set_cudnn,
)
from yacs.config import CfgNode

from lib.analysis.errors import KeypointErrors
from lib.config import is_bottom_up, skeleton_of
from lib.core.inference import Predictor
from lib.keypoints.poses import Poses
from lib.keypoints.skeletons import SKELETONS, Skeleton
from lib.media.boxes import BoxFile
from lib.media.detectors import BUILT_IN, build_detector
from lib.media.ground_truth import GroundTruth
from lib.media.live import FrameRate, Window, check_windows
from lib.media.output import (
    COLORS,
    FrameOutput,
    PeopleDrawer,
    ResultsWriter,
    TableWriter,
    check_folder,
)
from lib.media.people import (
    BoxSource,
    annotated_items,
    boxes_from_detector,
    boxes_from_file,
    predict_frames,
    set_image_ids,
    whole_images,
)
from lib.media.tracking import VideoTracker
from lib.media.video import (
    ErrorReporter,
    Frame,
    count_frames,
    find_items,
    read_frames,
    silence_opencv,
)
from lib.models import shipped
from lib.utils import zoo
from lib.utils.devices import choose_devices, keep_memory
from lib.utils.errors import InputError
from lib.utils.files import atomic_file, make_folder
from lib.utils.logs import (
    counted,
    counted_people,
    experiment_folders,
    experiment_name,
    progress,
    start_log,
)

logger = logging.getLogger(__name__)

PERSON = 1  # COCO's category
MIN_RATE = 0.01  # frames per second; OpenCV does not write videos of much lower rates
PICTURES = "pictures"  # folder of drawn images and videos
TABLE = "pose-data.csv"  # as in HRNet's demo/inference.py


def main() -> None:
    silence_opencv()
    args, cfg = parse_experiment(demo_parser())
    if is_built_in(args) and not (args.boxes or args.detector or args.annotations):
        args.detector = BUILT_IN
    check_options(args, cfg)
    name = experiment_name(cfg, args.cfg)
    folder = make_folder(args.output or args.work_dir or Path(cfg.OUTPUT_DIR) / "demo" / name)
    start_log(folder, name, "demo")
    set_cudnn(cfg)
    problems = ErrorReporter()
    items, skeleton, ground_truth = find_items(args.input, problems), skeleton_of(cfg), None
    if args.annotations:
        ground_truth = GroundTruth(args.annotations, skeleton, problems, cfg.DATASET.CATEGORIES)
        items = annotated_items(items, ground_truth, problems)
    if not items:
        sys.exit(1)
    if not args.no_pictures:
        check_folder(folder / PICTURES, items)
    device = choose_device(args.device, cfg)
    box_source = choose_box_source(args, cfg, device, ground_truth, problems)
    weights = choose_weights(args, cfg)
    predictor = Predictor(cfg, weights, device, precision=args.precision)
    logger.info("=> %s; writing to %s", weights, folder)
    frames = read_frames(items, problems, ground_truth is None, args.inference_fps)
    frames = set_image_ids(frames, items, ground_truth)
    total = count_frames(items, args.inference_fps)
    # With a camera, ``total`` is None. A live frame must not wait until a batch is full.
    size = 1 if total is None or args.show else args.batch
    min_score = args.detector_threshold if is_bottom_up(cfg) else None
    predictions = predict_frames(frames, box_source, predictor, size, min_score)
    # Without --boxes and --detector, predictions are in the order of the annotations.
    is_in_order = not (args.boxes or args.detector or is_bottom_up(cfg))
    write_all(args, folder, skeleton, predictions, total, ground_truth, is_in_order, problems)
    if problems.count:
        sys.exit(1)


def demo_parser() -> argparse.ArgumentParser:
    parser = experiment_parser(__doc__, shipped.TOP_DOWN.experiment)
    add = parser.add_argument
    add(
        "--input",
        action=ListBeforeSettings,
        nargs="+",
        required=True,
        metavar="INPUT",
        help="images, videos, folders, patterns, camera numbers or stream URLs; may be repeated",
    )
    add(
        "--weights",
        metavar="FILE",
        help="checkpoint or exported file (default: the built-in weights without --cfg; otherwise "
        "TEST.MODEL_FILE or the experiment's model_best.pth)",
    )
    add("--output", metavar="DIR", help="output folder (default: output/demo/<experiment>)")
    text = "JSON file of boxes, as detections or annotations in COCO's format"
    add("--boxes", metavar="FILE", help=text)
    add(
        "--detector",
        metavar="NAME|FILE",
        help="detector that finds the boxes: hrpose (built-in, for people), the name of a "
        "torchvision model, the YAML file of an ONNX detector, or none to treat each whole image "
        "as one person (default: hrpose without --cfg, otherwise none)",
    )
    add(
        "--detector-weights",
        default="",
        metavar="FILE",
        help="weights of the detector (default: those in models/detectors/, or else torchvision's)",
    )
    text = (
        "ignore boxes with a score below P; if --cfg is a bottom-up network, ignore people with a "
        "score below P (default: 0.1 for hrpose, 0.5 for other detectors, otherwise none)"
    )
    add("--detector-threshold", type=float, metavar="P", help=text)
    add(
        "--detector-classes",
        action=ListBeforeSettings,
        nargs="+",
        metavar="CLASS",
        help="names or numbers of the classes to detect (default: person)",
    )
    add_output_options(parser)
    return parser


def add_output_options(parser: argparse.ArgumentParser) -> None:
    """Add the options for annotations, drawing, output and devices."""
    add = parser.add_argument
    text = (
        "COCO annotation file, to measure keypoint errors; its boxes are used unless --boxes or "
        "--detector is given"
    )
    add("--annotations", metavar="FILE", help=text)
    text = "number of frames per batch (default: %(default)s)"
    add("--batch", type=int, default=8, metavar="N", help=text)
    add(
        "--threshold",
        type=float,
        default=0.2,
        metavar="P",
        help="draw and track only keypoints with a score above P (default: %(default)s)",
    )
    add("--scores", action="store_true", help="draw scores next to the keypoints")
    add(
        "--draw-boxes",
        action="store_true",
        help="draw boxes (default: only in videos with tracking)",
    )
    text = "colour by side of the body, or by person (default: %(default)s)"
    add("--color-by", choices=COLORS, default=COLORS[0], help=text)
    add("--show", action="store_true", help="show the frames in a window; q or Esc ends the run")
    text = "draw the measured number of frames per second"
    add("--show-fps", "--showFps", action="store_true", help=text)
    add(
        "--inference-fps",
        "--inferenceFps",
        type=float,
        default=math.inf,
        metavar="N",
        help="use at most N frames of each second of a video, and skip the others (default: all)",
    )
    add("--csv", action="store_true", help="also write the keypoints to pose-data.csv")
    add("--no-pictures", action="store_true", help="do not write images or videos")
    add("--smooth", action="store_true", help="smooth the keypoints in videos")
    add("--no-track", action="store_true", help="do not track people in videos")
    text = "float32, bfloat16, or float16 (only on a GPU) (default: %(default)s)"
    add("--precision", default="float32", metavar="TYPE", help=text)
    add(
        "--device",
        metavar="DEVICE",
        help="cpu, cuda or cuda:N (default: the first GPU in the setting GPUS, or else the CPU)",
    )


def check_options(args: argparse.Namespace, cfg: CfgNode) -> None:
    """Check the values of the options and their combinations.

    Raises:
        InputError: an option is invalid.
    """
    if args.weights and is_built_in(args):
        raise InputError("--weights: needs --cfg, the experiment that they were trained with")
    if args.boxes and args.detector:
        raise InputError("--boxes, --detector: cannot be combined")
    if args.smooth and args.no_track:
        raise InputError("--smooth: needs tracking; omit --no-track")
    if args.batch < 1:
        raise InputError(f"--batch: must be 1 or more, not {args.batch}")
    if not args.inference_fps >= MIN_RATE:
        raise InputError(f"--inference-fps: must be {MIN_RATE} or more, not {args.inference_fps:g}")
    has_scores = args.boxes or args.detector not in (None, "none") or is_bottom_up(cfg)
    if args.detector_threshold is not None and not has_scores:
        text = "needs --detector, --boxes or a bottom-up network"
        raise InputError(f"--detector-threshold: {text}")
    for word in ("detector_weights", "detector_classes"):
        if getattr(args, word) and args.detector in (None, "none"):
            raise InputError(f"--{word.replace('_', '-')}: needs --detector")
    if args.show_fps and args.no_pictures and not args.show:
        raise InputError("--show-fps: add --show or omit --no-pictures")
    if args.show:
        check_windows()


def is_built_in(args: argparse.Namespace) -> bool:
    """Return True if the built-in network is used, because there is no --cfg."""
    return args.cfg is shipped.TOP_DOWN.experiment


def choose_weights(args: argparse.Namespace, cfg: CfgNode) -> Path:
    """Return --weights, or else the built-in weights or those of the experiment."""
    if args.weights:
        return zoo.local_file(args.weights)
    if is_built_in(args) and not cfg.TEST.MODEL_FILE:
        return shipped.TOP_DOWN.weights
    return model_file(cfg, experiment_folders(cfg, args.cfg)[0], args.cfg)


def choose_device(name: str | None, cfg: CfgNode) -> torch.device:
    """Return --device, or else the first device that the setting GPUS selects."""
    if name is None:
        return choose_devices(cfg.GPUS)[0]
    try:
        device = torch.device(name)
        torch.empty(1, device=device)
    except (RuntimeError, AssertionError) as error:
        reason = str(error).splitlines()[0]
        raise InputError(f"--device: {name} is not available: {reason}") from None
    if device.type == "cpu":
        keep_memory()
    return device


def choose_box_source(
    args: argparse.Namespace,
    cfg: CfgNode,
    device: torch.device,
    ground_truth: GroundTruth | None,
    problems: ErrorReporter,
) -> BoxSource:
    """Return the source of boxes that the options select.

    Raises:
        InputError: boxes are given for a bottom-up network, which finds people by itself.
    """
    if is_bottom_up(cfg):
        if args.boxes or args.detector not in (None, "none"):
            raise InputError(
                "--boxes, --detector: omit them; a bottom-up network finds people without boxes"
            )
        return whole_images
    threshold = args.detector_threshold
    if args.boxes:
        people = (PERSON,) if cfg.DATASET.DATASET in SKELETONS else ()
        categories = ground_truth.category_ids if ground_truth else people
        return boxes_from_file(BoxFile(args.boxes, problems, threshold or 0.0, categories))
    if args.detector and args.detector != "none":
        weights, classes = args.detector_weights, args.detector_classes or ()
        return boxes_from_detector(
            build_detector(args.detector, weights, threshold, classes, device, args.precision)
        )
    if ground_truth is not None and args.detector is None:
        return boxes_from_file(ground_truth)
    if not args.detector:
        logger.info(
            "=> no boxes: each whole image is treated as one person; use --detector NAME (hrpose "
            "for people) or --boxes FILE to locate people"
        )
    return whole_images


def write_all(
    args: argparse.Namespace,
    folder: Path,
    skeleton: Skeleton,
    predictions: Iterator[tuple[Frame, Poses]],
    total: int | None,
    ground_truth: GroundTruth | None,
    is_in_order: bool,
    problems: ErrorReporter,
) -> None:
    """Write and show all results. After Ctrl-C or an error, finished results are kept.

    Args:
        total: number of frames, or None if there is a camera.
        is_in_order: True if the people of a frame are in the order of its annotations.
    """
    rate = FrameRate() if args.show_fps else None
    style = (args.threshold, args.scores, args.draw_boxes, args.color_by, rate)
    out = None if args.no_pictures else folder / PICTURES
    window = Window() if args.show else None
    frame_output = FrameOutput(PeopleDrawer(skeleton, *style), out, window, problems)
    tracker = None if args.no_track else VideoTracker(skeleton, args.threshold, args.smooth)
    errors = KeypointErrors(skeleton) if ground_truth is not None else None
    start, failure = time.monotonic(), None
    with contextlib.ExitStack() as files:
        files.callback(frame_output.close)  # also if the other files cannot be written
        file = files.enter_context(atomic_file(folder / "results.json"))
        results = ResultsWriter(file, ground_truth.category_ids[0] if ground_truth else PERSON)
        table = None
        if args.csv:
            table = TableWriter(files.enter_context(atomic_file(folder / TABLE)), skeleton)
        try:
            with contextlib.closing(predictions):
                for frame, poses in progress(predictions, total, "frames"):
                    track_ids = tracker(frame, poses) if tracker else []
                    people = ground_truth.people(frame.image_id) if ground_truth else []
                    categories = [person.category_id for person in people] if is_in_order else []
                    results.add(frame, poses, track_ids, categories)
                    if table is not None:
                        table.add(frame, poses, track_ids)
                    if errors is not None:
                        errors.add(frame.item.name, frame.image, poses, people, is_in_order)
                    if not frame_output.add(frame, poses, track_ids):
                        break  # the user closed the window
        except BaseException as error:
            if not results.frames:
                raise
            failure = error
        results.close()
    log_summary(results, time.monotonic() - start, folder / "results.json", args.boxes)
    if errors is not None and results.frames:
        logger.info(errors.write(folder))
        logger.info("=> tables of errors and worst.jpg: %s", folder)
    if failure is not None:
        raise failure


def log_summary(results: ResultsWriter, seconds: float, path: Path, boxes: str | None) -> None:
    logger.info(
        "=> %s in %s (%d without people), %.1f s, %.1f frames/s: %s",
        counted_people(results.people),
        counted(results.frames, "frame"),
        results.empty_frames,
        seconds,
        results.frames / max(seconds, 1e-9),
        path,
    )
    if boxes and not results.people:
        how = "boxes are matched to the inputs by file_name, or else by image_id"
        logger.warning("no box of %s was used; %s", boxes, how)


if __name__ == "__main__":
    run(main)
