"""tools/get_data.py as a user runs it: from any folder, with plain errors."""

import json
import subprocess
import sys
from pathlib import Path

import cv2

TOOL = Path(__file__).resolve().parents[2] / "tools" / "get_data.py"


def run(*arguments: object, cwd: Path) -> subprocess.CompletedProcess:
    command = [sys.executable, str(TOOL), *map(str, arguments)]
    return subprocess.run(command, cwd=cwd, capture_output=True, text=True, timeout=120)


def test_figures_are_written_from_any_folder_and_what_goes_wrong_is_one_line(tmp_path):
    options = ["figures", "--root", "made", "--train", 2, "--val", 1, "--workers", 1]
    done = run(*options, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert "made" in done.stdout and "3/3 images" in done.stderr and "\r" not in done.stderr
    file = tmp_path / "made" / "annotations" / "person_keypoints_train.json"
    assert len(json.loads(file.read_text())["images"]) == 2
    refused = run(*options, "--seed", 1, cwd=tmp_path)
    assert refused.returncode == 1
    assert refused.stderr.startswith("error: ") and refused.stderr.count("\n") == 1
    unknown = run("mscoco", cwd=tmp_path)
    assert unknown.returncode == 2 and "figures" in unknown.stderr


def test_a_sheet_is_written_and_nothing_else(tmp_path):
    done = run("figures", "--sheet", "sheet.png", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert [path.name for path in tmp_path.iterdir()] == ["sheet.png"]
    assert cv2.imread(str(tmp_path / "sheet.png")).shape[1] == 1760
