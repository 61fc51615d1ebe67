"""The network that comes with the project is complete and small."""

import pytest
import torch

from lib.config import load_config
from lib.dataset import skeleton_of, with_joints
from lib.dataset.skeletons import COCO
from lib.models import build_model, built_in
from lib.models.checkpoint import load_checkpoint

MAX_BYTES = 8_000_000


@pytest.mark.skipif(not built_in.WEIGHTS.exists(), reason="the weights are not here yet")
def test_the_built_in_weights_fit_their_experiment_and_are_small():
    cfg = with_joints(load_config(built_in.EXPERIMENT))
    assert skeleton_of(cfg) == COCO
    load_checkpoint(build_model(cfg), built_in.WEIGHTS)
    assert built_in.WEIGHTS.stat().st_size <= MAX_BYTES
    state = torch.load(built_in.WEIGHTS, weights_only=True)
    assert all(value.isfinite().all() for value in state.values())
    assert any(value.dtype == torch.float16 for value in state.values())
