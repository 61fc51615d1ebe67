"""Backends, and errors for files that cannot be run."""

import io
import shutil
import sys
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from torch import nn

from lib.core import exported
from lib.core.backends import TorchBackend, build_backend, load_network
from lib.core.inference import Predictor
from lib.deploy.parity import difference, random_crops
from lib.models.checkpoint import load_checkpoint
from lib.utils.errors import InputError
from tests.core.runs import CPU, parts
from tests.deploy.exports import small


@pytest.fixture
def made(tmp_path):
    return small(tmp_path)


def refused(made, path, message: str, precision: str = "float32") -> None:
    with pytest.raises(InputError, match=message) as error:
        build_backend(made.cfg, made.skeleton, path, precision=precision)
    assert "\n" not in str(error.value)


def test_folded_weights_match_the_network(tmp_path):
    run = parts(tmp_path, TEST={"USE_GT_BBOX": True})
    state = run.model.state_dict()
    plain = TorchBackend(load_network(run.cfg, state, CPU, fold=False), run.codec, flip_test=True)
    folded = build_backend(run.cfg, run.data.skeleton, state)
    assert any(isinstance(module, nn.BatchNorm2d) for module in plain._network.modules())
    assert not any(isinstance(module, nn.BatchNorm2d) for module in folded._network.modules())
    found = difference(folded, plain, random_crops(run.cfg.MODEL.IMAGE_SIZE, 2))
    assert found.stable > 20 and found.stable_largest < 0.01 and found.scores < 1e-4


def test_weights_are_compiled_with_test_compile(tmp_path, monkeypatch):
    run = parts(tmp_path, TEST={"USE_GT_BBOX": True, "COMPILE": True})
    seen = []

    def compile_for_inference(network, devices, key):
        return lambda images: seen.append((devices, key, len(images))) or (network(images),)

    monkeypatch.setattr("lib.core.backends.compile_for_inference", compile_for_inference)
    backend = build_backend(run.cfg, run.data.skeleton, run.model.state_dict())
    backend.train(False)
    keypoints, _ = backend(random_crops(run.cfg.MODEL.IMAGE_SIZE, 3))
    assert len(keypoints) == 3
    assert seen == [([CPU], "TEST.COMPILE", 6 if run.cfg.TEST.FLIP_TEST else 3)]


def test_onnx_runtime_uses_the_given_gpu(monkeypatch):
    opened = []
    names = ["CUDAExecutionProvider", "CPUExecutionProvider"]
    package = SimpleNamespace(
        SessionOptions=SimpleNamespace,
        get_available_providers=lambda: names,
        InferenceSession=lambda path, options, providers: opened.append(providers),
    )
    monkeypatch.setitem(sys.modules, "onnxruntime", package)
    monkeypatch.setattr(torch.backends.cudnn, "allow_tf32", True)
    for device in ("cpu", "cuda", "cuda:1"):
        exported.onnx_session(Path("network.onnx"), torch.device(device))
    cpu, first, second = opened
    assert cpu == names[1:]
    assert first == [(names[0], {"device_id": 0, "use_tf32": 1}), names[1]]
    assert second[0][1]["device_id"] == 1


def test_bfloat16_nearly_matches_float32(made, monkeypatch):
    monkeypatch.setattr("lib.core.backends.has_bfloat16", lambda _: True)  # emulated where missing
    computed = []
    made.network.register_forward_hook(lambda module, args, out: computed.append(out.dtype))
    crops = random_crops(made.cfg.MODEL.IMAGE_SIZE, 2)
    half = TorchBackend(made.network, *made.how, precision="bfloat16")
    keypoints, scores = half(crops)
    assert set(computed) == {torch.bfloat16}
    assert keypoints.dtype == scores.dtype == torch.float32
    assert difference(half, made.backend, crops).scores < 0.05


def test_float16_runs_the_network_in_float16_and_needs_a_gpu(made):
    computed = []
    made.network.register_forward_hook(lambda module, args, out: computed.append(out.dtype))
    backend = TorchBackend(made.network, *made.how, device="cuda", precision="float16")
    backend.device = CPU  # which also computes in float16, but slowly
    _, scores = backend(random_crops(made.cfg.MODEL.IMAGE_SIZE, 2))
    assert set(computed) == {torch.float16} and scores.dtype == torch.float32
    with pytest.raises(InputError, match="precision: float16 needs a GPU; use float32"):
        TorchBackend(made.network, *made.how, precision="float16")
    with pytest.raises(InputError, match=r"a\.xml runs in float32 or bfloat16, not in float16"):
        exported.check_precision("float16", "a.xml")


def test_predictor_accepts_an_exported_file_or_a_backend(tmp_path, made):
    image = np.random.default_rng(0).integers(0, 256, (90, 120, 3), np.uint8)
    boxes = [[8, 12, 44, 64], [63, 12, 43, 63]]
    path = made.write(tmp_path, "torchscript")
    expected = Predictor(made.cfg, backend=made.backend)(image, boxes)
    for person, other in zip(Predictor(made.cfg, path, "cpu")(image, boxes), expected, strict=True):
        np.testing.assert_allclose(person.scores, other.scores, rtol=1e-4)
        assert (np.abs(person.keypoints - other.keypoints).max(1) < 0.01).mean() > 0.8


@pytest.mark.parametrize("suffix", [".onnx", ".xml", ".ts"])
def test_a_missing_or_corrupt_file_is_one_line(tmp_path, made, suffix):
    path = tmp_path / f"broken{suffix}"
    refused(made, path, f"broken{suffix}: there is no such file")
    path.write_bytes(b"not a network")
    path.with_suffix(".bin").write_bytes(b"")
    if package := {".onnx": "onnxruntime", ".xml": "openvino"}.get(suffix):
        pytest.importorskip(package)
    refused(made, path, f"broken{suffix}: (damaged|cannot be read)")


def test_an_xml_file_without_its_weights_is_one_line(tmp_path, made):
    pytest.importorskip("openvino")
    (tmp_path / "network.xml").write_text("<net/>")
    refused(made, tmp_path / "network.xml", r"the weights file network\.bin is missing")


def test_a_file_without_metadata_is_refused(tmp_path, made):
    file = io.BytesIO()
    torch.jit.save(torch.jit.trace(made.network, torch.zeros(1, 3, 64, 64)), file)
    (tmp_path / "foreign.ts").write_bytes(file.getvalue())
    refused(made, tmp_path / "foreign.ts", "has no HRPose metadata")


def test_files_with_other_suffixes_are_read_as_weights(tmp_path, made):
    refused(made, tmp_path / "network.weights", r"network\.weights: no such checkpoint")
    with pytest.raises(InputError, match=r"small\.ts is an exported network, not a checkpoint"):
        load_checkpoint(made.network, made.write(tmp_path, "torchscript"))


def test_a_flip_test_with_other_pairs_is_refused(tmp_path, made):
    path = made.write(tmp_path, "torchscript")
    assert build_backend(made.cfg, made.skeleton, path)
    other = replace(made.skeleton, flip_pairs=made.skeleton.flip_pairs[1:])
    with pytest.raises(InputError, match=r"pairs of its flip test differ from DATASET\.FLIP_PAIRS"):
        build_backend(made.cfg, other, path)


def test_an_unsupported_precision_is_refused(tmp_path, made):
    refused(made, {}, "precision: must be one of float32, bfloat16, float16, not 'int8'", "int8")
    path = made.write(tmp_path, "torchscript")
    refused(made, path, "small.ts runs in float32", "bfloat16")
    shutil.copy(path, tmp_path / "small.torchscript")
    assert build_backend(made.cfg, made.skeleton, tmp_path / "small.torchscript")


def test_a_missing_package_is_reported_with_its_install_command():
    with pytest.raises(InputError, match="pip install no_such_package"):
        exported.import_optional("no_such_package", "network.onnx")


def test_torchscript_is_only_opened_if_trusted(tmp_path, made, monkeypatch):
    (path := tmp_path / "stranger.ts").write_bytes(b"")
    monkeypatch.delenv(exported.TRUST_VARIABLE)
    refused(made, path, f"TorchScript file is a program.*{exported.TRUST_VARIABLE}=1")


class _Raising(nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        raise ValueError("no")


def test_torchscript_that_raises_is_one_line(tmp_path, made):
    text = exported.Description.of(made.cfg, made.skeleton, True, dynamic_batch=True).to_json()
    path = tmp_path / "raising.ts"
    torch.jit.save(torch.jit.script(_Raising()), path, {exported.METADATA_KEY: text})
    backend = build_backend(made.cfg, made.skeleton, path)
    with pytest.raises(InputError, match=r"raising\.ts: cannot run: .*no"):
        backend(torch.zeros(1, 3, 64, 64, dtype=torch.uint8))
