"""Steps with NaN or infinite losses and gradients are not taken."""

import pytest
import torch

from lib.core.guard import StepGuard, check_weights
from lib.core.optim import add_missing_momentum
from lib.core.train import Updater, train_epoch
from lib.utils.errors import InputError
from tests.core.runs import parts, schedule, task

NAN, INF = float("nan"), float("inf")


def files_of(index):
    return [f"{number}.jpg" for number in index]


def a_step(guard, parameter, loss: float, gradient: float, index=(0,)) -> bool:
    """Take a step and return True if the parameter changed."""
    before = parameter.detach().clone()
    parameter.grad = torch.full_like(parameter, gradient)
    guard.add(torch.tensor(loss), torch.tensor(index))
    guard.step()
    return not torch.equal(before, parameter)


@pytest.mark.parametrize("name", ["Adam", "AdamW", "SGD"])
def test_skipped_steps_leave_no_trace(name):
    """The weights equal those of a run without the first and the third step."""
    results = []
    for gradients in ((NAN, 1.0, INF, 0.5), (1.0, 0.5)):
        parameter = torch.nn.Parameter(torch.ones(3))
        options = {"momentum": 0.9} if name == "SGD" else {}
        optimizer = getattr(torch.optim, name)([parameter], lr=0.1, fused=True, **options)
        add_missing_momentum(optimizer)
        guard = StepGuard(optimizer, files_of)
        for gradient in gradients:
            a_step(guard, parameter, 1.0, gradient)
        results.append(parameter.tolist())
    assert results[0] == pytest.approx(results[1]) and results[0] != [1, 1, 1]


def test_batch_norm_statistics_are_restored(parameter):
    buffer = torch.zeros(2)
    guard = StepGuard(torch.optim.SGD([parameter], lr=0.1, fused=True), files_of, [buffer])
    for gradient, value in ((1.0, 5.0), (NAN, NAN), (1.0, 7.0)):
        buffer.fill_(value)
        a_step(guard, parameter, 1.0, gradient)
        guard.check("epoch 0")
        assert guard.is_failing == (gradient != 1.0)
        assert buffer.tolist() == [7, 7] if value == 7 else [5, 5]


def test_batch_norm_statistics_are_restored_to_those_of_a_checkpoint(parameter):
    buffer = torch.zeros(2)
    guard = StepGuard(torch.optim.SGD([parameter], lr=0.1, fused=True), files_of, [buffer])
    buffer.fill_(5)
    guard.keep_buffers()
    buffer.fill_(NAN)
    a_step(guard, parameter, 1.0, NAN)
    guard.check("epoch 0")
    assert buffer.tolist() == [5, 5]


@pytest.fixture
def parameter():
    return torch.nn.Parameter(torch.ones(3))


@pytest.mark.parametrize(("loss", "gradient"), [(NAN, 1.0), (INF, 1.0), (1.0, NAN), (1.0, -INF)])
def test_a_step_with_nan_or_infinite_values_is_skipped(parameter, loss, gradient):
    guard = StepGuard(torch.optim.Adam([parameter], lr=0.1, fused=True), files_of)
    assert not a_step(guard, parameter, loss, gradient)
    assert parameter.tolist() == [1, 1, 1]
    assert a_step(guard, parameter, 1.0, 1.0)
    assert parameter.tolist() == pytest.approx([0.9] * 3)


def test_ten_steps_in_a_row_end_the_run_and_name_their_images(parameter):
    guard = StepGuard(torch.optim.SGD([parameter], lr=0.1, fused=True), files_of)
    for number in range(9):
        a_step(guard, parameter, NAN, 1.0, (number,))
    a_step(guard, parameter, 1.0, 1.0, (100,))
    guard.check("epoch 0")
    for number in range(10):
        a_step(guard, parameter, 1.0, INF, (number, number + 1))
        if number == 5:
            guard.check("epoch 0")  # what was read before counts
    with pytest.raises(
        InputError, match=r"epoch 1: .* of 0\.jpg, 1\.jpg, .*9\.jpg and 1 more"
    ) as e:
        guard.check("epoch 1")
    assert "TRAIN.LR" in str(e.value) and "\n" not in str(e.value)


def test_in_float16_gradients_that_overflow_halve_the_scale(parameter, caplog):
    scaler, buffer = torch.amp.GradScaler("cpu"), torch.zeros(2)
    scaler.scale(torch.ones(1))  # creates the scale
    optimizer = torch.optim.SGD([parameter], lr=0.1, fused=True)
    guard = StepGuard(optimizer, files_of, [buffer], scaler)
    buffer.fill_(5.0)
    assert not a_step(guard, parameter, 1.0, INF) and scaler.get_scale() == 2**15
    assert a_step(guard, parameter, 1.0, 2.0**15) and parameter.tolist() == pytest.approx([0.9] * 3)
    assert not a_step(guard, parameter, 1.0, INF)
    with caplog.at_level("INFO"):
        guard.check("epoch 0")
    assert [record.levelname for record in caplog.records] == ["INFO"]
    assert "skipped 2 steps" in caplog.text
    assert not guard.is_failing and buffer.tolist() == [5, 5]  # the forward pass was finite
    buffer.fill_(NAN)
    a_step(guard, parameter, NAN, 1.0)
    guard.check("epoch 0")
    assert buffer.tolist() == [5, 5]


def test_in_float16_a_run_ends_if_the_smallest_scale_fails(parameter):
    scaler = torch.amp.GradScaler("cpu")
    scaler.scale(torch.ones(1))
    guard = StepGuard(torch.optim.SGD([parameter], lr=0.1, fused=True), files_of, scaler=scaler)
    for number in range(25):
        assert guard.is_failing == (number > 16)
        a_step(guard, parameter, 1.0, INF, (number,))
        guard.check("epoch 0")
    a_step(guard, parameter, 1.0, INF)
    with pytest.raises(InputError, match="of 26 steps in a row"):
        guard.check("epoch 0")


def test_a_run_with_an_infinite_loss_ends_with_unchanged_weights(tmp_path):
    run = parts(tmp_path)
    with torch.no_grad():
        run.model.head.final_layer.bias[3] = INF
    before = [parameter.clone() for parameter in run.model.parameters()]
    update = Updater(run.optimizer, run.data.image_files, run.model.buffers())
    with pytest.raises(InputError, match=r"epoch 4, step 1: .*images/val2017/0000.*jpg"):
        for epoch in range(5):
            train_epoch(task(run), run.loader, run.optimizer, schedule(run), epoch, update=update)
    for old, new in zip(before, run.model.parameters(), strict=True):
        assert torch.equal(old, new)


def test_nan_weights_are_not_written(tmp_path):
    network = torch.nn.BatchNorm2d(2)
    check_weights(network, "checkpoint.pth")
    network.running_mean[1] = NAN
    with pytest.raises(InputError, match=r"checkpoint\.pth: not written"):
        check_weights(network, "checkpoint.pth")
