"""The definitions in notebook 10 equal the library's and PyTorch's."""

import copy

import pandas as pd
import pytest
import torch
from faults import NOTEBOOKS
from notebook_code import definition
from torch import nn

from kdutils.compress import magnitude_masks
from kdutils.course.models import load_teacher
from kdutils.course.pruning import channels_to_keep, remove_channels

NOTEBOOK = NOTEBOOKS / "10_pruning_and_combining.ipynb"
IMAGES = torch.randn(4, 1, 28, 28, generator=torch.Generator().manual_seed(0))


@pytest.fixture(scope="module")
def teacher():
    return load_teacher()


def layers(network):
    return definition(NOTEBOOK, "layers")(network)


@pytest.mark.parametrize("sparsity", [0.2, 0.5, 0.93])
def test_zeros_are_where_the_masks_say(teacher, sparsity):
    sparse = definition(NOTEBOOK, "with_zeros", copy=copy, layers=layers)(teacher, sparsity)
    masks = magnitude_masks(teacher, sparsity)
    assert layers(sparse).keys() == masks.keys()
    for name, layer in layers(sparse).items():
        assert torch.equal(layer.weight != 0, masks[name])
        assert torch.equal(layer.weight[masks[name]], layers(teacher)[name].weight[masks[name]])


@pytest.mark.parametrize(("stage", "place", "following"), [(0, 0, (1, 0)), (1, 0, (1, 3)), (1, 3, (2, 0))])
def test_shrinking_by_hand_is_the_librarys(teacher, stage, place, following):
    name = f"stages.{stage}.{place}"
    kept = {name: channels_to_keep(teacher, 0.5)[name]}
    smaller = copy.deepcopy(teacher)
    conv, norm = smaller.stages[stage][place], smaller.stages[stage][place + 1]
    definition(NOTEBOOK, "shrink")(conv, norm, smaller.stages[following[0]][following[1]], kept[name])
    by_library = remove_channels(teacher, kept)
    torch.testing.assert_close(smaller(IMAGES), by_library(IMAGES), rtol=0, atol=0)
    torch.testing.assert_close(smaller.state_dict(), by_library.state_dict())


def test_the_masked_channel_of_the_notebook_is_the_removed_one(teacher):
    """Filters zeroed leave batch norm's constant; batch norm zeroed too, the channel is gone."""
    kept = channels_to_keep(teacher, 0.5)["stages.1.0"]
    removed = remove_channels(teacher, {"stages.1.0": kept})(IMAGES)
    mask = torch.zeros(64)
    mask[kept] = 1
    filters, channels = copy.deepcopy(teacher), copy.deepcopy(teacher)
    filters.stages[1][0].weight.data *= mask.reshape(-1, 1, 1, 1)
    for values in (channels.stages[1][1].weight, channels.stages[1][1].bias):
        values.data *= mask
    assert (filters(IMAGES) - removed).abs().max() > 0.1
    torch.testing.assert_close(channels(IMAGES), removed, rtol=1e-4, atol=1e-4)


def test_the_search_for_a_rate_goes_on_until_the_best_lies_inside():
    best_rate = definition(NOTEBOOK, "best_rate")
    best, scores = best_rate(lambda rate: -abs(rate - 10), (0.1, 0.3, 0.9))
    assert len(scores) == 5 and best == max(scores)  # it stops at five
    best, scores = best_rate(lambda rate: -abs(rate - 1), (0.1, 0.3, 0.9))
    assert best == 0.9 and list(scores) == [0.1, 0.3, 0.9, 2.7]
    assert list(best_rate(lambda rate: -abs(rate - 0.3), (0.1, 0.3, 0.9))[1]) == [0.1, 0.3, 0.9]


def test_budgets_are_kept_each_of_them():
    points = pd.DataFrame(
        {
            "size_mb": [1.0, 0.1, 0.2, 0.1, 0.1],
            "latency_ms": [0.1, 0.9, 0.2, 0.2, 0.1],
            "accuracy": [90.0, 90.0, 80.0, 79.0, 85.0],
        }
    )
    within = definition(NOTEBOOK, "within")
    assert within(points, mb=0.2, ms=0.2, accuracy=80).index.tolist() == [4, 2]  # the smallest first
    assert within(points, mb=0.01, ms=0.2, accuracy=80).empty


def test_groups_of_the_orders():
    class Colours:
        OTHERS = ("both rules", None, "unrepaired", "early")

    group = definition(NOTEBOOK, "group", plot=Colours)
    assert [group(o) for o in ("DPDQ", "DQPD", "PDDQ", "PDQD", "DPQD")] == ["both rules"] * 5
    assert [group(o) for o in ("DDPQ", "DDQP", "DQDP")] == ["unrepaired"] * 3
    assert [group(o) for o in ("QDPD", "QDDP", "PQDD", "QPDD")] == ["early"] * 4


def test_layers_are_those_with_weights():
    network = nn.Sequential(nn.Conv2d(1, 2, 3), nn.BatchNorm2d(2), nn.Linear(2, 2))
    assert list(layers(network)) == ["0", "2"]
