"""The container image: its files exist, and it contains the project but no data."""

import glob
import re
import shutil
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
DOCKERFILE = (ROOT / "docker" / "Dockerfile").read_text(encoding="utf-8").replace("\\\n", " ")
GUIDE = (ROOT / "docs" / "docker.md").read_text(encoding="utf-8")
IGNORE = (ROOT / ".dockerignore").read_text(encoding="utf-8")
PATTERNS = [line for line in IGNORE.splitlines() if line and not line.startswith("#")]


def is_in_image(path: str) -> bool:
    """Return True unless .dockerignore excludes ``path``: the last matching pattern decides."""
    included = True
    for pattern in PATTERNS:
        text = re.escape(pattern.lstrip("!")).replace(r"\*\*/", "(.*/)?").replace(r"\*", "[^/]*")
        if re.fullmatch(f"{text}(/.*)?", path):
            included = pattern.startswith("!")
    return included


def test_paths_copied_into_the_image_exist():
    copies = re.findall(r"^COPY (?!--from)(.*) \S+$", DOCKERFILE, re.MULTILINE)
    assert copies
    for source in " ".join(copies).split():
        assert glob.glob(source, root_dir=ROOT), source


@pytest.mark.skipif(not (ROOT / ".git").exists(), reason="not a Git repository")
@pytest.mark.skipif(shutil.which("git") is None, reason="no git")
def test_the_image_contains_every_file_of_the_project():
    command = ["git", "-c", "safe.directory=*", "ls-files"]  # also if another user owns the files
    listed = subprocess.check_output(command, cwd=ROOT, text=True).splitlines()
    files = [name for name in listed if not name.startswith(".")]
    assert "models/hrpose/top_down.pth" in files
    assert [name for name in files if not is_in_image(name)] == []


@pytest.mark.parametrize(
    "path",
    [
        ".git/config",
        ".venv/bin/python",
        "data/coco/images/val2017/000000000785.jpg",
        "lib/__pycache__/__init__.cpython-313.pyc",
        "lib/nms/build/cpu.log",
        "lib/nms/cpu.cpython-311-x86_64-linux-gnu.so",
        "log/coco/events.out.tfevents",
        "models/pytorch/pose_coco/hrnet.pth",
        "output/coco/pose_hrnet/model_best.pth",
        "photos/me.jpg",
    ],
)
def test_the_image_contains_no_data_or_built_files(path):
    assert not is_in_image(path)


def test_dockerignore_exceptions_have_no_wildcard_in_folders():
    # Docker does not look for exceptions in an excluded folder unless they name the folder.
    assert not [pattern for pattern in PATTERNS if re.match(r"!.*\*.*/", pattern)]


def test_python_is_new_enough():
    version = re.search(r"^FROM python:(\d+)\.(\d+)-", DOCKERFILE, re.MULTILINE)
    needed = re.search(r"version_info >= \((\d+), (\d+)\)", (ROOT / "Makefile").read_text())
    assert tuple(map(int, version.groups())) >= tuple(map(int, needed.groups()))


def test_the_image_has_all_required_packages():
    (default,) = re.findall(r"^ARG REQUIREMENTS=(\S+)$", DOCKERFILE, re.MULTILINE)
    assert default == "requirements.txt"
    assert '--requirement "${REQUIREMENTS}"' in DOCKERFILE
    names = set(re.findall(r"requirements-[\w-]+\.txt", GUIDE))
    assert names
    for name in names:
        while name != default:  # each list begins with the name of one that it extends
            (name,) = re.findall(r"\A-r (\S+)\n", (ROOT / name).read_text())


def test_the_guide_uses_existing_arguments_and_folders():
    arguments = set(re.findall(r"^ARG (\w+)=", DOCKERFILE, re.MULTILINE))
    assert set(re.findall(r"--build-arg (\w+)=", GUIDE)) == arguments
    folders = set(re.findall(r'"\$PWD/(\w+):/hrpose/', GUIDE))
    assert folders and all((ROOT / folder).is_dir() for folder in folders)
