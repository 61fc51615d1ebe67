"""Tiny data sets in the official layouts, and an experiment that trains in a second."""

import json
import zipfile
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch
import yaml
from scipy.io import savemat
from torch import nn

WIDTH, HEIGHT = 120, 90
MPII_NAMES = (
    *("rank", "rkne", "rhip", "lhip", "lkne", "lank", "pelvis", "thorax", "neck", "head"),
    *("rwri", "relb", "rsho", "lsho", "lelb", "lwri"),
)


def write_coco(
    root: Path, split: str = "val2017", images: int = 3, people: int = 2, seed: int = 0
) -> dict[str, Any]:
    """Write a split in COCO's layout, with joints drawn as discs; returns its annotations.

    Each image has ``people`` people. File names are COCO's, with image IDs from 1.
    """
    rng = np.random.default_rng(seed)
    content: dict[str, Any] = {"images": [], "annotations": [], "categories": [category()]}
    folder = root / "images" / split
    folder.mkdir(parents=True, exist_ok=True)
    for image_id in range(1, images + 1):
        picture = background(rng)
        for number in range(people):
            person = coco_person(rng, image_id, left=8 + number * 55)
            person["id"] = len(content["annotations"]) + 1
            draw_joints(picture, np.reshape(person["keypoints"], (-1, 3)))
            content["annotations"].append(person)
        name = f"{image_id:012d}.jpg"
        content["images"].append(
            {"id": image_id, "file_name": name, "width": WIDTH, "height": HEIGHT}
        )
        assert cv2.imwrite(str(folder / name), picture, [cv2.IMWRITE_JPEG_QUALITY, 98])
    save_coco(root, content, split)
    return content


def write_coco_sets(root: Path, training_images: int = 3) -> Path:
    """Write a training set, and a test set of two images; returns ``root``.

    The areas are far too large, so that even an untrained network has an AP above 0.
    """
    for seed, (split, images) in enumerate((("train2017", training_images), ("val2017", 2))):
        content = write_coco(root, split, images=images, seed=seed)
        for person in content["annotations"]:
            person["area"] = 300_000
        save_coco(root, content, split)
    return root


def save_coco(root: Path, content: Any, split: str = "val2017") -> Path:
    """Write the annotations of a split; returns the file."""
    path = root / "annotations" / f"person_keypoints_{split}.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(content))
    return path


def category() -> dict[str, Any]:
    return {"id": 1, "name": "person"}


def coco_person(rng: np.random.Generator, image_id: int, left: int = 10) -> dict[str, Any]:
    """Return a person of about 44 x 60 pixels; two joints are not annotated."""
    x, y, width, height = left, 12, 44, 64
    joints = rng.uniform((x + 4, y + 4), (x + width - 4, y + height - 4), (17, 2)).round()
    flags = rng.integers(1, 3, 17)
    flags[rng.choice(17, 2, replace=False)] = 0
    keypoints = np.column_stack([joints * (flags[:, None] > 0), flags])
    return {
        "image_id": image_id,
        "category_id": 1,
        "iscrowd": 0,
        "bbox": [x, y, width, height],
        "area": width * height * 0.6,
        "keypoints": keypoints.ravel().astype(int).tolist(),
        "num_keypoints": int((flags > 0).sum()),
    }


def write_detections(path: Path, content: dict[str, Any], split_scores: bool = True) -> list[dict]:
    """Write the annotated boxes as a detector's file, with scores that fall from 0.95."""
    boxes = [
        {
            "image_id": person["image_id"],
            "category_id": 1,
            "bbox": [value + 0.5 for value in person["bbox"]],
            "score": round(0.95 - 0.1 * number, 3) if split_scores else 0.9,
        }
        for number, person in enumerate(content["annotations"])
    ]
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(boxes))
    return boxes


def write_mpii(root: Path, split: str = "valid", images: int = 3, seed: int = 0) -> list[dict]:
    """Write a split in MPII's layout, and its ground truth; returns the people.

    Each image has two people. MPII counts pixels from 1.
    """
    rng = np.random.default_rng(seed)
    (root / "annot").mkdir(parents=True, exist_ok=True)
    (root / "images").mkdir(parents=True, exist_ok=True)
    people = []
    for number in range(images):
        picture = background(rng)
        for left in (8, 62):
            joints = rng.uniform((left + 5, 15), (left + 45, 75), (16, 2)).round()
            flags = np.ones(16, int)
            flags[rng.integers(16)] = 0
            draw_joints(picture, np.column_stack([joints - 1, flags]))
            people.append(
                {
                    "image": f"{split}{number}.jpg",
                    "center": [left + 25.0, 45.0],
                    "scale": 0.32,
                    "joints": (joints * flags[:, None]).tolist(),
                    "joints_vis": flags.tolist(),
                }
            )
        assert cv2.imwrite(str(root / "images" / f"{split}{number}.jpg"), picture)
    (root / "annot" / f"{split}.json").write_text(json.dumps(people))
    write_mpii_truth(root / "annot" / f"gt_{split}.mat", people)
    return people


def write_mpii_truth(path: Path, people: list[dict], head: float = 20.0) -> None:
    """Write ``gt_<split>.mat`` with head boxes of ``head`` x ``head`` pixels."""
    truth = np.array([person["joints"] for person in people])
    missing = 1 - np.array([person["joints_vis"] for person in people])
    names = np.empty((1, 16), object)
    names[0] = MPII_NAMES
    corners = np.zeros((2, 2, len(people)))
    corners[1] = head
    values = {
        "dataset_joints": names,
        "jnt_missing": missing.T,
        "pos_gt_src": truth.transpose(1, 2, 0),
        "headboxes_src": corners,
    }
    savemat(path, values)


def background(rng: np.random.Generator) -> np.ndarray:
    """Return a smooth random image (HEIGHT, WIDTH, 3)."""
    return cv2.resize(rng.integers(0, 160, (6, 8, 3), np.uint8), (WIDTH, HEIGHT))


def draw_joints(picture: np.ndarray, joints: np.ndarray) -> None:
    """Draw each annotated joint (K, 3) as a disc of its own colour."""
    for number, (x, y, flag) in enumerate(joints):
        if flag > 0:
            color = cv2.cvtColor(np.uint8([[[number * 10, 255, 255]]]), cv2.COLOR_HSV2BGR)[0, 0]
            cv2.circle(picture, (int(x), int(y)), 2, color.tolist(), -1)


def write_huge_png(path: Path) -> None:
    """Write a small file whose header says 30000 x 30000 pixels: 2.7 GB."""
    data = bytearray(cv2.imencode(".png", np.zeros((1, 1, 3), np.uint8))[1].tobytes())
    data[16:24] = (30000).to_bytes(4, "big") * 2
    path.write_bytes(data)


def zip_images(root: Path, split: str, has_folder: bool) -> None:
    """Move the images of a split to ``images/<split>.zip``, with or without a folder inside."""
    folder = root / "images" / split
    with zipfile.ZipFile(root / "images" / f"{split}.zip", "w") as archive:
        for path in sorted(folder.iterdir()):
            archive.write(path, f"{split}/{path.name}" if has_folder else path.name)
            path.unlink()
    folder.rmdir()


def experiment(path: Path, root: Path, dataset: str = "coco", **sections: dict) -> Path:
    """Write a YAML for a very narrow HRNet on 64 x 64 crops; ``sections`` are merged over it."""
    is_mpii = dataset == "mpii"
    stages = {
        f"STAGE{branches}": {
            "NUM_MODULES": 1,
            "NUM_BRANCHES": branches,
            "BLOCK": "BASIC",
            "NUM_BLOCKS": [1] * branches,
            "NUM_CHANNELS": [4 * 2**i for i in range(branches)],
            "FUSE_METHOD": "SUM",
        }
        for branches in (2, 3, 4)
    }
    content: dict[str, Any] = {
        "OUTPUT_DIR": str(path.parent / "output"),
        "LOG_DIR": str(path.parent / "log"),
        "WORKERS": 0,
        "PRINT_FREQ": 1,
        "SEED": 3,
        "DATASET": {
            "DATASET": dataset,
            "ROOT": str(root),
            "TRAIN_SET": "train" if is_mpii else "train2017",
            "TEST_SET": "valid" if is_mpii else "val2017",
            "COLOR_RGB": True,
            "PROB_HALF_BODY": 0.3,
        },
        "MODEL": {
            "NAME": "pose_hrnet",
            "NUM_JOINTS": 16 if is_mpii else 17,
            "IMAGE_SIZE": [64, 64],
            "HEATMAP_SIZE": [16, 16],
            "SIGMA": 1,
            "EXTRA": stages,
        },
        "TRAIN": {"BATCH_SIZE_PER_GPU": 4, "END_EPOCH": 1, "LR": 0.01},
        "TEST": {
            "BATCH_SIZE_PER_GPU": 4,
            "USE_GT_BBOX": True,
            "FLIP_TEST": True,
            "POST_PROCESS": True,
            "SHIFT_HEATMAP": True,
            "OKS_THRE": 0.9,
        },
    }
    for name, values in sections.items():
        if isinstance(values, dict):
            content.setdefault(name, {}).update(values)
        else:
            content[name] = values
    path.write_text(yaml.safe_dump(content))
    return path


def scenes(path: Path, root: Path, dataset: str = "coco", **sections: dict) -> Path:
    """Write a YAML for a very narrow HigherHRNet on whole images, with ``sections`` merged."""
    content = yaml.safe_load(experiment(path, root, dataset).read_text())
    del content["DATASET"]["PROB_HALF_BODY"]
    content["MODEL"] |= {"TARGET_TYPE": "tags", "HEAD": "higher"}
    content["MODEL"] |= {"IMAGE_SIZE": [128, 128], "HEATMAP_SIZE": [32, 32]}
    content["MODEL"]["EXTRA"]["DECONV"] = {"NUM_CHANNELS": [8], "NUM_BASIC_BLOCKS": 1}
    content["TRAIN"]["BATCH_SIZE_PER_GPU"] = 2
    content["TEST"] = {"FLIP_TEST": False}
    for name, values in sections.items():
        content.setdefault(name, {}).update(values)
    path.write_text(yaml.safe_dump(content))
    return path


def randomize_weights(network: nn.Module) -> nn.Module:
    """Set fixed random weights that give outputs of order 1 with clear maxima.

    With the papers' initial weights, outputs are about 1e-11. Any two would agree within a
    tolerance, and rounding would decide which of two maxima is larger.
    """
    torch.manual_seed(0)
    for module in network.modules():
        if isinstance(module, (nn.Conv2d, nn.ConvTranspose2d, nn.Linear)):
            nn.init.kaiming_normal_(module.weight, nonlinearity="linear")
    return network
