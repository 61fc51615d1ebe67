"""Predictions for images and boxes."""

from pathlib import Path

import cv2
import numpy as np
import pytest
import torch

from lib.config import load_config
from lib.core.backends import TorchBackend, build_backend
from lib.core.inference import PersonDetector, Predictor
from lib.core.validate import validate
from lib.keypoints.poses import Poses
from lib.keypoints.skeletons import COCO
from lib.models import shipped
from lib.utils.errors import InputError
from tests import tiny
from tests.core.runs import Oracle, parts, same_keypoints, task


@pytest.fixture
def run(tmp_path):
    run = parts(tmp_path, TEST={"BATCH_SIZE_PER_GPU": 4, "USE_GT_BBOX": True})
    tiny.randomize_weights(run.model)
    torch.save(run.model.state_dict(), tmp_path / "weights.pth")
    return run


@pytest.fixture
def predictor(run):
    return Predictor(run.cfg, run.model.state_dict(), device="cpu")


KINDS = {
    "gaussian": {},
    "udp": {"TARGET_TYPE": "udp"},
    "srpose": {"HEAD": "srpose", "TARGET_TYPE": "full", "HEATMAP_SIZE": [64, 64], "SIGMA": 4},
    "simcc": {"HEAD": "simcc", "TARGET_TYPE": "sa_simcc", "SIGMA": 4},
    "rtm_simcc": {"HEAD": "simcc", "TARGET_TYPE": "rtm_simcc", "SIMDR_SIGMA": [4, 5.0]},
}


@pytest.mark.parametrize("kind", KINDS)
def test_predictions_match_those_of_the_validation(tmp_path, kind):
    test = {"BATCH_SIZE_PER_GPU": 4, "USE_GT_BBOX": True}
    run = parts(tmp_path, TEST=test, MODEL=KINDS[kind])
    tiny.randomize_weights(run.model)
    torch.save(run.model.state_dict(), tmp_path / "weights.pth")
    found = validate(task(run), run.tests).poses
    table = run.tests.dataset.table
    predictor = Predictor(run.cfg, tmp_path / "weights.pth", device="cpu")
    # As in the published code, annotated boxes are a pixel narrower and lower.
    boxes = [[8, 12, 43, 63], [63, 12, 43, 63]]
    people = predictor(table.path(2), boxes)
    assert len(people) == 2
    for person, expected, box in zip(people, found[2:4], boxes, strict=True):
        assert same_keypoints(person.keypoints, expected.keypoints)
        np.testing.assert_allclose(person.scores, expected.scores, atol=1e-4)
        assert person.score == pytest.approx(float(expected.scores.mean()), rel=1e-4)
        assert person.box.tolist() == box


@pytest.mark.parametrize(("kind", "bound"), [("gaussian", 3.5), ("udp", 0.2)])
def test_perfect_heatmaps_give_the_annotated_joints_in_image_pixels(tmp_path, kind, bound):
    test = {"BATCH_SIZE_PER_GPU": 4, "USE_GT_BBOX": True, "POST_PROCESS": True}
    run = parts(tmp_path, TEST=test, MODEL={**KINDS[kind], "SIGMA": 1.5})
    batches = [*run.tests]
    joints = torch.cat([batch["joints"] for batch in batches])
    rows = torch.cat([batch["index"] for batch in batches]).numpy()
    # Gaussians near the border of the heatmap are cut off.
    is_inside = ((joints > 12) & (joints < 52)).all(-1).numpy()
    heatmaps = [run.codec.encode(b["joints"], b["visible"]).heatmaps for b in batches]
    found = validate(task(run, Oracle(heatmaps), flip_test=False), run.tests).poses.keypoints
    table = run.tests.dataset.table
    error = np.linalg.norm(found[rows] - table.joints[rows], axis=2)
    error = error[is_inside & (table.visible[rows] > 0)]
    assert len(error) > 20 and error.max() < bound
    predictor = Predictor(run.cfg, backend=TorchBackend(Oracle([heatmaps[0][:2]]), run.codec))
    image = table.path(0)
    people = predictor(image, [[8, 12, 43, 63], [63, 12, 43, 63]])
    assert same_keypoints(people.keypoints, found[:2])


@pytest.mark.parametrize("weights", ["path", "text", "state dict"])
def test_arrays_match_files_and_weights_have_any_form(tmp_path, run, weights):
    path = run.data.table.path(0)
    given = {
        "path": tmp_path / "weights.pth",
        "text": str(tmp_path / "weights.pth"),
        "state dict": run.model.state_dict(),
    }[weights]
    predictor = Predictor(run.cfg, given, device="cpu")
    array = cv2.cvtColor(cv2.imread(path), cv2.COLOR_BGR2RGB)
    for boxes in (None, [[8, 12, 44, 64]]):
        first, second = predictor(path, boxes)[0], predictor(array, boxes)[0]
        np.testing.assert_array_equal(first.keypoints, second.keypoints)
        np.testing.assert_array_equal(first.scores, second.scores)
    whole = predictor(array)[0]
    assert whole.box.tolist() == [0, 0, tiny.WIDTH, tiny.HEIGHT]


def test_a_file_is_rotated_by_its_exif_orientation(tmp_path, run, predictor):
    jpeg = Path(run.data.table.path(0)).read_bytes()
    tiff = b"II*\0\x08\0\0\0\x01\0\x12\x01\x03\0\x01\0\0\0\x06\0\0\0\0\0\0\0"
    head = b"\xff\xe1" + (len(tiff) + 8).to_bytes(2, "big") + b"Exif\0\0" + tiff
    (tmp_path / "turned.jpg").write_bytes(jpeg[:2] + head + jpeg[2:])
    (person,) = predictor(tmp_path / "turned.jpg")
    assert person.box.tolist() == [0, 0, tiny.HEIGHT, tiny.WIDTH]


def test_boxes_of_several_batches_keep_their_order(run, predictor):
    rng = np.random.default_rng(0)
    boxes = np.column_stack([rng.uniform(0, 60, (10, 2)), rng.uniform(20, 50, (10, 2))])
    path = run.data.table.path(0)
    people = predictor(path, boxes)
    assert len(people) == 10
    for box, person in zip(boxes, people, strict=True):
        np.testing.assert_array_equal(person.box, box.astype(np.float32))
        alone = predictor(path, [box])[0]
        np.testing.assert_allclose(alone.scores, person.scores, atol=1e-4)
        assert same_keypoints(alone.keypoints, person.keypoints)
    assert len(predictor(path, [])) == 0


def test_people_of_several_images_share_batches(run):
    backend = build_backend(run.cfg, COCO, run.model.state_dict())
    sizes = []

    def counting(crops):
        sizes.append(len(crops))
        return outputs(crops)

    outputs, backend.outputs = backend.outputs, counting
    predictor = Predictor(run.cfg, backend=backend)
    paths = [run.data.table.path(row) for row in (0, 2, 4)]
    boxes = [[[8, 12, 44, 64], [63, 12, 44, 64]], [], [[8, 12, 44, 64]] * 4]
    all_poses = predictor(paths, boxes)
    assert [len(people) for people in all_poses] == [2, 0, 4]
    assert sizes == [4, 2]  # six people in batches of four
    for path, given, people in zip(paths, boxes, all_poses, strict=True):
        for person, alone in zip(people, predictor(path, given), strict=True):
            assert same_keypoints(person.keypoints, alone.keypoints)
            np.testing.assert_array_equal(person.box, alone.box)
    whole = predictor((paths[0], cv2.imread(paths[1])[..., ::-1]))
    assert [len(people) for people in whole] == [1, 1]
    assert whole[1][0].box.tolist() == [0, 0, tiny.WIDTH, tiny.HEIGHT]
    assert predictor([]) == []
    with pytest.raises(InputError, match="1 lists of boxes for 3 images"):
        predictor(paths, boxes[:1])


def test_the_detector_is_called_once_for_images_without_boxes(run):
    calls = []

    def detector(images):
        calls.append([image.shape for image in images])
        assert np.abs(images[0].astype(int) - cv2.imread(paths[0])[..., ::-1]).max() == 0
        return [(np.array([[8.0, 12, 44, 64]]), np.array([0.75])), (np.zeros((0, 4)), np.zeros(0))]

    paths = [run.data.table.path(row) for row in (0, 2, 4)]
    predictor = Predictor(run.cfg, run.model.state_dict(), device="cpu", detector=detector)
    first, given, nobody = predictor(paths, [None, [[8, 12, 44, 64]], None])
    assert len(calls) == 1 and len(calls[0]) == 2
    assert [person.box_score for person in first] == [0.75]
    assert [person.box_score for person in given] == [1.0]
    assert len(nobody) == 0
    assert predictor.names[:2] == ("nose", "left_eye") and len(predictor.names) == 17


def test_scores_of_boxes_are_checked_and_kept(run, predictor):
    path, boxes = run.data.table.path(0), [[8, 12, 44, 64], [63, 12, 44, 64]]
    assert [pose.box_score for pose in predictor(path, boxes, [0.25, 0.5])] == [0.25, 0.5]
    first, second = predictor([path, path], [boxes, boxes[:1]], [None, [0.75]])
    assert first.box_score.tolist() == [1, 1] and second.box_score.tolist() == [0.75]
    with pytest.raises(InputError, match="box_scores: got 1 scores for 2 boxes"):
        predictor(path, boxes, [0.5])


@pytest.mark.parametrize(
    ("boxes", "message"),
    [
        ([[0, 0, 10, 10], [5, 5, 0, 10]], r"box 1 is \[5.0, 5.0, 0.0, 10.0\]"),
        ([[0, 0, -3, 10]], "box 0 is"),
        ([[0, float("nan"), 3, 10]], "box 0 is"),
        ([[0, 0, 10, 10, 0.9]] * 4, r"boxes must be \(N, 4\).*\(4, 5\)"),
        ([1, 2, 3], r"boxes must be \(N, 4\)"),
    ],
)
def test_an_invalid_box_is_an_error_that_names_it(run, boxes, message, predictor):
    with pytest.raises(InputError, match=message):
        predictor(run.data.table.path(0), boxes)


@pytest.mark.parametrize(
    "image",
    [
        np.zeros((10, 10), np.uint8),
        np.zeros((10, 10, 4), np.uint8),
        np.zeros((10, 10, 3), np.float32),
        np.zeros((0, 10, 3), np.uint8),
    ],
)
def test_an_invalid_array_is_an_error_that_says_what_an_image_is(image, predictor):
    with pytest.raises(InputError, match=r"an image must be a \(height, width, 3\) uint8 array"):
        predictor(image)


def test_without_arguments_the_built_in_network_is_used(tmp_path, run, monkeypatch):
    small = shipped.ShippedNetwork(tmp_path / "tiny.yaml", tmp_path / "weights.pth")
    monkeypatch.setattr(shipped, "TOP_DOWN", small)
    boxes = np.array([[1.0, 2, 30, 40], [5, 5, 20, 20]])
    monkeypatch.setattr(PersonDetector, "__call__", lambda *_: [(boxes, np.array([0.5, 0.25]))])
    path = run.data.table.path(0)
    found = Predictor()(path)
    expected = Predictor(run.cfg, tmp_path / "weights.pth")(path, boxes, [0.5, 0.25])
    np.testing.assert_array_equal(found.keypoints, expected.keypoints)
    np.testing.assert_array_equal(found.box_score, [0.5, 0.25])


def test_the_pose_detector_encloses_people_and_drops_uncertain_ones(monkeypatch):
    keypoints = np.zeros((2, 17, 2), np.float32)
    keypoints[0] += np.linspace(20, 60, 17)[:, None] * (1, 0.5)
    box = np.array([[20, 10, 40, 20], [0, 0, 5, 5]], np.float32)
    people = Poses(
        image=np.zeros(2),
        keypoints=keypoints,
        scores=np.ones((2, 17), np.float32),
        score=np.array([0.5, 0.05], np.float32),
        box=box,
        box_score=np.ones(2, np.float32),
        row=np.full(2, -1),
    )
    detector = PersonDetector()
    monkeypatch.setattr(PersonDetector, "_predictor", staticmethod(lambda image: people))
    ((boxes, scores),) = detector([np.zeros((100, 62, 3), np.uint8)])
    # A margin of 0.07 of the longer side on each side, but not beyond the width of 62.
    np.testing.assert_allclose(boxes, [[17.2, 7.2, 44.8, 25.6]])
    np.testing.assert_allclose(scores, [0.5])
    ((boxes, scores),) = detector([np.zeros((10, 200, 3), np.uint8)])
    np.testing.assert_allclose(boxes, [[0, 0, 200, 10]])
    np.testing.assert_allclose(scores, [1])


def test_without_weights_the_experiments_model_file_is_used(tmp_path, run):
    path = run.data.table.path(0)
    experiment = tmp_path / "tiny.yaml"
    cfg = load_config(experiment, ["TEST.MODEL_FILE", str(tmp_path / "weights.pth")])
    (found,), (expected,) = (
        predictor(path)
        for predictor in (Predictor(cfg), Predictor(experiment, run.model.state_dict()))
    )
    np.testing.assert_array_equal(found.keypoints, expected.keypoints)
    with pytest.raises(InputError, match=r"weights: give a file; TEST\.MODEL_FILE"):
        Predictor(run.cfg)


def test_weights_without_an_experiment_are_an_error(tmp_path):
    with pytest.raises(InputError, match="cfg: required with weights"):
        Predictor(weights=tmp_path / "weights.pth")


def test_nan_weights_are_an_error(run):
    state = run.model.state_dict()
    state["final_layer.bias"][0] = float("nan")
    predictor = Predictor(run.cfg, state, device="cpu")
    with pytest.raises(InputError, match="contains NaN or Inf; check the weights"):
        predictor(run.data.table.path(0))


def test_a_missing_image_weights_file_or_data_set_is_an_error(tmp_path, run, predictor):
    with pytest.raises(InputError, match="there is no such image"):
        predictor(tmp_path / "none.jpg")
    with pytest.raises(InputError, match=r"none\.pth"):
        Predictor(run.cfg, tmp_path / "none.pth", device="cpu")

    def other(**sections):
        return load_config(tiny.experiment(tmp_path / "other.yaml", tmp_path, **sections))

    with pytest.raises(InputError, match=r"DATASET\.DATASET: unknown data set 'cocoa'"):
        Predictor(other(DATASET={"DATASET": "cocoa"}), {}, device="cpu")
    with pytest.raises(InputError, match=r"MODEL\.NUM_JOINTS is 16, but coco has 17"):
        Predictor(other(MODEL={"NUM_JOINTS": 16}), {}, device="cpu")


@pytest.mark.parametrize("boxes", [5, [5], [[0, 0, 10**400, 1]], "a", [None, None], object()])
def test_boxes_of_a_wrong_type_are_one_line(predictor, boxes):
    image = np.zeros((20, 20, 3), np.uint8)
    for arguments in ((image, boxes), ([image], boxes)):
        with pytest.raises(InputError) as error:
            predictor(*arguments)
        assert "\n" not in str(error.value)


def test_tensors_and_pillow_images_are_accepted(predictor):
    array = np.random.default_rng(0).integers(0, 256, (20, 20, 3), np.uint8)
    boxes = torch.tensor([[0.0, 0.0, 20.0, 20.0]], requires_grad=True)
    pillow = pytest.importorskip("PIL.Image").fromarray(array)
    expected, *others = predictor([array, torch.tensor(array), pillow], [boxes] * 3)
    for found in others:
        np.testing.assert_array_equal(found.keypoints, expected.keypoints)
    with pytest.raises(InputError, match="path or an array, not a int"):
        predictor(5)
