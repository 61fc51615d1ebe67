"""Steps with NaN or infinite losses and gradients are not taken."""

import pytest
import torch

from lib.core.guard import StepGuard, check_weights
from lib.core.train import train_epoch
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


@pytest.fixture
def parameter():
    return torch.nn.Parameter(torch.ones(3))


@pytest.mark.parametrize(("loss", "gradient"), [(NAN, 1.0), (INF, 1.0), (1.0, NAN), (1.0, -INF)])
def test_a_step_that_is_not_finite_is_not_taken(parameter, loss, gradient):
    guard = StepGuard(torch.optim.Adam([parameter], lr=0.1), files_of)
    assert not a_step(guard, parameter, loss, gradient)
    assert parameter.tolist() == [1, 1, 1]
    assert a_step(guard, parameter, 1.0, 1.0)
    assert parameter.tolist() == pytest.approx([0.9] * 3)


def test_ten_steps_in_a_row_end_the_run_and_name_their_images(parameter):
    guard = StepGuard(torch.optim.SGD([parameter], lr=0.1), files_of)
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


def test_a_run_whose_loss_is_infinite_ends_with_its_weights_as_they_were(tmp_path):
    run = parts(tmp_path)
    with torch.no_grad():
        run.model.head.final_layer.bias[3] = INF
    before = [parameter.clone() for parameter in run.model.parameters()]
    guard = StepGuard(run.optimizer, run.data.image_files)
    with pytest.raises(InputError, match=r"epoch 4, step 1: .*images/val2017/0000.*jpg"):
        for epoch in range(5):
            train_epoch(task(run), run.loader, run.optimizer, schedule(run), epoch, guard=guard)
    for old, new in zip(before, run.model.parameters(), strict=True):
        assert torch.equal(old, new)


def test_weights_that_are_not_finite_are_not_written(tmp_path):
    network = torch.nn.BatchNorm2d(2)
    check_weights(network, "checkpoint.pth")
    network.running_mean[1] = NAN
    with pytest.raises(InputError, match=r"checkpoint\.pth: not written"):
        check_weights(network, "checkpoint.pth")
