"""The built-in data set: determinism, COCO format, visibility flags, left and right."""

import json
from pathlib import Path

import cv2
import numpy as np
import pytest
from pycocotools.coco import COCO

from lib.figures import drawing as figures
from lib.figures import write as figures_write
from lib.figures.body import forward_kinematics, landmarks, sample_proportions
from lib.figures.drawing import JOINTS, annotate, draw_scene, sample_person
from lib.figures.poses import FAMILIES, sample_pose
from lib.figures.render import cast_rays, render, sample_light
from lib.figures.sheet import contact_sheet
from lib.figures.write import write_figures
from lib.utils.errors import InputError

SIZE = (320, 320)
TINY = {"train": 5, "val": 3}


def joints_of(annotation: dict) -> np.ndarray:
    return np.array(annotation["keypoints"]).reshape(17, 3)


def draw_alone(yaw: float, seed: int = 0, family: str = "standing", y: float = 160.0) -> dict:
    """The annotation of one person in an empty image, centered at the height ``y``."""
    rng = np.random.default_rng(seed)
    person = sample_person(rng, SIZE, yaw, 240.0, (160.0, y), family)
    layer = render(person.parts, person.camera, sample_light(rng), SIZE)
    owner = np.zeros(SIZE[::-1], np.int16)
    layer.window(owner)[layer.alpha >= 0.5] = 1
    annotation = annotate(person, layer, owner, 1)
    return annotation | {"person": person, "layer": layer, "owner": owner}


def contents(root: Path) -> dict[str, bytes]:
    return {str(p.relative_to(root)): p.read_bytes() for p in root.rglob("*") if p.is_file()}


@pytest.fixture(scope="module")
def written(tmp_path_factory) -> Path:
    root = tmp_path_factory.mktemp("figures")
    write_figures(root, TINY, seed=4, workers=1)
    return root


def test_images_depend_only_on_seed_split_and_index():
    first, people = draw_scene(1, "train", 3)
    draw_scene(9, "val", 0)
    second, again = draw_scene(1, "train", 3)
    assert np.array_equal(first, second)
    assert people == again


@pytest.mark.parametrize("other", [(1, "train", 4), (1, "val", 3), (2, "train", 3)])
def test_another_index_split_or_seed_gives_another_image(other):
    first, _ = draw_scene(1, "train", 3)
    second, _ = draw_scene(*other)
    assert first.shape != second.shape or np.abs(first.astype(int) - second).mean() > 5


def test_annotations_are_consistent_with_the_image():
    flags = []
    for index in range(15):
        image, people = draw_scene(0, "val", index)
        height, width = image.shape[:2]
        assert image.dtype == np.uint8 and image.ndim == 3
        assert len(people) <= len(figures.PEOPLE)
        for person in people:
            x, y, w, h = person["bbox"]
            assert x >= 0 and y >= 0 and x + w <= width and y + h <= height
            assert 0 < person["area"] <= w * h
            joints = joints_of(person)
            assert person["num_keypoints"] == (joints[:, 2] > 0).sum()
            assert set(joints[:, 2]) <= {0, 1, 2}
            labelled = joints[:, 2] > 0
            assert (joints[~labelled] == 0).all()
            assert (joints[labelled, :2] >= 0).all()
            assert (joints[labelled, 0] <= width).all() and (joints[labelled, 1] <= height).all()
            seen = joints[joints[:, 2] == 2]
            assert ((seen[:, :2] >= (x - 2, y - 2)) & (seen[:, :2] <= (x + w + 1, y + h + 1))).all()
            flags += joints[labelled, 2].tolist() if labelled.any() else []
    assert 0.6 < np.mean(np.array(flags) == 2) < 0.95


@pytest.mark.parametrize("seed", range(4))
def test_left_is_the_persons_left(seed):
    """From the front it is on the right of the image, from behind on the left."""
    front, back = joints_of(draw_alone(0, seed)), joints_of(draw_alone(180, seed))
    for name in ("shoulder", "hip"):
        left, right = JOINTS.index(f"left_{name}"), JOINTS.index(f"right_{name}")
        assert front[left, 0] > front[right, 0] + 5
        assert back[left, 0] < back[right, 0] - 5


def test_shoulders_and_hips_are_labelled_outside_their_centers():
    rng = np.random.default_rng(0)
    body, pose = sample_proportions(rng), sample_pose(rng, "standing")
    skeleton = forward_kinematics(body, pose)
    points = dict(zip(JOINTS, landmarks(body, skeleton), strict=True))
    for part, frame in (("shoulder", "chest"), ("hip", "pelvis")):
        for side, sign in (("left", 1), ("right", -1)):
            name = f"{side}_{part}"
            moved = skeleton.frames[frame].T @ (points[name] - skeleton.joints[name])
            assert sign * moved[0] > 0
    np.testing.assert_array_equal(points["left_knee"], skeleton.joints["left_knee"])


def test_a_face_is_labelled_from_the_front_and_not_from_behind():
    eyes = [JOINTS.index("left_eye"), JOINTS.index("right_eye"), JOINTS.index("nose")]
    front = np.array([joints_of(draw_alone(0, seed))[eyes, 2] for seed in range(8)])
    back = np.array([joints_of(draw_alone(180, seed))[eyes, 2] for seed in range(8)])
    assert (front == 2).mean() > 0.7
    assert (back > 0).mean() < 0.2


@pytest.mark.parametrize(("yaw", "near"), [(90, "right"), (-90, "left")])
def test_in_side_views_the_body_occludes_the_far_arm(yaw, near):
    """A person facing the right of the image shows their right side."""
    far = {"left": "right", "right": "left"}[near]
    flags = np.array([joints_of(draw_alone(yaw, seed, "walking"))[:, 2] for seed in range(8)])
    assert (flags[:, JOINTS.index(f"{near}_shoulder")] == 2).mean() > 0.7
    assert (flags[:, JOINTS.index(f"{far}_shoulder")] == 1).mean() > 0.7
    assert (flags[:, JOINTS.index(f"{far}_hip")] == 1).mean() > 0.7
    assert (flags[:, JOINTS.index(f"{far}_eye")] == 0).mean() > 0.5


def test_an_occluder_hides_what_it_covers():
    alone = draw_alone(0, seed=1)  # a person without skirt or coat
    before = joints_of(alone)
    knee, ankle, hip = (JOINTS.index(f"left_{name}") for name in ("knee", "ankle", "hip"))
    assert before[[knee, ankle], 2].tolist() == [2, 2]
    owner, y = alone["owner"].copy(), int(before[knee, 1])
    owner[y - 12 : y + 12] = -1  # a rail in front of the knees
    rail = annotate(alone["person"], alone["layer"], owner, 1)
    assert joints_of(rail)[[knee, ankle], 2].tolist() == [1, 2]
    assert rail["area"] < alone["area"]
    owner[int(before[hip, 1]) - 25 :] = -1  # everything below the waist
    table = annotate(alone["person"], alone["layer"], owner, 1)
    assert joints_of(table)[[knee, ankle], 2].tolist() == [0, 0]
    assert table["bbox"][1] + table["bbox"][3] <= before[hip, 1]
    owner[:] = -1
    assert annotate(alone["person"], alone["layer"], owner, 1) is None


def test_a_truncated_person_has_no_joints_outside_the_image():
    annotation = draw_alone(0, seed=2, y=300.0)
    outside = annotation["person"].joints[:, 1] > SIZE[1]
    assert outside.any()
    assert (joints_of(annotation)[outside] == 0).all()


@pytest.mark.parametrize("family", FAMILIES)
def test_poses_do_not_change_bone_lengths(family):
    rng = np.random.default_rng(0)
    for _ in range(5):
        body = sample_proportions(rng)
        joints = forward_kinematics(body, sample_pose(rng, family)).joints
        for side in ("left", "right"):
            for a, b, length in (
                ("shoulder", "elbow", body.upper_arm),
                ("elbow", "wrist", body.forearm),
                ("hip", "knee", body.thigh),
                ("knee", "ankle", body.shin),
            ):
                bone = np.linalg.norm(joints[f"{side}_{a}"] - joints[f"{side}_{b}"])
                assert bone == pytest.approx(length, rel=1e-6)


def test_the_ray_caster_is_exact_for_spheres_and_cylinders():
    a = np.array([[20.0, 20.0, 0.0], [60.0, 10.0, 5.0]])
    b = np.array([[20.0, 20.0, 1e-3], [60.0, 40.0, 5.0]])
    radii = np.array([[8.0, 8.0], [6.0, 6.0]])
    depth, which, _ = cast_rays(a, b, radii, np.array([False, False]), (64, 96))
    assert depth[20, 20] == pytest.approx(-8, abs=0.05)
    assert depth[20, 24] == pytest.approx(-np.sqrt(64 - 16), abs=0.05)
    assert depth[25, 63] == pytest.approx(5 - np.sqrt(36 - 9), abs=0.05)
    assert which[20, 20] == 0 and which[25, 63] == 1 and which[25, 68] == -1
    assert (which == 0).sum() == pytest.approx(np.pi * 64, rel=0.05)


def test_the_written_files_are_a_coco_data_set(written):
    coco = COCO(written / "annotations" / "person_keypoints_train.json")
    assert len(coco.imgs) == TINY["train"]
    for number in coco.getImgIds():
        info = coco.loadImgs(number)[0]
        image = cv2.imread(str(written / "images" / "train" / info["file_name"]))
        assert image.shape == (info["height"], info["width"], 3)
        expected, people = draw_scene(4, "train", number - 1)
        assert np.abs(image[..., ::-1].astype(int) - expected).mean() < 12
        found = coco.loadAnns(coco.getAnnIds(number))
        assert [person["keypoints"] for person in found] == [p["keypoints"] for p in people]
    category = coco.loadCats(1)[0]
    assert category["keypoints"][5] == "left_shoulder" and len(category["skeleton"]) == 19


def test_the_files_do_not_depend_on_the_number_of_workers(written, tmp_path):
    calls = []
    write_figures(tmp_path, TINY, 4, workers=2, progress=lambda done, total: calls.append(done))
    assert contents(tmp_path) == contents(written)
    assert calls == list(range(1, 9))


def test_a_second_call_changes_nothing(written, monkeypatch):
    monkeypatch.setattr(figures_write, "draw_scene", None)  # any attempt to draw fails
    before = {path: path.stat().st_mtime_ns for path in written.rglob("*")}
    write_figures(written, TINY, seed=4, workers=1)
    assert before == {path: path.stat().st_mtime_ns for path in written.rglob("*")}


@pytest.mark.parametrize(("sizes", "seed"), [(TINY, 5), ({"train": 6, "val": 3}, 4)])
def test_another_seed_or_size_is_an_error_with_a_solution(written, sizes, seed):
    with pytest.raises(InputError, match=r"is another version of figures.*delete") as error:
        write_figures(written, sizes, seed, workers=1)
    assert "\n" not in str(error.value)


def test_an_interrupted_run_is_incomplete_and_is_repeated(tmp_path, monkeypatch):
    def killed(done: int, total: int) -> None:
        if done == 4:
            raise KeyboardInterrupt

    sizes = {"train": 3, "val": 2}
    with pytest.raises(KeyboardInterrupt):
        write_figures(tmp_path, sizes, workers=1, progress=killed)
    assert not list((tmp_path / "annotations").iterdir())
    write_figures(tmp_path, sizes, workers=1)
    content = json.loads((tmp_path / "annotations/person_keypoints_val.json").read_text())
    assert len(content["images"]) == 2
    (tmp_path / "images/val/000000000002.jpg").unlink()
    write_figures(tmp_path, sizes, workers=1)
    assert (tmp_path / "images/val/000000000002.jpg").exists()


def test_a_folder_that_cannot_be_written_is_an_input_error(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match="cannot write the figures data set"):
        write_figures(tmp_path / "file", {"train": 1}, workers=1)


def test_too_little_space_is_an_input_error_before_drawing(tmp_path, monkeypatch):
    monkeypatch.setattr(figures_write, "BYTES_PER_IMAGE", 10**18)
    with pytest.raises(InputError, match="MB free"):
        write_figures(tmp_path, {"train": 1}, workers=1)


def test_other_annotation_files_are_not_overwritten(tmp_path):
    path = tmp_path / "annotations" / "person_keypoints_train.json"
    path.parent.mkdir()
    path.write_text('{"info": {}, "images": []}')
    with pytest.raises(InputError, match="not a figures data set"):
        write_figures(tmp_path, {"train": 1}, workers=1)
    assert path.read_text() == '{"info": {}, "images": []}'


def test_a_contact_sheet_shows_people_with_and_without_joints():
    sheet = contact_sheet(0, people=4, columns=4)
    bare, drawn = np.split(sheet, 2)
    assert sheet.shape == (520, 880, 3)
    assert (bare != drawn).any(2).mean() > 0.003
