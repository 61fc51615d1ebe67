"""The rooms of lib: imports go one way."""

import ast
from pathlib import Path

import pytest

LIB = Path(__file__).resolve().parents[1] / "lib"
# A room imports only from itself and from rooms further right (docs/design.md).
ROOMS = (
    "analysis",
    "media",
    "deploy",
    "core",
    "dataset",
    "figures",
    "models",
    "config",
    "keypoints",
    "nms",
    "utils",
)


def imported_rooms(path: Path) -> set[str]:
    """The rooms of lib that a file imports from."""
    names = []
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.ImportFrom):
            names += [f"{node.module}.{alias.name}" for alias in node.names]
        elif isinstance(node, ast.Import):
            names += [alias.name for alias in node.names]
    return {name.split(".")[1] for name in names if name.startswith("lib.")}


def test_every_folder_of_lib_is_a_room():
    assert {path.parent.name for path in LIB.glob("*/__init__.py")} == set(ROOMS)


@pytest.mark.parametrize("room", ROOMS)
def test_a_room_imports_only_from_rooms_below_it(room):
    allowed = set(ROOMS[ROOMS.index(room) :])
    found = {
        str(path.relative_to(LIB)): above
        for path in (LIB / room).rglob("*.py")
        if (above := imported_rooms(path) - allowed)
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
