"""Say how large an experiment's network is and how much it computes.

    python tools/summary_network.py --cfg experiments/coco/hrnet/w32_256x192_adam_lr1e-3.yaml
    python tools/summary_network.py --cfg FILE --shape 384 288 --json MODEL.NUM_JOINTS 16

No weights are read and nothing is computed: the network runs on PyTorch's meta device.
"""

import argparse
import json
import math
import sys
import textwrap
from collections.abc import Mapping, Sequence
from typing import Any

import _init_paths  # noqa: F401
import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from lib.config import load_config
from lib.models import build_model
from lib.utils.errors import InputError

CONVENTION = (
    "GMACs are 10^9 multiply-accumulates of convolutions and matrix products for one image; "
    "normalisation, activations and sums are not counted. The HRNet repository's GFLOPs are "
    "multiply-accumulates too, but 2^30 of them, and a deconvolution of stride 2 counts fourfold."
)


def main(argv: Sequence[str] | None = None) -> int:
    args = parse_args(argv)
    try:
        cfg = load_config(args.cfg, args.opts)
        with torch.device("meta"):
            network = build_model(cfg)
        width, height = cfg.MODEL.IMAGE_SIZE
        shape = args.shape or (height, width)
        if min(shape) < 1:
            raise InputError(f"--shape must be a height and a width in pixels, not {shape}")
        summary = {"network": cfg.MODEL.NAME, **summarize(network, *shape)}
    except InputError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    print(json.dumps(summary, indent=2) if args.json else table(summary))
    return 0


def parse_args(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--cfg", required=True, help="the experiment's YAML file")
    parser.add_argument(
        "--shape",
        type=int,
        nargs=2,
        metavar=("HEIGHT", "WIDTH"),
        help="of the input in pixels; without it MODEL.IMAGE_SIZE",
    )
    parser.add_argument("--json", action="store_true", help="print JSON instead of a table")
    parser.add_argument("opts", nargs="*", metavar="KEY VALUE", help="settings over the YAML")
    return parser.parse_args(argv)


def summarize(network: nn.Module, height: int, width: int) -> dict[str, Any]:
    """Parameters and multiply-accumulates of ``network`` for one image, in all and by module.

    Parameters held by the network itself, in no module, count only in all.
    """
    image = torch.zeros(1, 3, height, width, device=next(network.parameters()).device)
    counter = FlopCounterMode(display=False)
    with torch.no_grad(), counter:
        network.eval()(image)
    macs = {name: count_macs(ops) for name, ops in counter.get_flop_counts().items()}
    prefix = type(network).__name__
    total = macs.get("Global", 0)
    # The original counts a deconvolution's kernel at every output pixel instead of every input one.
    excess = sum(
        macs.get(f"{prefix}.{name}", 0) * (math.prod(module.stride) - 1)
        for name, module in network.named_modules()
        if isinstance(module, nn.ConvTranspose2d)
    )
    return {
        "shape": [height, width],
        "parameters": count_parameters(network),
        "macs": total,
        "hrnet_gflops": (total + excess) / 2**30,
        "modules": {
            name: {"parameters": count_parameters(part), "macs": macs.get(f"{prefix}.{name}", 0)}
            for name, part in network.named_children()
        },
        "convention": CONVENTION,
    }


def count_parameters(module: nn.Module) -> int:
    return sum(parameter.numel() for parameter in module.parameters())


def count_macs(ops: Mapping[Any, int]) -> int:
    """PyTorch's counter takes a multiply-accumulate for two operations."""
    return sum(ops.values()) // 2


def table(summary: dict[str, Any]) -> str:
    """The summary as text; modules that neither hold nor compute anything are left out."""
    height, width = summary["shape"]
    rows = [(name, m["parameters"], m["macs"]) for name, m in summary["modules"].items()]
    rows = [row for row in rows if row[1] or row[2]]
    rows.append(("all", summary["parameters"], summary["macs"]))
    lines = [f"{summary['network']}, input {height} x {width} (height x width)", ""]
    lines.append(f"{'module':<16}{'parameters':>14}{'GMACs':>10}")
    lines += [f"{name:<16}{count:>14,}{macs / 1e9:>10.3f}" for name, count, macs in rows]
    lines += ["", f"as the HRNet repository counts: {summary['hrnet_gflops']:.2f} GFLOPs"]
    return "\n".join([*lines, "", *textwrap.wrap(summary["convention"], 80)])


if __name__ == "__main__":
    sys.exit(main())
