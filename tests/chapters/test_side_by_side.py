"""Many small networks trained at once: each as if it were alone."""

import copy

import pytest
import torch
from torch import nn

from kdutils.course.side_by_side import MLPs, Row

SIZES = [5, 4, 3]
INPUTS = torch.randn(6, 5, generator=torch.Generator().manual_seed(0))


def alone(networks, k):
    """One of the networks, made of PyTorch's own layers."""
    layers = []
    for weights, biases in zip(networks.weights, networks.biases, strict=True):
        layer = nn.Linear(*weights.shape[1:])
        layer.weight.data, layer.bias.data = weights[k].T.clone(), biases[k, 0].clone()
        layers += [layer, nn.ReLU()]
    return nn.Sequential(*layers[:-1])


def test_each_answers_as_if_it_were_alone():
    networks = MLPs(SIZES, [[0, 1], [0, 1]])
    for bias in networks.biases:
        bias.data.normal_()
    logits = networks(INPUTS)
    assert logits.shape == (2, 6, 3) and len(networks) == 2
    for k in range(2):
        torch.testing.assert_close(logits[k], alone(networks, k)(INPUTS))
    each = torch.stack([INPUTS, INPUTS.flip(0)])
    torch.testing.assert_close(networks(each)[1], alone(networks, 1)(INPUTS.flip(0)))


def test_each_learns_as_if_it_were_alone():
    networks = MLPs(SIZES, [[0, 1], [0, 1]])
    single = alone(networks, 1)
    targets = torch.randn(6, 3, generator=torch.Generator().manual_seed(1))
    for model in (networks, single):
        optimizer = torch.optim.Adam(model.parameters(), lr=0.01)
        for _ in range(20):
            optimizer.zero_grad()
            ((model(INPUTS) - targets) ** 2).sum().backward()
            optimizer.step()
    torch.testing.assert_close(networks(INPUTS)[1], single(INPUTS), rtol=1e-4, atol=1e-5)


def test_layers_with_the_same_seed_are_shared_and_others_are_not():
    ours, theirs = MLPs(SIZES, [[7], [8]]), MLPs(SIZES, [[7], [9]])
    assert torch.equal(ours.weights[0], theirs.weights[0])
    assert not torch.equal(ours.weights[1], theirs.weights[1])
    both = MLPs(SIZES, [[3, 7], [3, 8]])
    assert torch.equal(both.weights[0][1], ours.weights[0][0])
    assert all((bias == 0).all() for bias in both.biases)


def test_weights_have_the_spread_that_keeps_activations_as_large_as_inputs():
    (weights,) = MLPs([400, 300], [[0]]).weights
    assert weights.std().item() == pytest.approx(400**-0.5, rel=0.02)


@pytest.mark.parametrize("seeds", [[[0]], [[0], [1, 2]], [[0], [1], [2]]])
def test_seeds_that_fit_no_layer_are_said(seeds):
    with pytest.raises(ValueError, match="seeds: expected one list for each of 2 layers"):
        MLPs(SIZES, seeds)


def test_a_row_answers_for_networks_of_any_kind():
    networks = [nn.Linear(5, 3), nn.Sequential(nn.Linear(5, 4), nn.Tanh(), nn.Linear(4, 3))]
    row = Row(copy.deepcopy(network) for network in networks)
    torch.testing.assert_close(row(INPUTS), torch.stack([network(INPUTS) for network in networks]))
    each = torch.stack([INPUTS, INPUTS.flip(0)])
    torch.testing.assert_close(row(each)[1], networks[1](INPUTS.flip(0)))
