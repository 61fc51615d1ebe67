"""The network's part of tools/benchmark.py: how fast it answers, as it is and in faster forms."""

import argparse
import functools
import importlib.util
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from _measure import Row, digits
from torch import Tensor, nn

from lib.config import load_config, skeleton_of
from lib.core.codecs import build_codec
from lib.core.codecs.codec import Outputs, RawOutputs, as_outputs
from lib.core.exported import need, onnx_session, openvino_settings
from lib.deploy.export import has_exporter, onnx_graph
from lib.models import build_model
from lib.models.checkpoint import load_checkpoint
from lib.models.folding import fold_batch_norms
from lib.utils.devices import choose_devices, has_bfloat16
from lib.utils.errors import InputError

Forward = Callable[[Tensor], RawOutputs]
DECODING = "decoding"
OPENVINO, OPENVINO_HALF = "openvino", "openvino-bf16"
ENGINES = {"onnxruntime": "onnxruntime", OPENVINO: "openvino", OPENVINO_HALF: "openvino"}
FORMS = ("plain", "folded", "compiled", *ENGINES)
TOLERANCE = 1e-3  # between forms
GRAPH = ("onnx", "onnxscript")  # packages, as their backends' names are


@dataclass
class Timing:
    """One form of a network: seconds of its fastest run at each size of batch, and how far its
    answers are from the plain network's, in units of their standard deviation."""

    form: str
    seconds: dict[int, float]
    difference: float


def add_forward(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--cfg", required=True, metavar="FILE", help="the experiment's YAML")
    parser.add_argument("--weights", type=Path, help="a checkpoint; else the weights are random")
    parser.add_argument("--batch", type=int, nargs="+", default=[1, 32], help="sizes (1 32)")
    parser.add_argument("--forms", nargs="+", choices=FORMS, default=FORMS, help="which (all)")
    parser.add_argument("--repeats", type=int, default=15, help="of which the fastest counts (15)")
    parser.add_argument("opts", nargs="*", metavar="KEY VALUE", help="settings over the YAML's")


def forward(args: argparse.Namespace) -> list[Timing]:
    """Time every form at every size of batch, in turns, and the decoding of its answers."""
    cfg = load_config(args.cfg, args.opts)
    if min(args.batch) < 1 or args.repeats < 1:
        raise InputError("--batch and --repeats must be 1 or more")
    device = choose_devices(cfg.GPUS)[0]
    torch.manual_seed(0)
    network = build_model(cfg).to(device)
    width, height = cfg.MODEL.IMAGE_SIZE
    if args.weights:
        load_checkpoint(network, args.weights)
    else:
        enliven(network, torch.randn(2, 3, height, width, device=device))
    network.eval()
    forms = ["plain", *(form for form in available(args.forms, device) if form != "plain")]
    timings = [Timing(form, {}, 0.0) for form in forms]
    codec = build_codec(cfg, skeleton_of(cfg))
    decoding = Timing(DECODING, {}, 0.0)
    for batch in args.batch:
        images = torch.randn(batch, 3, height, width, device=device)
        runs = make_forms([timing.form for timing in timings], network, images)
        with torch.inference_mode():
            expected = network(images)
            for timing, run in zip(timings, runs, strict=True):
                timing.difference = max(timing.difference, distance(run(images), expected))
            best = fastest_turns(args.repeats, device, runs, images)
        for timing, seconds in zip(timings, best, strict=True):
            timing.seconds[batch] = seconds
        with torch.inference_mode():
            times = fastest_turns(args.repeats, device, [codec.decode], expected)
        decoding.seconds[batch] = times[0]
    return [*timings, decoding]


def distance(outputs: RawOutputs, expected: RawOutputs) -> float:
    """The largest difference, in units of the standard deviation."""
    pairs = zip(as_outputs(outputs), as_outputs(expected), strict=True)
    return max(float((ours - theirs).abs().max() / theirs.std()) for ours, theirs in pairs)


def enliven(network: nn.Module, images: Tensor) -> None:
    """Random weights under which every layer matters to the answer: the papers' initial ones are so
    small that nothing would be left to compare.

    Every convolution is scaled to answer ``images`` with a standard deviation of one (Mishkin,
    Matas: All you need is a good init, 2016), and batch norms expect nearly what they get. Without
    that, numbers grow from module to module, until a softmax of them is all rounding errors.
    """

    def scale(conv: nn.Module, _: tuple, output: Tensor) -> Tensor:
        spread = output.std()
        if spread == 0:  # behind units that a ReLU silences
            return output
        conv.weight.div_(spread)
        return output / spread

    def expect(norm: nn.Module, inputs: tuple[Tensor]) -> None:
        spread, mean = torch.std_mean(inputs[0])
        nn.init.normal_(norm.running_mean, std=0.1).mul_(spread).add_(mean)
        nn.init.uniform_(norm.running_var, 0.5, 1.5).mul_(spread.square())

    handles = []
    for module in network.modules():
        if isinstance(module, (nn.Conv2d, nn.ConvTranspose2d)):
            nn.init.normal_(module.weight)
            if module.bias is not None:
                nn.init.zeros_(module.bias)
            handles.append(module.register_forward_hook(scale))
        elif isinstance(module, nn.BatchNorm2d):
            nn.init.uniform_(module.weight, 0.5, 1.5)
            handles.append(module.register_forward_pre_hook(expect))
    with torch.no_grad():
        network.eval()(images)
    for handle in handles:
        handle.remove()


def available(forms: Sequence[str], device: torch.device) -> list[str]:
    """``forms`` without what cannot run here, which is said."""
    there = []
    for form in forms:
        package = ENGINES.get(form)
        needed = (*GRAPH, package) if package else ()
        missing = [name for name in needed if importlib.util.find_spec(name) is None]
        if missing:
            reason = f"it needs: pip install {' '.join(missing)}"
        elif package and not has_exporter():
            reason = "ONNX needs PyTorch 2.6 or newer"
        elif package == "openvino" and device.type != "cpu":
            reason = "it runs on the CPU"
        elif form == OPENVINO_HALF and not has_bfloat16(device):
            reason = "this CPU has no bfloat16"
        else:
            there.append(form)
            continue
        print(f"{form} is left out; {reason}", file=sys.stderr)
    return there


def make_forms(forms: Sequence[str], network: nn.Module, images: Tensor) -> list[Forward]:
    """The network in each form, for a batch like ``images``."""
    folded = fold_batch_norms(network)

    @functools.cache
    def graph() -> bytes:
        with torch.no_grad():
            return onnx_graph(folded, images, dynamic_batch=False).SerializeToString()

    makers: dict[str, Callable[[], Forward]] = {
        "plain": lambda: network,
        "folded": lambda: folded,
        "compiled": lambda: compiled(folded, images),
        "onnxruntime": lambda: in_onnxruntime(graph(), images.device),
        OPENVINO: lambda: in_openvino(graph(), "float32"),
        OPENVINO_HALF: lambda: in_openvino(graph(), "bfloat16"),
    }
    return [makers[form]() for form in forms]


def compiled(network: nn.Module, images: Tensor) -> Forward:
    """By torch.compile: CUDA graphs on a GPU, frozen weights on a CPU."""
    torch.compiler.reset()
    if images.is_cuda:
        return torch.compile(network, mode="reduce-overhead")
    return torch.compile(network, options={"freezing": True})


def in_onnxruntime(graph: bytes, device: torch.device) -> Forward:
    """Its time includes copies from and to a GPU."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "network.onnx"
        path.write_bytes(graph)
        session = onnx_session(path, device)
    name = session.get_inputs()[0].name
    return lambda x: joined(session.run(None, {name: x.cpu().numpy()}), x.device)


def in_openvino(graph: bytes, precision: str) -> Forward:
    core = need("openvino", OPENVINO).Core()
    model = core.read_model(graph)
    request = core.compile_model(model, "CPU", openvino_settings(precision)).create_infer_request()
    return lambda x: joined([a.copy() for a in request.infer({0: x.numpy()}).values()], x.device)


def joined(answers: list, device: torch.device) -> Outputs:
    """Arrays as a network's outputs."""
    return tuple(torch.from_numpy(answer).to(device) for answer in answers)


def fastest_turns(
    repeats: int, device: torch.device, runs: list[Callable], images: RawOutputs
) -> list[float]:
    """Seconds on the clock of the fastest run of each; they take turns, so that what else the
    machine does meets them alike, and run twice each, the second time timed."""
    best = [float("inf")] * len(runs)
    for _ in range(repeats):
        for number, run in enumerate(runs):
            run(images)
            synchronize(device)
            start = time.perf_counter()
            run(images)
            synchronize(device)
            best[number] = min(best[number], time.perf_counter() - start)
    return best


def synchronize(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def forward_rows(timings: list[Timing]) -> list[Row]:
    """For a report in JSON: milliseconds a batch, beside the plain network's."""
    plain = timings[0].seconds
    return [
        Row(
            f"{timing.form}, batch of {batch}",
            "ms",
            1e3 * seconds,
            1e3 * plain[batch],
            agrees(timing),
        )
        for timing in timings
        for batch, seconds in timing.seconds.items()
    ]


def agrees(timing: Timing) -> bool | None:
    """Decoding has nothing to agree with, and bfloat16 is another answer on purpose."""
    has_none = timing.form in (DECODING, OPENVINO_HALF)
    return None if has_none else timing.difference < TOLERANCE


def forward_table(timings: list[Timing]) -> str:
    """Each form's time for a batch, images a second, and the largest difference."""
    batches = list(timings[0].seconds)
    head = "".join(f"{f'batch {b}':>12}{'images/s':>10}{'speed-up':>10}" for b in batches)
    lines = [f"{'form':<14}{head}   difference"]
    for timing in timings:
        if timing.form == DECODING:
            continue
        cells = ""
        for batch in batches:
            seconds, plain = timing.seconds[batch], timings[0].seconds[batch]
            cells += (
                f"{digits(1e3 * seconds):>9} ms{batch / seconds:>10.1f}{plain / seconds:>9.2f}x"
            )
        lines.append(f"{timing.form:<14}{cells}{timing.difference:>13.1e}")
    *_, decoding = timings
    lines += [
        f"{DECODING} a batch of {batch}: {digits(1e3 * seconds)} ms, "
        f"{seconds / timings[0].seconds[batch]:.1%} of the plain network's time"
        for batch, seconds in decoding.seconds.items()
    ]
    return "\n".join(lines)
