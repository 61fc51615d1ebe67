"""Time the forward pass of a network: plain, with folded batch norms, compiled, and exported."""

import argparse
import functools
import sys
import tempfile
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any, TypeVar

import torch
from torch import Tensor, nn
from yacs.config import CfgNode

from benchmarks.measure import Row, add_common_options, fastest, wall_clock
from lib.config import load_config
from lib.core.exported import import_optional, onnx_session, openvino_settings
from lib.deploy.export import onnx_graph
from lib.models import build_model
from lib.models.checkpoint import load_checkpoint
from lib.models.folding import fold_batch_norms
from lib.utils.compiling import compile_for_inference
from lib.utils.devices import choose_devices, has_bfloat16, to_channels_last
from lib.utils.errors import InputError

VARIANTS = ("plain", "folded", "compiled", "onnxruntime", "openvino", "openvino-bf16")
# In standard deviations of the output. On GPUs, convolutions use TensorFloat-32.
TOLERANCE = {"cpu": 1e-3, "cuda": 0.1}

T = TypeVar("T")


def add_options(parser: argparse.ArgumentParser) -> None:
    add_common_options(parser, 15, "number of timed runs; the fastest is reported")
    parser.add_argument(
        "--batch",
        type=int,
        nargs="+",
        default=[1, 32],
        metavar="N",
        help="batch sizes (default: 1 32)",
    )
    parser.add_argument(
        "--variants",
        nargs="+",
        choices=VARIANTS,
        default=VARIANTS,
        metavar="NAME",
        help=f"variants of the network to time: {', '.join(VARIANTS)} (default: all)",
    )


def run(args: argparse.Namespace) -> list[Row]:
    """Time every variant at every batch size, and compare the outputs."""
    if min(*args.batch, args.repeats) < 1:
        raise InputError("--batch, --repeats: must be 1 or more")
    cfg = load_config(args.cfg, args.opts)
    device = choose_devices(cfg.GPUS)[0]
    network = build_network(cfg, args.weights, device)
    width, height = cfg.MODEL.IMAGE_SIZE
    rows = []
    for batch in args.batch:
        images = torch.randn(batch, 3, height, width, device=device)
        rows += compare_variants(network, images, args.variants, args.repeats)
    return rows


def build_network(cfg: CfgNode, weights: Path | None, device: torch.device) -> nn.Module:
    """Build the experiment's network, with random weights if there are none."""
    torch.manual_seed(0)
    network = build_model(cfg).to(device)
    if weights:
        load_checkpoint(network, weights)
    else:
        width, height = cfg.MODEL.IMAGE_SIZE
        randomize(network, torch.randn(2, 3, height, width, device=device))
    return network.eval()


def compare_variants(
    network: nn.Module, images: Tensor, names: Iterable[str], repeats: int
) -> list[Row]:
    """Return the rows of one batch: ``plain``, which is the reference, and the other variants."""
    variants = make_variants(dict.fromkeys(["plain", *names]), network, images)
    with torch.inference_mode():
        expected = network(images)
        differences = [difference(variant(images), expected) for variant in variants.values()]
        runs = [functools.partial(variant, images) for variant in variants.values()]
        times = fastest(runs, repeats, wall_clock, warm_up=True)
    return [
        Row(
            f"{name}, batch of {len(images)}",
            "ms",
            1e3 * seconds,
            1e3 * times[0],
            f"{len(images) / seconds:.1f} images/s, difference {distance:.1e}",
            # In bfloat16, differences above the tolerance are normal.
            name == "openvino-bf16" or distance < TOLERANCE[images.device.type],
        )
        for name, seconds, distance in zip(variants, times, differences, strict=True)
    ]


def difference(outputs: Any, expected: Any) -> float:
    """Return the largest difference, in standard deviations of the expected output."""
    if isinstance(expected, Tensor):
        outputs = outputs if isinstance(outputs, Tensor) else outputs[0]
        return float((outputs - expected).abs().max() / expected.std())
    return max(map(difference, outputs, expected))


def randomize(network: nn.Module, images: Tensor) -> None:
    """Initialize the network so that every layer affects the network's output.

    With the small initial weights of the papers, some layers would hardly affect the output, and
    errors in them would not be noticed. Here, convolutions have outputs of unit variance (Mishkin,
    Matas: All you need is a good init, 2016), and batch norms have nearly the statistics of their
    inputs, so activations keep their scale.
    """

    def scale(conv: nn.Module, _: tuple, output: Tensor) -> Tensor:
        std = output.std()
        if std == 0:  # all inputs may be 0 after a ReLU
            return output
        conv.weight.div_(std)
        return output / std

    def fit(norm: nn.Module, inputs: tuple[Tensor]) -> None:
        std, mean = torch.std_mean(inputs[0])
        nn.init.normal_(norm.running_mean, std=0.1).mul_(std).add_(mean)
        nn.init.uniform_(norm.running_var, 0.5, 1.5).mul_(std.square())

    hooks = []
    for module in network.modules():
        if isinstance(module, (nn.Conv2d, nn.ConvTranspose2d)):
            nn.init.normal_(module.weight)
            if module.bias is not None:
                nn.init.zeros_(module.bias)
            hooks.append(module.register_forward_hook(scale))
        elif isinstance(module, nn.BatchNorm2d):
            nn.init.uniform_(module.weight, 0.5, 1.5)
            hooks.append(module.register_forward_pre_hook(fit))
    with torch.no_grad():
        network.eval()(images)
    for hook in hooks:
        hook.remove()


def make_variants(
    names: Iterable[str], network: nn.Module, images: Tensor
) -> dict[str, Callable[[Tensor], Any]]:
    """Return the variants that can run on this machine, by name, for batches like ``images``."""
    folded = fold_batch_norms(network)

    @functools.cache
    def graph() -> bytes:
        with torch.no_grad():
            return onnx_graph(folded.cpu(), images.cpu()).SerializeToString()

    makers: dict[str, Callable[[], Callable[[Tensor], Any]]] = {
        "plain": lambda: network,
        "folded": lambda: to_channels_last(fold_batch_norms(network)),
        "compiled": lambda: newly_compiled(fold_batch_norms(network), images.device),
        "onnxruntime": lambda: onnxruntime_runner(graph(), images.device),
        "openvino": lambda: openvino_runner(graph(), "float32"),
        "openvino-bf16": lambda: openvino_runner(graph(), "bfloat16"),
    }
    return make_available({name: makers[name] for name in names})


def make_available(makers: dict[str, Callable[[], T]]) -> dict[str, T]:
    """Call all functions and return their results by name.

    A function that raises an InputError, because it cannot run on this machine, is skipped.
    """
    made = {}
    for name, make in makers.items():
        try:
            made[name] = make()
        except InputError as error:
            print(f"{name} is skipped: {error}", file=sys.stderr)
    return made


def newly_compiled(network: nn.Module, device: torch.device) -> Callable[[Tensor], Any]:
    """Compile as TEST.COMPILE does, for batches of one size."""
    torch.compiler.reset()  # otherwise torch.compile would make the batch size dynamic
    return compile_for_inference(to_channels_last(network), [device], "--variants compiled")


def onnxruntime_runner(graph: bytes, device: torch.device) -> Callable[[Tensor], list[Tensor]]:
    """Return a function that runs ``graph`` in ONNX Runtime.

    Images on a GPU are copied to the CPU, and the outputs are copied back.
    """
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "network.onnx"
        path.write_bytes(graph)
        session = onnx_session(path, device)
    name = session.get_inputs()[0].name
    return lambda x: to_tensors(session.run(None, {name: x.cpu().numpy()}), x.device)


def openvino_runner(graph: bytes, precision: str) -> Callable[[Tensor], list[Tensor]]:
    """Return a function that runs ``graph`` in OpenVINO on the CPU."""
    if precision == "bfloat16" and not has_bfloat16(torch.device("cpu")):
        raise InputError("this CPU does not support bfloat16")
    core = import_optional("openvino", "OpenVINO").Core()
    settings = openvino_settings(precision)
    request = core.compile_model(core.read_model(graph), "CPU", settings).create_infer_request()
    return lambda x: to_tensors(
        [output.copy() for output in request.infer({0: x.cpu().numpy()}).values()], x.device
    )


def to_tensors(arrays: list, device: torch.device) -> list[Tensor]:
    return [torch.from_numpy(array).to(device) for array in arrays]
