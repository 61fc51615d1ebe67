"""Builds of lib.nms: in a path with spaces, repeated, and without a compiler; unbuilt use."""

import os
import shutil
import subprocess
import sys
import sysconfig
from pathlib import Path

import pytest

from lib.nms import build

REPOSITORY = Path(__file__).parents[2]
USE = """
import numpy as np
import lib.nms
from lib.nms import backend
with np.load(r"{golden}") as arrays:
    for threshold in (0.3, 0.5, 0.7, 0.9):
        found = lib.nms.box_nms(arrays["dets"], threshold)
        np.testing.assert_array_equal(found, arrays[f"py_{{threshold}}"])
points, ones = np.zeros((2, 17, 3)), np.ones(2)
assert lib.nms.oks_nms(points, ones, ones, 0.5, np.ones(17)).tolist() == [1]
assert lib.nms.soft_oks_nms(points, ones, ones, 0.5, np.ones(17)).tolist() == [1, 0]
print("compiled" if backend.compiled else "numpy")
""".format(golden=REPOSITORY / "tests" / "golden" / "ops" / "box_nms.npz")


def copy_library(folder: Path) -> Path:
    """Copy the sources that the build needs to a path with spaces."""
    root = folder / "a b" / "HR Pose"
    unbuilt = shutil.ignore_patterns("*.so", "*.pyd", "build", "__pycache__")
    shutil.copytree(REPOSITORY / "lib" / "nms", root / "lib" / "nms", ignore=unbuilt)
    for name in ("__init__.py", "Makefile"):
        shutil.copy(REPOSITORY / "lib" / name, root / "lib")
    return root


def run(command: list[str], folder: Path, **environment: str) -> subprocess.CompletedProcess:
    """Run a command without PYTHONPATH, which could import another copy of lib."""
    inherited = {key: value for key, value in os.environ.items() if key != "PYTHONPATH"}
    return subprocess.run(
        command,
        cwd=folder,
        env=inherited | environment,
        capture_output=True,
        text=True,
        check=False,
    )


def run_build(root: Path, *flags: str, **environment: str) -> subprocess.CompletedProcess:
    command = [sys.executable, str(root / "lib" / "nms" / "build.py"), "--no-cuda", *flags]
    return run(command, root.parent, **environment)


@pytest.fixture(scope="module")
def built(tmp_path_factory):
    """Build a copy of the library in a path with spaces; return its root and the build's output."""
    compiler = (os.environ.get("CC") or sysconfig.get_config_var("CC") or "cc").split()[0]
    header = Path(sysconfig.get_path("include")) / "Python.h"
    if shutil.which(compiler) is None or not header.is_file():
        pytest.skip("no C compiler or no Python headers")
    pytest.importorskip("Cython")
    pytest.importorskip("setuptools")
    root = copy_library(tmp_path_factory.mktemp("build"))
    return root, run_build(root, "--strict")


def test_the_build_works_in_a_path_with_spaces(built):
    root, done = built
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.startswith("lib/nms cpu (Cython): built cpu.")
    used = run([sys.executable, "-c", USE], root)
    assert (used.stdout, used.stderr) == ("compiled\n", "")


def test_the_build_leaves_only_ignored_files(built):
    root, _ = built
    source = {path.name for path in (REPOSITORY / "lib" / "nms").iterdir()}
    new = {path.name for path in (root / "lib" / "nms").iterdir()} - source
    assert all(name in ("build", "__pycache__") or name.endswith((".so", ".pyd")) for name in new)
    assert [path.suffix for path in (root / "lib" / "nms" / "build").iterdir()] == [".key"]


def test_only_a_changed_source_is_built_again(built):
    root, _ = built
    again = run_build(root, "--strict")
    assert again.returncode == 0
    assert again.stdout.startswith("lib/nms cpu (Cython): up to date")
    source = root / "lib" / "nms" / "cpu.pyx"
    text = source.read_text()
    try:
        source.write_text(text + "\nno Cython at all\n")
        changed = run_build(root)
        assert changed.returncode == 0
        assert "skipped: compilation failed" in changed.stdout
        assert len(changed.stdout.splitlines()) == 1
    finally:
        source.write_text(text)


def test_an_unbuilt_library_works_and_warns_once(tmp_path):
    root = copy_library(tmp_path)
    used = run([sys.executable, "-c", USE], root)
    assert used.stdout == "numpy\n"
    assert used.stderr.count("`make`") == 1
    assert len(used.stderr.splitlines()) == 1


def test_importing_an_unbuilt_library_prints_nothing(tmp_path):
    used = run([sys.executable, "-c", "import lib.nms"], copy_library(tmp_path))
    assert (used.returncode, used.stdout, used.stderr) == (0, "", "")


@pytest.mark.skipif(os.name == "nt", reason="CC is not used on Windows")
def test_without_a_compiler_one_line_says_how_to_fix_it(tmp_path):
    pytest.importorskip("Cython")
    root = copy_library(tmp_path)
    done = run_build(root, CC="no-such-compiler")
    assert done.returncode == 0
    assert len(done.stdout.splitlines()) == 1
    assert "skipped: no C compiler found; the NumPy version will be used. To fix:" in done.stdout


def test_missing_headers_have_their_own_message(monkeypatch, tmp_path):
    monkeypatch.setattr(build, "BUILD_FOLDER", tmp_path)
    log = "cpu.c:27:10: fatal error: Python.h: No such file or directory\ncompilation terminated."
    assert "Python's headers are missing" in build.explain(log)
    assert "python3-dev" in build.explain(log)


@pytest.mark.parametrize("package", ["Cython", "setuptools"])
def test_a_missing_package_is_reported_with_the_command_to_install(monkeypatch, capsys, package):
    present = build.importlib.util.find_spec
    monkeypatch.setattr(
        build.importlib.util, "find_spec", lambda name: None if name == package else present(name)
    )
    assert build.main(["--no-cuda"]) == 0
    printed = capsys.readouterr().out
    assert f"skipped: {package} is not installed" in printed
    assert f"-m pip install {package.lower()}" in printed
    assert len(printed.splitlines()) == 1
    assert build.main(["--no-cuda", "--strict"]) == 1


def test_without_nvcc_cuda_is_skipped_with_one_line(monkeypatch):
    monkeypatch.setattr(build, "find_nvcc", lambda: None)
    assert build.build_library().startswith("skipped: nvcc not found")


@pytest.mark.skipif(os.name == "nt", reason="a shell script stands for nvcc")
def test_a_failing_nvcc_is_reported_in_one_line(monkeypatch, capsys, tmp_path):
    nvcc = tmp_path / "nvcc"
    nvcc.write_text('#!/bin/sh\necho "error: unsupported GNU version!"\nexit 1\n')
    nvcc.chmod(0o755)
    (tmp_path / "gpu.cu").touch()
    (tmp_path / "build.py").touch()
    monkeypatch.setattr(build, "HERE", tmp_path)
    monkeypatch.setattr(build, "BUILD_FOLDER", tmp_path / "build")
    monkeypatch.setattr(build, "find_nvcc", lambda: str(nvcc))
    assert not build.build_and_report("gpu", build.build_library)
    printed = capsys.readouterr().out
    assert "skipped: nvcc failed (error: unsupported GNU version!)" in printed
    assert len(printed.splitlines()) == 1


def test_a_library_with_a_different_interface_is_not_used(monkeypatch):
    from lib.nms import backend

    monkeypatch.setattr(backend, "INTERFACE", backend.INTERFACE + 1)
    assert backend.find_compiled() is None


@pytest.mark.skipif(shutil.which("make") is None, reason="no make")
def test_make_works_in_lib_as_in_the_original(tmp_path):
    root = copy_library(tmp_path)
    stale = root / "lib" / "nms" / build.MODULE
    stale.touch()
    done = run(["make", "clean", f"PYTHON={sys.executable}"], root / "lib")
    assert done.returncode == 0, done.stderr
    assert not stale.exists()
    assert "nms/build.py" in run(["make", "-n"], root / "lib").stdout
