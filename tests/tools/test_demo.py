"""Tests of tools/demo.py: drawings, results and errors for images and videos."""

import csv
import json
from argparse import Namespace

import cv2
import numpy as np
import pytest

from lib.config import load_config
from lib.core.inference import PersonDetector, Predictor
from lib.media.smoothing import OneEuro
from lib.models import shipped
from tests import tiny
from tests.tools.runs import is_one_line, leftovers, output, random_weights, write


@pytest.fixture
def demo(root, command):
    """Run the demo with a tiny network: demo(options ...) writes to demo.folder."""
    level = cv2.utils.logging.getLogLevel()

    weights = random_weights(root)

    def run(*options, weights=weights):
        given = ("--weights", weights) if weights else ()
        return command("demo", *run.words, *given, *options)

    run.folder, run.experiment, run.weights = root.parent / "found", write(root), weights
    run.words = ("--cfg", run.experiment, "--output", run.folder, "--device", "cpu")
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


def write_boxes(folder, boxes: list[dict]):
    (folder / "boxes.json").write_text(json.dumps(boxes))
    return folder / "boxes.json"


def frames_and_rate(demo) -> tuple[float, float]:
    """Return the number of frames of the video a.mp4, and its frames per second."""
    video = cv2.VideoCapture(str(demo.folder / "pictures" / "a.mp4"))
    return video.get(cv2.CAP_PROP_FRAME_COUNT), video.get(cv2.CAP_PROP_FPS)


def write_video(path, frames: int = 12, size=(64, 48)):
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter_fourcc(*"mp4v"), 20, size)
    for number in range(frames):
        writer.write(np.full((size[1], size[0], 3), 8 * number, np.uint8))
    writer.release()
    return path


def test_images_give_drawings_and_results_in_coco_format(demo, root, images):
    boxes = [
        {"image_id": image, "bbox": [8 + 55 * n, 12, 44, 64], "score": 0.5 + 0.1 * n}
        for image in (1, 2)
        for n in (0, 1)
    ]
    options = ("--boxes", write_boxes(root.parent, boxes), "--threshold", "-9")
    ended = demo("--input", images, *options, "TEST.FLIP_TEST", "False")
    assert ended.code == 0 and ended.err == "", ended
    assert "4 people in 2 frames" in ended.out
    found = results(demo)
    names = ["000000000001.jpg", "000000000002.jpg"]
    expected = [(1, names[0]), (1, names[0]), (2, names[1]), (2, names[1])]
    assert [(e["image_id"], e["file_name"]) for e in found] == expected
    cfg = load_config(demo.experiment, ["TEST.FLIP_TEST", "False"])
    predictor = Predictor(cfg, demo.weights, device="cpu")
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


def test_people_in_a_video_are_tracked(demo, tmp_path):
    path = write_video(tmp_path / "a.mp4")
    boxes = [
        {"file_name": "a.mp4", "frame": frame, "bbox": [x + frame, 5, 20, 30]}
        for frame in range(12)
        for x in ((2, 34) if frame % 2 else (34, 2))
    ]
    options = ("--input", path, "--boxes", write_boxes(tmp_path, boxes), "--batch", "5")
    assert demo(*options).code == 0
    plain = results(demo)
    assert [e["frame"] for e in plain] == [n for n in range(12) for _ in range(2)]
    assert [e["image_id"] for e in plain] == [n + 1 for n in range(12) for _ in range(2)]
    for entry in plain:
        assert entry["track_id"] == (1 if entry["bbox"][0] - entry["frame"] == 34 else 2)
    assert frames_and_rate(demo) == (12, 20)
    # The results can be used as boxes again.
    (tmp_path / "again.json").write_bytes((demo.folder / "results.json").read_bytes())
    ended = demo("--input", path, "--boxes", tmp_path / "again.json", "--no-track", "--no-pictures")
    assert ended.code == 0
    assert [e["bbox"] for e in results(demo)] == [e["bbox"] for e in plain]
    assert "track_id" not in results(demo)[0]


def test_boxes_of_other_images_are_reported(demo, tmp_path):
    path = write_video(tmp_path / "a.mp4")
    boxes = write_boxes(tmp_path, [{"file_name": "b.mp4", "frame": 0, "bbox": [2, 5, 20, 30]}])
    ended = demo("--input", path, "--boxes", boxes, "--no-pictures")
    assert "boxes.json was used; boxes are matched to the inputs by file_name" in ended.out


def test_joints_are_smoothed_over_the_frames_of_a_video(demo, tmp_path):
    path = write_video(tmp_path / "a.mp4")
    boxes = [
        {"file_name": "a.mp4", "frame": frame, "bbox": [x + 3 * frame, 5, 20, 30]}
        for frame in range(12)
        for x in (1, 25)
    ]
    options = ("--input", path, "--boxes", write_boxes(tmp_path, boxes), "--threshold", "-9")
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


def test_annotations_give_boxes_errors_and_worst_images(demo, images, annotations):
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


def test_annotations_of_other_joints_are_skipped_with_one_line(demo, images, annotations):
    content = json.loads(annotations.read_text())
    for person in content["annotations"]:
        person["keypoints"] = person["keypoints"][:45]
    annotations.write_text(json.dumps(content))
    ended = demo("--input", images, "--annotations", annotations)
    assert is_one_line(ended, "4 of 4 annotations do not match the network's 17 joints")
    assert len(results(demo)) == 4 and "0 annotated people" in ended.out


def test_each_unusable_input_is_one_line_and_the_others_are_processed(demo, images, tmp_path):
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
        assert part in ended.err
    assert all(line.startswith("error: ") for line in lines)
    assert [e["file_name"] for e in results(demo)] == ["000000000002.jpg", "3.png"]
    names = sorted(path.name for path in (demo.folder / "pictures").iterdir())
    assert names == ["000000000002.jpg", "3.png"]


def test_images_are_rotated_by_exif_unless_there_are_annotations(demo, images, annotations):
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


def test_an_interrupt_keeps_finished_results(demo, tool, command, tmp_path, monkeypatch):
    path = write_video(tmp_path / "a.mp4", frames=30)
    module = tool("demo")
    plain, calls = module.ResultsWriter.add, []

    def add(self, *arguments):
        calls.append(1)
        if len(calls) == 10:
            raise KeyboardInterrupt
        plain(self, *arguments)

    monkeypatch.setattr(module.ResultsWriter, "add", add)
    options = ("--weights", demo.weights, "--input", path, "--batch", "4")
    ended = command(module, *demo.words, *options)
    assert ended.code == 130 and ended.err == "interrupted\n", ended
    assert len(results(demo)) == 9
    assert frames_and_rate(demo)[0] == 9
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


def test_q_ends_the_run_and_keeps_finished_results(demo, window, tmp_path):
    path = write_video(tmp_path / "a.mp4")
    ended = demo("--input", path, "--show", "--showFps", "--csv")
    assert ended.code == 0 and ended.err == "" and "3 people in 3 frames" in ended.out, ended
    assert [image is None for image in window] == [False, False, False, True]
    assert [entry["frame"] for entry in results(demo)] == [0, 1, 2]
    assert len((demo.folder / "pose-data.csv").read_text().splitlines()) == 4
    assert frames_and_rate(demo)[0] == 3
    assert not leftovers(demo.folder)


def test_show_without_window_support_is_a_one_line_error(demo, images, monkeypatch):
    monkeypatch.setattr(cv2, "currentUIFramework", lambda: "")
    assert is_one_line(demo("--input", images, "--show"), "--show", "pip install opencv-python")
    assert not demo.folder.exists()


def test_inference_fps_skips_frames_and_sets_the_rate_of_the_video(demo, tmp_path):
    path = write_video(tmp_path / "a.mp4")
    assert demo("--input", path, "--inferenceFps", "8").code == 0
    assert [entry["frame"] for entry in results(demo)] == [0, 3, 5, 8, 10]
    assert frames_and_rate(demo) == (5, 8)


def test_a_word_in_capitals_is_taken_for_a_file(demo, images):
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
        (("--detector-threshold", "0.3"), "--detector-threshold: needs --detector, --boxes"),
        (("--smooth", "--no-track"), "--smooth: needs tracking"),
        (("--batch", "0"), "--batch: must be 1 or more"),
        (("--device", "abc"), "--device: abc is not available"),
        (("--inference-fps", "0"), "--inference-fps: must be 0.01 or more"),
        (("--show-fps", "--no-pictures"), "--show-fps: add --show"),
    ],
)
def test_invalid_options_are_one_line_errors(demo, images, options, message):
    assert is_one_line(demo("--input", images, *options), message)
    assert not list(demo.folder.glob("results.json"))


def test_a_folder_with_inputs_is_not_an_output_folder(demo, images):
    pictures = images.rename(images.with_name("pictures"))
    ended = demo("--input", pictures, "--output", pictures.parent)
    assert is_one_line(ended, "--output", "contains inputs")


@pytest.fixture
def built_in_network(demo, monkeypatch):
    """Replace the built-in network by a tiny one."""
    small = shipped.ShippedNetwork(demo.experiment, demo.weights)
    monkeypatch.setattr(shipped, "TOP_DOWN", small)


def test_weights_without_cfg_are_a_one_line_error(command, images):
    assert is_one_line(command("demo", "--input", images, "--weights", "w.pth"), "needs --cfg")


def test_input_is_the_only_required_option(
    demo, built_in_network, succeed, images, monkeypatch, root
):
    def whole(self, images):
        return [(np.array([[0.0, 0, *image.shape[1::-1]]]), np.ones(1)) for image in images]

    monkeypatch.setattr(PersonDetector, "__call__", whole)
    ended = succeed("demo", "--input", images, "--device", "cpu")
    assert str(demo.weights) in ended.out, ended
    found = root.parent / "output" / "demo" / "tiny" / "results.json"
    assert demo("--input", images).code == 0
    assert json.loads(found.read_text()) == results(demo)


def test_annotated_boxes_replace_the_built_in_detector(
    demo, built_in_network, succeed, images, annotations, root
):
    words = ["--input", images, "--annotations", annotations, "--device", "cpu", "--no-pictures"]
    succeed("demo", *words)
    found = json.loads((root.parent / "output" / "demo" / "tiny" / "results.json").read_text())
    known = json.loads(annotations.read_text())["annotations"]
    assert [person["bbox"] for person in found] == [person["bbox"] for person in known]


def test_trained_weights_precede_those_next_to_the_experiment(demo, root, images):
    beside = demo.experiment.with_suffix(".pth")
    beside.write_bytes((demo.weights).read_bytes())
    ended = demo("--input", images, weights=None)
    assert ended.code == 0 and f"=> {beside}; " in ended.out, ended
    trained = output(root) / "model_best.pth"
    trained.parent.mkdir(parents=True, exist_ok=True)
    beside.rename(trained)
    ended = demo("--input", images, weights=None)
    assert ended.code == 0 and f"=> {trained}; " in ended.out, ended


def test_the_log_mentions_whole_images_used_as_boxes(demo, images, annotations):
    line = "each whole image is treated as one person"
    assert line in demo("--input", images).out
    for options in (("--detector", "none"), ("--annotations", annotations)):
        ended = demo("--input", images, *options)
        assert ended.code == 0 and line not in ended.out, ended


def test_the_error_about_missing_weights_says_what_to_do(demo, images):
    assert is_one_line(demo("--input", images, weights=None), "TEST.MODEL_FILE", "train first")
    assert is_one_line(demo("--input", images, weights="none.pth"), "none.pth")
