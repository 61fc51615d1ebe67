"""tools/export.py --int8: the limit on the loss, the certificate, and options that do not fit."""

import json
import sys
from types import SimpleNamespace

import pytest
import torch

from lib.deploy.distances import Comparison
from lib.deploy.export import ONNX, OPENVINO, openvino_content, openvino_model
from lib.deploy.int8 import Quantized
from lib.utils.errors import InputError
from tests.deploy.exports import skip_without_graphs, small, small_scenes
from tests.tools import runs


class Scores:
    """A test set with given scores, in this order: float32, int8, int8 with float32 layers."""

    name, metric = "coco val2017: 2 people", "AP"

    def __init__(self, *scores: float) -> None:
        self._scores = list(scores)

    def score(self, backend) -> float:
        return self._scores.pop(0)


@pytest.fixture(scope="module")
def network(tmp_path_factory):
    """Return an experiment, and its network as an ONNX file."""
    skip_without_graphs()
    folder = tmp_path_factory.mktemp("network")
    made = small(folder)
    return made.cfg, made.write(folder, ONNX)


@pytest.fixture
def check(tool, network, monkeypatch):
    """Return ``quantize_and_check`` for given scores, with 10 int8 layers, or 7 when restored."""
    module = tool("benchmarks/int8")
    for name in ("CROPS", "IMAGES"):
        monkeypatch.setattr(module, name, module.Counts(2, 2, 1))

    def quantize(graph, description, file_format, inputs, control=None):
        files = {".onnx": graph}
        if file_format == OPENVINO:
            files = openvino_content(openvino_model(graph), description)
        return Quantized(files, 7 if control else 10)

    monkeypatch.setattr(module, "quantize", quantize)
    monkeypatch.setattr(module, "version", lambda package: "1.0")

    def run(*scores, file_format=ONNX, network=network):
        cfg, path = network
        return module.quantize_and_check(cfg, path, file_format, Scores(*scores), None, 0.5)

    run.module = module
    return run


def test_the_certificate_says_what_was_measured(check):
    files, certificate = check(80.0, 79.6)
    assert list(files) == [".onnx"]
    certificate = json.loads(check.module.certificate_file(certificate))
    expected = {"metric": "AP", "float32": 80.0, "int8": 79.6, "loss": 0.4, "max_loss": 0.5}
    assert expected.items() <= certificate.items()
    assert certificate["layers"] == {"int8": 10, "float32": 0}
    assert certificate["pixels_apart"]["largest"] < 0.01
    times = certificate["milliseconds"]
    ratio = times["int8"] / times["onnxruntime_float32"]
    assert times["ratio_to_onnxruntime_float32"] == pytest.approx(ratio, 0.2)
    assert times["faster_than_float32"] == (check.module.slower_than_float32(certificate) is None)
    assert certificate["test_set"] == "coco val2017: 2 people"
    assert certificate["calibration"] == "synthetic people: 2 crops"
    assert "threads: " in certificate["machine"] and "nncf 1.0" in certificate["machine"]


def test_openvino_is_compared_with_float32_in_both_runtimes(check):
    files, certificate = check(80.0, 79.6, file_format=OPENVINO)
    assert list(files) == [".bin", ".xml"]
    assert certificate["pixels_apart"]["largest"] < 0.01
    assert {"int8", "onnxruntime_float32", "openvino_float32"} <= certificate["milliseconds"].keys()


def test_the_certificate_of_a_bottom_up_network_counts_people(check, tmp_path):
    made = small_scenes(tmp_path)
    _, certificate = check(80.0, 79.6, network=(made.cfg, made.write(tmp_path, ONNX)))
    apart = certificate["pixels_apart"]
    assert apart["images"] == 2 and apart["largest"] < 0.01
    assert apart["people"]["float32"] == apart["people"]["int8"] == apart["people"]["both"] > 0
    assert certificate["milliseconds"]["size"] in ("128x192", "192x128")
    assert certificate["calibration"] == "synthetic people: 2 images"
    count = apart["people"]["both"]
    assert f"{count} of {count} people found" in check.module.certificate_summary(certificate)


def test_a_certificate_without_people_has_no_distances(check):
    comparison = Comparison(torch.full((17,), torch.inf), expected=1, found=2, common=0)
    distances = SimpleNamespace(
        inputs=[None], unit="images", source="", compare=lambda backend, rows: [comparison]
    )
    apart = check.module.pixels_apart(None, distances)
    people = {"float32": 1, "int8": 2, "both": 0}
    assert apart == {"source": "", "images": 1, "people": people}
    times = {"int8": 1.0, "size": "64x64", "ratio_to_onnxruntime_float32": 0.5}
    certificate = {"metric": "AP", "float32": 1.0, "int8": 1.0, "milliseconds": times}
    line = check.module.certificate_summary(certificate | {"pixels_apart": apart})
    assert "0 of 1 people found, 1.0 ms for 64x64" in line


def test_a_network_that_is_slower_in_int8_is_reported(check):
    times = {"onnxruntime_float32": 15.0, "openvino_float32": 12.0, "int8": 13.0}
    certificate = {"format": "openvino", "milliseconds": times | {"faster_than_float32": False}}
    line = check.module.slower_than_float32(certificate)
    assert line.endswith("not faster here: 13.0 ms, float32 in OpenVINO 12.0 ms")


def test_layers_are_kept_in_float32_only_if_int8_loses_too_much(check):
    _, certificate = check(80.0, 79.0, 79.6)
    assert certificate["layers"] == {"int8": 7, "float32": 3}


@pytest.mark.parametrize("last", [79.4, float("nan")])
def test_a_loss_above_the_limit_is_refused(check, last):
    with pytest.raises(InputError, match=r"points of AP, more than --max-ap-loss 0\.5, so nothing"):
        check(80.0, 60.0, last)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--to", "torchscript"], "--int8: needs --to onnx or openvino"),
        (["--to", "onnx", "--max-ap-loss", "nan"], "--max-ap-loss: must be 0 or more"),
        (["--to", "onnx"], "--int8: needs NNCF: pip install -r requirements-int8.txt"),
    ],
)
def test_options_that_do_not_fit_are_one_line(command, root, monkeypatch, options, message):
    monkeypatch.setitem(sys.modules, "nncf", None)
    start = ["--cfg", runs.write(root), "--weights", runs.random_weights(root), "--int8"]
    assert runs.is_one_line(command("export", *start, *options), message)
    assert not runs.leftovers(root.parent)
