"""Annotations in COCO's layout: COCO itself, the figures, and anything laid out alike.

Files are where COCO puts them, ``annotations/person_keypoints_<set>.json``
(``image_info_<set>.json`` for test sets) and ``images/<set>/``, or where one says. Rules and names:
lib/dataset/coco.py of leoxiaobin/deep-high-resolution-net.pytorch.
"""

import contextlib
import io
import logging
from collections import OrderedDict
from collections.abc import Sequence
from functools import cached_property
from pathlib import Path

import msgspec
import numpy as np
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from lib.dataset.coco_json import (
    Annotation,
    ImageArrays,
    UnreadCocoFile,
    image_arrays,
    people_arrays,
    read_coco,
    wrong_keypoints,
)
from lib.dataset.table import Table
from lib.keypoints.geometry import PIXEL_STD, box_to_center_scale
from lib.keypoints.poses import Poses
from lib.keypoints.skeletons import Skeleton, chosen_categories
from lib.nms import oks_nms_groups
from lib.utils.errors import InputError
from lib.utils.files import write_atomically
from lib.utils.reading import read_json, write_json

logger = logging.getLogger(__name__)

STATS = ("AP", "Ap .5", "AP .75", "AP (M)", "AP (L)", "AR", "AR .5", "AR .75", "AR (M)", "AR (L)")


class _Detection(msgspec.Struct, gc=False):
    image_id: int
    category_id: int
    bbox: tuple[float, float, float, float]
    score: float


class CocoKeypoints:
    """One split: its people as a table, and the evaluation of predictions.

    Args:
        root: the data set's folder.
        split: ``train2017``, ``val2017``, ``test-dev2017`` or any other name that the files carry.
        skeleton: the joints of the annotations.
        aspect_ratio: width / height of the crops.
        data_format: ``jpg``, ``png`` or ``zip``.
        detections: a detector's JSON; None takes the annotated boxes.
        score_threshold: detections with a lower score are left out.
        oks_threshold, visible_threshold, soft_nms: suppression in ``evaluate``, as in TEST.*.
        annotations: the annotation file below ``root``, ``{split}`` in it being the split; '' is
            COCO's own.
        images: the images' folder below ``root``, likewise.
        categories: names; empty takes all that name the same joints.

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
        annotations: str = "",
        images: str = "",
        categories: Sequence[str] = (),
    ) -> None:
        self.skeleton = skeleton
        self.split = split
        own_file, own_folder = self._names(split)
        if annotations:
            own_folder = f"images/{split}"
        file, folder = (
            Path(root) / (given.replace("{split}", split) or own)
            for given, own in ((annotations, own_file), (images, own_folder))
        )
        self.annotation_file = str(file)
        self._suppression = (oks_threshold, visible_threshold, soft_nms)
        self._aspect_ratio = aspect_ratio

        content = read_coco(file) if detections is None else read_coco(file, UnreadCocoFile)
        if not content.images or not content.categories:
            raise InputError(f"{file}: lists no images or no categories")
        image_folder = in_format(str(folder), data_format)
        listed = image_arrays(content.images, image_folder, data_format, str(file))
        self.has_ground_truth = bool(content.annotations)
        self._categories = chosen_categories(content.categories, categories, str(file))
        if detections is None:
            self.table = self._annotated(content.annotations, listed)
        else:
            self.table = self._detected(detections, score_threshold, listed)

    def _names(self, split: str) -> tuple[str, str]:
        """The annotation file and the images' folder as the data set itself calls them."""
        if "test" in split:  # all of COCO's test sets are parts of one folder of images
            return f"annotations/image_info_{split}.json", "images/test2017"
        return f"annotations/person_keypoints_{split}.json", f"images/{split}"

    def _annotated(self, annotations: list[Annotation], images: ImageArrays) -> Table:
        """The people that the annotations show, by image."""
        if not annotations:
            raise InputError(f"{self.annotation_file}: has no annotations; split {self.split}")
        joints = len(self.skeleton)
        people = people_arrays(annotations, self._categories, joints, self.annotation_file)
        image = images.rows(people.image_id, self.annotation_file)
        box, is_inside = _clean_boxes(people.box, images.width[image], images.height[image])
        has_joints = people.keypoints.any((1, 2))
        keep = is_inside & (people.area > 0) & has_joints
        logger.info(
            "=> %s: %d people; left out %d without joints and %d with a box outside the image or "
            "without area",
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
        keypoints = people.keypoints[rows]
        return Table(
            image=image[rows],
            center=center,
            scale=scale,
            size=box[rows, 2:].astype(np.float32),
            joints=np.ascontiguousarray(keypoints[..., :2]),
            visible=np.minimum(keypoints[..., 2], 1),
            score=np.ones(len(rows), np.float32),
            category=people.category[rows].astype(np.int32),
            paths=images.paths,
            image_ids=images.ids,
        )

    def _detected(self, path: str, threshold: float, images: ImageArrays) -> Table:
        """The boxes of a detector's JSON whose score is high enough, by image."""
        detections = read_json(path, list[_Detection], "a detector's boxes (TEST.COCO_BBOX_FILE)")
        found = [
            (d.image_id, d.score, *d.bbox, d.category_id)
            for d in detections
            if d.category_id in self._categories and d.score >= threshold
        ]
        values = np.array(found, np.float64).reshape(-1, 7)
        image = images.rows(values[:, 0].astype(np.int64), path)
        keep = _is_inside(values[:, 2:6], images.width[image], images.height[image])
        logger.info(
            "=> %s: %d of %d boxes, those with a score from %g; left out %d outside the image or "
            "without area",
            path,
            keep.sum(),
            len(detections),
            threshold,
            (~keep).sum(),
        )
        if not keep.any():
            raise InputError(
                f"{path}: no box of category {', '.join(map(str, self._categories))} with an area "
                f"in its image scores {threshold} or more"
            )
        values, image = values[keep], image[keep]
        order = np.argsort(image, kind="stable")
        center, scale = box_to_center_scale(values[order, 2:6], self._aspect_ratio)
        joints = len(self.skeleton)
        return Table(
            image=image[order],
            center=center,
            scale=scale,
            size=values[order, 4:6].astype(np.float32),
            joints=np.zeros((len(order), joints, 2), np.float32),
            visible=np.zeros((len(order), joints), np.float32),
            score=values[order, 1].astype(np.float32),
            category=values[order, 6].astype(np.int32),
            paths=images.paths,
            image_ids=images.ids,
        )

    def evaluate(self, poses: Poses, output_dir: str) -> tuple[OrderedDict, float]:
        """Rescore, suppress duplicates, write COCO's results JSON, and score it where there is
        ground truth.

        Args:
            poses: people in the boxes of ``table``.
            output_dir: the JSON goes to ``results/keypoints_<split>_results_0.json`` below it.

        Returns:
            name -> value, and the value that decides which network is best. Without ground truth:
            ``Null`` and 0.
        """
        table = self.table
        scores, kept = self._suppress(poses)
        rows = poses.row[kept]
        people = poses.with_scores()[kept].astype(np.float64).reshape(len(kept), -1)
        results = [
            {
                "image_id": image_id,
                "category_id": category,
                "keypoints": person,
                "score": score,
                "center": center,
                "scale": scale,
            }
            for image_id, category, person, score, center, scale in zip(
                table.image_ids[poses.image[kept]].tolist(),
                table.category[rows].tolist(),
                people.tolist(),
                scores[kept].tolist(),
                table.center[rows].tolist(),
                table.scale[rows].tolist(),
                strict=True,
            )
        ]
        path = Path(output_dir) / "results" / f"keypoints_{self.split}_results_0.json"
        write_atomically(path, write_json(results))
        logger.info("=> wrote %d people to %s", len(results), path)
        if not self.has_ground_truth:
            return OrderedDict(Null=0.0), 0.0
        return self._score(results)

    def rows_to_draw(self, poses: Poses, threshold: float = 0.1) -> np.ndarray:
        """The numbers of the people worth drawing: left by suppression, with a score above
        ``threshold``."""
        scores, kept = self._suppress(poses)
        return kept[scores[kept] > threshold]

    def _suppress(self, poses: Poses) -> tuple[np.ndarray, np.ndarray]:
        """Each person's new score (P,), and the numbers of those that suppression within an image
        leaves."""
        oks_threshold, visible_threshold, soft_nms = self._suppression
        joint_scores = poses.scores.astype(np.float64)
        counts = joint_scores > visible_threshold
        mean = (joint_scores * counts).sum(1) / np.maximum(counts.sum(1), 1)
        scores = mean * poses.box_score
        kept = oks_nms_groups(
            poses.with_scores(),
            scores,
            np.prod(self.table.scale[poses.row].astype(np.float64) * PIXEL_STD, 1),
            poses.image,
            oks_threshold,
            np.array(self.skeleton.sigmas),
            soft=soft_nms,
        )
        return scores, kept

    def _score(self, results: list[dict]) -> tuple[OrderedDict, float]:
        """AP and AR by pycocotools; its own summary goes into the log."""
        printed = io.StringIO()
        with contextlib.redirect_stdout(printed):
            evaluation = self._evaluation(results)
            evaluation.evaluate()
            evaluation.accumulate()
            evaluation.summarize()
        for line in printed.getvalue().splitlines():
            if line.startswith(" Average"):
                logger.info(line)
        values = OrderedDict(zip(STATS, map(float, evaluation.stats), strict=True))
        return values, values["AP"]

    def _evaluation(self, results: list[dict]) -> COCOeval:
        """pycocotools' evaluation of results, not yet run; it prints."""
        ground_truth = self.ground_truth
        evaluation = COCOeval(ground_truth, ground_truth.loadRes(results), "keypoints")
        evaluation.params.kpt_oks_sigmas = np.array(self.skeleton.sigmas)
        evaluation.params.catIds = self._categories
        return evaluation

    @cached_property
    def ground_truth(self) -> COCO:
        """The annotations as pycocotools takes them, those of other categories left out.

        Raises:
            InputError: an entry is not in COCO's layout.
        """
        content = read_coco(self.annotation_file)
        wanted = [
            (number, annotation)
            for number, annotation in enumerate(content.annotations)
            if annotation.category_id in self._categories
        ]
        lacking = sum(a.area is None for _, a in wanted)
        if lacking and type(self)._area is CocoKeypoints._area:
            logger.warning(
                "%s: %d annotations have no area; that of the box stands in, which is larger than "
                "the person and makes scores higher",
                self.annotation_file,
                lacking,
            )
        ground_truth = COCO()
        ground_truth.dataset = {
            "images": [msgspec.structs.asdict(image) for image in content.images],
            "categories": [{"id": category} for category in self._categories],
            # The file's ids may be missing or shared, and pycocotools takes 0 for "no match".
            "annotations": [
                self._entry(number, a) | {"id": new_id}
                for new_id, (number, a) in enumerate(wanted, start=1)
            ],
        }
        with contextlib.redirect_stdout(io.StringIO()):
            ground_truth.createIndex()
        return ground_truth

    def _entry(self, number: int, annotation: Annotation) -> dict:
        """Annotation ``number`` as pycocotools takes it, without an id."""
        keypoints, joints = annotation.keypoints, len(self.skeleton)
        if len(keypoints) not in (0, 3 * joints):
            what = wrong_keypoints(annotation, number, joints)
            raise InputError(f"{self.annotation_file}: {what}")
        count = annotation.num_keypoints
        return {
            "image_id": annotation.image_id,
            "category_id": annotation.category_id,
            "bbox": annotation.bbox,
            "area": self._area(annotation),
            "iscrowd": annotation.iscrowd,
            "keypoints": keypoints,
            "num_keypoints": sum(v > 0 for v in keypoints[2::3]) if count is None else count,
        }

    def _area(self, annotation: Annotation) -> float:
        """What the OKS of an annotation divides by, in pixels; where it has none, its box's."""
        _, _, width, height = annotation.bbox
        return width * height if annotation.area is None else annotation.area


def in_format(folder: str, data_format: str) -> str:
    """A folder of images, or the archive that stands for it (``folder.zip@``)."""
    return f"{folder}.zip@" if data_format == "zip" else folder


def _is_inside(boxes: np.ndarray, width: np.ndarray, height: np.ndarray) -> np.ndarray:
    """Flags of the boxes (N, 4) that have an area and overlap their image."""
    has_area = (boxes[:, 2:] > 0).all(1)
    overlaps = (boxes[:, :2] + boxes[:, 2:] > 0).all(1)
    overlaps &= (boxes[:, 0] < width) & (boxes[:, 1] < height)
    return has_area & overlaps & (np.abs(boxes) < 1e6).all(1)


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
