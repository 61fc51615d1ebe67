"""The list of weights: every entry has a link, a path that is used, and a test command."""

import re
from pathlib import Path

import pytest

from lib.config import load_config
from lib.utils import zoo
from lib.utils.errors import InputError
from lib.utils.zoo import DETECTOR_FOLDER, ROOT

ENTRIES = zoo.load_zoo()
COCO = {"AP", "Ap .5", "AP .75", "AP (M)", "AP (L)", "AR", "AR .5", "AR .75", "AR (M)", "AR (L)"}
SCORES = {
    "coco": COCO,
    "ap10k": COCO,
    "mpii": {"Mean", "Mean@0.1"},
    "crowdpose": {"AP", "Ap .5", "AP .75", "AP (E)", "AP (M)", "AP (H)"},
}


@pytest.mark.parametrize("weights", ENTRIES.values(), ids=ENTRIES)
def test_urls_contain_the_hashes(weights):
    assert re.fullmatch(r"https://\S+\.pth", weights.url)
    assert weights.source.startswith("https://github.com/")
    named = re.search(r"-([0-9a-f]{8})(_\d{8})?\.pth$", weights.url)
    assert weights.sha256 == (named.group(1) if named else "")


def test_paths_and_urls_are_unique():
    for key in ("path", "url"):
        assert len({getattr(weights, key) for weights in ENTRIES.values()}) == len(ENTRIES)


@pytest.mark.parametrize(
    "weights", [w for w in ENTRIES.values() if w.experiment], ids=lambda weights: weights.name
)
def test_trained_weights_have_an_experiment_and_scores(weights):
    opts = [str(word) for pair in weights.settings.items() for word in pair]
    cfg = load_config(ROOT / weights.experiment, opts)
    name = cfg.DATASET.DATASET
    assert name in weights.name
    assert Path(weights.path).parts[:2] == ("models", "pytorch")
    assert Path(weights.path).parts[2].endswith(name)
    width, height = cfg.MODEL.IMAGE_SIZE
    assert f"{height}x{width}" in weights.name
    assert set(weights.scores) <= SCORES[name] and {"AP", "Mean"} & set(weights.scores)
    top = 100 if name == "mpii" else 1
    assert all(isinstance(score, float) and 0 < score < top for score in weights.scores.values())


def test_backbones_are_those_of_the_experiments():
    texts = (path.read_text() for path in (ROOT / "experiments").rglob("*.yaml"))
    expected = {name for text in texts for name in re.findall(r"PRETRAINED: (models/py\S+)", text)}
    backbones = {w.path for w in ENTRIES.values() if w.kind == "ImageNet backbone"}
    assert backbones == expected


def test_detectors_match_torchvision():
    torchvision = pytest.importorskip("torchvision")
    names = torchvision.models.list_models(module=torchvision.models.detection)
    expected = {}
    for name in names:
        one = torchvision.models.get_model_weights(name).DEFAULT
        box_ap = one.meta["_metrics"]["COCO-val2017"]["box_map"] / 100
        expected[name] = (f"{DETECTOR_FOLDER}/{Path(one.url).name}", one.url, {"box AP": box_ap})
    detectors = {
        w.name: (w.path, w.url, pytest.approx(w.scores))
        for w in ENTRIES.values()
        if w.kind == "detector"
    }
    assert len(detectors) >= 12
    assert detectors.items() <= expected.items()  # a newer torchvision may have more


def test_a_hint_contains_the_download_command(tmp_path):
    path = "models/pytorch/imagenet/hrnet_w32-36af842e.pth"
    command = "python tools/get_weights.py hrnet_w32_imagenet"
    assert zoo.download_hint(ROOT / path).endswith(command)
    assert zoo.download_hint(tmp_path / path).endswith(f"{command} --root {tmp_path}")
    assert zoo.download_hint("elsewhere/hrnet_w32-36af842e.pth") == ""


def test_weights_are_identified_by_name_and_hash(tmp_path):
    weights = ENTRIES["hrnet_w32_coco_256x192"]
    path = tmp_path / Path(weights.path).name
    path.write_bytes(b"other weights")
    assert zoo.identify_weights(path) is None
    assert zoo.weights_of_experiment(ROOT / weights.experiment) == [weights]


def test_a_broken_list_is_one_line(tmp_path, monkeypatch):
    monkeypatch.setattr(zoo, "ZOO", tmp_path / "zoo.yaml")
    with pytest.raises(InputError, match="cannot read the list"):
        zoo.load_zoo()
    assert zoo.download_hint("a.pth") == ""
    for text in ("a: [", "a: {address: b}", "- a"):
        zoo.ZOO.write_text(text)
        with pytest.raises(InputError, match=r"zoo\.yaml: not a list of weights"):
            zoo.load_zoo()
