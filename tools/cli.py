"""The command line of an experiment, and what else the commands share."""

import argparse
import logging
import re
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

import torch
from yacs.config import CfgNode

from lib.config import load_config
from lib.core.recorder import KINDS, Recorder
from lib.core.task import Task
from lib.core.validate import validate
from lib.dataset.loading import TestLoader
from lib.keypoints.poses import Poses
from lib.utils import zoo
from lib.utils.devices import to_channels_last
from lib.utils.errors import InputError
from lib.utils.files import make_folder, write_atomically
from lib.utils.logs import buffer_log, experiment_folders, experiment_name, start_log

logger = logging.getLogger(__name__)


def experiment_parser(description: str, default_cfg: Path | None = None) -> argparse.ArgumentParser:
    """The original HRNet's options: ``--cfg FILE``, the folders, then ``KEY VALUE ...``.

    ``--cfg`` may be left out where there is a ``default_cfg``.
    """
    parser = argparse.ArgumentParser(
        description=description, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--cfg",
        required=default_cfg is None,
        default=default_cfg,
        metavar="FILE",
        help="the experiment's YAML",
    )
    parser.add_argument(
        "--modelDir", default="", metavar="DIR", help="write results here instead of OUTPUT_DIR"
    )
    parser.add_argument(
        "--logDir",
        default="",
        metavar="DIR",
        help="write TensorBoard here instead of LOG_DIR",
    )
    parser.add_argument("--dataDir", default="", metavar="DIR", help="prefix for the data paths")
    parser.add_argument(
        "--prevModelDir", default="", metavar="DIR", help="accepted and unused, as in the original"
    )
    parser.add_argument("--seed", metavar="N", help="SEED N")
    parser.add_argument(
        "--deterministic",
        action="store_true",
        help="use only deterministic cuDNN algorithms",
    )
    parser.add_argument("--gpu-ids", nargs="+", metavar="N", help="GPUS, as in --gpu-ids 0 1")
    parser.add_argument("--work-dir", metavar="DIR", help="put results and logs directly in DIR")
    for name in ("--cfg-options", "--options"):
        parser.add_argument(name, nargs="*", dest="cfg_options", help=argparse.SUPPRESS)
    parser.add_argument(
        "opts",
        nargs="*",
        metavar="KEY VALUE",
        help="settings over the YAML's, such as TRAIN.LR 1e-4",
    )
    return parser


def parse_experiment(
    parser: argparse.ArgumentParser, argv: Sequence[str] | None = None
) -> tuple[argparse.Namespace, CfgNode]:
    """Parse the command line, or ``argv``, and load the configuration that it describes."""
    argv = sys.argv[1:] if argv is None else argv
    # argparse takes -1e-3 for an option, but not with a space before it.
    words = [f" {word}" if re.match(r"-\.?\d", word) else word for word in argv]
    args = parser.parse_intermixed_args(words)
    if args.cfg_options is not None:
        raise InputError(
            "--cfg-options, --options: settings follow the options here, as KEY VALUE with the "
            "keys of the YAML: TRAIN.LR 1e-4 MODEL.SIGMA 3"
        )
    args.opts = [*args.opts, *_take_numbers(args), *getattr(args, "late_opts", [])]
    if args.work_dir and (args.modelDir or args.logDir):
        raise InputError("--work-dir: replaces --modelDir and --logDir; give one or the other")
    words = [word.strip() if re.match(r" -", word) else word for word in args.opts]
    words = [*_shorthands(args), *words]
    folders = (("OUTPUT_DIR", args.modelDir), ("LOG_DIR", args.logDir), ("DATA_DIR", args.dataDir))
    opts = [word for key, value in folders if value for word in (key, value)]
    args.settings = [*opts, *words]
    buffer_log()
    return args, load_config(args.cfg, args.settings)


def _take_numbers(args: argparse.Namespace) -> list[str]:
    """Leave --gpu-ids its numbers; what argparse gave it beyond them are settings."""
    words = args.gpu_ids or []
    count = next((i for i, word in enumerate(words) if not word.isdecimal()), len(words))
    if words and not count:
        raise InputError(
            f"--gpu-ids: must be numbers of devices, as in --gpu-ids 0 1, not {words[0]}"
        )
    args.gpu_ids = words[:count]
    return words[count:]


def _shorthands(args: argparse.Namespace) -> list[str]:
    """The settings that options stand for."""
    settings: list[tuple[str, str]] = []
    if args.seed is not None:
        settings.append(("SEED", args.seed))
    if args.deterministic:
        settings += [("CUDNN.DETERMINISTIC", "True"), ("CUDNN.BENCHMARK", "False")]
    if args.gpu_ids:
        settings.append(("GPUS", f"({','.join(args.gpu_ids)},)"))
    if getattr(args, "resume_from", None):
        settings += [("TRAIN.CHECKPOINT", args.resume_from), ("AUTO_RESUME", "False")]
    if getattr(args, "no_validate", False):
        settings.append(("TRAIN.EVAL_INTERVAL", "0"))
    return [word for pair in settings for word in pair]


def open_experiment(cfg: CfgNode, args: argparse.Namespace, phase: str) -> tuple[Path, Path]:
    """Begin the log in the output folder and keep the configuration there; returns the output and
    the TensorBoard folder."""
    name = experiment_name(cfg, args.cfg)
    if args.work_dir:
        output_dir = Path(args.work_dir)
        log_dir = output_dir / "tf_logs"
    else:
        output_dir, log_dir = experiment_folders(cfg, args.cfg)
    make_folder(output_dir)
    start_log(output_dir, name, phase)
    logger.info("=> %s: results go to %s", name, output_dir)
    logging.getLogger("config").info(cfg)
    write_atomically(output_dir / f"config_{phase}.yaml", cfg.dump().encode())
    return output_dir, log_dir


def model_file(cfg: CfgNode, output_dir: Path, experiment: str) -> Path:
    """TEST.MODEL_FILE, else what training left in the output folder of the YAML ``experiment``,
    else the .pth file beside that YAML, as the built-in network has it."""
    if cfg.TEST.MODEL_FILE:
        return Path(cfg.TEST.MODEL_FILE)
    trained = [output_dir / name for name in ("model_best.pth", "final_state.pth")]
    for path in (*trained, Path(experiment).with_suffix(".pth")):
        if path.exists():
            return path
    raise InputError(
        f"TEST.MODEL_FILE: names no weights, and {output_dir} has no model_best.pth; train first, "
        f"or give a file{zoo.published_weights_hint(experiment)}"
    )


def set_cudnn(cfg: CfgNode) -> None:
    """Apply CUDNN.* to PyTorch."""
    torch.backends.cudnn.enabled = cfg.CUDNN.ENABLED
    torch.backends.cudnn.benchmark = cfg.CUDNN.BENCHMARK
    torch.backends.cudnn.deterministic = cfg.CUDNN.DETERMINISTIC


def to_devices(model: torch.nn.Module, devices: list[torch.device]) -> torch.nn.Module:
    """The model on its device, split over several by DataParallel."""
    model = model.to(devices[0])
    if devices[0].type == "cpu":
        to_channels_last(model)
    return torch.nn.DataParallel(model, device_ids=devices) if len(devices) > 1 else model


def score_test_set(
    cfg: CfgNode,
    task: Task,
    batches: TestLoader,
    recorder: Recorder,
    output_dir: Path,
    epoch: int = 0,
) -> tuple[Poses, dict[str, float], float]:
    """One pass over the test set, recorded.

    Returns everybody's poses, the scores by name, and the score that decides which network is best.
    """
    kinds = batch_pictures(cfg)

    def observe(step, stats, batch, outputs):
        recorder.log_test_step(step, len(batches), stats)
        recorder.save_images("val", step, epoch, task.draw(batch, outputs, kinds))

    result = validate(task, batches, cfg.PRINT_FREQ, observe)
    values, score = batches.dataset.source.evaluate(result.poses, str(output_dir))
    recorder.add_scores(epoch, result.stats, values)
    return result.poses, values, score


def batch_pictures(cfg: CfgNode) -> list[str]:
    """The kinds of pictures of a batch: those that DEBUG asks for, and TensorBoard's."""
    debug = cfg.DEBUG
    flags = (
        debug.SAVE_BATCH_IMAGES_GT,
        debug.SAVE_BATCH_IMAGES_PRED,
        debug.SAVE_HEATMAPS_GT,
        debug.SAVE_HEATMAPS_PRED,
    )
    wanted = [kind for kind, flag in zip(KINDS, flags, strict=True) if flag and debug.DEBUG]
    return [*wanted, "gt_pred"]


def _log_to_file(message: str) -> None:
    """Into the log's file alone: the console gets the message on standard error."""
    record = logging.makeLogRecord({"msg": message, "levelno": logging.ERROR})
    for handler in logging.getLogger().handlers:
        if isinstance(handler, logging.FileHandler):
            handler.handle(record)


def run(main: Callable[[], None]) -> None:
    """Run a command: bad input is one line on standard error and exit code 1, an interrupt 130."""
    try:
        main()
    except InputError as error:
        _log_to_file(f"error: {error}")
        sys.exit(f"error: {error}")
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        sys.exit(130)
