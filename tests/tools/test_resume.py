"""Tests of resuming tools/train.py after an interrupt or an error."""

import os
import shutil
import signal

import numpy as np
import pytest
import torch

from lib.dataset.coco import CocoKeypoints
from lib.utils.files import hold_lock
from tests import kill
from tests.tools.runs import history, is_equal, is_one_line, output, torch_load, write


def at_step(module, epoch: int, step: int, act, monkeypatch) -> None:
    """Call ``act`` in a step of the training."""
    original = module.step_seed

    def step_seed(seed, *now):
        if now == (epoch, step):
            act()
        return original(seed, *now)

    monkeypatch.setattr(module, "step_seed", step_seed)


def interrupt(*_, **__) -> None:
    raise KeyboardInterrupt


def before_saving(module, patch) -> None:
    patch.setattr(module.TrainingState, "save", interrupt)


def during_validation(module, patch) -> None:
    patch.setattr(module, "score_test_set", interrupt)


def after_validation(module, patch) -> None:
    """Interrupt between writing model_best.pth and checkpoint.pth."""
    original = module.TrainingState.save

    def save(self, position):
        if position.is_validated:
            raise KeyboardInterrupt
        original(self, position)

    patch.setattr(module.TrainingState, "save", save)


def test_the_scale_of_float16_is_resumed(root, succeed, monkeypatch):
    monkeypatch.setattr("lib.utils.devices.autocast_type", lambda _: torch.float16)
    train = {"AMP": True, "END_EPOCH": 2}
    states = []
    for name, ends in (("whole", ["2"]), ("parted", ["1", "2"])):
        path = write(root, name, AUTO_RESUME=True, TRAIN=train)
        for end in ends:
            succeed("train", "--cfg", path, "TRAIN.END_EPOCH", end)
        states.append(torch_load(output(root, name) / "checkpoint.pth"))
    whole, parted = states
    assert whole["scaler"] == parted["scaler"] and whole["scaler"]["_growth_tracker"] > 2
    assert is_equal(whole["state_dict"], parted["state_dict"])


@pytest.mark.parametrize("optimizer", ["adam", "sgd"])
def test_an_interrupted_run_resumes_with_identical_results(
    root, tool, succeed, command, monkeypatch, optimizer
):
    train = {"END_EPOCH": 3, "OPTIMIZER": optimizer, "LR_STEP": [1], "WARMUP_ITERS": 3}
    whole = write(root, "whole", AUTO_RESUME=True, TRAIN=train)
    parted = write(root, "parted", AUTO_RESUME=True, TRAIN=train)
    succeed("train", "--cfg", whole)
    module = tool("train")
    with monkeypatch.context() as patch:
        at_step(module, 1, 1, interrupt, patch)
        ended = command(module, "--cfg", parted)
    assert ended.code == 130 and ended.err == "interrupted\n"
    # Again before checkpoint.pth of epoch 1 is written, during its validation, and after that.
    for part in (before_saving, during_validation, after_validation):
        with monkeypatch.context() as patch:
            part(module, patch)
            ended = command(module, "--cfg", parted)
        assert ended.code == 130 and "Epoch: [2]" not in ended.out
    # Again in the last epoch, and during the last validation.
    with monkeypatch.context() as patch:
        at_step(module, 2, 1, interrupt, patch)
        assert command(module, "--cfg", parted).code == 130
    with monkeypatch.context() as patch:
        during_validation(module, patch)
        ended = command(module, "--cfg", parted)
    assert ended.code == 130 and "resuming at epoch 2" in ended.out
    ended = succeed(module, "--cfg", parted)
    assert "validating epoch 2 first: its validation was interrupted" in ended.out
    assert "Epoch: [" not in ended.out
    assert not kill.differences(root.parent, "parted")
    # All is done: another call changes neither the weights nor the settings stored with them.
    files = [output(root, "parted") / name for name in ("model_best.pth", "config_train.yaml")]
    before = [file.read_bytes() for file in files]
    assert "all 3 epochs are done" in command(module, "--cfg", parted, "TRAIN.LR", 0.5).out
    assert [file.read_bytes() for file in files] == before


SECTIONS = {"TRAIN": {"END_EPOCH": 3, "BATCH_SIZE_PER_GPU": 1, "EMA": 0.9, "WARMUP_ITERS": 3}}


def stop_at(module, epoch: int, step: int, monkeypatch, number=signal.SIGTERM) -> None:
    """Send a signal to this process in a step of the training."""
    at_step(module, epoch, step, lambda: os.kill(os.getpid(), number), monkeypatch)


@pytest.mark.parametrize("optimizer", ["adam", "sgd"])
def test_a_run_stopped_within_an_epoch_resumes_with_identical_results(
    root, tool, succeed, command, monkeypatch, optimizer
):
    options = {"TRAIN": {**SECTIONS["TRAIN"], "OPTIMIZER": optimizer, "KEEP": 2}}
    whole, parted = (write(root, name, AUTO_RESUME=True, **options) for name in ("whole", "parted"))
    succeed("train", "--cfg", whole)
    module = tool("train")
    stops = [(0, 0, signal.SIGTERM), (1, 1, signal.SIGUSR1), (1, 4, signal.SIGINT), (2, 5, 15)]
    for epoch, step, number in stops:
        with monkeypatch.context() as patch:
            stop_at(module, epoch, step, patch, number)
            ended = command(module, "--cfg", parted)
        assert ended.code == 128 + number and ended.err.count("\n") == 1, ended
        assert "run the same command again to resume" in ended.err
    ended = succeed(module, "--cfg", parted)
    assert "resuming at epoch 2, step 6" in ended.out
    assert not kill.differences(root.parent, "parted")
    folder = output(root, "parted")
    kept = sorted(path.name for path in folder.glob("checkpoint*"))
    assert kept == ["checkpoint.pth", "checkpoint_2.pth", "checkpoint_3.pth"]
    state = torch_load(folder / "checkpoint.pth")
    final = torch_load(folder / "final_state.pth")
    assert is_equal(final, state["average"]) and not is_equal(final, state["state_dict"])


def test_a_changed_setting_is_logged_and_a_changed_seed_restarts_the_epoch(
    root, tool, succeed, command, monkeypatch
):
    path = write(root, AUTO_RESUME=True, **SECTIONS)
    module = tool("train")
    with monkeypatch.context() as patch:
        stop_at(module, 0, 2, patch)
        assert command(module, "--cfg", path).code == 143
    ended = succeed(module, "--cfg", path, "SEED", "5", "MODEL.SIGMA", "1.5", "WORKERS", "0")
    assert "resuming at epoch 0, best" in ended.out
    (line,) = [line for line in ended.out.splitlines() if "have changed since" in line]
    assert line.endswith("have changed since: MODEL.SIGMA 1.0 -> 1.5; SEED 3 -> 5")


def test_checkpoint_every_saves_within_an_epoch(root, succeed, monkeypatch):
    path = write(root, **SECTIONS)
    seen = []
    monkeypatch.setattr(
        "lib.core.state.TrainingState.save", lambda self, position: seen.append(position.step)
    )
    succeed("train", "--cfg", path, "TRAIN.CHECKPOINT_EVERY", "1e-9", "TRAIN.END_EPOCH", 1)
    assert seen == [1, 2, 3, 4, 5, 6, 0, 0]


def test_an_output_folder_removed_during_the_run_is_written_again(root, tool, succeed, monkeypatch):
    module = tool("train")
    at_step(module, 1, 0, lambda: shutil.rmtree(output(root)), monkeypatch)
    ended = succeed(module, "--cfg", write(root, TRAIN={"END_EPOCH": 2}))
    assert "was removed during the run" in ended.out
    names = {path.name for path in output(root).iterdir()}
    assert {"checkpoint.pth", "config_train.yaml", "history.csv"} <= names
    assert any(name.endswith("_train.log") for name in names)


def test_a_folder_is_locked_during_a_run(root, succeed, command):
    path = write(root)
    output(root).mkdir(parents=True)
    with hold_lock(output(root), "train"):
        ended = command("train", "--cfg", path)
        assert is_one_line(ended, str(output(root)), f"process {os.getpid()}", "EXPERIMENT")
    succeed("train", "--cfg", path)
    assert not list(output(root).glob("*.lock"))


def test_a_checkpoint_of_the_original_code_is_resumed(root, succeed):
    """Load a checkpoint with DataParallel's names and a NumPy score, as the original writes it."""
    succeed("train", "--cfg", write(root))
    path = output(root) / "checkpoint.pth"
    state = torch_load(path)
    weights = state["state_dict"]
    del state["best_perf"]
    state |= {"perf": np.float64(0.125), "best_state_dict": weights}
    state["state_dict"] = {f"module.{key}": value for key, value in weights.items()}
    torch.save(state, path)
    ended = succeed("train", "--cfg", write(root, AUTO_RESUME=True))
    assert "resuming at epoch 1, best score so far 0.1250" in ended.out
    final = torch_load(output(root) / "final_state.pth")
    assert is_equal(final, weights)


def test_a_run_started_from_a_checkpoint_resumes_from_its_own(root, succeed, command):
    succeed("train", "--cfg", write(root, "first"))
    start = {"CHECKPOINT": str(output(root, "first") / "checkpoint.pth"), "END_EPOCH": 2}
    path = write(root, "second", AUTO_RESUME=True, TRAIN=start)
    assert f"{start['CHECKPOINT']}: resuming at epoch 1" in command("train", "--cfg", path).out
    own = output(root, "second")
    assert (own / "model_best.pth").exists()
    assert f"{own / 'checkpoint.pth'}: resuming at epoch 2" in command("train", "--cfg", path).out


def test_the_best_weights_are_not_replaced_by_worse_ones_after_a_resume(root, succeed, monkeypatch):
    scores = iter([0.2, 0.5, 0.4, 0.3, 0.5])
    monkeypatch.setattr(
        CocoKeypoints, "evaluate", lambda self, *_: ({"AP": (v := next(scores))}, v)
    )
    best = output(root) / "model_best.pth"
    seen = []
    for end in (2, 4, 5):
        path = write(root, AUTO_RESUME=True, TRAIN={"END_EPOCH": end})
        succeed("train", "--cfg", path)
        final = torch_load(output(root) / "final_state.pth")
        seen.append(is_equal(final, torch_load(best)))
    # As in the published code, an equal score replaces the best network.
    assert seen == [True, False, True]


def test_optimizer_settings_may_change_at_a_resume(root, succeed):
    train = {"OPTIMIZER": "sgd", "WD": 0.1, "MOMENTUM": 0.5}
    succeed("train", "--cfg", write(root, TRAIN=train))
    train |= {"WD": 0.2, "MOMENTUM": 0.7, "END_EPOCH": 2}
    succeed("train", "--cfg", write(root, AUTO_RESUME=True, TRAIN=train))
    state = torch_load(output(root) / "checkpoint.pth")
    group = state["optimizer"]["param_groups"][0]
    assert (group["weight_decay"], group["momentum"]) == (0.2, 0.7)


def test_an_error_during_validation_loses_no_epoch(root, succeed, command):
    whole, broken = (write(root, name, AUTO_RESUME=True) for name in ("whole", "broken"))
    succeed("train", "--cfg", whole)
    image = root / "images" / "val2017" / "000000000001.jpg"
    content = image.read_bytes()
    image.unlink()
    folder = output(root, "broken")
    for _ in range(2):
        assert is_one_line(command("train", "--cfg", broken), str(image))
        state = torch_load(folder / "checkpoint.pth")
        assert (state["epoch"], state["validated"]) == (1, False)
        assert [float(row["epoch"]) for row in history(folder)] == [0]
    image.write_bytes(content)
    assert "Epoch: [0]" not in succeed("train", "--cfg", broken).out
    assert not kill.differences(root.parent, "broken")


def test_no_validate_skips_an_interrupted_validation(root, succeed, command):
    image = root / "images" / "val2017" / "000000000001.jpg"
    image.unlink()
    path = write(root, AUTO_RESUME=True)
    assert command("train", "--cfg", path).code == 1
    succeed("train", "--cfg", path, "--no-validate")
    assert (output(root) / "final_state.pth").exists()
    assert not (output(root) / "model_best.pth").exists()


@pytest.mark.parametrize(
    ("key", "value", "part"),
    [
        ("MODEL.EXTRA.STAGE4.NUM_CHANNELS", "[4, 8, 16, 24]", "does not match PoseHRNet"),
        ("TRAIN.OPTIMIZER", "sgd", "was written with an optimizer other than TRAIN.OPTIMIZER"),
    ],
)
def test_a_checkpoint_of_another_experiment_is_a_one_line_error(
    root, succeed, command, key, value, part
):
    succeed("train", "--cfg", write(root), key, value)
    before = (output(root) / "checkpoint.pth").read_bytes()
    path = write(root, AUTO_RESUME=True, TRAIN={"END_EPOCH": 2})
    ended = command("train", "--cfg", path)
    assert is_one_line(ended, str(output(root) / "checkpoint.pth"), part)
    assert (output(root) / "checkpoint.pth").read_bytes() == before
