"""Data sets in COCO format: COCO itself, the built-in `figures`, and the user's own.

By default the files are expected where COCO puts them:
``annotations/person_keypoints_<split>.json`` (``image_info_<split>.json`` for test splits) and
``images/<split>/`` or, as in mmpose, ``<split>/``. Filtering and scoring follow
lib/dataset/coco.py of leoxiaobin/deep-high-resolution-net.pytorch.
"""

import contextlib
import io
import logging
from collections.abc import Sequence
from functools import cached_property
from pathlib import Path

import msgspec
import numpy as np
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from lib.dataset.coco_json import (
    LAYOUT,
    Annotation,
    CocoFile,
    CocoFileWithRawAnnotations,
    ImageArrays,
    Int64,
    Number,
    check_keypoint_count,
    complete_boxes,
    image_arrays,
    labelled_people,
    overlaps_image,
    people_arrays,
    people_of,
    usable_people,
)
from lib.dataset.scenes import SceneAnnotation, SceneFile, Scenes, read_scenes
from lib.dataset.table import Table
from lib.keypoints.geometry import PIXEL_STD, box_to_center_scale
from lib.keypoints.poses import Poses
from lib.keypoints.skeletons import Skeleton, category_ids
from lib.nms import oks_nms_groups
from lib.utils.errors import InputError
from lib.utils.files import first_existing, write_atomically
from lib.utils.logs import counted, counted_people
from lib.utils.reading import encode_json, read_json

logger = logging.getLogger(__name__)

# "Ap .5" is the spelling of the HRNet repository.
STATS = ("AP", "Ap .5", "AP .75", "AP (M)", "AP (L)", "AR", "AR .5", "AR .75", "AR (M)", "AR (L)")
_BOX_WARNING = (
    "%s: %d people have no box; using the bounding box of their labelled joints (docs/own_data.md)"
)
_AREA_WARNING = (
    "%s: %d annotations have no area, or an area of 0; using the area of the box. A box is "
    "larger than the person in it, so scores will be higher"
)


class _Detection(msgspec.Struct, gc=False):
    image_id: Int64
    category_id: Int64
    bbox: tuple[float, float, float, float]
    score: Number


class CocoKeypoints:
    """One split of a data set in COCO format: a table of people, and evaluation.

    Args:
        root: folder of the data set.
        split: ``train2017``, ``val2017``, ``test-dev2017``, or another name used by the files.
        skeleton: joints of the annotations.
        aspect_ratio: width / height of the crops.
        data_format: ``jpg``, ``png`` or ``zip``.
        detections: JSON file of detected boxes; None to use the annotated boxes.
        score_threshold: detections with a lower score are dropped.
        oks_threshold, visible_threshold, soft_nms: TEST.OKS_THRE, TEST.IN_VIS_THRE and
            TEST.SOFT_NMS, for rescoring and OKS-NMS.
        annotations: annotation file, relative to ``root``; ``{split}`` is replaced by the split.
            '' for COCO's own name.
        images: image folder, relative to ``root``; ``{split}`` is replaced by the split. '' for
            COCO's own folder, or for ``images/{split}`` if ``annotations`` is given.
        categories: category names; if empty, the first category that lists joint names, and all
            others with the same joints.
        whole_images: True for bottom-up networks. The attribute ``scenes`` then has the unlabelled
            regions of each image, and predictions are neither rescored nor filtered by OKS-NMS.

    Raises:
        InputError: if a file is missing or not in COCO format, or no usable person is left.
    """

    metric = "mAP"
    # For bottom-up networks: unlabelled people without a segmentation are masked by their box.
    _masks_by_box = True

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
        whole_images: bool = False,
    ) -> None:
        self.skeleton = skeleton
        self.split = split
        files, folders = self._candidate_paths(split)
        if annotations:  # unlike COCO's test splits, each split has its own image folder
            files, folders = [annotations.replace("{split}", split)], [f"images/{split}"]
        if images:
            folders = [images.replace("{split}", split)]
        file = first_existing(root, files)
        folder = first_existing(root, folders, ".zip" if data_format == "zip" else "")
        self.annotation_file = str(file)
        self._suppression = (oks_threshold, visible_threshold, soft_nms)
        self._aspect_ratio = aspect_ratio

        layout = CocoFile if detections is None else CocoFileWithRawAnnotations
        content = read_json(file, SceneFile if whole_images else layout, LAYOUT)
        if not content.images or not content.categories:
            raise InputError(f"{file}: `images` or `categories` is empty")
        images_in_file = image_arrays(content.images, str(folder), data_format, str(file))
        self.has_ground_truth = bool(content.annotations)
        self._categories = category_ids(content.categories, categories, str(file))
        self.scenes: Scenes | None = None
        if detections is None:
            selected = [a for a in content.annotations if a.category_id in self._categories]
            num_filled_boxes, _ = complete_boxes(selected, content.images)
            if num_filled_boxes:
                logger.warning(_BOX_WARNING, file, num_filled_boxes)
        if whole_images:
            self.table = self._whole_images(content.annotations, images_in_file)
        elif detections is None:
            self.table = self._annotated(content.annotations, images_in_file)
        else:
            self.table = self._detected(detections, score_threshold, images_in_file)

    def _candidate_paths(self, split: str) -> tuple[list[str], list[str]]:
        """Return the possible annotation files and image folders, preferred ones first."""
        if "test" in split:  # all of COCO's test splits share one image folder
            # The second name is mmpose's: person_keypoints_test-dev-2017.json.
            names = f"image_info_{split}", f"person_keypoints_{split.replace('dev2', 'dev-2')}"
            folders = ["images/test2017", "test2017"]
            return [f"annotations/{name}.json" for name in names], folders
        return [f"annotations/person_keypoints_{split}.json"], [f"images/{split}", split]

    def _whole_images(self, annotations: list[SceneAnnotation], images: ImageArrays) -> Table:
        """Build the table of all labelled people, and set ``scenes``."""
        if len(self._categories) > 1:
            raise InputError(
                "DATASET.CATEGORIES: must name one category; a bottom-up network finds only one"
            )
        num_joints, file = len(self.skeleton), self.annotation_file
        people, self.scenes = read_scenes(
            annotations, self._categories, num_joints, images, file, self._masks_by_box
        )
        regions = counted(sum(map(len, self.scenes.unlabelled)), "unlabelled region")
        counts = f"{counted(len(images.ids), 'image')}, {counted_people(len(people))}, {regions}"
        logger.info("=> %s: %s", file, counts)
        box, keypoints = people_arrays(people, num_joints)
        if annotations:
            labelled_people(keypoints, file)
        everybody = np.ones(len(people), bool)
        return self._table(images, people, images.rows(people, file), everybody, box, keypoints)

    def _annotated(self, annotations: list[Annotation], images: ImageArrays) -> Table:
        """Build the table of the usable annotated people."""
        file = self.annotation_file
        if not annotations:
            raise InputError(f"{file}: split {self.split} has no annotations")
        people = people_of(annotations, self._categories, len(self.skeleton), file)
        image = images.rows(people, file)
        box, keypoints = people_arrays(people, len(self.skeleton))
        box, keep = usable_people(box, keypoints, images.width[image], images.height[image], file)
        return self._table(images, people, image, keep, box, keypoints)

    def _detected(self, path: str, threshold: float, images: ImageArrays) -> Table:
        """Build the table of detected boxes with a score of at least ``threshold``."""
        detections = read_json(path, list[_Detection], "detected boxes (TEST.COCO_BBOX_FILE)")
        found = [
            d for d in detections if d.category_id in self._categories and d.score >= threshold
        ]
        boxes = np.array([d.bbox for d in found], np.float64).reshape(-1, 4)
        image = images.rows(found, path)
        keep = overlaps_image(boxes, images.width[image], images.height[image])
        text = (
            "=> %s: using %d of %d boxes, with scores of at least %g; skipped %d that are empty or "
            "outside the image"
        )
        logger.info(text, path, keep.sum(), len(detections), threshold, (~keep).sum())
        if not keep.any():
            raise InputError(
                f"{path}: no valid box of category {', '.join(map(str, self._categories))} has a "
                f"score of {threshold} or more"
            )
        no_joints = np.zeros((len(found), len(self.skeleton), 3), np.float32)
        score = np.array([d.score for d in found])
        return self._table(images, found, image, keep, boxes, no_joints, score)

    def _table(
        self,
        images: ImageArrays,
        people: Sequence[Annotation | _Detection],
        image: np.ndarray,
        keep: np.ndarray,
        box: np.ndarray,
        keypoints: np.ndarray,
        score: np.ndarray | None = None,
    ) -> Table:
        """Build the table of the people that the mask ``keep`` selects, sorted by image.

        ``image`` holds the row in ``images`` of each person's image. Without ``score``, all scores
        are 1.
        """
        rows = np.flatnonzero(keep)
        rows = rows[np.argsort(image[rows], kind="stable")]
        center, scale = box_to_center_scale(box[rows], self._aspect_ratio)
        score = np.ones(len(people)) if score is None else score
        return Table(
            image=image[rows],
            center=center,
            scale=scale,
            size=box[rows, 2:].astype(np.float32),
            joints=np.ascontiguousarray(keypoints[rows, :, :2]),
            # A flag below 0, which check_data reports, also means not labelled.
            visible=np.clip(keypoints[rows, :, 2], 0, 1),
            score=score[rows].astype(np.float32),
            category=np.array([people[row].category_id for row in rows], np.int64),
            paths=images.paths,
            image_ids=images.ids,
        )

    def evaluate(self, poses: Poses, output_dir: str) -> tuple[dict, float]:
        """Rescore poses, apply OKS-NMS, write a COCO results file, and compute AP and AR.

        Poses of bottom-up networks are neither rescored nor filtered by OKS-NMS. The file is
        ``results/keypoints_<split>_results_0.json`` in ``output_dir``.

        Returns:
            Metrics by name, and the metric that selects the best checkpoint (AP). Without ground
            truth: ``{"Null": 0}`` and 0.
        """
        table = self.table
        scores, kept = self._suppress(poses)
        rows = poses.row[kept]
        people = poses.keypoints_with_scores()[kept].astype(np.float64)
        people = people.reshape(len(kept), 3 * len(self.skeleton))
        columns = {
            "image_id": table.image_ids[poses.image[kept]].tolist(),
            "keypoints": people.tolist(),
            "score": scores[kept].tolist(),
        }
        if self.scenes is not None:
            columns["category_id"] = [int(self._categories[0])] * len(kept)
        else:
            columns["category_id"] = table.category[rows].tolist()
            columns["center"] = table.center[rows].tolist()
            columns["scale"] = table.scale[rows].tolist()
        entries = zip(*columns.values(), strict=True)
        results = [dict(zip(columns, entry, strict=True)) for entry in entries]
        path = Path(output_dir) / "results" / f"keypoints_{self.split}_results_0.json"
        written = results
        if self.has_ground_truth:
            # If results have boxes, pycocotools computes the areas for AP (M) and AP (L) from the
            # boxes instead of the keypoints. So files for COCO's server, and the results passed to
            # ``_score``, have none.
            boxes = poses.box[kept].astype(np.float64).round(2).tolist()
            written = [entry | {"bbox": box} for entry, box in zip(results, boxes, strict=True)]
        write_atomically(path, encode_json(written))
        logger.info("=> wrote %s to %s", counted_people(len(results)), path)
        if not self.has_ground_truth:
            return {"Null": 0.0}, 0.0
        return self._score(results)

    def rows_to_draw(self, poses: Poses, threshold: float = 0.1) -> np.ndarray:
        """Return the rows of ``poses`` kept by NMS with a score above ``threshold``."""
        scores, kept = self._suppress(poses)
        return kept[scores[kept] > threshold]

    def _suppress(self, poses: Poses) -> tuple[np.ndarray, np.ndarray]:
        """Return person scores (P,), and the rows kept by OKS-NMS within each image.

        A person's score is the box score times the mean score of the joints whose score is above
        TEST.IN_VIS_THRE.
        """
        if self.scenes is not None:  # HigherHRNet's code has no rescoring and no NMS
            return poses.score.astype(np.float64), np.arange(len(poses))
        oks_threshold, visible_threshold, soft_nms = self._suppression
        joint_scores = poses.scores.astype(np.float64)
        is_counted = joint_scores > visible_threshold
        mean = (joint_scores * is_counted).sum(1) / np.maximum(is_counted.sum(1), 1)
        scores = mean * poses.box_score
        kept = oks_nms_groups(
            poses.keypoints_with_scores(),
            scores,
            np.prod(self.table.scale[poses.row].astype(np.float64) * PIXEL_STD, 1),
            poses.image,
            oks_threshold,
            np.array(self.skeleton.sigmas),
            soft=soft_nms,
        )
        return scores, kept

    def _score(self, results: list[dict]) -> tuple[dict, float]:
        """Compute AP and AR with pycocotools, and log its summary."""
        printed = io.StringIO()
        with contextlib.redirect_stdout(printed):
            evaluation = self._evaluation(results)
            evaluation.evaluate()
            evaluation.accumulate()
            evaluation.summarize()
        for line in printed.getvalue().splitlines():
            if line.startswith(" Average"):
                logger.info(line)
        values = dict(zip(STATS, map(float, evaluation.stats), strict=True))
        return values, values["AP"]

    def _evaluation(self, results: list[dict]) -> COCOeval:
        """Prepare a ``COCOeval`` of the results; not run yet. pycocotools prints to stdout."""
        ground_truth = self.ground_truth
        if results:
            detected = ground_truth.loadRes(results)
        else:  # loadRes does not accept an empty list
            detected = COCO()
            detected.dataset = {**ground_truth.dataset, "annotations": []}
            detected.createIndex()
        evaluation = COCOeval(ground_truth, detected, "keypoints")
        evaluation.params.kpt_oks_sigmas = np.array(self.skeleton.sigmas)
        evaluation.params.catIds = self._categories
        return evaluation

    @cached_property
    def ground_truth(self) -> COCO:
        """Annotations of the selected categories, as a pycocotools ``COCO``.

        Raises:
            InputError: if an entry is not in COCO format.
        """
        content = read_json(self.annotation_file, CocoFile, LAYOUT)
        annotations = enumerate(content.annotations)
        selected = [(n, a) for n, a in annotations if a.category_id in self._categories]
        _, num_filled_areas = complete_boxes((a for _, a in selected), content.images)
        # Subclasses with their own _area, such as CrowdPose, do not use the annotated area.
        if num_filled_areas and type(self)._area is CocoKeypoints._area:
            logger.warning(_AREA_WARNING, self.annotation_file, num_filled_areas)
        ground_truth = COCO()
        ground_truth.dataset = {
            "images": [msgspec.structs.asdict(image) for image in content.images],
            "categories": [{"id": category} for category in self._categories],
            # New ids, because those in the file may be missing or repeated, and pycocotools treats
            # the id 0 as no match.
            "annotations": [
                self._entry(n, a) | {"id": new_id}
                for new_id, (n, a) in enumerate(selected, start=1)
            ],
        }
        with contextlib.redirect_stdout(io.StringIO()):
            ground_truth.createIndex()
        return ground_truth

    def _entry(self, number: int, annotation: Annotation) -> dict:
        """Convert annotation ``number`` to a pycocotools dict without an id."""
        keypoints = annotation.keypoints
        check_keypoint_count(annotation, number, len(self.skeleton), self.annotation_file)
        labelled = sum(flag > 0 for flag in keypoints[2::3])
        count = annotation.num_keypoints if labelled else 0
        return {
            "image_id": annotation.image_id,
            "category_id": annotation.category_id,
            "bbox": annotation.bbox,
            "area": self._area(annotation),
            "iscrowd": annotation.iscrowd,
            "keypoints": keypoints,
            "num_keypoints": labelled if count is None else count,
        }

    def _area(self, annotation: Annotation) -> float:
        """Return the area used by OKS, in square pixels."""
        return annotation.area
