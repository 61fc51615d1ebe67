"""Kill training runs at random moments, resume them, and compare with an uninterrupted run.

  python tests/kill.py              twenty kills, spread over all variants
  python tests/kill.py --kills 200

Each run is a process of tools/train.py that gets SIGKILL after a random number of log lines or
while it writes a checkpoint, sometimes twice in a row. Weights, the state of the optimizer, results
and statistics must equal those of the uninterrupted run bit for bit. Prints a line for each
variant, and exits with code 1 if anything differs.
"""

import argparse
import os
import random
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import torch
import yaml

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from tests import tiny  # noqa: E402
from tests.tools.runs import history, is_equal  # noqa: E402

TRAIN = {"END_EPOCH": 3, "BATCH_SIZE_PER_GPU": 1, "CHECKPOINT_EVERY": 1e-4}
TRANSPOSE = {"NAME": "transpose_h", "IMAGE_SIZE": [64, 64]}
VARIANTS = {
    "adam": {"TRAIN": TRAIN},
    "sgd, moving average, two workers": {
        "TRAIN": {**TRAIN, "OPTIMIZER": "sgd", "EMA": 0.9},
        "WORKERS": 2,
    },
    "adamw, bfloat16, dropout": {
        "TRAIN": {**TRAIN, "OPTIMIZER": "adamw", "AMP": True},
        "MODEL": TRANSPOSE,
    },
    "whole images": {"TRAIN": {**TRAIN, "BATCH_SIZE_PER_GPU": 2}},
}
FILES = (
    "final_state.pth",
    "model_best.pth",
    "results/keypoints_val2017_results_0.json",
)
COLUMNS = ("epoch", "lr", "train_loss", "train_acc", "valid_loss", "valid_acc", "AP")
TIMEOUT = 600  # seconds of one run


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--kills", type=int, default=20, help="number of kills (default: 20)")
    parser.add_argument("--seed", type=int, default=0, help="seed of the moments (default: 0)")
    args = parser.parse_args()
    rng = random.Random(args.seed)
    shares = [args.kills // len(VARIANTS)] * len(VARIANTS)
    shares[0] += args.kills - sum(shares)
    is_equal = True
    for name, kills in zip(VARIANTS, shares, strict=True):
        with tempfile.TemporaryDirectory() as folder:
            done, problems = compare(Path(folder), name, kills, rng)
        print(f"{name}: {done} kills: {'; '.join(problems) or 'equal bit for bit'}", flush=True)
        is_equal &= not problems
    return 0 if is_equal else 1


def compare(folder: Path, variant: str, kills: int, rng: random.Random) -> tuple[int, list[str]]:
    """Train one variant with and without kills.

    Returns:
        The number of kills, and the differences found.
    """
    data = tiny.write_coco_sets(folder / "data")
    lines = run(write(folder, data, variant, "whole"))
    done, problems, rounds = 0, [], 0
    while done < kills:
        rounds += 1
        killed = write(folder, data, variant, f"killed{rounds}")
        is_over = False
        while done < kills and not is_over:
            if rng.random() < 0.25:
                is_over = run(killed, while_writing=True) >= 0
            else:
                is_over = run(killed, after=rng.randrange(lines)) >= 0
            done += not is_over
        if not is_over:
            run(killed)
        problems += differences(folder, killed.stem)
    return done, problems


def write(folder: Path, data: Path, variant: str, name: str) -> Path:
    """Write the experiment of a run and return it."""
    make = tiny.scenes if variant == "whole images" else tiny.experiment
    path = make(folder / f"{name}.yaml", data, **VARIANTS[variant])
    if "MODEL" in VARIANTS[variant]:  # TransPose has no stage 4
        content = yaml.safe_load(path.read_text())
        del content["MODEL"]["EXTRA"]["STAGE4"]
        path.write_text(yaml.safe_dump(content))
    return path


def run(experiment: Path, after: int | None = None, while_writing: bool = False) -> int:
    """Train, and kill the run after ``after`` lines of output, or while it writes a checkpoint.

    Returns:
        The number of lines of output, or -1 if the run was killed.
    """
    command = [sys.executable, "-u", str(ROOT / "tools" / "train.py"), "--cfg", str(experiment)]
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    process = subprocess.Popen(
        [*command, "AUTO_RESUME", "True"],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        env=environment,
        text=True,
    )
    lines = []
    try:
        if while_writing:
            wait_for_writing(process, experiment)
        else:
            for line in process.stdout:
                lines.append(line)
                if len(lines) == after:
                    break
        if after is not None or while_writing:
            process.kill()
        process.communicate(timeout=TIMEOUT)
    finally:
        process.kill()
    if process.returncode not in (0, -9):
        raise RuntimeError(f"{experiment}: exit code {process.returncode}: {''.join(lines[-5:])}")
    return -1 if process.returncode else len(lines)


def wait_for_writing(process: subprocess.Popen, experiment: Path) -> None:
    """Wait until the run has begun to write a checkpoint, or has ended."""
    deadline = time.monotonic() + TIMEOUT
    while process.poll() is None and time.monotonic() < deadline:
        for folder in (experiment.parent / "output").glob(f"*/*/{experiment.stem}"):
            if list(folder.glob(".checkpoint.pth*")):
                return
        time.sleep(0.001)


def differences(folder: Path, name: str) -> list[str]:
    """Compare the outputs of the run ``name`` with those of ``whole``."""
    (whole,) = (folder / "output").glob("*/*/whole")
    killed = whole.with_name(name)
    found = [file for file in FILES if (whole / file).read_bytes() != (killed / file).read_bytes()]
    first, second = (
        [[row[column] for column in COLUMNS] for row in history(run)] for run in (whole, killed)
    )
    found += ["history.csv"] * (first != second)
    found += ["optimizer state"] * (not is_equal(optimizer_state(whole), optimizer_state(killed)))
    return [f"{file} of {name} differs" for file in found]


def optimizer_state(run: Path) -> dict[str, torch.Tensor]:
    """Return the tensors of a run's optimizer, such as moments."""
    state = torch.load(run / "checkpoint.pth")["optimizer"]["state"]
    return {f"{i}.{name}": value for i, entries in state.items() for name, value in entries.items()}


if __name__ == "__main__":
    sys.exit(main())
