"""Randomly damaged input of any kind gives a result or an InputError.

200 cases of each kind, always the same. For more: HRPOSE_FUZZ=10000 pytest tests/test_fuzz.py
"""

import contextlib
import copy
import io
import json
import os
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import torch
from torch import nn

from lib.config import load_config
from lib.config.default import default_config
from lib.core.backends import build_backend
from lib.core.exported import Description
from lib.core.inference import _check_boxes, _check_scores
from lib.dataset.coco import CocoKeypoints
from lib.dataset.crowdpose import CrowdPoseKeypoints
from lib.dataset.image import read_image
from lib.dataset.mpii import MpiiKeypoints
from lib.deploy.parity import random_crops
from lib.keypoints.skeletons import COCO, CROWDPOSE
from lib.media.boxes import BoxFile
from lib.models.checkpoint import load_checkpoint
from lib.utils.errors import InputError
from tests import tiny
from tests.deploy.exports import skip_without_graphs, small

hypothesis = pytest.importorskip("hypothesis")
from hypothesis import given, settings  # noqa: E402
from hypothesis import strategies as st  # noqa: E402

CASES = int(os.environ.get("HRPOSE_FUZZ", "200"))
fuzz = settings(
    max_examples=CASES,
    derandomize=True,
    deadline=None,
    database=None,
    suppress_health_check=list(hypothesis.HealthCheck),
)
ROOT = Path(__file__).resolve().parents[1]

NUMBERS = st.one_of(
    st.integers(-(10**30), 10**30),
    st.floats(),
    st.sampled_from([0, -1, 2**31, 2**53 + 1, 2**63, 10**400, 1e300, -1e-320, 0.5]),
)
SCALARS = st.one_of(st.none(), st.booleans(), NUMBERS, st.text(max_size=8))
VALUES = st.recursive(
    SCALARS,
    lambda inner: st.one_of(
        st.lists(inner, max_size=5), st.dictionaries(st.text(max_size=6), inner, max_size=3)
    ),
    max_leaves=8,
)


def accepted(call: Callable[[], Any]) -> Any:
    """Return the result of ``call``, or None if it raises an InputError of one line."""
    try:
        with contextlib.redirect_stdout(io.StringIO()):
            return call()
    except InputError as error:
        assert "\n" not in str(error) and len(str(error)) < 5000
    return None


@st.composite
def damaged_bytes(draw, data: bytes) -> bytes:
    """Return ``data`` with changed, missing and additional bytes."""
    changed = bytearray(data)
    for position, value in draw(
        st.lists(st.tuples(st.integers(0, len(data) - 1), st.integers(0, 255)), max_size=8)
    ):
        changed[position] = value
    start = draw(st.integers(0, len(data)))
    kind = draw(st.sampled_from(["keep", "cut", "drop", "add"]))
    if kind == "cut":
        changed = changed[:start]
    elif kind == "drop":
        del changed[start : start + draw(st.integers(1, 50))]
    elif kind == "add":
        changed[start:start] = draw(st.binary(max_size=50))
    return bytes(changed)


@st.composite
def damaged_tree(draw, tree: Any) -> Any:
    """Return a copy of a JSON value with one to three values replaced or removed."""
    tree = copy.deepcopy(tree)
    for _ in range(draw(st.integers(1, 3))):
        node, parent, key = tree, None, None
        while isinstance(node, (dict, list)) and node and draw(st.integers(0, 6)):
            keys = list(node) if isinstance(node, dict) else range(len(node))
            parent, key = node, draw(st.sampled_from(keys))
            node = node[key]
        if parent is None:
            return draw(VALUES)
        if isinstance(parent, dict) and draw(st.booleans()):
            del parent[key]
        else:
            parent[key] = draw(VALUES)
    return tree


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    return tmp_path_factory.mktemp("fuzz")


KEYS = [
    f"{section}.{name}" if isinstance(values, dict) else section
    for section, values in default_config().items()
    for name in (values if isinstance(values, dict) else [section])
]


@fuzz
@given(st.lists(st.tuples(st.sampled_from(KEYS), VALUES), min_size=1, max_size=3))
def test_settings(pairs):
    path = ROOT / "experiments" / "mpii" / "hrnet" / "w32_256x256_adam_lr1e-3.yaml"
    accepted(lambda: load_config(path, [str(word) for pair in pairs for word in pair]))


YAML = (ROOT / "experiments" / "mpii" / "base.yaml").read_bytes()


@fuzz
@given(damaged_bytes(YAML))
def test_experiments(folder, data):
    (folder / "experiment.yaml").write_bytes(data)
    accepted(lambda: load_config(folder / "experiment.yaml"))


PICTURE = np.random.default_rng(0).integers(0, 255, (24, 32, 3), np.uint8)


@pytest.mark.parametrize("suffix", [".jpg", ".png"])
def test_images(folder, suffix):
    whole = cv2.imencode(suffix, PICTURE)[1].tobytes()
    path = folder / f"image{suffix}"

    @fuzz
    @given(damaged_bytes(whole))
    def test(data):
        path.write_bytes(data)
        image = accepted(lambda: read_image(str(path)))
        assert image is None or (image.ndim == 3 and image.dtype == np.uint8)

    test()


def annotations(folder: Path, kind: str) -> tuple[Path, Any, Callable[[], Any]]:
    """Return an annotation file, its content, and a function that reads it."""
    root = folder / kind
    if kind == "mpii":
        people = tiny.write_mpii(root, images=1)
        return root / "annot" / "valid.json", people, lambda: MpiiKeypoints(str(root), "valid")
    content = tiny.write_coco(root, images=2, people=1)
    path = root / "annotations" / "person_keypoints_val2017.json"
    if kind == "detections":
        boxes = root / "boxes.json"
        entries = tiny.write_detections(boxes, content)
        read = partial(CocoKeypoints, str(root), "val2017", COCO, 0.75, detections=str(boxes))
        return boxes, entries, read
    if kind == "boxes":
        return path, content, lambda: BoxFile(path, lambda message: None)
    if kind == "crowdpose":
        path = root / "json" / "crowdpose_val.json"
        path.parent.mkdir()
        for person in content["annotations"]:
            person["keypoints"] = person["keypoints"][: 3 * 14]
        for image in content["images"]:
            image["crowdIndex"] = 0.5
        crowdpose = partial(CrowdPoseKeypoints, str(root), "val", CROWDPOSE, 0.75)
        return path, content, lambda: crowdpose().ground_truth
    coco = partial(CocoKeypoints, str(root), "val2017", COCO, 0.75, whole_images=kind == "scenes")
    return path, content, lambda: coco().ground_truth


@pytest.mark.parametrize("kind", ["coco", "scenes", "crowdpose", "mpii", "detections", "boxes"])
def test_annotations(folder, kind):
    path, content, read = annotations(folder, kind)
    path.write_text(json.dumps(content))
    assert accepted(read) is not None

    @fuzz
    @given(damaged_tree(content))
    def test(tree):
        path.write_text(json.dumps(tree))
        accepted(read)

    test()


@fuzz
@given(VALUES)
def test_boxes(value):
    boxes = accepted(lambda: _check_boxes(value))
    assert boxes is None or (boxes.shape[1] == 4 and (boxes[:, 2:] > 0).all())
    accepted(lambda: _check_scores(value, 1))


class _Network(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Conv2d(2, 3, 3)


def saved(state: Any) -> bytes:
    file = io.BytesIO()
    torch.save(state, file)
    return file.getvalue()


STATE = _Network().state_dict()
WEIGHTS = saved({"state_dict": STATE, "epoch": 3})


@fuzz
@given(damaged_bytes(WEIGHTS))
def test_checkpoints(folder, data):
    network, path = _Network(), folder / "weights.pth"
    path.write_bytes(data)
    if accepted(lambda: load_checkpoint(network, path) or network):
        assert all(torch.equal(value, STATE[name]) for name, value in network.state_dict().items())


@fuzz
@given(st.dictionaries(st.sampled_from(["layer.weight", "layer.bias", "x"]), VALUES, max_size=3))
def test_state_dicts(state):
    accepted(lambda: load_checkpoint(_Network(), {"state_dict": state}))


@pytest.mark.parametrize("kind", ["onnx", "openvino", "torchscript"])
def test_exported_files(folder, kind):
    if kind != "torchscript":
        skip_without_graphs()
    made = small(folder)
    path = made.write(folder, kind)
    crops = random_crops(made.cfg.MODEL.IMAGE_SIZE, 1)

    def run() -> torch.Tensor:
        return build_backend(made.cfg, made.skeleton, path)(crops)[0]

    damage(path, run)
    if kind == "openvino":
        damage(path.with_suffix(".bin"), run)


def damage(path: Path, run: Callable[[], torch.Tensor]) -> None:
    """Check that ``run`` rejects a damaged file, or gives the same result as without damage."""
    whole, expected = path.read_bytes(), run()

    @fuzz
    @given(damaged_bytes(whole).filter(lambda data: data != whole))
    def test(data):
        path.write_bytes(data)
        result = accepted(run)
        assert result is None or torch.equal(result, expected)

    test()
    path.write_bytes(whole)


DESCRIPTION = Description(True, True, ["a", "b"], [[0, 1]], {"MODEL.NAME": "pose_hrnet"}, False)


@fuzz
@given(damaged_tree(json.loads(DESCRIPTION.to_json())))
def test_descriptions_of_exported_files(tree):
    path = ROOT / "experiments" / "mpii" / "hrnet" / "w32_256x256_adam_lr1e-3.yaml"
    description = accepted(lambda: Description.from_json(Path("network.onnx"), json.dumps(tree)))
    if description is not None:
        cfg = default_config()
        accepted(lambda: description.check(path, cfg, COCO))
