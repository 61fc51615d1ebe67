"""Tests of tools/demo.py: drawings, results and errors for images and videos."""

import csv
import json
from argparse import Namespace

import cv2
import numpy as np
import pytest
import torch

from lib.config import load_config
from lib.core.inference import PoseDetector, Predictor
from lib.media.smoothing import OneEuro
from lib.models import build_model, shipped
from tests import tiny
from tests.tools.runs import is_one_line, leftovers, output, write


@pytest.fixture
def demo(root, command):
    """Run the demo with a tiny untrained network: demo(options ...) writes to demo.folder."""
    experiment = write(root)
    model = tiny.randomize_weights(build_model(load_config(experiment)))
    torch.save(model.state_dict(), root.parent / "weights.pth")
    level = cv2.utils.logging.getLogLevel()

    def run(*options, weights=root.parent / "weights.pth"):
        given = ("--weights", weights) if weights else ()
        return command(
            "demo", "--cfg", experiment, *given, "--output", run.folder, "--device", "cpu", *options
        )

    run.folder = root.parent / "found"
    run.experiment = experiment
    yield run
    cv2.utils.logging.setLogLevel(level)


@pytest.fixture
def images(root):
    return root / "images" / "val2017"


@pytest.fixture
def annotations(root):
    return root / "annotations" / "person_keypoints_val2017.json"


def results(demo) -> list[dict]:
    return json.loads((demo.folder / "results.json").read_text())


def write_video(path, frames: int = 12, size=(64, 48)):
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter_fourcc(*"mp4v"), 20, size)
    for number in range(frames):
        writer.write(np.full((size[1], size[0], 3), 8 * number, np.uint8))
    writer.release()
    return path


def test_pictures_become_drawings_and_results_in_cocos_layout(demo, root, images):
    boxes = [
        {"image_id": image, "bbox": [8 + 55 * n, 12, 44, 64], "score": 0.5 + 0.1 * n}
        for image in (1, 2)
        for n in (0, 1)
    ]
    (root.parent / "boxes.json").write_text(json.dumps(boxes))
    options = ("--boxes", root.parent / "boxes.json", "--threshold", "-9")
    ended = demo("--input", images, *options, "TEST.FLIP_TEST", "False")
    assert ended.code == 0 and ended.err == "", ended
    assert "4 people in 2 frames" in ended.out
    found = results(demo)
    names = ["000000000001.jpg", "000000000002.jpg"]
    assert [(e["image_id"], e["file_name"]) for e in found] == [(1, names[0])] * 2 + [
        (2, names[1])
    ] * 2
    cfg = load_config(demo.experiment, ["TEST.FLIP_TEST", "False"])
    predictor = Predictor(cfg, root.parent / "weights.pth", device="cpu")
    for entry, box in zip(found, boxes, strict=True):
        assert entry["category_id"] == 1 and entry["bbox"] == box["bbox"]
        (person,) = predictor(images / entry["file_name"], [box["bbox"]])
        table = np.reshape(entry["keypoints"], (17, 3))
        assert (np.abs(table[:, :2] - person.keypoints).max(1) < 0.02).mean() > 0.9
        assert entry["score"] == pytest.approx(person.score * box["score"], abs=1e-3)
    for name in names:
        drawn, plain = (cv2.imread(str(f / name)) for f in (demo.folder / "pictures", images))
        assert drawn.shape == plain.shape and (np.abs(drawn.astype(int) - plain).max(2) > 90).any()
    assert not leftovers(demo.folder)


def test_a_video_becomes_a_video_whose_people_have_numbers(demo, tmp_path):
    path = write_video(tmp_path / "a.mp4")
    boxes = [
        {"file_name": "a.mp4", "frame": frame, "bbox": [x + frame, 5, 20, 30]}
        for frame in range(12)
        for x in ((2, 34) if frame % 2 else (34, 2))
    ]
    (tmp_path / "boxes.json").write_text(json.dumps(boxes))
    options = ("--input", path, "--boxes", tmp_path / "boxes.json", "--batch", "5")
    assert demo(*options).code == 0
    plain = results(demo)
    assert [e["frame"] for e in plain] == [n for n in range(12) for _ in range(2)]
    assert [e["image_id"] for e in plain] == [n + 1 for n in range(12) for _ in range(2)]
    for entry in plain:
        assert entry["track_id"] == (1 if entry["bbox"][0] - entry["frame"] == 34 else 2)
    video = cv2.VideoCapture(str(demo.folder / "pictures" / "a.mp4"))
    assert (video.get(cv2.CAP_PROP_FRAME_COUNT), video.get(cv2.CAP_PROP_FPS)) == (12, 20)
    # The results can be used as boxes again.
    (tmp_path / "again.json").write_bytes((demo.folder / "results.json").read_bytes())
    ended = demo("--input", path, "--boxes", tmp_path / "again.json", "--no-track", "--no-pictures")
    assert ended.code == 0
    assert [e["bbox"] for e in results(demo)] == [e["bbox"] for e in plain]
    assert "track_id" not in results(demo)[0]


def test_the_joints_of_each_person_are_smoothed_over_the_frames(demo, tmp_path):
    path = write_video(tmp_path / "a.mp4")
    boxes = [
        {"file_name": "a.mp4", "frame": frame, "bbox": [x + 3 * frame, 5, 20, 30]}
        for frame in range(12)
        for x in (1, 25)
    ]
    (tmp_path / "boxes.json").write_text(json.dumps(boxes))
    options = ("--input", path, "--boxes", tmp_path / "boxes.json", "--threshold", "-9")
    coords = []
    for more in ((), ("--smooth",)):
        assert demo(*options, *more).code == 0
        found = [e for e in results(demo) if e["track_id"] == 2]
        coords.append(np.array([np.reshape(e["keypoints"], (17, 3))[:, :2] for e in found]))
    plain, smoothed = coords
    smooth = OneEuro(rate=20)
    expected = [smooth(one, np.sqrt(600), np.ones(17, bool)) for one in plain]
    np.testing.assert_allclose(smoothed, expected, atol=0.05)
    assert np.abs(smoothed - plain).max() > 0.2


def test_annotations_give_boxes_errors_and_the_worst_pictures(demo, images, annotations):
    ended = demo("--input", images, "--annotations", annotations)
    assert ended.code == 0 and "| nose |" in ended.out, ended
    content = json.loads(annotations.read_text())
    found = results(demo)
    assert [e["bbox"] for e in found] == [p["bbox"] for p in content["annotations"]]
    with (demo.folder / "errors.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    for row, entry, person in zip(rows, found, content["annotations"], strict=True):
        assert row["person"] == str(person["id"])
        predicted, annotated = (np.reshape(p["keypoints"], (17, 3)) for p in (entry, person))
        distances = np.linalg.norm(predicted[:, :2] - annotated[:, :2], axis=1)
        for joint, (distance, flag) in enumerate(zip(distances, annotated[:, 2], strict=True)):
            written = list(row.values())[2 + joint]
            assert written == "" if not flag else abs(float(written) - distance) < 0.02
    assert (demo.folder / "errors_by_joint.csv").exists()
    assert {e["category_id"] for e in found} == {1}
    content["categories"] = [{"id": n, "name": str(n), "keypoints": ["x"] * 17} for n in (4, 9)]
    for person, category in zip(content["annotations"], (4, 9, 9, 4), strict=True):
        person["category_id"] = category
    annotations.write_text(json.dumps(content))
    assert demo("--input", images, "--annotations", annotations, "--no-pictures").code == 0
    assert [e["category_id"] for e in results(demo)] == [4, 9, 9, 4]
    assert cv2.imread(str(demo.folder / "worst.jpg")) is not None


def test_annotations_of_other_joints_are_one_line_and_the_rest_goes_on(demo, images, annotations):
    content = json.loads(annotations.read_text())
    for person in content["annotations"]:
        person["keypoints"] = person["keypoints"][:45]
    annotations.write_text(json.dumps(content))
    ended = demo("--input", images, "--annotations", annotations)
    assert is_one_line(ended, "4 of 4 annotations do not match the network's 17 joints")
    assert len(results(demo)) == 4 and "0 annotated people" in ended.out


def test_what_cannot_be_used_is_a_line_each_and_the_rest_is_done(demo, images, tmp_path):
    (images / "0.jpg").touch()
    whole = (images / "000000000001.jpg").read_bytes()
    (images / "000000000001.jpg").write_bytes(whole[:800])
    cv2.imwrite(str(images / "3.png"), np.zeros((1, 1), np.uint8))
    ended = demo("--input", images, "--input", "none.jpg", "97")
    lines = ended.err.splitlines()
    assert ended.code == 1 and len(lines) == 4, ended
    for part in (
        "none.jpg",
        "0.jpg",
        "000000000001.jpg: the image file is truncated",
        "97: cannot",
    ):
        assert sum(part in line for line in lines) >= 1
    assert all(line.startswith("error: ") for line in lines)
    assert [e["file_name"] for e in results(demo)] == ["000000000002.jpg", "3.png"]
    names = sorted(path.name for path in (demo.folder / "pictures").iterdir())
    assert names == ["000000000002.jpg", "3.png"]


def test_pictures_are_turned_as_their_header_says_but_not_beside_annotations(
    demo, images, annotations
):
    for path in images.iterdir():
        jpeg = path.read_bytes()
        tiff = b"II*\0\x08\0\0\0\x01\0\x12\x01\x03\0\x01\0\0\0\x06\0\0\0\0\0\0\0"
        body = b"Exif\0\0" + tiff
        head = b"\xff\xe1" + (len(body) + 2).to_bytes(2, "big")
        path.write_bytes(jpeg[:2] + head + body + jpeg[2:])
    drawn = demo.folder / "pictures" / "000000000001.jpg"
    assert demo("--input", images).code == 0
    assert cv2.imread(str(drawn)).shape == (tiny.WIDTH, tiny.HEIGHT, 3)
    assert results(demo)[0]["bbox"] == [0, 0, tiny.HEIGHT, tiny.WIDTH]
    assert demo("--input", images, "--annotations", annotations).code == 0
    assert cv2.imread(str(drawn)).shape == (tiny.HEIGHT, tiny.WIDTH, 3)


def test_an_interrupt_keeps_what_is_finished(demo, tool, command, tmp_path, monkeypatch, root):
    path = write_video(tmp_path / "a.mp4", frames=30)
    module = tool("demo")
    plain, calls = module.ResultsWriter.add, []

    def add(self, *arguments):
        calls.append(1)
        if len(calls) == 10:
            raise KeyboardInterrupt
        plain(self, *arguments)

    monkeypatch.setattr(module.ResultsWriter, "add", add)
    options = ("--cfg", demo.experiment, "--weights", root.parent / "weights.pth")
    ended = command(module, *options, "--output", demo.folder, "--input", path, "--batch", "4")
    assert ended.code == 130 and ended.err == "interrupted\n", ended
    assert len(results(demo)) == 9
    video = cv2.VideoCapture(str(demo.folder / "pictures" / "a.mp4"))
    assert video.get(cv2.CAP_PROP_FRAME_COUNT) == 9
    assert not leftovers(demo.folder)


@pytest.fixture
def window(monkeypatch):
    """Replace OpenCV's windows. Returns the images shown; q is pressed at the third."""
    shown = []
    monkeypatch.setattr(cv2, "currentUIFramework", lambda: "QT")
    monkeypatch.setattr("lib.media.live.subprocess.run", lambda *a, **k: Namespace(returncode=0))
    monkeypatch.setattr(cv2, "imshow", lambda title, image: shown.append(image))
    monkeypatch.setattr(cv2, "waitKey", lambda delay: ord("q") if len(shown) == 3 else -1)
    monkeypatch.setattr(cv2, "getWindowProperty", lambda *words: 1.0)
    monkeypatch.setattr(cv2, "destroyAllWindows", lambda: shown.append(None))
    return shown


def test_q_in_the_window_ends_the_run_and_keeps_what_is_finished(demo, window, tmp_path):
    path = write_video(tmp_path / "a.mp4")
    ended = demo("--input", path, "--show", "--showFps", "--csv")
    assert ended.code == 0 and ended.err == "" and "3 people in 3 frames" in ended.out, ended
    assert [image is None for image in window] == [False, False, False, True]
    assert [entry["frame"] for entry in results(demo)] == [0, 1, 2]
    assert len((demo.folder / "pose-data.csv").read_text().splitlines()) == 4
    video = cv2.VideoCapture(str(demo.folder / "pictures" / "a.mp4"))
    assert video.get(cv2.CAP_PROP_FRAME_COUNT) == 3
    assert not leftovers(demo.folder)


def test_without_windows_nothing_is_done(demo, images, monkeypatch):
    monkeypatch.setattr(cv2, "currentUIFramework", lambda: "")
    assert is_one_line(demo("--input", images, "--show"), "--show", "pip install opencv-python")
    assert not demo.folder.exists()


def test_a_lower_rate_takes_fewer_frames_and_is_that_of_the_video(demo, tmp_path):
    path = write_video(tmp_path / "a.mp4")
    assert demo("--input", path, "--inferenceFps", "8").code == 0
    assert [entry["frame"] for entry in results(demo)] == [0, 3, 5, 8, 10]
    video = cv2.VideoCapture(str(demo.folder / "pictures" / "a.mp4"))
    assert (video.get(cv2.CAP_PROP_FRAME_COUNT), video.get(cv2.CAP_PROP_FPS)) == (5, 8)


def test_an_image_too_large_is_one_line_and_the_rest_goes_on(demo, images):
    tiny.write_huge_png(images / "000000000003.png")
    ended = demo("--input", images)
    assert is_one_line(ended, "000000000003.png is 30000 x 30000 pixels", "resize the image")
    assert len(results(demo)) == 2


def test_a_word_in_capitals_may_be_a_file(demo, images):
    assert is_one_line(
        demo("--input", images, "NOTHERE"), "--input: NOTHERE: there is no such file"
    )
    assert len(results(demo)) == 2


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("--boxes", "a.json", "--detector", "none"), "--boxes, --detector"),
        (("--boxes", "none.json"), "none.json: there is no such file"),
        (("--detector", "yolo"), "--detector: unknown detector 'yolo'"),
        (("--detector", "none.yaml"), "none.yaml: there is no such file"),
        (("--detector-classes", "dog"), "--detector-classes: needs --detector"),
        (("--annotations", "none.json"), "none.json: there is no such file"),
        (("--detector-threshold", "0.3"), "--detector-threshold: needs --detector or --boxes"),
        (("--smooth", "--no-track"), "--smooth: needs tracking"),
        (("--batch", "0"), "--batch: must be 1 or more"),
        (("--device", "abc"), "--device: abc is not available"),
        (("--inference-fps", "0"), "--inference-fps: must be 0.01 or more"),
        (("--show-fps", "--no-pictures"), "--show-fps: add --show"),
    ],
)
def test_wrong_options_are_one_line(demo, images, options, message):
    assert is_one_line(demo("--input", images, *options), message)
    assert not list(demo.folder.glob("results.json"))


@pytest.fixture
def built_in_network(demo, root, monkeypatch):
    """Replace the built-in network by a tiny one, and return its weights."""
    small = shipped.ShippedNetwork(demo.experiment, root.parent / "weights.pth")
    monkeypatch.setattr(shipped, "TOP_DOWN", small)
    return root.parent / "weights.pth"


def test_the_input_alone_is_enough(demo, built_in_network, command, images, monkeypatch, root):
    def whole(self, images):
        return [(np.array([[0.0, 0, *image.shape[1::-1]]]), np.ones(1)) for image in images]

    monkeypatch.setattr(PoseDetector, "__call__", whole)
    ended = command("demo", "--input", images, "--device", "cpu")
    assert ended.code == 0 and str(built_in_network) in ended.out, ended
    found = root.parent / "output" / "demo" / "tiny" / "results.json"
    assert demo("--input", images).code == 0
    assert json.loads(found.read_text()) == results(demo)


def test_annotated_boxes_come_before_the_built_in_detector(
    demo, built_in_network, command, images, annotations, root
):
    words = ["--input", images, "--annotations", annotations, "--device", "cpu", "--no-pictures"]
    ended = command("demo", *words)
    assert ended.code == 0, ended
    found = json.loads((root.parent / "output" / "demo" / "tiny" / "results.json").read_text())
    known = json.loads(annotations.read_text())["annotations"]
    assert [person["bbox"] for person in found] == [person["bbox"] for person in known]


def test_weights_alone_are_one_line(demo, built_in_network, command, images):
    ended = command("demo", "--input", images, "--weights", built_in_network)
    assert is_one_line(ended, "--weights: needs --cfg")


def test_weights_beside_the_experiment_are_taken_last(demo, root, images):
    beside = demo.experiment.with_suffix(".pth")
    beside.write_bytes((root.parent / "weights.pth").read_bytes())
    ended = demo("--input", images, weights=None)
    assert ended.code == 0 and f"=> {beside}; " in ended.out, ended
    trained = output(root) / "model_best.pth"
    trained.parent.mkdir(parents=True, exist_ok=True)
    beside.rename(trained)
    ended = demo("--input", images, weights=None)
    assert ended.code == 0 and f"=> {trained}; " in ended.out, ended


def test_the_log_says_when_whole_images_stand_for_boxes(demo, images, annotations):
    line = "each whole image is treated as one person"
    assert line in demo("--input", images).out
    for options in (("--detector", "none"), ("--annotations", annotations)):
        ended = demo("--input", images, *options)
        assert ended.code == 0 and line not in ended.out, ended


def test_without_weights_the_error_says_what_to_do(demo, images):
    assert is_one_line(demo("--input", images, weights=None), "TEST.MODEL_FILE", "train first")
    assert is_one_line(demo("--input", images, weights="none.pth"), "none.pth")
