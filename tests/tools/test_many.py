"""Tests of several processes: results equal to those of one process, and failures.

tests/many.py has more checks, with real launchers.
"""

import os
import re
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from tests import kill, ranks, tiny
from tests.tools.runs import RESULTS, history, leftovers, output, random_weights, torch_load, write

pytestmark = pytest.mark.skipif(
    not torch.distributed.is_gloo_available(), reason="this PyTorch has no gloo"
)
STOPPED = 128 + signal.SIGTERM


def experiment(root: Path, name: str, batch: int, **train) -> Path:
    train = {"BATCH_SIZE_PER_GPU": batch, "END_EPOCH": 2, "OPTIMIZER": "sgd", "LR": 0.1, **train}
    return write(root, name, AUTO_RESUME=True, TRAIN=train)


def train(root: Path, count: int, path: Path, **options) -> ranks.Ended:
    return ranks.run(root.parent, "train", count, "--cfg", path, **options)


def check_close(root: Path, names: tuple[str, str], tolerance: float) -> None:
    """Compare two runs: their statistics and weights."""
    folders = [output(root, name) for name in names]
    for a, b in zip(*map(history, folders), strict=True):
        for key in ("epoch", "lr", "train_loss", "valid_loss", "AP"):
            assert float(a[key]) == pytest.approx(float(b[key]), rel=tolerance), key
    weights = [torch_load(f / "final_state.pth") for f in folders]
    for key, value in weights[0].items():
        torch.testing.assert_close(value, weights[1][key], rtol=tolerance, atol=tolerance)


@pytest.mark.parametrize("count", [2, 3])
def test_many_processes_train_like_one_with_the_same_total_batch(root, count):
    for name, number, batch in (("one", 1, count), ("many", count, 1)):
        ended = train(root, number, experiment(root, name, batch), frozen=True)
        assert ended.codes == [0] * number, ended
    check_close(root, ("one", "many"), 1e-5)


def test_a_run_of_four_processes_resumes_with_two(root):
    tiny.write_coco(root, "train2017", images=12)
    whole, parted = (experiment(root, name, 1) for name in ("whole", "parted"))
    assert train(root, 4, whole, frozen=True).codes == [0] * 4
    options = {"frozen": True, "agreement": 2}
    ended = train(root, 4, parted, faults={2: "term 1 2"}, **options)
    assert ended.codes == [STOPPED] * 4 and "after epoch 1, step 3" in ended.errors[0], ended
    parted = experiment(root, "parted", 2)
    ended = train(root, 2, parted, **options)
    assert ended.codes == [0, 0] and "resuming at epoch 1, step 4" in ended.out, ended
    check_close(root, ("whole", "parted"), 1e-5)


def test_two_killed_processes_resume_with_identical_results(root):
    options = {"CHECKPOINT_EVERY": 1e-6, "EMA": 0.9, "OPTIMIZER": "adam"}
    for name in ("whole", "killed"):
        path = experiment(root, name, 1, **options)
        faults = {0: "kill 1 2", 1: "kill 1 2"} if name == "killed" else {}
        ended = train(root, 2, path, faults=faults, agreement=2)
    assert ended.codes == [-signal.SIGKILL] * 2
    ended = train(root, 2, path, agreement=2)
    assert ended.codes == [0, 0] and "resuming at epoch 1, step 2" in ended.out, ended
    assert not kill.differences(root.parent, "killed")


@pytest.mark.parametrize("killed", [0, 1])
def test_a_killed_process_ends_the_others_and_is_named(root, killed):
    """One of the others waits for the killed process, and one does something else."""
    faults = {killed: "kill 0 1", 2: "sleep 0 1"}
    ended = train(root, 3, experiment(root, "tiny", 1), faults=faults, grace=1)
    assert sorted(ended.codes) == [-signal.SIGKILL, 1, 1] and ended.seconds < 60
    for rank in {0, 1, 2} - {killed}:
        line = ended.errors[rank].splitlines()[-1]
        assert line.startswith(f"error: rank {killed} (process ") and line.endswith(" died"), line
        assert "Traceback" not in ended.errors[rank]


@pytest.mark.parametrize("receivers", [[1], [0, 1]])
def test_a_signal_to_one_or_all_processes_stops_all_after_saving(root, receivers):
    path = experiment(root, "tiny", 1)
    ended = train(root, 2, path, faults=dict.fromkeys(receivers, "usr1 0 0"), agreement=2)
    assert ended.codes == [128 + signal.SIGUSR1] * 2
    assert all("after epoch 0, step 1; run" in text for text in ended.errors), ended
    state = torch_load(output(root) / "checkpoint.pth")
    assert (state["epoch"], state["samples_done"]) == (0, 4)


def test_a_nan_loss_of_one_process_skips_the_step_in_all(root):
    path = experiment(root, "nan", 1)
    ended = train(root, 2, path, faults={1: "nan 1 0"})
    assert ended.codes == [0, 0] and ended.out.count("skipped 1 steps") == 1, ended


def test_ten_nan_losses_of_one_process_end_all_and_name_its_images(root):
    tiny.write_coco(root, "train2017", images=4, people=1)
    path = experiment(root, "nans", 1, END_EPOCH=6, EVAL_INTERVAL=0, SHUFFLE=False)
    ended = train(root, 2, path, faults={1: "nans 0 1"})
    assert ended.codes == [1, 1] and ended.errors[0] == ended.errors[1], ended
    assert "epoch 5, step 0: the loss or the gradients of 10 steps in a row" in ended.errors[0]
    assert re.findall(r"0000(\d)\.jpg", ended.errors[0]) == ["4", "2"]


def test_a_full_disk_on_rank_0_ends_all(root):
    path = experiment(root, "tiny", 1)
    ended = train(root, 2, path, faults={0: "full checkpoint.pth"})
    text = f"{output(root)}/checkpoint.pth: cannot write: No space left on device\n"
    assert ended.codes == [1, 1] and ended.errors[0] == f"error: {text}", ended
    assert ended.errors[1].startswith("error: rank 0 (") and ended.errors[1].endswith(text)
    assert not leftovers(root.parent)


def test_torchrun_restarts_a_killed_process_from_the_last_checkpoint(root, succeed):
    """The run restarts with two processes; one process resumes it after that."""
    launcher = ["torch.distributed.run", "--standalone", "--local-addr", "localhost"]
    launcher += ["--nproc_per_node", "2", "--max-restarts", "1"]
    script = [str(ranks.ROOT / "tests" / "ranks.py"), "1 kill 1 1", "train"]
    path = experiment(root, "tiny", 1)
    words = [sys.executable, "-m", *launcher, *script, "--cfg", str(path)]
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    ended = subprocess.run(words, env=environment, capture_output=True, text=True, timeout=300)
    assert ended.returncode == 0, ended.stderr
    assert ended.stdout.count("Epoch: [0][0/3]") == 1, "only the main process logs"
    assert "resuming at epoch 1" in ended.stdout
    assert len(list(output(root).glob("*_train.log"))) == 2
    assert [row["epoch"] for row in history(output(root))] == ["0", "1"]
    succeed("train", "--cfg", path, "TRAIN.END_EPOCH", "3")
    assert len(history(output(root))) == 3


def test_dist_test_gives_the_results_of_one_process(root, succeed):
    path, weights = write(root), random_weights(root)
    words = ["bash", str(ranks.ROOT / "tools" / "dist_test.sh"), str(path), str(weights), "2"]
    folder = Path(sys.executable).parent
    environment = os.environ | {"OMP_NUM_THREADS": "1", "PATH": f"{folder}:{os.environ['PATH']}"}
    ended = subprocess.run(words, env=environment, capture_output=True, text=True, timeout=300)
    assert ended.returncode == 0, ended.stderr
    results = output(root) / RESULTS
    written = results.read_bytes()
    results.unlink()
    succeed("test", path, weights)
    assert results.read_bytes() == written


def test_three_processes_give_the_results_of_one_for_two_images(root, tmp_path):
    """One of them has no image; the results go through a folder or over the network."""
    path, weights = write(root), random_weights(root)
    folder = tmp_path / "parts"
    results = []
    for count, options in ((1, []), (3, ["--gpu_collect"]), (3, [])):
        ended = ranks.run(tmp_path, "test", count, path, weights, "--tmpdir", folder, *options)
        assert ended.codes == [0] * count, ended
        table = [line for line in ended.out.splitlines() if line.startswith("|")]
        results.append((table, (output(root) / RESULTS).read_bytes()))
        assert folder.exists() == (count == 3 and not options)
    assert len(table) == 3 and results[0] == results[1] == results[2]
    assert not list(folder.iterdir())


@pytest.mark.parametrize(("code", "is_queued"), [(138, True), (143, False), (1, False), (0, False)])
def test_a_slurm_job_requeues_itself_after_sigusr1(tmp_path, code, is_queued):
    for name in ("srun", "scontrol"):
        (tmp_path / name).write_text(f'#!/bin/sh\necho {name} "$@"\nexit $CODE\n')
        (tmp_path / name).chmod(0o755)
    environment = {"PATH": f"{tmp_path}:{os.environ['PATH']}", "SLURM_JOB_ID": "77"}
    command = ["bash", "tools/slurm_requeue.sh", "FILE", "TRAIN.LR", "0.1"]
    ended = subprocess.run(
        command,
        cwd=ranks.ROOT,
        env=environment | {"CODE": str(code)},
        capture_output=True,
        text=True,
    )
    assert ended.returncode == code
    words = "tools/train.py FILE TRAIN.LR 0.1 --launcher slurm AUTO_RESUME True"
    assert ended.stdout.splitlines()[0].endswith(words)
    assert ended.stdout.splitlines()[1:] == ["scontrol requeue 77"] * is_queued
