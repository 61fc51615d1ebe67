"""Validation of a split: keypoints in the order of the table and in image pixels."""

import numpy as np
import pytest
import torch

from lib.core import build_task
from lib.core.backends import build_backend, predict
from lib.core.exported import Description
from lib.core.recorder import KINDS
from lib.core.validate import validate
from lib.dataset.loading import TestLoader
from lib.deploy.export import openvino_content, openvino_model, write_draft
from lib.keypoints.geometry import flip_permutation
from lib.utils.devices import has_bfloat16
from tests import tiny
from tests.core.runs import CPU, Oracle, parts, same_keypoints, task
from tests.deploy.exports import skip_without_graphs, small


def perfect(run) -> list[torch.Tensor]:
    return [run.codec.encode(batch["joints"], batch["visible"]).heatmaps for batch in run.tests]


def test_a_perfect_network_finds_everybody_where_they_are(tmp_path):
    run = parts(tmp_path, TEST={"BATCH_SIZE_PER_GPU": 4})
    table = run.tests.dataset.table
    # The table is not sorted by image; the poses must still be in the table's order.
    order = np.array([3, 5, 0, 4, 1, 2])
    run.tests.dataset.table = table = run.data.source.table.select(order)
    run.tests._loader.dataset.__init__(run.tests.dataset)
    result = validate(task(run, Oracle(perfect(run)), flip_test=False), run.tests)
    poses = result.poses
    assert poses.keypoints.shape == (6, 17, 2) and poses.row.tolist() == list(range(6))
    seen = table.visible > 0
    # Size of a heatmap pixel (4 of the crop's 64 pixels) in the image.
    pixel = 4 * table.scale[:, 0] * 200 / 64
    error = np.abs(poses.keypoints - table.joints).max(-1) / pixel[:, None]
    assert error[seen].max() <= 0.76  # half a pixel of rounding and a quarter step
    assert (poses.scores[seen] == 1).all()
    assert (poses.scores[~seen] == 0).all()
    assert result.stats.samples == 6
    assert result.stats.loss == 0 and result.stats.accuracy == 1


def test_the_flip_test_averages_with_the_mirrored_crops_answer(tmp_path):
    run = parts(tmp_path)
    tiny.randomize_weights(run.model).eval()
    images = torch.randn(2, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        plain = run.model(images)
        mirrored = run.model(images.flip(3))[:, flip_permutation(17, run.data.skeleton.flip_pairs)]
        shifted = mirrored.flip(3)
        shifted[..., 1:] = shifted[..., :-1].clone()
        both = predict(run.model, run.codec, images, flip_test=True)
        torch.testing.assert_close(both, ((plain + shifted) / 2,))
        torch.testing.assert_close(predict(run.model, run.codec, images, False), (plain,))


def test_a_pass_leaves_the_network_as_it_was_and_repeats_itself(tmp_path):
    run = parts(tmp_path)
    before = {name: value.clone() for name, value in run.model.state_dict().items()}
    first = validate(task(run), run.tests)
    second = validate(task(run), run.tests)
    np.testing.assert_array_equal(
        first.poses.keypoints_with_scores(), second.poses.keypoints_with_scores()
    )
    assert not run.model.training
    for name, value in run.model.state_dict().items():
        assert torch.equal(value, before[name]), name


@pytest.mark.parametrize("batch_size", [1, 5])
def test_the_answer_does_not_depend_on_the_batches(tmp_path, batch_size):
    run = parts(tmp_path, TEST={"BATCH_SIZE_PER_GPU": batch_size})
    whole = parts(tmp_path, TEST={"BATCH_SIZE_PER_GPU": 6})
    for part in (run, whole):
        tiny.randomize_weights(part.model)
    ours = validate(task(run), run.tests)
    theirs = validate(task(whole), whole.tests)
    np.testing.assert_allclose(ours.poses.scores, theirs.poses.scores, atol=1e-4)
    assert same_keypoints(ours.poses.keypoints, theirs.poses.keypoints)
    assert ours.stats.loss == pytest.approx(theirs.stats.loss, rel=1e-4)


def test_boxes_without_annotation_have_no_loss(tmp_path):
    run = parts(tmp_path)
    run.tests.dataset.table.visible[:] = 0
    loader = TestLoader(run.tests.dataset, 4, workers=0)
    result = validate(task(run), loader)
    assert not result.stats.has_loss and len(result.poses) == 6


def test_the_observer_is_called_every_print_freq_steps(tmp_path):
    run = parts(tmp_path, TEST={"BATCH_SIZE_PER_GPU": 1})
    steps = []
    validate(
        task(run),
        run.tests,
        print_freq=2,
        observe=lambda step, stats, *_: steps.append((step, stats.samples)),
    )
    assert steps == [(0, 1), (2, 2), (4, 2)]


@pytest.mark.parametrize(
    ("target", "decodes", "dynamic_batch"),
    [("gaussian", True, True), ("gaussian", False, False), ("udp", True, False)],
)
def test_an_exported_file_is_scored_as_the_network_itself(tmp_path, target, decodes, dynamic_batch):
    run = parts(tmp_path, MODEL={"TARGET_TYPE": target})
    made = small(tmp_path, TARGET_TYPE=target)
    expected = validate(build_task(made.cfg, made.backend), run.tests)
    file = made.write(tmp_path, "torchscript", decodes, dynamic_batch)
    task, drawn = build_task(made.cfg, build_backend(made.cfg, made.skeleton, file)), []
    found = validate(
        task,
        run.tests,
        print_freq=1,
        observe=lambda step, stats, batch, outputs: drawn.append(task.draw(batch, outputs, KINDS)),
    )
    np.testing.assert_allclose(found.poses.scores, expected.poses.scores, atol=1e-5)
    assert same_keypoints(found.poses.keypoints, expected.poses.keypoints)
    kinds = set(KINDS) - ({"hm_pred"} if decodes else set())
    assert [set(one) for one in drawn] == [kinds, kinds]
    assert expected.stats.has_loss and found.stats.samples == 6
    if decodes:
        assert not found.stats.has_loss
    else:
        assert found.stats.loss == pytest.approx(expected.stats.loss, rel=1e-4)
        assert found.stats.accuracy == pytest.approx(expected.stats.accuracy, abs=1e-4)


def test_onnx_and_openvino_files_are_scored_openvinos_in_bfloat16(tmp_path):
    skip_without_graphs()
    run, made = parts(tmp_path), small(tmp_path)
    expected = validate(build_task(made.cfg, made.backend), run.tests).poses
    onnx = made.write(tmp_path, "onnx")
    description = Description.of(made.cfg, made.skeleton, decodes=True, dynamic_batch=True)
    write_draft(onnx, openvino_content(openvino_model(onnx.read_bytes()), description))
    half = (".xml", "bfloat16", 0.02) if has_bfloat16(CPU) else (".xml", "float32", 1e-5)
    for suffix, precision, bound in ((".onnx", "float32", 1e-5), half):
        path = onnx.with_suffix(suffix)
        opened = build_backend(made.cfg, made.skeleton, path, precision=precision)
        found = validate(build_task(made.cfg, opened), run.tests).poses
        assert np.abs(found.scores - expected.scores).max() < bound
    requests = opened._runner._requests
    assert requests
    for request in requests.values():
        hint = request.get_compiled_model().get_property("INFERENCE_PRECISION_HINT")
        assert precision in str(hint)
