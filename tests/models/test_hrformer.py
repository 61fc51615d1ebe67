"""HRFormer against outputs of the published code."""

import torch

from lib.models import build_model
from lib.models.checkpoint import load_checkpoint
from lib.models.hrformer import TransformerBlock, WindowAttention
from tests.golden_files import golden_model
from tests.models.configs import tiny, with_head
from tests.models.test_heads import build_with_weights


def test_outputs_match_the_published_network_with_and_without_the_position_bias():
    golden = golden_model("hrformer_small")
    outputs = []
    for has_bias in (False, True):
        network = build_with_weights(golden, with_head("hrformer", RELATIVE_POSITION_BIAS=has_bias))
        with torch.inference_mode():
            outputs.append(network(golden.image))
            if not has_bias:
                outputs.append(network.features(golden.image)[0])
    assert max(golden.errors(outputs)) < 1e-4
    assert sum(p.numel() for p in network.parameters()) == golden.meta["params"]


def test_base_has_the_published_number_of_parameters():
    with torch.device("meta"):
        network = build_model(
            with_head("hrformer", NUM_CHANNELS=[78, 156, 312, 624], NUM_HEADS=[2, 4, 8, 16])
        )
    assert sum(p.numel() for p in network.parameters()) == 43_211_777


def test_attention_stays_within_windows():
    torch.manual_seed(0)
    attention = WindowAttention(4, 2, 7, has_position_bias=True)
    image = torch.randn(1, 14, 14, 4)
    changed = image.clone()
    changed[:, :7, :7] += 1
    with torch.inference_mode():
        difference = (attention(changed) - attention(image)).abs().amax(3)[0]
    assert difference[:7, :7].min() > 0
    assert difference[7:].max() == 0 and difference[:, 7:].max() == 0


def test_drop_path_drops_whole_samples_in_training_only():
    torch.manual_seed(0)
    network = build_model(tiny("hrformer", "heatmap"))
    block = next(m for m in network.modules() if isinstance(m, TransformerBlock))
    block.drop_path = 0.5
    image = torch.ones(64, 1, 1, 1)
    kept = block.train()._apply_drop_path(image).flatten()
    assert set(kept.tolist()) == {0.0, 2.0} and 16 < kept.count_nonzero() < 48
    assert torch.equal(block.eval()._apply_drop_path(image), image)


def test_the_position_bias_is_trained_only_if_it_is_used():
    for has_bias in (False, True):
        cfg = tiny("hrformer", "heatmap")
        cfg.MODEL.EXTRA.RELATIVE_POSITION_BIAS = has_bias
        network = build_model(cfg)
        network(torch.randn(2, 3, 96, 64)).square().sum().backward()
        tables = [p for n, p in network.named_parameters() if n.endswith("bias_table")]
        assert tables and all((p.grad is not None) == has_bias for p in tables)


def test_mmposes_names_and_merged_projections_are_converted():
    """The names are those of mmpose/models/backbones/hrformer.py in open-mmlab/mmpose."""
    source, target = (build_model(tiny("hrformer", "heatmap")) for _ in range(2))
    state = {}
    for key, value in source.state_dict().items():
        for ours, theirs in ((".mlp.", ".ffn."), (".out_proj.", ".proj.")):
            key = key.replace(ours, theirs)
        if ".q_proj." in key:
            parts = [source.state_dict()[key.replace("q_proj", f"{part}_proj")] for part in "qkv"]
            state[key.replace("q_proj", "qkv")] = torch.cat(parts)
        elif "k_proj" not in key and "v_proj" not in key:
            state[key] = value
    assert not any(part in key for key in state for part in (".mlp.", "q_proj", "out_proj"))
    load_checkpoint(target, state)
    for key, value in source.state_dict().items():
        assert torch.equal(target.state_dict()[key], value), key
