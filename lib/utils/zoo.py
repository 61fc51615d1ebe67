"""Published weights that have a plain address: what ``models/zoo.yaml`` lists."""

from dataclasses import dataclass, field
from pathlib import Path

import yaml

from lib.utils.download import file_hash
from lib.utils.errors import InputError

ROOT = Path(__file__).resolve().parents[2]
ZOO = ROOT / "models" / "zoo.yaml"
DETECTORS = "models/detectors"
# What weights without an experiment are, by their folder; in any other: UNLOADABLE.
DETECTOR = "detector"
KINDS = {"models/pytorch/imagenet": "ImageNet backbone", DETECTORS: DETECTOR}
UNLOADABLE = "a network that is not here yet"


@dataclass(frozen=True)
class Weights:
    """One file of weights.

    ``path`` is where experiments expect it, from the folder that has ``models/``. ``experiment`` is
    the YAML that it was trained as, '' where there is none; ``settings`` are those over the YAML's
    under which it reaches the published ``scores``, by their names in a test's table. ``sha256`` is
    the hash's beginning, '' where its publisher gives none.
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
        """What it is, in words; '' for an experiment's."""
        folder = Path(self.path).parent.as_posix()
        return "" if self.experiment else KINDS.get(folder, UNLOADABLE)

    def test_command(self, root: str = "") -> str:
        """How to test it."""
        words = [f"{key} {value}" for key, value in self.settings.items()]
        words = [f"TEST.MODEL_FILE {Path(root) / self.path}", *words]
        return " ".join(["python tools/test.py --cfg", self.experiment, *words])


def load_zoo() -> dict[str, Weights]:
    """Everything listed, by name."""
    try:
        entries = yaml.safe_load(ZOO.read_text(encoding="utf-8"))
        return {name: Weights(name, **entry) for name, entry in entries.items()}
    except OSError as error:
        raise InputError(f"{ZOO}: cannot read the list of weights: {error.strerror}") from None
    except (yaml.YAMLError, TypeError, AttributeError, ValueError) as error:
        reason = " ".join(str(error).split())
        raise InputError(f"{ZOO}: not a list of weights: {reason}") from None


def at(path: str | Path) -> Weights | None:
    """The listed weights that experiments expect at ``path``, or that are called so."""
    parts = Path(path).absolute().parts
    for weights in _listed():
        expected = Path(weights.path).parts
        if parts[-len(expected) :] == expected or weights.name == str(path):
            return weights
    return None


def published_at(path: Path) -> Weights | None:
    """The listed weights that the file at ``path`` is: by its name, and by its hash where one is
    known."""
    for weights in _listed():
        is_named = Path(weights.path).name == path.name
        if is_named and file_hash(path).startswith(weights.sha256):
            return weights
    return None


def trained_as(experiment: str | Path) -> list[Weights]:
    """The listed weights that were trained as the experiment in this YAML file."""
    path = Path(experiment).resolve()
    return [w for w in _listed() if w.experiment and (ROOT / w.experiment).resolve() == path]


def how_to_get(path: str | Path) -> str:
    """The command that brings the missing weights at ``path``, to be said after what is wrong; ''
    where none does."""
    weights = at(path)
    if weights is None:
        return ""
    root = ROOT
    if weights.name != str(path):
        root = Path(path).absolute()
        for _ in Path(weights.path).parts:
            root = root.parent
    option = "" if root == ROOT else f" --root {root}"
    return f"; get it by: python tools/get_weights.py {weights.name}{option}"


def how_to_get_trained(experiment: str | Path) -> str:
    """The command that gets published weights of this experiment, to append to an error message;
    '' where none are listed."""
    weights = next(iter(trained_as(experiment)), None)
    if weights is None:
        return ""
    return f"; published ones: python tools/get_weights.py {weights.name}"


def _listed() -> list[Weights]:
    """What is listed; nothing where there is no list, which is nobody's mistake here."""
    return list(load_zoo().values()) if ZOO.exists() else []
