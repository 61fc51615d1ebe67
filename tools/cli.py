"""Command-line parsing for experiments, and other code shared by the commands."""

import argparse
import logging
import re
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

import torch
from yacs.config import CfgNode

from lib.config import load_config
from lib.core.recorder import Recorder
from lib.core.task import Task
from lib.core.validate import validate
from lib.dataset.loading import SceneLoader, TestLoader
from lib.keypoints.poses import Poses
from lib.utils import zoo
from lib.utils.errors import InputError
from lib.utils.files import make_folder, write_atomically
from lib.utils.logs import buffer_log, experiment_folders, experiment_name, start_log

logger = logging.getLogger(__name__)


def command_parser(description: str) -> argparse.ArgumentParser:
    """Return a parser whose help shows ``description``, the docstring of the command, as it is."""
    return argparse.ArgumentParser(
        description=description, formatter_class=argparse.RawDescriptionHelpFormatter
    )


def experiment_parser(description: str, default_cfg: Path | None = None) -> argparse.ArgumentParser:
    """Return a parser with the original HRNet's options: ``--cfg``, folders and ``KEY VALUE ...``.

    ``--cfg`` is optional if there is a ``default_cfg``.
    """
    parser = command_parser(description)
    add = parser.add_argument
    add(
        "--cfg",
        required=default_cfg is None,
        default=default_cfg,
        metavar="FILE",
        help="YAML file of the experiment"
        + (" (default: the built-in network's)" if default_cfg else ""),
    )
    folders = {
        "--modelDir": "root folder for results (overrides OUTPUT_DIR)",
        "--logDir": "root folder for TensorBoard logs of training and tests (overrides LOG_DIR)",
        "--dataDir": "prefix for data and weight paths",
        "--prevModelDir": "ignored; accepted for compatibility with HRNet's tools",
    }
    for name, text in folders.items():
        add(name, default="", metavar="DIR", help=text)
    add("--seed", metavar="N", help="random seed (overrides SEED)")
    add("--deterministic", action="store_true", help="use only deterministic cuDNN algorithms")
    add("--gpu-ids", nargs="+", metavar="N", help="GPUs to use (overrides GPUS)")
    add("--work-dir", metavar="DIR", help="write results and logs directly to DIR")
    for name in ("--cfg-options", "--options"):
        add(name, nargs="*", dest="cfg_options", help=argparse.SUPPRESS)
    text = "settings that override the YAML, such as TRAIN.LR 1e-4"
    add("opts", nargs="*", metavar="KEY VALUE", help=text)
    return parser


def protect_numbers(words: Sequence[str]) -> list[str]:
    """Put a space before negative numbers such as -1e-3, which argparse takes for options."""
    return [f" {word}" if re.match(r"-\.?\d", word) else word for word in words]


def parse_experiment(
    parser: argparse.ArgumentParser, argv: Sequence[str] | None = None
) -> tuple[argparse.Namespace, CfgNode]:
    """Parse ``argv`` (default: the command line) and load the configuration."""
    args = parser.parse_intermixed_args(protect_numbers(sys.argv[1:] if argv is None else argv))
    if args.cfg_options is not None:
        raise InputError(
            "--cfg-options, --options: not supported; put settings at the end as KEY VALUE, with "
            "the keys of the YAML: TRAIN.LR 1e-4 MODEL.SIGMA 3"
        )
    args.opts = [*args.opts, *_split_gpu_ids(args), *getattr(args, "late_opts", [])]
    if args.work_dir and (args.modelDir or args.logDir):
        raise InputError("--work-dir: cannot be combined with --modelDir and --logDir")
    words = [word.strip() if re.match(r" -", word) else word for word in args.opts]
    words = [*_option_settings(args), *words]
    folders = (("OUTPUT_DIR", args.modelDir), ("LOG_DIR", args.logDir), ("DATA_DIR", args.dataDir))
    opts = [word for key, value in folders if value for word in (key, value)]
    args.settings = [*opts, *words]
    buffer_log()
    return args, load_config(args.cfg, args.settings)


def _split_gpu_ids(args: argparse.Namespace) -> list[str]:
    """Keep only the leading numbers in ``args.gpu_ids`` and return the rest, which are settings."""
    words = args.gpu_ids or []
    count = next((i for i, word in enumerate(words) if not word.isdecimal()), len(words))
    if words and not count:
        raise InputError(f"--gpu-ids: must be device numbers, as in --gpu-ids 0 1, not {words[0]}")
    args.gpu_ids = words[:count]
    return words[count:]


def _option_settings(args: argparse.Namespace) -> list[str]:
    """Return the ``KEY VALUE`` settings that the options stand for."""
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
    """Start the log and save the configuration in the output folder.

    Returns the output folder and the TensorBoard folder.
    """
    name = experiment_name(cfg, args.cfg)
    if args.work_dir:
        output_dir = Path(args.work_dir)
        log_dir = output_dir / "tf_logs"
    else:
        output_dir, log_dir = experiment_folders(cfg, args.cfg)
    make_folder(output_dir)
    start_log(output_dir, name, phase)
    logger.info("=> %s: writing results to %s", name, output_dir)
    logging.getLogger("config").info(cfg)
    write_atomically(output_dir / f"config_{phase}.yaml", cfg.dump().encode())
    return output_dir, log_dir


def model_file(cfg: CfgNode, output_dir: Path, experiment: str) -> Path:
    """Find the weights to use.

    TEST.MODEL_FILE if it is set, else the first that exists of: weights that training left in
    ``output_dir``, and the .pth file next to the YAML ``experiment``, as for the built-in network.
    """
    if cfg.TEST.MODEL_FILE:
        return Path(cfg.TEST.MODEL_FILE)
    trained = [output_dir / name for name in ("model_best.pth", "final_state.pth")]
    for path in (*trained, Path(experiment).with_suffix(".pth")):
        if path.exists():
            return path
    raise InputError(
        f"TEST.MODEL_FILE: is not set, and {output_dir} has no model_best.pth; train first or "
        f"set it to a file{zoo.published_weights_hint(experiment)}"
    )


def set_cudnn(cfg: CfgNode) -> None:
    """Apply CUDNN.* to PyTorch."""
    torch.backends.cudnn.enabled = cfg.CUDNN.ENABLED
    torch.backends.cudnn.benchmark = cfg.CUDNN.BENCHMARK
    torch.backends.cudnn.deterministic = cfg.CUDNN.DETERMINISTIC


def score_test_set(
    cfg: CfgNode,
    task: Task,
    batches: TestLoader | SceneLoader,
    recorder: Recorder,
    output_dir: Path,
    epoch: int = 0,
) -> tuple[Poses, dict[str, float], float]:
    """Evaluate on the test set and record the results.

    Returns all poses, the scores by name, and the score that selects the best network.
    """
    kinds = image_kinds(cfg)

    def observe(step, stats, batch, outputs):
        recorder.log_test_step(step, len(batches), stats)
        recorder.save_images("val", step, epoch, task.draw(batch, outputs, kinds))

    result = validate(task, batches, cfg.PRINT_FREQ, observe)
    values, score = batches.dataset.source.evaluate(result.poses, str(output_dir))
    recorder.add_scores(epoch, result.stats, values)
    return result.poses, values, score


def image_kinds(cfg: CfgNode) -> list[str]:
    """Return the kinds of batch images to draw: those enabled in DEBUG, and TensorBoard's."""
    debug = cfg.DEBUG
    flags = {
        "gt": debug.SAVE_BATCH_IMAGES_GT,
        "pred": debug.SAVE_BATCH_IMAGES_PRED,
        "hm_gt": debug.SAVE_HEATMAPS_GT,
        "hm_pred": debug.SAVE_HEATMAPS_PRED,
    }
    return [*(kind for kind, flag in flags.items() if flag and debug.DEBUG), "gt_pred"]


def _log_to_file(message: str) -> None:
    """Log to the file only; the console shows the message on standard error."""
    record = logging.makeLogRecord({"msg": message, "levelno": logging.ERROR})
    for handler in logging.getLogger().handlers:
        if isinstance(handler, logging.FileHandler):
            handler.handle(record)


def run(main: Callable[[], None]) -> None:
    """Run a command, with exit code 1 and one line of error on bad input, and 130 on Ctrl-C."""
    try:
        main()
    except InputError as error:
        _log_to_file(f"error: {error}")
        sys.exit(f"error: {error}")
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        sys.exit(130)
