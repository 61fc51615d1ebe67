"""JSON files: typed and arbitrary content, and errors that name the file and the entry."""

import json

import msgspec
import numpy as np
import pytest

from lib.utils.errors import InputError
from lib.utils.reading import encode_json, read_any_json, read_json


class Entry(msgspec.Struct):
    id: int
    name: str = ""


class Whole(msgspec.Struct):
    entries: list[Entry]
    info: dict = {}


def write(path, content) -> str:
    path.write_text(content if isinstance(content, str) else json.dumps(content))
    return str(path)


def test_unknown_fields_are_skipped(tmp_path):
    path = write(tmp_path / "a.json", {"x": [1, {}], "entries": [{"id": 3, "y": None}], "info": {}})
    assert read_json(path, Whole, "entries").entries == [Entry(3)]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("", "a.json: cannot be read as entries: "),
        ("{", "a.json: cannot be read as entries: "),
        ("nothing", "a.json: cannot be read as entries: "),
        ('{"entries": [{"id": 1}', "a.json: cannot be read as entries: "),
        ('{"entries": [{"id": 1},]}', "a.json: cannot be read as entries: "),
        ('{"entries": [{"id": 1} {"id": 2}]}', r"a.json: cannot be read as entries: .*\(byte 23\)"),
        ('{"entries": [{"id": 1}]}]', "a.json: cannot be read as entries: "),
        ('{"entries": [{"id": NaN}]}', r"a.json: cannot be read as entries: .*\(byte 20\).*NaN"),
        ('{"entries": {"id": 1}}', r"a.json: .*Expected `array`, got `object` - at `\$.entries`"),
        ("[1]", "a.json: cannot be read as entries: Expected `object`, got `array`"),
        ({}, "missing required field `entries`"),
        ({"entries": [{"id": 1}, {"id": "2"}]}, r"a.json: entries\[1\]: Expected `int`.* at id$"),
        ({"entries": [{"id": 1}, 7]}, r"a.json: entries\[1\]: Expected `object`, got `int`$"),
        ({"entries": [{"name": "x"}]}, r"a.json: entries\[0\]: .*missing required field `id`$"),
        ('{"x": ' + "[" * 200_000, "a.json: cannot be read as entries: "),
    ],
)
def test_invalid_content_is_an_error_that_names_file_and_entry(tmp_path, content, message):
    path = write(tmp_path / "a.json", content)
    with pytest.raises(InputError, match=message) as caught:
        read_json(path, Whole, "entries")
    assert "\n" not in str(caught.value)


def test_an_invalid_list_entry_is_named_by_its_number(tmp_path):
    path = write(tmp_path / "a.json", [{"id": 1}, {"id": 2, "name": 5}])
    with pytest.raises(InputError, match=r"a.json: entry 1: Expected `str`, got `int` at name$"):
        read_json(path, list[Entry], "entries")


@pytest.mark.parametrize(
    ("kind", "text", "place"),
    [
        (Whole, '{"entries": [{"id": 1}, {"id": 2, "name": "caf\xe9"}]}', r"entries\[1\]"),
        (list[Entry], '[{"id": 1}, {"id": 2, "name": "caf\xe9"}]', "entry 1"),
        (Whole, '{"entries": [], "info": {"caf\xe9": 1}}', "cannot be read as a test"),
        (Whole, '{"entries": [{"id": 1, "name": "caf\xe9"}, 5]}', "cannot be read as a test"),
    ],
)
def test_invalid_utf8_is_an_error_that_names_the_entry(tmp_path, kind, text, place):
    path = tmp_path / "a.json"
    path.write_bytes(text.encode("latin-1"))
    with pytest.raises(InputError, match=rf"a.json: {place}: text b'caf\\xe9' is not UTF-8; save"):
        read_json(path, kind, "a test")


def test_invalid_utf8_in_skipped_fields_is_ignored(tmp_path):
    path = tmp_path / "a.json"
    path.write_bytes('{"entries": [{"id": 1, "x": "caf\xe9"}], "y": "caf\xe9"}'.encode("latin-1"))
    assert read_json(path, Whole, "a test").entries == [Entry(1)]


def test_read_any_json_accepts_nan(tmp_path):
    content = read_any_json(write(tmp_path / "a.json", '[NaN, {"a": "\xfc"}]'), "a list")
    assert np.isnan(content[0]) and content[1] == {"a": "\xfc"}
    with pytest.raises(InputError, match=r"a\.json: cannot be read as JSON: "):
        read_any_json(write(tmp_path / "a.json", "[1"), "a list")


@pytest.mark.parametrize("kind", [Whole, None])
def test_a_missing_file_or_a_folder_is_an_error(tmp_path, kind):
    def read(path) -> None:
        read_json(path, kind, "the entries") if kind else read_any_json(path, "the entries")

    with pytest.raises(InputError, match=r"none.json: there is no such file \(the entries\)"):
        read(tmp_path / "none.json")
    with pytest.raises(InputError, match="cannot read the entries: Is a directory"):
        read(tmp_path)


def test_numpy_scalars_are_encoded():
    text = encode_json([{"a": np.float32(0.5), "b": np.int64(3), "c": 1.25, "d": None}])
    assert json.loads(text) == [{"a": 0.5, "b": 3, "c": 1.25, "d": None}]
