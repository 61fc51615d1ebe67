"""The record of a run: TensorBoard, pictures of batches, the history and its curves."""

import csv
import io
import logging
import re
from pathlib import Path

import numpy as np

from lib.core.train import EpochStats
from lib.utils.drawing import write_curves, write_image
from lib.utils.errors import InputError
from lib.utils.events import EventWriter
from lib.utils.files import write_atomically

logger = logging.getLogger(__name__)

KINDS = ("gt", "pred", "hm_gt", "hm_pred")  # of pictures of a batch (DEBUG.SAVE_*)


class Recorder:
    """Records a run.

    Args:
        output_dir: for pictures, ``history.csv`` and ``curves.png``.
        log_dir: for TensorBoard.
    """

    def __init__(self, output_dir: Path, log_dir: Path) -> None:
        self._output_dir = output_dir
        self._writer = EventWriter(log_dir)
        self._history: list[dict[str, float]] = []

    def resume(self, epoch: int) -> None:
        """Take over the history of the epochs before ``epoch``."""
        path = self._output_dir / "history.csv"
        if epoch and path.exists():
            try:
                table = csv.DictReader(path.read_text(encoding="utf-8").splitlines())
                rows = [{k: float(v) for k, v in row.items() if v} for row in table]
            except (OSError, ValueError, TypeError) as error:
                raise InputError(f"{path}: not the history of a run: {error}") from None
            self._history = [row for row in rows if row.get("epoch", epoch) < epoch]

    def train_step(self, epoch: int, step: int, steps: int, stats: EpochStats, rate: float) -> None:
        """A line of the log, as HRNet writes it, and points on TensorBoard's curves."""
        logger.info(
            "Epoch: [%d][%d/%d]\tTime %.3fs\tSpeed %.1f samples/s\tData %.3fs\tLoss %.5f\t"
            "Accuracy %.3f",
            epoch,
            step,
            steps,
            stats.seconds,
            stats.speed,
            stats.data_seconds,
            stats.loss,
            stats.accuracy,
        )
        at = epoch * steps + step
        self._writer.add_scalar("train_loss", stats.loss, at)
        self._writer.add_scalar("train_acc", stats.accuracy, at)
        self._writer.add_scalar("learning_rate", rate, at)
        self._writer.add_scalar("samples_per_second", stats.speed, at)
        self._writer.add_scalar("data_wait_share", stats.data_seconds / stats.seconds, at)

    def test_step(self, step: int, steps: int, stats: EpochStats) -> None:
        """A line of the log."""
        measured = f"\tLoss {stats.loss:.5f}\tAccuracy {stats.accuracy:.3f}"
        logger.info(
            "Test: [%d/%d]\tTime %.3fs\tSpeed %.1f samples/s\tData %.3fs%s",
            step,
            steps,
            stats.seconds,
            stats.speed,
            stats.data_seconds,
            measured if stats.has_loss else "",
        )

    def epoch(self, epoch: int, trained: EpochStats, rate: float) -> None:
        """The epoch's means: a row of the history."""
        self._history.append(
            {
                "epoch": epoch,
                "lr": rate,
                "train_loss": trained.loss,
                "train_acc": trained.accuracy,
                "seconds": trained.seconds,
                "data_seconds": trained.data_seconds,
            }
        )

    def scores(self, epoch: int, stats: EpochStats, values: dict[str, float]) -> None:
        """A validation's scores: in the epoch's row, and on TensorBoard as numbers and as a
        table."""
        if stats.has_loss:
            self._writer.add_scalar("valid_loss", stats.loss, epoch)
            self._writer.add_scalar("valid_acc", stats.accuracy, epoch)
        for name, value in values.items():
            self._writer.add_scalar(f"valid/{_tag(name)}", value, epoch)
        head = "|" + "|".join(values) + "|\n|" + "---|" * len(values)
        row = "\n|" + "|".join(f"{value:.3f}" for value in values.values()) + "|"
        self._writer.add_text("valid/table", head + row, epoch)
        if self._history and self._history[-1]["epoch"] == epoch:
            self._history[-1] |= {"valid_loss": stats.loss, "valid_acc": stats.accuracy, **values}

    def save(self) -> None:
        """Write ``history.csv`` and ``curves.png`` anew."""
        if not self._history:
            return
        names = list(dict.fromkeys(name for row in self._history for name in row))
        text = io.StringIO()
        table = csv.DictWriter(text, names)
        table.writeheader()
        table.writerows(self._history)
        write_atomically(self._output_dir / "history.csv", text.getvalue().encode())
        write_curves(self._output_dir / "curves.png", self._history)

    def close(self) -> None:
        """End the TensorBoard file."""
        self._writer.close()

    def pictures(self, phase: str, step: int, at: int, drawn: dict[str, np.ndarray]) -> None:
        """Write a batch as its task drew it: ``<phase>_<step>_{gt,pred,hm_gt,hm_pred}.jpg``, as
        HRNet names them, and ``gt_pred`` to TensorBoard at step ``at``."""
        for kind in KINDS:
            if kind in drawn:
                write_image(self._output_dir / f"{phase}_{step}_{kind}.jpg", drawn[kind])
        if "gt_pred" in drawn:
            self._writer.add_image(f"{phase}_gt_pred", drawn["gt_pred"], at)


def _tag(name: str) -> str:
    """A name of a score in the letters that TensorBoard allows: ``AP (M)`` is ``AP_M``."""
    return re.sub(r"[^\w.]+", "_", name).strip("_")
