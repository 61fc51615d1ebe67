"""The folders of lib import each other in one direction only."""

import ast
from pathlib import Path

import pytest

LIB = Path(__file__).resolve().parents[1] / "lib"
# Each imports only from itself and from those after it (docs/design.md).
FOLDERS = (
    *("analysis", "media", "deploy", "core", "dataset", "figures", "models", "config"),
    *("keypoints", "nms", "utils"),
)


def imported_folders(path: Path) -> set[str]:
    """Return the folders of lib that a file imports from."""
    names = []
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.ImportFrom):
            names += [f"{node.module}.{alias.name}" for alias in node.names]
        elif isinstance(node, ast.Import):
            names += [alias.name for alias in node.names]
    return {name.split(".")[1] for name in names if name.startswith("lib.")}


def test_folders_is_complete():
    assert {path.parent.name for path in LIB.glob("*/__init__.py")} == set(FOLDERS)


@pytest.mark.parametrize("folder", FOLDERS)
def test_a_folder_imports_only_from_those_after_it(folder):
    allowed = set(FOLDERS[FOLDERS.index(folder) :])
    found = {
        str(path.relative_to(LIB)): above
        for path in (LIB / folder).rglob("*.py")
        if (above := imported_folders(path) - allowed)
    }
    assert not found


def test_nothing_in_lib_imports_a_tool():
    tools = {path.stem for path in (LIB.parent / "tools").glob("*.py")}
    for path in LIB.rglob("*.py"):
        modules = {
            node.module
            for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
            if isinstance(node, ast.ImportFrom)
        }
        assert not modules & tools, path
