"""Data sets and evaluation. ``build_dataset`` builds a split of an experiment's data set."""

import logging
from collections.abc import Callable
from functools import partial
from pathlib import Path

from yacs.config import CfgNode

from lib.config import is_bottom_up, skeleton_of
from lib.dataset.atrw import AtrwKeypoints
from lib.dataset.bottom_up import SceneAugmentation, SceneDataset
from lib.dataset.coco import CocoKeypoints
from lib.dataset.crowdpose import CrowdPoseKeypoints
from lib.dataset.mpii import MpiiKeypoints
from lib.dataset.source import Source
from lib.dataset.table import is_well_centered
from lib.dataset.top_down import Augmentation, TopDownDataset
from lib.keypoints.geometry import PIXEL_STD, Crop
from lib.utils.errors import InputError

__all__ = ["DATASETS", "build_dataset", "crop_of", "output_sizes"]

logger = logging.getLogger(__name__)


def _coco(
    cfg: CfgNode, split: str, is_train: bool, cls: type[CocoKeypoints] = CocoKeypoints
) -> Source:
    detections = None
    if not is_train and not is_bottom_up(cfg):
        detections = None if cfg.TEST.USE_GT_BBOX else cfg.TEST.COCO_BBOX_FILE
        if detections == "":
            raise InputError(
                "TEST.COCO_BBOX_FILE: no file of detected boxes is given; set it, or set "
                "TEST.USE_GT_BBOX True to use the annotated boxes"
            )
        boxes = f"detected boxes ({detections})" if detections else "annotated boxes"
        logger.info("=> testing with %s", boxes)
    return cls(
        cfg.DATASET.ROOT,
        split,
        skeleton_of(cfg),
        aspect_ratio=crop_of(cfg).aspect_ratio,
        data_format=cfg.DATASET.DATA_FORMAT,
        detections=detections,
        score_threshold=cfg.TEST.IMAGE_THRE,
        oks_threshold=cfg.TEST.OKS_THRE,
        visible_threshold=cfg.TEST.IN_VIS_THRE,
        soft_nms=cfg.TEST.SOFT_NMS,
        annotations=cfg.DATASET.ANNOTATIONS,
        images=cfg.DATASET.IMAGES,
        categories=cfg.DATASET.CATEGORIES,
        whole_images=is_bottom_up(cfg),
    )


def _figures(cfg: CfgNode, split: str, is_train: bool) -> Source:
    root = cfg.DATASET.ROOT
    # The annotations are written last; if they are missing, the data set is incomplete.
    if not any((Path(root) / "annotations").glob("*.json")):
        raise InputError(
            f"DATASET.ROOT: {root} does not contain the figures data set; "
            f"create it with: python tools/get_data.py figures --root {root}"
        )
    return _coco(cfg, split, is_train)


def _mpii(cfg: CfgNode, split: str, is_train: bool) -> Source:
    if cfg.DATASET.ANNOTATIONS:
        raise InputError(
            "DATASET.ANNOTATIONS: only for data sets in COCO format, not for mpii; set "
            "DATASET.DATASET to the name of your data set"
        )
    if is_bottom_up(cfg):
        raise InputError(
            "DATASET.DATASET: bottom-up networks need a data set in COCO format, not mpii"
        )
    return MpiiKeypoints(cfg.DATASET.ROOT, split, data_format=cfg.DATASET.DATA_FORMAT)


# DATASET.DATASET -> function that loads a split. Any other name is read as COCO format.
DATASETS: dict[str, Callable[[CfgNode, str, bool], Source]] = {
    "atrw": partial(_coco, cls=AtrwKeypoints),
    "coco": _coco,
    "crowdpose": partial(_coco, cls=CrowdPoseKeypoints),
    "figures": _figures,
    "mpii": _mpii,
}


def build_dataset(cfg: CfgNode, split: str, is_train: bool) -> TopDownDataset | SceneDataset:
    """Build the dataset of one split of DATASET.DATASET, with augmentation if ``is_train``.

    Samples are whole images if MODEL.TARGET_TYPE is ``tags``, else crops of single people.

    Raises:
        InputError: if files are missing or broken, or a setting does not fit the data set.
    """
    name = cfg.DATASET.DATASET
    source = DATASETS.get(name, _coco)(cfg, split, is_train)
    if len(source.skeleton) != cfg.MODEL.NUM_JOINTS:
        raise InputError(
            f"MODEL.NUM_JOINTS is {cfg.MODEL.NUM_JOINTS}, but {name} has "
            f"{len(source.skeleton)} joints; remove this setting to use the number in the data set"
        )
    if source.has_ground_truth and not is_train:
        _ = source.ground_truth  # load it now, so that errors occur before training starts
    if is_train and cfg.DATASET.PROB_HALF_BODY and not source.skeleton.upper_body:
        raise InputError(
            f"DATASET.PROB_HALF_BODY: needs DATASET.UPPER_BODY, the joints of {name}'s upper half"
        )
    if is_train and cfg.DATASET.FLIP and not source.skeleton.flip_pairs:
        logger.warning(
            "DATASET.FLIP_PAIRS: empty, so flipping swaps no joints of %s; set it if the skeleton "
            "has left and right joints",
            name,
        )
    if is_bottom_up(cfg):
        return _scene_dataset(cfg, source, is_train)
    if is_train and cfg.DATASET.SELECT_DATA:
        source.table = source.table.select(is_well_centered(source.table))
        if not len(source.table):
            raise InputError(f"DATASET.SELECT_DATA: no person of {name} {split} passes this filter")
    augmentation = Augmentation(
        flip=cfg.DATASET.FLIP,
        scale_factor=cfg.DATASET.SCALE_FACTOR,
        rotation_factor=cfg.DATASET.ROT_FACTOR,
        half_body_probability=cfg.DATASET.PROB_HALF_BODY,
        half_body_joints=cfg.DATASET.NUM_JOINTS_HALF_BODY,
        shift_probability=cfg.DATASET.PROB_SHIFT,
    )
    return TopDownDataset(source, crop_of(cfg), augmentation if is_train else None, cfg.SEED)


def _scene_dataset(cfg: CfgNode, source: Source, is_train: bool) -> SceneDataset:
    width, height = cfg.MODEL.IMAGE_SIZE
    if width != height:
        raise InputError(
            f"MODEL.IMAGE_SIZE: must be square for MODEL.TARGET_TYPE tags, not {width}x{height}"
        )
    data = cfg.DATASET
    augmentation = SceneAugmentation(
        flip=data.FLIP,
        max_rotation=data.MAX_ROTATION,
        min_scale=data.MIN_SCALE,
        max_scale=data.MAX_SCALE,
        relative_to_long=data.SCALE_TYPE == "long",
        max_shift=data.MAX_TRANSLATE / PIXEL_STD,  # given in pixels, for a crop of PIXEL_STD pixels
    )
    return SceneDataset(
        source,
        width,
        output_sizes(cfg),
        augmentation if is_train else None,
        cfg.SEED,
        cfg.TEST.SCALE_FACTOR,
    )


def output_sizes(cfg: CfgNode) -> list[tuple[int, int]]:
    """Return the (width, height) of each output of a bottom-up network in training.

    Each deconvolution of HigherHRNet adds an output of twice the size.
    """
    width, height = cfg.MODEL.HEATMAP_SIZE
    deconv = cfg.MODEL.EXTRA.get("DECONV", {}) if cfg.MODEL.HEAD == "higher" else {}
    return [(width << i, height << i) for i in range(1 + deconv.get("NUM_DECONVS", 0))]


def crop_of(cfg: CfgNode) -> Crop:
    """Return the crop transform of an experiment; it follows UDP if the target type is ``udp``."""
    width, height = cfg.MODEL.IMAGE_SIZE
    return Crop((int(width), int(height)), cfg.MODEL.TARGET_TYPE == "udp")
