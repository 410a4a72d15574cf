"""Chapter 00: its exercises name the usual slips."""

import pytest
import torch
from notebook_code import solution, verdict
from notebook_files import ROOT
from torch import nn

from kdutils import evaluate
from kdutils.compare import paired_gain
from kdutils.course import models
from kdutils.course.exercises import chapter00 as exercises

NOTEBOOK = ROOT / "notebooks" / "00_why_distill.ipynb"

# Exercises

SLIPS = {
    "the parameters were counted": lambda i, o, k, size: i * o * k * k,
    "the output had one position a side": lambda i, o, k, size: size * i * o * k * k,
    "the kernel had k weights": lambda i, o, k, size: size * size * i * o * k,
    "a multiply-accumulate is one": lambda i, o, k, size: 2 * size * size * i * o * k * k,
    "it sees all": lambda i, o, k, size: size * size * o * k * k,
}


@pytest.mark.parametrize("said", SLIPS)
def test_slip_in_macs_is_named(capsys, said):
    heard = verdict(capsys, exercises.conv_macs, SLIPS[said])
    assert heard.startswith("✗ not yet") and said in heard


@pytest.mark.parametrize("attempt", [lambda i, o, k, size: 1, lambda i: i, 3])
def test_wrong_macs_are_answered(capsys, attempt):
    assert verdict(capsys, exercises.conv_macs, attempt).startswith("✗ not yet")


# What is wrong with an answer → what is said to it.
DOUBTS = {
    "A": "standard error",
    "B": "may still lie on one side of zero",
    "C": "one seed",
    "A and C": "one seed",
    "B and C": "one seed",
    "A, B and C": "one seed",
    "nonsense": "expected one of",
    4: "expected one of",
}


@pytest.mark.parametrize("attempt", DOUBTS)
def test_a_gain_that_may_be_luck_is_doubted(capsys, attempt):
    heard = verdict(capsys, exercises.believable, attempt)
    assert heard.startswith("✗ not yet") and DOUBTS[attempt] in heard


def test_the_interval_of_ten_seeds_reaches_a_little_over_two_standard_errors():
    gain = paired_gain([0.5, 1.5] * 5)
    assert 2 < (gain.high - gain.mean) / gain.standard_error < 2.5


HERE = [70.0, 71.0, 72.0]


def results(labels, distilled, verdict="helps"):
    return {"augmented labels": labels, "distilled": distilled, "verdict": verdict}


OUTCOMES = {
    "helps": [75.0, 76.5, 77.0],
    "could be luck": [69.0, 73.0, 72.5],
    "harms": [66.0, 66.5, 68.0],
}


@pytest.mark.parametrize("found", OUTCOMES)
@pytest.mark.parametrize("claimed", OUTCOMES)
def test_a_comparison_of_ones_own_passes_where_the_verdict_is_what_the_interval_says(capsys, found, claimed):
    heard = verdict(capsys, exercises.own_budget, results(HERE, OUTCOMES[found], claimed))
    if claimed == found:
        assert heard == "✓ passed"
    else:
        assert heard.startswith("✗ not yet: the 95% interval is [")


@pytest.mark.parametrize(
    ("attempt", "said"),
    [
        (3.0, "expected a dict"),
        ({"augmented labels": HERE, "distilled": HERE}, "expected a dict with"),
        (results(HERE, OUTCOMES["helps"], "better"), "expected one of"),
        (results(HERE, 75.0), "a list of numbers"),
        (results(HERE, ["high", "higher", "highest"]), "a list of numbers"),
        (results(HERE, [75.0, 76.0]), "3 and 2 seeds"),
        (results([70.0, 71.0], [75.0, 76.5]), "2 seeds"),
        (results(HERE, [75.0, 76.0, 770.0]), "between 0 and 100"),
        (results(HERE, [75.0, 76.0, float("nan")]), "between 0 and 100"),
        (results([0.7, 0.71, 0.72], [0.75, 0.76, 0.77]), "give percent"),
        (results(HERE, HERE), "equal to the last digit: has the second"),
        (results(HERE, [75.0, 75.0, 75.0]), "does the seed reach"),
    ],
)
def test_a_comparison_that_is_none_is_answered(capsys, attempt, said):
    heard = verdict(capsys, exercises.own_budget, attempt)
    assert heard.startswith("✗ not yet") and said in heard


def test_the_solutions_formula_counts_as_pytorch_does():
    conv_macs = solution(NOTEBOOK, 2)["conv_macs"]
    convolution = nn.Conv2d(3, 5, kernel_size=3, stride=2, padding=1, bias=False)
    assert conv_macs(3, 5, 3, 10) == evaluate.macs(convolution, torch.zeros(1, 3, 20, 20))
    whole = conv_macs(1, 8, 3, 14) + conv_macs(8, 16, 3, 7) + conv_macs(16, 32, 3, 7) + 32 * 10
    assert whole == evaluate.macs(models.small_cnn(), torch.zeros(1, 1, 28, 28))
