"""Folding of batch norms into convolutions: same outputs, no batch norms left."""

import pytest
import torch
from torch import nn

from lib.models import build_model
from lib.models.folding import fold_batch_norms
from tests.models.configs import LIGHT, resnet_cfg, tiny, tiny_hrnet_cfg, tiny_light_cfg

OTHERS = (
    ("transpose_h", "heatmap"),
    ("transpose_r", "sr"),
    ("hrformer", "srpose"),
    ("pose_hrnet", "srpose"),
)
CONFIGS = {
    "pose_hrnet": tiny_hrnet_cfg(),
    "pose_resnet": resnet_cfg(50, NUM_DECONV_FILTERS=[8, 8, 8]),
    "naive": tiny_light_cfg("lite_hrnet", MODULE_TYPE="NAIVE"),
    **{name: tiny_light_cfg(name) for name in LIGHT},
    **{f"{name}-{head}": tiny(name, head) for name, head in OTHERS},
}


def randomize_weights(network: nn.Module) -> nn.Module:
    """Randomise batch norms and gates, so that they have an effect."""
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d):
            nn.init.uniform_(module.weight, 0.5, 1.5)
            nn.init.normal_(module.bias, std=0.1)
            nn.init.normal_(module.running_mean, std=0.1)
            nn.init.uniform_(module.running_var, 0.5, 1.5)
        elif getattr(module, "is_gate", False):
            nn.init.kaiming_normal_(module.weight, nonlinearity="linear")
    return network.eval()


@pytest.mark.parametrize("name", CONFIGS)
def test_a_folded_network_has_the_same_outputs_without_batch_norms(name):
    torch.manual_seed(0)
    cfg = CONFIGS[name].clone()
    cfg.MODEL.INIT = "kaiming"
    # float64, so that rounding is negligible on any processor.
    network = randomize_weights(build_model(cfg)).double()
    state = {key: value.clone() for key, value in network.state_dict().items()}
    folded = fold_batch_norms(network)
    x = torch.randn(2, 3, 96, 64, dtype=torch.float64)
    with torch.inference_mode():
        expected = network(x)
        torch.testing.assert_close(
            folded(x), expected, rtol=1e-9, atol=1e-9 * expected.std().item()
        )
    assert not any(isinstance(module, nn.BatchNorm2d) for module in folded.modules())
    assert all(torch.equal(value, state[key]) for key, value in network.state_dict().items())
