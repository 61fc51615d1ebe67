"""lib.dataset.reading.read_lists: the same content as from the whole file, wherever it is cut."""

import json

import msgspec
import pytest

from lib.dataset import reading
from lib.dataset.reading import read_lists
from lib.utils.errors import InputError


class Entry(msgspec.Struct):
    id: int
    text: str = ""


class File(msgspec.Struct):
    one: list
    other: list
    rest: dict = {}


CONTENT = {
    "info": {"one": [{"id": 9}], "text": 'a "one": [ in a string'},
    "one": [
        {"id": 1, "text": 'tricky ] } , { [ " \\ \u00e9 \n'},
        {"id": 2, "more": {"deep": [{"id": 3}, [[]]]}},
        {"id": 4, "text": "\\\\"},
    ],
    "rest": {"kept": [{"x": [1, 2]}]},
    "other": [{"id": 5}],
    "one_more": [{"id": 6}, {"id": 7}],
}


@pytest.fixture
def read(tmp_path):
    """What ``read_lists`` makes of a text: the numbers and entries handed over, and the rest."""

    def run(text: str):
        path = tmp_path / "file.json"
        path.write_text(text, encoding="utf-8")
        taken = {"one": [], "other": []}

        def take(name):
            return lambda start, entries: taken[name].extend(enumerate(entries, start))

        rest = read_lists(path, File, "a test", {name: (Entry, take(name)) for name in taken})
        return taken, rest

    return run


@pytest.mark.parametrize("block", [1, 2, 3, 7, 50, 1 << 20])
@pytest.mark.parametrize("style", [{}, {"indent": 3}, {"separators": (",", ":")}])
@pytest.mark.parametrize("ascii_only", [True, False])
def test_gives_the_same_wherever_the_file_is_cut(read, monkeypatch, block, style, ascii_only):
    monkeypatch.setattr(reading, "_BLOCK", block)
    taken, rest = read(json.dumps(CONTENT, ensure_ascii=ascii_only, **style))
    for name, found in taken.items():
        expected = [Entry(entry["id"], entry.get("text", "")) for entry in CONTENT[name]]
        assert found == list(enumerate(expected))
    assert rest == File([], [], CONTENT["rest"])


@pytest.mark.parametrize("block", [1, 7, 1 << 20])
@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "truncated"),
        ("[[1], [2]]", "Expected `object`"),
        ('{"one": []}', "missing required field `other`"),
        ('{"one": {}, "other": []}', "Expected `array`"),
        ('{"one": [], "other": [{"id": 1}', "truncated"),
        ('{"one": [], "other": []} x', "trailing characters"),
        ('{"one": [{"id": 1},], "other": []}', "one, from number"),
        ('{"one": [,{"id": 1}], "other": []}', "one, from number 0"),
        ('{"one": [{"id": 1} {"id": 2}], "other": []}', r"one, from number|before one\[1\]"),
        ('{"one": [{"id": 1}, {"id": "2"}], "other": []}', r"one\[1\]: Expected `int`.* at id"),
        ('{"one": [{"id": 1}, 7], "other": []}', r"one\[1\]: Expected `object`"),
    ],
)
def test_a_broken_file_is_an_input_error_that_says_where(read, monkeypatch, block, text, message):
    monkeypatch.setattr(reading, "_BLOCK", block)
    with pytest.raises(InputError, match=message) as error:
        read(text)
    assert "file.json" in str(error.value)
    assert "byte" not in str(error.value)


@pytest.mark.parametrize("block", [1, 7, 1 << 20])
@pytest.mark.parametrize(
    ("text", "message"),
    [
        (
            '{"one": [{"id": 1}, {"id": 2, "text": "caf\xe9"}], "other": []}',
            r"one\[1\]: text b'caf",
        ),
        ('{"one": [], "other": [], "rest": {"caf\xe9": 1}}', "as a test: text b'caf"),
    ],
)
def test_text_that_is_not_utf8_is_named(tmp_path, monkeypatch, block, text, message):
    monkeypatch.setattr(reading, "_BLOCK", block)
    path = tmp_path / "file.json"
    path.write_bytes(text.encode("latin-1"))
    lists = {name: (Entry, lambda *_: None) for name in ("one", "other")}
    with pytest.raises(InputError, match=message) as error:
        read_lists(path, File, "a test", lists)
    assert r"'caf\xe9' is not UTF-8" in str(error.value)


def test_a_missing_file_is_an_input_error(tmp_path):
    with pytest.raises(InputError, match="there is no such file"):
        read_lists(tmp_path / "none.json", File, "a test", {})
