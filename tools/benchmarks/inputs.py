"""Random inputs of about the same sizes as in COCO."""

from collections.abc import Iterator
from pathlib import Path

import cv2
import msgspec
import numpy as np

from lib.dataset.table import Table
from lib.keypoints.geometry import box_to_center_scale
from lib.keypoints.skeletons import COCO

WIDTH, HEIGHT = 640, 480
JOINTS = len(COCO)
ASPECT_RATIO = 192 / 256  # of crops
OUTLINE_VALUES = 60  # coordinates per segmentation; COCO has about 40 to 90


def write_photos(folder: Path, count: int) -> list[str]:
    """Write ``count`` JPEG files of 640 x 480 pixels, about as detailed as COCO's (130-200 KB)."""
    rng = np.random.default_rng(0)
    paths = []
    for number in range(count):
        image = np.zeros((HEIGHT, WIDTH, 3), np.float32)
        for cells, contrast in ((6, 60), (40, 25), (200, 20)):  # light, objects, texture
            noise = rng.normal(0, contrast, (cells * 3 // 4, cells, 3)).astype(np.float32)
            image += cv2.resize(noise, (WIDTH, HEIGHT), interpolation=cv2.INTER_CUBIC)
        for _ in range(30):
            corner = rng.integers(0, (WIDTH, HEIGHT), 2)
            shade = rng.uniform(-60, 60, 3).tolist()
            cv2.circle(image, corner.tolist(), int(rng.integers(8, 60)), shade, -1)
        image += 110 + rng.normal(0, 12, image.shape)
        path = folder / f"{number:012d}.jpg"
        quality = [cv2.IMWRITE_JPEG_QUALITY, 92]
        cv2.imwrite(str(path), np.clip(image, 0, 255).astype(np.uint8), quality)
        paths.append(str(path))
    return paths


def people_in(paths: list[str], count: int) -> Table:
    """Return a table of ``count`` people per photo, with random boxes and joints."""
    rng = np.random.default_rng(0)
    image = np.repeat(np.arange(len(paths), dtype=np.int32), count)
    size = np.array([WIDTH, HEIGHT], np.float64)
    extent = rng.uniform(0.15, 0.5, (len(image), 2)) * size
    boxes = np.concatenate([rng.random(extent.shape) * (size - extent), extent], 1)
    center, scale = box_to_center_scale(boxes, ASPECT_RATIO)
    joints = boxes[:, None, :2] + rng.random((len(image), JOINTS, 2)) * boxes[:, None, 2:]
    return Table(
        image=image,
        center=center,
        scale=scale,
        size=extent.astype(np.float32),
        joints=joints.astype(np.float32),
        visible=(rng.random((len(image), JOINTS)) < 0.75).astype(np.float32),
        score=np.ones(len(image), np.float32),
        category=np.ones(len(image), np.int32),
        paths=np.array([path.encode() for path in paths]),
        image_ids=np.arange(len(paths)),
    )


def detections(count: int, images: int) -> tuple[np.ndarray, ...]:
    """Return keypoints (N, K, 3), scores, areas and image numbers (N,) of detected people.

    Each image has seven bodies. There are about three noisy copies of each, so that NMS has
    duplicates to remove.
    """
    rng = np.random.default_rng(0)
    image = np.sort(rng.integers(0, images, count))
    body = image * 7 + rng.integers(0, 7, count)
    origin = rng.uniform(0, 500, (images * 7, 1, 2))
    height = rng.uniform(40, 300, images * 7)[body]
    shape = rng.uniform(0, 1, (images * 7, JOINTS, 2)) * [0.4, 1.0]
    displaced = rng.normal(0, 1, (count, JOINTS, 2)) * rng.uniform(0, 0.1, (count, 1, 1))
    points = origin[body] + (shape[body] + displaced) * height[:, None, None]
    keypoints = np.concatenate([points, rng.random((count, JOINTS, 1))], 2)
    return keypoints, rng.random(count), height**2 * 0.4, image


def boxes(count: int) -> np.ndarray:
    """Return ``count`` boxes in one image, as x1, y1, x2, y2, score (N, 5)."""
    rng = np.random.default_rng(0)
    corner = rng.uniform(0, 900, (count, 2))
    opposite = corner + rng.uniform(20, 120, (count, 2))
    return np.concatenate([corner, opposite, rng.random((count, 1))], 1)


def write_annotations(path: Path, images: int, annotations: int, people: int) -> None:
    """Write an annotation file with all fields of COCO's ``person_keypoints_train2017.json``.

    ``people`` is the number of annotations with joints.
    """
    rng = np.random.default_rng(0)
    encode = msgspec.json.encode

    def encoded(entries: Iterator[dict]) -> list[msgspec.Raw]:  # takes less memory than the dicts
        return [msgspec.Raw(encode(entry)) for entry in entries]

    content = {
        "info": {"description": "random", "version": "1.0", "year": 2017},
        "licenses": [{"url": "http://example.com/by/2.0/", "id": 4, "name": "Attribution"}],
        "images": encoded(_images(images)),
        "annotations": encoded(_annotations(images, annotations, people, rng)),
        "categories": [{"supercategory": "person", "id": 1, "name": "person"}],
    }
    path.write_bytes(encode(content))


def _images(count: int) -> Iterator[dict]:
    for number in range(count):
        name = f"{number * 5:012d}.jpg"
        yield {
            "license": 4,
            "file_name": name,
            "coco_url": f"http://images.cocodataset.org/train2017/{name}",
            "height": HEIGHT,
            "width": WIDTH,
            "date_captured": "2013-11-14 11:18:45",
            "flickr_url": f"http://farm9.staticflickr.com/8186/{number:010d}_cbab9ab5f3_z.jpg",
            "id": number * 5,
        }


def _annotations(images: int, count: int, people: int, rng: np.random.Generator) -> Iterator[dict]:
    has_joints = rng.permutation(np.arange(count) < people).tolist()
    image = (rng.integers(0, images, count) * 5).tolist()
    corner = rng.integers(0, (WIDTH - 200, HEIGHT - 200), (count, 2)).tolist()
    size = rng.integers(20, 200, (count, 2)).tolist()
    for number in range(count):
        (x, y), (width, height) = corner[number], size[number]
        joints = rng.integers((x, y, 0), (x + width, y + height, 3), (JOINTS, 3))
        joints[joints[:, 2] == 0] = 0
        joints[0] = (x, y, 2)
        if not has_joints[number]:
            joints[:] = 0
        outline = np.round(rng.uniform(x, x + width, OUTLINE_VALUES), 2).tolist()
        yield {
            "segmentation": [outline],
            "num_keypoints": int((joints[:, 2] > 0).sum()),
            "area": round(width * height * 0.6, 4),
            "iscrowd": 0,
            "keypoints": joints.ravel().tolist(),
            "image_id": image[number],
            "bbox": [x + 0.25, y + 0.5, width, height],
            "category_id": 1,
            "id": number + 1,
        }
