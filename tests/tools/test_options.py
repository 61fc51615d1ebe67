"""Tests of mmpose's options in tools/train.py and tools/test.py."""

import json
import pickle

import pytest
import torch

from tests import web
from tests.tools.runs import history, is_one_line, output, random_weights, write


def test_a_work_dir_holds_results_and_log(root, command, tmp_path):
    folder = tmp_path / "work"
    ended = command("train", "--cfg", write(root), "--work-dir", folder, "--seed", "7")
    assert ended.code == 0, ended
    assert (folder / "model_best.pth").exists() and list(folder.glob("tf_logs/events.*"))
    assert not output(root).exists()
    assert "SEED: 7" in (folder / "config_train.yaml").read_text()
    ended = command("test", "--cfg", write(root), "--work-dir", folder)
    assert ended.code == 0 and str(folder / "model_best.pth") in ended.out


def test_no_validate_needs_no_test_set_and_tests_nothing(root, command):
    path = write(root, TRAIN={"END_EPOCH": 2}, DATASET={"ROOT": str(root), "TEST_SET": "none"})
    assert command("train", "--cfg", path, "--no-validate").code == 0
    folder = output(root)
    assert (folder / "final_state.pth").exists() and not (folder / "model_best.pth").exists()
    assert len(history(folder)) == 2 and not any(row.get("AP") for row in history(folder))


def test_resume_from_goes_on_with_that_file(root, command, tmp_path):
    path = write(root, TRAIN={"END_EPOCH": 1})
    assert command("train", "--cfg", path, "--work-dir", tmp_path / "first").code == 0
    first = tmp_path / "first" / "checkpoint.pth"
    path = write(root, TRAIN={"END_EPOCH": 2})
    ended = command("train", "--cfg", path, "--resume-from", first)
    assert ended.code == 0 and f"{first}: resuming at epoch 1" in ended.out
    assert "Epoch: [0]" not in ended.out and "Epoch: [1]" in ended.out


def test_gpu_ids_and_deterministic_are_settings(root, command):
    path = write(root, TRAIN={"END_EPOCH": 0})
    ended = command(
        "train", "--cfg", path, "--deterministic", "--gpu-ids", "0", "2", "TRAIN.LR", "1e-5"
    )
    assert ended.code == 0, ended
    assert torch.backends.cudnn.deterministic and not torch.backends.cudnn.benchmark
    text = (output(root) / "config_train.yaml").read_text()
    assert "DETERMINISTIC: true" in text and "BENCHMARK: false" in text
    assert "GPUS:\n- 0\n- 2\n" in text and "LR: 1.0e-05" in text


@pytest.mark.parametrize(("gpus", "factor"), [("(0,1)", 0.5), ("(0,)", 1.0)])
def test_autoscale_lr_follows_the_size_of_the_batch(root, command, gpus, factor):
    path = write(root, DATASET={"ROOT": "elsewhere"}, TRAIN={"END_EPOCH": 1, "LR": 0.01}, GPUS=gpus)
    options = ("--autoscale-lr", "--gpu-ids", "0", "DATASET.ROOT", root)
    ended = command("train", "--cfg", path, *options)
    assert ended.code == 0 and f"TRAIN.LR is multiplied by {factor:g}" in ended.out
    assert float(history(output(root))[0]["lr"]) == pytest.approx(0.01 * factor)


def test_folded_batch_norms_find_the_same_and_out_holds_everybody(root, command, tmp_path):
    path, weights = write(root), random_weights(root)
    images = []
    for name, options in (("plain.pkl", ["--no-fuse-conv-bn"]), ("folded.json", [])):
        file = tmp_path / "new" / name
        arguments = ("--out", file, *options, "TEST.MODEL_FILE", weights)
        ended = command("test", "--cfg", path, *arguments)
        assert ended.code == 0, ended
        load = pickle.loads if name.endswith("pkl") else json.loads
        images.append(load(file.read_bytes()))
    for plain, folded in zip(*images, strict=True):
        assert set(plain) == {"preds", "boxes", "image_paths", "bbox_ids", "output_heatmap"}
        torch.testing.assert_close(
            torch.tensor(folded["preds"]), torch.tensor(plain["preds"]), atol=1e-2, rtol=0
        )
        assert plain["preds"].shape == (2, 17, 3) and plain["boxes"].shape == (2, 6)
        *_, width, height, area, _ = plain["boxes"][0]
        assert area == pytest.approx(width * height * 200**2)
        assert len(plain["image_paths"]) == 2
    assert [image["bbox_ids"] for image in images[0]] == [[0, 1], [2, 3]]


@pytest.mark.parametrize(
    ("options", "parts"),
    [
        (["--cfg-options", "optimizer.type=SGD"], ["--cfg-options", "TRAIN.LR=1e-4", "type=SGD"]),
        (["--options", "a"], ["KEY=VALUE"]),
        (["--gpu-ids", "all"], ["--gpu-ids", "all"]),
        (["--gpus", "-1"], ["--gpus", "-1"]),
        (["--launcher", "slurm"], ["--launcher slurm", "SLURM_PROCID", "srun"]),
        (["--launcher", "mpi"], ["--launcher mpi", "mpirun"]),
        (["--launcher", "pytorch"], ["--launcher pytorch", "torchrun"]),
        (["--work-dir", "a", "--modelDir", "b"], ["--work-dir", "--modelDir"]),
        (["--seed", "one"], ["SEED"]),
        (["--resume-from", "nowhere.pth"], ["nowhere.pth"]),
    ],
)
def test_what_they_cannot_take_is_one_line(root, command, options, parts):
    assert is_one_line(command("train", "--cfg", write(root), *options), *parts)


@pytest.mark.parametrize("name", ["people.csv", "."])
def test_out_is_looked_at_before_the_test(root, command, tmp_path, name):
    ended = command("test", "--cfg", write(root), "--out", tmp_path / name)
    assert is_one_line(ended, "--out", ".json")


def test_mmposes_command_lines(root, command):
    path = write(root, TRAIN={"END_EPOCH": 5})
    words = ("--gpus", "1", "--launcher", "none", "--local_rank", "0", "--seed", "3")
    settings = ("total_epochs=1", "optimizer.lr=1e-5", "model.pretrained=None")
    ended = command("train", path, *words, "--cfg-options", *settings, "PRINT_FREQ", "7")
    assert ended.code == 0, ended
    text = (output(root) / "config_train.yaml").read_text()
    for line in ("END_EPOCH: 1", "LR: 1.0e-05", "PRETRAINED: ''", "PRINT_FREQ: 7", "SEED: 3"):
        assert f"{line}\n" in text, line
    weights = output(root) / "model_best.pth"
    words = ("--eval", "mAP", "--gpu_collect", "--tmpdir", "parts", "--launcher", "none")
    ended = command("test", path, weights, *words)
    assert ended.code == 0 and f"testing {weights}" in ended.out, ended
    assert is_one_line(command("test", path, weights, "--eval", "PCKh"), "--eval", "mAP", "PCKh")


def test_the_experiment_is_given_once_and_as_yaml(root, command):
    path = write(root)
    assert command("train", "TRAIN.LR", "1e-4").code == 2
    assert is_one_line(command("train", path, "--cfg", path), "--cfg", "twice")
    theirs = "configs/top_down/dite_hrnet/mpii/ditehrnet_30_mpii_256x256.py"
    ours = "experiments/mpii/dite_hrnet/ditehrnet_30_256x256.yaml"
    assert is_one_line(command("train", theirs, "--seed", "0"), theirs, ours)


def test_weights_at_a_url_are_downloaded_once(root, command, monkeypatch, tmp_path):
    monkeypatch.setattr("lib.utils.zoo.ROOT", tmp_path)
    with web.serving() as site:
        _test_weights_of(site, root, command, tmp_path)


def _test_weights_of(site, root, command, tmp_path):
    site.files["a/epoch_210.pth"] = random_weights(root).read_bytes()
    url = site.url("a/epoch_210.pth")
    for _ in range(2):
        ended = command("test", write(root), url)
        assert ended.code == 0, ended
    assert len(site.asked) == 1
    (file,) = (tmp_path / "models" / "downloads").glob("[!.]*")
    assert file.name.endswith("-epoch_210.pth") and str(file) in ended.out
    ended = command("train", write(root, MODEL={"PRETRAINED": url}), "TRAIN.END_EPOCH", "0")
    assert ended.code == 0 and f"{file}: loaded" in ended.out
    assert is_one_line(command("test", write(root), site.url("none.pth")), "none.pth", "404")


def test_an_earlier_runs_best_weights_are_named_as_such(root, command):
    path = write(root, TRAIN={"END_EPOCH": 1}, AUTO_RESUME=False)
    assert command("train", "--cfg", path).code == 0
    ended = command("train", "--cfg", path, "--no-validate")
    assert "model_best.pth is from an earlier run" in ended.out and "best score" not in ended.out
