"""Detectors: torchvision models and ONNX files, both generated here, and error messages."""

import sys
from pathlib import Path

import numpy as np
import pytest
import torch
import torchvision
import yaml

from lib.keypoints.geometry import corners_to_boxes
from lib.media.detectors import build_detector
from lib.media.onnx_detector import read_settings
from lib.utils import zoo
from lib.utils.errors import InputError

NAME = "ssdlite320_mobilenet_v3_large"


@pytest.fixture(scope="module")
def state() -> dict:
    torch.manual_seed(0)
    return torchvision.models.get_model(NAME, weights=None, weights_backbone=None).state_dict()


@pytest.fixture
def weights(tmp_path, state):
    torch.save(state, tmp_path / "ssd.pth")
    return str(tmp_path / "ssd.pth")


def test_a_torchvision_detector_runs_all_images_of_a_call_in_one_batch(weights):
    detector = build_detector(NAME, weights, threshold=0.0, classes=[str(n) for n in range(91)])
    calls = []
    detector._model.register_forward_pre_hook(lambda _, given: calls.append(len(given[0])))
    rng = np.random.default_rng(0)
    images = [rng.integers(0, 255, (40, 60, 3), np.uint8), np.zeros((30, 20, 3), np.uint8)]
    found = detector(images)
    assert calls == [2] and len(found) == 2
    for (boxes, scores), image in zip(found, images, strict=True):
        assert len(boxes) == len(scores) > 0
        assert (boxes[:, :2] >= 0).all() and (boxes[:, 2:] > 0).all()
        assert (boxes[:, :2] + boxes[:, 2:] <= np.array(image.shape[1::-1]) + 1e-6).all()
        assert (np.diff(scores) <= 0).all()
    assert detector([]) == []


def detections(**values) -> list[dict]:
    return [{name: torch.tensor(value) for name, value in values.items()}]


def test_only_the_given_classes_above_the_threshold_are_kept(weights):
    given = detections(
        boxes=[[1.0, 2, 11, 22], [0, 0, 5, 5], [3, 3, 9, 9], [4, 4, 4, 9], [-5, 5, 90, 99]],
        labels=[1, 1, 18, 1, 1],
        scores=[0.7, 0.2, 0.9, 0.9, 0.8],
    )
    image = np.zeros((50, 60, 3), np.uint8)
    detector = build_detector(NAME, weights, threshold=0.5)
    detector._model = lambda tensors: given
    ((boxes, scores),) = detector([image])
    assert boxes.tolist() == [[0, 5, 60, 45], [1, 2, 10, 20]]
    np.testing.assert_allclose(scores, [0.8, 0.7])
    for classes in (["dog"], ["18"]):
        detector = build_detector(NAME, weights, threshold=0.5, classes=classes)
        detector._model = lambda tensors: given
        assert detector([image])[0][0].tolist() == [[3, 3, 6, 6]]
    with pytest.raises(InputError, match=r"--detector-classes: unknown class 'tiger'.* zebra"):
        build_detector(NAME, weights, classes=["tiger"])


def test_without_internet_the_error_says_how_to_get_the_weights(tmp_path, monkeypatch, state):
    monkeypatch.chdir(tmp_path)

    def offline(*args, **kwargs):
        raise OSError("<urlopen error no route to host>")

    monkeypatch.setattr(torch.hub, "load_state_dict_from_url", offline)
    monkeypatch.setattr("torchvision.models._api.load_state_dict_from_url", offline)
    file = "ssdlite320_mobilenet_v3_large_coco-a79551df.pth"
    command = f"; download with: python tools/get_weights.py {NAME} --root {tmp_path}"
    for weights in ("", "DEFAULT", "COCO_V1", f"models/detectors/{file}"):
        with pytest.raises(InputError) as error:
            build_detector(NAME, weights)
        assert str(error.value).endswith(command)
    monkeypatch.setattr(zoo, "ZOO", tmp_path / "none.yaml")
    message = rf"no route.*get https://\S+/{file} and put it at models/detectors/{file}"
    with pytest.raises(InputError, match=message):  # weights that are not in zoo.yaml
        build_detector(NAME)
    (tmp_path / "models" / "detectors").mkdir(parents=True)
    torch.save(state, tmp_path / "models" / "detectors" / file)
    assert len(build_detector(NAME)([np.zeros((8, 8, 3), np.uint8)])) == 1


def test_published_weights_trained_without_eps_run_without_eps(tmp_path, monkeypatch):
    plain = torch.nn.Sequential(torch.nn.Conv2d(3, 3, 1), torch.nn.BatchNorm2d(3))
    # The published files have frozen batch norms, without num_batches_tracked.
    state = {k: v for k, v in plain.state_dict().items() if "num_batches" not in k}
    monkeypatch.setattr(torchvision.models, "get_model", lambda *a, **k: plain)
    for file, eps in (("fasterrcnn_resnet50_fpn_coco-258fb6c6.pth", 0.0), ("mine.pth", 1e-5)):
        plain[1].eps = 1e-5
        torch.save(state, tmp_path / file)
        build_detector("fasterrcnn_resnet50_fpn", str(tmp_path / file))
        assert plain[1].eps == eps


def test_invalid_names_and_weights_are_errors(tmp_path, weights):
    with pytest.raises(InputError, match=r"unknown detector 'yolo'.*fasterrcnn_resnet50_fpn"):
        build_detector("yolo")
    with pytest.raises(InputError, match=r"none\.pth: there is no such file.*COCO_V1"):
        build_detector(NAME, "none.pth")
    (tmp_path / "text.pth").write_text("no weights")
    with pytest.raises(InputError, match=r"text\.pth: cannot be read as weights"):
        build_detector(NAME, str(tmp_path / "text.pth"))
    torch.save({"a": torch.ones(1)}, tmp_path / "other.pth")
    with pytest.raises(InputError, match=r"other\.pth is not a state dict of ssdlite320"):
        build_detector(NAME, str(tmp_path / "other.pth"))


def test_boxes_outside_the_image_or_without_area_are_dropped():
    corners = np.array(
        [[-5, 0, 5, 5], [60, 0, 70, 9], [3, 3, 2, 9], [np.nan, 0, 1, 1], [0, 0, 9, 9]]
    )
    boxes, scores = corners_to_boxes(corners, np.array([0.1, 1, 1, 1, 0.5]), np.zeros((50, 60, 3)))
    assert boxes.tolist() == [[0, 0, 9, 9], [0, 0, 5, 5]] and scores.tolist() == [0.5, 0.1]


def write_onnx(path, outputs: dict[str, np.ndarray], shape, inputs=("images",)) -> None:
    """Write an ONNX file with an input of ``shape`` that returns ``outputs`` for each image.

    ``boxes`` are multiplied by a second input, orig_target_sizes, as in RT-DETR.
    """
    onnx = pytest.importorskip("onnx")
    pytest.importorskip("onnxruntime")
    node, info = onnx.helper.make_node, onnx.helper.make_tensor_value_info
    kinds = {"f": onnx.TensorProto.FLOAT, "i": onnx.TensorProto.INT64}
    # A zero for each image, computed from the input, to which the outputs are added.
    nodes = [
        node("ReduceMean", [inputs[0]], ["mean"], axes=[1, 2, 3], keepdims=1),
        node("Mul", ["mean", "nothing"], ["zero"]),
    ]
    constants = {"nothing": np.zeros(1, np.float32)}
    given, results = [info(inputs[0], kinds["f"], shape)], []
    for name, value in outputs.items():
        kind = kinds[value.dtype.kind]
        constants[f"{name}_value"] = value[None]
        constants[f"{name}_rank"] = np.array([-1] + [1] * value.ndim)
        is_scaled = name == "boxes"
        nodes += [
            node("Reshape", ["zero", f"{name}_rank"], [f"{name}_flat"]),
            node("Cast", [f"{name}_flat"], [f"{name}_zero"], to=kind),
            node("Add", [f"{name}_zero", f"{name}_value"], ["unit" if is_scaled else name]),
        ]
        results.append(info(name, kind, None))
    if "boxes" in outputs:
        given.append(info(inputs[1], kinds["i"], [shape[0], 2]))
        constants["row"] = np.array([-1, 1, 4])
        nodes += [
            node("Cast", [inputs[1]], ["sizes"], to=kinds["f"]),
            node("Concat", ["sizes", "sizes"], ["twice"], axis=1),
            node("Reshape", ["twice", "row"], ["scale"]),
            node("Mul", ["unit", "scale"], ["boxes"]),
        ]
    stored = [onnx.numpy_helper.from_array(value, name) for name, value in constants.items()]
    graph = onnx.helper.make_graph(nodes, "detector", given, results, stored)
    opset = onnx.helper.make_opsetid("", 13)
    onnx.save(onnx.helper.make_model(graph, opset_imports=[opset], ir_version=8), path)


def write_yaml(tmp_path, **keys) -> str:
    """Write the YAML of the detector in tmp_path / "tiny.onnx"."""
    content = {"MODEL": str(tmp_path / "tiny.onnx"), **keys}
    (tmp_path / "tiny.yaml").write_text(yaml.safe_dump(content))
    return str(tmp_path / "tiny.yaml")


# Width 96 and height 64: grids of 12 x 8, 6 x 4 and 3 x 2 cells. Rows are x, y, log width,
# log height, objectness, and the scores of a person, a cat and a dog.
YOLOX = np.zeros((96 + 24 + 6, 8), np.float32)
# Column 3, row 2 at stride 8: centre (28, 18), size (16, 24): corners (20, 6), (36, 30).
YOLOX[2 * 12 + 3] = [0.5, 0.25, np.log(2), np.log(3), 0.9, 0.8, 0.1, 0.1]
# Column 1, row 1 at stride 16: the same box.
YOLOX[96 + 1 * 6 + 1] = [0.75, 0.125, np.log(1), np.log(1.5), 0.6, 1, 0, 0]
# Column 0, row 1 at stride 32: centre (8, 40), size (8, 16): corners (4, 32), (12, 48).
YOLOX[96 + 24 + 1 * 3] = [0.25, 0.25, np.log(0.25), np.log(0.5), 1, 0.6, 0.2, 0.7]

TALL = np.full((32, 24, 3), 200, np.uint8)  # enlarged twofold in YOLOX's input
WIDE = np.full((16, 96, 3), 100, np.uint8)  # not resized in YOLOX's input


def yolox(tmp_path, batch="n", **keys):
    write_onnx(tmp_path / "tiny.onnx", {"output": YOLOX}, [batch, 3, 64, 96])
    return build_detector(write_yaml(tmp_path, KIND="yolox", **keys))


def test_yolox_boxes_are_decoded_and_suppressed(tmp_path):
    tall, wide = yolox(tmp_path, THRESHOLD=0.5)([TALL, WIDE])
    np.testing.assert_allclose(tall[0], [[10, 3, 8, 12]], atol=1e-5)
    np.testing.assert_allclose(tall[1], [0.72], atol=1e-6)
    np.testing.assert_allclose(wide[0], [[20, 6, 16, 10]], atol=1e-5)  # ends with the image
    path = str(tmp_path / "tiny.yaml")
    for dog in ("2", "dog"):
        write_yaml(tmp_path, KIND="yolox", CLASSES=["person", "cat", "dog"])
        ((boxes, scores),) = build_detector(path, classes=[dog])([TALL])
        np.testing.assert_allclose(boxes, [[2, 16, 4, 8]], atol=1e-5)
        np.testing.assert_allclose(scores, [0.7], atol=1e-6)
    assert len(build_detector(path, threshold=0.73)([TALL])[0][0]) == 0
    with pytest.raises(InputError, match="unknown class 'bicycle'; choose from person, cat, dog"):
        build_detector(path, classes=["bicycle"])
    write_yaml(tmp_path, KIND="yolox")  # COCO's 80 classes
    assert len(build_detector(path, classes=["car"])([TALL])[0][0]) == 1
    with pytest.raises(InputError, match=r"unknown class '80'; choose from person, .* toothbrush"):
        build_detector(path, classes=["80"])


def test_yolox_uses_the_published_nms_threshold(tmp_path):
    detector = yolox(tmp_path)
    table = np.zeros_like(YOLOX)
    # Two boxes 19 pixels wide and 9 high, 8 pixels apart.
    for column, objectness in ((3, 0.9), (4, 0.8)):
        table[2 * 12 + column] = [0, 0, np.log(19 / 8), np.log(9 / 8), objectness, 1, 0, 0]
    # They share 12 x 10 pixels, counted inclusively, of 2 * 20 x 10: IoU 120 / 280.
    detector._run = lambda batch: [table[None]]
    assert len(detector([WIDE])[0][0]) == 2
    detector.nms_threshold = 0.42
    assert len(detector([WIDE])[0][0]) == 1


def test_yolox_input_is_letterboxed_bgr_from_0_to_255(tmp_path):
    image = np.zeros((32, 24, 3), np.uint8)
    image[:] = (200, 100, 60)  # red, green, blue
    prepared = yolox(tmp_path).prepare(image)
    assert prepared.shape == (3, 64, 96) and prepared.dtype == np.float32
    for channel, value in zip(prepared, (60, 100, 200), strict=True):
        assert (channel[:, :48] == value).all() and (channel[:, 48:] == 114).all()
    # 64 / 33 times 25 is 48.48: rounded down.
    prepared = yolox(tmp_path).prepare(np.zeros((33, 25, 3), np.uint8))
    assert (prepared[:, :, :48] == 0).all() and (prepared[:, :, 48:] == 114).all()
    assert yolox(tmp_path).prepare(np.zeros((1, 2000, 3), np.uint8))[0, 0].max() == 0


class Counting:
    """A session that records the batch size of each run."""

    def __init__(self, session) -> None:
        self._session, self.runs = session, []

    def run(self, outputs, feed):
        self.runs.append(len(feed["images"]))
        return self._session.run(outputs, feed)


@pytest.mark.parametrize(("batch", "runs"), [("n", [3]), (1, [1, 1, 1]), (2, [2, 2])])
def test_a_fixed_batch_size_is_used(tmp_path, batch, runs):
    detector = yolox(tmp_path, batch)
    detector._session = session = Counting(detector._session)
    found = detector([TALL, WIDE, TALL])
    assert session.runs == runs
    expected = [[[10, 3, 8, 12]], [[20, 6, 16, 10]], [[10, 3, 8, 12]]]
    for (boxes, _), wanted in zip(found, expected, strict=True):
        np.testing.assert_allclose(boxes, wanted, atol=1e-5)
    assert detector([]) == []


def test_a_dynamic_input_size_is_set_in_the_yaml(tmp_path):
    write_onnx(tmp_path / "tiny.onnx", {"output": YOLOX}, ["n", 3, "height", "width"])
    ((boxes, _),) = build_detector(write_yaml(tmp_path, KIND="yolox", SIZE=[96, 64]))([TALL])
    np.testing.assert_allclose(boxes, [[10, 3, 8, 12]], atol=1e-5)
    with pytest.raises(
        InputError, match=r"tiny\.onnx: .*'height', 'width'.* SIZE: \[width, height"
    ):
        build_detector(write_yaml(tmp_path, KIND="yolox"))


# A person, a dog and a person with a low score: corners relative to the image size.
UNIT = np.array([[0.25, 0.5, 0.5, 1], [0, 0, 0.5, 0.5], [0, 0, 1, 1]], np.float32)


def test_rtdetr_boxes_are_in_pixels_of_each_image(tmp_path):
    outputs = {"labels": np.array([0, 16, 0]), "boxes": UNIT}
    outputs["scores"] = np.array([0.9, 0.8, 0.4], np.float32)
    inputs = ("images", "orig_target_sizes")
    write_onnx(tmp_path / "tiny.onnx", outputs, ["n", 3, 64, 64], inputs)
    path = write_yaml(tmp_path, KIND="rtdetr")
    tall, wide = build_detector(path)([TALL, WIDE])
    np.testing.assert_allclose(tall[0], [[6, 16, 6, 16]], atol=1e-5)
    np.testing.assert_allclose(tall[1], [0.9], atol=1e-6)
    np.testing.assert_allclose(wide[0], [[24, 8, 24, 8]], atol=1e-5)
    ((boxes, _),) = build_detector(path, classes=["dog"])([TALL])
    np.testing.assert_allclose(boxes, [[0, 0, 12, 16]], atol=1e-5)
    ((_, scores),) = build_detector(path, threshold=0.3)([TALL])
    np.testing.assert_allclose(scores, [0.9, 0.4], atol=1e-6)


def test_rtdetr_outputs_of_hugging_face_are_decoded(tmp_path):
    logits = np.array([[np.log(9), np.log(4)], [-9, 0]], np.float32)  # 0.9 and 0.8; 0 and 0.5
    boxes = np.array([[0.375, 0.75, 0.25, 0.5], [0.5, 0.5, 1, 1]], np.float32)
    write_onnx(
        tmp_path / "tiny.onnx",
        {"logits": logits, "pred_boxes": boxes},
        ["n", 3, 64, 64],
        ("pixel_values",),
    )
    path = write_yaml(tmp_path, KIND="rtdetr")
    (tall, wide), both = build_detector(path)([TALL, WIDE]), ["0", "1"]
    np.testing.assert_allclose(tall[0], [[6, 16, 6, 16]], atol=1e-5)
    np.testing.assert_allclose(tall[1], [0.9], atol=1e-6)
    np.testing.assert_allclose(wide[0], [[24, 8, 24, 8]], atol=1e-5)
    ((boxes, scores),) = build_detector(path, classes=both, threshold=0.4)([TALL])
    np.testing.assert_allclose(boxes, [[6, 16, 6, 16], [6, 16, 6, 16], [0, 0, 24, 32]], atol=1e-5)
    np.testing.assert_allclose(scores, [0.9, 0.8, 0.5], atol=1e-6)


def test_rtdetr_input_is_stretched_rgb_from_0_to_1_and_antialiased(tmp_path):
    outputs = {"boxes": UNIT, "scores": UNIT[:, 0], "labels": np.zeros(3, int)}
    write_onnx(tmp_path / "tiny.onnx", outputs, ["n", 3, 64, 96], ("images", "orig_target_sizes"))
    detector = build_detector(write_yaml(tmp_path, KIND="rtdetr"))
    image = np.zeros((10, 20, 3), np.uint8)
    image[:] = (255, 51, 0)
    prepared = detector.prepare(image)
    assert prepared.shape == (3, 64, 96) and prepared.dtype == np.float32
    for channel, value in zip(prepared, (1, 0.2, 0), strict=True):
        np.testing.assert_allclose(channel, value, rtol=1e-6)
    stripes = np.zeros((64, 384, 3), np.uint8)
    stripes[:, ::4] = 255  # a quarter of the pixels
    np.testing.assert_allclose(detector.prepare(stripes)[:, :, 2:-2], 0.25, atol=0.03)


@pytest.mark.parametrize(
    ("keys", "message"),
    [
        ({"KIND": "yolo"}, r"tiny\.yaml: must have KIND: yolox or KIND: rtdetr, MODEL: .*'yolo'"),
        ({"KIND": "yolox", "COLOUR": 1}, "may have THRESHOLD.*no other keys.*COLOUR"),
        ({"file": "a.onnx", "input": {"size": [9, 9]}}, "must have KIND: yolox .*MODEL.*`file`"),
        ({}, "must have KIND: yolox .*missing required field `KIND`"),
        ({"KIND": "yolox", "THRESHOLD": "high"}, "THRESHOLD"),
        ({"KIND": "yolox", "MODEL": "none.onnx"}, r"none\.onnx: there is no such file"),
        ({"KIND": "yolox", "SIZE": [32, 32]}, r"tiny\.onnx: ONNX Runtime: .*[Ii]nvalid"),
        ({"KIND": "yolox", "SIZE": [0, 32]}, r"SIZE: \[width, height\]"),
        ({"KIND": "rtdetr"}, r"tiny\.onnx: ONNX Runtime: .*boxes"),
    ],
)
def test_an_invalid_yaml_is_an_error_of_one_line(tmp_path, keys, message):
    write_onnx(tmp_path / "tiny.onnx", {"output": YOLOX}, ["n", 3, 64, 96])
    with pytest.raises(InputError, match=message) as error:
        build_detector(write_yaml(tmp_path, **keys))([TALL])
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    "output",
    [YOLOX[:99], YOLOX[:, :5], YOLOX[:, 0], YOLOX * 40],
    ids=["cells", "columns", "dimensions", "decoded"],
)
def test_a_file_with_other_outputs_is_refused(tmp_path, output):
    write_onnx(tmp_path / "tiny.onnx", {"output": output}, ["n", 3, 64, 96])
    message = r"must be YOLOX exported without --decode_in_inference.* \(N, 126, 5 \+ classes"
    with pytest.raises(InputError, match=message):
        build_detector(write_yaml(tmp_path, KIND="yolox"))([TALL])


def test_without_onnx_runtime_the_error_says_what_to_install(tmp_path, monkeypatch):
    yolox(tmp_path)
    path = str(tmp_path / "tiny.yaml")
    (tmp_path / "text.onnx").write_text("no model")
    with pytest.raises(InputError, match=r"text\.onnx: cannot be read"):
        build_detector(path, str(tmp_path / "text.onnx"))
    monkeypatch.setitem(sys.modules, "onnxruntime", None)  # makes the import fail
    with pytest.raises(InputError, match="pip install onnxruntime"):
        build_detector(path, str(tmp_path / "text.onnx"))


def test_every_detector_yaml_can_be_read():
    folder = Path(__file__).resolve().parents[2] / "tools" / "detectors"
    files = sorted(folder.glob("*.yaml"))
    assert files
    for file in files:
        assert read_settings(file).model.startswith("models/detectors/")
        assert "https://" in file.read_text()


def test_the_built_in_detector_accepts_a_threshold_but_no_weights():
    assert build_detector("hrpose")._threshold == 0.1
    assert build_detector("hrpose", threshold=0.3, classes=["person"])._threshold == 0.3
    for options in ({"weights": "w.pth"}, {"classes": ["dog"]}):
        with pytest.raises(InputError, match="the detector hrpose finds only people"):
            build_detector("hrpose", **options)
