"""Whole images: published sizes, labels that follow the image, masks and errors."""

import json

import cv2
import numpy as np
import pytest
from pycocotools import mask as coco_mask

from lib.dataset.bottom_up import SceneAugmentation, SceneDataset, scene_batch, scene_size
from lib.dataset.coco import CocoKeypoints
from lib.dataset.loading import SceneLoader, train_loader
from lib.keypoints.skeletons import COCO
from lib.utils.errors import InputError
from tests import tiny
from tests.golden_arrays import golden


def source(root, **options) -> CocoKeypoints:
    return CocoKeypoints(str(root), "val2017", COCO, 1.0, whole_images=True, **options)


def training_set(root, **augmentation) -> SceneDataset:
    settings = SceneAugmentation(**augmentation)
    return SceneDataset(source(root), 96, [(24, 24), (48, 48)], settings)


def test_sizes_and_boxes_are_the_published_ones():
    _, arrays = golden("ops/bottom_up_resize")
    rows = zip(*(arrays[name] for name in ("image_size", "parameters")), strict=True)
    found = [
        scene_size(width, height, int(size), scale, smallest)
        for (height, width), (size, scale, smallest) in rows
    ]
    np.testing.assert_array_equal([size for size, _, _ in found], arrays["resized"])
    np.testing.assert_array_equal([center for _, center, _ in found], arrays["center"])
    np.testing.assert_allclose([scale for _, _, scale in found], arrays["scale"])


@pytest.mark.parametrize("flip", [False, True])
def test_labels_follow_the_image_through_every_transform(tmp_path, flip):
    content = tiny.write_coco(tmp_path, images=1)
    # The colour of a pixel says where it was in the original image.
    x, y = np.meshgrid(np.arange(tiny.WIDTH), np.arange(tiny.HEIGHT))
    image = np.stack([np.full_like(x, 255), 2 * y, 2 * x], axis=2).astype(np.uint8)
    file = tmp_path / "images" / "val2017" / "000000000001.jpg"
    assert cv2.imwrite(str(file), image, [cv2.IMWRITE_JPEG_QUALITY, 100])
    people = np.array([p["keypoints"] for p in content["annotations"]], float).reshape(-1, 17, 3)
    mirrored = people.copy()
    for left, right in COCO.flip_pairs:
        mirrored[:, [left, right]] = people[:, [right, left]]
    dataset, was_mirrored, checked = training_set(tmp_path, flip=flip), set(), 0
    for epoch in range(12):
        sample = dataset[epoch, 0]
        red, green, blue = sample["image"].numpy().astype(float)
        flags = sample["visible"].numpy() > 0
        # At half the input's resolution, whose pixels lie between those of the input.
        points = np.round(2 * sample["joints"][1].numpy()).astype(int)
        is_inside = flags & ((points > 2) & (points < 93)).all(2)
        column, row = points[is_inside].T
        is_inside[is_inside] = blue[row, column] > 250
        column, row = points[is_inside].T
        found = np.stack([red[row, column], green[row, column]], axis=1) / 2
        errors = [np.abs(found - own[is_inside][:, :2]).max() for own in (people, mirrored)]
        assert min(errors) < 3
        was_mirrored.add(int(np.argmin(errors)))
        np.testing.assert_array_equal(flags, (people, mirrored)[np.argmin(errors)][..., 2] > 0)
        checked += len(found)
    assert checked > 100 and was_mirrored == ({0, 1} if flip else {0})


def test_each_output_has_its_own_joints_as_published(tmp_path):
    tiny.write_coco(tmp_path, images=2)
    sample = training_set(tmp_path, flip=False)[0, 0]
    coarse, fine = sample["joints"]
    np.testing.assert_allclose(fine, 2 * coarse, atol=1e-3)
    for epoch in range(20):  # mirrored: x -> width - 1 - x at each size
        coarse, fine = training_set(tmp_path)[epoch, 0]["joints"]
        if not np.allclose(fine, 2 * coarse, atol=1e-3):
            people = slice(0, 2)
            np.testing.assert_allclose(fine[people, :, 0], 2 * coarse[people, :, 0] + 1, atol=1e-3)
            return
    raise AssertionError("no sample was mirrored")


def test_a_sample_depends_only_on_seed_epoch_and_image(tmp_path):
    tiny.write_coco(tmp_path, images=3)
    dataset = training_set(tmp_path)
    batches = train_loader(dataset, batch_size=3, workers=0)
    batches.sampler.epoch = 1
    pairs = [zip(batch["index"], batch["image"], strict=True) for batch in batches]
    found = {int(number): image for pair in pairs for number, image in pair}
    for number in range(3):
        assert (found[number] == dataset[1, number]["image"]).all()
        assert (found[number] != dataset[2, number]["image"]).any()


def annotate(root, index, **changes) -> None:
    path = root / "annotations" / "person_keypoints_val2017.json"
    content = json.loads(path.read_text())
    content["annotations"][index].update(changes)
    path.write_text(json.dumps(content))


NOBODY = {"keypoints": [0] * 51, "num_keypoints": 0}
POLYGON = [[10.0, 10.0, 50.0, 10.0, 50.0, 80.0, 10.0, 80.0]]


def whole_image_mask(root) -> np.ndarray:
    """Return the mask of the first image, in its own pixels."""
    settings = SceneAugmentation(
        flip=False, max_rotation=0, min_scale=1, max_scale=1, relative_to_long=True, max_shift=0
    )
    dataset = SceneDataset(source(root), 96, [(tiny.WIDTH, tiny.WIDTH)], settings)
    mask = dataset[0, 0]["mask0"].numpy()
    margin = (tiny.WIDTH - tiny.HEIGHT) // 2
    assert not mask[: margin - 1].any() and not mask[-margin + 1 :].any(), "outside the image"
    return mask[margin : tiny.WIDTH - margin]


@pytest.mark.parametrize("kind", ["polygon", "crowd", "compressed", "box", "empty"])
def test_people_without_labels_are_masked(tmp_path, kind):
    tiny.write_coco(tmp_path, images=1)
    filled = np.zeros((tiny.HEIGHT, tiny.WIDTH), np.uint8, order="F")
    filled[10:80, 10:50] = 1
    encoded = coco_mask.encode(filled)
    counts = [10 * 90 + 10, *[70, 20] * 39, 70]
    counts.append(tiny.HEIGHT * tiny.WIDTH - sum(counts))
    size = [tiny.HEIGHT, tiny.WIDTH]
    changes = {
        "polygon": {**NOBODY, "segmentation": POLYGON},
        "crowd": {**NOBODY, "iscrowd": 1, "segmentation": {"counts": counts, "size": size}},
        "compressed": {
            **NOBODY,
            "segmentation": {"counts": encoded["counts"].decode(), "size": size},
        },
        "box": {**NOBODY, "bbox": [10, 10, 40, 70]},
        "empty": {**NOBODY, "keypoints": [], "segmentation": POLYGON},
    }[kind]
    annotate(tmp_path, 0, **changes)
    mask = whole_image_mask(tmp_path)
    assert not mask[12:78, 12:48].any()
    outside = mask.copy()
    outside[8:82, 8:52] = 1
    assert outside.all()


@pytest.mark.parametrize("segmentation", [[[1, 2]], "x", {"counts": [1], "size": [3, 3]}, [5]])
def test_an_unknown_kind_of_segmentation_is_an_error(tmp_path, segmentation):
    tiny.write_coco(tmp_path, images=1)
    annotate(tmp_path, 0, **NOBODY, segmentation=segmentation)
    with pytest.raises(InputError, match="a segmentation is neither a list of polygons nor"):
        whole_image_mask(tmp_path)


def test_images_without_annotations_are_tested_but_not_trained_on(tmp_path):
    content = tiny.write_coco(tmp_path, images=3)
    content["annotations"] = [p for p in content["annotations"] if p["image_id"] != 2]
    tiny.save_coco(tmp_path, content)
    assert len(training_set(tmp_path)) == 2
    tests = SceneDataset(source(tmp_path), 64, [(16, 16)])
    batches = list(SceneLoader(tests, workers=0))
    assert [int(batch["index"]) for batch in batches] == [0, 1, 2]
    assert batches[0]["image0"].shape == (1, 3, 64, 128)


def test_scales_are_in_descending_order_and_one_provides_the_tags():
    batch = scene_batch(np.zeros((100, 150, 3), np.uint8), 7, 128, [0.5, 1, 2])
    assert [tuple(batch[f"image{n}"].shape[2:]) for n in range(3)] == [
        (256, 512),
        (128, 256),
        (64, 128),
    ]
    assert batch["is_tagged"].tolist() == [False, True, False]
    assert batch["base_size"].tolist() == [256, 128]


def test_extreme_images():
    assert scene_batch(np.zeros((1, 1, 3), np.uint8), 0, 64)["image0"].shape == (1, 3, 64, 64)
    assert scene_batch(np.zeros((8, 80, 3), np.uint8), 0, 64)["image0"].shape == (1, 3, 64, 640)
    with pytest.raises(
        InputError, match=r"a\.jpg: an image of 200x10 pixels is too long and narrow"
    ):
        scene_batch(np.zeros((10, 200, 3), np.uint8), 0, 64, name="a.jpg")


def test_a_file_whose_visibility_flags_are_all_0_is_an_error(tmp_path):
    content = tiny.write_coco(tmp_path)
    for person in content["annotations"]:
        person["keypoints"][2::3] = [0] * 17
    tiny.save_coco(tmp_path, content)
    with pytest.raises(InputError, match=r"6 people have coordinates, but visibility flag 0"):
        source(tmp_path)
