"""Download a data set, or draw the built-in one, into the folder that the experiments expect.

  python tools/get_data.py figures                      draw the built-in data set in data/figures
  python tools/get_data.py figures --sheet sheet.png    write only a contact sheet of samples
  python tools/get_data.py coco                         download COCO to data/coco
  python tools/get_data.py coco --split val2017         download only one split
  python tools/get_data.py mpii|crowdpose|atrw          download another data set

Existing files are kept and interrupted downloads resume. The command checks that all annotated
images are there, and names files that have to be downloaded by hand.
"""

import argparse
import logging
import sys
import time
from collections.abc import Callable
from pathlib import Path

import _init_paths

from lib.dataset.downloads import DOWNLOADS, download_split
from lib.figures.sheet import contact_sheet
from lib.figures.write import SIZES, write_figures
from lib.utils.drawing import write_image
from lib.utils.errors import InputError


def parse_args(argv: list[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    commands = parser.add_subparsers(dest="name", metavar="NAME", required=True)
    text = "draw the built-in data set of people; needs no download"
    add = add_command(commands, "figures", text)
    number = {"type": int, "metavar": "N"}
    for name, images in (("train", "training images"), ("val", "validation images")):
        add(f"--{name}", **number, default=SIZES[name], help=f"{images} (default: %(default)s)")
    add("--seed", **number, default=0, help="seed of the drawings (default: %(default)s)")
    add("--workers", **number, help="number of processes (default: CPU count)")
    add("--sheet", type=Path, metavar="FILE", help="write only a contact sheet of samples to FILE")
    for name, data_set in DOWNLOADS.items():
        splits, default = list(data_set.splits), " ".join(data_set.default)
        add = add_command(commands, name, f"download this data set; splits: {', '.join(splits)}")
        text = f"splits to download (default: {default})"
        add("--split", nargs="+", choices=splits, default=data_set.default, help=text)
    return parser.parse_args(argv)


def add_command(commands, name: str, text: str) -> Callable[..., argparse.Action]:
    """Add the command of a data set; returns its ``add_argument``."""
    add = commands.add_parser(name, help=text, description=text).add_argument
    folder = _init_paths.ROOT / "data" / name
    text = f"output folder (default: data/{name})"
    add("--root", type=Path, default=folder, metavar="DIR", help=text)
    return add


class ProgressBar:
    """Progress bar on a terminal; elsewhere, about ten lines of text."""

    def __init__(self) -> None:
        self.start = time.monotonic()
        self.last_step = -1
        self.terminal = sys.stderr.isatty()

    def __call__(self, done: int, total: int) -> None:
        step = (100 if self.terminal else 10) * done // total
        if step == self.last_step:
            return
        self.last_step = step
        text = f"{done}/{total} images, {time.monotonic() - self.start:.0f} s"
        if self.terminal:
            bar = "#" * (30 * done // total)
            end = "\n" if done == total else ""
            print(f"\r[{bar:<30}] {text}", end=end, file=sys.stderr, flush=True)
        else:
            print(text, file=sys.stderr, flush=True)


def make_figures(args: argparse.Namespace) -> None:
    if args.sheet is not None:
        write_image(args.sheet, contact_sheet(args.seed))
        print(f"wrote {args.sheet}")
        return
    sizes = {"train": args.train, "val": args.val}
    write_figures(args.root, sizes, args.seed, args.workers, progress=ProgressBar())
    print(f"figures: {args.train} train and {args.val} val images in {args.root}")


def get_splits(args: argparse.Namespace) -> None:
    data_set = DOWNLOADS[args.name]
    print(f"{args.name}: terms of use: {data_set.terms}")
    for name in args.split:
        for line in download_split(args.root, data_set.splits[name]):
            print(line, flush=True)


def main(argv: list[str] | None = None) -> int:
    args = parse_args(argv)
    logging.basicConfig(level=logging.INFO, format="%(message)s", stream=sys.stdout)
    try:
        if args.name == "figures":
            make_figures(args)
        else:
            get_splits(args)
    except InputError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        return 130
    return 0


if __name__ == "__main__":
    sys.exit(main())
