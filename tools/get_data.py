"""Download a data set, or draw the built-in one, into the folder that the experiments expect.

  python tools/get_data.py figures                      draw the built-in data set in data/figures
  python tools/get_data.py figures --sheet sheet.png    write only a contact sheet of samples
  python tools/get_data.py coco                         download COCO to data/coco
  python tools/get_data.py coco --split val2017         download only one split
  python tools/get_data.py mpii|crowdpose|atrw          download another data set

Existing files are kept, and interrupted downloads resume. The command checks that all annotated
images are there, and names the files that have to be downloaded by hand.
"""

import argparse
import logging
import sys
from collections.abc import Callable
from pathlib import Path

import _init_paths
from cli import command_parser, run
from tqdm import tqdm

from lib.dataset.downloads import DOWNLOADS, download_split
from lib.figures.sheet import contact_sheet
from lib.figures.write import SIZES, write_figures
from lib.utils.drawing import write_image
from lib.utils.errors import InputError


def parse_args() -> argparse.Namespace:
    parser = command_parser(__doc__)
    commands = parser.add_subparsers(dest="name", metavar="NAME", required=True)
    text = "draw the built-in data set of synthetic people"
    add = add_command(commands, "figures", text)
    number = {"type": int, "metavar": "N"}
    for name, images in (("train", "training images"), ("val", "validation images")):
        text = f"number of {images} (default: %(default)s)"
        add(f"--{name}", **number, default=SIZES[name], help=text)
    add("--seed", **number, default=0, help="random seed (default: %(default)s)")
    add("--workers", **number, help="number of processes (default: number of CPUs)")
    add("--sheet", type=Path, metavar="FILE", help="write only a contact sheet of samples to FILE")
    for name, data_set in DOWNLOADS.items():
        splits, default = list(data_set.splits), data_set.default
        listing = ", ".join(splits)
        add = add_command(commands, name, f"download the data set {name} (splits: {listing})")
        text = f"splits to download: {listing} (default: {' '.join(default)})"
        add("--split", nargs="+", choices=splits, default=default, metavar="SPLIT", help=text)
    return parser.parse_args()


def add_command(commands, name: str, text: str) -> Callable[..., argparse.Action]:
    """Add the command of a data set, and return its method ``add_argument``."""
    description = f"{text[0].upper()}{text[1:]}."
    add = commands.add_parser(name, help=text, description=description).add_argument
    folder = _init_paths.ROOT / "data" / name
    text = f"output folder (default: data/{name})"
    add("--root", type=Path, default=folder, metavar="DIR", help=text)
    return add


def draw_with_progress(
    root: Path, sizes: dict[str, int], seed: int = 0, workers: int | None = None
) -> None:
    """Draw the built-in data set and print progress: a bar on a terminal, otherwise ten lines."""
    with tqdm(total=sum(sizes.values()), desc="images", delay=1, disable=None) as bar:

        def report(done: int, total: int) -> None:
            bar.update()
            if bar.disable and 10 * done // total > 10 * (done - 1) // total:
                print(f"{done}/{total} images", file=sys.stderr, flush=True)

        write_figures(root, sizes, seed, workers, progress=report)


def make_figures(args: argparse.Namespace) -> None:
    for name, minimum in (("train", 1), ("val", 1), ("seed", 0), ("workers", 1)):
        value = getattr(args, name)
        if value is not None and value < minimum:
            raise InputError(f"--{name}: must be {minimum} or more, not {value}")
    if args.sheet is not None:
        write_image(args.sheet, contact_sheet(args.seed))
        print(f"wrote {args.sheet}")
        return
    sizes = {"train": args.train, "val": args.val}
    draw_with_progress(args.root, sizes, args.seed, args.workers)
    print(f"figures: {args.train} train and {args.val} val images in {args.root}")


def get_splits(args: argparse.Namespace) -> None:
    data_set = DOWNLOADS[args.name]
    print(f"{args.name}: terms of use: {data_set.terms}")
    for name in args.split:
        for line in download_split(args.root, data_set.splits[name]):
            print(line, flush=True)


def main() -> None:
    args = parse_args()
    logging.basicConfig(level=logging.INFO, format="%(message)s", stream=sys.stdout)
    if args.name == "figures":
        make_figures(args)
    else:
        get_splits(args)


if __name__ == "__main__":
    run(main)
