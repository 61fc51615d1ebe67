"""Benchmark the data pipeline, NMS and inference backends.

Each is compared with a simpler reference in the same run: NumPy, pycocotools or plain PyTorch.

  python tools/benchmark.py data                   loading of samples, post-processing of outputs
  python tools/benchmark.py nms                    NMS of 104,125 detections, as in COCO val
  python tools/benchmark.py load                   reading a train2017-sized annotation file
  python tools/benchmark.py group                  grouping of a bottom-up network's joints
  python tools/benchmark.py forward --cfg FILE     forward pass: PyTorch, with folded batch norms,
                                                   with torch.compile, and exported
  python tools/benchmark.py predict --cfg FILE     image to keypoints, with each backend
  python tools/benchmark.py train --cfg FILE       training, compared with a plain recipe
  python tools/benchmark.py test --cfg FILE        test, compared with a plain recipe
  python tools/benchmark.py infer --cfg FILE       crops to keypoints, compared with a plain recipe

data, nms, load and group measure CPU time on one thread, so other work on the machine has little
effect. The others measure wall-clock time on all threads. All times are those of the fastest run.
The exit code is 1 if results differ from the reference.
"""

import argparse
import sys

import _init_paths  # noqa: F401
from benchmarks import data, forward, grouping, infer, load, nms, predict, test, train
from benchmarks.measure import machine, one_thread, table
from cli import run

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
