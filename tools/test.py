"""Test trained weights on an experiment's test set.

  python tools/test.py --cfg experiments/coco/hrnet/w32_256x192_adam_lr1e-3.yaml \\
      TEST.USE_GT_BBOX False \\
      TEST.MODEL_FILE models/pytorch/pose_coco/hrnet_w32_coco_256x192-c78dce93_20200708.pth

Prints the scores as a Markdown table, with the published scores if the weights are listed in
models/zoo.yaml (tools/get_weights.py downloads them). Writes the results and a contact sheet of
predictions to output/<dataset>/<network>/<experiment>/. Without TEST.MODEL_FILE, it tests
model_best.pth in that folder, or final_state.pth if there is no model_best.pth.

TEST.MODEL_FILE may also be an exported file (.onnx, .xml, .ts) from tools/export.py.
"""

import argparse
import logging
import pickle
from functools import partial
from pathlib import Path

import _init_paths  # noqa: F401
import numpy as np
import torch
from cli import (
    ListBeforeSettings,
    add_launcher,
    experiment_parser,
    image_kinds,
    model_file,
    open_experiment,
    parse_experiment,
    run,
    score_test_set,
    set_cudnn,
)
from yacs.config import CfgNode

from lib.config import is_bottom_up, skeleton_of
from lib.core import build_task
from lib.core.backends import build_backend
from lib.core.exported import check_precision, is_exported
from lib.core.published import published_lines
from lib.core.recorder import Recorder
from lib.core.sheets import write_prediction_sheet
from lib.core.validate import gather_in_folder
from lib.dataset import build_dataset
from lib.dataset.bottom_up import SceneDataset
from lib.dataset.loading import test_loader
from lib.dataset.top_down import TopDownDataset
from lib.keypoints.geometry import PIXEL_STD
from lib.keypoints.poses import Poses
from lib.utils import distributed, signals
from lib.utils.devices import choose_devices, choose_workers, seed_everything
from lib.utils.errors import InputError
from lib.utils.files import write_atomically
from lib.utils.logs import counted_people, markdown_table
from lib.utils.reading import encode_json

logger = logging.getLogger(__name__)


def main() -> None:
    args, cfg = parse_experiment(test_parser())
    with distributed.process_group(args.launcher), signals.deferred():
        test(args, cfg)


def test(args: argparse.Namespace, cfg: CfgNode) -> dict[str, float]:
    """Test an experiment and return its scores by name, or {} without ground truth."""
    check_options(args, cfg.TEST.MODEL_FILE)
    devices = choose_devices(cfg.GPUS)
    if args.precision != "float32" and len(devices) > 1:  # DataParallel ignores autocast's dtype
        raise InputError(f"--precision: {args.precision} needs a single GPU, such as GPUS 0")
    with open_experiment(cfg, args, "valid") as (output_dir, log_dir):
        write_atomically(output_dir / "config_valid.yaml", cfg.dump().encode())
        return _test(args, cfg, devices, output_dir, log_dir)


def _test(
    args: argparse.Namespace,
    cfg: CfgNode,
    devices: list[torch.device],
    output_dir: Path,
    log_dir: Path,
) -> dict[str, float]:
    seed_everything(cfg.SEED)
    set_cudnn(cfg)

    weights = model_file(cfg, output_dir, args.cfg)
    fold = args.fuse_conv_bn
    backend = build_backend(cfg, skeleton_of(cfg), weights, devices, args.precision, fold)
    logger.info("=> testing %s in %s", weights, args.precision)

    dataset = build_dataset(cfg, cfg.DATASET.TEST_SET, is_train=False)
    if args.eval and set(args.eval) != {dataset.source.metric}:
        raise InputError(
            f"--eval: the metric of {cfg.DATASET.DATASET} is {dataset.source.metric}, not "
            f"{' '.join(args.eval)}"
        )
    batches = test_loader(
        dataset,
        cfg.TEST.BATCH_SIZE_PER_GPU * len(devices),
        choose_workers(cfg.WORKERS),
        cfg.PIN_MEMORY and devices[0].type == "cuda",
        cfg.TEST.MAX_BROKEN,
    )
    if "hm_pred" in image_kinds(cfg) and backend.outputs_are_decoded and not is_bottom_up(cfg):
        logger.info("=> DEBUG.SAVE_HEATMAPS_PRED: skipped, %s does not output heatmaps", weights)
    recorder = Recorder(output_dir, log_dir)
    task = build_task(cfg, backend)
    gather = distributed.gather
    if args.tmpdir and not args.gpu_collect:
        gather = partial(gather_in_folder, Path(args.tmpdir))
    poses, values, _ = score_test_set(cfg, task, batches, recorder, output_dir, gather=gather)
    recorder.close()
    if args.out:
        write_outputs(dataset, poses, Path(args.out))
    sheet = output_dir / "predictions.jpg"
    write_prediction_sheet(dataset, poses, sheet)
    rows, remarks = published_lines(cfg, weights, list(values))
    table = markdown_table(values, values.values(), cfg.MODEL.NAME)
    logger.info("\n".join([table, *rows, *remarks]))
    if dataset.source.has_ground_truth:
        name = "Mean" if "Mean" in values else next(iter(values))
        logger.info("=> %s %.4f on %s", name, values[name], dataset.source.split)
    logger.info("=> images with predicted skeletons: %s", sheet)
    if (output_dir / "curves.png").exists():
        logger.info("=> training curves: %s", output_dir / "curves.png")
    return values if dataset.source.has_ground_truth else {}


def test_parser() -> argparse.ArgumentParser:
    parser = experiment_parser(__doc__)
    parser.set_defaults(takes_checkpoint=True)
    add_launcher(parser)
    add = parser.add_argument
    add(
        "--fuse-conv-bn",
        action=argparse.BooleanOptionalAction,
        default=True,
        help="fold batch norms into convolutions for speed (default: enabled)",
    )
    text = "also write all keypoints to FILE (.json or .pkl), in mmpose's format"
    add("--out", metavar="FILE", help=text)
    text = (
        "float32, bfloat16 (not for ONNX and TorchScript files), or float16 (only for checkpoints "
        "on a GPU) (default: %(default)s)"
    )
    add("--precision", default="float32", metavar="TYPE", help=text)
    text = "accepted for compatibility with mmpose; must be the data set's metric, mAP or PCKh"
    add("--eval", nargs="+", action=ListBeforeSettings, metavar="METRIC", help=text)
    text = "gather the results of all processes without files; this overrides --tmpdir"
    add("--gpu_collect", "--gpu-collect", action="store_true", help=text)
    text = (
        "gather the results of all processes through files in DIR, which all machines must share "
        "(default: gather them without files)"
    )
    add("--tmpdir", metavar="DIR", help=text)
    return parser


def check_options(args: argparse.Namespace, weights: str) -> None:
    """Check the options before anything is written.

    Raises:
        InputError: an option is invalid, or does not work with the weights.
    """
    check_precision(args.precision, weights)
    if args.out and (Path(args.out).suffix not in (".json", ".pkl") or Path(args.out).is_dir()):
        raise InputError(f"--out: must be a file that ends in .json or .pkl, not {args.out}")
    if not args.fuse_conv_bn and is_exported(weights):
        raise InputError(
            f"--no-fuse-conv-bn: {weights} is an exported file, whose batch norms are folded; omit "
            "the option"
        )


def write_outputs(dataset: TopDownDataset | SceneDataset, poses: Poses, path: Path) -> None:
    """Write all people as mmpose's ``--out`` does: a list with one entry per image.

    The entry of a top-down network has the keys ``preds`` (P, K, 3), x, y in image pixels and
    score; ``boxes`` (P, 6), the crop's centre in pixels, its size / 200, its area in square pixels,
    and the box score; ``image_paths``, ``bbox_ids`` and ``output_heatmap`` (None). The entry of a
    bottom-up network has ``preds``, ``scores``, ``image_paths`` and ``output_heatmap``.
    """
    table = dataset.table
    people = poses.keypoints_with_scores()
    entries = []
    for image in np.unique(poses.image):
        rows = np.flatnonzero(poses.image == image)
        entry = {"preds": people[rows], "image_paths": [table.paths[image].decode()] * len(rows)}
        if isinstance(dataset, SceneDataset):
            entry["image_paths"] = entry["image_paths"][:1]
            entry["scores"] = poses.score[rows].tolist()
        else:
            crops = poses.row[rows]
            size = table.scale[crops]
            area = np.prod(size * PIXEL_STD, 1)
            columns = (table.center[crops], size, area, poses.box_score[rows])
            entry["boxes"] = np.column_stack(columns).astype(np.float32)
            entry["bbox_ids"] = crops.tolist()
        entries.append({**entry, "output_heatmap": None})
    content = pickle.dumps(entries) if path.suffix == ".pkl" else encode_json(entries)
    write_atomically(path, content)
    logger.info("=> keypoints of %s: %s", counted_people(len(poses)), path)


if __name__ == "__main__":
    run(main)
