"""Contact sheets of predicted skeletons, and of samples as the network receives them."""

from pathlib import Path

import cv2
import numpy as np
import torch

from lib.core.codecs.codec import Codec
from lib.core.codecs.tags import TagCodec
from lib.dataset.bottom_up import SceneDataset
from lib.dataset.image import read_image
from lib.dataset.table import Table
from lib.dataset.top_down import TopDownDataset, crop_image
from lib.keypoints.geometry import PIXEL_STD, Crop, transform_points
from lib.keypoints.poses import Poses
from lib.keypoints.skeletons import Skeleton
from lib.utils.drawing import draw_person, draw_text, image_grid, mosaic, side_colors, write_image
from lib.utils.errors import InputError

# Sheets of predictions:
SCORE_THRESHOLD = 0.2  # joints with a lower score are not drawn
IMAGE_COUNT = 24  # maximum number of images on a sheet
SHEET_WIDTH = 1610  # maximum width of a sheet, in pixels
IMAGE_HEIGHT = 300  # height of an image in pixels, before each row is scaled to the sheet's width
# Sheets of samples:
NAMED_SIZE = 640  # longer side of the people drawn with joint names, in pixels
LETTER_WIDTH, LINE_HEIGHT = 8, 24  # of the joint names, in pixels
MIN_HEIGHT = 256  # smaller crops are enlarged to about this height, in pixels


def write_prediction_sheet(
    dataset: TopDownDataset | SceneDataset, poses: Poses, path: str | Path
) -> None:
    """Write a sheet of images with the predicted skeletons.

    It has up to ``IMAGE_COUNT`` images, evenly spaced over the data set. The ``rows_to_draw`` of
    the data set's source selects the poses to draw.
    """
    table, skeleton = dataset.table, dataset.skeleton
    images = np.unique(table.image)
    chosen = images[np.linspace(0, len(images) - 1, min(IMAGE_COUNT, len(images))).astype(int)]
    drawn = poses[dataset.source.rows_to_draw(poses)]
    cells = []
    for image in chosen:
        try:
            rgb = np.ascontiguousarray(read_image(table.paths[image].decode())[..., ::-1])
        except InputError:  # broken, and allowed by TEST.MAX_BROKEN
            rgb = np.zeros((IMAGE_HEIGHT, IMAGE_HEIGHT, 3), np.uint8)
        # Very wide images are squeezed into the width of the sheet, to limit memory.
        width = int(np.clip(rgb.shape[1] * IMAGE_HEIGHT / len(rgb), 1, SHEET_WIDTH))
        size = (width, IMAGE_HEIGHT)
        zoom = size[0] / rgb.shape[1], size[1] / rgb.shape[0]
        small = cv2.resize(rgb, size, interpolation=cv2.INTER_AREA)
        for pose in drawn[drawn.image == image]:
            is_drawn, limbs = pose.scores > SCORE_THRESHOLD, skeleton.limbs
            draw_person(small, pose.keypoints * zoom, is_drawn, limbs, skeleton.flip_pairs)
        cells.append(small)
    write_image(path, mosaic(cells, SHEET_WIDTH))


def _scene_cells(dataset: SceneDataset, codec: TagCodec, rows: np.ndarray) -> list[np.ndarray]:
    """Draw training samples of whole images, each twice: with its labels and with its targets.

    The image with the targets is dark in regions that the loss ignores.
    """
    skeleton, cells = dataset.skeleton, []
    for row in rows:
        sample = dataset[0, int(row)]  # 0: the epoch
        rgb = np.ascontiguousarray(sample["image"].permute(1, 2, 0).numpy())
        masks = [sample[f"mask{number}"][None] for number in range(len(codec.sizes))]
        targets = codec.encode(sample["joints"][None], sample["visible"][None], masks)
        overlay = targets[-1].heatmaps[0].amax(0).numpy()
        size = rgb.shape[1::-1]
        alpha = cv2.resize(overlay, size)[..., None]
        mask = cv2.resize(masks[-1][0].numpy(), size)[..., None]
        shaded = rgb * (1 - alpha) * (0.2 + 0.4 * mask) + alpha * (255, 230, 0)
        zoom = size[0] / codec.sizes[0][0]
        for person, flags in zip(sample["joints"][0], sample["visible"], strict=True):
            joints, limbs = person.numpy() * zoom, skeleton.limbs
            draw_person(rgb, joints, flags.numpy() > 0, limbs, skeleton.flip_pairs)
        cells += [rgb, shaded.astype(np.uint8)]
    return cells


def write_sample_sheet(
    dataset: TopDownDataset | SceneDataset, codec: Codec | TagCodec, path: Path, count: int
) -> None:
    """Write a sheet of ``count`` samples, evenly spaced over the data set.

    Each sample is drawn twice: with its labelled joints, and with its target heatmaps as an
    overlay. Above the samples are the two people with the most labelled joints, with the numbers
    and names of these joints.
    """
    table, skeleton = dataset.table, dataset.skeleton
    # The tallest, if several people have the same number of labelled joints.
    most_labelled = np.lexsort((-table.size[:, 1], -table.visible.sum(1)))[:2]
    people = [_named_person(table, skeleton, row) for row in most_labelled]
    named = image_grid(people, columns=2)
    rows = np.linspace(0, len(dataset) - 1, min(count, len(dataset))).astype(int)
    if isinstance(dataset, SceneDataset):
        samples = image_grid(_scene_cells(dataset, codec, rows), columns=6)
    else:
        samples = image_grid(_crop_cells(dataset, codec, rows), columns=8)
    width = max(named.shape[1], samples.shape[1])
    page = np.full((len(named) + len(samples), width, 3), 255, np.uint8)
    page[: len(named), : named.shape[1]] = named
    page[len(named) :, : samples.shape[1]] = samples
    write_image(path, page)


def _named_person(table: Table, skeleton: Skeleton, row: int) -> np.ndarray:
    """Draw a person, with the numbers and names of the labelled joints at both sides."""
    labels = [f"{number} {name}" for number, name in enumerate(skeleton.names)]
    margin = LETTER_WIDTH * (max(map(len, labels)) + 2)
    box = np.maximum(table.scale[row] * PIXEL_STD, 1)
    width, height = (int(side) for side in (box * NAMED_SIZE / box.max()).round())
    matrix = Crop((width, height)).matrix(table.center[row], table.scale[row])
    try:
        image = read_image(table.path(row))
    except InputError:  # reported by the check of the images
        image = np.zeros((height, width, 3), np.uint8)
    crop = crop_image(image, matrix, (width, height)).transpose(1, 2, 0)
    total = max(height, LINE_HEIGHT * (len(labels) // 2 + 1))
    page = np.zeros((total, width + 2 * margin, 3), np.uint8)
    page[:height, margin : margin + width] = crop
    matrix[0, 2] += margin
    joints = transform_points(table.joints[row], matrix)
    visible, limbs, pairs = table.visible[row] > 0, skeleton.limbs, skeleton.flip_pairs
    draw_person(page, joints, visible, limbs, pairs)
    colors = side_colors(len(labels), pairs)
    from_left = sorted(np.flatnonzero(visible), key=lambda joint: joints[joint, 0])
    half = len(from_left) // 2
    for is_left, members in ((True, from_left[:half]), (False, from_left[half:])):
        for number, joint in enumerate(sorted(members, key=lambda joint: joints[joint, 1])):
            y = round(len(page) * (number + 0.5) / len(members))
            start = LETTER_WIDTH * (len(labels[joint]) + 1) if is_left else margin + width
            # Joints far outside the image could exceed OpenCV's range of coordinates.
            end = joints[joint].clip(-1e4, 4e4).round().astype(int).tolist()
            cv2.line(page, (start, y), end, colors[joint], 1, cv2.LINE_AA)
            left = LETTER_WIDTH // 2 if is_left else start + LETTER_WIDTH
            draw_text(page, labels[joint], (left, y + LETTER_WIDTH // 2), 11, colors[joint])
    return page


def _crop_cells(dataset: TopDownDataset, codec: Codec, rows: np.ndarray) -> list[np.ndarray]:
    """Draw training samples of people, each twice: with its labels and with its targets."""
    samples = [dataset[0, int(row)] for row in rows]  # 0: the epoch
    joints, visible = (torch.stack([s[name] for s in samples]) for name in ("joints", "visible"))
    maps = codec.encode(joints, visible).heatmaps
    # Joints that are not labelled have targets, too, which the loss ignores. Do not draw them.
    overlays = (maps * (visible > 0)[..., None, None]).amax(1).clamp(0, 1).numpy()
    width, height = dataset.crop.size
    zoom = max(1, round(MIN_HEIGHT / height))
    size = (width * zoom, height * zoom)
    cells = []
    for sample, overlay in zip(samples, overlays, strict=True):
        crop = sample["image"].permute(1, 2, 0).numpy()
        crop = np.ascontiguousarray(cv2.resize(crop, size, interpolation=cv2.INTER_NEAREST))
        alpha = cv2.resize(overlay, size, interpolation=cv2.INTER_LINEAR)[..., None]
        cells += [crop.copy(), (crop * (1 - alpha) * 0.6 + alpha * (255, 230, 0)).astype(np.uint8)]
        is_labelled, skeleton = sample["visible"].numpy() > 0, dataset.skeleton
        joints = sample["joints"].numpy() * zoom
        draw_person(cells[-2], joints, is_labelled, skeleton.limbs, skeleton.flip_pairs)
    return cells
