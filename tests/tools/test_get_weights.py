"""Tests of tools/get_weights.py with a local server, and of messages about missing weights."""

import hashlib
from pathlib import Path

import pytest
import torch
import yaml

from lib.config import load_config
from lib.models import build_model
from lib.utils import zoo
from tests.tools.runs import is_one_line, leftovers, output, torch_load, write

CONTENT = bytes(range(256)) * 1000
SCORES = {"AP": 0.746, "AP .75": 0.819, "AR": 0.799}


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


def test_weights_are_downloaded_once(listed, site, command):
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


def test_a_wrong_sha256_is_a_one_line_error_and_nothing_is_kept(listed, site, command):
    folder = listed()
    site.files["w.pth"] = b"wrong"
    ended = command("get_weights", "w", "--root", folder)
    expected = hashlib.sha256(CONTENT).hexdigest()[:8]
    assert is_one_line(ended, expected, hashlib.sha256(b"wrong").hexdigest(), site.url("w.pth"))
    assert not list(folder.rglob("*.p*"))


def test_the_list_has_scores_and_marks_downloaded_weights(listed, root, succeed, command):
    folder = listed(experiment=write(root))
    ended = command("get_weights", "--list", "--root", folder)
    assert ended.out.split() == ["w", "AP", "0.746", str(write(root))]
    succeed("get_weights", "w", "--root", folder)
    assert "downloaded" in command("get_weights", "--list", "--root", folder).out.split()


@pytest.mark.parametrize(
    ("path", "scores", "listed_as"),
    [
        ("models/detectors/w.pth", {"box AP": 0.37}, "box AP 0.37 detector"),
        ("models/pytorch/imagenet/w.pth", {}, "ImageNet backbone"),
    ],
)
def test_weights_without_an_experiment_are_listed_by_type(
    listed, succeed, command, path, scores, listed_as
):
    folder = listed(path=path, scores=scores)
    ended = command("get_weights", "--list", "--root", folder)
    assert ended.out.split() == ["w", *listed_as.split()]
    ended = succeed("get_weights", "w", "--root", folder)
    assert (folder / path).read_bytes() == CONTENT
    said = ended.out.rpartition("   ")[2].strip()
    if "detector" in listed_as:
        assert said == "to use it: python tools/demo.py ... --detector w"
    else:
        assert listed_as.endswith(said.removeprefix("type: "))


def test_an_unknown_name_is_a_one_line_error(listed, command):
    listed()
    assert is_one_line(
        command("get_weights", "ww"), "ww: no weights with this name", "similar names: w"
    )


def test_the_weights_of_an_experiment_are_downloaded(listed, root, site, succeed, command):
    experiment = write(root, MODEL={"PRETRAINED": "models/pytorch/w.pth"})
    folder = listed()
    succeed("get_weights", "--cfg", experiment, "--root", folder)
    assert (folder / "models/pytorch/w.pth").exists()
    other = write(root, "other")
    assert is_one_line(command("get_weights", "--cfg", other), str(other), "no weights are listed")


def test_the_error_about_a_missing_backbone_has_the_download_command(listed, root, command):
    folder = listed()
    experiment = write(root, MODEL={"PRETRAINED": str(folder / "models/pytorch/w.pth")})
    ended = command("train", "--cfg", experiment)
    assert is_one_line(ended, "MODEL.PRETRAINED", f"tools/get_weights.py w --root {folder}")


def test_the_error_about_missing_weights_has_the_download_command(listed, root, command):
    experiment = write(root)
    path = listed(experiment=experiment) / "models/pytorch/w.pth"
    ended = command("test", "--cfg", experiment, "TEST.MODEL_FILE", path)
    assert is_one_line(ended, str(path), f"tools/get_weights.py w --root {path.parents[2]}")
    ended = command("test", "--cfg", experiment)
    assert is_one_line(
        ended, "train first", "download published weights with: python tools/get_weights.py w"
    )


def test_scores_of_the_zoo_are_printed_for_the_same_settings(
    listed, root, succeed, command, tmp_path
):
    experiment = write(root)
    torch.manual_seed(0)
    torch.save(build_model(load_config(experiment)).state_dict(), tmp_path / "net.pth")
    folder = listed((tmp_path / "net.pth").read_bytes(), experiment)
    succeed("get_weights", "w", "--root", folder)
    weights = ("TEST.MODEL_FILE", folder / "models/pytorch/w.pth")
    ended = succeed("test", "--cfg", experiment, *weights)
    assert "\n| published | 0.746 |  | 0.819 |  |  | 0.799 |  |  |  |  |\n" in ended.out
    assert "=> published by https://example.org/zoo" in ended.out
    ended = command("test", "--cfg", experiment, *weights, "DATASET.COLOR_RGB", "False")
    assert "| published" not in ended.out
    assert "published for these weights: AP 0.746, with DATASET.COLOR_RGB True" in ended.out
    other = tmp_path / "w.pth"  # same name, other content
    torch.save(torch_load(weights[1]), other)
    other.write_bytes(other.read_bytes() + b"\0")
    assert "published" not in command("test", "--cfg", experiment, "TEST.MODEL_FILE", other).out
    assert not leftovers(output(root))
