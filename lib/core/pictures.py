"""Pictures of a data set: images with predicted skeletons, and samples as a network sees them."""

from pathlib import Path

import cv2
import numpy as np
import torch

from lib.core.codecs.codec import Codec
from lib.dataset.image import read_image
from lib.dataset.top_down import TopDownDataset
from lib.keypoints.poses import Poses
from lib.utils.drawing import draw_person, image_grid, mosaic, write_image


def write_prediction_sheet(
    dataset: TopDownDataset,
    poses: Poses,
    path: str | Path,
    count: int = 24,
    threshold: float = 0.2,
    width: int = 1610,
    height: int = 300,
) -> None:
    """Write one picture with up to ``count`` images spread evenly over the data set, and in them
    the skeletons of ``poses`` that the data set's ``rows_to_draw`` selects.

    Args:
        threshold: joints with a lower score are left out.
        width: of the sheet, pixels; fewer where the images fill no row.
        height: of the images in a row, before the row is made to fit.
    """
    table, skeleton = dataset.table, dataset.skeleton
    images = np.unique(table.image)
    chosen = images[np.linspace(0, len(images) - 1, min(count, len(images))).astype(int)]
    drawn = poses[dataset.source.rows_to_draw(poses)]
    cells = []
    for image in chosen:
        picture = np.ascontiguousarray(read_image(table.paths[image].decode())[..., ::-1])
        # A strip is squeezed into the width of the sheet rather than made gigabytes large.
        size = (int(np.clip(picture.shape[1] * height / len(picture), 1, width)), height)
        zoom = size[0] / picture.shape[1], size[1] / picture.shape[0]
        small = cv2.resize(picture, size, interpolation=cv2.INTER_AREA)
        for pose in drawn[drawn.image == image]:
            is_drawn, limbs = pose.scores > threshold, skeleton.limbs
            draw_person(small, pose.keypoints * zoom, is_drawn, limbs, skeleton.flip_pairs)
        cells.append(small)
    write_image(path, mosaic(cells, width))


def write_sample_sheet(
    dataset: TopDownDataset, codec: Codec, path: str | Path, count: int = 12, least: int = 256
) -> None:
    """Write one picture with ``count`` samples spread evenly over the data set, each as the network
    gets it (with its labelled joints), and beside it its target's maps, all joints in one.

    Args:
        least: small crops are enlarged to about this height.
    """
    rows = np.linspace(0, len(dataset) - 1, min(count, len(dataset))).astype(int)
    samples = [dataset[0, int(row)] for row in rows]
    joints, visible = (torch.stack([s[name] for s in samples]) for name in ("joints", "visible"))
    maps = codec.encode(joints, visible).heatmaps
    # A joint that is not labelled has a target, but it is not learnt.
    glow = (maps * (visible > 0)[..., None, None]).amax(1).clamp(0, 1).numpy()
    width, height = dataset.crop.size
    zoom = max(1, round(least / height))
    size = (width * zoom, height * zoom)
    cells = []
    for sample, shine in zip(samples, glow, strict=True):
        crop = sample["image"].permute(1, 2, 0).numpy()
        crop = np.ascontiguousarray(cv2.resize(crop, size, interpolation=cv2.INTER_NEAREST))
        level = cv2.resize(shine, size, interpolation=cv2.INTER_LINEAR)[..., None]
        cells += [crop.copy(), (crop * (1 - level) * 0.6 + level * (255, 230, 0)).astype(np.uint8)]
        is_shown, skeleton = sample["visible"].numpy() > 0, dataset.skeleton
        places = sample["joints"].numpy() * zoom
        draw_person(cells[-2], places, is_shown, skeleton.limbs, skeleton.flip_pairs)
    write_image(path, image_grid(cells, columns=8))
