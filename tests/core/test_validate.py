"""One pass over a split: everybody's keypoints, in the table's order and the image's pixels."""

import numpy as np
import pytest
import torch

from lib.core.validate import predict, validate
from lib.dataset.transforms import mirror_order
from tests.core.runs import CPU, parts, same_places


class Oracle(torch.nn.Module):
    """Answers the k-th batch with the k-th of prepared heatmaps."""

    def __init__(self, heatmaps: list[torch.Tensor]) -> None:
        super().__init__()
        self.heatmaps = iter(heatmaps)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        answer = next(self.heatmaps)
        assert len(answer) == len(images)
        return answer


def perfect(run) -> list[torch.Tensor]:
    return [run.codec.encode(batch["joints"], batch["visible"]).heatmaps for batch in run.tests]


def test_a_perfect_network_finds_everybody_where_they_are(tmp_path):
    run = parts(tmp_path, TEST={"BATCH_SIZE_PER_GPU": 4})
    table = run.tests.dataset.table
    # Not in the order of the images: the answer must be in the table's order all the same.
    order = np.array([3, 5, 0, 4, 1, 2])
    run.tests.dataset.table = table = run.data.source.table.select(order)
    run.tests._loader.dataset.__init__(run.tests.dataset)
    result = validate(Oracle(perfect(run)), run.tests, run.codec, CPU, flip_test=False)
    assert result.keypoints.shape == (6, 17, 3)
    seen = table.visible > 0
    # One heatmap pixel is a quarter of the crop's 64, over a box of about 0.4 * 200 pixels.
    pixel = 4 * table.scale[:, 0] * 200 / 64
    error = np.abs(result.keypoints[..., :2] - table.joints).max(-1) / pixel[:, None]
    assert error[seen].max() <= 0.76  # half a pixel of rounding and a quarter step
    assert (result.keypoints[..., 2][seen] == 1).all()
    assert (result.keypoints[..., 2][~seen] == 0).all()
    assert result.passed.samples == 6
    assert result.passed.loss == 0 and result.passed.accuracy == 1


def test_the_flip_test_averages_with_the_mirrored_crops_answer(tmp_path):
    run = parts(tmp_path)
    run.model.eval()
    images = torch.randn(2, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        plain = run.model(images)
        mirrored = run.model(images.flip(3))[:, mirror_order(17, run.data.skeleton.flip_pairs)]
        shifted = mirrored.flip(3)
        shifted[..., 1:] = shifted[..., :-1].clone()
        both = predict(run.model, run.codec, images, flip_test=True)
        torch.testing.assert_close(both, (plain + shifted) / 2)
        torch.testing.assert_close(predict(run.model, run.codec, images, False), plain)


def test_a_pass_leaves_the_network_as_it_was_and_repeats_itself(tmp_path):
    run = parts(tmp_path)
    before = {name: value.clone() for name, value in run.model.state_dict().items()}
    first = validate(run.model, run.tests, run.codec, CPU)
    second = validate(run.model, run.tests, run.codec, CPU)
    np.testing.assert_array_equal(first.keypoints, second.keypoints)
    assert not run.model.training
    for name, value in run.model.state_dict().items():
        assert torch.equal(value, before[name]), name


@pytest.mark.parametrize("batch_size", [1, 5])
def test_the_answer_does_not_depend_on_the_batches(tmp_path, batch_size):
    run = parts(tmp_path, TEST={"BATCH_SIZE_PER_GPU": batch_size})
    whole = parts(tmp_path, TEST={"BATCH_SIZE_PER_GPU": 6})
    ours = validate(run.model, run.tests, run.codec, CPU)
    theirs = validate(whole.model, whole.tests, whole.codec, CPU)
    np.testing.assert_allclose(ours.keypoints[..., 2], theirs.keypoints[..., 2], atol=1e-5)
    assert same_places(ours.keypoints, theirs.keypoints)
    assert ours.passed.loss == pytest.approx(theirs.passed.loss, rel=1e-4)


def test_the_observer_is_called_every_print_freq_steps(tmp_path):
    run = parts(tmp_path, TEST={"BATCH_SIZE_PER_GPU": 1})
    steps = []
    validate(
        *(run.model, run.tests, run.codec, CPU),
        print_freq=2,
        observe=lambda step, passed, *_: steps.append((step, passed.samples)),
    )
    assert steps == [(0, 1), (2, 2), (4, 2)]
