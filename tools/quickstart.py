"""Draw people, train a small network on them from scratch, test it, and show what it finds.

  python tools/quickstart.py
  python tools/quickstart.py TRAIN.AMP False

It first measures how long this will take here. It needs no data and no GPU. If interrupted, run it
again and it resumes; once finished, it only tests again.
"""

import argparse
import os
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

import _init_paths
from cli import run, to_devices
from compare import command, score
from get_data import Bar
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
from lib.utils.devices import choose_devices, choose_workers, has_bfloat16, seed_everything
from lib.utils.logs import experiment_folders

EXPERIMENT = _init_paths.ROOT / "experiments" / "figures" / "hrnet" / "quickstart.yaml"
IMAGES = {"train": 1600, "val": 150}
NUM_MEASURED = 48  # images drawn to measure the machine


@dataclass(frozen=True)
class Speed:
    """Seconds that parts of the quickstart take on this machine."""

    start: float  # of the training command, until it begins its work
    image: float  # drawing one
    training: float  # one person
    testing: float  # one person, with the quickstart's network
    testing_built_in: float  # with the built-in network
    people: float  # an image


def main() -> None:
    start = time.process_time()  # CPU time of the imports
    opts = parse_args().opts
    cfg = load_config(EXPERIMENT, opts)
    folder, _ = experiment_folders(cfg, EXPERIMENT)
    root = Path(cfg.DATASET.ROOT)
    say("measuring this machine")
    say(estimate(cfg, folder, measure(opts, start)))
    draw(root, "val")
    say("testing the network that comes with the project")
    built_in_score = test_built_in(root, folder / "built_in")
    say(f"AP {built_in_score:.3f}; what it finds: {folder / 'built_in' / 'predictions.jpg'}")
    draw(root, "train")
    epochs = epochs_left(cfg, folder)
    if epochs or not (folder / "final_state.pth").exists():  # written when all else is done
        say(f"training a small network from scratch: {epochs} epochs")
        command("train.py", str(EXPERIMENT), opts)
    say("testing it")
    say(summary(folder, score(str(EXPERIMENT), opts), built_in_score))


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("opts", nargs="*", metavar="KEY VALUE", help="settings over the YAML's")
    return parser.parse_args()


def say(text: str) -> None:
    print(f"=> {text}", flush=True)


def measure(opts: list[str], start: float) -> Speed:
    """Draw a few images, train on them and test random crops, with the experiment's settings."""
    with tempfile.TemporaryDirectory() as folder:
        times: list[float] = []
        sizes = {"train": NUM_MEASURED}
        # One process: several deliver their images in bursts, which cannot be timed.
        write_figures(
            folder, sizes, workers=1, progress=lambda *_: times.append(time.perf_counter())
        )
        small = ["DATASET.ROOT", folder, "TRAIN.WARMUP_ITERS", "0"]
        cfg = load_config(EXPERIMENT, [*opts, *small])
        people, training = measure_training(cfg)
    built_in_cfg = load_config(built_in.EXPERIMENT)
    return Speed(
        start=start,
        image=(times[-1] - times[0]) / (len(times) - 1) / (os.cpu_count() or 1),
        training=training,
        testing=measure_testing(cfg, build_model(cfg).state_dict()),
        testing_built_in=measure_testing(built_in_cfg, built_in.WEIGHTS),
        people=people / NUM_MEASURED,
    )


def measure_training(cfg: CfgNode) -> tuple[int, float]:
    """The number of people in the training split, and seconds of training for each."""
    device = choose_devices(cfg.GPUS)[0]
    dataset = build_dataset(cfg, cfg.DATASET.TRAIN_SET, is_train=True)
    workers = choose_workers(cfg.WORKERS)  # they share the cores with the network
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
    """Seconds of testing for each person."""
    backend = build_backend(cfg, skeleton_of(cfg), weights, choose_devices(cfg.GPUS)[0])
    crops = random_crops(cfg.MODEL.IMAGE_SIZE, cfg.TEST.BATCH_SIZE_PER_GPU)
    backend(crops)  # the first warms up
    begin = time.perf_counter()
    backend(crops)
    return (time.perf_counter() - begin) / len(crops)


def estimate(cfg: CfgNode, folder: Path, speed: Speed) -> str:
    """How long each part will take, and all of them, in lines."""
    root, epochs = Path(cfg.DATASET.ROOT), epochs_left(cfg, folder)
    people = {split: speed.people * count for split, count in IMAGES.items()}
    testing = people["val"] * speed.testing
    missing = sum(n for split, n in IMAGES.items() if not is_complete(root, {split: n}, seed=0))
    validations = -(-epochs // cfg.TRAIN.EVAL_INTERVAL) if cfg.TRAIN.EVAL_INTERVAL else 0
    training = epochs * people["train"] * speed.training + validations * testing
    parts = {
        "drawing": missing * speed.image,
        "the built-in network": people["val"] * speed.testing_built_in,
        "training": speed.start + training if epochs else 0.0,
        "testing": testing,
    }
    lines = [f"   {name:<22}{seconds:6.0f} s" for name, seconds in parts.items()]
    total = sum(parts.values()) / 60
    return "\n".join([f"this will take about {total:.1f} minutes here:", *lines])


def epochs_left(cfg: CfgNode, folder: Path) -> int:
    """Epochs of training that are still to be done."""
    path = folder / "checkpoint.pth"
    done = checkpoint.read(path)["epoch"] if cfg.AUTO_RESUME and path.exists() else 0
    return max(cfg.TRAIN.END_EPOCH - done, 0)


def draw(root: Path, split: str) -> None:
    """Draw a split of the figures below ``root`` unless it is there."""
    sizes = {split: IMAGES[split]}
    if not is_complete(root, sizes, seed=0):
        say(f"drawing {sizes[split]} images of people: {root / 'images' / split}")
        write_figures(root, sizes, progress=Bar())


def test_built_in(root: Path, folder: Path) -> float:
    """The built-in network's AP on the validation split; ``folder`` gets pictures."""
    settings = {
        "TEST.MODEL_FILE": built_in.WEIGHTS,
        "DATASET.ROOT": root,
    }
    words = [str(word) for pair in settings.items() for word in pair]
    return score(str(built_in.EXPERIMENT), ["--work-dir", str(folder), *words])


def summary(folder: Path, own: float, built_in_score: float) -> str:
    """The results and what to try next, in lines."""
    python, here = Path(sys.executable), Path.cwd()
    python = python.relative_to(here) if python.is_relative_to(here) else python
    return f"""done
   AP on {IMAGES["val"]} images of the validation split:
     {own:.3f}  the network just trained
     {built_in_score:.3f}  the network that comes with the project
   what they find: {folder / "predictions.jpg"}, {folder / "built_in" / "predictions.jpg"}
   curves of the training: {folder / "curves.png"}
   what to try next:
     {python} tools/demo.py --input YOUR_PHOTO.jpg   # the network that comes with the project
     {python} tools/check_data.py --cfg YOUR.yaml    # your own keypoints: docs/own_data.md
     {python} tools/get_weights.py --list            # the published networks"""


if __name__ == "__main__":
    run(main)
