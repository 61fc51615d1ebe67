"""CrowdPose: COCO's layout with 14 joints, images that say how crowded they are, and its own score.

Li, Wang, Zhu, Mao, Fang, Lu: CrowdPose: Efficient Crowded Scenes Pose Estimation and A New
Benchmark. CVPR 2019. Rules and numbers: crowdposetools of Jeff-sjtu/CrowdPose, which is
pycocotools with another area and without sizes; no build of it is needed here.
"""

import contextlib
import io
import logging
from collections import OrderedDict

import numpy as np
from pycocotools.cocoeval import COCOeval

from lib.dataset.coco import CocoKeypoints
from lib.dataset.coco_json import Annotation

logger = logging.getLogger(__name__)

AREA = 0.53  # of a person, as a share of the box: what OKS divides by
EASY, HARD = 0.2, 0.8  # crowd indices; its paper says 0.1 for the first, its evaluator this


class CrowdPoseKeypoints(CocoKeypoints):
    """One split of CrowdPose: ``json/crowdpose_<split>.json`` and ``images/``.

    ``split`` is train, val, trainval or test; all have ground truth.
    """

    def _names(self, split: str) -> tuple[str, str]:
        return f"json/crowdpose_{split}.json", "images"

    def _area(self, annotation: Annotation) -> float:
        return AREA * annotation.bbox[2] * annotation.bbox[3]

    def _score(self, results: list[dict]) -> tuple[OrderedDict, float]:
        """AP and AR over all images, and AP over those with few, some and many people close by."""
        with contextlib.redirect_stdout(io.StringIO()):
            evaluation = self._evaluation(results)
            evaluation.params.areaRng = [[0, 1e10]]
            evaluation.params.areaRngLbl = ["all"]
            precision, recall = _run(evaluation)
            values = OrderedDict(
                {
                    "AP": _mean(precision),
                    "Ap .5": _mean(precision[0]),
                    "AP .75": _mean(precision[5]),
                    "AR": _mean(recall),
                    "AR .5": _mean(recall[0]),
                    "AR .75": _mean(recall[5]),
                }
            )
            for name, images in self._by_crowd().items():
                evaluation.params.imgIds = images
                # As published, -1, which stands for nobody to find, counts in this mean.
                values[name] = float(_run(evaluation)[0].mean()) if images else -1.0
        return values, values["AP"]

    def _by_crowd(self) -> dict[str, list[int]]:
        """Image ids by crowd index."""
        images = self.ground_truth.dataset["images"]
        index = {image["id"]: image["crowdIndex"] for image in images}
        known = {i: crowd for i, crowd in index.items() if crowd is not None}
        if len(known) < len(index):
            logger.warning(
                "%s: %d images have no crowdIndex; the scores by crowd leave them out",
                self.annotation_file,
                len(index) - len(known),
            )
        return {
            "AP (E)": [i for i, crowd in known.items() if crowd < EASY],
            "AP (M)": [i for i, crowd in known.items() if EASY <= crowd < HARD],
            "AP (H)": [i for i, crowd in known.items() if crowd >= HARD],
        }


def _run(evaluation: COCOeval) -> tuple[np.ndarray, np.ndarray]:
    """Precision (thresholds, recalls) and recall (thresholds,)."""
    evaluation.evaluate()
    evaluation.accumulate()
    return evaluation.eval["precision"][:, :, 0, 0, 0], evaluation.eval["recall"][:, 0, 0, 0]


def _mean(values: np.ndarray) -> float:
    """Of what is there; -1 where nothing is."""
    there = values[values > -1]
    return float(there.mean()) if there.size else -1.0
