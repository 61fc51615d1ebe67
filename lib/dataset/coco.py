"""Annotations in COCO's layout: COCO itself, the figures, and anything laid out alike.

Files are where COCO puts them: ``annotations/person_keypoints_<set>.json``
(``image_info_<set>.json`` for test sets) and ``images/<set>/``. Rules and names:
lib/dataset/coco.py of leoxiaobin/deep-high-resolution-net.pytorch.
"""

import contextlib
import io
import logging
from collections import OrderedDict
from pathlib import Path

import msgspec
import numpy as np
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from lib.dataset.reading import decode_chunks, read_json, write_json
from lib.dataset.skeletons import Skeleton
from lib.dataset.table import Table
from lib.dataset.transforms import PIXEL_STD, box_to_center_scale
from lib.nms import oks_nms_groups
from lib.utils.errors import InputError
from lib.utils.files import write_atomically

logger = logging.getLogger(__name__)

STATS = ("AP", "Ap .5", "AP .75", "AP (M)", "AP (L)", "AR", "AR .5", "AR .75", "AR (M)", "AR (L)")


class _Image(msgspec.Struct, gc=False):
    id: int
    width: int
    height: int
    file_name: str = ""
    filename: str = ""  # as the ATRW annotations spell it


class _Annotation(msgspec.Struct, gc=False):
    image_id: int
    category_id: int
    bbox: tuple[float, float, float, float]
    area: float
    keypoints: list[float] = []
    iscrowd: int = 0


class _Category(msgspec.Struct):
    id: int
    name: str = ""


class _File(msgspec.Struct):
    images: list[_Image]
    categories: list[_Category]
    annotations: list[msgspec.Raw] = []


class _Detection(msgspec.Struct, gc=False):
    image_id: int
    category_id: int
    bbox: tuple[float, float, float, float]
    score: float


class CocoKeypoints:
    """One split: its people as a table, and the score of an answer.

    Args:
        root: the data set's folder.
        split: ``train2017``, ``val2017``, ``test-dev2017`` or any other name that the files carry.
        skeleton: the joints of the annotations.
        aspect_ratio: width / height of the crops.
        data_format: ``jpg``, ``png`` or ``zip``.
        detections: a detector's JSON; None takes the annotated boxes.
        score_threshold: detections with a lower score are left out.
        oks_threshold, visible_threshold, soft_nms: suppression in ``evaluate``, as in TEST.*.

    Raises:
        InputError: a file is missing or not in COCO's layout, or no person is left.
    """

    def __init__(
        self,
        root: str,
        split: str,
        skeleton: Skeleton,
        aspect_ratio: float,
        data_format: str = "jpg",
        detections: str | None = None,
        score_threshold: float = 0.0,
        oks_threshold: float = 0.9,
        visible_threshold: float = 0.2,
        soft_nms: bool = False,
    ) -> None:
        self.skeleton = skeleton
        self.split = split
        self.has_truth = "test" not in split
        prefix = "person_keypoints" if self.has_truth else "image_info"
        self.annotation_file = str(Path(root) / "annotations" / f"{prefix}_{split}.json")
        self._suppression = (oks_threshold, visible_threshold, soft_nms)
        self._aspect_ratio = aspect_ratio
        self._truth: COCO | None = None

        file = read_json(self.annotation_file, _File, "annotations in COCO's layout")
        if not file.images or not file.categories:
            raise InputError(f"{self.annotation_file}: lists no images or no categories")
        self._category = min(c.id for c in file.categories)
        folder = Path(root) / "images" / _image_folder(split, data_format)
        images = _ImageArrays(file.images, str(folder), data_format)
        if detections is None:
            self.table = self._annotated(file.annotations, images)
        else:
            self.table = self._detected(detections, score_threshold, images)

    def _annotated(self, raw: list[msgspec.Raw], images: "_ImageArrays") -> Table:
        """The people that the annotations show, by image."""
        parts = [
            self._person_arrays(chunk, start)
            for start, chunk in _numbered(
                decode_chunks(raw, _Annotation, self.annotation_file, "annotations")
            )
        ]
        if not parts:
            raise InputError(f"{self.annotation_file}: has no annotations; split {self.split}")
        image_id, box, area, keypoints = (
            np.concatenate(arrays) for arrays in zip(*parts, strict=True)
        )
        image = images.rows(image_id, self.annotation_file)
        box, is_inside = _clean_boxes(box, images.width[image], images.height[image])
        has_joints = keypoints.any(axis=(1, 2))
        keep = is_inside & (area > 0) & has_joints
        logger.info(
            "=> %s: %d people; left out %d without joints and %d with a box outside the image or without area",
            self.annotation_file,
            keep.sum(),
            (~has_joints).sum(),
            (has_joints & ~keep).sum(),
        )
        if not keep.any():
            raise InputError(f"{self.annotation_file}: nobody with joints and a box is left to use")
        rows = np.flatnonzero(keep)
        rows = rows[np.argsort(image[rows], kind="stable")]
        center, scale = box_to_center_scale(box[rows], self._aspect_ratio)
        return Table(
            image=image[rows],
            center=center,
            scale=scale,
            joints=np.ascontiguousarray(keypoints[rows, :, :2]),
            visible=np.minimum(keypoints[rows, :, 2], 1),
            score=np.ones(len(rows), np.float32),
            paths=images.paths,
            image_ids=images.ids,
        )

    def _person_arrays(self, chunk: list[_Annotation], start: int) -> tuple[np.ndarray, ...]:
        """image ids (n,), boxes (n, 4), areas (n,) and keypoints (n, K, 3) of the people in one
        chunk."""
        people = [a for a in chunk if a.category_id == self._category and not a.iscrowd]
        count = 3 * len(self.skeleton)
        for a in people:
            if len(a.keypoints) != count:
                raise InputError(
                    f"{self.annotation_file}: annotations[{start + chunk.index(a)}] of image {a.image_id} has "
                    f"{len(a.keypoints)} keypoint numbers; {len(self.skeleton)} joints need {count}"
                )
        return (
            np.array([a.image_id for a in people], np.int64),
            np.array([a.bbox for a in people], np.float32).reshape(-1, 4),
            np.array([a.area for a in people], np.float32),
            np.array([a.keypoints for a in people], np.float32).reshape(-1, len(self.skeleton), 3),
        )

    def _detected(self, path: str, threshold: float, images: "_ImageArrays") -> Table:
        """The boxes of a detector's JSON whose score is high enough, by image."""
        raw = read_json(path, list[msgspec.Raw], "a detector's boxes (TEST.COCO_BBOX_FILE)")
        found = []
        for chunk in decode_chunks(raw, _Detection, path, "detections"):
            found += [
                (d.image_id, d.score, *d.bbox)
                for d in chunk
                if d.category_id == self._category and d.score >= threshold
            ]
        logger.info(
            "=> %s: %d boxes, %d with a score from %g", path, len(raw), len(found), threshold
        )
        if not found:
            raise InputError(
                f"{path}: no box of category {self._category} scores {threshold} or more"
            )
        values = np.array(found, np.float64)
        image = images.rows(values[:, 0].astype(np.int64), path)
        order = np.argsort(image, kind="stable")
        center, scale = box_to_center_scale(values[order, 2:], self._aspect_ratio)
        joints = len(self.skeleton)
        return Table(
            image=image[order],
            center=center,
            scale=scale,
            joints=np.zeros((len(order), joints, 2), np.float32),
            visible=np.zeros((len(order), joints), np.float32),
            score=values[order, 1].astype(np.float32),
            paths=images.paths,
            image_ids=images.ids,
        )

    def evaluate(self, keypoints: np.ndarray, output_dir: str) -> tuple[OrderedDict, float]:
        """Rescore, suppress doubles, write COCO's results JSON, and score it where there is ground
        truth.

        Args:
            keypoints: (N, K, 3) x, y in image pixels and score, in the table's order.
            output_dir: the JSON goes to ``results/keypoints_<split>_results_0.json`` below it.

        Returns:
            name -> value, and the value that decides which network is best. Without ground truth:
            ``Null`` and 0.
        """
        table = self.table
        scores, kept = self._suppress(keypoints)
        people = keypoints[kept].astype(np.float64).reshape(len(kept), -1)
        results = [
            {
                "image_id": image_id,
                "category_id": self._category,
                "keypoints": person,
                "score": score,
                "center": center,
                "scale": scale,
            }
            for image_id, person, score, center, scale in zip(
                table.image_ids[table.image[kept]].tolist(),
                people.tolist(),
                scores[kept].tolist(),
                table.center[kept].tolist(),
                table.scale[kept].tolist(),
                strict=True,
            )
        ]
        path = Path(output_dir) / "results" / f"keypoints_{self.split}_results_0.json"
        write_atomically(path, write_json(results))
        logger.info("=> wrote %d people to %s", len(results), path)
        if not self.has_truth:
            return OrderedDict(Null=0.0), 0.0
        return self._score(results)

    def _suppress(self, keypoints: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Each person's new score (N,), and the rows that suppression within an image leaves."""
        oks_threshold, visible_threshold, soft_nms = self._suppression
        joint_scores = keypoints[..., 2].astype(np.float64)
        counts = joint_scores > visible_threshold
        mean = (joint_scores * counts).sum(1) / np.maximum(counts.sum(1), 1)
        scores = mean * self.table.score
        kept = oks_nms_groups(
            keypoints,
            scores,
            np.prod(self.table.scale.astype(np.float64) * PIXEL_STD, 1),
            self.table.image,
            oks_threshold,
            np.array(self.skeleton.sigmas),
            soft=soft_nms,
        )
        return scores, kept

    def _score(self, results: list[dict]) -> tuple[OrderedDict, float]:
        """AP and AR by pycocotools; its own summary goes into the log."""
        printed = io.StringIO()
        with contextlib.redirect_stdout(printed):
            if self._truth is None:
                self._truth = COCO(self.annotation_file)
                printed.truncate(0)
            evaluation = COCOeval(self._truth, self._truth.loadRes(results), "keypoints")
            evaluation.params.kpt_oks_sigmas = np.array(self.skeleton.sigmas)
            evaluation.evaluate()
            evaluation.accumulate()
            evaluation.summarize()
        for line in printed.getvalue().splitlines():
            if line.startswith(" Average"):
                logger.info(line)
        values = OrderedDict(zip(STATS, map(float, evaluation.stats), strict=True))
        return values, values["AP"]


class _ImageArrays:
    """The images of an annotation file as arrays, in the file's order."""

    def __init__(self, images: list[_Image], folder: str, data_format: str) -> None:
        self.ids = np.array([i.id for i in images], np.int64)
        self.width = np.array([i.width for i in images], np.int32)
        self.height = np.array([i.height for i in images], np.int32)
        names = [i.file_name or i.filename for i in images]
        if data_format == "png":
            names = [str(Path(name).with_suffix(".png")) for name in names]
        self.paths = np.array([f"{folder}/{name}".encode() for name in names])
        self._order = np.argsort(self.ids, kind="stable")

    def rows(self, image_ids: np.ndarray, source: str) -> np.ndarray:
        """(N,) int32 rows of images by their ids; an id that is not listed is an InputError naming
        ``source``."""
        at = np.searchsorted(self.ids, image_ids, sorter=self._order)
        rows = self._order[np.minimum(at, len(self.ids) - 1)]
        unknown = image_ids[self.ids[rows] != image_ids]
        if len(unknown):
            raise InputError(
                f"{source}: image {unknown[0]} ({len(unknown)} entries in all) is not in the list of images"
            )
        return rows.astype(np.int32)


def _image_folder(split: str, data_format: str) -> str:
    # All of COCO's test sets are parts of one folder of images.
    folder = "test2017" if "test" in split else split
    return f"{folder}.zip@" if data_format == "zip" else folder


def _clean_boxes(
    boxes: np.ndarray, width: np.ndarray, height: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Boxes (N, 4) cut to the image, and flags of those of which something is left.

    As published, the last pixel is taken to lie at x + width - 1.
    """
    low = np.maximum(boxes[:, :2], 0)
    last = np.stack([width, height], 1) - 1
    high = np.minimum(last, low + np.maximum(boxes[:, 2:] - 1, 0))
    return np.concatenate([low, high - low], 1), (high >= low).all(1)


def _numbered(chunks):
    start = 0
    for chunk in chunks:
        yield start, chunk
        start += len(chunk)
