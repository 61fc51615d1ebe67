"""Tests of resuming tools/train.py after an interrupt or an error."""

import numpy as np
import pytest
import torch

from lib.dataset.coco import CocoKeypoints
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
    patch.setattr(module, "save_state", interrupt)


def within_validation(module, patch) -> None:
    patch.setattr(module, "score_test_set", interrupt)


def after_validation(module, patch) -> None:
    """Interrupt between writing model_best.pth and checkpoint.pth."""
    save = module.save_state

    def save_state(*args, is_validated):
        if is_validated:
            raise KeyboardInterrupt
        save(*args, is_validated=is_validated)

    patch.setattr(module, "save_state", save_state)


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
        ("TRAIN.OPTIMIZER", "sgd", "was written with another optimizer than TRAIN.OPTIMIZER"),
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
