"""Published checkpoints into these networks.

Layouts known: the plain state dicts of the HRNet zoo; the dicts that HRNet's training and this one
write (``state_dict`` beside an epoch and an optimizer); those of the mmpose family (``state_dict``
with ``backbone.…`` and ``keypoint_head.…`` or ``head.…``, an HRFormer in mmpose's own names too);
ImageNet backbones; and all of them from inside DataParallel (``module.``) or ``torch.compile``
(``_orig_mod.``).

Files are read with ``weights_only=True``: loading one never runs code that it brings along.
"""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from lib.utils.checkpoint import read_file
from lib.utils.errors import InputError
from lib.utils.zoo import download_hint

StateDict = dict[str, Tensor]

# Where a checkpoint keeps its weights, in the order to look; HRNet keeps the network's name, a
# text, under "model".
WEIGHTS_KEYS = ("state_dict", "model", "best_state_dict")
# mmpose names the parts of its estimators; the networks here have these parts at the top.
PART_PREFIXES = ("backbone.", "keypoint_head.", "head.")
# In mmpose's own HRFormer parts of a block have other names, and three projections are one.
MMPOSE_NAMES = ((".ffn.", ".mlp."), (".attn.attn.proj.", ".attn.attn.out_proj."))
NUM_NAMED = 3


def load_checkpoint(model: nn.Module, path_or_state_dict: str | Path | Mapping[str, Any]) -> None:
    """Fill ``model`` with a checkpoint of any published layout, from a file or already in memory.

    Every entry must fit. Only ``num_batches_tracked`` may be absent, as it is from files of before
    torch 0.4.1.

    Raises:
        InputError: a file that cannot be read, or entries that do not fit; ``model`` is unchanged.
    """
    source, state, own = _open(model, path_or_state_dict)
    problems = _shape_problems(state, own) + _name_problems(state, own)
    if problems:
        raise InputError(
            f"{source}: does not fit {type(_bare(model)).__name__}, made for another network or "
            f"number of joints: {'; '.join(problems)}"
        )
    _fill(own, state)


@dataclass(frozen=True)
class PretrainedReport:
    """Result of ``load_pretrained``: numbers of entries, by the first part of their names."""

    source: str
    loaded: dict[str, int]
    mismatched: dict[str, int]  # in both, of another shape: as initialised
    unused: dict[str, int]  # in the file, not asked for or not in the network
    unfilled: dict[str, int]  # in the network, not in the file: as initialised

    def __str__(self) -> str:
        def listing(counts: dict[str, int]) -> str:
            return ", ".join(f"{name} ({count})" for name, count in counts.items()) or "none"

        return (
            f"{self.source}: loaded: {listing(self.loaded)}; shape differs, not loaded: "
            f"{listing(self.mismatched)}; not in the network or not asked for: "
            f"{listing(self.unused)}; not in the file: {listing(self.unfilled)}"
        )


def load_pretrained(
    model: nn.Module, path: str | Path, layers: Sequence[str] = ("*",)
) -> PretrainedReport:
    """Fill ``model`` with the entries of the checkpoint at ``path`` that fit; the rest stays as it
    is, such as a head for another number of joints.

    Args:
        model: the network, initialised.
        path: MODEL.PRETRAINED, such as an ImageNet backbone or models/hrpose/top_down.pth.
        layers: MODEL.EXTRA.PRETRAINED_LAYERS: which top-level parts to take; '*' takes all.

    Raises:
        InputError: a file that is absent or cannot be read, no entry at all to take, or entries of
            another shape while less than half of the network would be filled, as with a backbone of
            another width; ``model`` is unchanged.
    """
    if not Path(path).is_file():
        raise InputError(
            f"MODEL.PRETRAINED: there is no file {path}"
            f"{download_hint(path) or '; download it there'}; or set MODEL.PRETRAINED '' to train "
            "from scratch"
        )
    source, state, own = _open(model, path)
    wanted = {key: own[key] for key in own if "*" in layers or _part(key) in layers}
    shared = {key: value for key, value in state.items() if key in wanted}
    taken = {key: value for key, value in shared.items() if value.shape == own[key].shape}
    if not shared:
        raise InputError(
            f"MODEL.PRETRAINED: {source} has nothing for {type(_bare(model)).__name__} in the "
            f"layers {', '.join(layers) or '(none)'}; it holds {_some(state)}"
        )
    problems = _shape_problems(shared, own)
    if problems and 2 * _num_entries(taken) < _num_entries(wanted):
        raise InputError(
            f"MODEL.PRETRAINED: {source} is made for another network: {'; '.join(problems)}; "
            "MODEL.EXTRA.PRETRAINED_LAYERS can leave parts out"
        )
    _fill(own, taken)
    return PretrainedReport(
        source=source,
        loaded=_parts(taken),
        mismatched=_parts(shared.keys() - taken.keys()),
        unused=_parts(state.keys() - shared.keys()),
        unfilled=_parts(key for key in own if key not in shared and not _is_counter(key)),
    )


def half_state_dict(model: nn.Module) -> StateDict:
    """The weights of ``model`` in float16, for a small file that ``load_checkpoint`` reads.

    An entry with a value beyond float16's range (65504) stays in float32. ``num_batches_tracked``,
    which only training needs, is left out.

    Raises:
        InputError: a value is NaN or infinite.
    """
    state = {k: v.detach().cpu() for k, v in model.state_dict().items() if not _is_counter(k)}
    if spoilt := [key for key, value in state.items() if not value.isfinite().all()]:
        raise InputError(f"the weights hold NaN or infinite values: {_some(spoilt)}")
    halves = {k: v.half() if v.is_floating_point() else v for k, v in state.items()}
    return {key: half if half.isfinite().all() else state[key] for key, half in halves.items()}


def _open(
    model: nn.Module, path_or_state_dict: str | Path | Mapping[str, Any]
) -> tuple[str, StateDict, StateDict]:
    """What to call the source, its entries under this network's names, and the network's own."""
    own = {_unwrapped(key): value for key, value in model.state_dict().items()}
    if isinstance(path_or_state_dict, Mapping):
        source, content = "the state dict", path_or_state_dict
    else:
        source, content = str(path_or_state_dict), read_file(Path(path_or_state_dict))
    return source, _renamed(_weights(content, source), own, source), own


def _weights(content: Any, source: str) -> Mapping[str, Tensor]:
    """The state dict within a checkpoint."""
    if isinstance(content, Mapping):
        for key in WEIGHTS_KEYS:
            if isinstance(content.get(key), Mapping):
                content = content[key]
                break
        if content and all(isinstance(value, Tensor) for value in content.values()):
            return content
        what = f"a dict of {_some(content)}" if content else "an empty dict"
    else:
        what = f"a {type(content).__name__}"
    raise InputError(
        f"{source}: holds no weights but {what}; a checkpoint is a state dict (name: tensor), or a "
        f"dict that has one under {', '.join(WEIGHTS_KEYS)}"
    )


def _renamed(weights: Mapping[str, Tensor], own: StateDict, source: str) -> StateDict:
    """``weights`` without wrappers, and without the part names that this network does not use."""
    prefixes = [
        prefix for prefix in PART_PREFIXES if not any(key.startswith(prefix) for key in own)
    ]
    state: StateDict = {}
    for key, value in weights.items():
        name = _unwrapped(key)
        prefix = next((prefix for prefix in prefixes if name.startswith(prefix)), "")
        for own_name, part in _own_names(name.removeprefix(prefix), value, own):
            if own_name in state:
                raise InputError(f"{source}: holds {own_name} twice, the second time as {key}")
            state[own_name] = part
    return state


def _own_names(name: str, value: Tensor, own: StateDict) -> list[tuple[str, Tensor]]:
    """An entry as this network has it, where only mmpose calls it ``name``."""
    if name in own:
        return [(name, value)]
    if ".attn.attn.qkv." in name and len(value) % 3 == 0:
        parts = zip("qkv", value.chunk(3), strict=True)
        return [(name.replace(".qkv.", f".{letter}_proj."), part) for letter, part in parts]
    renamed = name
    for theirs, ours in MMPOSE_NAMES:
        renamed = renamed.replace(theirs, ours)
    return [(renamed if renamed in own else name, value)]


def _unwrapped(key: str) -> str:
    return key.replace("_orig_mod.", "").removeprefix("module.")


def _bare(model: nn.Module) -> nn.Module:
    """The network inside DataParallel and torch.compile."""
    for wrapper in ("module", "_orig_mod"):
        if isinstance(inner := getattr(model, wrapper, None), nn.Module):
            return _bare(inner)
    return model


def _shape_problems(state: StateDict, own: StateDict) -> list[str]:
    wrong = [key for key, value in state.items() if key in own and value.shape != own[key].shape]
    if not wrong:
        return []
    named = ", ".join(
        f"{key} is {tuple(state[key].shape)} in the file, {tuple(own[key].shape)} in the network"
        for key in wrong[:NUM_NAMED]
    )
    return [f"{len(wrong)} of another shape: {named}{', ...' if len(wrong) > NUM_NAMED else ''}"]


def _name_problems(state: StateDict, own: StateDict) -> list[str]:
    missing = [key for key in own if key not in state and not _is_counter(key)]
    unknown = [key for key in state if key not in own]
    problems = []
    if missing:
        problems.append(f"{len(missing)} missing in it: {_some(missing)}")
    if unknown:
        problems.append(f"{len(unknown)} not in the network: {_some(unknown)}")
    return problems


def _fill(own: StateDict, state: StateDict) -> None:
    """Copy ``state`` into the network's own tensors, which are of the same shapes."""
    with torch.no_grad():
        for key, value in state.items():
            own[key].copy_(value)


def _is_counter(key: str) -> bool:
    return key.endswith("num_batches_tracked")


def _num_entries(keys: Iterable[str]) -> int:
    """How many of ``keys`` are weights or running statistics; counters fit any network."""
    return sum(not _is_counter(key) for key in keys)


def _part(key: str) -> str:
    return key.partition(".")[0]


def _parts(keys: Iterable[str]) -> dict[str, int]:
    return dict(sorted(Counter(_part(key) for key in keys).items()))


def _some(keys: Iterable[str]) -> str:
    names = [str(key) for key in keys]
    return ", ".join(names[:NUM_NAMED]) + (", ..." if len(names) > NUM_NAMED else "")
