"""Train with several processes and real launchers, interrupt them, and check the results.

  python tests/many.py                    all checks
  python tests/many.py restarts slurm     some of them

All processes run on this machine, on the CPU with gloo; "two machines" are two calls of torchrun.
Prints a line for each check, and exits with code 1 if one fails.
"""

import argparse
import os
import random
import re
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import torch

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from tests import kill, tiny  # noqa: E402
from tests.ranks import free_port  # noqa: E402
from tests.tools.runs import history  # noqa: E402

TIMEOUT = 600
TRAIN = str(ROOT / "tools" / "train.py")
RANKS = str(ROOT / "tests" / "ranks.py")
TORCHRUN = [sys.executable, "-m", "torch.distributed.run"]
ONE_MACHINE = [*TORCHRUN, "--standalone", "--local-addr=localhost"]
# Starts the same number of processes as srun, passes SIGUSR1 on, and exits with the highest code.
SRUN = """#!/usr/bin/env bash
while [ "${1#--}" != "$1" ]; do shift; done
pids=()
for rank in 0 1; do
    SLURM_PROCID=$rank SLURM_LOCALID=$rank SLURM_NTASKS=2 "$@" & pids+=($!)
done
trap 'kill -USR1 "${pids[@]}"' USR1
echo started > "$0.started"
highest=0
for pid in "${pids[@]}"; do
    while code=0; wait "$pid" || code=$?; kill -0 "$pid" 2>/dev/null; do :; done
    [ "$code" -gt "$highest" ] && highest=$code
done
exit "$highest"
"""


class Run:
    """A command in the background, whose output goes to a file."""

    def __init__(self, words: list[str], log: Path, **environment: str) -> None:
        folder = Path(sys.executable).parent
        self.environment = os.environ | {"OMP_NUM_THREADS": "1", **environment}
        self.environment["PATH"] = f"{log.parent}:{folder}:{os.environ['PATH']}"
        self.log = log
        with log.open("wb") as file:
            self.process = subprocess.Popen(
                words, stdout=file, stderr=file, env=self.environment, cwd=ROOT
            )

    @property
    def output(self) -> str:
        return self.log.read_text()

    def wait_for(self, text: str) -> None:
        """Wait until ``text`` is in the output."""
        deadline = time.monotonic() + TIMEOUT
        while text not in self.output:
            if self.process.poll() is not None or time.monotonic() > deadline:
                raise RuntimeError(f"{text!r} is not in the output:\n{self.output}")
            time.sleep(0.05)

    def ranks(self) -> list[int]:
        """Return the process IDs of the ranks that this launcher started."""
        path = Path(f"/proc/{self.process.pid}/task/{self.process.pid}/children")
        return [int(word) for word in path.read_text().split()]

    def end(self, code: int | None = 0) -> str:
        """Wait for the end and return the output; check the exit code unless it is None."""
        try:
            self.process.wait(TIMEOUT)
        finally:
            self.process.kill()
        if code is not None and self.process.returncode != code:
            raise RuntimeError(f"exit code {self.process.returncode}:\n{self.output}")
        return self.output


class Site:
    """A folder with a data set, experiments and results."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._count = 0
        tiny.write_coco_sets(folder / "data", training_images=6)

    def experiment(self, name: str, epochs: int = 3, **train: object) -> str:
        """Write an experiment of 12 samples and return its file."""
        train = {"BATCH_SIZE_PER_GPU": 1, "END_EPOCH": epochs, **train}
        path = self.folder / f"{name}.yaml"
        return str(tiny.experiment(path, self.folder / "data", AUTO_RESUME=True, TRAIN=train))

    def start(self, *words: str, **environment: str) -> Run:
        self._count += 1
        return Run(list(words), self.folder / f"run{self._count}.txt", **environment)

    def results(self, name: str) -> Path:
        return self.folder / "output" / "coco" / "pose_hrnet" / name

    def weights(self, name: str) -> dict[str, torch.Tensor]:
        return torch.load(self.results(name) / "final_state.pth", weights_only=True)

    def losses(self, name: str) -> list[float]:
        return [float(row["train_loss"]) for row in history(self.results(name))]


def machines(site: Site, *script: str, dynamic: bool = False, options: tuple = ()) -> list[Run]:
    """Start torchrun twice, as on two machines, with one process each."""
    port = free_port()
    runs = []
    for number in (0, 1):
        where = [f"--node_rank={number}", "--master_addr=127.0.0.1", f"--master_port={port}"]
        if dynamic:
            where = ["--rdzv_backend=c10d", f"--rdzv_endpoint=localhost:{port}", "--rdzv_id=1"]
            where += ["--local-addr=localhost"]
        words = [*TORCHRUN, "--nnodes=2", "--nproc_per_node=1", *where, *options, *script]
        runs.append(site.start(*words))
    return runs


def is_alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def seconds_until_gone(pids: list[int]) -> float:
    start = time.monotonic()
    while any(map(is_alive, pids)):
        assert time.monotonic() < start + 60, "processes are alive after 60 seconds"
        time.sleep(0.05)
    return time.monotonic() - start


def check_launchers(site: Site) -> str:
    """Losses and weights with each launcher equal those of one process (same total batch size)."""
    one = site.experiment("one", ACCUMULATE=2)
    site.start(sys.executable, TRAIN, "--cfg", one).end()
    slurm = {"SLURM_NTASKS": "2", "MASTER_PORT": str(free_port())}
    mpi = {"OMPI_COMM_WORLD_SIZE": "2", "MASTER_PORT": str(free_port())}

    def by_rank(launcher: str, number: str, local: str, shared: dict, path: str) -> list[Run]:
        words = (sys.executable, TRAIN, "--cfg", path, "--launcher", launcher)
        return [site.start(*words, **shared, **{number: r, local: r}) for r in ("0", "1")]

    starts: dict[str, Callable[[str], list[Run]]] = {
        "torchrun": lambda p: [site.start(*ONE_MACHINE, "--nproc_per_node=2", TRAIN, "--cfg", p)],
        "torch.distributed.launch": lambda p: [
            site.start(
                *(sys.executable, "-m", "torch.distributed.launch", "--nproc_per_node=2"),
                *(f"--master_port={free_port()}", TRAIN, "--cfg", p, "--launcher", "pytorch"),
            )
        ],
        "dist_train.sh": lambda p: [site.start(str(ROOT / "tools" / "dist_train.sh"), p, "2")],
        "two machines": lambda p: machines(site, TRAIN, "--cfg", p),
        "two machines, c10d": lambda p: machines(site, TRAIN, "--cfg", p, dynamic=True),
        "slurm": lambda p: by_rank("slurm", "SLURM_PROCID", "SLURM_LOCALID", slurm, p),
        "mpi": lambda p: by_rank(
            "mpi", "OMPI_COMM_WORLD_RANK", "OMPI_COMM_WORLD_LOCAL_RANK", mpi, p
        ),
    }
    worst = 0.0
    for number, start in enumerate(starts.values()):
        for run in start(site.experiment(f"run{number}")):
            run.end()
        pairs = zip(site.losses("one"), site.losses(f"run{number}"), strict=True)
        worst = max(worst, *(abs(a - b) / a for a, b in pairs))
        others = site.weights(f"run{number}")
        for key, value in site.weights("one").items():
            # The statistics of batch norms are those of other batches.
            if "running_" not in key and "num_batches" not in key:
                torch.testing.assert_close(value, others[key], rtol=1e-3, atol=1e-5)
    assert worst < 1e-5, worst
    return f"{', '.join(starts)}: losses differ by at most {worst:.0e}"


def check_killed(site: Site) -> str:
    """If a process is killed, the others end, on one machine and on two."""
    seconds = []
    for number in range(4):
        path = site.experiment(f"killed{number}", 1000)
        if number < 3:
            runs = [site.start(*ONE_MACHINE, "--nproc_per_node=3", TRAIN, "--cfg", path)]
        else:
            runs = machines(site, TRAIN, "--cfg", path)
        runs[0].wait_for("Epoch: [0][1/")
        ranks = [rank for run in runs for rank in run.ranks()]
        killed = ranks.pop(min(number, len(ranks) - 1))
        os.kill(killed, signal.SIGKILL)
        seconds.append(seconds_until_gone(ranks))
        output = "".join(run.end(1) for run in runs)
        line = rf"error: rank {min(number, len(ranks))} \(process {killed} on \S+\) died\n"
        assert re.search(line, output), output
    return f"the others ended after {max(seconds):.1f} seconds or less, and named it"


def check_restarts(site: Site) -> str:
    """With --max-restarts a run continues after a process was killed, also on two machines."""
    script = (RANKS, "0 kill 1 1", "train", "--cfg")
    one = [*ONE_MACHINE, "--nproc_per_node=2", "--max-restarts=1", *script]
    starts = {
        "one machine": lambda path: [site.start(*one, path, "WORKERS", "2")],
        "two machines": lambda path: machines(
            site, *script, path, dynamic=True, options=("--max-restarts=1",)
        ),
    }
    for name, start in starts.items():
        run, *others = start(site.experiment(name.replace(" ", "_")))
        outputs = [each.end() for each in (run, *others)]
        assert any("resuming at epoch 1" in output for output in outputs), outputs
        assert len(site.losses(name.replace(" ", "_"))) == 3
    return f"{' and '.join(starts)}: resumed from the last checkpoint"


def check_signals(site: Site) -> str:
    """A signal to torchrun or one of its processes stops all of them after saving."""
    script = str(ROOT / "tools" / "dist_train.sh")
    cases = {
        "SIGTERM to torchrun": (signal.SIGTERM, False, 1),
        "SIGUSR1 to dist_train.sh": (signal.SIGUSR1, False, 1),
        "SIGKILL to torchrun": (signal.SIGKILL, False, -9),
        "SIGTERM to a process": (signal.SIGTERM, True, 1),
    }
    seconds = []
    for number, (name, (sent, to_rank, code)) in enumerate(cases.items()):
        path = site.experiment(f"stopped{number}", 1000, EVAL_INTERVAL=1000)
        run = site.start(script, path, "2")
        run.wait_for("Epoch: [1][1/")
        ranks = run.ranks()
        os.kill(ranks[1] if to_rank else run.process.pid, sent)
        seconds.append(seconds_until_gone(ranks))
        output = run.end(code)
        shown = "SIGUSR1" if sent == signal.SIGUSR1 else "SIGTERM"
        found = re.search(rf"stopped by {shown} after epoch (\d+)(?:, step (\d+))?;", output)
        assert found, f"{name}: {output}"
        state = torch.load(site.results(f"stopped{number}") / "checkpoint.pth", weights_only=True)
        epoch, step = found.groups()
        done = state["epoch"], state["samples_done"]
        assert done == ((int(epoch), 2 * int(step) + 2) if step else (int(epoch) + 1, 0)), name
    return f"{', '.join(cases)}: saved, and ended after {max(seconds):.1f} seconds or less"


def check_slurm(site: Site) -> str:
    """tools/slurm_requeue.sh requeues itself after SIGUSR1, with identical final results."""
    for name, content in (("srun", SRUN), ("scontrol", '#!/bin/sh\necho scontrol "$@"\n')):
        (site.folder / name).write_text(content)
        (site.folder / name).chmod(0o755)
    script, job = str(ROOT / "tools" / "slurm_requeue.sh"), {"SLURM_JOB_ID": "77"}
    whole, parted = (site.experiment(name, 6) for name in ("whole", "parted"))
    site.start("bash", script, whole, **job, MASTER_PORT=str(free_port())).end()
    stops = 0
    while True:
        run = site.start("bash", script, parted, **job, MASTER_PORT=str(free_port()))
        run.wait_for(f"Epoch: [{3 * stops}][2/" if stops < 2 else "=> best score")
        if stops < 2:
            (srun,) = run.ranks()
            os.kill(srun, signal.SIGUSR1)
        output = run.end()
        if "scontrol requeue 77" not in output:
            break
        stops += 1
    assert stops == 2, output
    assert not (found := kill.differences(site.folder, "parted")), found
    return f"stopped and queued again {stops} times; equal bit for bit"


def check_bits(site: Site, kills: int = 3) -> str:
    """Two processes that are both killed at random moments end with identical results."""
    rng = random.Random(0)
    options = {"CHECKPOINT_EVERY": 1e-6, "EMA": 0.9}
    words = [*ONE_MACHINE, "--nproc_per_node=2", TRAIN, "--cfg"]
    tiny.write_coco(site.folder / "data", "train2017", images=24)  # 24 updates in each of 3 epochs
    settings = ("CUDNN.DETERMINISTIC", "True")
    site.start(*words, site.experiment("whole", **options), *settings).end()
    path = site.experiment("killed", **options)
    for moment in sorted(rng.sample(range(3 * 24), kills)):
        run = site.start(*words, path, *settings)
        run.wait_for(f"Epoch: [{moment // 24}][{moment % 24}/24]")
        for pid in [*run.ranks(), run.process.pid]:
            os.kill(pid, signal.SIGKILL)
        run.end(-signal.SIGKILL)
    site.start(*words, path, *settings).end()
    assert not (found := kill.differences(site.folder, "killed")), found
    return f"{kills} kills of both processes: equal bit for bit"


CHECKS = {
    function.__name__.removeprefix("check_"): function
    for function in (
        *(check_launchers, check_killed, check_restarts, check_signals),
        *(check_slurm, check_bits),
    )
}


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("checks", nargs="*", metavar="CHECK", help=f"some of: {', '.join(CHECKS)}")
    names = parser.parse_args().checks or list(CHECKS)
    failed = 0
    for name in names:
        start = time.monotonic()
        with tempfile.TemporaryDirectory() as folder:
            try:
                text = CHECKS[name](Site(Path(folder)))
            except (AssertionError, RuntimeError) as error:
                text, failed = f"FAILED: {error}", failed + 1
        print(f"{name} ({time.monotonic() - start:.0f} s): {text}", flush=True)
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
