"""Build what makes ``lib.nms`` fast: its Cython module, and its CUDA library where nvcc is.

    python lib/nms/build.py              build what changed; what cannot be built is skipped
    python lib/nms/build.py --check      compare all that is built with NumPy, GPU included
    python lib/nms/build.py --clean      remove what was built

Nothing here is needed: the library runs on NumPy without it. So a missing compiler is one line and
exit code 0, unless ``--strict``. Everything is built in a temporary folder below ``build/`` and put
beside the source by one rename, so that running programs and other builds are not disturbed.
"""

import argparse
import hashlib
import importlib.util
import os
import platform
import shutil
import subprocess
import sys
import sysconfig
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

HERE = Path(__file__).resolve().parent
WORK = HERE / "build"
MODULE = f"cpu{sysconfig.get_config_var('EXT_SUFFIX') or '.so'}"
LIBRARY = "libgpu_nms.so"
FALLBACK = "the NumPy version will be used"
# Contraction to fused multiply-adds would give other last digits than NumPy and CUDA.
C_FLAGS = [] if os.name == "nt" else ["-O3", "-ffp-contract=off"]
NVCC_FLAGS = ["-O3", "-shared", "-cudart", "static", "-Xcompiler", "-fPIC"]
# Newest first; an nvcc before 11.5 knows no "all-major", its default is then carried as PTX.
NVCC_TARGETS = (["-arch=all-major", "--threads", "0"], [])


@dataclass(frozen=True)
class Outcome:
    """What became of one thing to build: ``fine`` is False where something should be mended."""

    text: str
    fine: bool = True


class BuildError(Exception):
    """A build failed: one line, with how to mend it."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line; returns the exit code."""
    parser = argparse.ArgumentParser(description="Build the fast versions of lib.nms.")
    parser.add_argument("--strict", action="store_true", help="exit 1 where a build failed")
    parser.add_argument("--no-cuda", action="store_true", help="leave CUDA out")
    parser.add_argument("--force", action="store_true", help="build also what is up to date")
    parser.add_argument("--clean", action="store_true", help="remove what was built, and stop")
    parser.add_argument("--check", action="store_true", help="compare all versions, and stop")
    parser.add_argument("--compile-module", metavar="FOLDER", help=argparse.SUPPRESS)
    options = parser.parse_args(arguments)
    if options.compile_module:
        compile_module(Path(options.compile_module))
        return 0
    if options.clean:
        clean()
        return 0
    if options.check:
        return check()
    outcomes = [report("lib/nms cpu (Cython)", lambda: build_module(options.force))]
    if not options.no_cuda:
        outcomes.append(report("lib/nms gpu (CUDA)", lambda: build_library(options.force)))
    return int(options.strict and not all(outcome.fine for outcome in outcomes))


def report(name: str, build: Callable[[], Outcome]) -> Outcome:
    """Run ``build``, print its one line, and let no failure pass this point."""
    try:
        outcome = build()
    except BuildError as error:
        outcome = Outcome(f"skipped: {error}", fine=False)
    except Exception as error:  # a folder that cannot be written, a broken Cython, whatever else
        outcome = Outcome(f"skipped: {type(error).__name__}: {error}; {FALLBACK}", fine=False)
    print(f"{name}: {outcome.text}", flush=True)
    return outcome


def build_module(force: bool) -> Outcome:
    """Build ``cpu.pyx`` for this Python."""
    for package in ("Cython", "setuptools"):
        if importlib.util.find_spec(package) is None:
            mend = f'"{sys.executable}" -m pip install {package.lower()}'
            raise BuildError(f"{package} is not installed; {FALLBACK}. To mend: {mend}")
    from Cython import __version__ as cython_version

    surroundings = [sys.version, platform.platform(), cython_version, *C_FLAGS]
    surroundings += [os.environ.get(name, "") for name in ("CC", "CFLAGS", "LDFLAGS")]
    key = fingerprint("cpu.pyx", surroundings)
    if not force and is_current(MODULE, key):
        return Outcome(f"up to date ({MODULE})")
    start = time.perf_counter()
    with temporary_folder() as folder:
        command = [sys.executable, str(HERE / "build.py"), "--compile-module", folder.name]
        code, log = run(command)
        if code:
            raise BuildError(explain(log))
        install(folder / MODULE, key)
    return Outcome(f"built {MODULE} in {time.perf_counter() - start:.0f} s")


def compile_module(folder: Path) -> None:
    """Compile ``cpu.pyx`` into ``build/<folder>``: a process of its own, with its own output."""
    from Cython.Build import cythonize
    from setuptools import Distribution, Extension

    # Relative paths from here on: no compiler then sees a space in the path to the repository.
    os.chdir(HERE)
    target = Path(WORK.name) / folder
    extension = Extension("lib.nms.cpu", ["cpu.pyx"], extra_compile_args=C_FLAGS)
    modules = cythonize([extension], build_dir=str(target), force=True, quiet=True)
    command = Distribution({"ext_modules": modules}).get_command_obj("build_ext")
    command.build_lib = command.build_temp = str(target)
    command.ensure_finalized()
    command.run()
    built = target / "lib" / "nms" / MODULE
    spec = importlib.util.spec_from_file_location("lib.nms.cpu", built)
    spec.loader.exec_module(importlib.util.module_from_spec(spec))
    built.replace(target / MODULE)


def explain(log: str) -> str:
    """One line about a failed C build: what is missing, and how to mend it."""
    path = keep_log("cpu.log", log)
    if "Python.h" in log:
        reason, mend = "Python's headers are missing", "install python3-dev (python3-devel)"
    elif missing_compiler(log):
        reason, mend = "no C compiler found", "install gcc (apt: build-essential) or clang"
    else:
        reason, mend = f"it did not compile ({last_error(log)})", f"see {path}"
    return f"{reason}; {FALLBACK}. To mend: {mend}, then make again"


def missing_compiler(log: str) -> bool:
    """Whether a build failed because there is no compiler to run."""
    if os.name == "nt":
        return "Microsoft Visual C++" in log
    configured = os.environ.get("CC") or sysconfig.get_config_var("CC") or "cc"
    return shutil.which(configured.split()[0]) is None


def last_error(log: str) -> str:
    """The first line of ``log`` that tells of an error, else its last."""
    lines = [line.strip() for line in log.splitlines() if line.strip()]
    errors = [line for line in lines if "error" in line.lower()]
    return (errors or lines[-1:] or ["no output"])[0][:200]


def build_library(force: bool) -> Outcome:
    """Build ``gpu.cu`` where there is an nvcc."""
    nvcc = find_nvcc()
    if nvcc is None:
        return Outcome("skipped: nvcc not found; boxes are done on the CPU")
    _, version = run([nvcc, "--version"])
    key = fingerprint("gpu.cu", [version, platform.machine(), *NVCC_FLAGS])
    if not force and is_current(LIBRARY, key):
        return Outcome(f"up to date ({LIBRARY})")
    start = time.perf_counter()
    log = ""
    with temporary_folder() as folder:
        for target in NVCC_TARGETS:
            # Relative paths, its temporary files' too: nvcc fails at a space in any of them.
            place = f"{WORK.name}/{folder.name}"
            command = [nvcc, *NVCC_FLAGS, *target, "-o", f"{place}/{LIBRARY}", "gpu.cu"]
            code, text = run(command, TMPDIR=place)
            log += text
            if not code:
                install(folder / LIBRARY, key)
                return Outcome(f"built {LIBRARY} in {time.perf_counter() - start:.0f} s")
    path = keep_log("gpu.log", log)
    raise BuildError(
        f"nvcc did not compile it ({last_error(log)}); boxes are done on the CPU. See {path}"
    )


def find_nvcc() -> str | None:
    """nvcc of $CUDA_HOME, $CUDA_PATH, the PATH, or its usual folder."""
    homes = [os.environ.get("CUDA_HOME"), os.environ.get("CUDA_PATH")]
    places = [os.path.join(home, "bin") for home in homes if home]
    places += [os.environ.get("PATH", ""), "/usr/local/cuda/bin"]
    return next((found for place in places if (found := shutil.which("nvcc", path=place))), None)


def run(command: list[str], **environment: str) -> tuple[int, str]:
    """Run ``command`` in this folder: its exit code, stdout and stderr together."""
    done = subprocess.run(
        command,
        cwd=HERE,
        env=os.environ | environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        check=False,
    )
    return done.returncode, done.stdout.decode(errors="replace")


def temporary_folder() -> "TemporaryFolder":
    """A new folder below ``build/``, removed at the end of the ``with``."""
    WORK.mkdir(exist_ok=True)
    return TemporaryFolder(dir=WORK)


class TemporaryFolder(tempfile.TemporaryDirectory):
    """``TemporaryDirectory`` that gives a Path."""

    def __enter__(self) -> Path:
        return Path(super().__enter__())


def fingerprint(source: str, surroundings: list[str]) -> str:
    """A hash of all that a build depends on: times of files change with every checkout."""
    parts = [(HERE / source).read_bytes(), (HERE / "build.py").read_bytes()]
    parts += [text.encode() for text in surroundings]
    return hashlib.sha256(b"\0".join(parts)).hexdigest()


def is_current(name: str, key: str) -> bool:
    """Whether ``name`` is there and was built with ``key``."""
    record = WORK / f"{name}.key"
    return (HERE / name).is_file() and record.is_file() and record.read_text() == key


def install(built: Path, key: str) -> None:
    """Put a built file beside its source, and note what it was built from."""
    record = WORK / f"{built.name}.key"
    record.unlink(missing_ok=True)
    built.replace(HERE / built.name)
    record.write_text(key)


def keep_log(name: str, log: str) -> Path:
    """Write the compiler's output below ``build/``."""
    path = WORK / name
    path.write_text(log)
    return path


def clean() -> None:
    """Remove what was built, for every Python."""
    for path in [*HERE.glob("cpu.*.so"), *HERE.glob("cpu.*.pyd"), HERE / MODULE, HERE / LIBRARY]:
        path.unlink(missing_ok=True)
    shutil.rmtree(WORK, ignore_errors=True)
    print("lib/nms: removed what was built")


def check() -> int:
    """Compare all versions that are built; the exit code is 1 where one differs."""
    sys.path.insert(0, str(HERE.parents[1]))
    from lib.nms.compare import compare

    return compare()


if __name__ == "__main__":
    # Python puts this folder first, where cpu.py or build/ could stand for someone else's module.
    sys.path[:] = [path for path in sys.path if Path(path or ".").resolve() != HERE]
    raise SystemExit(main())
