"""Tests that killed runs resume with identical results; tests/kill.py kills many more runs."""

import os
import random
import signal
import subprocess
import sys

import pytest

from tests import kill, tiny


@pytest.mark.parametrize("variant", ["sgd, moving average, two workers"])
def test_a_run_killed_three_times_has_identical_results(tmp_path, variant):
    done, problems = kill.compare(tmp_path, variant, 3, random.Random(1))
    assert not problems and done


def test_a_signal_to_the_whole_process_group_saves_a_checkpoint(tmp_path):
    for split in ("train2017", "val2017"):
        tiny.write_coco(tmp_path / "data", split, images=4)
    path = kill.write(tmp_path, tmp_path / "data", "sgd, moving average, two workers", "run")
    command = [sys.executable, "-u", str(kill.ROOT / "tools" / "train.py"), "--cfg", str(path)]
    run = subprocess.Popen(
        [*command, "TRAIN.CHECKPOINT_EVERY", "0"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env=os.environ | {"OMP_NUM_THREADS": "1"},
        start_new_session=True,
        text=True,
    )
    try:
        next(line for line in run.stdout if "Epoch: [0]" in line)
        os.killpg(run.pid, signal.SIGTERM)
        _, err = run.communicate(timeout=kill.TIMEOUT)
    finally:
        run.kill()
    assert run.returncode == 143 and err.count("\n") == 1, err
    assert err.startswith("stopped by SIGTERM after epoch 0")
    assert list((tmp_path / "output").rglob("checkpoint.pth"))
