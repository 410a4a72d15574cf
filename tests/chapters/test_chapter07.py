"""Chapter 07: what the notebook writes out equals the library; its exercises name the usual slips."""

import math
from types import SimpleNamespace

import pytest
import torch
from notebook_code import definition, solution, verdict
from notebook_files import ROOT
from torch import nn

from kdutils import evaluate
from kdutils.compare import paired_gain
from kdutils.course import models
from kdutils.course.exercises import chapter07 as exercises
from kdutils.losses import kd_loss

NOTEBOOK = ROOT / "notebooks" / "07_smaller_student.ipynb"

# What the notebook writes out equals the library

IMAGES = torch.randn(8, 1, 28, 28, generator=torch.Generator().manual_seed(0))


def network(width, layers, seed=0):
    return definition(NOTEBOOK, "network", models=models)(width, layers, seed)


def copied(student, teacher):
    return definition(NOTEBOOK, "copied_from")(student, teacher)


@pytest.fixture
def teacher():
    """A network of the teacher's architecture whose batch norms have seen something."""
    network = models.teacher_cnn(seed=5)
    with torch.no_grad():
        network(IMAGES)
    return network.eval()


@pytest.mark.parametrize("layers", [2, 3, 5])
def test_a_network_has_its_number_of_layers_and_ends_at_four_times_its_width(layers):
    made = network(4, layers)
    convolutions = [module for module in made.modules() if isinstance(module, nn.Conv2d)]
    assert len(convolutions) == layers
    assert (convolutions[0].out_channels, convolutions[-1].out_channels) == (4, 16)
    assert made.stages(IMAGES).shape[2:] == (7, 7)


def test_the_largest_network_is_the_teachers_architecture():
    assert evaluate.parameter_count(network(32, 5)) == evaluate.parameter_count(models.teacher_cnn())


def test_the_distillation_loss_is_kd_loss_on_answers_alone():
    logits, teacher_logits = IMAGES.flatten(1)[:, :10], IMAGES.flatten(1)[:, 10:20]
    loss = definition(NOTEBOOK, "distillation_loss", kd_loss=kd_loss)
    expected = kd_loss(logits, teacher_logits, temperature=4.0)
    torch.testing.assert_close(loss(lambda images: logits, None, teacher_logits), expected)


@pytest.mark.parametrize(
    ("scores", "chosen"),
    [
        ({0.03: 70.0, 0.1: 79.6, 0.3: 80.0}, 0.1),
        ({0.03: 70.0, 0.1: 79.4, 0.3: 80.0}, 0.3),
        ({0.1: 80.0, 0.03: 80.0}, 0.03),
    ],
)
def test_of_two_rates_that_are_as_good_the_lower_one_is_taken(scores, chosen):
    best_rate = definition(NOTEBOOK, "best_rate", tuning=lambda *_: scores)
    assert best_rate((4, 2), None, None) == chosen


@pytest.mark.parametrize(
    ("peak", "tried"),
    [
        (0.1, [0.03, 0.1, 0.3]),
        (0.9, [0.03, 0.1, 0.3, 0.9, 2.7]),
        (0.01, [0.0033, 0.01, 0.03, 0.1, 0.3]),
        (0.0033, [0.0033, 0.01, 0.03, 0.1, 0.3]),
    ],
)
def test_the_tuning_goes_on_beyond_an_end_that_is_best(peak, tried):
    tuning = definition(
        NOTEBOOK,
        "tuning",
        cache=lambda function: function,
        fm=SimpleNamespace(validation=None),
        trained=lambda size, way, steps, seed, start, lr: lr,
        accuracy_on=lambda split, lr: -abs(math.log(lr / peak)),
    )
    assert sorted(tuning((4, 2), None, None)) == tried


def test_a_difference_is_taken_seed_by_seed():
    difference = definition(NOTEBOOK, "difference", paired_gain=paired_gain)
    assert difference([3.0, 5.0], [1.0, 4.0]).differences == (2.0, 1.0)


def test_a_whole_copy_is_the_teacher(teacher):
    with torch.no_grad():
        torch.testing.assert_close(copied(network(32, 5).eval(), teacher)(IMAGES), teacher(IMAGES))


def test_a_copy_with_fewer_layers_has_the_first_ones_of_every_stage(teacher):
    student = copied(network(32, 3), teacher)
    for theirs, own in zip(teacher.stages, student.stages, strict=True):
        for name, values in own.state_dict().items():
            assert torch.equal(values, theirs.state_dict()[name])


def test_a_copy_of_channels_is_the_teacher_whose_other_channels_are_silent(teacher):
    """A channel whose batch norm is zero sends nothing on: the rest computes as if it were not there."""
    student = copied(network(8, 5).eval(), teacher)
    with torch.no_grad():
        for theirs, own in zip(teacher.stages, student.stages, strict=True):
            for source, norm, target in zip(theirs, theirs[1:], own, strict=False):
                if isinstance(source, nn.Conv2d):
                    strength = source.weight.abs().sum(dim=(1, 2, 3))
                    weaker = strength.argsort()[: len(strength) - target.out_channels]
                    norm.weight[weaker] = norm.bias[weaker] = 0
        torch.testing.assert_close(student(IMAGES), teacher(IMAGES), rtol=1e-4, atol=1e-5)


def test_copying_leaves_the_teacher_as_it_was_and_shares_nothing_with_it(teacher):
    before = {name: values.clone() for name, values in teacher.state_dict().items()}
    student = copied(network(32, 5), teacher)
    with torch.no_grad():
        for parameter in student.parameters():
            parameter.zero_()
    assert all(torch.equal(values, before[name]) for name, values in teacher.state_dict().items())


def test_a_shuffled_copy_has_the_copys_numbers_in_another_order(teacher):
    shuffled_copy = definition(
        NOTEBOOK, "shuffled_copy", copied_from=definition(NOTEBOOK, "copied_from"), source=teacher
    )
    pairs = zip(
        shuffled_copy(network(8, 5), 0).parameters(), copied(network(8, 5), teacher).parameters(), strict=True
    )
    for shuffled, whole in pairs:
        assert torch.equal(shuffled.flatten().sort().values, whole.flatten().sort().values)
        assert whole.dim() < 4 or not torch.equal(shuffled, whole)


# Exercises


def over_groups(merge, weight, group, dim):
    """Neighboring channels along one dimension, merged by a function of a tensor and a dimension."""
    return torch.stack([merge(piece, dim) for piece in weight.split(group, dim=dim)], dim=dim)


def merged(outputs, inputs):
    def attempt(weight, group):
        if outputs:
            weight = over_groups(outputs, weight, group, 0)
        return over_groups(inputs, weight, group, 1) if inputs else weight

    return attempt


def merged_far_apart(weight, group):
    outputs = sum(weight.chunk(group, dim=0)) / group
    return sum(outputs.chunk(group, dim=1))


SLIPS = {
    "the inputs were averaged": merged(torch.mean, torch.mean),
    "the outputs were added up": merged(torch.sum, torch.sum),
    "only the outputs were merged": merged(torch.mean, None),
    "only the inputs were merged": merged(None, torch.sum),
    "channels were selected": lambda weight, group: weight[::group][:, ::group],
    "channels far apart": merged_far_apart,
}


@pytest.mark.parametrize("name", SLIPS)
def test_slip_in_merged_weight_is_named(capsys, name):
    said = verdict(capsys, exercises.merged_weight, SLIPS[name])
    assert said.startswith("✗ not yet") and name in said


def test_another_way_to_merge_passes(capsys):
    assert verdict(capsys, exercises.merged_weight, merged(torch.mean, torch.sum)) == "✓ passed"


def test_the_printed_solution_keeps_its_promise():
    """Equal inputs within each group: the merged convolution gives the mean of each group of outputs."""
    merged_weight = solution(NOTEBOOK, 2)["merged_weight"]
    weight, image = torch.randn(6, 4, 3, 3), torch.randn(2, 2, 5, 5)
    outputs = torch.nn.functional.conv2d(image.repeat_interleave(2, dim=1), weight)
    expected = outputs.view(2, 3, 2, 3, 3).mean(dim=2)
    torch.testing.assert_close(
        torch.nn.functional.conv2d(image, merged_weight(weight, 2)), expected, rtol=1e-4, atol=1e-4
    )


@pytest.mark.parametrize(
    ("attempt", "said"),
    [
        (14, "rounded up"),
        (32 * (50_000 / 278_890) ** 0.5, "a whole width"),
        (5, "fall with its square"),
        (6, "fall with its square"),
        (12, "left over"),
        (52, "mixed up"),
        (40, "too high"),
    ],
)
def test_slip_in_the_width_is_named(capsys, attempt, said):
    assert said in verdict(capsys, exercises.largest_width, attempt)


def test_the_widest_network_within_the_budget():
    counts = {width: evaluate.parameter_count(network(width, 5)) for width in (12, 13, 14)}
    assert counts[13] == 46_615 <= 50_000 < counts[14] == 53_980


@pytest.mark.parametrize(
    ("curves", "said"),
    [
        (
            {150: (70, 78), 600: (85, 86)},
            "✓ passed The copy's lead is +8.0 points at first and +1.0 at last: it fades",
        ),
        ({600: (75, 80), 150: (60, 66)}, "+6.0 points at first and +5.0 at last: it lasts"),
        ({150: (70, 78), 450: (85, 86)}, "at least four times another, got [150.0, 450.0]"),
        ({150: (0.7, 0.78), 600: (0.85, 0.86)}, "in percent"),
        ({150: (70, 78), 600: (85, 101)}, "in percent"),
        ({150: (-1, 78), 600: (85, 90)}, "in percent"),
        ({150: (70, 78), 600: (85, float("nan"))}, "in percent"),
        ({150: 78, 600: 86}, "expected a dict"),
        ({150: (70, 78, 79), 600: (85, 86)}, "expected a dict"),
        ({}, "expected a dict"),
        ("smaller", "expected a dict"),
    ],
)
def test_what_becomes_of_a_head_start_is_said(capsys, curves, said):
    assert said in verdict(capsys, exercises.head_start, curves)
