"""Where data sets come from, how they are laid out, and whether one is complete."""

import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import msgspec

from lib.utils.archives import unpack
from lib.utils.download import download
from lib.utils.errors import InputError
from lib.utils.reading import read_json

MMPOSE = "https://download.openmmlab.com/mmpose/datasets"
COCO = "http://images.cocodataset.org"
TIGERS = "https://storage.googleapis.com/public-datasets-lila/cvwc2019/train"
BOXES = (
    "the person_detection_results of the original HRNet's README "
    "(https://github.com/leoxiaobin/deep-high-resolution-net.pytorch#data-preparation)"
)


@dataclass(frozen=True)
class Archive:
    """An archive, kept at ``place`` below the data set's folder.

    ``members`` says where its files go: pattern of names -> folder, or file. Where ``url`` is '',
    ``by_hand`` says where a person gets it.
    """

    place: str
    members: Mapping[str, str]
    url: str = ""
    by_hand: str = ""


@dataclass(frozen=True)
class Split:
    """What one split needs: ``annotations`` that list its images, and ``others``, from ``lists``;
    these images in ``folder``, from ``pictures``.

    ``extras`` are files that not every experiment needs -> where a person gets them.
    """

    annotations: str
    folder: str
    lists: Archive
    pictures: Archive
    others: tuple[str, ...] = ()
    extras: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class DataSet:
    """``default`` are the splits to get where none is named, ``terms`` whose data it is."""

    terms: str
    splits: Mapping[str, Split]
    default: tuple[str, ...]


def _coco() -> DataSet:
    def pictures(name: str) -> Archive:
        place = f"images/{name}.zip"
        return Archive(place, {"*.jpg": f"images/{name}"}, f"{COCO}/zips/{name}.zip")

    def lists(name: str, members: str) -> Archive:
        return Archive(f"{name}.zip", {members: "annotations"}, f"{COCO}/annotations/{name}.zip")

    def boxes(name: str) -> dict[str, str]:
        return {f"person_detection_results/COCO_{name}_person.json": BOXES}

    people = lists("annotations_trainval2017", "person_keypoints_*2017.json")
    splits = {
        name: Split(
            f"annotations/person_keypoints_{name}.json",
            f"images/{name}",
            people,
            pictures(name),
            extras=boxes("val2017_detections_AP_H_56") if name == "val2017" else {},
        )
        for name in ("train2017", "val2017")
    }
    splits["test-dev2017"] = Split(
        "annotations/image_info_test-dev2017.json",
        "images/test2017",
        lists("image_info_test2017", "image_info_test-dev2017.json"),
        pictures("test2017"),
        extras=boxes("test-dev2017_detections_AP_H_609"),
    )
    return DataSet("https://cocodataset.org/#termsofuse", splits, default=("train2017", "val2017"))


def _mpii() -> DataSet:
    """The images as published; the annotations, which are published for MATLAB, as mmpose has them:
    in the layout of HRNet's, under other names."""
    names = {"train": "train", "valid": "val", "trainval": "trainval", "test": "test"}
    members = {f"mpii_{theirs}.json": f"annot/{ours}.json" for ours, theirs in names.items()}
    members["mpii_gt_val.mat"] = "annot/gt_valid.mat"
    lists = Archive("mpii_annotations.tar", members, f"{MMPOSE}/mpii_annotations.tar")
    name = "mpii_human_pose_v1.tar.gz"
    url = f"https://datasets.d2.mpi-inf.mpg.de/andriluka14cvpr/{name}"
    pictures = Archive(name, {"*.jpg": "images"}, url)
    splits = {
        name: Split(
            f"annot/{name}.json",
            "images",
            lists,
            pictures,
            others=("annot/gt_valid.mat",) if name == "valid" else (),
        )
        for name in names
    }
    terms = "for research alone, http://human-pose.mpi-inf.mpg.de"
    return DataSet(terms, splits, default=("train", "valid"))


def _crowdpose() -> DataSet:
    names = ("train", "val", "trainval", "test")
    boxes = "det_for_crowd_test_0.1_0.5.json"
    members = {f"mmpose_crowdpose_{name}.json": f"json/crowdpose_{name}.json" for name in names}
    lists = Archive(
        "crowdpose_annotations.tar",
        {**members, boxes: "annotations"},
        f"{MMPOSE}/crowdpose_annotations.tar",
    )
    by_hand = "images.zip, which https://github.com/Jeff-sjtu/CrowdPose links on Google Drive"
    pictures = Archive("images.zip", {"*.jpg": "images"}, by_hand=by_hand)
    splits = {
        name: Split(
            f"json/crowdpose_{name}.json",
            "images",
            lists,
            pictures,
            others=(f"annotations/{boxes}",) if name == "test" else (),
        )
        for name in names
    }
    return DataSet("https://github.com/Jeff-sjtu/CrowdPose", splits, default=("trainval", "test"))


def _atrw() -> DataSet:
    lists = Archive(
        "atrw_annotations.tar", {"keypoint_*.json": "annotations"}, f"{MMPOSE}/atrw_annotations.tar"
    )

    def pictures(name: str) -> Archive:
        archive = f"atrw_pose_{name}.tar.gz"
        return Archive(archive, {"*.jpg": f"images/{name}"}, f"{TIGERS}/{archive}")

    splits = {
        name: Split(f"annotations/keypoint_{name}.json", f"images/{name}", lists, pictures(name))
        for name in ("train", "val")
    }
    terms = "CC BY-NC-SA 4.0, https://cvwc2019.github.io/challenge.html"
    return DataSet(terms, splits, default=("train", "val"))


DATA_SETS = {"coco": _coco(), "mpii": _mpii(), "crowdpose": _crowdpose(), "atrw": _atrw()}


class _Image(msgspec.Struct):
    file_name: str = ""
    filename: str = ""  # how ATRW's own files call it
    image: str = ""  # and MPII's


class _Listing(msgspec.Struct):
    images: list[_Image]


def get_split(root: Path, split: Split) -> Iterator[str]:
    """Get what ``root`` lacks of ``split``; yields what happens, as lines for a person.

    Raises:
        InputError: something cannot be got, or is not complete afterwards.
    """
    if not all((root / place).exists() for place in (split.annotations, *split.others)):
        yield from _get(root, split.lists)
    listed = image_names(root / split.annotations)
    if missing(root / split.folder, listed):
        yield from _get(root, split.pictures)
    if absent := missing(root / split.folder, listed):
        some = f"{', '.join(absent[:3])}{', ...' if len(absent) > 3 else ''}"
        raise InputError(
            f"{root / split.folder}: {len(absent)} of the {len(listed)} images that "
            f"{root / split.annotations} lists are missing or empty: {some}; "
            f"{root / split.pictures.place} does not have them"
        )
    yield f"=> {root / split.annotations}: all of its {len(listed)} images are in {split.folder}"
    for place, where in split.extras.items():
        if not (root / place).exists():
            yield f"   not here: {root / place}, which TEST.USE_GT_BBOX False needs; get it from"
            yield f"   {where}"


def image_names(annotations: Path) -> list[str]:
    """The images that an annotation file lists, in COCO's or MPII's layout."""
    content = read_json(annotations, _Listing | list[_Image], "a list of images")
    images = content if isinstance(content, list) else content.images
    names = {image.file_name or image.filename or image.image for image in images}
    if not names or "" in names:
        raise InputError(f"{annotations}: lists no images, or some without a name")
    return sorted(names)


def missing(folder: Path, names: list[str]) -> list[str]:
    """Those of ``names`` that are not in ``folder``, or are empty."""
    here: set[str] = set()
    if folder.is_dir():
        with os.scandir(folder) as entries:
            here = {entry.name for entry in entries if entry.is_file() and entry.stat().st_size}
    return [name for name in names if name not in here]


def _get(root: Path, archive: Archive) -> Iterator[str]:
    """Download the archive, or find it where a person put it, and unpack it."""
    path = root / archive.place
    if not path.exists():
        if not archive.url:
            raise InputError(
                f"{path}: get {archive.by_hand}, put it there, and give this command again"
            )
        yield f"=> downloading {archive.url}"
        download(archive.url, path)
    yield f"=> unpacking {path}"
    places = {pattern: root / place for pattern, place in archive.members.items()}
    if not unpack(path, places):
        raise InputError(f"{path}: has no {' or '.join(places)}: another archive; move it away")
