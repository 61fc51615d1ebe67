"""Benchmark data loading, NMS, grouping, training, tests and inference backends.

  python tools/benchmark.py nms
  python tools/benchmark.py forward --cfg FILE

Most benchmarks also time a reference in the same run: NumPy, pycocotools, or a plain PyTorch
implementation that is part of this project (tools/benchmarks/plain.py). The ratio in the table is
the time divided by that of the reference. Each benchmark repeats its measurements and reports the
fastest. data, nms, load and group measure CPU time on one thread, so other work on the machine has
little effect. The others, and nms on a GPU, measure wall-clock time on all threads. The exit code
is 1 if results differ from those of the reference.
"""

import argparse
import sys

import _init_paths  # noqa: F401
import cv2
import torch
from benchmarks import data, forward, grouping, infer, load, nms, predict, test, train
from benchmarks.measure import machine, table
from cli import command_parser, protect_numbers, run

WITH_NETWORK = {
    "forward": forward,
    "predict": predict,
    "train": train,
    "test": test,
    "infer": infer,
}
WITHOUT_NETWORK = {"data": data, "nms": nms, "load": load, "group": grouping}


def main() -> None:
    args = parse_args()
    if args.command in WITH_NETWORK:
        rows = WITH_NETWORK[args.command].run(args)
    else:
        torch.set_num_threads(1)
        cv2.setNumThreads(0)
        rows = WITHOUT_NETWORK[args.command].run()
    print(f"{machine()}\n\n{table(rows)}")
    if not all(row.agrees for row in rows):
        sys.exit(1)


def parse_args() -> argparse.Namespace:
    parser = command_parser(__doc__)
    commands = parser.add_subparsers(dest="command", required=True)
    for name, module in (WITHOUT_NETWORK | WITH_NETWORK).items():
        text = module.__doc__.splitlines()[0]
        summary = text[0].lower() + text[1:].rstrip(".")
        command = commands.add_parser(name, help=summary, description=text)
        if name in WITH_NETWORK:
            module.add_options(command)
    return parser.parse_args(protect_numbers(sys.argv[1:]))


if __name__ == "__main__":
    run(main)
