"""Write a network to a file that runs without this project, and check it against PyTorch at once.

  python tools/export.py --cfg FILE --weights FILE --to onnx
  python tools/export.py --cfg FILE --weights FILE --to openvino --single TEST.FLIP_TEST False
  python tools/export.py --cfg FILE --weights FILE --to weights

The file takes uint8 RGB crops and gives keypoints in crop pixels and scores: normalising, the flip
test (where TEST.FLIP_TEST asks for it) and decoding are inside. With --raw it takes normalised
crops and gives the network's outputs. Any number of crops at a time, or one with --single.
Predictor runs every such file; it takes what runs it from the suffix (docs/export.md).

--to weights writes the weights alone, in float16: half the size, loaded like any checkpoint.
"""

import argparse
import sys
import tempfile
from pathlib import Path

import _init_paths  # noqa: F401
import torch
from cli import run
from yacs.config import CfgNode

from lib.config import load_config, skeleton_of
from lib.core.backends import TorchBackend, build_backend, load_network, network_backend
from lib.core.codecs import build_codec
from lib.core.exported import Description
from lib.deploy.export import EXPORTERS, MAIN_SUFFIX, DecodingNetwork, export
from lib.deploy.parity import Difference, difference, random_crops, real_crops
from lib.keypoints.skeletons import Skeleton
from lib.models.checkpoint import half_state_dict
from lib.utils import checkpoint
from lib.utils.errors import InputError
from lib.utils.files import make_folder, write_atomically

WEIGHTS = "weights"
TOLERANCE = 0.05  # crop pixels, of joints that are stable
SCORE_TOLERANCE = 1e-3  # of the largest score
BATCHES = (1, 3)


def main() -> None:
    args = parse_args()
    cfg = load_config(args.cfg, args.opts)
    target = target_file(args)
    skeleton = skeleton_of(cfg)
    make_folder(target.parent)
    if args.to == WEIGHTS:
        write_weights(cfg, skeleton, args.weights, target)
        return
    network = load_network(cfg, args.weights, torch.device("cpu"))
    codec = build_codec(cfg, skeleton)
    how = (codec, cfg.DATASET.COLOR_RGB, cfg.TEST.FLIP_TEST)
    description = Description.of(cfg, skeleton, decodes=not args.raw, dynamic_batch=not args.single)
    whole = network if args.raw else DecodingNetwork(network, *how).eval()
    print(f"exporting {cfg.MODEL.NAME} for {args.to} ...", file=sys.stderr, flush=True)
    files = export(whole, description, args.to)
    with tempfile.TemporaryDirectory() as folder:
        draft = Path(folder) / target.name
        for suffix, content in files.items():
            draft.with_suffix(suffix).write_bytes(content)
        check(cfg, skeleton, draft, TorchBackend(network, *how))
    for suffix, content in files.items():
        write_atomically(target.with_suffix(suffix), content)
    print(summary(target, files, description))


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--cfg", required=True, metavar="FILE", help="the experiment's YAML")
    parser.add_argument(
        "--weights", required=True, type=Path, metavar="FILE", help="a checkpoint, any layout"
    )
    parser.add_argument(
        "--to", required=True, choices=[*EXPORTERS, WEIGHTS], help="the kind of file"
    )
    parser.add_argument(
        "--out", type=Path, metavar="FILE", help="where to (default: beside the weights)"
    )
    parser.add_argument("--raw", action="store_true", help="the network alone, without decoding")
    parser.add_argument(
        "--single", action="store_true", help="one crop at a time: faster for Dite-HRNet"
    )
    parser.add_argument("opts", nargs="*", metavar="KEY VALUE", help="settings over the YAML's")
    return parser.parse_intermixed_args()


def target_file(args: argparse.Namespace) -> Path:
    """--out, else a file beside the weights."""
    if args.to == WEIGHTS:
        suffix, default = ".pth", args.weights.with_name(f"{args.weights.stem}_float16.pth")
        if args.raw or args.single:
            raise InputError("--raw, --single: do not apply to --to weights")
    else:
        suffix = MAIN_SUFFIX[args.to]
        default = args.weights.with_suffix(suffix)
    target = args.out or default
    if target.suffix != suffix:
        raise InputError(f"--out: must end in {suffix} for --to {args.to}: {target}")
    return target


def write_weights(cfg: CfgNode, skeleton: Skeleton, source: Path, target: Path) -> None:
    """Write the weights in float16 and print how far they move the keypoints."""
    network = load_network(cfg, source, torch.device("cpu"), fold=False)
    state = half_state_dict(network)
    reference = network_backend(cfg, network, build_codec(cfg, skeleton))
    crops, what = real_crops(cfg, max(BATCHES))
    print(line(what, difference(build_backend(cfg, skeleton, state), reference, crops)))
    checkpoint.save(state, target)
    print(f"=> {target}: {target.stat().st_size / 2**20:.1f} MiB, weights in float16")


def check(cfg: CfgNode, skeleton: Skeleton, path: Path, reference: TorchBackend) -> None:
    """Compare the file at ``path`` with PyTorch, print the differences, refuse large ones."""
    backend = build_backend(cfg, skeleton, path)
    real, source = real_crops(cfg, max(BATCHES))
    random = random_crops(cfg.MODEL.IMAGE_SIZE, max(BATCHES))
    for name, crops in (("random", random), (source, real)):
        for batch in BATCHES:
            found = difference(backend, reference, crops[:batch])
            print(line(f"{name}, {batch} crop{'s' if batch > 1 else ''}", found), flush=True)
            # not "greater than": what is not a number must be refused too
            if not (found.stable_largest <= TOLERANCE and found.scores <= SCORE_TOLERANCE):
                raise InputError(
                    f"{path.name}: its answers are not PyTorch's (more than {TOLERANCE} pixels or "
                    f"{SCORE_TOLERANCE} of a score apart); nothing was written"
                )


def line(what: str, found: Difference) -> str:
    text = f"{what}: {found.stable_largest:.4f} pixels at most, scores {found.scores:.1e}"
    if (rest := found.joints - found.stable) > 0:
        text += f" (without {rest} of {found.joints} joints that have two equal maxima)"
    return text


def summary(target: Path, files: dict[str, bytes], description: Description) -> str:
    inside = "the network alone"
    if description.decodes:
        flip = " and flip test" if description.settings["TEST.FLIP_TEST"] else ""
        inside = f"with normalising, decoding{flip}"
    number = "any number of crops" if description.dynamic_batch else "one crop"
    size = sum(map(len, files.values())) / 2**20
    return f"=> {target}: {size:.1f} MiB, {inside}, {number} at a time"


if __name__ == "__main__":
    run(main)
