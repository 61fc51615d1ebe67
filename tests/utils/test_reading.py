"""Annotation files: typed JSON, and errors that name the file and the entry."""

import json

import msgspec
import numpy as np
import pytest

from lib.utils import reading
from lib.utils.errors import InputError
from lib.utils.reading import decode_chunks, read_json, read_lists, write_json


class Entry(msgspec.Struct):
    id: int
    name: str = ""


class Whole(msgspec.Struct):
    entries: list[Entry]
    info: dict = {}


class Rest(msgspec.Struct):
    info: dict = {}
    entries: list = []
    others: list = []


def write(path, content) -> str:
    path.write_text(content if isinstance(content, str) else json.dumps(content))
    return str(path)


def test_json_is_read_as_the_type_and_other_fields_are_skipped(tmp_path):
    path = write(tmp_path / "a.json", {"x": [1, {}], "entries": [{"id": 3, "y": None}], "info": {}})
    assert read_json(path, Whole, "entries").entries == [Entry(3)]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("", "a.json: cannot be read as entries: "),
        ("{", "a.json: cannot be read as entries: "),
        ("\udc80", "a.json: cannot be read as entries: "),
        ("[1]", "a.json: cannot be read as entries: Expected `object`, got `array`"),
        ({}, "missing required field `entries`"),
        ({"entries": [{"id": 1}, {"id": "2"}]}, r"Expected `int`, got `str`.*entries\[1\].id"),
        ('{"x": ' + "[" * 200_000, "a.json: cannot be read as entries: "),
    ],
    ids=["empty", "cut off", "not UTF-8", "list", "no entries", "wrong type", "deep"],
)
def test_a_file_of_another_layout_is_an_error_that_names_it_and_the_place(
    tmp_path, content, message
):
    path = tmp_path / "a.json"
    if content == "\udc80":
        path.write_bytes(b'{"entries": "\x80"}')
    else:
        write(path, content)
    with pytest.raises(InputError, match=message) as caught:
        read_json(path, Whole, "entries")
    assert "\n" not in str(caught.value)


def test_a_file_that_is_not_there_or_is_a_folder_is_an_error(tmp_path):
    for read in (
        lambda path: read_json(path, Whole, "the entries"),
        lambda path: read_lists(path, Rest, "the entries", {}),
    ):
        with pytest.raises(InputError, match=r"none.json: there is no such file \(the entries\)"):
            read(tmp_path / "none.json")
        with pytest.raises(InputError, match="cannot read the entries: Is a directory"):
            read(tmp_path)


def test_entries_are_decoded_in_order_and_a_wrong_one_is_named(tmp_path, monkeypatch):
    monkeypatch.setattr(reading, "_CHUNK", 4)
    entries = [{"id": n} for n in range(11)]
    raw = msgspec.json.decode(json.dumps(entries), type=list[msgspec.Raw])
    chunks = list(decode_chunks(raw, Entry, "f.json", "entries"))
    assert [entry.id for chunk in chunks for entry in chunk] == list(range(11))
    assert max(map(len, chunks)) == 4
    entries[9] = {"id": 1.5}
    raw = msgspec.json.decode(json.dumps(entries), type=list[msgspec.Raw])
    with pytest.raises(
        InputError, match=r"f.json: entries\[9\]: Expected `int`, got `float` at id"
    ):
        list(decode_chunks(raw, Entry, "f.json", "entries"))


def lists_of(path, block: int, monkeypatch) -> tuple[Rest, dict[str, list[int]], list[int]]:
    monkeypatch.setattr(reading, "_BLOCK", block)
    found: dict[str, list] = {"entries": [], "others": []}
    firsts: list[int] = []

    def take(name):
        def add(first, entries):
            firsts.append(first - len(found[name]))
            found[name] += [(entry.id, entry.name) for entry in entries]

        return add

    rest = read_lists(path, Rest, "x", {name: (Entry, take(name)) for name in found})
    return rest, found, firsts


@pytest.mark.parametrize("indent", [None, 1])
def test_lists_handed_over_in_parts_are_those_of_the_file_wherever_it_is_cut(
    tmp_path, indent, monkeypatch
):
    names = ['a"]}', "\\", "]", "ü€", '\\"', "", "[{", "\n"]
    content = {
        "info": {"entries": [{"id": "no"}], "x": [[1], {"others": [2]}]},
        "entries": [
            {"id": n, "name": name, "x": {"others": [{"id": []}]}} for n, name in enumerate(names)
        ],
        "categories": [{"id": 1, "name": "]"}],
        "others": [],
    }
    for ensure_ascii in (True, False):
        text = json.dumps(content, indent=indent, ensure_ascii=ensure_ascii)
        path = write(tmp_path / "a.json", text)
        for block in (1, 2, 3, 5, 7, 16, 64, len(text), 1 << 20):
            rest, found, firsts = lists_of(path, block, monkeypatch)
            assert found == {"entries": list(enumerate(names)), "others": []}
            assert not any(firsts)
            assert rest.info == content["info"]
            assert rest.entries == rest.others == []


@pytest.mark.parametrize("block", [3, 1 << 20])
@pytest.mark.parametrize(
    "content",
    [
        "",
        "{",
        '{"entries": [',
        '{"entries": [{"id": 1}',
        '{"entries": [{"id": 1}]',
        '{"entries": [{"id": 1} {"id": 2}]}',
        '{"entries": [{"id": 1},, {"id": 2}]}',
        '{"entries": [{"id": 1},]}',
        '{"entries": [,{"id": 1}]}',
        '{"entries": [{"id": 1}, 5]}',
        '{"entries": [{"id": 1]}}',
        '{"entries": [{"id": 1}]}]',
        '{"entries": {"id": 1}}',
        '{"entries": 1}',
        '{"entries": [{"id": "1"}]}',
        '{"entries": [{"name": "x"}]}',
        '[{"entries": []}]',
        "nothing",
    ],
)
def test_broken_lists_are_an_error_that_names_the_file(tmp_path, content, block, monkeypatch):
    path = write(tmp_path / "a.json", content)
    with pytest.raises(InputError, match=r"a\.json") as caught:
        lists_of(path, block, monkeypatch)
    assert "\n" not in str(caught.value)


def test_a_wrong_entry_of_a_list_is_named_by_its_number(tmp_path, monkeypatch):
    entries = [{"id": n} for n in range(20)]
    entries[17] = {"id": 17, "name": 5}
    path = write(tmp_path / "a.json", {"entries": entries})
    for block in (4, 100, 1 << 20):
        with pytest.raises(InputError, match=r"a.json: entries\[17\]: .* at name"):
            lists_of(path, block, monkeypatch)


def test_numpy_numbers_are_written_as_json_numbers():
    text = write_json([{"a": np.float32(0.5), "b": np.int64(3), "c": 1.25, "d": None}])
    assert json.loads(text) == [{"a": 0.5, "b": 3, "c": 1.25, "d": None}]
