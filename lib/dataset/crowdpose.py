"""CrowdPose: COCO format with 14 joints, a crowd index per image, and its own metric.

Li, Wang, Zhu, Mao, Fang, Lu: CrowdPose: Efficient Crowded Scenes Pose Estimation and A New
Benchmark. CVPR 2019. The metric is that of crowdposetools (Jeff-sjtu/CrowdPose), which is
pycocotools with a different area of a person in OKS, and without area ranges. crowdposetools need
not be installed.
"""

import contextlib
import io
import logging

import numpy as np
from pycocotools.cocoeval import COCOeval

from lib.dataset.coco import CocoKeypoints
from lib.dataset.coco_json import Annotation

logger = logging.getLogger(__name__)

AREA_RATIO = 0.53  # area of a person in OKS, as a fraction of the box area
EASY, HARD = 0.2, 0.8  # limits of the crowd index, as in crowdposetools; the paper has 0.1 and 0.8


class CrowdPoseKeypoints(CocoKeypoints):
    """One split of CrowdPose: ``json/crowdpose_<split>.json`` and ``images/``.

    mmpose's ``annotations/mmpose_crowdpose_<split>.json`` also works. The splits are train, val,
    trainval and test; all have ground truth.
    """

    # As in HigherHRNet's code. CrowdPose has no segmentations, so no regions are masked.
    _masks_by_box = False

    def _candidate_paths(self, split: str) -> tuple[list[str], list[str]]:
        files = [f"json/crowdpose_{split}.json", f"annotations/mmpose_crowdpose_{split}.json"]
        return files, ["images"]

    def _area(self, annotation: Annotation) -> float:
        return AREA_RATIO * annotation.bbox[2] * annotation.bbox[3]

    def _score(self, results: list[dict]) -> tuple[dict, float]:
        """Compute AP and AR over all images, and AP over easy, medium and hard (crowded) ones."""
        with contextlib.redirect_stdout(io.StringIO()):
            evaluation = self._evaluation(results)
            evaluation.params.areaRng = [[0, 1e10]]
            evaluation.params.areaRngLbl = ["all"]
            precision, recall = _run(evaluation)
            # The OKS thresholds are 0.5, 0.55, ..., 0.95; index 5 is 0.75.
            values = {
                "AP": _mean(precision),
                "Ap .5": _mean(precision[0]),
                "AP .75": _mean(precision[5]),
                "AR": _mean(recall),
                "AR .5": _mean(recall[0]),
                "AR .75": _mean(recall[5]),
            }
            for name, images in self._images_by_difficulty().items():
                evaluation.params.imgIds = images
                # As in the published code, entries of -1 (no ground truth) count in this mean.
                values[name] = float(_run(evaluation)[0].mean()) if images else -1.0
        return values, values["AP"]

    def _images_by_difficulty(self) -> dict[str, list[int]]:
        """Return image ids by metric name, according to the crowd index."""
        images = self.ground_truth.dataset["images"]
        index = {image["id"]: image["crowdIndex"] for image in images}
        known = {i: crowd for i, crowd in index.items() if crowd is not None}
        if len(known) < len(index):
            text = "%s: %d images have no crowdIndex; AP (E), AP (M) and AP (H) ignore them"
            logger.warning(text, self.annotation_file, len(index) - len(known))
        return {
            "AP (E)": [i for i, crowd in known.items() if crowd < EASY],
            "AP (M)": [i for i, crowd in known.items() if EASY <= crowd < HARD],
            "AP (H)": [i for i, crowd in known.items() if crowd >= HARD],
        }


def _run(evaluation: COCOeval) -> tuple[np.ndarray, np.ndarray]:
    """Run the evaluation; return precision (thresholds, recalls) and recall (thresholds,)."""
    evaluation.evaluate()
    evaluation.accumulate()
    return evaluation.eval["precision"][:, :, 0, 0, 0], evaluation.eval["recall"][:, 0, 0, 0]


def _mean(values: np.ndarray) -> float:
    """Return the mean of the valid (non-negative) values; -1 if there are none."""
    valid = values[values > -1]
    return float(valid.mean()) if valid.size else -1.0
