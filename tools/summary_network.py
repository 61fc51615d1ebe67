"""Report the parameters, FLOPs and memory of an experiment's network, alongside published values.

  python tools/summary_network.py --cfg experiments/coco/hrnet/w32_256x192_adam_lr1e-3.yaml
  python tools/summary_network.py --cfg FILE --shape 384 288 --layers MODEL.NUM_JOINTS 16
  python tools/summary_network.py --cfg FILE --out-file layers      # layers.csv and layers.html

The network runs on PyTorch's meta device, which needs no weights and computes no values.
"""

import argparse
import csv
import html
import io
import json
import logging
import sys
import textwrap
import warnings
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import _init_paths
import torch
import yaml
from cli import add_settings, command_parser, protect_numbers, run, take_experiment
from yacs.config import CfgNode

from lib.config import load_config
from lib.models import build_model
from lib.models.costs import (
    CONVENTIONS,
    count_flops,
    inference_parameters,
    record_calls,
    summarize,
)
from lib.models.heads import uses_tags
from lib.models.network import PoseNetwork
from lib.utils import distributed
from lib.utils.errors import InputError
from lib.utils.files import write_atomically

logger = logging.getLogger(__name__)

PUBLISHED = _init_paths.ROOT / "models" / "published.yaml"
EXPERIMENTS = _init_paths.ROOT / "experiments"
CONVENTION = (
    "GMACs are 10^9 multiply-accumulates of convolutions and matrix products for one image, "
    "without normalisation, activation functions and sums. Activations are the output elements of "
    "convolutions and matrix products. Memory includes activations and parameters, 4 bytes each."
)
COLUMNS = (  # of the files that --out-file writes, with one row per layer
    "layer",
    "type",
    "input",
    "output",
    "parameters",
    "macs",
    "flops",
    "activations",
    "memory_mib",
)


@dataclass(frozen=True)
class Published:
    """Published costs of an experiment's network, such as 28.5M and 7.1G; '' if not published.

    Attributes:
        source: repository with the published costs.
        convention: how the source counts FLOPs; a key of ``CONVENTIONS``.
        reason: why the count here differs; '' if it does not.
    """

    source: str
    convention: str
    flops: str
    parameters: str = ""
    reason: str = ""

    def format_alike(self, parameters: int, flops: int) -> tuple[str, str]:
        """Format numbers of parameters and FLOPs in the same units as the published ones."""
        giga = CONVENTIONS[self.convention].giga
        unit = self.flops[-1]
        return quantity(parameters, "M", 1e9), quantity(flops, unit, giga)

    def agrees(self, parameters: int, flops: int) -> bool:
        """Return True if the published figures are these numbers, rounded or truncated."""
        agree = is_rounded(self.flops, flops, CONVENTIONS[self.convention].giga)
        return agree and (not self.parameters or is_rounded(self.parameters, parameters, 1e9))


def load_published() -> dict[str, list[Published]]:
    """Read models/published.yaml; returns the published costs by experiment."""
    found: dict[str, list[Published]] = {}
    for group in yaml.safe_load(PUBLISHED.read_text(encoding="utf-8")).values():
        shared = {key: group[key] for key in ("source", "convention")}
        for experiment, figures in group["experiments"].items():
            found.setdefault(experiment, []).append(Published(**{**shared, **figures}))
    return found


def quantity(value: float, unit: str, giga: float) -> str:
    """Format a number of FLOPs or parameters in M or G, such as 7.12G.

    ``giga`` is the number that counts as 1 G. Some repositories use 2^30 for FLOPs.
    """
    # Lite-HRNet and later repositories report MFLOPs with one decimal place.
    digits = 1 if unit == "M" and giga == CONVENTIONS["lightweight"].giga else 2
    return f"{value / giga * (1000 if unit == 'M' else 1):.{digits}f}{unit}"


def is_rounded(published: str, count: float, giga: float) -> bool:
    """Return True if ``published``, such as 7.1G, is ``count`` rounded or truncated.

    ``giga`` is the number that counts as 1 G, as in ``quantity``.
    """
    figure, unit = published[:-1], published[-1]
    step = 10 ** -len(figure.partition(".")[2])
    difference = count / giga * (1000 if unit == "M" else 1) - float(figure)
    return -step / 2 <= difference < step


def main() -> None:
    args, size = parse_args()
    cfg = load_config(args.cfg, [*args.opts, *size])
    with torch.device("meta"):
        network = build_model(cfg)
    width, height = cfg.MODEL.IMAGE_SIZE
    costs = summarize(network, height, width, is_bottom_up=uses_tags(cfg))
    summary = {"network": cfg.MODEL.NAME, **costs}
    published = find_published(args, cfg)
    summary["published"] = compare_published(network, height, width, published)
    if args.out_file:
        write_layers(summary, args.out_file)
    print(json.dumps(summary, indent=2) if args.json else table(summary, args.layers))


def parse_args() -> tuple[argparse.Namespace, list[str]]:
    """Return the arguments, and the input size as a setting."""
    parser = command_parser(__doc__)
    add = parser.add_argument
    text = "YAML file of the experiment; may also be the first argument, without --cfg"
    add("--cfg", metavar="FILE", help=text)
    text = "input size in pixels; one number means a square (default: the setting MODEL.IMAGE_SIZE)"
    add("--shape", nargs="+", metavar=("HEIGHT", "WIDTH"), help=text)
    add("--layers", action="store_true", help="list all layers instead of top-level modules")
    add("--json", action="store_true", help="print JSON instead of a table")
    text = "write a table of all layers to NAME.csv and NAME.html"
    add("--out-file", metavar="NAME", help=text)
    add_settings(parser)
    args = parser.parse_intermixed_args(protect_numbers(sys.argv[1:]))
    size = split_shape(args)
    take_experiment(parser, args)
    return args, size


def split_shape(args: argparse.Namespace) -> list[str]:
    """Return --shape as a setting, and move the settings that follow it to ``args.opts``."""
    if args.shape is None:
        return []
    words = args.shape
    count = next((i for i, word in enumerate(words) if not word.isdecimal()), len(words))
    numbers = [int(word) for word in words[:count]]
    if len(numbers) not in (1, 2) or min(numbers) < 1:
        expected = "must be height and width in pixels, or one number for a square"
        raise InputError(f"--shape: {expected}, not {' '.join(words[: max(count, 1)]).strip()}")
    args.opts = [*args.opts, *words[count:]]
    return ["MODEL.IMAGE_SIZE", str([numbers[-1], numbers[0]])]


def find_published(args: argparse.Namespace, cfg: CfgNode) -> list[Published]:
    """Return the published costs, or [] if the command line changes the experiment's settings."""
    file = Path(args.cfg).resolve()
    if args.opts or not file.is_relative_to(EXPERIMENTS):
        return []
    found = load_published().get(file.relative_to(EXPERIMENTS).with_suffix("").as_posix(), [])
    has_default_size = found and load_config(args.cfg).MODEL.IMAGE_SIZE == cfg.MODEL.IMAGE_SIZE
    return found if has_default_size else []


def compare_published(
    network: PoseNetwork, height: int, width: int, published: Sequence[Published]
) -> list[dict[str, Any]]:
    """Compare published costs with this network's, counted by the convention of each source."""
    parameters = inference_parameters(network)
    calls = record_calls(network, torch.zeros(1, 3, height, width, device="meta"))
    rows = []
    for entry in published:
        costs = (parameters, sum(count_flops(calls, entry.convention).values()))
        counted_parameters, counted_flops = entry.format_alike(*costs)
        counted = {"counted_parameters": counted_parameters, "counted_flops": counted_flops}
        rows.append({**vars(entry), **counted, "agrees": entry.agrees(*costs)})
    return rows


def write_layers(summary: Mapping[str, Any], name: str) -> None:
    """Write the costs of all layers, and their sum, to ``name``.csv and ``name``.html."""
    rows = [COLUMNS]
    for layer, cost in [*summary["layers"].items(), ("total", summary)]:
        shapes = [" x ".join(map(str, cost.get(key, []))) for key in ("input", "output")]
        numbers = [cost.get(key, 0) for key in COLUMNS[4:-1]]
        rows.append((layer, cost.get("type", ""), *shapes, *numbers, f"{cost['memory_mib']:.4f}"))
    file = io.StringIO()
    csv.writer(file, lineterminator="\n").writerows(rows)
    write_atomically(f"{name}.csv", file.getvalue().encode())
    write_atomically(f"{name}.html", html_page(summary, rows).encode())


def html_page(summary: Mapping[str, Any], rows: Sequence[Sequence[Any]]) -> str:
    """Return a web page with a table of ``rows``; the first one is the header."""

    def line(cells: Sequence[Any], tag: str) -> str:
        return "".join(f"<{tag}>{html.escape(str(cell))}</{tag}>" for cell in cells)

    title = html.escape(heading(summary))
    style = "body{font-family:sans-serif}td:nth-child(n+5){text-align:right}td,th{padding:0 .6em}"
    notes = (CONVENTION, CONVENTIONS[summary["convention"]].text)
    return "\n".join(
        [
            f'<!doctype html><meta charset="utf-8"><title>{title}</title><style>{style}</style>',
            f"<h1>{title}</h1>",
            f"<table><tr>{line(rows[0], 'th')}</tr>",
            *(f"<tr>{line(row, 'td')}</tr>" for row in rows[1:]),
            "</table>",
            *(f"<p>{html.escape(note)}</p>" for note in notes),
            "",
        ]
    )


def heading(summary: Mapping[str, Any]) -> str:
    height, width = summary["shape"]
    return f"{summary['network']}, input {height} x {width} (height x width)"


def table(summary: Mapping[str, Any], by_layer: bool) -> str:
    """Format the summary as text. Modules with neither parameters nor MACs are left out."""
    costs = summary["layers" if by_layer else "modules"]
    rows = [(name, cost) for name, cost in costs.items() if cost["parameters"] or cost["macs"]]
    rows.append(("total", summary))
    width_of_names = max(16, *(len(name) + 2 for name, _ in rows))
    lines = [heading(summary), ""]
    lines.append(
        f"{'module':<{width_of_names}}{'parameters':>14}{'GMACs':>10}{'activations':>14}{'MiB':>9}"
    )
    lines += [
        f"{name:<{width_of_names}}{cost['parameters']:>14,}{cost['macs'] / 1e9:>10.4f}"
        f"{cost['activations']:>14,}{cost['memory_mib']:>9.2f}"
        for name, cost in rows
    ]
    convention = summary["convention"]
    unit = "M" if convention == "lightweight" else "G"
    flops = quantity(summary["flops"], unit, CONVENTIONS[convention].giga)
    notes = [CONVENTION]
    if layers := summary["training_only"]:
        notes.append(
            f"Not included, because they are used only in training: {', '.join(layers)} "
            f"({sum(layers.values()):,} parameters)."
        )
    notes.append(f"FLOPs: {flops}. {CONVENTIONS[convention].text}")
    for entry in summary["published"]:
        notes += published_notes(entry, explain_convention=entry["convention"] != convention)
    return "\n".join([*lines, *(f"\n{textwrap.fill(note, 80)}" for note in notes)])


def log_network(cfg: CfgNode, network: torch.nn.Module, log_dir: Path) -> None:
    """Log the network's costs, and write its graph to TensorBoard if TRAIN.LOG_GRAPH is set.

    The log file also gets the table of its modules.

    Raises:
        InputError: TRAIN.LOG_GRAPH needs a package that is not installed.
    """
    if not distributed.is_main():
        return
    width, height = cfg.MODEL.IMAGE_SIZE
    with torch.device("meta"):
        costs = summarize(build_model(cfg), height, width, uses_tags(cfg))
    millions, billions = costs["parameters"] / 1e6, costs["macs"] / 1e9
    name = cfg.MODEL.NAME
    logger.info("=> %s: %.2f M parameters, %.2f GMACs per image", name, millions, billions)
    logging.getLogger("config").info(
        table({"network": name, "published": [], **costs}, by_layer=False)
    )
    if cfg.TRAIN.LOG_GRAPH:
        try:
            from torch.utils.tensorboard import SummaryWriter
        except ImportError:
            raise InputError("TRAIN.LOG_GRAPH: needs the package tensorboard") from None
        image = torch.zeros(1, 3, height, width)
        with SummaryWriter(str(log_dir)) as writer, warnings.catch_warnings():
            warnings.simplefilter("ignore")  # add_graph uses the deprecated torch.jit.trace
            writer.add_graph(network.eval(), image, use_strict_trace=False)


def published_notes(entry: Mapping[str, Any], explain_convention: bool) -> Iterator[str]:
    """Yield lines with the published costs, those counted here, and why they differ."""
    figures = f"{entry['parameters']} parameters, " if entry["parameters"] else ""
    figures += f"{entry['flops']} FLOPs"
    counted = f"{entry['counted_parameters']} parameters, {entry['counted_flops']} FLOPs"
    yield f"Published in {entry['source']}: {figures}. Counted here in the same way: {counted}."
    if not entry["agrees"]:
        yield f"Reason for the difference: {entry['reason'] or 'not known'}."
    if explain_convention:
        yield CONVENTIONS[entry["convention"]].text


if __name__ == "__main__":
    run(main)
