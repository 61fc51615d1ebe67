"""Optimizers and learning rate schedules."""

import itertools
import math

import pytest
import torch

from lib.config import load_config
from lib.core.optim import build_optimizer, build_schedule
from lib.core.state import load_optimizer
from lib.utils.errors import InputError


@pytest.fixture
def load(tmp_path):
    path = tmp_path / "a.yaml"
    path.write_text("")

    def config(**train):
        opts = [text for key, value in train.items() for text in (f"TRAIN.{key}", str(value))]
        return load_config(path, opts)

    return config


def test_multistep_decays_at_the_start_of_the_given_epochs(load):
    rate = build_schedule(load(LR=0.001, LR_FACTOR=0.1, LR_STEP=[170, 200]), steps_per_epoch=7)
    for epoch, expected in ((0, 1e-3), (169, 1e-3), (170, 1e-4), (199, 1e-4), (200, 1e-5)):
        for step in (0, 6):
            assert rate(epoch, step) == pytest.approx(expected, rel=1e-12)


def test_cosine_decays_to_the_minimum_at_every_step(load):
    cfg = load(LR=0.5, LR_MIN=0.1, LR_SCHEDULE="cosine", END_EPOCH=4)
    rate = build_schedule(cfg, steps_per_epoch=5)
    rates = [rate(epoch, step) for epoch in range(4) for step in range(5)]
    assert rates[0] == 0.5
    assert rate(2, 0) == pytest.approx(0.3)
    assert all(a > b for a, b in itertools.pairwise(rates))
    assert rates[-1] == pytest.approx(0.1 + 0.2 * (1 + math.cos(math.pi * 19 / 20)))
    assert rate(4, 0) == pytest.approx(0.1)


@pytest.mark.parametrize("schedule", ["multistep", "cosine"])
def test_warm_up_is_linear(load, schedule):
    given = {"LR": 1.0, "LR_SCHEDULE": schedule, "LR_STEP": [1], "END_EPOCH": 1000}
    plain = build_schedule(load(**given), 4)
    rate = build_schedule(load(**given, WARMUP_ITERS=6, WARMUP_FACTOR=0.1), 4)
    shares = [rate(n // 4, n % 4) / plain(n // 4, n % 4) for n in range(9)]
    assert shares == pytest.approx([0.1, 0.25, 0.4, 0.55, 0.7, 0.85, 1, 1, 1])


def test_an_unknown_schedule_is_refused(load):
    with pytest.raises(InputError, match=r"LR_SCHEDULE: unknown schedule 'step'; choose from mult"):
        build_schedule(load(LR_SCHEDULE="step"), 1)


def stepped(cfg, gradient: float) -> float:
    """Return a weight of 1 after one step."""
    network = Single()
    optimizer = build_optimizer(cfg, network)
    network.weight.grad = torch.full((1,), gradient)
    optimizer.step()
    return network.weight.item()


class Single(torch.nn.Module):
    """A network with a single weight, 1."""

    def __init__(self, name: str = "weight") -> None:
        super().__init__()
        self.register_parameter(name, torch.nn.Parameter(torch.ones(1)))


def test_relative_position_biases_have_no_weight_decay(load):
    network = torch.nn.Sequential(Single(), Single("relative_position_bias_table"))
    frozen = Single()
    frozen.weight.requires_grad_(False)
    network.append(frozen)
    optimizer = build_optimizer(load(OPTIMIZER="adamw", WD=0.5, LR=0.1), network)
    for parameter in network.parameters():
        parameter.grad = torch.zeros(1)
    optimizer.step()
    assert [p.item() for p in network.parameters()] == pytest.approx([0.95, 1, 1])


def test_adam_logs_that_it_ignores_weight_decay(load, caplog):
    with caplog.at_level("INFO"):
        assert stepped(load(LR=0.1, WD=0.5), 0.0) == 1
    assert "adam ignores TRAIN.WD 0.5" in caplog.text
    assert stepped(load(LR=0.1, WD=0.5, OPTIMIZER="adamw"), 0.0) == pytest.approx(0.95)
    assert stepped(load(LR=0.1, WD=0.5, OPTIMIZER="sgd"), 0.0) == pytest.approx(0.95)
    assert stepped(load(LR=0.1, WD=0.0), 3.0) == pytest.approx(0.9)


@pytest.mark.parametrize("name", ["adam", "adamw", "sgd"])
def test_a_state_in_another_layout_continues_to_the_same_weights(load, name):
    """The state of DataParallel is contiguous, that of one device channels last."""
    torch.manual_seed(0)
    weights, gradients = torch.randn(3, 4, 3, 3), torch.randn(2, 3, 4, 3, 3)
    trained = []
    for layouts in itertools.product((torch.contiguous_format, torch.channels_last), repeat=2):
        network, state = torch.nn.Conv2d(4, 3, 3, bias=False), None
        value = weights
        for gradient, layout in zip(gradients, layouts, strict=True):
            network.weight.data = value.clone(memory_format=layout)
            optimizer = build_optimizer(load(OPTIMIZER=name, LR=0.1), network)
            if state:
                load_optimizer(optimizer, state)
            network.weight.grad = gradient.clone(memory_format=layout)
            optimizer.step()
            value, state = network.weight.detach(), optimizer.state_dict()
        trained.append(value)
    for other in trained[1:]:
        torch.testing.assert_close(other, trained[0])


def test_sgd_uses_its_settings(load):
    optimizer = build_optimizer(
        load(OPTIMIZER="sgd", MOMENTUM=0.8, NESTEROV=True, WD=0.1, LR=0.3), Single()
    )
    group = optimizer.param_groups[0]
    assert (group["momentum"], group["nesterov"], group["weight_decay"]) == (0.8, True, 0.1)
    assert group["lr"] == 0.3


@pytest.mark.parametrize(
    ("train", "message"),
    [
        (
            {"OPTIMIZER": "adamm"},
            "TRAIN.OPTIMIZER: unknown optimizer 'adamm'; choose from adam, adamw, sgd",
        ),
        ({"LR": -1}, "TRAIN: adam does not accept these settings: Invalid learning rate"),
        ({"OPTIMIZER": "sgd", "NESTEROV": True, "MOMENTUM": 0}, "TRAIN: sgd does not accept"),
    ],
)
def test_invalid_optimizer_settings_are_an_error_that_names_the_key(load, train, message):
    with pytest.raises(InputError, match=message):
        build_optimizer(load(**train), Single())


def test_missing_momentum_is_zero_after_loading(load):
    """Fused SGD would leave it undefined, or fail where only some parameters have it."""
    network = torch.nn.Sequential(
        torch.nn.Linear(2, 2, bias=False), torch.nn.Linear(2, 2, bias=False)
    )
    optimizer = build_optimizer(load(OPTIMIZER="sgd", MOMENTUM=0.9, LR=0.1), network)
    state = optimizer.state_dict()
    state["state"] = {0: {"momentum_buffer": torch.ones(2, 2)}, 1: {"momentum_buffer": None}}
    load_optimizer(optimizer, state)
    buffers = [optimizer.state[p]["momentum_buffer"] for p in network.parameters()]
    assert torch.equal(buffers[0], torch.ones(2, 2)) and torch.equal(buffers[1], torch.zeros(2, 2))
    load_optimizer(optimizer, {**state, "state": {}})
    assert all(not optimizer.state[p]["momentum_buffer"].any() for p in network.parameters())
