"""Chapter 10: what the notebook writes out equals the library; its exercises name the usual slips."""

import copy

import pandas as pd
import pytest
import torch
from notebook_code import definition, verdict
from notebook_files import ROOT
from torch import nn

from kdutils.compress import FakeQuantize, magnitude_masks
from kdutils.course.exercises import chapter10 as exercises
from kdutils.course.models import load_teacher
from kdutils.course.pruning import channels_to_keep, remove_channels

NOTEBOOK = ROOT / "notebooks" / "10_pruning_and_combining.ipynb"

# What the notebook writes out equals the library

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
    best, scores = best_rate(lambda rate: -abs(rate - 100), (0.1, 0.3, 0.9))
    assert len(scores) == 6 and best == max(scores)  # it stops at six
    best, scores = best_rate(lambda rate: -abs(rate - 1), (0.1, 0.3, 0.9))
    assert best == 0.9 and list(scores) == [0.1, 0.3, 0.9, 2.7]
    best, scores = best_rate(lambda rate: -abs(rate - 0.1), (0.1, 0.3, 0.9))
    assert best == 0.1 and list(scores) == [0.1, 0.3, 0.9, 0.03333]
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


def test_maps_are_what_each_convolution_reads_and_writes(teacher):
    maps = definition(NOTEBOOK, "maps", nn=nn, one_image=IMAGES[:1], device="cpu")
    small, middle, large = 32 * 14 * 14, 64 * 7 * 7, 128 * 7 * 7
    pairs = [(28 * 28, small), (small, middle), (middle, middle), (middle, large), (large, large)]
    assert maps(teacher) == pairs
    assert definition(NOTEBOOK, "peak_numbers", maps=maps)(teacher) == 2 * large
    assert not any(module._forward_hooks for module in teacher.modules())


def test_activations_beyond_the_grid_are_counted():
    network = nn.Sequential(FakeQuantize(torch.tensor(1 / 255), bits=8, signed=False))
    share_clipped = definition(
        NOTEBOOK,
        "share_clipped",
        FakeQuantize=FakeQuantize,
        torch=torch,
        calibration=torch.tensor([0.5, 0.9, 1.5, 3.0]),
        device="cpu",
    )
    assert share_clipped(network) == 50
    assert not network.training and not network[0]._forward_pre_hooks


def test_layers_are_those_with_weights():
    network = nn.Sequential(nn.Conv2d(1, 2, 3), nn.BatchNorm2d(2), nn.Linear(2, 2))
    assert list(layers(network)) == ["0", "2"]


# Exercises


def by_channel(weight, positions):
    return weight.reshape(len(weight), -1, positions)


def other_channels(weight, kept, positions):
    others = [c for c in range(weight.shape[1] // positions) if c not in kept.tolist()]
    return by_channel(weight, positions)[:, others].reshape(len(weight), -1)


def zeroed(weight, kept, positions):
    masked = torch.zeros_like(by_channel(weight, positions))
    masked[:, kept] = by_channel(weight, positions)[:, kept]
    return masked.reshape(weight.shape)


SLIPS = {
    "a channel owned one column": lambda w, kept, positions: w[:, kept],
    "the channels changed fastest": lambda w, kept, positions: w.reshape(len(w), positions, -1)[
        :, :, kept
    ].reshape(len(w), -1),
    "the channels that go were kept": other_channels,
    "two dimensions back": lambda w, kept, positions: by_channel(w, positions)[:, kept],
    "zero, but still there": zeroed,
}


@pytest.mark.parametrize("name", SLIPS)
def test_slip_in_without_inputs_is_named(capsys, name):
    said = verdict(capsys, exercises.without_inputs, SLIPS[name])
    assert said.startswith("✗ not yet") and name in said


@pytest.mark.parametrize(
    ("attempt", "said"),
    [
        (1 / 4, "the share that stays"),
        (2 / 3, "the positions alone"),
        (75, "a share between 0 and 1"),
        (0.8, "a position had 32 bits"),
        (3 / 7, "a weight had 32 bits"),
        (0.1, "too low"),
        ("a third", "expected a number"),
    ],
)
def test_slip_in_the_break_even_is_named(capsys, attempt, said):
    answer = verdict(capsys, exercises.break_even_sparsity, attempt)
    assert answer.startswith("✗ not yet") and said in answer


FOUND = {"unpruned": 92.0, "repaired": {0.25: 90.0, 0.5: 86.0, 0.75: 69.0}, "allowed": 8, "largest": 0.5}


def test_the_largest_share_is_held_against_the_readers_own_numbers(capsys):
    assert verdict(capsys, exercises.how_far, FOUND).startswith("✓ passed: 50% can go")
    tensors = FOUND | {"unpruned": torch.tensor(92.0), "largest": torch.tensor(0.5)}
    assert verdict(capsys, exercises.how_far, tensors).startswith("✓ passed")


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        ({"largest": 0.25}, "50% is the largest share within 8 points"),
        ({"allowed": 30, "largest": 0.75}, "prune further"),
        ({"allowed": 1}, "no share keeps"),
        ({"allowed": -8}, "above zero"),
        ({"repaired": {0.25: 90.0, 0.5: 86.0}}, "three shares"),
        ({"repaired": {25: 90.0, 50: 86.0, 75: 69.0}}, "between 0 and 1"),
        ({"unpruned": 920}, "in percent"),
        ({"repaired": [90.0, 86.0, 69.0]}, "expected a dict"),
        ({"unpruned": ...}, "not attempted"),
        ({"largest": "half"}, "expected a dict"),
    ],
)
def test_slip_in_how_far_is_named(capsys, changed, said):
    assert said in verdict(capsys, exercises.how_far, FOUND | changed)


@pytest.mark.parametrize("attempt", [None, 3, {}, [], "all of it"])
def test_how_far_raises_nothing(capsys, attempt):
    assert verdict(capsys, exercises.how_far, attempt).startswith("✗ not yet")
