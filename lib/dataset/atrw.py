"""ATRW, keypoints of Amur tigers: COCO format with other file names."""

from lib.dataset.coco import CocoKeypoints


class AtrwKeypoints(CocoKeypoints):
    """One split of ATRW: ``annotations/keypoint_<split>.json`` and ``images/<split>/``.

    The annotation file of a test split is ``image_info_<split>.json``.
    """

    def _candidate_paths(self, split: str) -> tuple[list[str], list[str]]:
        prefix = "image_info" if "test" in split else "keypoint"
        return [f"annotations/{prefix}_{split}.json"], [f"images/{split}"]
