"""Chapter 00: its exercises name the usual slips."""

import pytest
import torch
from notebook_code import solution, verdict
from notebook_files import ROOT
from torch import nn

from kdutils import evaluate
from kdutils.course import models
from kdutils.course.exercises import chapter00 as exercises

NOTEBOOK = ROOT / "notebooks" / "00_why_distill.ipynb"

# Exercises

SLIPS = {
    "the parameters were counted": lambda i, o, k, size: i * o * k * k,
    "the output had one position a side": lambda i, o, k, size: size * i * o * k * k,
    "the window had k weights": lambda i, o, k, size: size * size * i * o * k,
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


@pytest.mark.parametrize("attempt", ["two times", "nearly eight times", "nonsense", 4])
def test_wrong_prediction_is_answered(capsys, attempt):
    assert verdict(capsys, exercises.twice_the_width, attempt).startswith("✗ not yet")


@pytest.mark.parametrize("attempt", ["fewer than twice as many", "more than four times as many", 1000])
def test_wrong_number_of_labels_is_answered(capsys, attempt):
    assert verdict(capsys, exercises.labels_matched, attempt).startswith("✗ not yet")


def test_the_solutions_formula_counts_as_pytorch_does():
    conv_macs = solution(NOTEBOOK, 2)["conv_macs"]
    convolution = nn.Conv2d(3, 5, kernel_size=3, stride=2, padding=1, bias=False)
    assert conv_macs(3, 5, 3, 10) == evaluate.macs(convolution, torch.zeros(1, 3, 20, 20))
    whole = conv_macs(1, 8, 3, 14) + conv_macs(8, 16, 3, 7) + conv_macs(16, 32, 3, 7) + 32 * 10
    assert whole == evaluate.macs(models.small_cnn(), torch.zeros(1, 1, 28, 28))


def test_twice_the_width_has_nearly_four_times_the_parameters():
    narrow, wide = (evaluate.parameter_count(models.small_cnn(width=width)) for width in (8, 16))
    assert 3.5 < wide / narrow < 4
