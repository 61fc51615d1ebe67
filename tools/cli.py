"""Command-line parsing for experiments, and other code shared by the commands."""

import argparse
import contextlib
import logging
import os
import re
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import torch
from yacs.config import CfgNode

from lib.config import load_config
from lib.config.default import default_config
from lib.core.recorder import Recorder
from lib.core.task import Task
from lib.core.validate import validate
from lib.dataset.loading import SceneLoader, TestLoader, worker_error
from lib.keypoints.poses import Poses
from lib.utils import distributed, zoo
from lib.utils.compiling import compiler_error
from lib.utils.errors import InputError
from lib.utils.files import hold_lock, make_folder
from lib.utils.logs import buffer_log, experiment_folders, experiment_name, start_log
from lib.utils.signals import Stopped

logger = logging.getLogger(__name__)

# Settings of mmpose with the same meaning here, for --cfg-options.
MMPOSE_SETTINGS = {
    "model.pretrained": "MODEL.PRETRAINED",
    "optimizer.lr": "TRAIN.LR",
    "total_epochs": "TRAIN.END_EPOCH",
    "evaluation.interval": "TRAIN.EVAL_INTERVAL",
    "data.samples_per_gpu": "TRAIN.BATCH_SIZE_PER_GPU",
    "data.workers_per_gpu": "WORKERS",
}


TOP_LEVEL_KEYS = frozenset(default_config())
KEY_PATTERN = re.compile(r"[A-Z][A-Z0-9_]*(\.[A-Z0-9_]+)*")


def _is_key(word: str) -> bool:
    """Return True for the key of a setting, such as GPUS or TRAIN.LR."""
    return word in TOP_LEVEL_KEYS or ("." in word and KEY_PATTERN.fullmatch(word) is not None)


class ListBeforeSettings(argparse.Action):
    """Collect the values of an option; ``KEY VALUE`` settings after them go to ``late_opts``."""

    def __call__(self, parser, namespace, values, option_string=None):
        # The first key ends the values, unless it is also the name of a file.
        keys = (i for i, word in enumerate(values) if _is_key(word) and not Path(word).exists())
        count = next(keys, len(values))
        if values and not count:
            raise InputError(f"{option_string} has no value")
        setattr(namespace, self.dest, [*(getattr(namespace, self.dest) or []), *values[:count]])
        namespace.late_opts = [*getattr(namespace, "late_opts", []), *values[count:]]


def command_parser(description: str) -> argparse.ArgumentParser:
    """Return a parser whose help shows ``description`` with its line breaks."""
    return argparse.ArgumentParser(
        description=description, formatter_class=argparse.RawDescriptionHelpFormatter
    )


def experiment_parser(description: str, default_cfg: Path | None = None) -> argparse.ArgumentParser:
    """Return a parser with the options of HRNet (``--cfg``, folders, ``KEY VALUE``) and mmpose.

    The experiment is required unless there is a ``default_cfg``.
    """
    parser = command_parser(description)
    add = parser.add_argument
    add(
        "--cfg",
        default=default_cfg,
        metavar="FILE",
        help="YAML file of the experiment; may also be the first argument, without --cfg"
        + (" (default: that of the built-in top-down network)" if default_cfg else ""),
    )
    folders = {
        "--modelDir": "root folder for results (default: the setting OUTPUT_DIR)",
        "--logDir": "root folder for TensorBoard logs (default: the setting LOG_DIR)",
        "--dataDir": "folder prepended to data and weight paths (default: the setting DATA_DIR)",
        "--prevModelDir": "ignored; accepted for compatibility with HRNet's tools",
    }
    for name, text in folders.items():
        add(name, default="", metavar="DIR", help=text)
    add("--seed", metavar="N", help="random seed (default: the setting SEED)")
    add("--deterministic", action="store_true", help="use only deterministic cuDNN algorithms")
    gpus = parser.add_mutually_exclusive_group()
    gpus.add_argument(
        "--gpus", metavar="N", help="use the first N GPUs (default: the setting GPUS)"
    )
    gpus.add_argument(
        "--gpu-ids",
        nargs="+",
        action=ListBeforeSettings,
        metavar="ID",
        help="IDs of the GPUs to use, such as 0 2 (default: the setting GPUS)",
    )
    text = "folder for results and logs (default: subfolders of --modelDir and --logDir)"
    add("--work-dir", metavar="DIR", help=text)
    add(
        "--cfg-options",
        "--options",
        nargs="*",
        action=ListBeforeSettings,
        metavar="KEY=VALUE",
        help="the same as KEY VALUE, written as in mmpose, such as TRAIN.LR=1e-4",
    )
    add_settings(parser)
    return parser


def add_settings(parser: argparse.ArgumentParser) -> None:
    """Add the ``KEY VALUE`` arguments; they are parsed to ``args.opts``."""
    text = "settings that override the YAML, such as TRAIN.LR 1e-4"
    parser.add_argument("opts", nargs="*", metavar="KEY VALUE", help=text)


def add_launcher(parser: argparse.ArgumentParser) -> None:
    """Add the options of mmpose's launchers."""
    parser.add_argument(
        "--launcher",
        choices=list(distributed.LAUNCHERS),
        default="none",
        help="program that starts the processes: pytorch for torchrun, which is also detected "
        "without this option; slurm for srun; mpi for Open MPI's mpirun (default: none)",
    )
    # Old versions of torch.distributed.launch pass this option. It is ignored, because they also
    # set LOCAL_RANK.
    parser.add_argument("--local_rank", "--local-rank", help=argparse.SUPPRESS)


def protect_numbers(words: Sequence[str]) -> list[str]:
    """Put a space before negative numbers such as -1e-3, so that argparse accepts them."""
    return [f" {word}" if re.match(r"-\.?\d", word) else word for word in words]


def parse_experiment(
    parser: argparse.ArgumentParser, argv: Sequence[str] | None = None
) -> tuple[argparse.Namespace, CfgNode]:
    """Parse ``argv`` (default: the command line) and load the configuration.

    ``args.settings`` holds all settings from the command line, including those set by options.
    """
    args = parser.parse_intermixed_args(protect_numbers(sys.argv[1:] if argv is None else argv))
    args.opts = [*args.opts, *getattr(args, "late_opts", [])]
    take_experiment(parser, args)
    if args.work_dir and (args.modelDir or args.logDir):
        raise InputError("--work-dir: cannot be combined with --modelDir and --logDir")
    words = [word.strip() if re.match(r" -", word) else word for word in args.opts]
    words = [*_option_settings(args), *words]
    folders = (("OUTPUT_DIR", args.modelDir), ("LOG_DIR", args.logDir), ("DATA_DIR", args.dataDir))
    opts = [word for key, value in folders if value for word in (key, value)]
    args.settings = [*opts, *words]
    buffer_log()
    return args, load_config(args.cfg, args.settings)


def take_experiment(parser: argparse.ArgumentParser, args: argparse.Namespace) -> None:
    """Move an experiment at the start of ``args.opts`` to ``args.cfg``.

    Users may write ``FILE.yaml KEY VALUE ...`` without --cfg. If ``args.takes_checkpoint`` is True,
    they may also write ``FILE.yaml WEIGHTS KEY VALUE ...``; the weights become TEST.MODEL_FILE.
    """
    words = args.opts
    if words and Path(words[0]).suffix in (".yaml", ".yml", ".py"):
        if args.cfg and args.cfg != parser.get_default("cfg"):
            raise InputError(f"--cfg: the experiment is given twice, as {args.cfg} and {words[0]}")
        args.cfg = words.pop(0)
    if args.cfg is None:
        parser.error("the experiment is missing: --cfg FILE")
    if Path(args.cfg).suffix == ".py":
        raise InputError(
            f"{args.cfg} is a Python file; experiments are YAML files, such as "
            f"{_most_similar_experiment(args.cfg)}"
        )
    if getattr(args, "takes_checkpoint", False) and words and not _is_key(words[0]):
        args.opts = ["TEST.MODEL_FILE", *words]


def _most_similar_experiment(path: str) -> Path:
    """Return the experiment that shares the most words with ``path``, a config of mmpose."""

    def words(name: str | Path) -> set[str]:
        return set(re.split(r"[\W_]+", str(name)))

    files = sorted(p.relative_to(zoo.ROOT) for p in zoo.ROOT.glob("experiments/*/*/*.yaml"))
    # Of equally similar files, prefer HRNet and SimpleBaseline with heatmaps, and then the shortest
    # name.
    preferred = ("hrnet", "resnet")
    return min(
        files,
        key=lambda p: (-len(words(p) & words(path)), p.parent.name not in preferred, len(words(p))),
    )


def _option_settings(args: argparse.Namespace) -> list[str]:
    """Convert options, such as --seed, to ``KEY VALUE`` settings."""
    settings: list[tuple[str, str]] = []
    if args.seed is not None:
        settings.append(("SEED", args.seed))
    if args.deterministic:
        settings += [("CUDNN.DETERMINISTIC", "True"), ("CUDNN.BENCHMARK", "False")]
    gpu_ids = args.gpu_ids or []
    if args.gpus is not None:
        gpu_ids = list(map(str, range(int(args.gpus)))) if args.gpus.isdecimal() else [args.gpus]
    if not all(map(str.isdecimal, gpu_ids)):
        option = "--gpu-ids" if args.gpu_ids else "--gpus"
        raise InputError(f"{option}: must be a number, such as 1, not {' '.join(gpu_ids)}")
    if gpu_ids or args.gpus:
        settings.append(("GPUS", f"({','.join([*gpu_ids, ''])})"))
    if getattr(args, "resume_from", None):
        settings += [("TRAIN.CHECKPOINT", args.resume_from), ("AUTO_RESUME", "False")]
    if getattr(args, "no_validate", False):
        settings.append(("TRAIN.EVAL_INTERVAL", "0"))
    settings += map(_mmpose_setting, args.cfg_options or [])
    return [word for pair in settings for word in pair]


def _mmpose_setting(word: str) -> tuple[str, str]:
    """Convert ``KEY=VALUE`` to a setting; some of mmpose's keys are translated."""
    key, sign, value = word.partition("=")
    name = MMPOSE_SETTINGS.get(key, key)
    if not sign or not KEY_PATTERN.fullmatch(name):
        raise InputError(
            f"--cfg-options: must be KEY=VALUE with a key of this project, such as TRAIN.LR=1e-4, "
            f"or {', '.join(MMPOSE_SETTINGS)}; not {word}"
        )
    return name, "" if value == "None" else value


@contextlib.contextmanager
def open_experiment(
    cfg: CfgNode, args: argparse.Namespace, phase: str
) -> Iterator[tuple[Path, Path]]:
    """Lock the output folder and start the log there.

    Yields the output folder and the TensorBoard folder.
    """
    name = experiment_name(cfg, args.cfg)
    if args.work_dir:
        output_dir = Path(args.work_dir)
        log_dir = output_dir / "tf_logs"
    else:
        output_dir, log_dir = experiment_folders(cfg, args.cfg)
    make_folder(output_dir)
    with hold_lock(output_dir, phase):
        start_log(output_dir, name, phase)
        logger.info("=> %s: writing results to %s", name, output_dir)
        logging.getLogger("config").info(cfg)
        yield output_dir, log_dir


def model_file(cfg: CfgNode, output_dir: Path, experiment: str) -> Path:
    """Return the path of the weights to use.

    This is TEST.MODEL_FILE if it is set; a URL is downloaded first. Otherwise, it is the first of
    these files that exists: the best or the final weights of a training run in ``output_dir``, or
    the .pth file next to the YAML file ``experiment``, which the built-in networks have.
    """
    if cfg.TEST.MODEL_FILE:
        return zoo.local_file(cfg.TEST.MODEL_FILE)
    trained = [output_dir / name for name in ("model_best.pth", "final_state.pth")]
    for path in (*trained, Path(experiment).with_suffix(".pth")):
        if path.exists():
            return path
    raise InputError(
        f"TEST.MODEL_FILE is not set, and {output_dir} has no model_best.pth; train first, or "
        f"set TEST.MODEL_FILE{zoo.published_weights_hint(experiment)}"
    )


def set_cudnn(cfg: CfgNode) -> None:
    """Apply the CUDNN.* settings to PyTorch."""
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
    gather: Callable[[Poses], list[Poses]] = distributed.gather,
) -> tuple[Poses, dict[str, float], float]:
    """Evaluate on the test set and record the results.

    ``gather`` collects the poses of all processes. Returns all poses, the scores by name, and the
    score that selects the best network.
    """
    kinds = image_kinds(cfg)

    def observe(step, stats, batch, outputs):
        recorder.log_test_step(step, len(batches), stats)
        recorder.save_images("val", step, epoch, task.draw(batch, outputs, kinds))

    result = validate(task, batches, cfg.PRINT_FREQ, observe, gather)
    values, score = batches.dataset.source.evaluate(result.poses, str(output_dir))
    recorder.add_scores(epoch, result.stats, values)
    return result.poses, values, score


def image_kinds(cfg: CfgNode) -> list[str]:
    """Return the kinds of images to draw, as for ``Task.draw``.

    These are the kinds that the DEBUG settings enable, and ``gt_pred``, which goes to TensorBoard.
    """
    debug = cfg.DEBUG
    flags = {
        "gt": debug.SAVE_BATCH_IMAGES_GT,
        "pred": debug.SAVE_BATCH_IMAGES_PRED,
        "hm_gt": debug.SAVE_HEATMAPS_GT,
        "hm_pred": debug.SAVE_HEATMAPS_PRED,
    }
    return [*(kind for kind, flag in flags.items() if flag and debug.DEBUG), "gt_pred"]


def _log_to_file(message: str) -> None:
    """Log an error to the log file only, because the caller prints it on standard error."""
    record = logging.makeLogRecord({"msg": message, "levelno": logging.ERROR})
    for handler in logging.getLogger().handlers:
        if isinstance(handler, logging.FileHandler):
            handler.handle(record)


def run(main: Callable[[], None]) -> None:
    """Run a command. Bad input gives a one-line error message and exit code 1.

    After a signal, the exit code is 128 plus the number of the signal: 130 for Ctrl-C, 143 for
    SIGTERM, 138 for SIGUSR1.
    """
    try:
        try:
            main()
        except torch.OutOfMemoryError:
            raise InputError(
                "the memory of the GPU is full; reduce TRAIN.BATCH_SIZE_PER_GPU or "
                "TEST.BATCH_SIZE_PER_GPU, or end other programs that use the GPU"
            ) from None
        except RuntimeError as error:
            raise worker_error(error) or compiler_error(error) or error from None
    except Stopped as stop:
        _log_to_file(str(stop))
        print(stop, file=sys.stderr)
        sys.exit(stop.exit_code)
    except InputError as error:
        _log_to_file(f"error: {error}")
        sys.exit(f"error: {error}")
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        sys.exit(130)
    except BrokenPipeError:  # for example: tools/get_weights.py --list | head
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(1)
