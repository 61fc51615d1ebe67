"""One epoch of training."""

import numpy as np
import pytest
import torch

from lib.core.backends import TorchBackend
from lib.core.task import Losses
from lib.core.top_down import TopDown
from lib.core.train import Meter, Stats, Updater, train_epoch
from lib.keypoints.geometry import normalize
from tests import tiny
from tests.core.runs import CPU, parts, schedule, task


def test_epochs_lower_the_loss_below_that_of_empty_maps(tmp_path):
    still = {"FLIP": False, "SCALE_FACTOR": 0.0, "ROT_FACTOR": 0, "PROB_HALF_BODY": 0.0}
    model, train = {"SIGMA": 2, "INIT": "kaiming"}, {"BATCH_SIZE_PER_GPU": 3}
    run = parts(tmp_path, DATASET=still, TRAIN=train, MODEL=model)
    targets = [run.codec.encode(batch["joints"], batch["visible"]) for batch in run.loader]
    empty = sum(run.codec.loss(0 * target.heatmaps, target).item() for target in targets) / 2
    epochs = [
        train_epoch(task(run), run.loader, run.optimizer, schedule(run), epoch)
        for epoch in range(15)
    ]
    losses = [stats.loss for stats in epochs]
    assert losses[-1] < 0.6 * empty and losses[-1] < 0.6 * losses[0]
    assert epochs[0].samples == 6 and epochs[0].seconds > epochs[0].data_seconds > 0


def test_what_is_reported_is_the_mean_over_samples_and_joints_of_the_batches(tmp_path):
    """The learning rate is 0, so the weights stay. The batches have 4 and 2 samples."""
    run = parts(tmp_path, TRAIN={"LR": 0.0})
    seen = []

    def observe(step, stats, batch, outputs):
        target = run.codec.encode(batch["joints"], batch["visible"])
        loss = run.codec.loss(outputs, target).item()
        accuracy, joints = (value.item() for value in run.codec.accuracy(outputs, target))
        seen.append((step, stats, len(batch["index"]), loss, accuracy, joints))

    whole = train_epoch(
        task(run),
        run.loader,
        run.optimizer,
        schedule(run),
        0,
        print_freq=1,
        observe=observe,
    )
    assert [(step, size) for step, _, size, *_ in seen] == [(0, 4), (1, 2)]
    for _, stats, size, loss, accuracy, _ in seen:
        assert stats.loss == pytest.approx(loss, rel=1e-5) and stats.samples == size
        assert stats.accuracy == pytest.approx(accuracy, rel=1e-5)
    _, _, sizes, losses, accuracies, joints = map(np.array, zip(*seen, strict=True))
    assert whole.loss == pytest.approx((sizes * losses).sum() / 6, rel=1e-5)
    assert whole.accuracy == pytest.approx((joints * accuracies).sum() / joints.sum(), rel=1e-5)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_in_16_bits_the_network_computes_coarser_and_the_loss_stays_float32(tmp_path, dtype):
    losses, computed, seen = [], [], []

    def observe(step, stats, batch, outputs):
        seen.append(outputs[0].dtype)

    for autocast in (None, dtype):
        run = parts(tmp_path, TRAIN={"LR": 0.0, "BATCH_SIZE_PER_GPU": 6})
        tiny.randomize_weights(run.model)
        run.model.register_forward_hook(lambda module, args, out: computed.append(out.dtype))
        stats = train_epoch(
            task(run, autocast=autocast),
            run.loader,
            run.optimizer,
            schedule(run),
            0,
            observe=observe,
        )
        losses.append(stats.loss)
    assert computed == [torch.float32, dtype]
    assert seen == [torch.float32, torch.float32]
    assert losses[1] == pytest.approx(losses[0], rel=0.05)


def test_every_step_has_the_schedules_rate_and_the_epochs_order(tmp_path):
    run = parts(tmp_path, TRAIN={"BATCH_SIZE_PER_GPU": 2})
    asked, rates, rows = [], [], []

    def rate(epoch, step):
        asked.append((epoch, step))
        return 0.1 * (step + 1)

    def observe(step, stats, batch, outputs):
        rates.append(run.optimizer.param_groups[0]["lr"])
        rows.append(batch["index"].tolist())

    train_epoch(
        task(run),
        run.loader,
        run.optimizer,
        rate,
        7,
        print_freq=2,
        observe=observe,
    )
    assert asked == [(7, 0), (7, 1), (7, 2)]
    assert rates == pytest.approx([0.1, 0.3])
    run.loader.sampler.epoch = 7
    expected = [batch["index"].tolist() for batch in run.loader]
    assert rows == [expected[0], expected[2]]


def test_colours_are_fed_in_the_order_of_the_experiment(tmp_path):
    run = parts(tmp_path)
    fed = []
    run.model.register_forward_pre_hook(lambda module, args: fed.append(args[0]))
    for is_rgb in (True, False):
        batches = []
        backend = TorchBackend(run.model, run.codec, is_rgb)
        train_epoch(
            TopDown(backend, run.data.skeleton, run.data.crop),
            run.loader,
            run.optimizer,
            schedule(run),
            0,
            print_freq=1,
            observe=lambda step, stats, batch, *_, batches=batches: batches.append(batch),
        )
        torch.testing.assert_close(fed[-1], normalize(batches[-1]["image"], is_rgb))
    assert not torch.equal(fed[0], fed[2])


def test_the_network_sees_what_augment_makes_of_the_images(tmp_path):
    run = parts(tmp_path)
    steps, fed, shown = [], [], []
    run.model.register_forward_pre_hook(lambda module, args: fed.append(args[0]))

    def augment(images, step):
        steps.append(step)
        return torch.full_like(images, 10 * step)

    train_epoch(
        task(run),
        run.loader,
        run.optimizer,
        schedule(run),
        0,
        print_freq=1,
        observe=lambda step, stats, batch, *_: shown.append(batch["image"]),
        augment=augment,
    )
    assert steps == [0, 1]
    for step, images, network_input in zip(steps, shown, fed, strict=True):
        assert (images == 10 * step).all()  # the observer sees augmented images, too
        torch.testing.assert_close(network_input, normalize(images))


def test_a_meter_weighs_losses_by_samples_and_accuracies_by_joints():
    meter = Meter(CPU)
    number = torch.tensor
    meter.add(Losses(number(1.0), number(0.5), number(17)), 3, 0.25)
    meter.add(Losses(number(5.0), number(1.0), number(1)), 1, 0.5)
    stats = meter.read()
    assert stats.has_loss
    assert stats.loss == pytest.approx(2.0)
    assert stats.accuracy == pytest.approx((0.5 * 17 + 1) / 18)
    assert stats.samples == 4 and stats.data_seconds == 0.75
    meter.restart()
    assert (meter.read().loss, meter.read().samples) == (0, 0)
    meter.add(None, 2, 0.1)
    assert not meter.read().has_loss and meter.read().samples == 2
    assert Stats(0, 0, samples=30, seconds=1.5, data_seconds=0).speed == 20


def test_gradients_of_several_batches_are_averaged_for_one_update(tmp_path):
    train = {"BATCH_SIZE_PER_GPU": 1, "OPTIMIZER": "sgd", "MOMENTUM": 0.0, "WD": 0.0, "LR": 1.0}
    run = parts(tmp_path, TRAIN=train)
    other = parts(tmp_path, TRAIN=train)
    update = Updater(run.optimizer, run.data.image_files, accumulate=4)
    train_epoch(task(run), run.loader, run.optimizer, lambda *_: 0.5, 0, update=update)
    by_hand = task(other)
    by_hand.train()
    for first, count in ((0, 4), (4, 2)):  # six samples
        other.optimizer.zero_grad()
        for batch in list(other.loader)[first : first + count]:
            (by_hand.loss(by_hand.forward(batch), batch).total / count).backward()
        for parameter in other.model.parameters():
            parameter.data -= 0.5 * parameter.grad
    for ours, expected in zip(run.model.parameters(), other.model.parameters(), strict=True):
        torch.testing.assert_close(ours, expected)


def test_scaled_losses_train_the_same_weights(tmp_path):
    """Scales are powers of 2, so in float32 nothing is rounded differently."""
    weights = []
    for is_scaled in (False, True):
        run = parts(tmp_path, TRAIN={"BATCH_SIZE_PER_GPU": 2})
        scaler = torch.amp.GradScaler("cpu", enabled=is_scaled)
        options = {"accumulate": 2, "scaler": scaler}
        update = Updater(run.optimizer, run.data.image_files, run.model.buffers(), **options)
        train_epoch(task(run), run.loader, run.optimizer, schedule(run), 0, update=update)
        weights.append([*run.model.parameters(), *run.model.buffers()])
    for plain, scaled in zip(*weights, strict=True):
        torch.testing.assert_close(scaled, plain)


def test_a_meter_does_not_count_the_loss_of_a_skipped_step():
    meter, nan = Meter(CPU), torch.tensor(float("nan"))
    one = torch.tensor(1.0)
    meter.add(Losses(one, one, one), 2, 0.0)
    meter.add(Losses(nan, one, one), 6, 0.0)
    stats = meter.read()
    assert (stats.loss, stats.accuracy, stats.samples) == (1.0, 1.0, 8)
    again = Meter(CPU)
    again.load(meter.state())
    assert (again.read_over_processes().loss, again.read_over_processes().samples) == (1.0, 8)
