"""The moving average of the weights."""

import torch

from lib.core.averaging import AveragedWeights


def test_the_average_follows_the_weights():
    network = torch.nn.BatchNorm1d(1)
    average = AveragedWeights(network, 0.75)
    with torch.no_grad():
        network.weight.fill_(5.0)
    network.num_batches_tracked.fill_(3)
    average.update()
    with average.applied():
        assert network.weight.item() == 2.0 and network.num_batches_tracked.item() == 3
    assert network.weight.item() == 5.0


def test_without_a_decay_the_network_is_used():
    network = torch.nn.Linear(1, 1)
    average = AveragedWeights(network, 0.0)
    average.update()
    with average.applied():
        assert average.weights == {}
