"""Loading of published checkpoints.

Supported layouts:

- plain state dicts, as in the HRNet zoo, and ImageNet backbones;
- training checkpoints of HRNet and of this project (``state_dict`` with epoch and optimizer);
- checkpoints of the mmpose family (``backbone.…`` and ``keypoint_head.…`` or ``head.…``),
  including mmpose's own names for HRFormer;
- any of these saved from DataParallel (``module.``) or ``torch.compile`` (``_orig_mod.``).

Files are read with ``weights_only=True``, so loading never runs code from the file.
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
from lib.utils.logs import counted
from lib.utils.zoo import download_hint

StateDict = dict[str, Tensor]

# Keys under which a checkpoint may hold its weights, in search order. HRNet stores a string, the
# network's name, under "model"; it is skipped.
WEIGHTS_KEYS = ("state_dict", "model", "best_state_dict")
# Prefixes that mmpose adds to the entries of the backbone and of the head.
PART_PREFIXES = ("backbone.", "keypoint_head.", "head.")
# Names that differ in mmpose's HRFormer, as (mmpose's, ours). mmpose also merges the q, k and v
# projections.
MMPOSE_NAMES = ((".ffn.", ".mlp."), (".attn.attn.proj.", ".attn.attn.out_proj."))
MAX_LISTED = 3  # names listed in an error message


def load_checkpoint(model: nn.Module, path_or_state_dict: str | Path | Mapping[str, Any]) -> None:
    """Load a checkpoint in any of the supported layouts, from a file or a state dict.

    Every entry must match. Only ``num_batches_tracked`` may be missing, as in files from before
    torch 0.4.1.

    Raises:
        InputError: if the file cannot be read or entries do not match. ``model`` then
            stays unchanged.
    """
    source, state, model_state = _read_state(model, path_or_state_dict)
    problems = _shape_problems(state, model_state) + _name_problems(state, model_state)
    if problems:
        raise InputError(
            f"{source}: does not match {type(_unwrap_model(model)).__name__}; it is for a "
            f"different network or number of joints: {'; '.join(problems)}"
        )
    _copy_into(model_state, state)


@dataclass(frozen=True)
class PretrainedReport:
    """Result of ``load_pretrained``: numbers of entries by top-level module."""

    source: str
    loaded: dict[str, int]
    mismatched: dict[str, int]  # not loaded, because the shape differs
    unselected: dict[str, int]  # in file and network, but not in MODEL.EXTRA.PRETRAINED_LAYERS
    unused: dict[str, int]  # only in the file
    unfilled: dict[str, int]  # only in the network

    def __str__(self) -> str:
        parts = {
            "loaded": self.loaded,
            "shape differs, not loaded": self.mismatched,
            "not in MODEL.EXTRA.PRETRAINED_LAYERS, not loaded": self.unselected,
            "only in the file": self.unused,
            "only in the network": self.unfilled,
        }
        listed = [
            f"{title}: {', '.join(f'{name} ({count})' for name, count in counts.items())}"
            for title, counts in parts.items()
            if counts
        ]
        return f"{self.source}: {'; '.join(listed)}"


def load_pretrained(
    model: nn.Module, path: str | Path, layers: Sequence[str] = ("*",)
) -> PretrainedReport:
    """Initialise ``model`` for training with the matching entries of a checkpoint.

    Other parameters, such as a head for a different number of joints, keep their values.

    Args:
        model: the network, already initialised.
        path: MODEL.PRETRAINED, such as an ImageNet backbone or models/hrpose/top_down.pth.
        layers: MODEL.EXTRA.PRETRAINED_LAYERS, the top-level modules to load; '*' loads all.

    Raises:
        InputError: if the file is missing or unreadable, or if almost nothing matches (less than a
            quarter of the entries of the file or of the network, whichever has fewer), as with a
            backbone of a different width. ``model`` then stays unchanged.
    """
    if not Path(path).is_file():
        raise InputError(
            f"MODEL.PRETRAINED: there is no file {path}"
            f"{download_hint(path) or '; download it to this path'}; or set MODEL.PRETRAINED '' to "
            "train from scratch"
        )
    source, state, model_state = _read_state(model, path)
    selected = {
        k: v for k, v in model_state.items() if "*" in layers or _top_level_module(k) in layers
    }
    shared = {key: value for key, value in state.items() if key in selected}
    matching = {k: v for k, v in shared.items() if v.shape == model_state[k].shape}
    if not shared:
        raise InputError(
            f"MODEL.PRETRAINED: {source} has no entries for {type(_unwrap_model(model)).__name__} "
            f"in the layers {', '.join(layers) or '(none)'}; it contains {_first_names(state)}"
        )
    count = min(_num_entries(selected), _num_entries(state))
    if 4 * _num_entries(matching) < count:
        problems = _shape_problems(shared, model_state) or _name_problems(state, selected)
        raise InputError(
            f"MODEL.PRETRAINED: {source} is for a different network; only {_num_entries(matching)} "
            f"of {count} entries match: {'; '.join(problems)}; to load the "
            "matching layers anyway, list only them in MODEL.EXTRA.PRETRAINED_LAYERS"
        )
    _copy_into(model_state, matching)
    return PretrainedReport(
        source=source,
        loaded=_count_by_module(matching),
        mismatched=_count_by_module(shared.keys() - matching.keys()),
        unselected=_count_by_module(state.keys() & (model_state.keys() - selected.keys())),
        unused=_count_by_module(state.keys() - model_state.keys()),
        unfilled=_count_by_module(
            key for key in model_state if key not in state and not _is_counter(key)
        ),
    )


def half_state_dict(model: nn.Module) -> StateDict:
    """Return the state dict in float16, for a small file that ``load_checkpoint`` can read.

    An entry with a value beyond float16's range (65504) stays in float32. ``num_batches_tracked``
    is only needed for training and left out.

    Raises:
        InputError: if a value is NaN or infinite.
    """
    state = {k: v.detach().cpu() for k, v in model.state_dict().items() if not _is_counter(k)}
    if nonfinite := [key for key, value in state.items() if not value.isfinite().all()]:
        raise InputError(f"the weights contain NaN or infinite values: {_first_names(nonfinite)}")
    halves = {k: v.half() if v.is_floating_point() else v for k, v in state.items()}
    return {key: half if half.isfinite().all() else state[key] for key, half in halves.items()}


def _read_state(
    model: nn.Module, path_or_state_dict: str | Path | Mapping[str, Any]
) -> tuple[str, StateDict, StateDict]:
    """Read a checkpoint for ``model``.

    Returns:
        Name of the source for messages, its entries renamed to the network's names, and the
        network's own entries.
    """
    model_state = {_strip_wrapper_prefixes(key): value for key, value in model.state_dict().items()}
    if isinstance(path_or_state_dict, Mapping):
        source, content = "the state dict", path_or_state_dict
    else:
        source, content = str(path_or_state_dict), read_file(Path(path_or_state_dict))
    return source, _rename_keys(_weights(content, source), model_state, source), model_state


def _weights(content: Any, source: str) -> Mapping[str, Tensor]:
    """Return the state dict that a checkpoint contains."""
    if isinstance(content, Mapping):
        for key in WEIGHTS_KEYS:
            if isinstance(content.get(key), Mapping):
                content = content[key]
                break
        if content and all(isinstance(value, Tensor) for value in content.values()):
            for key, value in content.items():
                if value.layout is not torch.strided or value.is_quantized:
                    raise InputError(
                        f"{source}: {key} is sparse or quantized; save it as a dense tensor"
                    )
            return content
        found = f"a dict with the keys {_first_names(content)}" if content else "an empty dict"
    else:
        found = f"a {type(content).__name__}"
    raise InputError(
        f"{source}: contains no weights, but {found}; expected a state dict, or a dict with one "
        f"under {' or '.join(WEIGHTS_KEYS)}"
    )


def _rename_keys(weights: Mapping[str, Tensor], model_state: StateDict, source: str) -> StateDict:
    """Rename the entries of ``weights`` to this network's names."""
    prefixes = [
        prefix for prefix in PART_PREFIXES if not any(key.startswith(prefix) for key in model_state)
    ]
    state: StateDict = {}
    for key, value in weights.items():
        name = _strip_wrapper_prefixes(key)
        prefix = next((prefix for prefix in prefixes if name.startswith(prefix)), "")
        for target, part in _convert_entry(name.removeprefix(prefix), value, model_state):
            if target in state:
                raise InputError(f"{source}: contains {target} twice, the second time as {key}")
            state[target] = part
    return state


def _convert_entry(name: str, value: Tensor, model_state: StateDict) -> list[tuple[str, Tensor]]:
    """Convert an entry with one of mmpose's names to this network's entries."""
    if name in model_state:
        return [(name, value)]
    if ".attn.attn.qkv." in name and len(value) % 3 == 0:
        parts = zip("qkv", value.chunk(3), strict=True)
        return [(name.replace(".qkv.", f".{letter}_proj."), part) for letter, part in parts]
    renamed = name
    for mmpose_name, own_name in MMPOSE_NAMES:
        renamed = renamed.replace(mmpose_name, own_name)
    return [(renamed if renamed in model_state else name, value)]


def _strip_wrapper_prefixes(key: str) -> str:
    return key.replace("_orig_mod.", "").removeprefix("module.")


def _unwrap_model(model: nn.Module) -> nn.Module:
    """Return the network inside DataParallel and torch.compile."""
    for wrapper in ("module", "_orig_mod"):
        if isinstance(inner := getattr(model, wrapper, None), nn.Module):
            return _unwrap_model(inner)
    return model


def _shape_problems(state: StateDict, model_state: StateDict) -> list[str]:
    wrong = [
        f"{key} is {tuple(value.shape)} in the file, {tuple(model_state[key].shape)} in the network"
        for key, value in state.items()
        if key in model_state and value.shape != model_state[key].shape
    ]
    return _problem(wrong, "with a different shape")


def _name_problems(state: StateDict, model_state: StateDict) -> list[str]:
    missing = [key for key in model_state if key not in state and not _is_counter(key)]
    unknown = [key for key in state if key not in model_state]
    return _problem(missing, "missing from the file") + _problem(unknown, "not in the network")


def _problem(entries: list[str], text: str) -> list[str]:
    """Return a message about ``entries`` in a list, or an empty list if there are none."""
    count = counted(len(entries), "entry", "entries")
    return [f"{count} {text}: {_first_names(entries)}"] if entries else []


def _copy_into(model_state: StateDict, state: StateDict) -> None:
    """Copy ``state`` into the network's tensors in place."""
    with torch.no_grad():
        for key, value in state.items():
            model_state[key].copy_(value)


def _is_counter(key: str) -> bool:
    return key.endswith("num_batches_tracked")


def _num_entries(keys: Iterable[str]) -> int:
    """Count the keys except batch counters, which match any network."""
    return sum(not _is_counter(key) for key in keys)


def _top_level_module(key: str) -> str:
    return key.partition(".")[0]


def _count_by_module(keys: Iterable[str]) -> dict[str, int]:
    return dict(sorted(Counter(_top_level_module(key) for key in keys).items()))


def _first_names(keys: Iterable[str]) -> str:
    names = [str(key) for key in keys]
    return ", ".join(names[:MAX_LISTED]) + (", ..." if len(names) > MAX_LISTED else "")
