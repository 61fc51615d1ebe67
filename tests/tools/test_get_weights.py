"""Tests of tools/get_weights.py with a local server, and of messages about missing weights."""

import hashlib
from pathlib import Path

import pytest
import torch
import yaml

from lib.config import load_config
from lib.models import build_model
from lib.utils import download, zoo
from tests.tools.runs import is_one_line, leftovers, output, write
from tests.web import serving

CONTENT = bytes(range(256)) * 1000
SCORES = {"AP": 0.746, "AP .75": 0.819, "AR": 0.799}


@pytest.fixture
def site(monkeypatch):
    monkeypatch.setattr(download.time, "sleep", lambda _: None)
    with serving() as site:
        yield site


@pytest.fixture
def listed(root, site, monkeypatch):
    """Add weights to the list and the server.

    listed(content, experiment) returns the folder to download them to.
    """
    monkeypatch.setattr(zoo, "ZOO", root.parent / "zoo.yaml")

    def add(content: bytes = CONTENT, experiment: Path | None = None, **entry) -> Path:
        site.files["w.pth"] = content
        entry = {
            "path": "models/pytorch/w.pth",
            "url": site.url("w.pth"),
            "sha256": hashlib.sha256(content).hexdigest()[:8],
            "source": "https://example.org/zoo",
            **entry,
        }
        if experiment is not None:
            entry |= {"experiment": str(experiment), "scores": SCORES}
        zoo.ZOO.write_text(yaml.safe_dump({"w": entry}))
        return root.parent / "here"

    return add


def test_weights_come_to_their_place_once(listed, site, command):
    site.tricks = ["cut", 503]
    folder = listed()
    ended = command("get_weights", "w", "--root", folder)
    path = folder / "models" / "pytorch" / "w.pth"
    assert ended.code == 0 and str(path) in ended.out and "SHA-256 is correct" in ended.out
    assert path.read_bytes() == CONTENT and [item.name for item in path.parent.iterdir()] == [
        "w.pth"
    ]
    asked = len(site.asked)
    assert command("get_weights", "w", "--root", folder).code == 0 and len(site.asked) == asked


def test_wrong_bytes_end_in_one_line_and_are_not_kept(listed, site, command):
    folder = listed()
    site.files["w.pth"] = b"wrong"
    ended = command("get_weights", "w", "--root", folder)
    expected = hashlib.sha256(CONTENT).hexdigest()[:8]
    assert is_one_line(ended, expected, hashlib.sha256(b"wrong").hexdigest(), site.url("w.pth"))
    assert not list(folder.rglob("*.p*"))


def test_the_list_says_what_there_is_and_what_is_downloaded(listed, root, command):
    folder = listed(experiment=write(root))
    ended = command("get_weights", "--list", "--root", folder)
    assert ended.out.split() == ["w", "AP", "0.746", str(write(root))]
    assert command("get_weights", "w", "--root", folder).code == 0
    assert "downloaded" in command("get_weights", "--list", "--root", folder).out.split()


@pytest.mark.parametrize(
    ("path", "scores", "listed_as"),
    [
        ("models/detectors/w.pth", {"box AP": 0.37}, "box AP 0.37 detector"),
        ("models/pytorch/imagenet/w.pth", {}, "ImageNet backbone"),
    ],
)
def test_what_no_experiment_trained_is_said_to_be_what_it_is(
    listed, command, path, scores, listed_as
):
    folder = listed(path=path, scores=scores)
    ended = command("get_weights", "--list", "--root", folder)
    assert ended.out.split() == ["w", *listed_as.split()]
    ended = command("get_weights", "w", "--root", folder)
    assert ended.code == 0 and (folder / path).read_bytes() == CONTENT
    said = ended.out.rpartition("   ")[2].strip()
    if "detector" in listed_as:
        assert said == "to use it: python tools/demo.py ... --detector w"
    else:
        assert listed_as.endswith(said.removeprefix("type: "))


def test_an_unknown_name_is_one_line(listed, command):
    listed()
    assert is_one_line(
        command("get_weights", "ww"), "ww: no weights with this name", "similar names: w"
    )


def test_an_experiments_weights_are_found_by_its_file(listed, root, site, command):
    experiment = write(root, MODEL={"PRETRAINED": "models/pytorch/w.pth"})
    folder = listed()
    ended = command("get_weights", "--cfg", experiment, "--root", folder)
    assert ended.code == 0 and (folder / "models/pytorch/w.pth").exists()
    other = write(root, "other")
    assert is_one_line(command("get_weights", "--cfg", other), str(other), "no weights are listed")


def test_a_missing_backbone_is_named_with_the_command_that_gets_it(listed, root, command):
    folder = listed()
    experiment = write(root, MODEL={"PRETRAINED": str(folder / "models/pytorch/w.pth")})
    ended = command("train", "--cfg", experiment)
    assert is_one_line(ended, "MODEL.PRETRAINED", f"tools/get_weights.py w --root {folder}")


def test_missing_weights_are_named_with_the_command_that_gets_them(listed, root, command):
    experiment = write(root)
    path = listed(experiment=experiment) / "models/pytorch/w.pth"
    ended = command("test", "--cfg", experiment, "TEST.MODEL_FILE", path)
    assert is_one_line(ended, str(path), f"tools/get_weights.py w --root {path.parents[2]}")
    ended = command("test", "--cfg", experiment)
    assert is_one_line(
        ended, "train first", "download published weights with: python tools/get_weights.py w"
    )


def test_a_test_prints_the_published_scores_of_the_same_test(listed, root, command, tmp_path):
    experiment = write(root)
    torch.manual_seed(0)
    torch.save(build_model(load_config(experiment)).state_dict(), tmp_path / "net.pth")
    folder = listed((tmp_path / "net.pth").read_bytes(), experiment)
    assert command("get_weights", "w", "--root", folder).code == 0
    weights = ("TEST.MODEL_FILE", folder / "models/pytorch/w.pth")
    ended = command("test", "--cfg", experiment, *weights)
    assert ended.code == 0, ended
    assert "\n| published | 0.746 |  | 0.819 |  |  | 0.799 |  |  |  |  |\n" in ended.out
    assert "=> published by https://example.org/zoo" in ended.out
    ended = command("test", "--cfg", experiment, *weights, "DATASET.COLOR_RGB", "False")
    assert "| published" not in ended.out
    assert "published for these weights: AP 0.746, with DATASET.COLOR_RGB True" in ended.out
    other = tmp_path / "w.pth"  # same name, other content
    torch.save(torch.load(weights[1], weights_only=True), other)
    other.write_bytes(other.read_bytes() + b"\0")
    assert "published" not in command("test", "--cfg", experiment, "TEST.MODEL_FILE", other).out
    assert not leftovers(output(root))
