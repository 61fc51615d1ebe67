"""Code that behaves differently on a GPU, compared with float32 on the CPU.

These tests need a GPU. ``HRPOSE_TEST_DEVICE=cpu`` runs them on the CPU instead, which takes longer
and checks mainly the tests themselves.
"""

import os

import pytest
import torch

from lib.config import load_config
from lib.core import build_task
from lib.core.averaging import AveragedWeights
from lib.core.backends import build_backend, network_backend
from lib.core.bottom_up import BottomUp
from lib.core.codecs import build_codec
from lib.core.inference import Predictor
from lib.core.optim import build_optimizer
from lib.core.top_down import TopDown
from lib.core.train import Updater, train_epoch
from lib.core.validate import validate
from lib.dataset import build_dataset
from lib.dataset.loading import test_loader as build_test_loader
from lib.dataset.loading import train_loader
from lib.deploy.parity import difference, random_crops
from lib.keypoints.skeletons import COCO
from lib.models import build_model
from lib.models.folding import fold_batch_norms
from lib.utils.compiling import compile_for_inference, compile_in_place
from lib.utils.devices import to_devices
from tests import tiny
from tests.core.runs import CPU, parts
from tests.deploy.exports import skip_without_graphs, small
from tests.models import configs

DEVICE = torch.device(os.environ.get("HRPOSE_TEST_DEVICE", "cuda"))
if DEVICE.type == "cuda" and not torch.cuda.is_available():
    pytest.skip("no GPU", allow_module_level=True)
NETWORKS = (
    *("pose_resnet", "pose_hrnet", "lite_hrnet", "dite_hrnet", "wide_hrnet"),
    *("hrformer", "transpose_r", "transpose_h"),
)


@pytest.fixture(autouse=True)
def exact_float32(monkeypatch):
    """Turn off TensorFloat-32, which convolutions on GPUs use by default instead of float32."""
    monkeypatch.setattr(torch.backends.cudnn, "allow_tf32", False)


def network_of(name: str) -> tuple[torch.nn.Module, torch.nn.Module]:
    """Return a small network in evaluation mode on the CPU, and its folded copy on the device."""
    network = tiny.randomize_weights(build_model(configs.tiny(name, "heatmap"))).eval()
    return network, to_devices(fold_batch_norms(network), [DEVICE])


def relative_difference(found: torch.Tensor, expected: torch.Tensor) -> float:
    """Return the largest difference, in standard deviations of the expected output."""
    return float((found.float().cpu() - expected).abs().max() / expected.std())


@pytest.mark.parametrize("name", NETWORKS)
def test_networks_agree_with_the_cpu(name):
    expected_network, network = network_of(name)
    images = torch.randn(3, 3, 96, 64)
    with torch.inference_mode():
        expected, found = expected_network(images), network(images.to(DEVICE))
        assert relative_difference(found, expected) < 1e-3
        with torch.autocast(DEVICE.type, torch.bfloat16):
            assert network(images.to(DEVICE)).isfinite().all()


@pytest.mark.parametrize("name", ["pose_hrnet", "lite_hrnet"])
def test_compiled_networks_do_not_overwrite_earlier_outputs(name):
    expected_network, network = network_of(name)
    run = compile_for_inference(network, [DEVICE], "TEST.COMPILE")
    first, second, other_size = (torch.randn(count, 3, 96, 64) for count in (2, 2, 3))
    batches = [first, second, other_size, first, second]
    with torch.inference_mode():
        found = [run(images.to(DEVICE)) for images in batches]
        for images, outputs in zip(batches, found, strict=True):
            assert relative_difference(outputs, expected_network(images)) < 1e-3


@pytest.mark.parametrize("precision", ["float32", "bfloat16", "float16"])
def test_keypoints_agree_with_the_cpu(tmp_path, precision):
    if DEVICE == CPU and precision == "float16":
        pytest.skip("float16 needs a GPU")
    run = parts(tmp_path)
    weights = tiny.randomize_weights(run.model).state_dict()
    reference = build_backend(run.cfg, run.data.skeleton, weights, CPU)
    backend = build_backend(run.cfg, run.data.skeleton, weights, DEVICE, precision)
    found = difference(backend, reference, random_crops(run.cfg.MODEL.IMAGE_SIZE, 4))
    assert found.scores < (1e-3 if precision == "float32" else 0.05)
    assert found.stable > 20 and (precision != "float32" or found.stable_largest < 0.05)


def losses_of(run, device: torch.device, mode: str = "float32") -> list[float]:
    """Train for three epochs with moving averages and two batches per update.

    The learning rate is so low because training amplifies differences in rounding.
    """
    tiny.randomize_weights(run.model)
    network = to_devices(run.model, [device])
    if mode == "compiled":
        compile_in_place(network, [device], "TRAIN.COMPILE")
    autocast = getattr(torch, mode) if mode.endswith("16") else None
    backend = network_backend(run.cfg, network, run.codec, device)
    task = TopDown(backend, run.data.skeleton, run.data.crop, autocast)
    optimizer = build_optimizer(run.cfg, network)
    update = Updater(
        optimizer,
        run.data.image_files,
        network.buffers(),
        AveragedWeights(network, 0.9),
        accumulate=2,
        # With the default scale, the first updates would overflow and be skipped.
        scaler=torch.amp.GradScaler(device.type, 256.0, enabled=mode == "float16"),
    )
    return [
        train_epoch(task, run.loader, optimizer, lambda *_: 1e-5, epoch, update=update).loss
        for epoch in range(3)
    ]


@pytest.mark.parametrize("optimizer", ["adam", "adamw", "sgd"])
@pytest.mark.parametrize("mode", ["float32", "bfloat16", "float16", "compiled"])
def test_losses_agree_with_the_cpu(tmp_path, mode, optimizer):
    train = {"BATCH_SIZE_PER_GPU": 2, "OPTIMIZER": optimizer}
    expected = losses_of(parts(tmp_path, TRAIN=train), CPU)
    found = losses_of(parts(tmp_path, TRAIN=train), DEVICE, mode)
    assert found == pytest.approx(expected, rel=0.05 if mode.endswith("16") else 1e-3)


def test_a_test_with_pinned_memory_agrees_with_the_cpu(tmp_path):
    run = parts(tmp_path)
    weights = tiny.randomize_weights(run.model).state_dict()
    tested = build_dataset(run.cfg, "val2017", is_train=False)
    results = []
    for device in (CPU, DEVICE):
        backend = build_backend(run.cfg, run.data.skeleton, weights, device)
        loader = build_test_loader(tested, 4, 0, device.type == "cuda")
        results.append(validate(build_task(run.cfg, backend), loader))
    assert results[1].stats.loss == pytest.approx(results[0].stats.loss, rel=1e-3)
    torch.testing.assert_close(*(one.poses.score for one in results), rtol=1e-3, atol=1e-3)


def test_bottom_up_losses_and_people_agree_with_the_cpu(tmp_path):
    tiny.write_coco(tmp_path / "data", images=4)
    cfg = load_config(tiny.scenes(tmp_path / "scenes.yaml", tmp_path / "data"))
    data = build_dataset(cfg, "val2017", is_train=True)
    image = build_dataset(cfg, "val2017", is_train=False)[0]["image0"][0].permute(1, 2, 0).numpy()
    results = []
    for device in (CPU, DEVICE):
        torch.manual_seed(0)
        network = to_devices(tiny.randomize_weights(build_model(cfg)), [device])
        backend = network_backend(cfg, network, build_codec(cfg, COCO), device)
        task = build_task(cfg, backend)
        assert isinstance(task, BottomUp)
        optimizer = build_optimizer(cfg, network)
        loss = train_epoch(task, train_loader(data, 2, 0), optimizer, lambda *_: 1e-3, 0).loss
        people = Predictor(cfg, backend=backend)(image)
        results.append((loss, sorted(round(person.score, 2) for person in people)))
    (expected, expected_scores), (loss, scores) = results
    assert loss == pytest.approx(expected, rel=1e-2)
    assert scores == pytest.approx(expected_scores, abs=0.05)


def test_onnx_files_agree_with_the_cpu(tmp_path):
    skip_without_graphs()
    made = small(tmp_path)
    backend = build_backend(made.cfg, made.skeleton, made.write(tmp_path, "onnx"), DEVICE)
    found = difference(backend, made.backend, random_crops(made.cfg.MODEL.IMAGE_SIZE, 3))
    assert found.stable > 20 and found.stable_largest < 0.05 and found.scores < 1e-3
