"""Download published weights listed in models/zoo.yaml.

  python tools/get_weights.py --list
  python tools/get_weights.py hrnet_w32_imagenet hrnet_w32_coco_256x192
  python tools/get_weights.py --cfg experiments/coco/hrnet/w32_256x192_adam_lr1e-3.yaml

Files are saved where the experiments expect them. Interrupted downloads resume, and a file with the
wrong SHA-256 is never kept.
"""

import argparse
import difflib
import logging
import sys
from pathlib import Path

import _init_paths  # noqa: F401
from cli import command_parser, run

from lib.config import load_config
from lib.utils import zoo
from lib.utils.download import download
from lib.utils.errors import InputError
from lib.utils.zoo import ROOT, Weights

MAIN_SCORES = ("AP", "Mean", "box AP")  # an entry of models/zoo.yaml has at most one of them


def main() -> None:
    args = parse_args()
    logging.basicConfig(level=logging.INFO, format="%(message)s", stream=sys.stdout)
    zoo_weights = zoo.load_zoo()
    if args.list:
        print(listing(zoo_weights, args.root))
        return
    selected = [find_weights(name, zoo_weights) for name in args.names]
    if args.cfg:
        selected += backbone_and_trained_weights(args.cfg)
    for weights in {weights.name: weights for weights in selected}.values():
        get(weights, args.root)


def parse_args() -> argparse.Namespace:
    parser = command_parser(__doc__)
    add = parser.add_argument
    add("names", nargs="*", metavar="NAME", help="names of weights, as in --list")
    text = "YAML file of an experiment, to download its ImageNet backbone and its trained weights"
    add("--cfg", metavar="FILE", help=text)
    text = "list all weights, and mark those that are downloaded"
    add("--list", action="store_true", help=text)
    text = "folder that contains models/ (default: the repository)"
    add("--root", type=Path, default=ROOT, metavar="DIR", help=text)
    args = parser.parse_args()
    if not (args.names or args.cfg or args.list):
        parser.error("give names of weights, --cfg FILE or --list")
    return args


def find_weights(name: str, zoo_weights: dict[str, Weights]) -> Weights:
    if name in zoo_weights:
        return zoo_weights[name]
    similar = difflib.get_close_matches(name, zoo_weights, n=3, cutoff=0.4)
    hint = f"; similar names: {', '.join(similar)}" if similar else ""
    raise InputError(f"{name}: no weights with this name{hint}; --list shows all")


def backbone_and_trained_weights(path: str) -> list[Weights]:
    """Return the backbone and the trained weights that are listed for the experiment ``path``."""
    cfg = load_config(path)
    backbone = zoo.find_weights(cfg.MODEL.PRETRAINED) if cfg.MODEL.PRETRAINED else None
    trained = zoo.weights_of_experiment(path)
    if backbone is None and not trained:
        raise InputError(f"{path}: no weights are listed for this experiment; --list shows all")
    return [*([backbone] if backbone else []), *trained]


def get(weights: Weights, root: Path) -> None:
    path = root / weights.path
    if not path.exists():
        print(f"=> {weights.name}: downloading {weights.url} to {path}")
    download(weights.url, path, weights.sha256)
    checked = "SHA-256 is correct" if weights.sha256 else "no SHA-256 is published"
    print(f"=> {weights.name}: {path} ({path.stat().st_size / 1e6:.1f} MB; {checked})")
    if weights.experiment:
        prefix = "" if root == ROOT else str(root)
        print(f"   to test it: {weights.test_command(prefix)}")
    elif weights.kind == zoo.DETECTOR_KIND:
        print(f"   to use it: python tools/demo.py ... --detector {weights.name}")
    else:
        print(f"   type: {weights.kind}")


def listing(zoo_weights: dict[str, Weights], root: Path) -> str:
    """Return one line per entry: name, "downloaded" if it is, score, and experiment or type."""
    rows = []
    for weights in zoo_weights.values():
        scores = [f"{key} {weights.scores[key]:g}" for key in MAIN_SCORES if key in weights.scores]
        state = "downloaded" if (root / weights.path).exists() else ""
        score = scores[0] if scores else ""
        rows.append((weights.name, state, score, weights.experiment or weights.kind))
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return "\n".join(
        "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()
        for row in rows
    )


if __name__ == "__main__":
    run(main)
