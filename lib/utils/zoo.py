"""Published weights with a direct download link, as listed in ``models/zoo.yaml``."""

import hashlib
import urllib.parse
from dataclasses import dataclass, field
from pathlib import Path

import yaml

from lib.utils.download import download, file_hash, is_url
from lib.utils.errors import InputError, os_errors_as
from lib.utils.files import wait_for_lock

ROOT = Path(__file__).resolve().parents[2]
ZOO = ROOT / "models" / "zoo.yaml"
DETECTOR_FOLDER, DETECTOR_KIND = "models/detectors", "detector"
# Kinds of weights that belong to no experiment, by folder.
KINDS = {"models/pytorch/imagenet": "ImageNet backbone", DETECTOR_FOLDER: DETECTOR_KIND}


@dataclass(frozen=True)
class Weights:
    """One published weights file.

    Attributes:
        path: path expected by the experiments, relative to the folder that contains ``models/``.
        sha256: first digits of the SHA-256; '' if not published.
        experiment: YAML file of the experiment it was trained with; '' if there is none.
        source: page that publishes the link and the scores.
        settings: options, in addition to the YAML, for which the scores were published.
        scores: published metrics, named as in the results table of tools/test.py.
    """

    name: str
    path: str
    url: str
    source: str
    sha256: str = ""
    experiment: str = ""
    settings: dict[str, bool | str] = field(default_factory=dict)
    scores: dict[str, float] = field(default_factory=dict)

    @property
    def kind(self) -> str:
        """Kind of these weights if they belong to no experiment, else ''."""
        return "" if self.experiment else KINDS.get(Path(self.path).parent.as_posix(), "")

    def test_command(self, root: str = "") -> str:
        """Return the command that evaluates these weights."""
        words = [f"{key} {value}" for key, value in self.settings.items()]
        words = [f"TEST.MODEL_FILE {Path(root) / self.path}", *words]
        return " ".join(["python tools/test.py --cfg", self.experiment, *words])


def load_zoo() -> dict[str, Weights]:
    """Return the listed weights, by name."""
    with os_errors_as(f"{ZOO}: cannot read the list of weights"):
        content = ZOO.read_bytes()
    try:
        entries = yaml.safe_load(content)
        return {name: Weights(name, **entry) for name, entry in entries.items()}
    except (yaml.YAMLError, TypeError, AttributeError, ValueError) as error:
        reason = " ".join(str(error).split())
        raise InputError(f"{ZOO}: not a list of weights: {reason}") from None


def local_file(path: str | Path) -> Path:
    """Return the path of a weights file; a URL is first downloaded to ``models/``."""
    url = str(path)
    if not is_url(url):
        return Path(path)
    listed = next((weights for weights in _listed() if weights.url == url), None)
    # The digest distinguishes files with the same name, such as epoch_210.pth.
    digest = hashlib.sha256(url.encode()).hexdigest()[:8]
    name = Path(urllib.parse.urlsplit(url).path).name or "weights"
    target = ROOT / (listed.path if listed else f"models/downloads/{digest}-{name}")
    with wait_for_lock(target):  # of several processes, the first downloads
        return download(url, target, listed.sha256 if listed else "")


def find_weights(path: str | Path) -> Weights | None:
    """Return the listed weights whose name is ``path``, or with whose own path ``path`` ends."""
    parts = Path(path).absolute().parts
    for weights in _listed():
        expected = Path(weights.path).parts
        if parts[-len(expected) :] == expected or weights.name == str(path):
            return weights
    return None


def identify_weights(path: Path) -> Weights | None:
    """Return the listed weights with the file name and (if known) hash of this file, or None."""
    named = [weights for weights in _listed() if Path(weights.path).name == path.name]
    return next((w for w in named if file_hash(path).startswith(w.sha256)), None)


def weights_of_experiment(experiment: str | Path) -> list[Weights]:
    """Return the listed weights that were trained with this YAML file."""
    path = Path(experiment).resolve()
    return [w for w in _listed() if w.experiment and (ROOT / w.experiment).resolve() == path]


def download_hint(path: str | Path) -> str:
    """Return the command that downloads missing weights, as the end of an error message.

    Returns '' if the weights are not listed.
    """
    weights = find_weights(path)
    if weights is None:
        return ""
    is_name = weights.name == str(path)
    root = ROOT if is_name else Path(path).absolute().parents[len(Path(weights.path).parts) - 1]
    option = "" if root == ROOT else f" --root {root}"
    return f"; download with: python tools/get_weights.py {weights.name}{option}"


def published_weights_hint(experiment: str | Path) -> str:
    """Return the command that downloads an experiment's weights, as the end of an error message.

    Returns '' if no weights are listed.
    """
    weights = next(iter(weights_of_experiment(experiment)), None)
    if weights is None:
        return ""
    return f"; download published weights with: python tools/get_weights.py {weights.name}"


def _listed() -> list[Weights]:
    """Return all listed weights; none if the list does not exist (it is optional)."""
    return list(load_zoo().values()) if ZOO.exists() else []
