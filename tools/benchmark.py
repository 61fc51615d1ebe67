"""Measure the speed of this project, as ratios within one run.

  python tools/benchmark.py data                   samples on their way to the network, and back
  python tools/benchmark.py nms                    suppression of COCO val's 104,125 detections
  python tools/benchmark.py load                   an annotation file as large as train2017's
  python tools/benchmark.py forward --cfg FILE     a network: plain, folded, compiled, exported
  python tools/benchmark.py predict --cfg FILE     from an image to keypoints, by each backend

data, nms and load run on one thread and count CPU time, so other work on the machine has little
effect. forward and predict run on all threads and count wall-clock time. The fastest run counts.
Where results differ from the reference, the exit code is 1.
"""

import argparse
import sys

import _init_paths  # noqa: F401
from benchmarks import data, forward, load, nms, predict
from benchmarks.measure import machine, one_thread, table
from cli import run

WITH_NETWORK = {"forward": forward, "predict": predict}
WITHOUT_NETWORK = {"data": data, "nms": nms, "load": load}


def main() -> None:
    args = parse_args()
    if args.command in WITH_NETWORK:
        rows, where = WITH_NETWORK[args.command].run(args), machine()
    else:
        with one_thread():
            rows, where = WITHOUT_NETWORK[args.command].run(), machine()
    print(f"{where}\n\n{table(rows)}")
    if not all(row.agrees for row in rows):
        sys.exit(1)


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    commands = parser.add_subparsers(dest="command", required=True)
    for name, module in (WITHOUT_NETWORK | WITH_NETWORK).items():
        command = commands.add_parser(name, help=module.__doc__.splitlines()[0])
        if name in WITH_NETWORK:
            module.add_options(command)
    return parser.parse_args()


if __name__ == "__main__":
    run(main)
