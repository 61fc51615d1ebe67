"""Get published weights: the files that models/zoo.yaml lists.

  python tools/get_weights.py --list
  python tools/get_weights.py hrnet_w32_imagenet hrnet_w32_coco_256x192
  python tools/get_weights.py --cfg experiments/coco/hrnet/w32_256x192_adam_lr1e-3.yaml

Each file goes where the experiments expect it. A download that broke off goes on where it was; a
file takes its place only when its SHA-256 is right.
"""

import argparse
import difflib
import logging
import sys
from pathlib import Path

import _init_paths  # noqa: F401
from cli import run

from lib.config import load_config
from lib.utils import zoo
from lib.utils.download import download
from lib.utils.errors import InputError
from lib.utils.zoo import ROOT, Weights

HEADLINES = ("AP", "Mean", "box AP")  # the scores that count


def main() -> None:
    args = parse_args()
    logging.basicConfig(level=logging.INFO, format="%(message)s", stream=sys.stdout)
    known = zoo.load_zoo()
    if args.list:
        print(listing(known, args.root))
        return
    wanted = [named(name, known) for name in args.names]
    if args.cfg:
        wanted += of_experiment(args.cfg)
    for weights in {weights.name: weights for weights in wanted}.values():
        get(weights, args.root)


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("names", nargs="*", metavar="NAME", help="a name of --list")
    parser.add_argument(
        "--cfg", metavar="FILE", help="what is listed for an experiment: its backbone, its results"
    )
    parser.add_argument("--list", action="store_true", help="what there is, and what is here")
    parser.add_argument(
        "--root", type=Path, default=ROOT, help="the folder with models/ (default: this one)"
    )
    args = parser.parse_args()
    if not (args.names or args.cfg or args.list):
        parser.error("name weights, or give --cfg FILE or --list")
    return args


def named(name: str, known: dict[str, Weights]) -> Weights:
    if name in known:
        return known[name]
    near = difflib.get_close_matches(name, known, n=3, cutoff=0.4)
    hint = f"; the nearest are {', '.join(near)}" if near else ""
    raise InputError(f"{name}: no weights of this name{hint}; --list shows all")


def of_experiment(path: str) -> list[Weights]:
    """What is listed for the experiment in the file ``path``: the backbone that it starts from, and
    what was trained as it."""
    cfg = load_config(path)
    backbone = zoo.find_weights(cfg.MODEL.PRETRAINED) if cfg.MODEL.PRETRAINED else None
    trained = zoo.weights_of_experiment(path)
    if backbone is None and not trained:
        raise InputError(f"{path}: nothing is listed for this experiment; --list shows all")
    return [*([backbone] if backbone else []), *trained]


def get(weights: Weights, root: Path) -> None:
    path = root / weights.path
    if not path.exists():
        print(f"=> {weights.name}: downloading {weights.url} to {path}")
    download(weights.url, path, weights.sha256)
    checked = "its SHA-256 is right" if weights.sha256 else "no SHA-256 is published for it"
    print(f"=> {weights.name}: {path} ({path.stat().st_size / 1e6:.1f} MB; {checked})")
    if weights.experiment:
        prefix = "" if root == ROOT else str(root)
        print(f"   to test it: {weights.test_command(prefix)}")
    elif weights.kind == zoo.DETECTOR:
        print(f"   to use it: python tools/demo.py ... --detector {weights.name}")
    else:
        print(f"   what it is: {weights.kind}")


def listing(known: dict[str, Weights], root: Path) -> str:
    """One line for each: name, whether it is here, its published score, its experiment or
    what it is."""
    rows = []
    for weights in known.values():
        score = next((f"{name} {value:g}" for name, value in headline(weights)), "")
        here = "here" if (root / weights.path).exists() else ""
        rows.append((weights.name, here, score, weights.experiment or weights.kind))
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return "\n".join(
        "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()
        for row in rows
    )


def headline(weights: Weights) -> list[tuple[str, float]]:
    """The score that counts, if there is one."""
    return [(name, weights.scores[name]) for name in HEADLINES if name in weights.scores]


if __name__ == "__main__":
    run(main)
