"""Published scores of the tested weights, for comparison with the measured scores."""

from pathlib import Path

from yacs.config import CfgNode

from lib.config import load_config
from lib.utils import zoo
from lib.utils.errors import InputError
from lib.utils.zoo import ROOT, Weights

# Scores are comparable only if these settings are equal.
COMPARED_KEYS = (
    "DATASET.DATASET", "DATASET.TEST_SET", "DATASET.COLOR_RGB", "MODEL.NAME", "MODEL.HEAD",
    "MODEL.TARGET_TYPE", "MODEL.IMAGE_SIZE", "TEST.USE_GT_BBOX", "TEST.COCO_BBOX_FILE",
    "TEST.FLIP_TEST", "TEST.SHIFT_HEATMAP",
)  # fmt: skip


def published_lines(cfg: CfgNode, path: Path, names: list[str]) -> tuple[list[str], list[str]]:
    """Look up the published scores of the weights at ``path``.

    Returns:
        Rows for the score table with the columns ``names``, and remarks to print below it. If the
        test settings differ from the published ones, there is no row, and a remark lists the
        differences. Both lists are empty for weights that models/zoo.yaml does not list with an
        experiment.
    """
    weights = zoo.identify_weights(path)
    if weights is None or not weights.experiment:
        return [], []
    differing = _differing(cfg, weights)
    if differing:
        name, value = next(iter(weights.scores.items()))
        score = f"{name} {value:g}, with {' '.join(differing)}"
        return [], [f"=> published for these weights: {score}: {weights.source}"]
    values = [f"{weights.scores[name]:.3f}" if name in weights.scores else "" for name in names]
    row = f"| published | {' | '.join(values)} |"
    return [row], [f"=> published by {weights.source}"]


def _differing(cfg: CfgNode, weights: Weights) -> list[str]:
    """List the published settings that differ from those of ``cfg``, as KEY VALUE.

    If the published experiment cannot be loaded, list its path instead.
    """
    opts = [str(word) for pair in weights.settings.items() for word in pair]
    try:
        published = load_config(ROOT / weights.experiment, opts)
    except InputError:  # the user has changed or removed the experiment
        return [weights.experiment]
    keys = dict.fromkeys([*COMPARED_KEYS, *weights.settings])
    return [
        f"{key} {_value(published, key)}"
        for key in keys
        if _value(cfg, key) != _value(published, key)
    ]


def _value(cfg: CfgNode, key: str) -> object:
    for name in key.split("."):
        cfg = cfg[name]
    # Compare files by name only, because their folders may differ.
    return Path(cfg).name if key.endswith("_FILE") else cfg
