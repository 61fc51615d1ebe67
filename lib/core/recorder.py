"""What a run leaves to look at: TensorBoard, pictures of batches, the history and its curves."""

import csv
import io
import logging
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from torch import Tensor

from lib.core.codecs.codec import Codec, Outputs
from lib.core.train import EpochStats
from lib.dataset.loading import Batch
from lib.keypoints.skeletons import Skeleton
from lib.utils.drawing import draw_person, heatmap_rows, sheet, write_curves, write_picture
from lib.utils.errors import InputError
from lib.utils.events import EventWriter
from lib.utils.files import write_atomically

logger = logging.getLogger(__name__)

_COLUMNS = 8
_MOST_CROPS = 32  # in one picture


class Recorder:
    """Writes down how a run goes.

    Args:
        output_dir: for pictures, ``history.csv`` and ``curves.png``.
        log_dir: for TensorBoard.
        pictures: which of ``gt``, ``pred``, ``hm_gt`` and ``hm_pred`` to write (DEBUG.SAVE_*).
    """

    def __init__(
        self,
        output_dir: Path,
        log_dir: Path,
        codec: Codec,
        skeleton: Skeleton,
        pictures: Sequence[str] = (),
    ) -> None:
        self._output_dir = output_dir
        self._writer = EventWriter(log_dir)
        self._codec = codec
        self._skeleton = skeleton
        self._pictures = tuple(pictures)
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

    def batch(
        self,
        phase: str,
        step: int,
        at: int,
        batch: Batch,
        outputs: Outputs | None,
        target: Any,
        places: Tensor | None = None,
    ) -> None:
        """Pictures of a batch: ``<phase>_<step>_{gt,pred,hm_gt,hm_pred}.jpg``, as HRNet names them,
        and on TensorBoard.

        Without outputs there is no ``hm_pred``, and ``places``, keypoints (N, K, 2) in crop pixels,
        are needed; else they spare decoding the outputs.
        """
        images = batch["image"][:_MOST_CROPS].permute(0, 2, 3, 1).cpu().numpy()
        joints, visible = (
            batch[name][:_MOST_CROPS].cpu().numpy() for name in ("joints", "visible")
        )
        if places is None:
            places, _ = self._codec.decode(_detached(outputs))
        places = places[:_MOST_CROPS].float().cpu().numpy()
        truth = self._skeletons(images, joints, visible > 0)
        # What is annotated, as HRNet draws it, so that the two pictures show the same joints;
        # without annotation, all.
        shown = visible > 0 if visible.any() else np.ones_like(visible, bool)
        predicted = self._skeletons(images, places, shown)
        for kind in self._pictures:
            if kind == "hm_pred" and outputs is None:
                continue
            if kind.startswith("hm"):
                maps = target.heatmaps if kind == "hm_gt" else self._codec.maps(_detached(outputs))
                picture = heatmap_rows(images, maps[:_MOST_CROPS].float().cpu().numpy())
            else:
                picture = sheet(truth if kind == "gt" else predicted, _COLUMNS)
            write_picture(self._output_dir / f"{phase}_{step}_{kind}.jpg", picture)
        pairs = [image for pair in zip(truth, predicted, strict=True) for image in pair][:16]
        self._writer.add_image(f"{phase}_gt_pred", sheet(pairs, _COLUMNS), at)

    def _skeletons(
        self, images: np.ndarray, places: np.ndarray, shown: np.ndarray
    ) -> list[np.ndarray]:
        drawn = []
        for image, person, flags in zip(images, places, shown, strict=True):
            picture = np.ascontiguousarray(image).copy()
            draw_person(picture, person, flags, self._skeleton.limbs, self._skeleton.flip_pairs)
            drawn.append(picture)
        return drawn


def _tag(name: str) -> str:
    """A name of a score in the letters that TensorBoard allows: ``AP (M)`` is ``AP_M``."""
    return re.sub(r"[^\w.]+", "_", name).strip("_")


def _detached(outputs: Outputs) -> Outputs:
    return tuple(output.detach() for output in outputs)
