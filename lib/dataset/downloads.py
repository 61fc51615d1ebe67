"""Public data sets: where to download them, their files, and checks that they are complete."""

import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import msgspec

from lib.utils.archives import unpack
from lib.utils.download import download
from lib.utils.errors import InputError
from lib.utils.reading import read_json

MMPOSE_URL = "https://download.openmmlab.com/mmpose/datasets"
COCO_URL = "http://images.cocodataset.org"
ATRW_URL = "https://storage.googleapis.com/public-datasets-lila/cvwc2019/train"
BOXES_SOURCE = (
    "the link to person_detection_results in the original HRNet README "
    "(https://github.com/leoxiaobin/deep-high-resolution-net.pytorch#data-preparation)"
)


@dataclass(frozen=True)
class Archive:
    """An archive to download and unpack; paths are relative to the data set's folder."""

    path: str
    members: Mapping[str, str]  # file name pattern -> target folder or file
    url: str = ""  # direct link; '' if the user must download the archive
    instructions: str = ""  # what to download and from where, if there is no ``url``


@dataclass(frozen=True)
class Split:
    """The files of one split; paths are relative to the data set's folder."""

    annotations: str  # annotation file, which lists the images
    image_folder: str
    annotation_archive: Archive  # contains ``annotations`` and ``other_files``
    image_archive: Archive
    other_files: tuple[str, ...] = ()  # further required files
    # File that only some experiments need -> where to download it from.
    optional_files: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class PublicDataset:
    """A public data set: its terms of use, its splits, and the splits to download by default."""

    terms: str
    splits: Mapping[str, Split]
    default: tuple[str, ...]


def _coco() -> PublicDataset:
    def annotations(name: str, members: str) -> Archive:
        return Archive(
            f"{name}.zip", {members: "annotations"}, f"{COCO_URL}/annotations/{name}.zip"
        )

    def split(annotations: str, archive: Archive, images: str, boxes: str = "") -> Split:
        folder = f"images/{images}"
        image_archive = Archive(f"{folder}.zip", {"*.jpg": folder}, f"{COCO_URL}/zips/{images}.zip")
        optional = (
            {f"person_detection_results/COCO_{boxes}_person.json": BOXES_SOURCE} if boxes else {}
        )
        return Split(
            f"annotations/{annotations}.json", folder, archive, image_archive, (), optional
        )

    trainval = annotations("annotations_trainval2017", "person_keypoints_*2017.json")
    info = annotations("image_info_test2017", "image_info_test-dev2017.json")
    splits = {
        "train2017": split("person_keypoints_train2017", trainval, "train2017"),
        "val2017": split(
            "person_keypoints_val2017", trainval, "val2017", "val2017_detections_AP_H_56"
        ),
        "test-dev2017": split(
            "image_info_test-dev2017", info, "test2017", "test-dev2017_detections_AP_H_609"
        ),
    }
    terms = "https://cocodataset.org/#termsofuse"
    return PublicDataset(terms, splits, default=("train2017", "val2017"))


def _mpii() -> PublicDataset:
    # The official annotations are a MATLAB file. mmpose hosts the HRNet repository's JSON files
    # under different names.
    names = {"train": "train", "valid": "val", "trainval": "trainval", "test": "test"}
    members = {
        f"mpii_{mmpose_name}.json": f"annot/{name}.json" for name, mmpose_name in names.items()
    }
    members["mpii_gt_val.mat"] = "annot/gt_valid.mat"
    annotations = Archive("mpii_annotations.tar", members, f"{MMPOSE_URL}/mpii_annotations.tar")
    name = "mpii_human_pose_v1.tar.gz"
    url = f"https://datasets.d2.mpi-inf.mpg.de/andriluka14cvpr/{name}"
    images = Archive(name, {"*.jpg": "images"}, url)
    other_files = {"valid": ("annot/gt_valid.mat",)}
    splits = {
        name: Split(f"annot/{name}.json", "images", annotations, images, other_files.get(name, ()))
        for name in names
    }
    terms = "research use only, http://human-pose.mpi-inf.mpg.de"
    return PublicDataset(terms, splits, default=("train", "valid"))


def _crowdpose() -> PublicDataset:
    names = ("train", "val", "trainval", "test")
    boxes = "det_for_crowd_test_0.1_0.5.json"
    members = {f"mmpose_crowdpose_{name}.json": f"json/crowdpose_{name}.json" for name in names}
    members[boxes] = "annotations"
    name = "crowdpose_annotations.tar"
    annotations = Archive(name, members, f"{MMPOSE_URL}/{name}")
    instructions = "images.zip (Google Drive link on https://github.com/Jeff-sjtu/CrowdPose)"
    images = Archive("images.zip", {"*.jpg": "images"}, instructions=instructions)
    other_files = {"test": (f"annotations/{boxes}",)}
    splits = {
        name: Split(
            f"json/crowdpose_{name}.json", "images", annotations, images, other_files.get(name, ())
        )
        for name in names
    }
    terms = "https://github.com/Jeff-sjtu/CrowdPose"
    return PublicDataset(terms, splits, default=("trainval", "test"))


def _atrw() -> PublicDataset:
    annotations = Archive(
        "atrw_annotations.tar",
        {"keypoint_*.json": "annotations"},
        f"{MMPOSE_URL}/atrw_annotations.tar",
    )

    def images(name: str) -> Archive:
        archive = f"atrw_pose_{name}.tar.gz"
        return Archive(archive, {"*.jpg": f"images/{name}"}, f"{ATRW_URL}/{archive}")

    splits = {
        name: Split(
            f"annotations/keypoint_{name}.json", f"images/{name}", annotations, images(name)
        )
        for name in ("train", "val")
    }
    terms = "CC BY-NC-SA 4.0, https://cvwc2019.github.io/challenge.html"
    return PublicDataset(terms, splits, default=("train", "val"))


DOWNLOADS = {"coco": _coco(), "mpii": _mpii(), "crowdpose": _crowdpose(), "atrw": _atrw()}


class _Image(msgspec.Struct):
    file_name: str = ""
    filename: str = ""  # the spelling in ATRW
    image: str = ""  # the spelling in MPII


class _Listing(msgspec.Struct):
    images: list[_Image]


def download_split(root: Path, split: Split) -> Iterator[str]:
    """Download and unpack the missing files of a split; yields progress messages.

    Raises:
        InputError: if a file cannot be downloaded, or the split is incomplete afterwards.
    """
    if not all((root / path).exists() for path in (split.annotations, *split.other_files)):
        yield from _fetch(root, split.annotation_archive)
    names = image_names(root / split.annotations)
    if missing_images(root / split.image_folder, names):
        yield from _fetch(root, split.image_archive)
    if missing := missing_images(root / split.image_folder, names):
        examples = f"{', '.join(missing[:3])}{', ...' if len(missing) > 3 else ''}"
        raise InputError(
            f"{root / split.image_folder}: {len(missing)} of the {len(names)} images listed in "
            f"{root / split.annotations} are missing or empty: {examples}; "
            f"{root / split.image_archive.path} does not contain them"
        )
    folder = split.image_folder
    yield f"=> {root / split.annotations}: all of its {len(names)} images are in {folder}"
    for path, source in split.optional_files.items():
        if not (root / path).exists():
            yield f"   missing: {root / path}, needed with TEST.USE_GT_BBOX False; download it from"
            yield f"   {source}"


def image_names(annotations: Path) -> list[str]:
    """Return the sorted image file names listed in a COCO or MPII annotation file."""
    content = read_json(annotations, _Listing | list[_Image], "a list of images")
    images = content if isinstance(content, list) else content.images
    names = {image.file_name or image.filename or image.image for image in images}
    if not names or "" in names:
        raise InputError(f"{annotations}: lists no images, or images without a file name")
    return sorted(names)


def missing_images(folder: Path, names: list[str]) -> list[str]:
    """Return the names whose file in ``folder`` is missing or empty."""
    entries = os.scandir(folder) if folder.is_dir() else ()
    existing = {entry.name for entry in entries if entry.is_file() and entry.stat().st_size}
    return [name for name in names if name not in existing]


def _fetch(root: Path, archive: Archive) -> Iterator[str]:
    """Download an archive unless it exists, and unpack it."""
    path = root / archive.path
    if not path.exists():
        if not archive.url:
            raise InputError(
                f"{path}: not found; download {archive.instructions}, put it there, and run this "
                "command again"
            )
        yield f"=> downloading {archive.url}"
        download(archive.url, path)
    yield f"=> unpacking {path}"
    targets = {pattern: root / target for pattern, target in archive.members.items()}
    if not unpack(path, targets):
        raise InputError(
            f"{path}: not the expected archive: it has no {' or '.join(targets)}; delete or rename "
            "it, then run this command again"
        )
