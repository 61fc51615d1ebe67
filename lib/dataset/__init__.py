"""What is looked at, and how an answer is scored. ``build_dataset`` makes a split of an
experiment's data set."""

from collections.abc import Callable
from pathlib import Path

from yacs.config import CfgNode

from lib.dataset.coco import CocoKeypoints
from lib.dataset.crowdpose import CrowdPoseKeypoints
from lib.dataset.mpii import MpiiKeypoints
from lib.dataset.skeletons import SKELETONS
from lib.dataset.table import well_placed
from lib.dataset.top_down import Augmentation, Source, TopDownDataset
from lib.utils.errors import InputError

__all__ = ["DATASETS", "build_dataset", "crops_are_aligned"]


def _coco(
    cfg: CfgNode, split: str, is_train: bool, kind: type[CocoKeypoints] = CocoKeypoints
) -> Source:
    uses_detector = not is_train and not cfg.TEST.USE_GT_BBOX
    if uses_detector and not cfg.TEST.COCO_BBOX_FILE:
        raise InputError(
            "TEST.COCO_BBOX_FILE: names no file of detected boxes; give one, or test with "
            "TEST.USE_GT_BBOX True"
        )
    return kind(
        cfg.DATASET.ROOT,
        split,
        SKELETONS[cfg.DATASET.DATASET],
        aspect_ratio=cfg.MODEL.IMAGE_SIZE[0] / cfg.MODEL.IMAGE_SIZE[1],
        data_format=cfg.DATASET.DATA_FORMAT,
        detections=cfg.TEST.COCO_BBOX_FILE if uses_detector else None,
        score_threshold=cfg.TEST.IMAGE_THRE,
        oks_threshold=cfg.TEST.OKS_THRE,
        visible_threshold=cfg.TEST.IN_VIS_THRE,
        soft_nms=cfg.TEST.SOFT_NMS,
    )


def _crowdpose(cfg: CfgNode, split: str, is_train: bool) -> Source:
    return _coco(cfg, split, is_train, CrowdPoseKeypoints)


def _figures(cfg: CfgNode, split: str, is_train: bool) -> Source:
    root = cfg.DATASET.ROOT
    # The annotations are written last: without them a drawing was broken off.
    if not any((Path(root) / "annotations").glob("*.json")):
        raise InputError(
            f"DATASET.ROOT: {root} holds no figures; "
            f"python tools/get_data.py figures --root {root} draws them"
        )
    return _coco(cfg, split, is_train)


def _mpii(cfg: CfgNode, split: str, is_train: bool) -> Source:
    source = MpiiKeypoints(cfg.DATASET.ROOT, split, data_format=cfg.DATASET.DATA_FORMAT)
    if source.has_truth and not is_train:
        _ = source.truth  # read now: after an epoch of training is a bad time to miss a file
    return source


# DATASET.DATASET -> the split's people. The figures are laid out as COCO is.
DATASETS: dict[str, Callable[[CfgNode, str, bool], Source]] = {
    "coco": _coco,
    "crowdpose": _crowdpose,
    "figures": _figures,
    "mpii": _mpii,
}


def build_dataset(cfg: CfgNode, split: str, is_train: bool) -> TopDownDataset:
    """The split ``split`` of DATASET.DATASET as samples, augmented where ``is_train``.

    Raises:
        InputError: an unknown data set, missing or broken files, another number of joints than
            MODEL.NUM_JOINTS.
    """
    name = cfg.DATASET.DATASET
    if name not in DATASETS:
        raise InputError(f"DATASET.DATASET: there is no {name!r}; known are {', '.join(DATASETS)}")
    source = DATASETS[name](cfg, split, is_train)
    if len(source.skeleton) != cfg.MODEL.NUM_JOINTS:
        raise InputError(
            f"MODEL.NUM_JOINTS: is {cfg.MODEL.NUM_JOINTS}, but {name} has "
            f"{len(source.skeleton)} joints"
        )
    if is_train and cfg.DATASET.SELECT_DATA:
        source.table = source.table.select(well_placed(source.table))
        if not len(source.table):
            raise InputError(f"DATASET.SELECT_DATA: leaves nobody of {name} {split}")
    augmentation = Augmentation(
        flip=cfg.DATASET.FLIP,
        scale_factor=cfg.DATASET.SCALE_FACTOR,
        rotation_factor=cfg.DATASET.ROT_FACTOR,
        half_body_probability=cfg.DATASET.PROB_HALF_BODY,
        half_body_joints=cfg.DATASET.NUM_JOINTS_HALF_BODY,
        shift_probability=cfg.DATASET.PROB_SHIFT,
    )
    return TopDownDataset(
        source,
        cfg.MODEL.IMAGE_SIZE,
        augmentation if is_train else None,
        cfg.SEED,
        crops_are_aligned(cfg),
    )


def crops_are_aligned(cfg: CfgNode) -> bool:
    """Whether an experiment cuts its crops as UDP does."""
    return cfg.MODEL.TARGET_TYPE == "udp"
