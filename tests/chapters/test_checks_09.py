"""The slips that the exercise checks of notebook 09 know are named."""

import pytest
import torch
from notebook_code import verdict

from kdutils.course.exercises import chapter09 as exercises


def ranks(values):
    return values.argsort().argsort().double()


def correlation(x, y):
    return torch.corrcoef(torch.stack([x.double(), y.double()]))[0, 1]


def by_differences(x, y, factor=6.0, denominator=lambda n: n * (n**2 - 1), power=2):
    difference = (ranks(x) - ranks(y)).abs() ** power
    return 1 - factor * difference.sum() / denominator(len(x))


def kendall(x, y):
    pairs = [(i, j) for i in range(len(x)) for j in range(i)]
    signs = [((x[i] - x[j]) * (y[i] - y[j])).sign() for i, j in pairs]
    return sum(signs) / len(pairs)


SLIPS = {
    "one argsort": lambda x, y: correlation(x.argsort(), y.argsort()),
    "the values were correlated": correlation,
    "only the first argument": lambda x, y: correlation(ranks(x), y),
    "only the second argument": lambda x, y: correlation(x, ranks(y)),
    "from the largest down": lambda x, y: by_differences(x, -y),
    "the factor 6 is missing": lambda x, y: by_differences(x, y, factor=1),
    "1 minus is missing": lambda x, y: 1 - by_differences(x, y),
    "the denominator is n³": lambda x, y: by_differences(x, y, denominator=lambda n: n**3),
    "not squared": lambda x, y: by_differences(x, y, power=1),
    "Kendall": kendall,
}


@pytest.mark.parametrize("name", SLIPS)
def test_slip_in_the_rank_correlation_is_named(capsys, name):
    said = verdict(capsys, exercises.rank_correlation, SLIPS[name])
    assert said.startswith("✗ not yet") and name in said


@pytest.mark.parametrize("attempt", [by_differences, lambda x, y: correlation(ranks(x), ranks(y)).item()])
def test_other_ways_to_the_rank_correlation_pass(capsys, attempt):
    assert verdict(capsys, exercises.rank_correlation, attempt) == "✓ passed"


@pytest.mark.parametrize(
    ("attempt", "said"),
    [
        (9, "depthwise part was left out"),
        (128, "pointwise part was left out"),
        (7.9, "swapped"),
        (1152, "multiplied"),
        (0.119, "the other way round"),
        (8.0, "too low"),
        (8.6, "too high"),
    ],
)
def test_slip_in_the_saving_is_named(capsys, attempt, said):
    answer = verdict(capsys, exercises.times_cheaper, attempt)
    assert answer.startswith("✗ not yet") and said in answer


def test_one_digit_after_the_point_is_enough(capsys):
    assert verdict(capsys, exercises.times_cheaper, 8.4) == "✓ passed"


@pytest.mark.parametrize("attempt", ["all of them", "the separable ones", "the inverted ones", "none", 3])
def test_wrong_choice_is_answered(capsys, attempt):
    assert verdict(capsys, exercises.millisecond_budget, attempt).startswith("✗ not yet")
