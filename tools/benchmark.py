"""Time the network in its faster forms, and what surrounds it beside the straightforward way.

    python tools/benchmark.py data                   samples for training and tests, post-processing
    python tools/benchmark.py data --images FOLDER   the same with JPEG files of your own
    python tools/benchmark.py nms                    OKS-NMS of COCO val's 104,125 detections
    python tools/benchmark.py load                   an annotation file as large as train2017's
    python tools/benchmark.py forward --cfg FILE     a network: plain, folded, compiled, exported
    python tools/benchmark.py predict --cfg FILE     from an image to keypoints, by each backend

For data, nms and load both ways run in turns on one thread; the CPU time of the best run counts, so
that other work on the machine disturbs little. Files come from the system's cache, and putting
samples together to batches is not counted. The answers are compared too: where they differ the exit
code is 1. For forward and predict the clock on the wall counts, on all threads.
"""

import argparse
import json
import sys
from collections.abc import Sequence
from dataclasses import asdict

import _init_paths  # noqa: F401
import torch
from _data import add_data
from _forward import add_forward, forward, forward_rows, forward_table
from _load import add_load
from _measure import machine, one_thread, table
from _nms import add_nms
from _predict import add_predict, predict, predict_rows, predict_table

from lib.utils.errors import InputError


def main(argv: Sequence[str] | None = None) -> int:
    args = parse_args(argv)
    try:
        if args.command == "forward":
            timings = forward(args)
            rows = forward_rows(timings)
            text = forward_table(timings)
        elif args.command == "predict":
            ways = predict(args)
            rows = predict_rows(ways)
            text = predict_table(ways, args.weights is not None)
        else:
            with one_thread():
                rows = args.run(args)
    except InputError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    where = machine()
    is_network = args.command in ("forward", "predict")
    if is_network:
        where = machine(torch.get_num_threads(), torch.cuda.is_available())
    if args.json:
        report = [asdict(row) | {"ratio": row.ratio} for row in rows]
        print(json.dumps({"what": args.command, "machine": where, "rows": report}, indent=2))
    elif is_network:
        print(f"{args.cfg}\n{where}\n\n{text}")
    else:
        print(table(args.title.format(**vars(args)), rows))
    return 0 if all(row.agree is not False for row in rows) else 1


def parse_args(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    commands = parser.add_subparsers(dest="command", required=True)
    add_data(commands.add_parser("data", help="training samples, test samples, post-processing"))
    add_nms(commands.add_parser("nms", help="suppression of people and boxes"))
    add_load(commands.add_parser("load", help="building the data set from its annotation file"))
    add_forward(commands.add_parser("forward", help="a network, as it is and in faster forms"))
    add_predict(commands.add_parser("predict", help="an image's person, by each backend"))
    for command in commands.choices.values():
        command.add_argument("--json", action="store_true", help="print JSON instead of a table")
    return parser.parse_args(argv)


if __name__ == "__main__":
    sys.exit(main())
