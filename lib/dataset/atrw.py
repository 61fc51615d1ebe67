"""ATRW, keypoints of Amur tigers: COCO format with file names of its own."""

from lib.dataset.coco import CocoKeypoints


class AtrwKeypoints(CocoKeypoints):
    """One split of ATRW (Amur tigers): ``annotations/keypoint_<split>.json``."""

    def _names(self, split: str) -> tuple[list[str], list[str]]:
        prefix = "image_info" if "test" in split else "keypoint"
        return [f"annotations/{prefix}_{split}.json"], [f"images/{split}"]
