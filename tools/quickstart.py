"""Train and test a small network from scratch on synthetic images of people.

  python tools/quickstart.py
  python tools/quickstart.py TRAIN.AMP False

The command first estimates how long it will take on your machine. If the machine is slow, it trains
for fewer epochs. It needs no data and no GPU. If it is interrupted, run it again to resume.
"""

import csv
import os
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

import _init_paths
import torch
import yaml
from cli import command_parser, protect_numbers, run
from compare import run_tool, score
from get_data import draw_with_progress
from yacs.config import CfgNode

from lib.config import load_config, skeleton_of
from lib.core.backends import build_backend
from lib.dataset import build_dataset
from lib.deploy.parity import random_crops
from lib.figures.write import is_complete, write_figures
from lib.models import build_model, shipped
from lib.utils import checkpoint
from lib.utils.devices import choose_devices
from lib.utils.logs import experiment_folders

EXPERIMENT = _init_paths.ROOT / "experiments" / "figures" / "hrnet" / "quickstart.yaml"
IMAGES = {"train": 3400, "val": 150}
NUM_MEASURED = 128  # images drawn to time the machine
MEASURED_EPOCHS = 2  # epochs of training on these images; the last one is timed
TIME_LIMIT = 625.0  # seconds for everything; on a slow machine, fewer epochs are trained
MIN_EPOCHS = 4  # trained even if this takes longer than TIME_LIMIT


@dataclass(frozen=True)
class Timings:
    """Seconds per item on this machine, and the number of people per image."""

    start: float  # start-up of the training command
    image: float  # drawing one image, with all cores
    training: float  # training on one person
    testing: float  # testing one person
    testing_built_in: float  # testing one person with the built-in network
    people: float  # people per image


def main() -> None:
    start = time.perf_counter()
    parser = command_parser(__doc__)
    text = "settings that override experiments/figures/hrnet/quickstart.yaml"
    parser.add_argument("opts", nargs="*", metavar="KEY VALUE", help=text)
    opts = parser.parse_args(protect_numbers(sys.argv[1:])).opts
    cfg = load_config(EXPERIMENT, opts)
    folder, _ = experiment_folders(cfg, EXPERIMENT)
    root = Path(cfg.DATASET.ROOT)
    say("timing this machine")
    timings = measure(opts)
    if "TRAIN.END_EPOCH" not in opts:
        limit = TIME_LIMIT - (time.perf_counter() - start)
        opts = [*opts, "TRAIN.END_EPOCH", str(choose_epochs(cfg, folder, timings, limit))]
        cfg = load_config(EXPERIMENT, opts)
    say(estimate(cfg, folder, timings))
    draw(root, "val")
    say("testing the built-in top-down network")
    built_in_score = test_built_in(root, folder / "built_in")
    say(f"AP {built_in_score:.3f}; predictions: {folder / 'built_in' / 'predictions.jpg'}")
    draw(root, "train")
    epochs = epochs_left(cfg, folder)
    if epochs or not (folder / "final_state.pth").exists():  # written at the end of training
        say(f"training a small network from scratch: {epochs} epochs")
        train(opts)
    say("testing the trained network")
    say(summary(folder, score(str(EXPERIMENT), opts), built_in_score))


def say(text: str) -> None:
    print(f"=> {text}", flush=True)


def measure(opts: list[str]) -> Timings:
    """Measure the machine: draw a few images, train on them and test random crops."""
    with tempfile.TemporaryDirectory() as folder:
        times: list[float] = []
        # Use one process, because several would deliver images in bursts, which cannot be timed.
        write_figures(
            folder,
            {"train": NUM_MEASURED},
            workers=1,
            progress=lambda *_: times.append(time.perf_counter()),
        )
        cfg = load_config(EXPERIMENT, [*opts, "DATASET.ROOT", folder])
        people = len(build_dataset(cfg, cfg.DATASET.TRAIN_SET, is_train=True))
        start, epoch = measure_training(opts, Path(folder))
    built_in_cfg = load_config(shipped.TOP_DOWN.experiment)
    return Timings(
        start=start,
        image=(times[-1] - times[0]) / (len(times) - 1) / (os.cpu_count() or 1),
        training=epoch / people,
        testing=measure_testing(cfg, build_model(cfg).state_dict()),
        testing_built_in=measure_testing(built_in_cfg, shipped.TOP_DOWN.weights),
        people=people / NUM_MEASURED,
    )


def measure_training(opts: list[str], folder: Path) -> tuple[float, float]:
    """Return the start-up time of the training command and the time of an epoch, in seconds.

    ``folder`` contains a training set, and receives the results.
    """
    settings = {
        "DATASET.ROOT": folder,
        "DATASET.TEST_SET": "train",
        "OUTPUT_DIR": folder / "output",
        "LOG_DIR": folder / "log",
        "AUTO_RESUME": False,
        "TRAIN.END_EPOCH": MEASURED_EPOCHS,
        "TRAIN.EVAL_INTERVAL": 0,
    }
    opts = [*opts, *(str(word) for pair in settings.items() for word in pair)]
    begin = time.perf_counter()
    train(opts, quiet=True)
    total = time.perf_counter() - begin
    output, _ = experiment_folders(load_config(EXPERIMENT, opts), EXPERIMENT)
    rows = csv.DictReader((output / "history.csv").read_text(encoding="utf-8").splitlines())
    seconds = [float(row["seconds"]) for row in rows]
    return total - sum(seconds), seconds[-1]


def train(opts: list[str], quiet: bool = False) -> None:
    """Run tools/train.py.

    On a CPU, two processes, each with half of the batch and half of the cores, are faster than one.
    """
    has_gloo = torch.distributed.is_available() and torch.distributed.is_gloo_available()
    on_several_cores = not torch.cuda.is_available() and (os.cpu_count() or 1) > 1
    processes = 2 if has_gloo and on_several_cores else 1
    batch_size = load_config(EXPERIMENT, opts).TRAIN.BATCH_SIZE_PER_GPU // processes
    opts = [*opts, "TRAIN.BATCH_SIZE_PER_GPU", str(batch_size)]
    run_tool("train.py", str(EXPERIMENT), opts, processes, quiet)


def measure_testing(cfg: CfgNode, weights: Path | dict) -> float:
    """Return the testing time per person in seconds."""
    backend = build_backend(cfg, skeleton_of(cfg), weights, choose_devices(cfg.GPUS)[0])
    crops = random_crops(cfg.MODEL.IMAGE_SIZE, cfg.TEST.BATCH_SIZE_PER_GPU)
    backend(crops)  # warm-up
    begin = time.perf_counter()
    backend(crops)
    return (time.perf_counter() - begin) / len(crops)


def choose_epochs(cfg: CfgNode, folder: Path, timings: Timings, limit: float) -> int:
    """Return the number of epochs that fit into ``limit`` seconds.

    It is at least MIN_EPOCHS and at most TRAIN.END_EPOCH. A resumed run keeps its number of epochs.
    """
    settings = folder / "config_train.yaml"
    if (folder / "checkpoint.pth").exists() and settings.exists():
        return int(yaml.safe_load(settings.read_text(encoding="utf-8"))["TRAIN"]["END_EPOCH"])
    epoch = IMAGES["train"] * timings.people * timings.training
    # The trained network is tested after its last epoch, and again at the end.
    testing = IMAGES["val"] * timings.people * (2 * timings.testing + timings.testing_built_in)
    rest = sum(IMAGES.values()) * timings.image + testing + timings.start
    fitting = max(int((limit - rest) / epoch), MIN_EPOCHS)
    return min(fitting, cfg.TRAIN.END_EPOCH)


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
        "testing built-in": people["val"] * timings.testing_built_in,
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
        draw_with_progress(root, sizes)


def test_built_in(root: Path, folder: Path) -> float:
    """Return the built-in network's AP on the validation split; writes images to ``folder``."""
    words = ["--work-dir", folder, "DATASET.ROOT", root]
    words += ["TEST.MODEL_FILE", shipped.TOP_DOWN.weights]
    return score(str(shipped.TOP_DOWN.experiment), list(map(str, words)))


def summary(folder: Path, trained_score: float, built_in_score: float) -> str:
    """Format the results and the next steps."""
    python, here = Path(sys.executable), Path.cwd()
    python = python.relative_to(here) if python.is_relative_to(here) else python
    return f"""done
   AP on {IMAGES["val"]} images of the validation split:
     {trained_score:.3f}  the network just trained
     {built_in_score:.3f}  the built-in top-down network
   predictions: {folder / "predictions.jpg"}, {folder / "built_in" / "predictions.jpg"}
   training curves: {folder / "curves.png"}
   next steps:
     {python} tools/demo.py --input YOUR_PHOTO.jpg   # find people with the built-in networks
     {python} tools/check_data.py --cfg YOUR.yaml    # your own keypoints: docs/own_data.md
     {python} tools/get_weights.py --list            # published networks"""


if __name__ == "__main__":
    run(main)
