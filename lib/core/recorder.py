"""Records of a run: log lines, TensorBoard, images of batches, training history and curves."""

import csv
import io
import logging
import re
from pathlib import Path

import numpy as np

from lib.core.train import Stats
from lib.utils.drawing import write_curves, write_image
from lib.utils.errors import InputError
from lib.utils.events import EventWriter
from lib.utils.files import write_atomically

logger = logging.getLogger(__name__)

KINDS = ("gt", "pred", "hm_gt", "hm_pred")  # kinds of batch images (DEBUG.SAVE_*)


class Recorder:
    """Recorder of a training or test run.

    Args:
        output_dir: folder for images, ``history.csv`` and ``curves.png``.
        log_dir: folder for TensorBoard.
    """

    def __init__(self, output_dir: Path, log_dir: Path) -> None:
        self._output_dir = output_dir
        self._writer = EventWriter(log_dir)
        self._history: list[dict[str, float]] = []

    def resume(self, epoch: int) -> None:
        """Load the history of the epochs before ``epoch``."""
        path = self._output_dir / "history.csv"
        if epoch and path.exists():
            try:
                table = csv.DictReader(path.read_text(encoding="utf-8").splitlines())
                rows = [{k: float(v) for k, v in row.items() if v} for row in table]
            except (OSError, ValueError, TypeError) as error:
                raise InputError(f"{path}: not a training history: {error}") from None
            rows = [row for row in rows if row.get("epoch", epoch) < epoch]
            self._history = [{**row, "epoch": int(row["epoch"])} for row in rows]

    def log_train_step(self, epoch: int, step: int, steps: int, stats: Stats, lr: float) -> None:
        """Log the statistics of the training steps since the last call.

        They go to TensorBoard and, in a format like HRNet's, to the log file.
        """
        logger.info("Epoch: [%d][%d/%d]\t%s", epoch, step, steps, _step_text(stats))
        global_step = epoch * steps + step
        self._writer.add_scalar("train_loss", stats.loss, global_step)
        self._writer.add_scalar("train_acc", stats.accuracy, global_step)
        self._writer.add_scalar("learning_rate", lr, global_step)
        self._writer.add_scalar("samples_per_second", stats.speed, global_step)
        self._writer.add_scalar("data_wait_share", stats.data_seconds / stats.seconds, global_step)

    def log_test_step(self, step: int, steps: int, stats: Stats) -> None:
        """Log the statistics of the steps of a validation or test since the last call."""
        logger.info("Test: [%d/%d]\t%s", step, steps, _step_text(stats))

    def add_epoch(self, epoch: int, stats: Stats, lr: float) -> None:
        """Add a row with the statistics of a training epoch to the history."""
        self._history.append(
            {
                "epoch": epoch,
                "lr": lr,
                "train_loss": stats.loss,
                "train_acc": stats.accuracy,
                "seconds": stats.seconds,
                "data_seconds": stats.data_seconds,
            }
        )

    def add_scores(self, epoch: int, stats: Stats, values: dict[str, float]) -> None:
        """Add the scores of a validation to the epoch's row of the history and to TensorBoard."""
        losses = {"valid_loss": stats.loss, "valid_acc": stats.accuracy} if stats.has_loss else {}
        for name, value in losses.items():
            self._writer.add_scalar(name, value, epoch)
        for name, value in values.items():
            self._writer.add_scalar(f"valid/{_tag(name)}", value, epoch)
        head = "|" + "|".join(values) + "|\n|" + "---|" * len(values)
        row = "\n|" + "|".join(f"{value:.3f}" for value in values.values()) + "|"
        self._writer.add_text("valid/table", head + row, epoch)
        if self._history and self._history[-1]["epoch"] == epoch:
            self._history[-1] |= losses | values

    def save(self) -> None:
        """Write ``history.csv`` and ``curves.png``, replacing the previous ones."""
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
        """Close the TensorBoard file."""
        self._writer.close()

    def save_images(
        self, phase: str, step: int, global_step: int, images: dict[str, np.ndarray]
    ) -> None:
        """Write the images that ``Task.draw`` returned.

        Files are named as in the HRNet repository: ``<phase>_<step>_{gt,pred,hm_gt,hm_pred}.jpg``.
        The image ``gt_pred`` is only written to TensorBoard, at ``global_step``.
        """
        for kind in KINDS:
            if kind in images:
                write_image(self._output_dir / f"{phase}_{step}_{kind}.jpg", images[kind])
        if "gt_pred" in images:
            self._writer.add_image(f"{phase}_gt_pred", images["gt_pred"], global_step)


def _step_text(stats: Stats) -> str:
    text = f"Time {stats.seconds:.3f}s\tSpeed {stats.speed:.1f} samples/s"
    text += f"\tData {stats.data_seconds:.3f}s"
    if stats.has_loss:
        text += f"\tLoss {stats.loss:.5f}\tAccuracy {stats.accuracy:.3f}"
    return text


def _tag(name: str) -> str:
    """Replace characters that TensorBoard tags must not contain: ``AP (M)`` becomes ``AP_M``."""
    return re.sub(r"[^\w.]+", "_", name).strip("_")
