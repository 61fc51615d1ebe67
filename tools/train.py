"""Train the network of an experiment.

  python tools/train.py --cfg experiments/coco/hrnet/w32_256x192_adam_lr1e-3.yaml
  python tools/train.py --cfg FILE GPUS '(0,1)' TRAIN.BATCH_SIZE_PER_GPU 16
  torchrun --nproc_per_node=2 tools/train.py --cfg FILE

Writes results to output/<dataset>/<network>/<experiment>/ and TensorBoard logs to
log/<dataset>/<network>/<experiment>_<time>/. Without a GPU, it trains on the CPU. If AUTO_RESUME is
True, as in most experiments here, it resumes from the checkpoint in the output folder, if any.
"""

import argparse
import contextlib
import logging
import math
import time
from dataclasses import replace
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
from summary_network import log_network
from torch.utils.data import DataLoader
from yacs.config import CfgNode

from lib.config import load_config, skeleton_of
from lib.core import build_task
from lib.core.averaging import AveragedWeights
from lib.core.backends import network_backend
from lib.core.codecs import build_codec
from lib.core.optim import build_optimizer, build_schedule
from lib.core.recorder import Recorder
from lib.core.state import Position, TrainingState
from lib.core.train import Meter, Updater, train_epoch
from lib.dataset import build_dataset
from lib.dataset.loading import SceneLoader, TestLoader, test_loader, train_loader
from lib.dataset.photometric import photometric_of
from lib.models import build_model
from lib.models.checkpoint import load_pretrained
from lib.utils import distributed, signals, zoo
from lib.utils.compiling import compile_in_place
from lib.utils.devices import (
    autocast_type,
    choose_devices,
    choose_workers,
    rank_seed,
    seed_everything,
    step_seed,
    to_devices,
)
from lib.utils.errors import InputError
from lib.utils.files import write_atomically
from lib.utils.logs import markdown_table
from lib.utils.signals import Stopped

logger = logging.getLogger(__name__)

AGREEMENT_FREQ = 10  # in weight updates: how often the processes agree on saving and stopping


def main() -> None:
    args, cfg = parse_experiment(train_parser())
    with (
        distributed.process_group(args.launcher),
        open_experiment(cfg, args, "train") as (output_dir, log_dir),
    ):
        Training(cfg, args, output_dir, log_dir).run()


class Training:
    """A training run.

    Raises:
        InputError: a setting or file cannot be used.
    """

    def __init__(
        self, cfg: CfgNode, args: argparse.Namespace, output_dir: Path, log_dir: Path
    ) -> None:
        self.cfg = cfg
        self.output_dir = output_dir
        seed_everything(cfg.SEED)
        set_cudnn(cfg)
        devices = choose_devices(cfg.GPUS)
        self.train_batches, self.test_batches = build_loaders(cfg, devices)
        network = build_network(cfg)
        log_network(cfg, network, log_dir)
        codec = build_codec(cfg, skeleton_of(cfg))
        if cfg.TRAIN.SYNC_BN:
            network = distributed.sync_batch_norms(network, devices[0])
        moved_network = to_devices(network, devices)
        if cfg.TRAIN.COMPILE:
            compile_in_place(moved_network, devices, "TRAIN.COMPILE")
        trained_network = distributed.data_parallel(moved_network)
        backend = network_backend(cfg, trained_network, codec, devices[0])
        autocast = autocast_type(devices) if cfg.TRAIN.AMP else None
        scaler = torch.amp.GradScaler(devices[0].type, enabled=autocast == torch.float16)
        self.task = build_task(cfg, backend, autocast)
        self.network = network
        self.optimizer = build_optimizer(cfg, network)
        self.average = AveragedWeights(network, cfg.TRAIN.EMA)
        self.update = Updater(
            self.optimizer,
            self.train_batches.dataset.image_files,
            network.buffers(),
            self.average,
            cfg.TRAIN.ACCUMULATE,
            getattr(trained_network, "no_sync", contextlib.nullcontext),
            scaler,
        )
        batch_size = self.train_batches.batch_size
        scale = lr_scale(args, cfg, batch_size) if args.autoscale_lr else 1.0
        self.lr_at = build_schedule(cfg, len(self.train_batches), scale)
        self.photometric = photometric_of(cfg)
        self.state = TrainingState(
            cfg,
            output_dir,
            network,
            self.optimizer,
            self.average,
            batch_size * distributed.world_size(),
            len(self.train_batches.dataset),
            scaler,
        )
        self.recorder = Recorder(output_dir, log_dir)
        self.saved_at = time.monotonic()

    def run(self) -> None:
        """Train to the end, from the start or the checkpoint that the settings select."""
        position = self.resume()
        here = {"epoch": position.epoch, "step": position.step, "best score": position.best}
        steps = len(self.train_batches)
        distributed.check_equal({"checkpoint": here, "steps of an epoch": steps})
        settings = self.output_dir / "config_train.yaml"
        # After the last epoch, the file keeps the settings that the weights were trained with.
        if position.epoch < self.cfg.TRAIN.END_EPOCH or not settings.exists():
            write_atomically(settings, self.cfg.dump().encode())
        with signals.deferred():
            position = self.train(position)
        self.state.save_weights("final_state.pth")
        self.recorder.close()
        report_best(position.best, self.output_dir / "model_best.pth")

    def train(self, position: Position) -> Position:
        """Train the remaining epochs."""
        self.recorder.resume(position.epoch)
        if not position.is_validated:
            position = self.finish_epoch(position.epoch - 1, position.best)
        while position.epoch < self.cfg.TRAIN.END_EPOCH:
            self.train_epoch(position)
            position = self.finish_epoch(position.epoch, position.best)
        return position

    @property
    def hint(self) -> str:
        """Advice on how to resume, for messages."""
        if self.cfg.AUTO_RESUME:
            return "run the same command again to resume"
        return "resume with AUTO_RESUME True"

    def resume(self) -> Position:
        """Load the checkpoint that the settings select, if any; return where to start."""
        train, path = self.cfg.TRAIN, self.output_dir / "checkpoint.pth"
        if not (self.cfg.AUTO_RESUME and path.exists()):
            if not (train.RESUME or train.CHECKPOINT):
                return Position(train.BEGIN_EPOCH)
            path = Path(train.CHECKPOINT or path)
        position = self.state.load(path)
        self.update.guard.keep_buffers()
        if position.epoch >= train.END_EPOCH:
            logger.info(
                "=> all %d epochs are done; increase TRAIN.END_EPOCH to train longer",
                train.END_EPOCH,
            )
        last = position.epoch - 1
        position.is_validated |= not validation_due(self.cfg, last)
        if not position.is_validated:
            logger.info("=> validating epoch %d first: its validation was interrupted", last)
        return position

    def train_epoch(self, position: Position) -> None:
        """Train the remaining steps of an epoch."""
        epoch, seed = position.epoch, rank_seed(self.cfg.SEED)
        stats = train_epoch(
            self.task,
            self.train_batches,
            self.optimizer,
            self.lr_at,
            epoch,
            print_freq=self.cfg.PRINT_FREQ,
            augment=lambda images, step: self.photometric(images, (seed, epoch, step)),
            update=self.update,
            # Seed dropout for each step, so that a resumed run draws the same random numbers.
            before_step=lambda step: seed_everything(step_seed(self.cfg.SEED, epoch, step)),
            after_step=lambda step, meter: self.save_if_due(position, step, meter),
            observe=lambda *seen: self.record_step(epoch, *seen),
            first_step=position.step,
            meter_state=position.meter,
        )
        distributed.average(self.network.buffers())  # batch norm statistics
        distributed.average(self.average.weights.values())
        self.update.guard.keep_buffers()
        self.recorder.add_epoch(epoch, stats, self.lr_at(epoch, 0))

    def save_if_due(self, position: Position, step: int, meter: Meter) -> None:
        """Save if a signal has arrived or TRAIN.CHECKPOINT_EVERY minutes have passed."""
        if not self.update.is_due(step, len(self.train_batches)):
            return  # a checkpoint would not include the accumulated gradients
        minutes = self.cfg.TRAIN.CHECKPOINT_EVERY
        is_due = bool(minutes) and time.monotonic() - self.saved_at > 60 * minutes
        is_stopping = signals.received() is not None
        if distributed.world_size() > 1:
            # All processes must agree. This takes time, so they do it only every few updates.
            if (step + 1) // self.cfg.TRAIN.ACCUMULATE % AGREEMENT_FREQ:
                return
            flags = distributed.gather((is_due, is_stopping))
            is_due, is_stopping = map(any, zip(*flags, strict=True))
        if not (is_due or is_stopping):
            return
        guard = self.update.guard
        guard.check(f"epoch {position.epoch}, step {step}")
        if not guard.is_failing:  # if steps were skipped, the weights may be damaged
            here = replace(position, step=step + 1, meter=meter.state(), is_validated=True)
            self.state.save(here)
        self.saved_at = time.monotonic()
        if is_stopping:
            self.stop(f"after epoch {position.epoch}, step {step}")

    def stop(self, where: str) -> None:
        """Raise Stopped with the same signal in all processes.

        The signal may have reached only one of them.
        """
        self.recorder.close()
        # Wait for all, because launchers kill the other processes when one ends.
        received = [number for number in distributed.gather(signals.received()) if number]
        raise Stopped(received[0], f" {where}; {self.hint}")

    def finish_epoch(self, epoch: int, best: float) -> Position:
        """Validate if due, and save. Returns the position after ``epoch``."""
        self.recorder.save()
        self.restore_settings()
        next_position = Position(epoch + 1, best=best)
        if self.update.guard.is_failing:
            text = "its last steps were skipped, because the loss or the gradients were NaN or Inf"
            if epoch + 1 == self.cfg.TRAIN.END_EPOCH:
                raise InputError(f"epoch {epoch}: {text}; try a lower TRAIN.LR or a warm-up")
            logger.warning("=> epoch %d is not saved: %s", epoch, text)
            return next_position
        if validation_due(self.cfg, epoch):
            # Saved first, so that the epoch is not lost if its validation fails.
            self.state.save(replace(next_position, is_validated=False))
            score = self.score(epoch)
            if score >= next_position.best:
                next_position.best = score
                self.state.save_weights("model_best.pth")
            self.recorder.save()
        self.state.save(next_position)
        self.saved_at = time.monotonic()
        if distributed.any_of(signals.received() is not None):
            self.stop(f"after epoch {epoch}")
        return next_position

    def restore_settings(self) -> None:
        """Write config_train.yaml again if the output folder was removed."""
        path = self.output_dir / "config_train.yaml"
        if distributed.is_main() and not path.exists():
            logger.warning("=> %s was removed during the run; it is written again", path.parent)
            write_atomically(path, self.cfg.dump().encode())

    def score(self, epoch: int) -> float:
        """Validate, log a table of scores, and return the score that selects the best weights."""
        with self.average.applied():
            _, values, score = score_test_set(
                self.cfg, self.task, self.test_batches, self.recorder, self.output_dir, epoch
            )
        table = markdown_table(values, values.values(), self.cfg.MODEL.NAME)
        logger.info("Epoch %d:\n%s", epoch, table)
        return distributed.gather(score)[0]  # of rank 0, because processors may round differently

    def record_step(self, epoch: int, step: int, stats, batch, outputs) -> None:
        """Record the statistics since the last call, and draw images of the batch."""
        steps = len(self.train_batches)
        self.recorder.log_train_step(epoch, step, steps, stats, self.lr_at(epoch, step))
        drawn = self.task.draw(batch, outputs, image_kinds(self.cfg))
        self.recorder.save_images("train", step, epoch * steps + step, drawn)


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
    text = (
        "checkpoint to resume from (default: the one in the output folder, if AUTO_RESUME is True)"
    )
    parser.add_argument("--resume-from", metavar="FILE", help=text)
    parser.add_argument("--no-validate", action="store_true", help="train without validation")
    parser.add_argument(
        "--autoscale-lr",
        action="store_true",
        help="multiply TRAIN.LR by the ratio of the total batch size of this run to that of a run "
        "with the YAML file's GPUS, BATCH_SIZE_PER_GPU and ACCUMULATE",
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
        test_batches = test_loader(test_set, batch_size, workers, pin_memory, cfg.TEST.MAX_BROKEN)
    batch_size = cfg.TRAIN.BATCH_SIZE_PER_GPU * len(devices)
    train_batches = train_loader(
        train_set,
        batch_size,
        workers,
        cfg.TRAIN.SHUFFLE,
        pin_memory,
        len(devices),
        cfg.DATASET.MAX_BROKEN,
    )
    return train_batches, test_batches


def lr_scale(args: argparse.Namespace, cfg: CfgNode, batch_size: int) -> float:
    """Return the ratio of this run's total batch size to the YAML file's.

    Linear scaling of the learning rate: Goyal et al., Accurate, Large Minibatch SGD, 2017.
    """
    pairs = zip(args.settings[::2], args.settings[1::2], strict=True)
    sizes = ("GPUS", "TRAIN.BATCH_SIZE_PER_GPU", "TRAIN.ACCUMULATE")
    kept = [pair for pair in pairs if pair[0] not in sizes]
    yaml_cfg = load_config(args.cfg, [word for pair in kept for word in pair])
    batch_size *= distributed.world_size() * cfg.TRAIN.ACCUMULATE
    yaml_size = yaml_cfg.TRAIN.BATCH_SIZE_PER_GPU * max(len(yaml_cfg.GPUS), 1)
    yaml_size *= yaml_cfg.TRAIN.ACCUMULATE
    logger.info(
        "=> TRAIN.LR is multiplied by %g: the total batch size is %d instead of %d",
        batch_size / yaml_size,
        batch_size,
        yaml_size,
    )
    return batch_size / yaml_size


def validation_due(cfg: CfgNode, epoch: int) -> bool:
    """Return True after every TRAIN.EVAL_INTERVAL epochs, and after the last epoch."""
    if not cfg.TRAIN.EVAL_INTERVAL:
        return False
    is_last = epoch + 1 == cfg.TRAIN.END_EPOCH
    return is_last or (epoch + 1) % cfg.TRAIN.EVAL_INTERVAL == 0


def build_network(cfg: CfgNode) -> torch.nn.Module:
    """Build the network and load MODEL.PRETRAINED."""
    network = build_model(cfg)
    if cfg.MODEL.PRETRAINED:
        layers = list(cfg.MODEL.EXTRA.get("PRETRAINED_LAYERS", ["*"]))  # name prefixes; * means all
        report = load_pretrained(network, zoo.local_file(cfg.MODEL.PRETRAINED), layers)
        logger.info("=> %s", report)
    return network


if __name__ == "__main__":
    run(main)
