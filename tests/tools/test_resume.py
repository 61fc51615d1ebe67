"""Tests of resuming tools/train.py after an interrupt or an error."""

import os
import shutil
import signal

import numpy as np
import pytest
import torch

from lib.dataset.coco import CocoKeypoints
from lib.utils.files import hold_lock
from tests.tools.runs import history, is_one_line, output, write


def interrupt_at(module, epoch: int, monkeypatch) -> None:
    """Simulate Ctrl-C in the middle of the epoch."""
    original = module.train_epoch

    def train_epoch(task, loader, optimizer, lr_at, at, **kwargs):
        def interrupting(e, step):
            if (e, step) == (epoch, 1):
                raise KeyboardInterrupt
            return lr_at(e, step)

        return original(task, loader, optimizer, interrupting, at, **kwargs)

    monkeypatch.setattr(module, "train_epoch", train_epoch)


def interrupt(*_, **__) -> None:
    raise KeyboardInterrupt


def before_saving(module, patch) -> None:
    patch.setattr(module.TrainingState, "save", interrupt)


def within_validation(module, patch) -> None:
    patch.setattr(module, "score_test_set", interrupt)


def after_validation(module, patch) -> None:
    """Interrupt between writing model_best.pth and checkpoint.pth."""
    original = module.TrainingState.save

    def save(self, position):
        if position.is_validated:
            raise KeyboardInterrupt
        original(self, position)

    patch.setattr(module.TrainingState, "save", save)


def test_the_scale_of_float16_is_resumed(root, command, monkeypatch):
    monkeypatch.setattr("lib.utils.devices.autocast_type", lambda _: torch.float16)
    train = {"AMP": True, "END_EPOCH": 2}
    states = []
    for name, ends in (("whole", ["2"]), ("parted", ["1", "2"])):
        path = write(root, name, AUTO_RESUME=True, TRAIN=train)
        for end in ends:
            assert command("train", "--cfg", path, "TRAIN.END_EPOCH", end).code == 0
        states.append(torch.load(output(root, name) / "checkpoint.pth", weights_only=True))
    whole, parted = states
    assert whole["scaler"] == parted["scaler"] and whole["scaler"]["_growth_tracker"] > 2
    for key, value in whole["state_dict"].items():
        assert torch.equal(value, parted["state_dict"][key])


@pytest.mark.parametrize("optimizer", ["adam", "sgd"])
def test_a_killed_run_goes_on_to_the_same_bits(root, tool, command, monkeypatch, optimizer):
    train = {"END_EPOCH": 3, "OPTIMIZER": optimizer, "LR_STEP": [1], "WARMUP_ITERS": 3}
    whole = write(root, "whole", AUTO_RESUME=True, TRAIN=train)
    parted = write(root, "parted", AUTO_RESUME=True, TRAIN=train)
    assert command("train", "--cfg", whole).code == 0
    module = tool("train")
    with monkeypatch.context() as patch:
        interrupt_at(module, 1, patch)
        ended = command(module, "--cfg", parted)
    assert ended.code == 130 and ended.err == "interrupted\n"
    # Again before checkpoint.pth of epoch 1 is written, during its validation, and after that.
    for part in (before_saving, within_validation, after_validation):
        with monkeypatch.context() as patch:
            part(module, patch)
            ended = command(module, "--cfg", parted)
        assert ended.code == 130 and "Epoch: [2]" not in ended.out
    # Again during the last validation.
    with monkeypatch.context() as patch:
        interrupt_at(module, 2, patch)
        assert command(module, "--cfg", parted).code == 130
    with monkeypatch.context() as patch:
        within_validation(module, patch)
        ended = command(module, "--cfg", parted)
    assert ended.code == 130 and "resuming at epoch 2" in ended.out
    ended = command(module, "--cfg", parted)
    assert (
        ended.code == 0 and "validating epoch 2 first: its validation was interrupted" in ended.out
    )
    assert "Epoch: [" not in ended.out
    for name in ("final_state.pth", "model_best.pth"):
        first, second = (
            torch.load(output(root, run) / name, weights_only=True) for run in ("whole", "parted")
        )
        for key, value in first.items():
            assert torch.equal(value, second[key]), (name, key)
    states = [
        torch.load(output(root, run) / "checkpoint.pth", weights_only=True)
        for run in ("whole", "parted")
    ]
    assert states[0]["best_perf"] == states[1]["best_perf"] > 0
    sums = [state["optimizer"]["state"] for state in states]
    assert sums[0].keys() == sums[1].keys()
    for number, entries in sums[0].items():
        assert all(torch.equal(value, sums[1][number][name]) for name, value in entries.items())
    rows = [history(output(root, run)) for run in ("whole", "parted")]
    for a, b in zip(*rows, strict=True):
        for key in ("epoch", "lr", "train_loss", "train_acc", "valid_loss", "AP"):
            assert float(a[key]) == float(b[key]), key
    # All is done: another call does not change the weights.
    before = (output(root, "parted") / "model_best.pth").read_bytes()
    assert "all 3 epochs are done" in command(module, "--cfg", parted).out
    assert (output(root, "parted") / "model_best.pth").read_bytes() == before


NAMES = {"TRAIN": {"END_EPOCH": 3, "BATCH_SIZE_PER_GPU": 1, "EMA": 0.9, "WARMUP_ITERS": 3}}


def stop_at(module, epoch: int, step: int, monkeypatch, number=signal.SIGTERM) -> None:
    """Send a signal to this process within a step."""
    original = module.step_seed

    def step_seed(seed, at, number_of_step):
        if (at, number_of_step) == (epoch, step):
            os.kill(os.getpid(), number)
        return original(seed, at, number_of_step)

    monkeypatch.setattr(module, "step_seed", step_seed)


@pytest.mark.parametrize("optimizer", ["adam", "sgd"])
def test_a_run_stopped_within_an_epoch_resumes_to_the_same_bits(
    root, tool, command, monkeypatch, optimizer
):
    options = {"TRAIN": {**NAMES["TRAIN"], "OPTIMIZER": optimizer, "KEEP": 2}}
    whole, parted = (write(root, name, AUTO_RESUME=True, **options) for name in ("whole", "parted"))
    assert command("train", "--cfg", whole).code == 0
    module = tool("train")
    stops = [(0, 0, signal.SIGTERM), (1, 1, signal.SIGUSR1), (1, 4, signal.SIGINT), (2, 5, 15)]
    for epoch, step, number in stops:
        with monkeypatch.context() as patch:
            stop_at(module, epoch, step, patch, number)
            ended = command(module, "--cfg", parted)
        assert ended.code == 128 + number and ended.err.count("\n") == 1, ended
        assert "run the same command again to resume" in ended.err
    ended = command(module, "--cfg", parted)
    assert ended.code == 0 and "resuming at epoch 2, step 6" in ended.out
    folders = [output(root, name) for name in ("whole", "parted")]
    for name in ("final_state.pth", "model_best.pth"):
        assert (folders[0] / name).read_bytes() == (folders[1] / name).read_bytes()
    rows = [history(folder) for folder in folders]
    for a, b in zip(*rows, strict=True):
        for key in ("epoch", "lr", "train_loss", "train_acc", "valid_loss", "AP"):
            assert float(a[key]) == float(b[key]), key
    kept = sorted(path.name for path in folders[1].glob("checkpoint*"))
    assert kept == ["checkpoint.pth", "checkpoint_2.pth", "checkpoint_3.pth"]
    average, weights = (
        torch.load(folders[1] / "checkpoint.pth", weights_only=True)[key]
        for key in ("average", "state_dict")
    )
    final = torch.load(folders[1] / "final_state.pth", weights_only=True)
    assert all(torch.equal(final[key], value) for key, value in average.items())
    assert any(not torch.equal(final[key], value) for key, value in weights.items())


def test_a_changed_setting_is_logged_and_a_changed_seed_restarts_the_epoch(
    root, tool, command, monkeypatch
):
    path = write(root, AUTO_RESUME=True, **NAMES)
    module = tool("train")
    with monkeypatch.context() as patch:
        stop_at(module, 0, 2, patch)
        assert command(module, "--cfg", path).code == 143
    ended = command(module, "--cfg", path, "SEED", "5", "MODEL.SIGMA", "1.5", "WORKERS", "0")
    assert ended.code == 0 and "resuming at epoch 0, best" in ended.out
    (line,) = [line for line in ended.out.splitlines() if "have changed since" in line]
    assert line.endswith("have changed since: MODEL.SIGMA 1.0 -> 1.5; SEED 3 -> 5")


def test_checkpoints_within_an_epoch_are_written_by_the_clock(root, command, monkeypatch):
    path = write(root, **NAMES)
    seen = []
    monkeypatch.setattr(
        "lib.core.state.TrainingState.save", lambda self, position: seen.append(position.step)
    )
    ended = command("train", "--cfg", path, "TRAIN.CHECKPOINT_EVERY", "1e-9", "TRAIN.END_EPOCH", 1)
    assert ended.code == 0 and seen == [1, 2, 3, 4, 5, 6, 0, 0]


def test_an_output_folder_removed_during_the_run_is_written_again(root, tool, command, monkeypatch):
    module = tool("train")
    original = module.step_seed

    def step_seed(seed, epoch, step):
        if (epoch, step) == (1, 0):
            shutil.rmtree(output(root))
        return original(seed, epoch, step)

    monkeypatch.setattr(module, "step_seed", step_seed)
    ended = command(module, "--cfg", write(root, TRAIN={"END_EPOCH": 2}))
    assert ended.code == 0 and "was removed during the run" in ended.out
    names = {path.name for path in output(root).iterdir()}
    assert {"checkpoint.pth", "config_train.yaml", "history.csv"} <= names
    assert any(name.endswith("_train.log") for name in names)


def test_one_run_at_a_time_uses_a_folder(root, command):
    path = write(root)
    output(root).mkdir(parents=True)
    with hold_lock(output(root), "train"):
        ended = command("train", "--cfg", path)
        assert is_one_line(ended, str(output(root)), f"process {os.getpid()}", "EXPERIMENT")
    assert command("train", "--cfg", path).code == 0
    assert not list(output(root).glob("*.lock"))


def test_a_run_of_the_original_is_gone_on_with(root, command):
    """Load a checkpoint with DataParallel's names and a NumPy score, as the original writes it."""
    assert command("train", "--cfg", write(root)).code == 0
    path = output(root) / "checkpoint.pth"
    state = torch.load(path, weights_only=True)
    weights = state["state_dict"]
    del state["best_perf"]
    state |= {"perf": np.float64(0.125), "best_state_dict": weights}
    state["state_dict"] = {f"module.{key}": value for key, value in weights.items()}
    torch.save(state, path)
    ended = command("train", "--cfg", write(root, AUTO_RESUME=True))
    assert ended.code == 0 and "resuming at epoch 1, best score so far 0.1250" in ended.out
    final = torch.load(output(root) / "final_state.pth", weights_only=True)
    assert all(torch.equal(final[key], value) for key, value in weights.items())


def test_a_run_begun_from_a_checkpoint_goes_on_with_its_own_and_keeps_its_own_best(root, command):
    assert command("train", "--cfg", write(root, "first")).code == 0
    start = {"CHECKPOINT": str(output(root, "first") / "checkpoint.pth"), "END_EPOCH": 2}
    path = write(root, "second", AUTO_RESUME=True, TRAIN=start)
    assert f"{start['CHECKPOINT']}: resuming at epoch 1" in command("train", "--cfg", path).out
    own = output(root, "second")
    assert (own / "model_best.pth").exists()
    assert f"{own / 'checkpoint.pth'}: resuming at epoch 2" in command("train", "--cfg", path).out


def test_the_best_network_is_never_replaced_by_a_worse_one_even_after_a_resume(
    root, command, monkeypatch
):
    scores = iter([0.2, 0.5, 0.4, 0.3, 0.5])
    monkeypatch.setattr(
        CocoKeypoints, "evaluate", lambda self, *_: ({"AP": (v := next(scores))}, v)
    )
    best = output(root) / "model_best.pth"
    seen = []
    for end in (2, 4, 5):
        path = write(root, AUTO_RESUME=True, TRAIN={"END_EPOCH": end})
        assert command("train", "--cfg", path).code == 0
        final = torch.load(output(root) / "final_state.pth", weights_only=True)
        held = torch.load(best, weights_only=True)
        seen.append(all(torch.equal(final[key], held[key]) for key in final))
    # As in the published code, an equal score replaces the best network.
    assert seen == [True, False, True]


def test_settings_are_the_experiments_also_after_a_resume(root, command):
    train = {"OPTIMIZER": "sgd", "WD": 0.1, "MOMENTUM": 0.5}
    assert command("train", "--cfg", write(root, TRAIN=train)).code == 0
    train |= {"WD": 0.2, "MOMENTUM": 0.7, "END_EPOCH": 2}
    assert command("train", "--cfg", write(root, AUTO_RESUME=True, TRAIN=train)).code == 0
    state = torch.load(output(root) / "checkpoint.pth", weights_only=True)
    group = state["optimizer"]["param_groups"][0]
    assert (group["weight_decay"], group["momentum"]) == (0.2, 0.7)


def test_a_fault_within_a_validation_costs_no_epoch(root, command):
    whole, broken = (write(root, name, AUTO_RESUME=True) for name in ("whole", "broken"))
    assert command("train", "--cfg", whole).code == 0
    image = root / "images" / "val2017" / "000000000001.jpg"
    content = image.read_bytes()
    image.unlink()
    folder = output(root, "broken")
    for _ in range(2):
        assert is_one_line(command("train", "--cfg", broken), str(image))
        state = torch.load(folder / "checkpoint.pth", weights_only=True)
        assert (state["epoch"], state["validated"]) == (1, False)
        assert [float(row["epoch"]) for row in history(folder)] == [0]
    image.write_bytes(content)
    ended = command("train", "--cfg", broken)
    assert ended.code == 0 and "Epoch: [0]" not in ended.out
    for name in ("model_best.pth", "final_state.pth"):
        assert (folder / name).read_bytes() == (output(root, "whole") / name).read_bytes()
    for name in ("train_loss", "valid_loss", "AP"):
        assert history(folder)[0][name] == history(output(root, "whole"))[0][name]


def test_a_validation_that_is_no_longer_wanted_is_left_out_of_a_resume(root, command):
    image = root / "images" / "val2017" / "000000000001.jpg"
    image.unlink()
    path = write(root, AUTO_RESUME=True)
    assert command("train", "--cfg", path).code == 1
    ended = command("train", "--cfg", path, "--no-validate")
    assert ended.code == 0 and (output(root) / "final_state.pth").exists()
    assert not (output(root) / "model_best.pth").exists()


@pytest.mark.parametrize(
    ("key", "value", "part"),
    [
        ("MODEL.EXTRA.STAGE4.NUM_CHANNELS", "[4, 8, 16, 24]", "does not match PoseHRNet"),
        ("TRAIN.OPTIMIZER", "sgd", "was written with an optimizer other than TRAIN.OPTIMIZER"),
    ],
)
def test_a_checkpoint_of_another_experiment_is_one_line_that_names_it(
    root, command, key, value, part
):
    assert command("train", "--cfg", write(root), key, value).code == 0
    before = (output(root) / "checkpoint.pth").read_bytes()
    path = write(root, AUTO_RESUME=True, TRAIN={"END_EPOCH": 2})
    ended = command("train", "--cfg", path)
    assert is_one_line(ended, str(output(root) / "checkpoint.pth"), part)
    assert (output(root) / "checkpoint.pth").read_bytes() == before


@pytest.mark.parametrize(
    ("content", "part"),
    [(b"", "it is empty"), (b"hello", "b'hello'"), (b"PK\x03\x04 half a file", "damaged or tr")],
)
def test_a_damaged_checkpoint_is_one_line_that_names_it(root, command, content, part):
    output(root).mkdir(parents=True)
    (output(root) / "checkpoint.pth").write_bytes(content)
    ended = command("train", "--cfg", write(root, AUTO_RESUME=True))
    assert is_one_line(ended, "checkpoint.pth: ", part)
