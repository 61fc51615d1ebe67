"""Build the compiled versions of ``lib.nms``: a Cython module and, if nvcc exists, a CUDA library.

    python lib/nms/build.py              build what has changed; skip what cannot be built
    python lib/nms/build.py --clean      remove all compiled files

``tools/benchmark.py nms`` compares the results and times of the compiled versions with NumPy's.

The compiled versions are optional. A failed build is therefore reported in one line, and the exit
code is 0 unless ``--strict`` is given. Files are built in a temporary folder below ``build/`` and
then renamed, so that running programs and parallel builds are not disturbed.
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
from pathlib import Path

HERE = Path(__file__).resolve().parent
BUILD_FOLDER = HERE / "build"
MODULE = f"cpu{sysconfig.get_config_var('EXT_SUFFIX') or '.so'}"
LIBRARY = "libgpu_nms.so"
FALLBACK = "the NumPy version will be used"
# Fused multiply-adds would round differently from NumPy and CUDA.
C_FLAGS = [] if os.name == "nt" else ["-O3", "-ffp-contract=off"]
NVCC_FLAGS = ["-O3", "-shared", "-cudart", "static", "-Xcompiler", "-fPIC"]
# Tried in this order. nvcc before 11.5 has no "all-major"; its default target includes PTX, which
# also runs on newer GPUs.
NVCC_TARGETS = (["-arch=all-major", "--threads", "0"], [])


class BuildError(Exception):
    """Raised when a build fails; the message is one line."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line and return the exit code."""
    parser = argparse.ArgumentParser(description="Build the compiled versions of lib.nms.")
    parser.add_argument("--strict", action="store_true", help="exit with code 1 if a build fails")
    parser.add_argument("--no-cuda", action="store_true", help="do not build the CUDA version")
    parser.add_argument("--clean", action="store_true", help="remove all compiled files and exit")
    parser.add_argument("--compile-module", metavar="FOLDER", help=argparse.SUPPRESS)
    options = parser.parse_args(arguments)
    if options.compile_module:
        compile_module(options.compile_module)
        return 0
    if options.clean:
        clean()
        return 0
    succeeded = build_and_report("lib/nms cpu (Cython)", build_module)
    if not options.no_cuda:
        succeeded &= build_and_report("lib/nms gpu (CUDA)", build_library)
    return int(options.strict and not succeeded)


def build_and_report(name: str, build: Callable[[], str]) -> bool:
    """Run ``build`` and print one line about it. Return False if it failed."""
    succeeded = False
    try:
        text, succeeded = build(), True
    except BuildError as error:
        text = f"skipped: {error}"
    except Exception as error:  # such as a read-only folder or a broken Cython installation
        text = f"skipped: {type(error).__name__}: {error}; {FALLBACK}"
    print(f"{name}: {text}", flush=True)
    return succeeded


def build_module() -> str:
    """Build ``cpu.pyx`` for this Python and return a message about it."""
    for package in ("Cython", "setuptools"):
        if importlib.util.find_spec(package) is None:
            fix = f'"{sys.executable}" -m pip install {package.lower()}'
            raise BuildError(f"{package} is not installed; {FALLBACK}. To fix: {fix}")
    from Cython import __version__ as cython_version

    dependencies = [sys.version, platform.platform(), cython_version, *C_FLAGS]
    dependencies += [os.environ.get(name, "") for name in ("CC", "CFLAGS", "LDFLAGS")]

    def compile_in(folder: str) -> None:
        code, log = run([sys.executable, "build.py", "--compile-module", folder])
        if code:
            raise BuildError(explain(log))

    return build_if_changed("cpu.pyx", MODULE, dependencies, compile_in)


def compile_module(folder: str) -> None:
    """Compile ``cpu.pyx`` into ``folder``; run in a subprocess to capture all output."""
    from Cython.Build import cythonize
    from setuptools import Distribution, Extension

    # Use relative paths, because a space in the path of the repository may break the compiler.
    os.chdir(HERE)
    extension = Extension("lib.nms.cpu", ["cpu.pyx"], extra_compile_args=C_FLAGS)
    modules = cythonize([extension], build_dir=folder, force=True, quiet=True)
    command = Distribution({"ext_modules": modules}).get_command_obj("build_ext")
    command.build_lib = command.build_temp = folder
    command.ensure_finalized()
    command.run()
    built = Path(folder, "lib", "nms", MODULE)
    # Import the module, so that a broken build is reported here.
    spec = importlib.util.spec_from_file_location("lib.nms.cpu", built)
    spec.loader.exec_module(importlib.util.module_from_spec(spec))
    built.replace(Path(folder, MODULE))


def explain(log: str) -> str:
    """Save the output of a failed C build. Return one line with the reason and how to fix it."""
    path = BUILD_FOLDER / "cpu.log"
    path.write_text(log)
    if os.name == "nt":
        is_compiler_missing = "Microsoft Visual C++" in log
    else:
        compiler = os.environ.get("CC") or sysconfig.get_config_var("CC") or "cc"
        is_compiler_missing = shutil.which(compiler.split()[0]) is None
    if "Python.h" in log:
        reason = "Python's headers are missing"
        fix = "install them (apt: python3-dev, dnf: python3-devel)"
    elif is_compiler_missing:
        reason, fix = "no C compiler found", "install gcc (apt: build-essential) or clang"
    else:
        reason, fix = f"compilation failed ({first_error(log)})", f"see {path}"
    return f"{reason}; {FALLBACK}. To fix: {fix}, then run make again"


def first_error(log: str) -> str:
    """Return the first line of ``log`` with an error, or its last line if there is none."""
    lines = [line.strip() for line in log.splitlines() if line.strip()]
    errors = [line for line in lines if "error" in line.lower()]
    return (errors or lines[-1:] or ["no output"])[0][:200]


def build_library() -> str:
    """Build ``gpu.cu`` if nvcc is found, and return a message about it."""
    nvcc = find_nvcc()
    if nvcc is None:
        return "skipped: nvcc not found; box NMS will run on the CPU"
    _, version = run([nvcc, "--version"])

    def compile_in(folder: str) -> None:
        log = ""
        for target in NVCC_TARGETS:
            command = [nvcc, *NVCC_FLAGS, *target, "-o", f"{folder}/{LIBRARY}", "gpu.cu"]
            # nvcc fails if a path has a space, so all paths are relative, including TMPDIR.
            code, text = run(command, TMPDIR=folder)
            log += text
            if not code:
                return
        path = BUILD_FOLDER / "gpu.log"
        path.write_text(log)
        raise BuildError(
            f"nvcc failed ({first_error(log)}); box NMS will run on the CPU. See {path}"
        )

    dependencies = [version, platform.machine(), *NVCC_FLAGS]
    return build_if_changed("gpu.cu", LIBRARY, dependencies, compile_in)


def find_nvcc() -> str | None:
    """Return the path of nvcc, from $CUDA_HOME, $CUDA_PATH, $PATH or its default folder."""
    homes = [os.environ.get("CUDA_HOME"), os.environ.get("CUDA_PATH")]
    folders = [os.path.join(home, "bin") for home in homes if home]
    folders += [os.environ.get("PATH"), "/usr/local/cuda/bin"]
    return shutil.which("nvcc", path=os.pathsep.join(filter(None, folders)))


def run(command: list[str], **environment: str) -> tuple[int, str]:
    """Run ``command`` in lib/nms and return its exit code and combined output.

    ``environment`` is added to the environment variables of this process.
    """
    done = subprocess.run(
        command,
        cwd=HERE,
        env=os.environ | environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        check=False,
    )
    return done.returncode, done.stdout.decode(errors="replace")


def build_if_changed(
    source: str, name: str, dependencies: list[str], compile_in: Callable[[str], None]
) -> str:
    """Build ``name`` from ``source`` if anything that it depends on changed since the last build.

    The file depends on ``source``, this script, and the versions and options in ``dependencies``.
    They are compared by a hash, because file times change with every checkout. ``compile_in`` gets
    the path of a temporary folder, relative to lib/nms, and writes the file there.
    """
    parts = [(HERE / source).read_bytes(), (HERE / "build.py").read_bytes()]
    parts += [text.encode() for text in dependencies]
    key = hashlib.sha256(b"\0".join(parts)).hexdigest()
    record = BUILD_FOLDER / f"{name}.key"
    if (HERE / name).is_file() and record.is_file() and record.read_text() == key:
        return f"up to date ({name})"
    start = time.perf_counter()
    BUILD_FOLDER.mkdir(exist_ok=True)
    with tempfile.TemporaryDirectory(dir=BUILD_FOLDER) as folder:
        compile_in(f"{BUILD_FOLDER.name}/{Path(folder).name}")
        record.unlink(missing_ok=True)
        Path(folder, name).replace(HERE / name)
    record.write_text(key)
    return f"built {name} in {time.perf_counter() - start:.0f} s"


def clean() -> None:
    """Remove all compiled files, for every Python version."""
    for path in [*HERE.glob("*.so"), *HERE.glob("*.pyd")]:
        path.unlink()
    shutil.rmtree(BUILD_FOLDER, ignore_errors=True)
    print("lib/nms: removed all compiled files")


if __name__ == "__main__":
    # Python puts this folder first in sys.path, so its files could hide modules of the same name.
    sys.path[:] = [path for path in sys.path if Path(path or ".").resolve() != HERE]
    raise SystemExit(main())
