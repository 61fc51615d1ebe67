"""Made-up inputs of the sizes that COCO has, for tools/benchmark.py."""

from collections.abc import Iterator
from pathlib import Path

import cv2
import msgspec
import numpy as np

from lib.dataset.image import read_image
from lib.dataset.table import Table
from lib.keypoints.geometry import box_to_center_scale
from lib.keypoints.skeletons import COCO

WIDTH, HEIGHT = 640, 480
JOINTS = len(COCO)
ASPECT_RATIO = 192 / 256  # of crops


def write_photos(folder: Path, count: int, seed: int = 0) -> list[str]:
    """Write ``count`` JPEG files of 640 x 480 with about the detail of COCO's, 130 to 200 KB."""
    rng = np.random.default_rng(seed)
    paths = []
    for number in range(count):
        picture = np.zeros((HEIGHT, WIDTH, 3), np.float32)
        for cells, contrast in ((6, 60), (40, 25), (200, 20)):  # light, things, texture
            noise = rng.normal(0, contrast, (cells * 3 // 4, cells, 3)).astype(np.float32)
            picture += cv2.resize(noise, (WIDTH, HEIGHT), interpolation=cv2.INTER_CUBIC)
        for _ in range(30):
            corner = rng.integers(0, (WIDTH, HEIGHT), 2)
            shade = rng.uniform(-60, 60, 3).tolist()
            cv2.circle(picture, corner.tolist(), int(rng.integers(8, 60)), shade, -1)
        picture += 110 + rng.normal(0, 12, picture.shape)
        path = folder / f"{number:012d}.jpg"
        quality = [cv2.IMWRITE_JPEG_QUALITY, 92]
        cv2.imwrite(str(path), np.clip(picture, 0, 255).astype(np.uint8), quality)
        paths.append(str(path))
    return paths


def people_in(paths: list[str], people: int, aspect_ratio: float, seed: int = 0) -> Table:
    """``people`` for each of the image files, with boxes and joints anywhere in it."""
    rng = np.random.default_rng(seed)
    image = np.repeat(np.arange(len(paths), dtype=np.int32), people)
    sizes = np.array([read_image(path).shape[1::-1] for path in paths], np.float64)[image]
    extent = rng.uniform(0.15, 0.5, (len(image), 2)) * sizes
    boxes = np.concatenate([rng.random(extent.shape) * (sizes - extent), extent], 1)
    center, scale = box_to_center_scale(boxes, aspect_ratio)
    places = boxes[:, None, :2] + rng.random((len(image), JOINTS, 2)) * boxes[:, None, 2:]
    return Table(
        image=image,
        center=center,
        scale=scale,
        size=extent.astype(np.float32),
        joints=places.astype(np.float32),
        visible=(rng.random((len(image), JOINTS)) < 0.75).astype(np.float32),
        score=np.ones(len(image), np.float32),
        category=np.ones(len(image), np.int32),
        paths=np.array([path.encode() for path in paths]),
        image_ids=np.arange(len(paths)),
    )


def detections(
    count: int, images: int, seed: int = 0
) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Keypoints (N, K, 3), scores (N,), areas (N,) and images (N,) of ``count`` detected people.

    Each is one of about a third as many bodies in its image, more or less displaced.
    """
    rng = np.random.default_rng(seed)
    image = np.sort(rng.integers(0, images, count))
    body = image * 7 + rng.integers(0, 7, count)
    origin = rng.uniform(0, 500, (images * 7, 1, 2))
    height = rng.uniform(40, 300, images * 7)[body]
    shape = rng.uniform(0, 1, (images * 7, JOINTS, 2)) * [0.4, 1.0]
    displaced = rng.normal(0, 1, (count, JOINTS, 2)) * rng.uniform(0, 0.1, (count, 1, 1))
    places = origin[body] + (shape[body] + displaced) * height[:, None, None]
    keypoints = np.concatenate([places, rng.random((count, JOINTS, 1))], 2)
    return keypoints, rng.random(count), height**2 * 0.4, image


def boxes(count: int, seed: int = 0) -> np.ndarray:
    """(N, 5): x1, y1, x2, y2, score of ``count`` boxes in one image."""
    rng = np.random.default_rng(seed)
    corner = rng.uniform(0, 900, (count, 2))
    far = corner + rng.uniform(20, 120, (count, 2))
    return np.concatenate([corner, far, rng.random((count, 1))], 1)


def write_annotations(
    path: Path, images: int, annotations: int, used: int, polygon: int, seed: int = 0
) -> None:
    """Write an annotation file with all the fields of COCO's ``person_keypoints_train2017.json``.

    Args:
        used: how many of the annotations have joints.
        polygon: numbers in each outline (COCO's have some 40 to 90).
    """
    rng = np.random.default_rng(seed)
    encode = msgspec.json.encode
    head = {
        "info": {"description": "made up", "version": "1.0", "year": 2017},
        "licenses": [{"url": "http://example.com/by/2.0/", "id": 4, "name": "Attribution"}],
    }
    foot = {"categories": [{"supercategory": "person", "id": 1, "name": "person"}]}
    with path.open("wb") as file:
        file.write(encode(head)[:-1] + b',"images":')
        _write_list(file, map(encode, _images(images)))
        file.write(b',"annotations":')
        _write_list(file, map(encode, _annotations(images, annotations, used, polygon, rng)))
        file.write(b"," + encode(foot)[1:])


def _write_list(file, entries: Iterator[bytes]) -> None:
    file.write(b"[")
    for number, entry in enumerate(entries):
        file.write(b"," + entry if number else entry)
    file.write(b"]")


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


def _annotations(
    images: int, count: int, used: int, polygon: int, rng: np.random.Generator
) -> Iterator[dict]:
    has_joints = rng.permutation(np.arange(count) < used).tolist()
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
        outline = np.round(rng.uniform(x, x + width, polygon), 2).tolist()
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
