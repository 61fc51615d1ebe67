"""Train several experiments and print a table of their scores with and without TEST.POST_PROCESS.

  python tools/compare.py --cfg \\
      experiments/figures/compare/{plain,dark,udp,sr,srpose,simcc,sa_simcc,rtm_simcc}.yaml
  python tools/compare.py --cfg A.yaml B.yaml --out table.md TRAIN.END_EPOCH 2

Experiments that were already trained with these settings are only tested. KEY VALUE settings apply
to all experiments.
"""

import argparse
import contextlib
import io
import logging
import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import _init_paths
from cli import ListBeforeSettings, command_parser, parse_experiment, protect_numbers, run
from test import test, test_parser

from lib.config import load_config
from lib.models import build_model
from lib.utils.errors import InputError
from lib.utils.files import write_atomically
from lib.utils.logs import experiment_folders, log_to

TOOLS = _init_paths.ROOT / "tools"


@dataclass
class Result:
    """Scores of an experiment with post-processing (``refined``) and without (``plain``)."""

    name: str
    parameters: int
    refined: float
    plain: float


def main() -> None:
    args = parse_args()
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    results = [train_and_test(path, args.opts) for path in args.cfg]
    text = table(results)
    print(text)
    if args.out:
        write_atomically(args.out, f"{text}\n".encode())


def parse_args() -> argparse.Namespace:
    parser = command_parser(__doc__)
    add = parser.add_argument
    add(
        "--cfg",
        action=ListBeforeSettings,
        required=True,
        nargs="+",
        metavar="FILE",
        help="YAML files of the experiments",
    )
    add("--out", type=Path, metavar="FILE", help="also write the table to FILE")
    add("opts", nargs="*", metavar="KEY VALUE", help="settings that override the YAML files")
    args = parser.parse_args(protect_numbers(sys.argv[1:]))
    args.opts = [word.strip() for word in (*args.late_opts, *args.opts)]
    for path in args.cfg:
        load_config(path, args.opts)  # reports errors before anything is trained
    return args


def train_and_test(path: str, opts: list[str]) -> Result:
    """Train the experiment in ``path`` if needed; test it with and without post-processing."""
    cfg = load_config(path, opts)
    output_dir, _ = experiment_folders(cfg, path)
    weights, settings = output_dir / "final_state.pth", output_dir / "config_train.yaml"
    if not weights.exists():
        run_tool("train.py", path, opts)
    elif not settings.exists() or settings.read_text(encoding="utf-8") != cfg.dump():
        raise InputError(
            f"{output_dir}: was trained with other settings; remove it, or use those settings"
        )
    opts = [*opts, "TEST.MODEL_FILE", str(weights.resolve())]
    refined, plain = (score(path, [*opts, "TEST.POST_PROCESS", flag]) for flag in ("True", "False"))
    parameters = sum(p.numel() for p in build_model(cfg).parameters())
    return Result(Path(path).stem, parameters, refined, plain)


def score(path: str, opts: list[str]) -> float:
    """Test an experiment without console output, and return its AP or mean PCKh."""
    root = logging.getLogger()
    handlers, level = list(root.handlers), root.level
    with contextlib.redirect_stdout(io.StringIO()):
        scores = test(*parse_experiment(test_parser(), ["--cfg", path, *opts]))
    log_to(*handlers)  # the test redirected the log to its own file
    root.setLevel(level)
    for name in ("AP", "Mean"):
        if name in scores:
            return scores[name]
    raise InputError(f"{path}: the test set has no ground truth")


def run_tool(
    tool: str, path: str, opts: list[str], processes: int = 1, quiet: bool = False
) -> None:
    """Run a tool in a new process, so that its memory and threads are freed at the end.

    Args:
        processes: number of processes, which share the cores. If it is above 1, torchrun starts
            them.
        quiet: show the output only if the tool fails.
    """
    words = [str(TOOLS / tool), "--cfg", path, *opts]
    environment = dict(os.environ)
    if processes > 1:
        launcher = ["-m", "torch.distributed.run", "--standalone"]
        # In some containers the host name cannot be resolved.
        launcher += ["--local-addr", "localhost", "--nproc_per_node"]
        words = [*launcher, str(processes), *words]
        environment["OMP_NUM_THREADS"] = str(max((os.cpu_count() or 1) // processes, 1))
    pipe = subprocess.PIPE if quiet else None
    process = subprocess.run([sys.executable, *words], env=environment, stdout=pipe, stderr=pipe)
    if process.returncode:
        if quiet:
            sys.stderr.buffer.write(process.stdout + process.stderr)
        raise InputError(f"tools/{tool} --cfg {path} failed")


def table(results: list[Result]) -> str:
    """Format the scores as a Markdown table."""
    lines = [
        "| experiment | parameters | with post-processing | without | difference |",
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
