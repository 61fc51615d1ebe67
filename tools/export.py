"""Export a network to ONNX, TorchScript or OpenVINO, and compare its output with PyTorch's.

  python tools/export.py --cfg FILE --weights FILE --to onnx
  python tools/export.py --cfg FILE --weights FILE --to openvino --single TEST.FLIP_TEST False
  python tools/export.py --cfg FILE --weights FILE --to openvino --int8
  python tools/export.py --cfg FILE --weights FILE --to weights

An exported top-down network reads uint8 RGB crops and returns keypoints in crop pixels, with their
scores. An exported bottom-up network reads a whole uint8 RGB image and returns heatmaps, tags and
keypoint candidates. Both include normalisation, and the flip test if TEST.FLIP_TEST is set. With
--raw, the file contains the network alone, without normalisation, flip test and decoding.
--to weights writes a checkpoint in float16. tools/test.py, tools/demo.py and the Python class
Predictor run all of these files. See docs/export.md for details.

--int8 quantizes the network, for faster inference on CPUs. The command compares the AP of
int8 on the test set with that of float32. If int8 loses more than --max-ap-loss, the command keeps
layers in float32, beginning with the one whose quantization moves the keypoints most. If that is
not enough, nothing is written.
A JSON file next to the exported file, called the certificate, reports the measurements.
"""

import argparse
import sys
import tempfile
from pathlib import Path

import _init_paths  # noqa: F401
import torch
from benchmarks.int8 import (
    TestSet,
    certificate_file,
    certificate_summary,
    quantize_and_check,
    slower_than_float32,
)
from cli import add_settings, command_parser, protect_numbers, run
from torch import nn
from yacs.config import CfgNode

from lib.config import is_bottom_up, load_config, skeleton_of
from lib.core import build_task
from lib.core.backends import TorchBackend, build_backend, load_network, network_backend
from lib.core.codecs import build_codec
from lib.core.exported import Description, trust_torchscript
from lib.deploy.export import (
    EXPORTERS,
    MAIN_SUFFIX,
    ONNX,
    TORCHSCRIPT,
    decoding_network,
    export,
    write_draft,
)
from lib.deploy.int8 import import_nncf
from lib.deploy.parity import (
    Difference,
    difference,
    random_crops,
    random_scene,
    real_crops,
    real_scenes,
    scene_difference,
)
from lib.keypoints.skeletons import Skeleton
from lib.models.checkpoint import half_state_dict
from lib.utils import checkpoint
from lib.utils.errors import InputError
from lib.utils.files import make_folder, write_atomically

WEIGHTS = "weights"
TOLERANCE = 0.05  # crop pixels, for joints that are stable (see lib.deploy.parity.difference)
SCORE_TOLERANCE = 1e-3  # relative to the largest score, heatmap value or tag
BATCH_SIZES = (1, 3)  # for the comparison with PyTorch
MAX_AP_LOSS = 0.5  # percentage points


def main() -> None:
    args = parse_args()
    cfg = load_config(args.cfg, args.opts)
    check_int8_options(args, cfg)
    target = target_file(args)
    if is_bottom_up(cfg) and args.to != WEIGHTS:
        check_bottom_up_options(args, cfg)
    test_set = TestSet(cfg) if args.int8 else None
    skeleton = skeleton_of(cfg)
    make_folder(target.parent)
    if args.to == WEIGHTS:
        write_weights(cfg, skeleton, args.weights, target)
        return
    network = load_network(cfg, args.weights, torch.device("cpu"))
    codec = build_codec(cfg, skeleton)
    description = Description.of(cfg, skeleton, decodes=not args.raw, dynamic_batch=not args.single)
    module = network if args.raw else decoding_network(cfg, network, codec)
    print(f"exporting {cfg.MODEL.NAME} for {args.to} ...", file=sys.stderr, flush=True)
    files = export(module, description, ONNX if args.int8 else args.to)
    trust_torchscript()  # to check the file that was just written
    with tempfile.TemporaryDirectory() as folder:
        # The file is checked in a temporary folder before it is written to its final place.
        draft = write_draft(Path(folder) / target.name, files)
        check = check_bottom_up_file if is_bottom_up(cfg) else check_top_down_file
        check(cfg, skeleton, draft, network_backend(cfg, network, codec))
        if args.int8:
            files, certificate = quantize_and_check(
                cfg, draft, args.to, test_set, args.calibration, args.max_ap_loss
            )
    certificate_path = target.with_name(f"{target.name}.json")
    certificate_path.unlink(missing_ok=True)  # it may belong to the file that is replaced
    for suffix, content in files.items():
        write_atomically(target.with_suffix(suffix), content)
    print(summary(target, files, description))
    if args.int8:
        write_atomically(certificate_path, certificate_file(certificate))
        print(f"=> {certificate_path}: {certificate_summary(certificate)}")
        if slower := slower_than_float32(certificate):
            print(slower, file=sys.stderr)


def parse_args() -> argparse.Namespace:
    parser = command_parser(__doc__)
    add = parser.add_argument
    add("--cfg", required=True, metavar="FILE", help="YAML file of the experiment")
    add("--weights", required=True, type=Path, metavar="FILE", help="checkpoint to export")
    text = "output format; weights is a checkpoint in float16"
    add("--to", required=True, choices=[*EXPORTERS, WEIGHTS], help=text)
    add("--out", type=Path, metavar="FILE", help="output file (default: next to the weights)")
    add("--raw", action="store_true", help="export the network alone, without decoding")
    add("--single", action="store_true", help="fix the batch size to 1 (faster for Dite-HRNet)")
    add("--int8", action="store_true", help="quantize to int8 (only --to onnx or openvino)")
    text = "largest loss of AP that --int8 may cause, in percentage points (default: 0.5)"
    add("--max-ap-loss", type=float, metavar="X", help=text)
    text = (
        "folder of calibration images for --int8 (default: images of the training set, or "
        "synthetic images if that is missing)"
    )
    add("--calibration", type=Path, metavar="DIR", help=text)
    add_settings(parser)
    return parser.parse_intermixed_args(protect_numbers(sys.argv[1:]))


def target_file(args: argparse.Namespace) -> Path:
    """Return --out, or the path of a file next to the weights.

    Raises:
        InputError: the options do not fit the format.
    """
    if args.to == WEIGHTS:
        suffix, default = ".pth", args.weights.with_name(f"{args.weights.stem}_float16.pth")
        if args.raw or args.single:
            raise InputError("--raw, --single: cannot be used with --to weights")
    else:
        suffix = MAIN_SUFFIX[args.to]
        default = args.weights.with_name(f"{args.weights.stem}{'_int8' * args.int8}{suffix}")
    target = args.out or default
    if target.suffix != suffix:
        raise InputError(f"--out: must end in {suffix} for --to {args.to}: {target}")
    return target


def check_bottom_up_options(args: argparse.Namespace, cfg: CfgNode) -> None:
    """Raise an InputError for options that do not fit the export of a bottom-up network."""
    if args.single:
        raise InputError("--single: files of bottom-up networks always read one image; omit it")
    if list(cfg.TEST.SCALE_FACTOR) != [1] and not args.raw:
        raise InputError(
            "TEST.SCALE_FACTOR: a file with decoding reads an image at one scale; set it to [1] or "
            "use --raw"
        )


def check_int8_options(args: argparse.Namespace, cfg: CfgNode) -> None:
    """Raise an InputError for options that do not fit --int8, or that need --int8."""
    if not args.int8:
        if args.calibration is not None or args.max_ap_loss is not None:
            raise InputError("--calibration, --max-ap-loss: only with --int8")
        return
    if args.to in (TORCHSCRIPT, WEIGHTS):
        raise InputError(f"--int8: needs --to onnx or openvino, not {args.to}")
    if args.raw:
        raise InputError("--int8: cannot be combined with --raw")
    if args.max_ap_loss is None:
        args.max_ap_loss = MAX_AP_LOSS
    if not args.max_ap_loss >= 0:  # NaN fails as well
        raise InputError(f"--max-ap-loss: must be 0 or more, not {args.max_ap_loss}")
    if args.calibration is not None and not args.calibration.is_dir():
        raise InputError(f"--calibration: {args.calibration}: there is no such folder")
    import_nncf()  # raises an error if it is not installed


def write_weights(cfg: CfgNode, skeleton: Skeleton, weights: Path, target: Path) -> None:
    """Write the weights in float16; for a top-down network, print how much keypoints change."""
    network = load_network(cfg, weights, torch.device("cpu"), fold=False)
    state = half_state_dict(network)
    if not is_bottom_up(cfg):
        print_change(cfg, skeleton, network, state)
    checkpoint.save(state, target)
    print(f"=> {target}: {target.stat().st_size / 2**20:.1f} MiB, weights in float16")


def print_change(cfg: CfgNode, skeleton: Skeleton, network: nn.Module, state: dict) -> None:
    """Print how much the keypoints change with the weights ``state``."""
    reference = network_backend(cfg, network, build_codec(cfg, skeleton))
    crops, source = real_crops(cfg, max(BATCH_SIZES))
    print(describe(source, difference(build_backend(cfg, skeleton, state), reference, crops)))


def check_top_down_file(
    cfg: CfgNode, skeleton: Skeleton, path: Path, reference: TorchBackend
) -> None:
    """Compare the file of a top-down network with PyTorch and print the differences.

    Raises:
        InputError: the differences are too large.
    """
    backend = build_backend(cfg, skeleton, path)
    real, source = real_crops(cfg, max(BATCH_SIZES))
    random = random_crops(cfg.MODEL.IMAGE_SIZE, max(BATCH_SIZES))
    for name, crops in (("random", random), (source, real)):
        for size in BATCH_SIZES:
            found = difference(backend, reference, crops[:size])
            print(describe(f"{name}, {size} crop{'s' if size > 1 else ''}", found), flush=True)
            # Written with "not" so that NaN fails as well.
            if not (found.stable_largest <= TOLERANCE and found.scores <= SCORE_TOLERANCE):
                raise InputError(
                    f"{path.name}: its output differs from PyTorch's by more than {TOLERANCE} "
                    f"pixels or {SCORE_TOLERANCE} of the largest score; nothing was written"
                )


def check_bottom_up_file(
    cfg: CfgNode, skeleton: Skeleton, path: Path, reference: TorchBackend
) -> None:
    """Compare the file of a bottom-up network with PyTorch and print the differences.

    Raises:
        InputError: the differences are too large.
    """
    task = build_task(cfg, build_backend(cfg, skeleton, path))
    expected = build_task(cfg, reference)
    images, source = real_scenes(cfg, max(BATCH_SIZES))
    scenes = [("random", random_scene(int(cfg.MODEL.IMAGE_SIZE[0])))]
    scenes += [(f"{source}, image {number}", image) for number, image in enumerate(images, 1)]
    for name, batch in scenes:
        found = scene_difference(task, expected, batch)
        print(
            f"{name}: heatmaps differ by at most {found.heatmaps:.1e} of the largest value, tags "
            f"by {found.tags:.1e}, scores by {found.scores:.1e}; {found.people} people, "
            f"{found.expected} in PyTorch",
            flush=True,
        )
        if not found.largest <= SCORE_TOLERANCE:
            raise InputError(
                f"{path.name}: its output differs from PyTorch's by more than {SCORE_TOLERANCE} of "
                "the largest value; nothing was written"
            )


def describe(source: str, found: Difference) -> str:
    """Format the differences on crops from ``source``."""
    text = (
        f"{source}: keypoints differ by at most {found.stable_largest:.4f} pixels, scores by "
        f"{found.scores:.1e} of the largest score"
    )
    if (rest := found.joints - found.stable) > 0:
        text += f" (without {rest} of {found.joints} joints, which have two nearly equal maxima)"
    return text


def summary(target: Path, files: dict[str, bytes], description: Description) -> str:
    contents = "the network without decoding"
    if description.decodes:
        flip = ", flip test" if description.settings["TEST.FLIP_TEST"] else ""
        last = "candidates" if description.dynamic_size else "decoding"
        contents = f"includes normalisation{flip} and {last}"
    batch = "dynamic batch" if description.dynamic_batch else "batch size 1"
    if description.dynamic_size:
        batch = "one image of any size"
    size = sum(map(len, files.values())) / 2**20
    return f"=> {target}: {size:.1f} MiB, {contents}, {batch}"


if __name__ == "__main__":
    run(main)
