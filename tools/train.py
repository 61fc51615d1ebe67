"""Train an experiment.

  python tools/train.py --cfg experiments/coco/hrnet/w32_256x192_adam_lr1e-3.yaml
  python tools/train.py --cfg FILE GPUS '(0,1)' TRAIN.BATCH_SIZE_PER_GPU 16
  torchrun --nproc_per_node=2 tools/train.py --cfg FILE

Results go to output/<dataset>/<network>/<experiment>/, TensorBoard logs to
log/<dataset>/<network>/<experiment>_<time>/. Without a GPU it runs on the CPU. With
AUTO_RESUME True, as in the experiments here, a run resumes if the output folder has a checkpoint.
"""

import argparse
import logging
import math
import warnings
from functools import partial
from pathlib import Path

import _init_paths  # noqa: F401
import torch
from cli import (
    add_launcher,
    experiment_parser,
    image_kinds,
    open_experiment,
    parse_experiment,
    run,
    score_test_set,
    set_cudnn,
)
from summary_network import summarize, table
from torch.utils.data import DataLoader
from yacs.config import CfgNode

from lib.config import is_bottom_up, load_config, skeleton_of
from lib.core import build_task
from lib.core.backends import network_backend
from lib.core.codecs import build_codec
from lib.core.optim import build_optimizer, build_schedule
from lib.core.recorder import Recorder
from lib.core.task import Task
from lib.core.train import train_epoch
from lib.dataset import build_dataset
from lib.dataset.loading import SceneLoader, TestLoader, test_loader, train_loader
from lib.dataset.photometric import photometric_of
from lib.models import build_model
from lib.models.checkpoint import load_checkpoint, load_pretrained
from lib.utils import checkpoint, distributed, zoo
from lib.utils.devices import (
    choose_devices,
    choose_workers,
    has_bfloat16,
    rank_seed,
    seed_everything,
    to_devices,
)
from lib.utils.errors import InputError
from lib.utils.logs import markdown_table

logger = logging.getLogger(__name__)


def main() -> None:
    with distributed.process_group():
        train()


def train() -> None:
    """Train the experiment given on the command line."""
    args, cfg = parse_experiment(train_parser())
    output_dir, log_dir = open_experiment(cfg, args, "train")
    seed_everything(cfg.SEED)
    set_cudnn(cfg)
    devices = choose_devices(cfg.GPUS)
    train_batches, test_batches = build_loaders(cfg, devices)
    network = build_network(cfg)
    describe_network(cfg, network, log_dir)
    codec = build_codec(cfg, skeleton_of(cfg))
    trained_network = distributed.data_parallel(to_devices(network, devices))
    backend = network_backend(cfg, trained_network, codec, devices[0])
    task = build_task(cfg, backend, use_bfloat16(cfg, devices))
    optimizer = build_optimizer(cfg, network)
    scale = lr_scale(args, train_batches.batch_size) if args.autoscale_lr else 1.0
    lr_at = build_schedule(cfg, len(train_batches), scale)
    photometric, seed = photometric_of(cfg), rank_seed(cfg.SEED)
    begin, best, is_validated = resume(cfg, output_dir, network, optimizer)
    recorder = Recorder(output_dir, log_dir)
    recorder.resume(begin)
    save = partial(save_state, output_dir, cfg, network, optimizer)

    def finish_epoch(epoch: int, best: float) -> float:
        """Validate if due, save, and return the best score so far."""
        recorder.save()
        if validation_due(cfg, epoch):
            save(epoch + 1, best, is_validated=False)  # keeps the epoch if validation fails
            score = score_epoch(cfg, task, test_batches, recorder, output_dir, epoch)
            if score >= best:
                best = score
                checkpoint.save(network.state_dict(), output_dir / "model_best.pth")
            recorder.save()
        save(epoch + 1, best, is_validated=True)
        return best

    if not is_validated:
        best = finish_epoch(begin - 1, best)
    for epoch in range(begin, cfg.TRAIN.END_EPOCH):
        # Seeds dropout, so that a resumed run draws the same numbers.
        seed_everything(cfg.SEED + 1 + epoch)
        stats = train_epoch(
            task,
            train_batches,
            optimizer,
            lr_at,
            epoch,
            print_freq=cfg.PRINT_FREQ,
            augment=lambda images, step, epoch=epoch: photometric(images, (seed, epoch, step)),
            observe=partial(record_step, cfg, task, recorder, lr_at, len(train_batches), epoch),
        )
        distributed.average(network.buffers())  # batch norm statistics
        recorder.add_epoch(epoch, stats, lr_at(epoch, 0))
        best = finish_epoch(epoch, best)

    checkpoint.save(network.state_dict(), output_dir / "final_state.pth")
    recorder.close()
    report_best(best, output_dir / "model_best.pth")


def report_best(best: float, weights: Path) -> None:
    """Log the best score and its weights."""
    if best > -math.inf:
        logger.info("=> best score %.4f: %s", best, weights)
    elif weights.exists():
        logger.warning(
            "=> %s is from an earlier run; this run was not validated and its weights are in "
            "final_state.pth",
            weights,
        )


def train_parser() -> argparse.ArgumentParser:
    parser = experiment_parser(__doc__)
    add_launcher(parser)
    parser.add_argument("--resume-from", metavar="FILE", help="resume from this checkpoint")
    parser.add_argument("--no-validate", action="store_true", help="never validate")
    parser.add_argument(
        "--autoscale-lr",
        action="store_true",
        help="scale TRAIN.LR by the ratio of the total batch size to the YAML file's",
    )
    return parser


def build_loaders(
    cfg: CfgNode, devices: list[torch.device]
) -> tuple[DataLoader, TestLoader | SceneLoader | None]:
    """Build the training loader and, if TRAIN.EVAL_INTERVAL is not 0, the test loader."""
    workers = choose_workers(cfg.WORKERS)
    pin_memory = cfg.PIN_MEMORY and devices[0].type == "cuda"
    train_set = build_dataset(cfg, cfg.DATASET.TRAIN_SET, is_train=True)
    test_batches = None
    if cfg.TRAIN.EVAL_INTERVAL:
        test_set = build_dataset(cfg, cfg.DATASET.TEST_SET, is_train=False)
        batch_size = cfg.TEST.BATCH_SIZE_PER_GPU * len(devices)
        test_batches = test_loader(test_set, batch_size, workers, pin_memory)
    batch_size = cfg.TRAIN.BATCH_SIZE_PER_GPU * len(devices)
    train_batches = train_loader(
        train_set, batch_size, workers, cfg.TRAIN.SHUFFLE, pin_memory, len(devices)
    )
    return train_batches, test_batches


def use_bfloat16(cfg: CfgNode, devices: list[torch.device]) -> bool:
    """Return True if TRAIN.AMP is set and the device supports bfloat16; log the choice."""
    if not cfg.TRAIN.AMP:
        return False
    reason = ""
    if not has_bfloat16(devices[0]):
        reason = "this device has no bfloat16"
    elif len(devices) > 1:  # DataParallel's threads would autocast to float16
        reason = "DataParallel does not support bfloat16"
    logger.info("=> training in %s", f"float32: {reason}" if reason else "bfloat16")
    return not reason


def lr_scale(args: argparse.Namespace, batch_size: int) -> float:
    """Return the ratio of the total batch size to the YAML's.

    Linear scaling of the learning rate: Goyal et al., Accurate, Large Minibatch SGD, 2017.
    """
    pairs = zip(args.settings[::2], args.settings[1::2], strict=True)
    kept = [pair for pair in pairs if pair[0] not in ("GPUS", "TRAIN.BATCH_SIZE_PER_GPU")]
    own = load_config(args.cfg, [word for pair in kept for word in pair])
    batch_size *= distributed.world_size()
    own_size = own.TRAIN.BATCH_SIZE_PER_GPU * max(len(own.GPUS), 1)
    logger.info(
        "=> TRAIN.LR is multiplied by %g: batches of %d instead of %d",
        batch_size / own_size,
        batch_size,
        own_size,
    )
    return batch_size / own_size


def record_step(cfg, task, recorder, lr_at, steps, epoch, step, stats, batch, outputs) -> None:
    """Record the statistics since the last call, and images of the batch."""
    recorder.log_train_step(epoch, step, steps, stats, lr_at(epoch, step))
    drawn = task.draw(batch, outputs, image_kinds(cfg))
    recorder.save_images("train", step, epoch * steps + step, drawn)


def validation_due(cfg: CfgNode, epoch: int) -> bool:
    """Return True if a validation follows ``epoch``: every TRAIN.EVAL_INTERVAL and the last."""
    if not cfg.TRAIN.EVAL_INTERVAL:
        return False
    is_last = epoch + 1 == cfg.TRAIN.END_EPOCH
    return is_last or (epoch + 1) % cfg.TRAIN.EVAL_INTERVAL == 0


def score_epoch(
    cfg: CfgNode,
    task: Task,
    batches: TestLoader | SceneLoader,
    recorder: Recorder,
    output_dir: Path,
    epoch: int,
) -> float:
    """Validate, log the scores as a table, and return the score that selects the best network."""
    _, values, score = score_test_set(cfg, task, batches, recorder, output_dir, epoch)
    table = markdown_table(values, values.values(), cfg.MODEL.NAME)
    logger.info("Epoch %d:\n%s", epoch, table)
    return score


def build_network(cfg: CfgNode) -> torch.nn.Module:
    """Build the network and load MODEL.PRETRAINED."""
    network = build_model(cfg)
    if cfg.MODEL.PRETRAINED:
        layers = list(cfg.MODEL.EXTRA.get("PRETRAINED_LAYERS", ["*"]))  # name prefixes; * means all
        report = load_pretrained(network, zoo.local_file(cfg.MODEL.PRETRAINED), layers)
        logger.info("=> %s", report)
    return network


def describe_network(cfg: CfgNode, network: torch.nn.Module, log_dir: Path) -> None:
    """Log the network's cost, with a table of its modules in the log file, and write its graph to
    TensorBoard if TRAIN.LOG_GRAPH is set.

    Raises:
        InputError: TRAIN.LOG_GRAPH needs a package that is not installed.
    """
    if not distributed.is_main():
        return
    width, height = cfg.MODEL.IMAGE_SIZE
    with torch.device("meta"):
        costs = summarize(build_model(cfg), height, width, is_bottom_up(cfg))
    millions, billions = costs["parameters"] / 1e6, costs["macs"] / 1e9
    name = cfg.MODEL.NAME
    logger.info("=> %s: %.2f M parameters, %.2f GMACs per image", name, millions, billions)
    logging.getLogger("config").info(table({"network": name, **costs}, by_layer=False))
    if cfg.TRAIN.LOG_GRAPH:
        try:
            from torch.utils.tensorboard import SummaryWriter
        except ImportError:
            raise InputError("TRAIN.LOG_GRAPH: needs the package tensorboard") from None
        image = torch.zeros(1, 3, height, width)
        with SummaryWriter(str(log_dir)) as writer, warnings.catch_warnings():
            warnings.simplefilter("ignore")  # add_graph uses the deprecated torch.jit.trace
            writer.add_graph(network.eval(), image, use_strict_trace=False)


def resume(
    cfg: CfgNode, output_dir: Path, network: torch.nn.Module, optimizer: torch.optim.Optimizer
) -> tuple[int, float, bool]:
    """Load the checkpoint that TRAIN.* and AUTO_RESUME select, if any.

    Returns the first epoch, the best score so far, and False if the previous epoch still has to be
    validated.
    """
    path = output_dir / "checkpoint.pth"
    if not (cfg.AUTO_RESUME and path.exists()):
        if not (cfg.TRAIN.RESUME or cfg.TRAIN.CHECKPOINT):
            return cfg.TRAIN.BEGIN_EPOCH, -math.inf, True
        path = Path(cfg.TRAIN.CHECKPOINT or path)
    state = checkpoint.read(path)
    try:
        load_checkpoint(network, state["state_dict"])
        load_optimizer(optimizer, state["optimizer"])
    except InputError as error:
        raise InputError(f"{path}: {error}") from None
    best = state.get("best_perf", state.get("perf", -math.inf))
    if not (output_dir / "model_best.pth").exists():
        best = -math.inf  # there is no file that a worse network could replace
    logger.info("=> %s: resuming at epoch %d, best score so far %.4f", path, state["epoch"], best)
    if state["epoch"] >= cfg.TRAIN.END_EPOCH:
        logger.info(
            "=> all %d epochs are done; increase TRAIN.END_EPOCH to train longer",
            cfg.TRAIN.END_EPOCH,
        )
    is_validated = state.get("validated", True)
    if not is_validated and validation_due(cfg, state["epoch"] - 1):
        logger.info(
            "=> validating epoch %d first: its validation was interrupted", state["epoch"] - 1
        )
    return state["epoch"], best, is_validated


def load_optimizer(optimizer: torch.optim.Optimizer, state: dict) -> None:
    """Load an optimizer's state, but keep the experiment's settings such as learning rates.

    Raises:
        InputError: the state belongs to another optimizer.
    """
    own = [{k: v for k, v in g.items() if k != "params"} for g in optimizer.param_groups]
    # Only Adam has betas and only SGD has momentum; load_state_dict does not check either.
    kinds = {"betas", "momentum"}
    try:
        is_alike = own[0].keys() & kinds == state["param_groups"][0].keys() & kinds
        if is_alike:
            optimizer.load_state_dict(state)
    except (ValueError, KeyError, TypeError, IndexError, AttributeError) as error:
        raise InputError(f"the optimizer state does not fit: {error}") from None
    if not is_alike:
        raise InputError("was written with another optimizer than TRAIN.OPTIMIZER")
    for group, settings in zip(optimizer.param_groups, own, strict=True):
        group.update(settings)


def save_state(
    output_dir: Path,
    cfg: CfgNode,
    network: torch.nn.Module,
    optimizer: torch.optim.Optimizer,
    epoch: int,
    best: float,
    is_validated: bool,
) -> None:
    """Write checkpoint.pth; most keys are those of the HRNet repository.

    ``is_validated`` is False if the last epoch still has to be validated.
    """
    state = {
        "epoch": epoch,
        "model": cfg.MODEL.NAME,
        "state_dict": network.state_dict(),
        "best_perf": best,
        "optimizer": optimizer.state_dict(),
        "validated": is_validated,
    }
    checkpoint.save(state, output_dir / "checkpoint.pth")


if __name__ == "__main__":
    run(main)
