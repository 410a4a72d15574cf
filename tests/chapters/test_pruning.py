"""Pruning: masks, the choice of channels, and removed channels against the masked network."""

import copy

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn
from torch.nn.utils import prune
from used_network import used_network, weights

from kdutils.compress import FakeQuantize, fake_quantize, fold_batch_norm, magnitude_masks, packed_state
from kdutils.course.models import BlockNet, separable_block
from kdutils.course.pruning import channels_to_keep, remove_channels

IMAGES = torch.randn(6, 1, 28, 28, generator=torch.Generator().manual_seed(0))
CONVOLUTIONS = ["stages.0.0", "stages.1.0", "stages.1.3", "stages.2.0"]


def has_relu(part):
    """A rounded network has a ReLU and its rounding in the ReLU's place."""
    return any(isinstance(module, nn.ReLU) for module in part.modules())


def masked(network, kept):
    """A copy whose channels that are not kept are set to zero behind their ReLU."""
    network = copy.deepcopy(network)
    for name, channels in kept.items():
        stage, place = name.rsplit(".", 1)
        behind = network.get_submodule(stage)
        relus = [i for i, part in enumerate(behind) if i > int(place) and has_relu(part)]

        def zero_others(module, inputs, output, channels=channels):
            mask = torch.zeros(output.shape[1])
            mask[channels] = 1
            return output * mask.reshape(1, -1, 1, 1)

        behind[relus[0]].register_forward_hook(zero_others)
    return network


# Single weights


@pytest.mark.parametrize("sparsity", [0, 0.3, 0.9])
def test_masks_drop_the_smallest_magnitudes_of_all_layers(sparsity):
    network = used_network()
    masks = magnitude_masks(network, sparsity)
    magnitudes = {name: weight.abs() for name, weight in weights(network).items()}
    dropped = torch.cat([magnitudes[name][~mask] for name, mask in masks.items()])
    kept = torch.cat([magnitudes[name][mask] for name, mask in masks.items()])
    assert len(dropped) == round(sparsity * (len(dropped) + len(kept)))
    assert not len(dropped) or dropped.max() <= kept.min()


def test_masks_are_pytorchs_own():
    network = used_network()
    masks = magnitude_masks(network, 0.6)
    layers = [m for m in network.modules() if isinstance(m, nn.Conv2d | nn.Linear)]
    prune.global_unstructured([(m, "weight") for m in layers], prune.L1Unstructured, amount=0.6)
    for layer, mask in zip(layers, masks.values(), strict=True):
        assert torch.equal(layer.weight_mask.bool(), mask)


def test_equal_weights_are_dropped_to_the_exact_number():
    network = nn.Linear(4, 5)
    nn.init.ones_(network.weight)
    assert int((~magnitude_masks(nn.Sequential(network), 0.25)["0"]).sum()) == 5


@pytest.mark.parametrize("choose", [magnitude_masks, channels_to_keep])
@pytest.mark.parametrize("sparsity", [-0.1, 1.0, float("nan")])
def test_a_share_out_of_range_is_named(choose, sparsity):
    with pytest.raises(ValueError, match="sparsity: expected a share"):
        choose(used_network(), sparsity)


# The choice of channels


def test_the_weakest_filters_go():
    network = used_network()
    kept = channels_to_keep(network, 0.5)
    assert {name: len(channels) for name, channels in kept.items()} == dict(
        zip(CONVOLUTIONS, [2, 3, 3, 4], strict=True)
    )
    for name, channels in kept.items():
        strength = network.get_submodule(name).weight.abs().sum(dim=(1, 2, 3))
        gone = [c for c in range(len(strength)) if c not in channels]
        assert strength[gone].max() <= strength[channels].min()
        assert channels.tolist() == sorted(channels.tolist())


@pytest.mark.parametrize(("sparsity", "left"), [(0, [4, 6, 6, 8]), (0.3, [3, 4, 4, 6]), (0.99, [1, 1, 1, 1])])
def test_a_share_is_rounded_to_whole_channels_and_one_stays(sparsity, left):
    assert [len(channels) for channels in channels_to_keep(used_network(), sparsity).values()] == left


# Channels removed


@settings(max_examples=25, deadline=None)
@given(st.data())
def test_without_channels_equals_the_masked_network(data):
    network = used_network()
    kept = {
        name: torch.tensor(data.draw(st.permutations(range(count)))[: data.draw(st.integers(1, count))])
        for name, count in zip(CONVOLUTIONS, [4, 6, 6, 8], strict=True)
        if data.draw(st.booleans())
    }
    smaller = remove_channels(network, kept)
    torch.testing.assert_close(smaller(IMAGES), masked(network, kept)(IMAGES), rtol=1e-4, atol=1e-4)


def test_shapes_shrink_on_both_sides_and_the_copy_can_be_trained():
    network = used_network()
    before = copy.deepcopy(network.state_dict())
    kept = {"stages.0.0": torch.tensor([0, 3]), "stages.1.3": torch.tensor([5, 1, 2])}
    smaller = remove_channels(network, kept)
    assert (smaller(IMAGES) - network(IMAGES)).abs().max() > 0.01  # what went did say something
    assert smaller.stages[0][0].weight.shape == (2, 1, 3, 3)
    assert smaller.stages[1][0].weight.shape == (6, 2, 3, 3)
    assert smaller.stages[2][0].weight.shape == (8, 3, 3, 3)
    assert (smaller.stages[1][3].in_channels, smaller.stages[1][3].out_channels) == (6, 3)
    assert smaller.stages[1][4].num_features == 3
    smaller.train()(IMAGES).sum().backward()
    assert all(parameter.grad is not None for parameter in smaller.parameters())
    torch.testing.assert_close(network.state_dict(), before)  # the given network is as it was


def test_the_last_convolutions_channels_leave_the_classifier_too():
    smaller = remove_channels(used_network(), {"stages.2.0": torch.tensor([7])})
    assert smaller.classifier.weight.shape == (10, 1) and smaller.embed(IMAGES).shape == (6, 1)


def test_zeroed_filters_are_not_removed_channels():
    network = used_network()
    kept = {"stages.0.0": torch.tensor([0, 3])}
    filters = copy.deepcopy(network)
    filters.stages[0][0].weight.data[[1, 2]] = 0  # batch norm still adds its constant
    assert (filters(IMAGES) - remove_channels(network, kept)(IMAGES)).abs().max() > 0.01


@pytest.mark.parametrize("frozen", [True, False])
def test_a_frozen_network_stays_frozen(frozen):
    smaller = remove_channels(used_network().requires_grad_(not frozen), {"stages.0.0": torch.tensor([1])})
    assert all(parameter.requires_grad is not frozen for parameter in smaller.parameters())


@pytest.mark.parametrize("images", [None, IMAGES], ids=["weights", "activations too"])
def test_a_rounded_network_keeps_the_steps_of_what_stays(images):
    network = fake_quantize(used_network(), 4, images)
    kept = channels_to_keep(network, 0.5)
    smaller = remove_channels(network, kept)
    torch.testing.assert_close(smaller(IMAGES), masked(network, kept)(IMAGES), rtol=1e-4, atol=1e-4)
    before, after = (
        [m for m in n.modules() if isinstance(m, FakeQuantize) and m.signed] for n in (network, smaller)
    )
    for old, new, channels in zip(before, after, [*kept.values(), torch.arange(10)], strict=True):
        assert torch.equal(new.scale, old.scale[channels]) and new.zero_point.shape == new.scale.shape


def test_a_rounded_network_without_channels_is_trained_and_packed():
    network = fake_quantize(used_network(), 8, IMAGES)
    smaller = remove_channels(network, channels_to_keep(network, 0.5)).train()
    F.cross_entropy(smaller(IMAGES), torch.arange(6)).backward()
    assert smaller.stages[1][0].parametrizations.weight.original.grad.abs().sum() > 0
    sizes = [sum(t.nbytes for t in packed_state(fold_batch_norm(n)).values()) for n in (network, smaller)]
    assert sizes[1] < sizes[0] / 2


@pytest.mark.parametrize(
    ("kept", "said"),
    [
        ({"stages.9.0": torch.tensor([0])}, "expected names among"),
        ({"stages.0.0": torch.tensor([], dtype=torch.int64)}, "at least one"),
        ({"stages.0.0": torch.tensor([0, 0])}, "different channels"),
        ({"stages.0.0": torch.tensor([4])}, "from 0 to 3"),
        ({"stages.0.0": torch.tensor([[0]])}, "different channels"),
        ({"stages.0.0": torch.tensor([True, False])}, "different channels"),
    ],
)
def test_channels_that_do_not_fit_are_named(kept, said):
    with pytest.raises(ValueError, match=said):
        remove_channels(used_network(), kept)


def test_a_network_that_is_no_chain_of_convolutions_is_named():
    for network in (nn.Sequential(nn.Conv2d(1, 2, 3)), BlockNet(separable_block, (4, 8), (1, 1))):
        with pytest.raises(
            ValueError, match=f"^network: expected a ConvNet, got a {type(network).__name__}$"
        ):
            remove_channels(network, {})
