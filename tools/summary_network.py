"""Report the parameters, FLOPs and memory of an experiment's network.

    python tools/summary_network.py --cfg experiments/coco/hrnet/w32_256x192_adam_lr1e-3.yaml
    python tools/summary_network.py --cfg FILE --shape 384 288 --layers MODEL.NUM_JOINTS 16

The network runs on PyTorch's meta device, without weights or computation.
"""

import argparse
import json
import math
import sys
import textwrap
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import _init_paths  # noqa: F401
import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from lib.config import load_config
from lib.models import build_model
from lib.models.dite_hrnet import DynamicConv
from lib.models.heads import HeatmapHead, uses_tags
from lib.models.hrformer import WindowAttention
from lib.models.layers.lightweight import LightweightHRNet, LightweightModule
from lib.models.pose_hrnet import PoseHRNet
from lib.models.pose_resnet import PoseResNet
from lib.utils.errors import InputError

CONVENTION = (
    "GMACs are 10^9 multiply-accumulates of convolutions and matrix products for one image, "
    "without normalisation, activation functions and sums. Activations are the output elements of "
    "convolutions and matrix products. Memory includes activations and parameters, 4 bytes each."
)
HRNET_CONVENTION = (
    "HRNet's convention: multiply-accumulates, with 2^30 in a GFLOP. Deconvolutions of stride 2 "
    "count four times."
)
LIGHTWEIGHT_CONVENTION = (
    "Convention of Lite-HRNet and later repositories, with 2^20 in an M: multiply-accumulates and "
    "biases of convolutions, 2 per element of a batch norm, 1 per element of a ReLU or global "
    "average pooling (with one extra row and column), 1 per pixel of upsampling."
)
MMCV_CONVENTION = (
    "Convention of mmcv's tool, which SRPose and HRFormer use: multiply-accumulates and biases of "
    "convolution modules, multiply-accumulates of linear modules, 2 per element of a batch or "
    "layer norm, 1 per element of a ReLU, pooling or upsampling. Attention and other functional "
    "operations are not counted."
)
# MFLOPs and millions of parameters as published in the repositories.
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
# Published MFLOPs are truncated or rounded to one decimal. WideHRNet's have two or three digits,
# and their G is 10^3 * 2^20 or 2^30.
TOLERANCE, RELATIVE_TOLERANCE = 0.1, 0.03
Hook = Callable[[nn.Module, tuple[Any, ...], Any], None]
ROOT = "Global"  # PyTorch's name for the whole network


def main(argv: Sequence[str] | None = None) -> int:
    args = parse_args(argv)
    try:
        if args.shape and min(args.shape) < 1:
            raise InputError(f"--shape: must be height and width in pixels, not {args.shape}")
        size = [] if args.shape is None else ["MODEL.IMAGE_SIZE", str([*reversed(args.shape)])]
        cfg = load_config(args.cfg, [*args.opts, *size])
        with torch.device("meta"):
            network = build_model(cfg)
        width, height = cfg.MODEL.IMAGE_SIZE
        costs = summarize(network, height, width, is_bottom_up=uses_tags(cfg))
        summary = {"network": cfg.MODEL.NAME, **costs}
        if not (args.opts or args.shape):
            name = f"{cfg.DATASET.DATASET}/{Path(args.cfg).stem}"
            published = PUBLISHED.get(name, (None, None))
            summary |= zip(("published_mflops", "published_mparameters"), published, strict=True)
    except InputError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    print(json.dumps(summary, indent=2) if args.json else table(summary, args.layers))
    return 0


def parse_args(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    add = parser.add_argument
    add("--cfg", required=True, metavar="FILE", help="YAML file of the experiment")
    text = "input size in pixels (default: MODEL.IMAGE_SIZE)"
    add("--shape", type=int, nargs=2, metavar=("HEIGHT", "WIDTH"), help=text)
    add("--layers", action="store_true", help="list every layer instead of top-level modules")
    add("--json", action="store_true", help="print JSON instead of a table")
    add("opts", nargs="*", metavar="KEY VALUE", help="settings that override the YAML")
    return parser.parse_args(argv)


def summarize(
    network: nn.Module, height: int, width: int, is_bottom_up: bool = False
) -> dict[str, Any]:
    """Return the cost of ``network`` for one image: in total, per part and per layer.

    Parameters of the network itself, outside any module, count only in the total.
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
    # PyTorch counts a multiply-accumulate as two operations.
    macs = {name: total // 2 for name, total in totals(flops, prefix).items()}
    activations = totals(outputs, prefix)
    for counts in (macs, activations):
        fill_containers(counts, network)

    def cost(name: str, module: nn.Module, own_only: bool = False) -> dict[str, Any]:
        """Return the cost of a module, without its children if ``own_only``."""
        children = [f"{name}.{child}" for child, _ in module.named_children()] if own_only else []
        parameters = sum(p.numel() for p in module.parameters(recurse=not own_only))
        outputs = activations.get(name, 0) - sum(activations.get(child, 0) for child in children)
        return {
            "parameters": parameters,
            "macs": macs.get(name, 0) - sum(macs.get(child, 0) for child in children),
            "activations": outputs,
            "memory_mib": 4 * (parameters + outputs) / 2**20,
        }

    layers = {name: cost(name, m, own_only=True) for name, m in network.named_modules() if name}
    return {
        "shape": [height, width],
        **cost(ROOT, network),
        **published_count(network, image, macs, is_bottom_up),
        "modules": {name: cost(name, part) for name, part in parts(network)},
        "layers": {name: layer for name, layer in layers.items() if any(layer.values())},
        "convention": CONVENTION,
    }


def fill_containers(counts: dict[str, int], network: nn.Module) -> None:
    """Add the sums for modules that are never called themselves, such as ModuleList."""
    for name, module in reversed([*network.named_modules()]):
        children = [f"{name}.{child}" for child, _ in module.named_children()]
        if name and name not in counts and children:
            counts[name] = sum(counts.get(child, 0) for child in children)


def parts(network: nn.Module) -> Iterator[tuple[str, nn.Module]]:
    """Yield the parts of the backbone and of the head."""
    for name, part in network.named_children():
        if name != "head":
            yield name, part
    for name, part in network.head.named_children():
        yield f"head.{name}", part


def count_outputs(*args: Any, out_shape: Any = None, **kwargs: Any) -> int:
    """Count an operation's output elements; a formula for ``FlopCounterMode``."""
    return math.prod(out_shape)


def totals(counter: FlopCounterMode, prefix: str) -> dict[str, int]:
    """Return the counter's totals by module name."""
    counts = counter.get_flop_counts()
    return {name.removeprefix(f"{prefix}."): sum(ops.values()) for name, ops in counts.items()}


def published_count(
    network: nn.Module, image: torch.Tensor, macs: Mapping[str, int], is_bottom_up: bool
) -> dict[str, Any]:
    """Count the FLOPs by the convention of the network's paper."""
    if isinstance(network, LightweightHRNet):
        return {
            "counted_mflops": lightweight_flops(network, image) / 2**20,
            "counted_convention": LIGHTWEIGHT_CONVENTION,
        }
    is_original = type(network) in (PoseHRNet, PoseResNet)  # TransPose is a subclass of these
    if not is_original or is_bottom_up or type(network.head) is not HeatmapHead:
        return {
            "counted_mflops": mmcv_flops(network, image) / 1e6,
            "counted_convention": MMCV_CONVENTION,
        }
    # The original counts a deconvolution's kernel per output pixel instead of per input pixel.
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
    """Count as tools/torchstat of HRNet/Lite-HRNet and ZiyiZhang27/Dite-HRNet.

    Only the last call of each module counts, and functional operations do not.
    """
    counts: dict[nn.Module, int] = {}

    def count(module: nn.Module, args: tuple[Any, ...], output: Any) -> None:
        x = args[0]
        if isinstance(module, LightweightModule):
            # The published code upsamples every coarser branch to every finer resolution.
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

    run_with_hooks(network, image, count, network.modules())
    return sum(counts.values())


def mmcv_flops(network: nn.Module, image: torch.Tensor) -> int:
    """Count as ``get_model_complexity_info`` of mmcv 1.x, for one image."""
    counts: list[int] = []

    def count(module: nn.Module, args: tuple[Any, ...], output: Any) -> None:
        if isinstance(module, (nn.Conv2d, nn.ConvTranspose2d)):
            positions = args[0] if isinstance(module, nn.ConvTranspose2d) else output
            counts.append(module.weight.numel() * math.prod(positions.shape[2:]))
            counts.append(0 if module.bias is None else output.numel())
        elif isinstance(module, nn.Linear):
            counts.append(args[0].numel() * output.shape[-1])
        elif isinstance(module, (nn.BatchNorm2d, nn.LayerNorm)):
            counts.append(2 * output.numel())
        elif isinstance(module, (nn.ReLU, nn.Upsample)):
            counts.append(output.numel())
        elif isinstance(module, nn.MaxPool2d):
            counts.append(args[0].numel())

    # HRFormer's published attention projects its output by a function, which mmcv does not count.
    uncounted = {m.out_proj for m in network.modules() if isinstance(m, WindowAttention)}
    run_with_hooks(network, image, count, (m for m in network.modules() if m not in uncounted))
    return sum(counts)


def run_with_hooks(
    network: nn.Module, image: torch.Tensor, hook: Hook, modules: Iterable[nn.Module]
) -> None:
    """Run the network and call ``hook`` with each of ``modules``, its arguments and its output."""
    handles = [module.register_forward_hook(hook) for module in modules]
    with torch.no_grad():
        network(image)
    for handle in handles:
        handle.remove()


def published_lines(summary: Mapping[str, Any]) -> list[str]:
    """Format the published figures of the experiment, if there are any."""
    published = summary.get("published_mflops")
    if published is None:
        return []
    tolerance = TOLERANCE if published % 1 else RELATIVE_TOLERANCE * published
    differs = abs(summary["counted_mflops"] - published) > tolerance
    return [
        f"published: {published:g}M{', which this count does not reproduce' if differs else ''}",
        f"published parameters: {summary['published_mparameters']:g}M, truncated or rounded",
    ]


def table(summary: dict[str, Any], by_layer: bool) -> str:
    """Format the summary as text, without modules that have no parameters and no MACs."""
    height, width = summary["shape"]
    costs = summary["layers" if by_layer else "modules"]
    rows = [(name, cost) for name, cost in costs.items() if cost["parameters"] or cost["macs"]]
    rows.append(("total", summary))
    width_of_names = max(16, *(len(name) + 2 for name, _ in rows))
    lines = [f"{summary['network']}, input {height} x {width} (height x width)", ""]
    lines.append(
        f"{'module':<{width_of_names}}{'parameters':>14}{'GMACs':>10}{'activations':>14}{'MiB':>9}"
    )
    lines += [
        f"{name:<{width_of_names}}{cost['parameters']:>14,}{cost['macs'] / 1e9:>10.4f}"
        f"{cost['activations']:>14,}{cost['memory_mib']:>9.2f}"
        for name, cost in rows
    ]
    if "hrnet_gflops" in summary:
        counted = f"{summary['hrnet_gflops']:.2f} GFLOPs"
    else:
        counted = f"{summary['counted_mflops']:.1f}M"
    lines += ["", *textwrap.wrap(summary["convention"], 80), ""]
    if summary["counted_convention"] is MMCV_CONVENTION:
        lines.append(f"mmcv's count: {counted}")
    else:
        lines += [f"count by its repository's convention: {counted}", *published_lines(summary)]
    return "\n".join([*lines, *textwrap.wrap(summary["counted_convention"], 80)])


if __name__ == "__main__":
    sys.exit(main())
