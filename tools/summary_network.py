"""Say how large an experiment's network is and how much it computes.

    python tools/summary_network.py --cfg experiments/coco/hrnet/w32_256x192_adam_lr1e-3.yaml
    python tools/summary_network.py --cfg FILE --shape 384 288 --layers MODEL.NUM_JOINTS 16

No weights are read and nothing is computed: the network runs on PyTorch's meta device.
"""

import argparse
import json
import math
import sys
import textwrap
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import _init_paths  # noqa: F401
import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from lib.config import load_config
from lib.models import build_model
from lib.models.dite_hrnet import DynamicConv
from lib.models.heads import HeatmapHead
from lib.models.hrformer import WindowAttention
from lib.models.lightweight import LightweightHRNet, LightweightModule
from lib.models.pose_hrnet import PoseHRNet
from lib.models.pose_resnet import PoseResNet
from lib.utils.errors import InputError

CONVENTION = (
    "GMACs are 10^9 multiply-accumulates of convolutions and matrix products for one image; "
    "normalisation, activation functions and sums are not counted. Activations are the numbers "
    "that convolutions and matrix products put out; memory is that of them and of the parameters, "
    "4 bytes each."
)
HRNET_CONVENTION = (
    "As the HRNet repository counts: multiply-accumulates, 2^30 of them a GFLOP, and a "
    "deconvolution of stride 2 counts fourfold."
)
LIGHTWEIGHT_CONVENTION = (
    "As Lite-HRNet's repository and those after it count: multiply-accumulates of convolutions and "
    "their biases, two for each number of a batch norm, one for each number of a ReLU or a mean "
    "over an image (with a row and a column too many), one for each pixel of an enlargement; 2^20 "
    "of them an M."
)
MMCV_CONVENTION = (
    "As mmcv's tool counts, which SRPose and HRFormer use: multiply-accumulates of "
    "the modules that are convolutions, their biases, or products, two for each number of a "
    "batch or layer norm, one for each of a ReLU, a pooling or an enlargement; attention and "
    "whatever else is no module of its own is not counted."
)
# What the repositories say of their experiments: MFLOPs and millions of parameters.
PUBLISHED = {
    "coco/litehrnet_18_256x192": (205.2, 1.1),
    "coco/litehrnet_30_256x192": (319.2, 1.8),
    "coco/litehrnet_18_384x288": (461.6, 1.1),
    "coco/litehrnet_30_384x288": (717.8, 1.8),
    "mpii/litehrnet_18_256x256": (273.4, 1.1),
    "mpii/litehrnet_30_256x256": (425.3, 1.8),
    "coco/naive_litehrnet_18_256x192": (194.8, 0.7),
    "coco/wider_naive_litehrnet_18_256x192": (311.1, 1.3),
    "mpii/naive_litehrnet_18_256x256": (259.6, 0.7),
    "mpii/wider_naive_litehrnet_18_256x256": (418.7, 1.3),
    "coco/ditehrnet_18_256x192": (209.8, 1.1),
    "coco/ditehrnet_30_256x192": (329.8, 1.8),
    "coco/ditehrnet_18_384x288": (471.8, 1.1),
    "coco/ditehrnet_30_384x288": (741.7, 1.8),
    "mpii/ditehrnet_18_256x256": (279.5, 1.1),
    "mpii/ditehrnet_30_256x256": (439.5, 1.8),
    "mpii/widehrnet_18_256x256": (960, 2.7),
    "mpii/widehrnet_18_se_256x256": (970, 4.4),
    "coco/widehrnet_18_se_256x192": (900, 4.4),
    "coco/widehrnet_18_se_384x288": (1600, 4.4),
    "coco/widehrnet_30_se_256x192": (1210, 7.19),
}
# MFLOPs of one decimal are cut or rounded, as parameters are; WideHRNet's have two or three digits,
# of 10^3 * 2^20 or of 2^30.
NEAR, NEAR_SHARE = 0.1, 0.03
ROOT = "Global"  # PyTorch's name for the whole


def main(argv: Sequence[str] | None = None) -> int:
    args = parse_args(argv)
    try:
        if args.shape and min(args.shape) < 1:
            raise InputError(f"--shape must be a height and a width in pixels, not {args.shape}")
        size = [] if args.shape is None else ["MODEL.IMAGE_SIZE", str([*reversed(args.shape)])]
        cfg = load_config(args.cfg, [*args.opts, *size])
        with torch.device("meta"):
            network = build_model(cfg)
        width, height = cfg.MODEL.IMAGE_SIZE
        summary = {"network": cfg.MODEL.NAME, **summarize(network, height, width)}
        if not (args.opts or args.shape):
            name = f"{cfg.DATASET.DATASET}/{Path(args.cfg).stem}"
            said = PUBLISHED.get(name, (None, None))
            summary |= zip(("published_mflops", "published_mparameters"), said, strict=True)
    except InputError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    print(json.dumps(summary, indent=2) if args.json else table(summary, args.layers))
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
    parser.add_argument(
        "--layers", action="store_true", help="every layer, instead of the network's parts"
    )
    parser.add_argument("--json", action="store_true", help="print JSON instead of a table")
    parser.add_argument("opts", nargs="*", metavar="KEY VALUE", help="settings over the YAML")
    return parser.parse_args(argv)


def summarize(network: nn.Module, height: int, width: int) -> dict[str, Any]:
    """What ``network`` costs for one image, in all, by its parts and by its layers.

    Parameters held by the network itself, in no module, count only in all.
    """
    image = torch.zeros(1, 3, height, width, device=next(network.parameters()).device)
    network.eval()
    flops = FlopCounterMode(display=False)
    outputs = FlopCounterMode(
        display=False, custom_mapping=dict.fromkeys(flops.flop_registry, count_outputs)
    )
    with torch.no_grad(), flops, outputs:
        network(image)
    prefix = type(network).__name__
    # PyTorch's counter takes a multiply-accumulate for two operations.
    macs = {name: total // 2 for name, total in totals(flops, prefix).items()}
    activations = totals(outputs, prefix)
    for counts in (macs, activations):
        fill_containers(counts, network)

    def cost(name: str, module: nn.Module, is_own: bool = False) -> dict[str, Any]:
        """Of a module with what is in it, or of what it does itself."""
        inside = [f"{name}.{child}" for child, _ in module.named_children()] if is_own else []
        parameters = sum(p.numel() for p in module.parameters(recurse=not is_own))
        numbers = activations.get(name, 0) - sum(activations.get(child, 0) for child in inside)
        return {
            "parameters": parameters,
            "macs": macs.get(name, 0) - sum(macs.get(child, 0) for child in inside),
            "activations": numbers,
            "memory_mib": 4 * (parameters + numbers) / 2**20,
        }

    layers = {name: cost(name, m, is_own=True) for name, m in network.named_modules() if name}
    return {
        "shape": [height, width],
        **cost(ROOT, network),
        **published_count(network, image, macs),
        "modules": {name: cost(name, part) for name, part in parts(network)},
        "layers": {name: layer for name, layer in layers.items() if any(layer.values())},
        "convention": CONVENTION,
    }


def fill_containers(counts: dict[str, int], network: nn.Module) -> None:
    """Give modules that are never called, such as lists, the sum of what is in them."""
    for name, module in reversed([*network.named_modules()]):
        inside = [f"{name}.{child}" for child, _ in module.named_children()]
        if name and name not in counts and inside:
            counts[name] = sum(counts.get(child, 0) for child in inside)


def parts(network: nn.Module) -> Iterator[tuple[str, nn.Module]]:
    """The backbone's parts and the head's."""
    for name, part in network.named_children():
        if name != "head":
            yield name, part
    for name, part in network.head.named_children():
        yield f"head.{name}", part


def count_outputs(*args: Any, out_shape: Any = None, **kwargs: Any) -> int:
    """A formula for PyTorch's counter: how many numbers an operation puts out."""
    return math.prod(out_shape)


def totals(counter: FlopCounterMode, prefix: str) -> dict[str, int]:
    """The counter's sums, by the names of modules."""
    counts = counter.get_flop_counts()
    return {name.removeprefix(f"{prefix}."): sum(ops.values()) for name, ops in counts.items()}


def published_count(
    network: nn.Module, image: torch.Tensor, macs: Mapping[str, int]
) -> dict[str, Any]:
    """The figure of the network's paper, counted as that paper does."""
    if isinstance(network, LightweightHRNet):
        return {
            "counted_mflops": lightweight_flops(network, image) / 2**20,
            "counted_convention": LIGHTWEIGHT_CONVENTION,
        }
    if not isinstance(network, (PoseHRNet, PoseResNet)) or type(network.head) is not HeatmapHead:
        return {
            "counted_mflops": mmcv_flops(network, image) / 1e6,
            "counted_convention": MMCV_CONVENTION,
        }
    # The original counts a deconvolution's kernel at every output pixel instead of every input one.
    excess = sum(
        macs.get(name, 0) * (math.prod(module.stride) - 1)
        for name, module in network.named_modules()
        if isinstance(module, nn.ConvTranspose2d)
    )
    return {
        "hrnet_gflops": (macs.get(ROOT, 0) + excess) / 2**30,
        "counted_convention": HRNET_CONVENTION,
    }


def lightweight_flops(network: LightweightHRNet, image: torch.Tensor) -> int:
    """tools/torchstat of HRNet/Lite-HRNet and ZiyiZhang27/Dite-HRNet: each module is counted where
    it was called last, and what is not a module is not counted."""
    counts: dict[nn.Module, int] = {}

    def count(module: nn.Module, args: tuple[Any, ...], output: Any) -> None:
        x = args[0]
        if isinstance(module, LightweightModule):
            # Published it enlarges each coarser branch for each finer row, ``pixels`` at a time.
            pixels = [math.prod(row.shape[2:]) for row in output]
            counts[module] = sum(n * (len(pixels) - 1 - i) for i, n in enumerate(pixels))
        elif isinstance(module, DynamicConv):
            kernel = module.aggregation.weight[0]
            counts[module] = kernel.numel() * math.prod(output.shape[2:])
        elif isinstance(module, nn.Conv2d):
            per_pixel = module.weight.numel() + (0 if module.bias is None else len(module.bias))
            counts[module] = per_pixel * math.prod(output.shape[2:])
        elif isinstance(module, nn.BatchNorm2d):
            counts[module] = 2 * x.numel()
        elif isinstance(module, nn.ReLU):
            counts[module] = x.numel()
        elif isinstance(module, nn.AdaptiveAvgPool2d):
            counts[module] = x.shape[1] * (x.shape[2] + 1) * (x.shape[3] + 1)

    handles = [module.register_forward_hook(count) for module in network.modules()]
    with torch.no_grad():
        network(image)
    for handle in handles:
        handle.remove()
    return sum(counts.values())


def mmcv_flops(network: nn.Module, image: torch.Tensor) -> int:
    """get_model_complexity_info of mmcv 1.x, for one image."""
    counts: list[int] = []

    def count(module: nn.Module, args: tuple[Any, ...], output: Any) -> None:
        if isinstance(module, (nn.Conv2d, nn.ConvTranspose2d)):
            places = args[0] if isinstance(module, nn.ConvTranspose2d) else output
            counts.append(module.weight.numel() * math.prod(places.shape[2:]))
            counts.append(0 if module.bias is None else output.numel())
        elif isinstance(module, nn.Linear):
            counts.append(args[0].numel() * output.shape[-1])
        elif isinstance(module, (nn.BatchNorm2d, nn.LayerNorm)):
            counts.append(2 * output.numel())
        elif isinstance(module, (nn.ReLU, nn.Upsample)):
            counts.append(output.numel())
        elif isinstance(module, nn.MaxPool2d):
            counts.append(args[0].numel())

    # There HRFormer's attention puts out by a function, which is not counted.
    uncounted = {m.out_proj for m in network.modules() if isinstance(m, WindowAttention)}
    counted = (module for module in network.modules() if module not in uncounted)
    handles = [module.register_forward_hook(count) for module in counted]
    with torch.no_grad():
        network(image)
    for handle in handles:
        handle.remove()
    return sum(counts)


def published_line(summary: Mapping[str, Any]) -> list[str]:
    """What the repository says of this experiment, beside which the count stands."""
    said = summary.get("published_mflops")
    if said is None:
        return []
    near = NEAR if said % 1 else NEAR_SHARE * said
    differs = abs(summary["counted_mflops"] - said) > near
    return [
        f"published: {said:g}M{', which this count does not reproduce' if differs else ''}",
        f"published parameters: {summary['published_mparameters']:g}M, cut or rounded",
    ]


def table(summary: dict[str, Any], is_by_layer: bool) -> str:
    """The summary as text; modules that neither hold nor compute anything are left out."""
    height, width = summary["shape"]
    costs = summary["layers" if is_by_layer else "modules"]
    rows = [(name, cost) for name, cost in costs.items() if cost["parameters"] or cost["macs"]]
    rows.append(("all", summary))
    wide = max(16, *(len(name) + 2 for name, _ in rows))
    lines = [f"{summary['network']}, input {height} x {width} (height x width)", ""]
    lines.append(f"{'module':<{wide}}{'parameters':>14}{'GMACs':>10}{'activations':>14}{'MiB':>9}")
    lines += [
        f"{name:<{wide}}{cost['parameters']:>14,}{cost['macs'] / 1e9:>10.4f}"
        f"{cost['activations']:>14,}{cost['memory_mib']:>9.2f}"
        for name, cost in rows
    ]
    if "hrnet_gflops" in summary:
        counted = f"{summary['hrnet_gflops']:.2f} GFLOPs"
    else:
        counted = f"{summary['counted_mflops']:.1f}M"
    lines += ["", *textwrap.wrap(summary["convention"], 80), ""]
    if summary["counted_convention"] is MMCV_CONVENTION:
        lines.append(f"counted by mmcv's tool: {counted}")
    else:
        lines += [f"counted as its repository does: {counted}", *published_line(summary)]
    return "\n".join([*lines, *textwrap.wrap(summary["counted_convention"], 80)])


if __name__ == "__main__":
    sys.exit(main())
