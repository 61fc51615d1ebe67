"""Tests of mmpose's options in tools/train.py and tools/test.py."""

import json
import pickle

import pytest
import torch

from tests.tools.runs import history, is_one_line, output, random_weights, write


def test_a_work_dir_holds_results_and_log(root, succeed, tmp_path):
    folder = tmp_path / "work"
    ended = succeed("train", "--cfg", write(root), "--work-dir", folder, "--seed", "7")
    assert (folder / "model_best.pth").exists() and list(folder.glob("tf_logs/events.*"))
    assert not output(root).exists()
    assert "SEED: 7" in (folder / "config_train.yaml").read_text()
    ended = succeed("test", "--cfg", write(root), "--work-dir", folder)
    assert str(folder / "model_best.pth") in ended.out


def test_no_validate_needs_no_test_set_and_tests_nothing(root, succeed):
    path = write(root, TRAIN={"END_EPOCH": 2}, DATASET={"ROOT": str(root), "TEST_SET": "none"})
    succeed("train", "--cfg", path, "--no-validate")
    folder = output(root)
    assert (folder / "final_state.pth").exists() and not (folder / "model_best.pth").exists()
    assert len(history(folder)) == 2 and not any(row.get("AP") for row in history(folder))


def test_resume_from_loads_that_checkpoint(root, succeed, tmp_path):
    path = write(root, TRAIN={"END_EPOCH": 1})
    succeed("train", "--cfg", path, "--work-dir", tmp_path / "first")
    first = tmp_path / "first" / "checkpoint.pth"
    path = write(root, TRAIN={"END_EPOCH": 2})
    ended = succeed("train", "--cfg", path, "--resume-from", first)
    assert f"{first}: resuming at epoch 1" in ended.out
    assert "Epoch: [0]" not in ended.out and "Epoch: [1]" in ended.out


def test_gpu_ids_and_deterministic_are_settings(root, succeed):
    path = write(root, TRAIN={"END_EPOCH": 0})
    succeed("train", "--cfg", path, "--deterministic", "--gpu-ids", "0", "2", "TRAIN.LR", "1e-5")
    assert torch.backends.cudnn.deterministic and not torch.backends.cudnn.benchmark
    text = (output(root) / "config_train.yaml").read_text()
    assert "DETERMINISTIC: true" in text and "BENCHMARK: false" in text
    assert "GPUS:\n- 0\n- 2\n" in text and "LR: 1.0e-05" in text


@pytest.mark.parametrize(("gpus", "factor"), [("(0,1)", 0.5), ("(0,)", 1.0)])
def test_autoscale_lr_scales_with_the_total_batch_size(root, succeed, gpus, factor):
    path = write(root, DATASET={"ROOT": "elsewhere"}, TRAIN={"END_EPOCH": 1, "LR": 0.01}, GPUS=gpus)
    options = ("--autoscale-lr", "--gpu-ids", "0", "DATASET.ROOT", root)
    ended = succeed("train", "--cfg", path, *options)
    assert f"TRAIN.LR is multiplied by {factor:g}" in ended.out
    assert float(history(output(root))[0]["lr"]) == pytest.approx(0.01 * factor)


def test_folding_keeps_the_results_and_out_has_all_people(root, succeed, tmp_path):
    path, weights = write(root), random_weights(root)
    images = []
    for name, options in (("plain.pkl", ["--no-fuse-conv-bn"]), ("folded.json", [])):
        file = tmp_path / "new" / name
        arguments = ("--out", file, *options, "TEST.MODEL_FILE", weights)
        succeed("test", "--cfg", path, *arguments)
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
def test_invalid_values_are_one_line_errors(root, command, options, parts):
    assert is_one_line(command("train", "--cfg", write(root), *options), *parts)


@pytest.mark.parametrize("name", ["people.csv", "."])
def test_out_is_checked_before_the_test(root, command, tmp_path, name):
    ended = command("test", "--cfg", write(root), "--out", tmp_path / name)
    assert is_one_line(ended, "--out", ".json")


def test_command_lines_of_mmpose_work(root, succeed, command):
    path = write(root, TRAIN={"END_EPOCH": 5})
    words = ("--gpus", "1", "--launcher", "none", "--local_rank", "0", "--seed", "3")
    settings = ("total_epochs=1", "optimizer.lr=1e-5", "model.pretrained=None")
    ended = succeed("train", path, *words, "--cfg-options", *settings, "PRINT_FREQ", "7")
    text = (output(root) / "config_train.yaml").read_text()
    for line in ("END_EPOCH: 1", "LR: 1.0e-05", "PRETRAINED: ''", "PRINT_FREQ: 7", "SEED: 3"):
        assert f"{line}\n" in text, line
    weights = output(root) / "model_best.pth"
    words = ("--eval", "mAP", "--gpu_collect", "--tmpdir", "parts", "--launcher", "none")
    ended = succeed("test", path, weights, *words)
    assert f"testing {weights}" in ended.out, ended
    assert is_one_line(command("test", path, weights, "--eval", "PCKh"), "--eval", "mAP", "PCKh")


def test_a_missing_repeated_or_python_experiment_is_an_error(root, command):
    path = write(root)
    assert command("train", "TRAIN.LR", "1e-4").code == 2
    assert is_one_line(command("train", path, "--cfg", path), "--cfg", "twice")
    for theirs, ours in (
        ("dite_hrnet/mpii/ditehrnet_30_mpii_256x256.py", "mpii/dite_hrnet/ditehrnet_30_256x256"),
        ("coco/td-hm_res50_8xb64-210e_coco-256x192.py", "coco/resnet/res50_256x192"),
    ):
        assert is_one_line(command("train", theirs, "--seed", "0"), theirs, f"experiments/{ours}")


def test_weights_at_a_url_are_downloaded_once(site, root, succeed, command, monkeypatch, tmp_path):
    monkeypatch.setattr("lib.utils.zoo.ROOT", tmp_path)
    site.files["a/epoch_210.pth"] = random_weights(root).read_bytes()
    url = site.url("a/epoch_210.pth")
    for _ in range(2):
        ended = succeed("test", write(root), url)
    assert len(site.asked) == 1
    (file,) = (tmp_path / "models" / "downloads").glob("[!.]*")
    assert file.name.endswith("-epoch_210.pth") and str(file) in ended.out
    ended = succeed("train", write(root, MODEL={"PRETRAINED": url}), "TRAIN.END_EPOCH", "0")
    assert f"{file}: loaded" in ended.out
    assert is_one_line(command("test", write(root), site.url("none.pth")), "none.pth", "404")


def test_best_weights_of_an_earlier_run_are_pointed_out(root, succeed, command):
    path = write(root, TRAIN={"END_EPOCH": 1}, AUTO_RESUME=False)
    succeed("train", "--cfg", path)
    ended = command("train", "--cfg", path, "--no-validate")
    assert "model_best.pth is from an earlier run" in ended.out and "best score" not in ended.out
