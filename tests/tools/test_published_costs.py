"""Published costs in models/published.yaml and docs/results.md, against those counted here."""

import importlib
import re
from collections.abc import Iterator

import pytest
import torch
import yaml

from lib.config import load_config
from lib.models import build_model
from lib.models.costs import count_flops, default_convention, inference_parameters, record_calls
from lib.models.heads import uses_tags
from lib.utils.zoo import ROOT

pytestmark = pytest.mark.usefixtures("quick_shapes")


def rows() -> Iterator[dict[str, str]]:
    """Yield the rows of docs/results.md with costs, by column; `experiment` without quotes."""
    head: list[str] = []
    for line in (ROOT / "docs" / "results.md").read_text(encoding="utf-8").splitlines():
        cells = [cell.strip() for cell in line.strip("|").split("|")]
        if not line.startswith("|"):
            head = []
        elif not head:
            head = cells
        elif "FLOPs" in head and (name := re.match(r"`([\w/-]+)`", cells[0])):
            row = {**dict(zip(head, cells, strict=True)), "experiment": name[1]}
            if row["FLOPs"] != "-":
                yield row


ROWS = [*rows()]
SOURCES = yaml.safe_load((ROOT / "models" / "published.yaml").read_text(encoding="utf-8"))
PUBLISHED = {experiment for source in SOURCES.values() for experiment in source["experiments"]}


@pytest.fixture
def tool(monkeypatch):
    monkeypatch.syspath_prepend(str(ROOT / "tools"))
    return importlib.import_module("summary_network")


@pytest.mark.parametrize("experiment", sorted(PUBLISHED | {row["experiment"] for row in ROWS}))
def test_costs_agree_with_the_published_ones_or_a_reason_is_given(tool, experiment):
    cfg = load_config(ROOT / "experiments" / f"{experiment}.yaml")
    width, height = cfg.MODEL.IMAGE_SIZE
    with torch.device("meta"):
        network = build_model(cfg).eval()
    calls = record_calls(network, torch.zeros(1, 3, height, width, device="meta"))
    own = tool.Published("", default_convention(network, uses_tags(cfg)), flops="G")
    cells = set()
    for entry in [own, *tool.load_published().get(experiment, [])]:
        flops = sum(count_flops(calls, entry.convention).values())
        costs = inference_parameters(network), flops
        counted = entry.format_alike(*costs)
        published = ("", "") if entry is own else (entry.parameters, entry.flops)
        pairs = zip(published, counted, strict=True)
        cells.add(tuple(f"{figure or '-'} ({count})" for figure, count in pairs))
        if entry is not own:
            assert entry.agrees(*costs) == (not entry.reason), counted
    written = [row for row in ROWS if row["experiment"] == experiment]
    assert written, "not in docs/results.md"
    for row in written:
        assert (row["parameters"], row["FLOPs"]) in cells


def test_every_reason_is_in_the_table_of_differences(tool):
    reasons = {
        (experiment, entry.reason)
        for experiment, entries in tool.load_published().items()
        for entry in entries
        if entry.reason
    }
    assert reasons == {(row["experiment"], row["reason"]) for row in ROWS if "reason" in row}


@pytest.mark.parametrize(
    ("published", "count", "expected"),
    [
        ("8.9G", 8.99, True),  # truncated
        ("9.0G", 8.951, True),  # rounded
        ("8.9G", 9.001, False),
        ("9.0G", 8.949, False),
        ("205.2M", 0.20523, True),
    ],
)
def test_a_figure_is_a_count_rounded_or_truncated(tool, published, count, expected):
    assert tool.is_rounded(published, count * 1e9, 1e9) is expected
