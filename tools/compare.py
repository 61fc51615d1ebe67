"""Train several experiments, test each with and without post-processing, and put the scores in one
table.

  python tools/compare.py --cfg \\
      experiments/figures/compare/{plain,dark,udp,sr,srpose,simcc,sa_simcc,rtm_simcc}.yaml
  python tools/compare.py --cfg A.yaml B.yaml --out table.md TRAIN.END_EPOCH 2

An experiment whose output folder has the final_state.pth of a training with the same settings is
not trained again. KEY VALUE pairs at the end go to every training and test.
"""

import argparse
import contextlib
import io
import logging
import re
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import _init_paths
from cli import parse_experiment, run
from test import test, test_parser

from lib.config import load_config
from lib.models import build_model
from lib.utils.errors import InputError
from lib.utils.files import write_atomically
from lib.utils.logs import experiment_folders, log_to

TOOLS = _init_paths.ROOT / "tools"


@dataclass
class Result:
    """An experiment's name, parameters, and scores with and without post-processing."""

    name: str
    parameters: int
    refined: float
    plain: float


def main() -> None:
    args = parse_args()
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    results = [compared(path, args.opts) for path in args.cfg]
    text = table(results)
    print(text)
    if args.out:
        write_atomically(args.out, f"{text}\n".encode())


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--cfg", required=True, nargs="+", metavar="FILE", help="experiments")
    parser.add_argument("--out", type=Path, metavar="FILE", help="write the table here too")
    parser.add_argument("opts", nargs="*", metavar="KEY VALUE", help="settings over the YAMLs'")
    # argparse takes -1e-3 for an option, but not with a space before it.
    words = [f" {word}" if re.match(r"-\.?\d", word) else word for word in sys.argv[1:]]
    args = parser.parse_args(words)
    # argparse gives --cfg all that follows it.
    files = [name for name in args.cfg if name.endswith((".yaml", ".yml"))]
    args.opts = [name.strip() for name in (*args.cfg, *args.opts) if name not in files]
    args.cfg = files
    if not files:
        raise InputError("--cfg: names no experiments, files that end in .yaml")
    for path in args.cfg:
        load_config(path, args.opts)  # a fault in any is reported before the first is trained
    return args


def compared(path: str, opts: list[str]) -> Result:
    """Train ``path`` unless that was done, and test it twice."""
    cfg = load_config(path, opts)
    output_dir, _ = experiment_folders(cfg, path)
    weights, settings = output_dir / "final_state.pth", output_dir / "config_train.yaml"
    if not weights.exists():
        command("train.py", path, opts)
    elif not settings.exists() or settings.read_text(encoding="utf-8") != cfg.dump():
        raise InputError(
            f"{output_dir}: was trained with other settings; remove it, or give the same ones"
        )
    opts = [*opts, "TEST.MODEL_FILE", str(weights.resolve())]
    refined, plain = (score(path, [*opts, "TEST.POST_PROCESS", flag]) for flag in ("True", "False"))
    parameters = sum(p.numel() for p in build_model(cfg).parameters())
    return Result(Path(path).stem, parameters, refined, plain)


def score(path: str, opts: list[str]) -> float:
    """Test the experiment as tools/test.py does, without its console output; return the AP or mean
    PCKh."""
    root = logging.getLogger()
    handlers, level = list(root.handlers), root.level
    with contextlib.redirect_stdout(io.StringIO()):
        scores = test(*parse_experiment(test_parser(), ["--cfg", path, *opts]))
    log_to(*handlers)  # the test sent the log to its own file
    root.setLevel(level)
    for name in ("AP", "Mean"):
        if name in scores:
            return scores[name]
    raise InputError(f"{path}: its test set has no ground truth to compare by")


def command(tool: str, path: str, opts: list[str]) -> None:
    """Run a tool in a process of its own, which leaves no memory or threads behind."""
    words = [sys.executable, str(TOOLS / tool), "--cfg", path, *opts]
    if subprocess.run(words).returncode:
        raise InputError(f"tools/{tool} --cfg {path} failed")


def table(results: list[Result]) -> str:
    """The scores as Markdown."""
    lines = [
        "| experiment | parameters | with post-processing | without | lost without |",
        "|---|---|---|---|---|",
    ]
    lines += [
        f"| {r.name} | {r.parameters / 1e6:.2f}M | {r.refined:.3f} | {r.plain:.3f} "
        f"| {r.refined - r.plain:.3f} |"
        for r in results
    ]
    return "\n".join(lines)


if __name__ == "__main__":
    run(main)
