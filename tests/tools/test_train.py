"""Tests of tools/train.py: its output files, and its errors on bad input."""

import errno
import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from tests import tiny
from tests.tools.runs import (
    annotations,
    history,
    is_equal,
    is_one_line,
    leftovers,
    output,
    torch_load,
    write,
)
from tests.utils.event_files import read_events

TRAIN = Path(__file__).resolve().parents[2] / "tools" / "train.py"


def test_output_files_are_those_of_the_original(root, succeed):
    debug = {"DEBUG": True, "SAVE_BATCH_IMAGES_GT": True, "SAVE_BATCH_IMAGES_PRED": True}
    debug |= {"SAVE_HEATMAPS_GT": True, "SAVE_HEATMAPS_PRED": True}
    path = write(root, TRAIN={"END_EPOCH": 2}, DEBUG=debug)
    ended = succeed("train", "--cfg", path)
    assert ended.err == ""
    folder = output(root)
    pictures = {
        f"{phase}_{step}_{kind}.jpg"
        for phase, steps in (("train", (0, 1)), ("val", (0,)))
        for step in steps
        for kind in ("gt", "pred", "hm_gt", "hm_pred")
    }
    files = {"checkpoint.pth", "model_best.pth", "final_state.pth", "history.csv", "curves.png"}
    names = {entry.name for entry in folder.iterdir()}
    logs = {name for name in names if name.endswith("_train.log")}
    assert names == pictures | files | logs | {"config_train.yaml", "results"}
    (log,) = logs
    assert re.fullmatch(r"tiny_\d{4}(-\d\d){3,5}_train\.log", log)
    results = folder / "results" / "keypoints_val2017_results_0.json"
    assert {entry["image_id"] for entry in json.loads(results.read_text())} == {1, 2}
    (events,) = (root.parent / "log" / "coco" / "pose_hrnet").glob("tiny_*/events.out.tfevents.*")
    tags = {value.tag for event in read_events(events) for value in event.summary.value}
    assert {"train_loss", "train_acc", "valid_loss", "valid_acc", "valid/AP"} <= tags
    for text in (ended.out, (folder / log).read_text()):
        assert "Epoch: [1][0/2]" in text and "Test: [0/1]" in text
        assert re.search(r"\| pose_hrnet \| 0\.\d{3} \|", text)
        assert "no GPU found; running on the CPU" in text or torch.cuda.is_available()
    state = torch_load(folder / "checkpoint.pth")
    assert set(state) == {
        *("epoch", "model", "state_dict", "best_perf", "optimizer", "validated"),
        *("average", "samples_done", "samples", "meter", "settings"),
    }
    assert (state["epoch"], state["model"], state["validated"]) == (2, "pose_hrnet", True)
    final = torch_load(folder / "final_state.pth")
    assert is_equal(final, state["state_dict"])
    assert not leftovers(root.parent)


def test_a_compiled_network_is_saved_with_the_usual_names(root, succeed, monkeypatch):
    compiled = []
    monkeypatch.setattr(
        "lib.utils.compiling.compile_in_place", lambda network, *_: compiled.append(network)
    )
    succeed("train", "--cfg", write(root), "TRAIN.COMPILE", "True")
    (network,) = compiled
    state = torch_load(output(root) / "checkpoint.pth")
    assert all(torch.equal(network.state_dict()[key], v) for key, v in state["state_dict"].items())


def test_full_gpu_memory_is_one_line(root, command, tool, monkeypatch):
    train = tool("train")

    def fail(*_):
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB.\nMore text")

    monkeypatch.setattr(train, "Training", fail)
    ended = command(train, "--cfg", write(root))
    assert is_one_line(ended, "memory of the GPU is full", "TRAIN.BATCH_SIZE_PER_GPU")


def test_a_command_line_of_the_original_works(root, succeed):
    path = write(root, TRAIN={"END_EPOCH": 0}, DATASET={"ROOT": "data"})
    folders = root.parent / "elsewhere"
    words = f"--modelDir {folders}/o --logDir {folders}/l --dataDir {root.parent} --prevModelDir x"
    words += " GPUS (0,1) DATASET.PROB_HALF_BODY -1.0 TRAIN.LR_FACTOR -1e-3 TRAIN.GAMMA1 0.99"
    succeed("train", "--cfg", path, *words.split(), "MODEL.PRETRAINED", "")
    folder = folders / "o" / "coco" / "pose_hrnet" / "tiny"
    assert (folder / "final_state.pth").exists()
    assert list((folders / "l" / "coco" / "pose_hrnet").glob("tiny_*/events.out.tfevents.*"))
    text = (folder / "config_train.yaml").read_text()
    assert "PROB_HALF_BODY: -1.0" in text and "LR_FACTOR: -0.001" in text


def test_workers_do_not_change_the_weights(root, succeed):
    states = []
    for workers in (0, 1):
        path = write(root, f"workers{workers}", WORKERS=workers)
        succeed("train", "--cfg", path)
        folder = output(root, f"workers{workers}")
        states.append(torch_load(folder / "final_state.pth"))
    assert is_equal(*states)


def test_without_auto_resume_training_starts_again(root, succeed, command):
    path = write(root)
    succeed("train", "--cfg", path)
    first = (output(root) / "final_state.pth").read_bytes()
    assert "resuming" not in command("train", "--cfg", path).out
    assert (output(root) / "final_state.pth").read_bytes() == first
    assert len(history(output(root))) == 1


def test_validation_follows_every_eval_interval_and_the_last_epoch(root, succeed):
    path = write(root, TRAIN={"END_EPOCH": 5, "EVAL_INTERVAL": 2})
    succeed("train", "--cfg", path)
    assert [bool(row["AP"]) for row in history(output(root))] == [False, True, False, True, True]


def test_the_learning_rate_falls_at_lr_step(root, succeed):
    train = {"END_EPOCH": 4, "EVAL_INTERVAL": 9, "LR_STEP": [1, 3], "LR": 0.01}
    succeed("train", "--cfg", write(root, TRAIN=train))
    rates = [float(row["lr"]) for row in history(output(root))]
    assert rates == pytest.approx([1e-2, 1e-3, 1e-3, 1e-4])


def test_a_nan_loss_is_an_error_and_keeps_the_last_checkpoint(root, command):
    train = {"END_EPOCH": 3, "LR_STEP": [1], "LR_FACTOR": 1e30}
    ended = command("train", "--cfg", write(root, TRAIN=train))
    errors = ended.err.splitlines()
    assert ended.code == 1 and errors[-1].startswith("error: epoch 2: its last steps were skipped")
    assert "TRAIN.LR" in errors[-1] and "epoch 1 is not saved" in ended.out
    state = torch_load(output(root) / "checkpoint.pth")
    assert state["epoch"] == 1
    assert all(value.isfinite().all() for value in state["state_dict"].values())


def test_pretrained_weights_are_loaded_and_reported(root, succeed):
    succeed("train", "--cfg", write(root, "first"))
    file = output(root, "first") / "final_state.pth"
    path = write(root, MODEL={"PRETRAINED": str(file)}, TRAIN={"END_EPOCH": 0})
    succeed("train", "--cfg", path)
    given, taken = (torch_load(name) for name in (file, output(root) / "final_state.pth"))
    assert is_equal(given, taken)


def test_pretrained_weights_start_a_network_for_other_joints(root, succeed):
    succeed("train", "--cfg", write(root, "first"))
    file = output(root, "first") / "final_state.pth"
    for split in ("train2017", "val2017"):
        path = annotations(root, split)
        content = json.loads(path.read_text())
        content["categories"][0]["keypoints"] = [f"joint{number}" for number in range(9)]
        for person in content["annotations"]:
            person["keypoints"] = person["keypoints"][:27]
        path.write_text(json.dumps(content))
    data = {"DATASET": "birds", "ANNOTATIONS": "annotations/person_keypoints_{split}.json"}
    path = write(
        root,
        DATASET={**data, "PROB_HALF_BODY": 0.0},
        MODEL={"NUM_JOINTS": 0, "PRETRAINED": str(file)},
        TRAIN={"END_EPOCH": 0},
    )
    ended = succeed("train", "--cfg", path)
    assert "shape differs, not loaded: final_layer (2)" in ended.out
    given = torch_load(file)
    taken = torch_load(output(root, dataset="birds") / "final_state.pth")
    assert len(taken.pop("final_layer.weight")) == len(taken.pop("final_layer.bias")) == 9
    assert all(torch.equal(value, given[key]) for key, value in taken.items())


def test_mpii_is_trained_and_scored(tmp_path, succeed):
    root = tmp_path / "data"
    tiny.write_mpii(root, "train", images=3)
    people = tiny.write_mpii(root, "valid", images=2, seed=1)
    tiny.write_mpii_truth(root / "annot" / "gt_valid.mat", people, head=120)
    path = write(root, dataset="mpii")
    ended = succeed("train", "--cfg", path)
    assert ended.err == ""
    assert re.search(r"\| Arch \| Head \| Shoulder \|.*\| Mean \| Mean@0.1 \|", ended.out)
    folder = output(root, dataset="mpii")
    assert (folder / "pred.mat").exists()
    mean = float(history(folder)[0]["Mean"])
    assert 0 < mean < 100
    state = torch_load(folder / "checkpoint.pth")
    assert state["best_perf"] == pytest.approx(mean)
    tested = succeed("test", "--cfg", path)
    assert re.search(rf"\| {mean:.3f} \| \d+\.\d+ \|\n", tested.out)


BAD = [
    ({"DATASET": {"ROOT": "/nowhere"}}, ["/nowhere/annotations/person_keypoints_train2017.json"]),
    ({"DATASET": {"TEST_SET": "val2018"}}, ["person_keypoints_val2018.json", "no such file"]),
    ({"DATASET": {"DATASET": "cocoa"}}, ["DATASET.DATASET", "'cocoa'", "choose from atrw, coco"]),
    ({"MODEL": {"NUM_JOINTS": 16}}, ["MODEL.NUM_JOINTS", "17 joints"]),
    ({"MODEL": {"TARGET_TYPE": "simc"}}, ["MODEL.TARGET_TYPE", "'simc'"]),
    ({"MODEL": {"PRETRAINED": "none.pth"}}, ["MODEL.PRETRAINED", "none.pth"]),
    ({"MODEL": {"HEATMAP_SIZE": [32, 32]}}, ["MODEL.HEATMAP_SIZE", "[32, 32]", "[16, 16]"]),
    ({"TRAIN": {"LR_SCHEDULE": "poly"}}, ["TRAIN.LR_SCHEDULE", "'poly'"]),
    ({"TRAIN": {"LR": -1.0}}, ["TRAIN", "learning rate"]),
    ({"TRAIN": {"RESUME": True}}, ["checkpoint.pth", "no such checkpoint"]),
    ({"TRAIN": {"CHECKPOINT": "none.pth"}}, ["none.pth", "no such checkpoint"]),
    ({"TEST": {"USE_GT_BBOX": False}}, ["TEST.COCO_BBOX_FILE"]),
    ({"TRAIN": {"LRR": 1}}, ["tiny.yaml", "TRAIN.LRR", "did you mean"]),
    ({"DATASET": {"DATA_FORMAT": "zip"}}, ["train2017.zip"]),
    ({"OUTPUT_DIR": "/dev/null/output"}, ["/dev/null/output", "cannot create this folder"]),
    ({"LOG_DIR": "/dev/null/log"}, ["/dev/null/log", "cannot create this folder"]),
]


@pytest.mark.parametrize(("sections", "parts"), BAD, ids=[" ".join(parts) for _, parts in BAD])
def test_bad_settings_are_one_line_errors(root, command, sections, parts):
    assert is_one_line(command("train", "--cfg", write(root, **sections)), *parts)
    assert not leftovers(root.parent)


def truncate(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:900])


def use_latin_1(path: Path) -> None:
    path.write_bytes(path.read_bytes().replace(b"000000000002.jpg", b"caf\xe9.jpg"))


@pytest.mark.parametrize(
    ("file", "damage", "part"),
    [
        ("images/train2017/000000000002.jpg", truncate, ""),
        ("images/val2017/000000000001.jpg", Path.unlink, ""),
        ("annotations/person_keypoints_train2017.json", truncate, ""),
        ("annotations/person_keypoints_val2017.json", use_latin_1, ": images[1]: "),
    ],
)
def test_broken_data_is_a_one_line_error_that_names_the_file(root, command, file, damage, part):
    damage(root / file)
    assert is_one_line(command("train", "--cfg", write(root)), f"{root / file}{part}")
    assert not leftovers(root.parent)


@pytest.mark.parametrize("name", ["image_id", "bbox", "keypoints", "area", "iscrowd"])
def test_invalid_annotations_are_found_before_training_with_detected_boxes(root, command, name):
    path = annotations(root)
    content = json.loads(path.read_text())
    tiny.write_detections(root.parent / "boxes.json", content)
    content["annotations"][1][name] = "text"
    path.write_text(json.dumps(content))
    test = {"USE_GT_BBOX": False, "COCO_BBOX_FILE": str(root.parent / "boxes.json")}
    ended = command("train", "--cfg", write(root, TEST=test))
    assert is_one_line(ended, f"{path}: annotations[1]: ", f" at {name}")
    assert "Epoch: [0]" not in ended.out


def test_a_broken_image_in_a_worker_is_a_one_line_error(root):
    name = root / "images" / "train2017" / "000000000002.jpg"
    truncate(name)
    command = [sys.executable, str(TRAIN), "--cfg", str(write(root)), "WORKERS", "1"]
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    ended = subprocess.run(
        command, cwd=root, env=environment, capture_output=True, text=True, timeout=300
    )
    assert ended.returncode == 1
    reason = "the image file is truncated after 900 bytes; copy it again"
    assert ended.stderr.startswith(f"error: {name}: {reason} (1 of 3 images are broken; ")
    assert ended.stderr.count("\n") == 1


def test_the_log_has_the_costs_of_the_network(root, command):
    ended = command("train", "--cfg", write(root), "TRAIN.END_EPOCH", "0")
    assert "M parameters" in ended.out and "stage2" not in ended.out
    (log,) = output(root).glob("*_train.log")
    assert "stage2" in log.read_text()


def test_log_graph_writes_the_graph_to_tensorboard(root, succeed, command, monkeypatch):
    path = write(root, TRAIN={"LOG_GRAPH": True, "END_EPOCH": 0})
    succeed("train", "--cfg", path)
    files = list((root.parent / "log").rglob("events.*"))
    assert any(b"stage2" in file.read_bytes() for file in files)
    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", None)
    assert is_one_line(command("train", "--cfg", path), "TRAIN.LOG_GRAPH", "tensorboard")


@pytest.mark.parametrize(
    "name", ["checkpoint.pth", "model_best.pth", "keypoints_val2017_results_0.json", "curves.png"]
)
def test_a_full_disk_is_a_one_line_error_and_keeps_the_old_file(
    root, succeed, command, monkeypatch, name
):
    succeed("train", "--cfg", write(root))
    held = {path: path.read_bytes() for path in output(root).rglob("*") if path.name == name}
    assert len(held) == 1
    fsync = os.fsync

    def full(handle):
        if name in os.readlink(f"/proc/self/fd/{handle}"):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        fsync(handle)

    monkeypatch.setattr(os, "fsync", full)
    path = write(root, TRAIN={"LR": 0.02})
    assert is_one_line(command("train", "--cfg", path), f"{name}: cannot write: No space left")
    for path, content in held.items():
        assert path.read_bytes() == content
    assert not leftovers(root.parent)
