"""Detectors: torchvision's with weights made here, ONNX files made here, and what is missing."""

import sys
from pathlib import Path

import numpy as np
import pytest
import torch
import torchvision
import yaml

from lib.media import onnx_detector
from lib.media.boxes import inside
from lib.media.detectors import build_detector
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


def test_torchvisions_detector_finds_boxes_inside_all_pictures_of_a_call_at_once(weights):
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


def answer(**values) -> list[dict]:
    return [{name: torch.tensor(value) for name, value in values.items()}]


def test_only_the_wanted_classes_above_the_threshold_are_kept(weights):
    given = answer(
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
    with pytest.raises(InputError, match=r"--detector-classes: there is no 'tiger'.* zebra"):
        build_detector(NAME, weights, classes=["tiger"])


def test_without_a_network_it_is_said_how_to_get_the_weights(tmp_path, monkeypatch, state):
    monkeypatch.chdir(tmp_path)

    def offline(*args, **kwargs):
        raise OSError("<urlopen error no route to host>")

    monkeypatch.setattr(torch.hub, "load_state_dict_from_url", offline)
    monkeypatch.setattr("torchvision.models._api.load_state_dict_from_url", offline)
    file = "ssdlite320_mobilenet_v3_large_coco-a79551df.pth"
    command = f"; get it by: python tools/get_weights.py {NAME} --root {tmp_path}"
    for weights in ("", "DEFAULT", "COCO_V1", f"models/detectors/{file}"):
        with pytest.raises(InputError) as error:
            build_detector(NAME, weights)
        assert str(error.value).endswith(command)
    monkeypatch.setattr(zoo, "ZOO", tmp_path / "none.yaml")
    message = rf"no route.*get https://\S+/{file} and put it at models/detectors/{file}"
    with pytest.raises(InputError, match=message):  # weights that the list does not know yet
        build_detector(NAME)
    (tmp_path / "models" / "detectors").mkdir(parents=True)
    torch.save(state, tmp_path / "models" / "detectors" / file)
    assert len(build_detector(NAME)([np.zeros((8, 8, 3), np.uint8)])) == 1


def test_published_weights_trained_without_eps_are_run_without_it(tmp_path, monkeypatch):
    plain = torch.nn.Sequential(torch.nn.Conv2d(3, 3, 1), torch.nn.BatchNorm2d(3))
    # Frozen batch norms, as the files have them, count no batches.
    state = {k: v for k, v in plain.state_dict().items() if "num_batches" not in k}
    monkeypatch.setattr(torchvision.models, "get_model", lambda *a, **k: plain)
    for file, eps in (("fasterrcnn_resnet50_fpn_coco-258fb6c6.pth", 0.0), ("mine.pth", 1e-5)):
        plain[1].eps = 1e-5
        torch.save(state, tmp_path / file)
        build_detector("fasterrcnn_resnet50_fpn", str(tmp_path / file))
        assert plain[1].eps == eps


def test_wrong_names_and_weights_are_one_line(tmp_path, weights):
    with pytest.raises(InputError, match=r"there is no 'yolo'.*fasterrcnn_resnet50_fpn"):
        build_detector("yolo")
    with pytest.raises(InputError, match=r"none\.pth: there is no such file.*COCO_V1"):
        build_detector(NAME, "none.pth")
    (tmp_path / "text.pth").write_text("no weights")
    with pytest.raises(InputError, match=r"text\.pth: cannot be read as weights"):
        build_detector(NAME, str(tmp_path / "text.pth"))
    torch.save({"a": torch.ones(1)}, tmp_path / "other.pth")
    with pytest.raises(InputError, match=r"other\.pth does not hold ssdlite320"):
        build_detector(NAME, str(tmp_path / "other.pth"))


def test_what_lies_outside_or_has_no_area_is_no_box():
    corners = np.array(
        [[-5, 0, 5, 5], [60, 0, 70, 9], [3, 3, 2, 9], [np.nan, 0, 1, 1], [0, 0, 9, 9]]
    )
    boxes, scores = inside(corners, np.array([0.1, 1, 1, 1, 0.5]), np.zeros((50, 60, 3)))
    assert boxes.tolist() == [[0, 0, 9, 9], [0, 0, 5, 5]] and scores.tolist() == [0.5, 0.1]


# What the ONNX files of these tests answer: two people and a dog for each picture, in pixels of the
# input, and their scores as a person and as a dog.
CORNERS = np.array([[10, 20, 30, 60], [11, 21, 31, 61], [2, 2, 6, 8]], np.float32)
SCORES = np.array([[0.9, 0.1], [0.8, 0.1], [0.2, 0.7]], np.float32)
SIZES = CORNERS[:, 2:] - CORNERS[:, :2]
LAYOUTS = {
    "xyxy": CORNERS,
    "xywh": np.concatenate([CORNERS[:, :2], SIZES], 1),
    "cxcywh": np.concatenate([CORNERS[:, :2] + SIZES / 2, SIZES], 1),
}


def write_onnx(path, outputs: dict[str, np.ndarray], batch="n", sizes: bool = False) -> None:
    """An ONNX file that gives ``outputs`` for each picture of a batch, and the picture's mean value
    in the output ``mean``."""
    onnx = pytest.importorskip("onnx")
    pytest.importorskip("onnxruntime")
    helper, kinds = onnx.helper, onnx.TensorProto
    nodes = [
        helper.make_node("ReduceMean", ["images"], ["mean4"], axes=[1, 2, 3], keepdims=1),
        helper.make_node("Reshape", ["mean4", "flat"], ["mean"]),
        helper.make_node("Mul", ["mean", "nothing"], ["zero"]),
    ]
    constants = [
        onnx.numpy_helper.from_array(np.array([-1, 1, 1], np.int64), "flat"),
        onnx.numpy_helper.from_array(np.zeros(1, np.float32), "nothing"),
    ]
    infos = [helper.make_tensor_value_info("mean", kinds.FLOAT, None)]
    for name, value in outputs.items():
        constants.append(onnx.numpy_helper.from_array(value[None].astype(np.float32), f"{name}_"))
        nodes.append(helper.make_node("Add", ["zero", f"{name}_"], [f"{name}3"]))
        shape = np.array([-1, *value.shape], np.int64)
        constants.append(onnx.numpy_helper.from_array(shape, f"{name}_shape"))
        nodes.append(helper.make_node("Reshape", [f"{name}3", f"{name}_shape"], [name]))
        infos.append(helper.make_tensor_value_info(name, kinds.FLOAT, None))
    inputs = [helper.make_tensor_value_info("images", kinds.FLOAT, [batch, 3, 64, 96])]
    if sizes:
        inputs.append(helper.make_tensor_value_info("sizes", kinds.INT64, [batch, 2]))
        nodes.append(helper.make_node("Cast", ["sizes"], ["asked2"], to=kinds.FLOAT))
        constants.append(onnx.numpy_helper.from_array(np.array([-1, 1, 2], np.int64), "row"))
        nodes.append(helper.make_node("Reshape", ["asked2", "row"], ["asked"]))
        infos.append(helper.make_tensor_value_info("asked", kinds.FLOAT, None))
    graph = helper.make_graph(nodes, "detector", inputs, infos, constants)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)], ir_version=8)
    onnx.save(model, path)


def describe(tmp_path, output: dict, arrays: dict, batch="n", **more) -> str:
    """The YAML of such a detector, its file beside it."""
    write_onnx(tmp_path / "tiny.onnx", arrays, batch, sizes="sizes" in more.get("input", {}))
    content = {
        "file": str(tmp_path / "tiny.onnx"),
        "output": output,
        **more,
        "input": {"size": [96, 64], **more.get("input", {})},
    }
    (tmp_path / "tiny.yaml").write_text(yaml.safe_dump(content))
    return str(tmp_path / "tiny.yaml")


IMAGE = np.full((32, 24, 3), 200, np.uint8)  # twice as large in the input, at its left border
PEOPLE = [[5, 10, 10, 20], [5.5, 10.5, 10, 20]]


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("is_transposed", [False, True])
def test_boxes_of_every_layout_come_back_in_image_pixels(tmp_path, layout, is_transposed):
    table = np.concatenate([LAYOUTS[layout], SCORES], 1)
    output = {"boxes": "out[0:4]", "scores": "out[4:6]", "format": layout}
    output["transposed"] = is_transposed
    arrays = {"out": table.T if is_transposed else table}
    detector = build_detector(describe(tmp_path, output, arrays))
    for boxes, scores in detector([IMAGE, IMAGE]):
        np.testing.assert_allclose(boxes, PEOPLE, atol=1e-4)
        np.testing.assert_allclose(scores, [0.9, 0.8], atol=1e-6)
    ((boxes, _),) = build_detector(str(tmp_path / "tiny.yaml"), classes=["1"])([IMAGE])
    np.testing.assert_allclose(boxes, [[1, 1, 2, 3]], atol=1e-4)
    ((boxes, _),) = build_detector(str(tmp_path / "tiny.yaml"), threshold=0.85)([IMAGE])
    np.testing.assert_allclose(boxes, PEOPLE[:1], atol=1e-4)


def test_several_outputs_labels_objectness_and_suppression(tmp_path):
    arrays = {
        "dets": np.concatenate([CORNERS / (96, 64, 96, 64), SCORES.max(1)[:, None]], 1),
        "labels": np.array([0, 0, 1]),
        "sure": np.array([[0.5], [1], [1]]),
    }
    output = {"boxes": "dets[0:4]", "scores": "dets[4]", "labels": "labels", "pixels": "unit"}
    output["objectness"] = "sure"
    path = describe(tmp_path, output, arrays, threshold=0.3, nms=0.6)
    ((boxes, scores),) = build_detector(path)([IMAGE])
    np.testing.assert_allclose(boxes, PEOPLE[1:], atol=1e-4)
    np.testing.assert_allclose(scores, [0.8], atol=1e-6)


@pytest.mark.parametrize("batch", ["n", 2])
def test_pictures_are_fitted_and_scaled_as_described_and_batched_as_the_file_can(tmp_path, batch):
    about = {"place": "center", "pad": 100, "scale": 0.5, "order": "BGR"}
    about |= {"mean": [10.0, 20.0, 30.0], "std": [1.0, 2.0, 4.0]}
    output = {"boxes": "boxes", "scores": "mean"}
    table = CORNERS[:1] + np.array([24, 0, 24, 0])
    path = describe(tmp_path, output, {"boxes": table}, batch, input=about, threshold=-99.0)
    image = np.zeros((32, 24, 3), np.uint8)
    image[:] = (200, 100, 60)  # red, green, blue
    grey = np.full((64, 96, 3), 120, np.uint8)
    detector = build_detector(path)
    passes = []
    detector._session = Counting(detector._session, passes)
    found = detector([image, grey, image])
    assert passes == ([3] if batch == "n" else [2, 2])
    colored = np.mean([(30 - 10) / 1, (50 - 20) / 2, (100 - 30) / 4])
    padded = np.mean([(50 - 10) / 1, (50 - 20) / 2, (50 - 30) / 4])
    for boxes, scores in (found[0], found[2]):
        np.testing.assert_allclose(scores, [(colored + padded) / 2], rtol=1e-5)
        np.testing.assert_allclose(boxes, PEOPLE[:1], atol=1e-4)
    gray = np.mean([(60 - 10) / 1, (60 - 20) / 2, (60 - 30) / 4])
    np.testing.assert_allclose(found[1][1], [gray], rtol=1e-5)


class Counting:
    """A session that notes how many pictures each pass had."""

    def __init__(self, session, passes) -> None:
        self._session, self._passes = session, passes

    def run(self, outputs, feed):
        self._passes.append(len(feed["images"]))
        return self._session.run(outputs, feed)


def test_a_file_may_be_told_the_pictures_sizes_and_answer_in_their_pixels(tmp_path):
    arrays = {"boxes": CORNERS[:1] / 4}
    output = {"boxes": "boxes", "scores": "asked[0]", "pixels": "image"}
    about = {"sizes": "sizes", "fit": "stretch"}
    path = describe(tmp_path, output, arrays, input=about)
    detector = build_detector(path)
    found = detector([IMAGE, np.zeros((40, 77, 3), np.uint8)])
    assert [scores.tolist() for _, scores in found] == [[24], [77]]  # the widths asked for
    np.testing.assert_allclose(found[0][0], [[2.5, 5, 5, 10]])


def test_boxes_relative_to_the_cells_of_grids_are_decoded(tmp_path):
    strides, cells = (32, 64), [(x, y, 32) for y in (0, 1) for x in (0, 1, 2)] + [(0, 0, 64)]
    wanted = LAYOUTS["cxcywh"][0]
    rows = [[*(wanted[:2] / s - (x, y)), *np.log(wanted[2:] / s), 0.9] for x, y, s in cells]
    output = {"boxes": "out[0:4]", "scores": "out[4]", "format": "cxcywh"}
    output["strides"] = list(strides)
    path = describe(tmp_path, output, {"out": np.array(rows)})
    ((boxes, _),) = build_detector(path)([IMAGE])
    np.testing.assert_allclose(boxes, [PEOPLE[0]] * 7, atol=1e-4)
    output["strides"] = [16]
    describe(tmp_path, output, {"out": np.array(rows)})
    with pytest.raises(InputError, match=r"output\.strides: give 24 boxes.* the file 7"):
        build_detector(path)([IMAGE])


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            {"output": {"boxes": "out[0:4]", "scores": "none[1]"}},
            "no output 'none'; it has mean, out",
        ),
        (
            {"output": {"boxes": "out[0:4]", "scores": "mean"}},
            "3 boxes, output.scores: mean, 1 row",
        ),
        ({"output": {"boxes": "out[0:3]", "scores": "out[4]"}}, r"out\[0:3\] has 3 columns, not 4"),
        (
            {"output": {"boxes": "out[0,4]", "scores": "out"}},
            r"output\.boxes: must be name, name\[",
        ),
        ({"output": {"boxes": "out"}}, r"does not describe a detector.*scores"),
        ({"input": {"order": "GBR"}}, r"input\.order: must be one of RGB, BGR, not 'GBR'"),
        ({"input": {"name": "x"}}, "no input 'x'; it has images"),
        ({"input": {"size": [32, 32]}}, "ONNX Runtime: .*[Ii]nvalid"),
        ({"colour": 1}, "does not describe a detector.*colour"),
        (
            {"file": "none.onnx", "url": "https://x.org/a"},
            "none.onnx: .*get https://x.org/a and put",
        ),
    ],
)
def test_a_wrong_description_is_one_line_that_names_the_key(tmp_path, change, message):
    output = {"boxes": "out[0:4]", "scores": "out[4]"}
    path = describe(tmp_path, output, {"out": np.concatenate([CORNERS, SCORES], 1)})
    content = yaml.safe_load((tmp_path / "tiny.yaml").read_text())
    for key, value in change.items():
        is_part = key == "input"
        content[key] = {**content[key], **value} if is_part else value
    (tmp_path / "tiny.yaml").write_text(yaml.safe_dump(content))
    with pytest.raises(InputError, match=message) as error:
        build_detector(path)([IMAGE])
    assert "\n" not in str(error.value)


def test_without_onnx_runtime_it_is_said_what_to_install(tmp_path, monkeypatch):
    path = describe(tmp_path, {"boxes": "out", "scores": "mean"}, {"out": CORNERS})
    (tmp_path / "text.onnx").write_text("no model")
    with pytest.raises(InputError, match=r"text\.onnx: cannot be read"):
        build_detector(path, str(tmp_path / "text.onnx"))
    monkeypatch.setitem(sys.modules, "onnxruntime", None)  # an import of it then fails
    with pytest.raises(InputError, match="pip install onnxruntime"):
        build_detector(path, str(tmp_path / "text.onnx"))


def test_every_described_detector_can_be_read():
    folder = Path(__file__).resolve().parents[2] / "tools" / "detectors"
    files = sorted(folder.glob("*.yaml"))
    assert files
    for file in files:
        about = onnx_detector.read_description(file)
        assert about.url.startswith("https://") and about.file.startswith("models/detectors/")
