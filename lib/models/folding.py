"""Folding of batch norms into the preceding convolutions, for faster inference."""

import copy
import itertools

from torch import nn
from torch.nn.utils.fusion import fuse_conv_bn_eval

from lib.models.layers.blocks import CONVOLUTIONS


def fold_batch_norms(network: nn.Module) -> nn.Module:
    """Return a copy of ``network`` in evaluation mode with its batch norms folded.

    In evaluation a batch norm scales and shifts each channel, which can be done by the weights of
    the convolution before it. Outputs differ only by rounding. The copy cannot be trained, and its
    state dict has different names.

    These pairs of a convolution and a batch norm are folded:

    - neighbours in a Sequential;
    - a module's ``conv<x>`` and ``bn<x>``, which all networks of this package apply in this order;
    - the pairs of names in a module's ``fold_pairs``.

    A module with an ``absorb(bn)`` method is treated like a convolution.
    """
    folded = copy.deepcopy(network).eval()
    for module in [*folded.modules()]:
        if isinstance(module, nn.Sequential):
            _fold_neighbours(module)
        else:
            _fold_by_name(module)
    return folded


def _fold_neighbours(layers: nn.Sequential) -> None:
    for (conv_name, conv), (norm_name, norm) in itertools.pairwise([*layers._modules.items()]):
        if isinstance(norm, nn.BatchNorm2d) and (fused := _fused(conv, norm)):
            layers._modules[conv_name] = fused
            del layers._modules[norm_name]


def _fold_by_name(module: nn.Module) -> None:
    names = [name for name, _ in module.named_children() if name.startswith("conv")]
    pairs = [(name, name.replace("conv", "bn", 1)) for name in names]
    for name, norm_name in [*pairs, *getattr(module, "fold_pairs", ())]:
        norm = getattr(module, norm_name, None)
        if isinstance(norm, nn.BatchNorm2d) and (fused := _fused(getattr(module, name), norm)):
            setattr(module, name, fused)
            setattr(module, norm_name, nn.Identity())


def _fused(conv: nn.Module, norm: nn.BatchNorm2d) -> nn.Module | None:
    """Return ``conv`` with ``norm`` folded into it, or None if ``conv`` does not support this."""
    if isinstance(conv, CONVOLUTIONS):
        return fuse_conv_bn_eval(conv, norm, transpose=isinstance(conv, nn.ConvTranspose2d))
    if hasattr(conv, "absorb"):
        conv.absorb(norm)
        return conv
    return None
