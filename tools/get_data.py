"""Get a data set.

python tools/get_data.py figures                      draw the built-in data set under data/figures
python tools/get_data.py figures --sheet sheet.png    only a contact sheet of it, to look at
"""

import argparse
import sys
import time
from pathlib import Path

import _init_paths

from lib.dataset.figures.sheet import contact_sheet
from lib.dataset.figures.write import SIZES, write_figures
from lib.utils.drawing import write_picture
from lib.utils.errors import InputError


def parse_args(argv: list[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="Get a data set.")
    commands = parser.add_subparsers(dest="name", metavar="NAME", required=True)
    figures = commands.add_parser(
        "figures", help="drawn people, made on the spot: needs no download"
    )
    default = _init_paths.ROOT / "data" / "figures"
    figures.add_argument(
        "--root", type=Path, default=default, help="where to write it (default: data/figures)"
    )
    figures.add_argument(
        "--train", type=int, default=SIZES["train"], help="training images (default: %(default)s)"
    )
    figures.add_argument(
        "--val", type=int, default=SIZES["val"], help="validation images (default: %(default)s)"
    )
    figures.add_argument(
        "--seed", type=int, default=0, help="another seed gives other people (default: %(default)s)"
    )
    figures.add_argument("--workers", type=int, help="processes (default: the number of CPUs)")
    figures.add_argument(
        "--sheet", type=Path, metavar="FILE", help="write a contact sheet to FILE, and nothing else"
    )
    return parser.parse_args(argv)


class Bar:
    """Progress: one line that is written over on a terminal, some ten plain lines elsewhere."""

    def __init__(self) -> None:
        self.start = time.monotonic()
        self.shown = -1
        self.terminal = sys.stderr.isatty()

    def __call__(self, done: int, total: int) -> None:
        step = (100 if self.terminal else 10) * done // total
        if step == self.shown:
            return
        self.shown = step
        text = f"{done}/{total} images, {time.monotonic() - self.start:.0f} s"
        if self.terminal:
            bar = "#" * (30 * done // total)
            end = "\n" if done == total else ""
            print(f"\r[{bar:<30}] {text}", end=end, file=sys.stderr, flush=True)
        else:
            print(text, file=sys.stderr, flush=True)


def make_figures(args: argparse.Namespace) -> None:
    if args.sheet is not None:
        write_picture(args.sheet, contact_sheet(args.seed))
        print(f"wrote {args.sheet}")
        return
    sizes = {"train": args.train, "val": args.val}
    write_figures(args.root, sizes, args.seed, args.workers, progress=Bar())
    print(f"figures: {args.train} train and {args.val} val images in {args.root}")


def main(argv: list[str] | None = None) -> int:
    try:
        make_figures(parse_args(argv))
    except InputError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
