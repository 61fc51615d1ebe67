"""The costs of a network for one image: parameters, multiply-accumulates, FLOPs and memory.

Published FLOPs follow different conventions; ``CONVENTIONS`` has those of the repositories whose
networks are in this package.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from lib.models.dite_hrnet import DynamicConv
from lib.models.heads import HeatmapHead, HigherHead, SRPoseHead
from lib.models.layers.blocks import CONVOLUTIONS, BasicBlock, Bottleneck
from lib.models.layers.branches import ExchangeModule
from lib.models.layers.lightweight import LightweightHRNet, LightweightModule
from lib.models.network import PoseNetwork
from lib.models.pose_hrnet import PoseHRNet
from lib.models.pose_resnet import PoseResNet
from lib.models.transpose import EncoderLayer, EncoderMixin

ROOT = "Global"  # PyTorch's name for the whole network
DECONVOLUTION_NOTE = "Deconvolutions of stride 2 count as four times their cost."


@dataclass(frozen=True)
class Call:
    """One call of a module, with the shapes of its first input and of its outputs."""

    name: str
    module: nn.Module
    input: tuple[int, ...]
    outputs: tuple[tuple[int, ...], ...]

    @property
    def output(self) -> tuple[int, ...]:
        return self.outputs[0]

    @property
    def pixels(self) -> int:
        """Number of pixels of the output (1, C, H, W)."""
        return math.prod(self.output[2:])


@dataclass(frozen=True)
class Convention:
    """A way to count FLOPs."""

    count: Callable[[Call], int]
    giga: float  # number of FLOPs reported as 1 G; 1 M is a thousandth of it
    text: str  # description for users
    every_call: bool = True  # count every call of a module, not only the last one


def record_calls(network: nn.Module, image: Tensor) -> list[Call]:
    """Run ``network`` on ``image`` (1, 3, H, W) and record the calls of its modules."""
    calls: list[Call] = []

    def hook(name: str) -> Callable[..., None]:
        def record(module: nn.Module, args: tuple[Any, ...], output: Any) -> None:
            calls.append(Call(name, module, _shapes(args[0])[0], _shapes(output)))

        return record

    handles = [m.register_forward_hook(hook(name)) for name, m in network.named_modules() if name]
    with torch.no_grad():
        network(image)
    for handle in handles:
        handle.remove()
    return calls


def _shapes(value: Any) -> tuple[tuple[int, ...], ...]:
    tensors = value if isinstance(value, (list, tuple)) else [value]
    return tuple(tuple(tensor.shape) for tensor in tensors if isinstance(tensor, Tensor))


def count_flops(calls: Sequence[Call], convention: str) -> dict[str, int]:
    """Return the FLOPs of each module, by name, without its children."""
    rule, flops = CONVENTIONS[convention], {}
    for call in calls:
        earlier = flops.get(call.name, 0) if rule.every_call else 0
        flops[call.name] = earlier + rule.count(call)
    return flops


def hrnet_flops(call: Call) -> int:
    """Count FLOPs as lib/utils/utils.py of leoxiaobin/deep-high-resolution-net.pytorch does."""
    module = call.module
    if isinstance(module, nn.Linear):
        return module.in_features * math.prod(call.output)
    return module.weight.numel() * call.pixels if isinstance(module, CONVOLUTIONS) else 0


def lightweight_flops(call: Call) -> int:
    """Count FLOPs as tools/torchstat of HRNet/Lite-HRNet and ZiyiZhang27/Dite-HRNet does.

    Functional operations are not counted.
    """
    module = call.module
    if isinstance(module, LightweightModule):
        # The published code upsamples every coarser branch to every finer resolution.
        pixels = [math.prod(shape[2:]) for shape in call.outputs]
        return sum(n * (len(pixels) - 1 - i) for i, n in enumerate(pixels))
    if isinstance(module, DynamicConv):
        kernels = module.aggregation.weight
        return kernels.numel() // len(kernels) * call.pixels
    if isinstance(module, nn.Conv2d):
        biases = 0 if module.bias is None else len(module.bias)
        return (module.weight.numel() + biases) * call.pixels
    if isinstance(module, nn.BatchNorm2d):
        return 2 * math.prod(call.input)
    if isinstance(module, nn.ReLU):
        return math.prod(call.input)
    if isinstance(module, nn.AdaptiveAvgPool2d):
        return call.input[1] * (call.input[2] + 1) * (call.input[3] + 1)
    return 0


def mmcv_flops(call: Call) -> int:
    """Count FLOPs as ``get_model_complexity_info`` of mmcv 1.x does."""
    module = call.module
    if isinstance(module, CONVOLUTIONS):
        positions = call.input if isinstance(module, nn.ConvTranspose2d) else call.output
        biases = 0 if module.bias is None else math.prod(call.output)
        return module.weight.numel() * math.prod(positions[2:]) + biases
    # HRFormer's published attention applies out_proj as a function, which mmcv does not count.
    if isinstance(module, nn.Linear) and not call.name.endswith(".out_proj"):
        return math.prod(call.input) * module.out_features
    if isinstance(module, (nn.BatchNorm2d, nn.LayerNorm)):
        return 2 * math.prod(call.output)
    if isinstance(module, (nn.ReLU, nn.Upsample)):
        return math.prod(call.output)
    return math.prod(call.input) if isinstance(module, nn.MaxPool2d) else 0


def transpose_flops(call: Call) -> int:
    """Count FLOPs as tools/flop_count.py of yangsenius/TransPose does."""
    module, elements = call.module, math.prod(call.output)
    if isinstance(module, CONVOLUTIONS):
        return module.weight.numel() * call.pixels
    if isinstance(module, nn.BatchNorm2d):
        return 4 * elements
    if isinstance(module, ExchangeModule):
        return sum(map(math.prod, call.outputs)) * (len(module.branches) - 1)
    if isinstance(module, EncoderLayer):
        length, channels = call.input[0], call.input[2]
        hidden, num_heads = module.linear1.out_features, module.self_attn.num_heads
        products = 2 * channels * (2 * channels + length + hidden)
        # Softmax counts 5 per element; additions (also of biases), scaling, ReLU and dropout 1.
        return length * (products + 11 * channels + 3 * hidden + 6 * num_heads * length)
    return elements if isinstance(module, (nn.ReLU, BasicBlock, Bottleneck)) else 0


CONVENTIONS = {
    "hrnet": Convention(
        hrnet_flops,
        2**30,
        "HRNet's convention: multiply-accumulates of convolution and linear modules "
        f"(1 G is 2^30). {DECONVOLUTION_NOTE}",
    ),
    "higher_hrnet": Convention(
        hrnet_flops,
        1e9,
        "HigherHRNet's convention: multiply-accumulates of convolution and linear modules. "
        f"{DECONVOLUTION_NOTE}",
    ),
    "lightweight": Convention(
        lightweight_flops,
        1000 * 2**20,
        "Convention of Lite-HRNet and later repositories (1 M is 2^20): multiply-accumulates "
        "and biases of convolutions, 2 per element of a batch norm, 1 per element of a ReLU or "
        "global average pooling (with one extra row and column), 1 per pixel of upsampling.",
        every_call=False,
    ),
    "mmcv": Convention(
        mmcv_flops,
        1e9,
        "Convention of mmcv's tool, which SRPose and HRFormer use: multiply-accumulates and biases "
        "of convolution modules, multiply-accumulates of linear modules, 2 per element of a batch "
        "or layer norm, 1 per element of a ReLU, pooling or upsampling. Attention and other "
        "functional operations are not counted.",
    ),
    "transpose": Convention(
        transpose_flops,
        1e9,
        "TransPose's convention: multiply-accumulates of convolutions, linear layers and "
        "attention, 4 per element of a batch norm, 5 of a softmax, 1 of a ReLU, sum, scaling or "
        f"dropout. {DECONVOLUTION_NOTE}",
    ),
}


def default_convention(network: PoseNetwork, is_bottom_up: bool = False) -> str:
    """Return the key in ``CONVENTIONS`` of the convention that the network's authors use.

    With a head that its authors do not use, an HRNet or SimpleBaseline follows mmcv's convention.
    """
    if isinstance(network, LightweightHRNet):
        return "lightweight"
    if isinstance(network, EncoderMixin):
        return "transpose"
    if isinstance(network.head, HigherHead):
        return "higher_hrnet"
    is_original = isinstance(network, (PoseHRNet, PoseResNet))
    if is_original and isinstance(network.head, HeatmapHead) and not is_bottom_up:
        return "hrnet"
    return "mmcv"


def training_layers(network: PoseNetwork) -> dict[str, nn.Module]:
    """Return the layers that are used only in training, by name."""
    if not isinstance(network.head, SRPoseHead):
        return {}
    # In evaluation the head uses only the last layer of each of these lists.
    lists = {name: getattr(network.head, name) for name in ("kp_encoder", "converge")}
    return {
        f"head.{name}.{i}": m for name, layers in lists.items() for i, m in enumerate(layers[:-1])
    }


def inference_parameters(network: PoseNetwork) -> int:
    """Return the number of parameters, without those of layers that are used only in training."""
    return _num_parameters(network) - sum(map(_num_parameters, training_layers(network).values()))


def summarize(
    network: PoseNetwork, height: int, width: int, is_bottom_up: bool = False
) -> dict[str, Any]:
    """Return the costs of ``network`` for one image: in total, per module and per layer.

    ``modules`` are the direct children of the backbone and of the head, ``layers`` all modules
    that have costs of their own.

    Layers used only in training are left out. FLOPs follow ``default_convention``.
    ``activations`` is the number of output elements of convolutions and matrix products.
    ``memory_mib`` covers parameters and activations, 4 bytes each. Parameters that belong to the
    network itself and not to one of its modules count only in the total.
    """
    network.eval()
    calls, macs, activations = _count_operations(network, height, width)
    unused = training_layers(network)
    left_out = {id(p) for layer in unused.values() for p in layer.parameters()}

    def cost(name: str, module: nn.Module, own_only: bool = False) -> dict[str, Any]:
        """Return the cost of a module, without its children if ``own_only``."""
        children = [f"{name}.{child}" for child, _ in module.named_children()] if own_only else []
        used = (p for p in module.parameters(recurse=not own_only) if id(p) not in left_out)
        parameters = sum(p.numel() for p in used)
        outputs = activations.get(name, 0) - sum(activations.get(child, 0) for child in children)
        return {
            "parameters": parameters,
            "macs": macs.get(name, 0) - sum(macs.get(child, 0) for child in children),
            "activations": outputs,
            "memory_mib": 4 * (parameters + outputs) / 2**20,
        }

    convention = default_convention(network, is_bottom_up)
    layer_flops = count_flops(calls, convention)
    parts = dict(network.named_children())
    parts |= {f"head.{name}": part for name, part in parts.pop("head").named_children()}
    layers = {
        name: {"type": type(module).__name__, **cost(name, module, own_only=True)}
        for name, module in network.named_modules()
        if name
    }
    for call in calls:
        layers[call.name] |= {
            "input": list(call.input),
            "output": list(call.output),
            "flops": layer_flops[call.name],
        }
    return {
        "shape": [height, width],
        **cost(ROOT, network),
        "flops": sum(layer_flops.values()),
        "convention": convention,
        "training_only": {name: _num_parameters(layer) for name, layer in unused.items()},
        "modules": {name: cost(name, part) for name, part in parts.items()},
        "layers": {
            name: layer
            for name, layer in layers.items()
            if any(layer.get(key) for key in ("parameters", "macs", "activations", "flops"))
        },
    }


def _count_operations(
    network: PoseNetwork, height: int, width: int
) -> tuple[list[Call], dict[str, int], dict[str, int]]:
    """Return the calls, and the multiply-accumulates and output elements of each module by name."""
    image = torch.zeros(1, 3, height, width, device=next(network.parameters()).device)
    flops = FlopCounterMode(display=False)
    outputs = FlopCounterMode(
        display=False, custom_mapping=dict.fromkeys(flops.flop_registry, _count_outputs)
    )
    with flops, outputs:
        calls = record_calls(network, image)
    macs, activations = _totals(flops, network), _totals(outputs, network)
    # PyTorch counts a multiply-accumulate as two operations.
    return calls, {name: total // 2 for name, total in macs.items()}, activations


def _count_outputs(*args: Any, out_shape: Any = None, **kwargs: Any) -> int:
    """Count an operation's output elements; a formula for ``FlopCounterMode``."""
    return math.prod(out_shape)


def _totals(counter: FlopCounterMode, network: nn.Module) -> dict[str, int]:
    """Return the counter's totals by module name."""
    prefix = f"{type(network).__name__}."
    found = counter.get_flop_counts().items()
    counts = {name.removeprefix(prefix): sum(ops.values()) for name, ops in found}
    # Modules that are never called themselves, such as ModuleList, get the sum of their children.
    for name, module in reversed([*network.named_modules()]):
        children = [f"{name}.{child}" for child, _ in module.named_children()]
        if name and name not in counts and children:
            counts[name] = sum(counts.get(child, 0) for child in children)
    return counts


def _num_parameters(module: nn.Module) -> int:
    return sum(p.numel() for p in module.parameters())
