"""Test weights on an experiment's test set.

  python tools/test.py --cfg experiments/coco/hrnet/w32_256x192_adam_lr1e-3.yaml \\
      TEST.USE_GT_BBOX False \\
      TEST.MODEL_FILE models/pytorch/pose_coco/hrnet_w32_coco_256x192-c78dce93_20200708.pth

Prints the scores as a Markdown table, beside the published ones where the weights are a file of
models/zoo.yaml (tools/get_weights.py gets those); leaves the results, and a sheet of pictures with
the predicted skeletons, in output/<dataset>/<network>/<experiment>/. Without TEST.MODEL_FILE it
tests model_best.pth of that folder.
"""

import argparse
import json
import logging
from pathlib import Path

import _init_paths  # noqa: F401
import numpy as np
from _experiment import (
    debug_pictures,
    experiment_parser,
    model_file,
    open_experiment,
    parse_experiment,
    run,
    score_test_set,
    set_cudnn,
    to_devices,
)
from _published import published_lines

from lib.core.codecs import build_codec
from lib.core.pictures import write_prediction_sheet
from lib.core.recorder import Recorder
from lib.dataset import build_dataset
from lib.dataset.loading import TestLoader
from lib.dataset.top_down import TopDownDataset
from lib.dataset.transforms import PIXEL_STD
from lib.models import build_model
from lib.models.checkpoint import load_checkpoint
from lib.models.folding import fold_batch_norms
from lib.utils.devices import choose_devices, choose_workers, seed_everything
from lib.utils.errors import InputError
from lib.utils.files import write_atomically
from lib.utils.logs import markdown_table

logger = logging.getLogger(__name__)


def main() -> None:
    args, cfg = parse_experiment(test_parser())
    if args.out and (Path(args.out).suffix != ".json" or Path(args.out).is_dir()):
        raise InputError(f"--out: must be a file that ends in .json, not {args.out}")
    cfg, output_dir, log_dir = open_experiment(cfg, args, "valid")
    seed_everything(cfg.SEED)
    set_cudnn(cfg)
    devices = choose_devices(cfg.GPUS)

    network = build_model(cfg)
    weights = model_file(cfg, output_dir, args.cfg)
    load_checkpoint(network, weights)
    logger.info("=> testing %s", weights)
    if args.fuse_conv_bn:
        network = fold_batch_norms(network)
        logger.info("=> batch norms folded into the convolutions before them")
    model = to_devices(network, devices)

    dataset = build_dataset(cfg, cfg.DATASET.TEST_SET, is_train=False)
    batches = TestLoader(
        dataset,
        cfg.TEST.BATCH_SIZE_PER_GPU * len(devices),
        choose_workers(cfg.WORKERS),
        cfg.PIN_MEMORY and devices[0].type == "cuda",
    )
    codec = build_codec(cfg, dataset.skeleton)
    recorder = Recorder(output_dir, log_dir, codec, dataset.skeleton, debug_pictures(cfg))

    keypoints, values, _ = score_test_set(
        cfg, model, batches, codec, devices[0], recorder, output_dir
    )
    recorder.close()
    if args.out:
        write_people(dataset, keypoints, Path(args.out))
    pictures = output_dir / "predictions.jpg"
    write_prediction_sheet(dataset, keypoints, pictures)
    rows, remarks = published_lines(cfg, weights, list(values))
    table = markdown_table(values, values.values(), cfg.MODEL.NAME)
    logger.info("\n".join([table, *rows, *remarks]))
    if dataset.source.has_truth:
        name = next(name for name in ("AP", "Mean") if name in values)
        logger.info("=> %s %.3f on %s", name, values[name], dataset.source.split)
    logger.info("=> pictures with the predicted skeletons: %s", pictures)
    if (output_dir / "curves.png").exists():
        logger.info("=> curves of the training: %s", output_dir / "curves.png")


def test_parser() -> argparse.ArgumentParser:
    parser = experiment_parser(__doc__)
    parser.add_argument(
        "--fuse-conv-bn", action="store_true", help="fold batch norms into convolutions: faster"
    )
    parser.add_argument("--out", metavar="FILE", help="write everybody's keypoints to this JSON")
    return parser


def write_people(dataset: TopDownDataset, keypoints: np.ndarray, path: Path) -> None:
    """Everybody tested as one JSON list: image, the crop's centre and size in pixels, the box's
    score, and the keypoints (K, 3) as x, y in image pixels and score."""
    table = dataset.table
    people = [
        {
            "image": table.path(row),
            "image_id": int(table.image_ids[table.image[row]]),
            "center": table.center[row].tolist(),
            "size": (table.scale[row] * PIXEL_STD).tolist(),
            "score": float(table.score[row]),
            "keypoints": person.tolist(),
        }
        for row, person in enumerate(keypoints)
    ]
    write_atomically(path, json.dumps(people).encode())
    logger.info("=> %d people's keypoints: %s", len(people), path)


if __name__ == "__main__":
    run(main)
