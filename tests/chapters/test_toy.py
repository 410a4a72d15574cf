"""Points in the plane, labels drawn again and again, and many networks at once."""

import pytest
import torch
from torch import nn

from kdutils.course import toy


def test_blobs_take_turns_around_a_triangle():
    points = toy.blobs(3000, seed=0, spread=0.1)
    assert points.places.shape == (3000, 2) and points.classes[:4].tolist() == [0, 1, 2, 0]
    centers = torch.stack([points.places[points.classes == c].mean(dim=0) for c in range(3)])
    torch.testing.assert_close(centers.norm(dim=1), torch.full((3,), 1.5), atol=0.02, rtol=0)
    sides = torch.pdist(centers)
    assert sides.max() - sides.min() < 0.05
    spread = (points.places - centers[points.classes]).std().item()
    assert spread == pytest.approx(0.1, abs=0.01)
    assert not torch.equal(points.places, toy.blobs(3000, seed=1, spread=0.1).places)


def test_a_share_of_the_labels_is_guessed_anew_in_every_draw():
    classes = torch.arange(6000) % 3
    labels = toy.noisy_labels(classes, draws=4, share=0.3, seed=0)
    assert labels.shape == (4, 6000) and set(labels.unique().tolist()) == {0, 1, 2}
    wrong = (labels != classes).double().mean(dim=1)
    assert wrong.tolist() == pytest.approx([0.2] * 4, abs=0.02)  # a guess is right in one case of three
    assert not torch.equal(labels[0], labels[1])
    assert torch.equal(toy.noisy_labels(classes, draws=2, share=0.0, seed=0), classes.expand(2, -1))


def alone(networks, k):
    """One of the networks as PyTorch's own layers."""
    layers = []
    for weights, biases in zip(networks.weights, networks.biases, strict=True):
        layer = nn.Linear(*weights.shape[1:])
        layer.weight.data, layer.bias.data = weights[k].T, biases[k, 0]
        layers += [layer, nn.ReLU()]
    return nn.Sequential(*layers[:-1])


def test_small_networks_are_networks_of_their_own():
    networks = toy.SmallNetworks(3, seed=0)
    for bias in networks.biases:
        bias.data.normal_()
    places = torch.randn(5, 2)
    logits = networks(places)
    assert logits.shape == (3, 5, 3)
    for k in range(3):
        torch.testing.assert_close(logits[k], alone(networks, k)(places))
    logits[1].sum().backward()
    assert networks.weights[0].grad[1].abs().sum() > 0 and networks.weights[0].grad[[0, 2]].abs().sum() == 0


def test_each_network_begins_differently_and_the_first_is_the_same_for_every_count():
    many, few = toy.SmallNetworks(3, seed=0), toy.SmallNetworks(2, seed=0)
    assert not torch.equal(many.weights[0][0], many.weights[0][1])
    assert torch.equal(many.weights[0][:2], few.weights[0])
    assert not torch.equal(many.weights[0], toy.SmallNetworks(3, seed=1).weights[0])


def test_the_grid_covers_the_plane_row_by_row_from_below():
    places = toy.grid(3)
    e = toy.EXTENT
    assert places.tolist() == [[x, y] for y in (-e, 0, e) for x in (-e, 0, e)]


def test_disagreement_is_the_mean_over_pairs():
    decisions = torch.tensor([[0, 1, 2, 0], [0, 1, 2, 1], [0, 1, 1, 2]])
    assert toy.disagreement(decisions) == pytest.approx(100 * (1 / 4 + 2 / 4 + 2 / 4) / 3)
    assert toy.disagreement(decisions[:1].expand(5, -1)) == 0
