"""Train and test a small network from scratch on drawn people, in about ten minutes.

  python tools/quickstart.py
  python tools/quickstart.py TRAIN.AMP False

It first estimates how long this takes on your machine. It needs no data and no GPU. If interrupted,
run it again to resume.
"""

import argparse
import os
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

import _init_paths
from cli import run
from compare import run_tool, score
from get_data import ProgressBar
from yacs.config import CfgNode

from lib.config import load_config, skeleton_of
from lib.core import build_task
from lib.core.backends import build_backend, network_backend
from lib.core.codecs import build_codec
from lib.core.optim import build_optimizer, build_schedule
from lib.core.train import train_epoch
from lib.dataset import build_dataset
from lib.dataset.loading import train_loader
from lib.deploy.parity import random_crops
from lib.figures.write import is_complete, write_figures
from lib.models import build_model, built_in
from lib.utils import checkpoint
from lib.utils.devices import (
    choose_devices,
    choose_workers,
    has_bfloat16,
    seed_everything,
    to_devices,
)
from lib.utils.logs import experiment_folders

EXPERIMENT = _init_paths.ROOT / "experiments" / "figures" / "hrnet" / "quickstart.yaml"
IMAGES = {"train": 2800, "val": 150}
NUM_MEASURED = 48  # images drawn to measure the machine


@dataclass(frozen=True)
class Timings:
    """Seconds per item on this machine, and the number of people per image."""

    start: float  # start-up of the training command
    image: float  # drawing one image
    training: float  # training on one person
    testing: float  # testing one person
    testing_built_in: float  # the same with the built-in network
    people: float  # people per image


def main() -> None:
    start = time.process_time()  # CPU time of the imports
    opts = parse_args().opts
    cfg = load_config(EXPERIMENT, opts)
    folder, _ = experiment_folders(cfg, EXPERIMENT)
    root = Path(cfg.DATASET.ROOT)
    say("measuring this machine")
    say(estimate(cfg, folder, measure(opts, start)))
    draw(root, "val")
    say("testing the built-in network")
    built_in_score = test_built_in(root, folder / "built_in")
    say(f"AP {built_in_score:.3f}; predictions: {folder / 'built_in' / 'predictions.jpg'}")
    draw(root, "train")
    epochs = epochs_left(cfg, folder)
    if epochs or not (folder / "final_state.pth").exists():  # written last
        say(f"training a small network from scratch: {epochs} epochs")
        run_tool("train.py", str(EXPERIMENT), opts)
    say("testing the trained network")
    say(summary(folder, score(str(EXPERIMENT), opts), built_in_score))


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "opts",
        nargs="*",
        metavar="KEY VALUE",
        help="settings that override experiments/figures/hrnet/quickstart.yaml",
    )
    return parser.parse_args()


def say(text: str) -> None:
    print(f"=> {text}", flush=True)


def measure(opts: list[str], start: float) -> Timings:
    """Measure the machine: draw a few images, train on them and test random crops."""
    with tempfile.TemporaryDirectory() as folder:
        times: list[float] = []
        sizes = {"train": NUM_MEASURED}
        # One process: several would deliver images in bursts, which cannot be timed.
        write_figures(
            folder,
            sizes,
            workers=1,
            progress=lambda *_: times.append(time.perf_counter()),
        )
        small = ["DATASET.ROOT", folder, "TRAIN.WARMUP_ITERS", "0"]
        cfg = load_config(EXPERIMENT, [*opts, *small])
        people, training = measure_training(cfg)
    built_in_cfg = load_config(built_in.EXPERIMENT)
    return Timings(
        start=start,
        image=(times[-1] - times[0]) / (len(times) - 1) / (os.cpu_count() or 1),
        training=training,
        testing=measure_testing(cfg, build_model(cfg).state_dict()),
        testing_built_in=measure_testing(built_in_cfg, built_in.WEIGHTS),
        people=people / NUM_MEASURED,
    )


def measure_training(cfg: CfgNode) -> tuple[int, float]:
    """Return the number of people in the training split, and the training time per person."""
    device = choose_devices(cfg.GPUS)[0]
    dataset = build_dataset(cfg, cfg.DATASET.TRAIN_SET, is_train=True)
    workers = choose_workers(cfg.WORKERS)
    batches = train_loader(dataset, cfg.TRAIN.BATCH_SIZE_PER_GPU, workers)
    seed_everything(cfg.SEED)
    model = to_devices(build_model(cfg), [device])
    backend = network_backend(cfg, model, build_codec(cfg, dataset.skeleton), device)
    task = build_task(cfg, backend, autocast=cfg.TRAIN.AMP and has_bfloat16(device))
    optimizer = build_optimizer(cfg, model)
    lr_at = build_schedule(cfg, len(batches))
    for epoch in range(2):  # the first warms up
        stats = train_epoch(task, batches, optimizer, lr_at, epoch)
    return len(dataset), 1 / stats.speed


def measure_testing(cfg: CfgNode, weights: Path | dict) -> float:
    """Return the testing time per person in seconds."""
    backend = build_backend(cfg, skeleton_of(cfg), weights, choose_devices(cfg.GPUS)[0])
    crops = random_crops(cfg.MODEL.IMAGE_SIZE, cfg.TEST.BATCH_SIZE_PER_GPU)
    backend(crops)  # the first warms up
    begin = time.perf_counter()
    backend(crops)
    return (time.perf_counter() - begin) / len(crops)


def estimate(cfg: CfgNode, folder: Path, timings: Timings) -> str:
    """Format the estimated time of each part and the total."""
    root, epochs = Path(cfg.DATASET.ROOT), epochs_left(cfg, folder)
    people = {split: timings.people * count for split, count in IMAGES.items()}
    testing = people["val"] * timings.testing
    missing = sum(n for split, n in IMAGES.items() if not is_complete(root, {split: n}, seed=0))
    validations = -(-epochs // cfg.TRAIN.EVAL_INTERVAL) if cfg.TRAIN.EVAL_INTERVAL else 0
    training = epochs * people["train"] * timings.training + validations * testing
    parts = {
        "drawing": missing * timings.image,
        "the built-in network": people["val"] * timings.testing_built_in,
        "training": timings.start + training if epochs else 0.0,
        "testing": testing,
    }
    lines = [f"   {name:<22}{seconds:6.0f} s" for name, seconds in parts.items()]
    total = sum(parts.values()) / 60
    return "\n".join([f"this will take about {total:.1f} minutes:", *lines])


def epochs_left(cfg: CfgNode, folder: Path) -> int:
    """Return the number of epochs left to train."""
    path = folder / "checkpoint.pth"
    done = checkpoint.read(path)["epoch"] if cfg.AUTO_RESUME and path.exists() else 0
    return max(cfg.TRAIN.END_EPOCH - done, 0)


def draw(root: Path, split: str) -> None:
    """Draw a split of the figures in ``root`` unless it exists."""
    sizes = {split: IMAGES[split]}
    if not is_complete(root, sizes, seed=0):
        say(f"drawing {sizes[split]} images of people: {root / 'images' / split}")
        write_figures(root, sizes, progress=ProgressBar())


def test_built_in(root: Path, folder: Path) -> float:
    """Return the built-in network's AP on the validation split; writes images to ``folder``."""
    settings = {
        "TEST.MODEL_FILE": built_in.WEIGHTS,
        "DATASET.ROOT": root,
    }
    words = [str(word) for pair in settings.items() for word in pair]
    return score(str(built_in.EXPERIMENT), ["--work-dir", str(folder), *words])


def summary(folder: Path, own: float, built_in_score: float) -> str:
    """Format the results and the next steps."""
    python, here = Path(sys.executable), Path.cwd()
    python = python.relative_to(here) if python.is_relative_to(here) else python
    return f"""done
   AP on {IMAGES["val"]} images of the validation split:
     {own:.3f}  the network just trained
     {built_in_score:.3f}  the built-in network
   predictions: {folder / "predictions.jpg"}, {folder / "built_in" / "predictions.jpg"}
   training curves: {folder / "curves.png"}
   next steps:
     {python} tools/demo.py --input YOUR_PHOTO.jpg   # find people with the built-in network
     {python} tools/check_data.py --cfg YOUR.yaml    # your own keypoints: docs/own_data.md
     {python} tools/get_weights.py --list            # published networks"""


if __name__ == "__main__":
    run(main)
