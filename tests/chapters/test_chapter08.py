"""Chapter 08: what the notebook writes out equals the library; its exercises name the usual slips."""

import copy

import pytest
import torch
from notebook_code import definition, verdict
from notebook_files import ROOT
from torch import nn

from kdutils.compress import FakeQuantize, integer_range
from kdutils.course.exercises import chapter08 as exercises

NOTEBOOK = ROOT / "notebooks" / "08_quantized_student.ipynb"

# What the notebook writes out equals the library

VALUES = torch.randn(6, 40, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize("signed", [True, False])
@pytest.mark.parametrize("bits", [2, 3, 4, 8])
def test_fake_quantization(bits, signed):
    written_out = definition(NOTEBOOK, "fake_quantize_written_out")
    step = 0.3 / 2 ** (bits - 2)  # a power of two apart: no value falls on the two sides of a tie
    results = []
    for function in (
        lambda x: written_out(x, step, 0, *integer_range(bits, signed)),
        FakeQuantize(torch.tensor(step), bits, signed),
        FakeQuantize(torch.full((len(VALUES),), step), bits, signed),
    ):
        leaf = VALUES.clone().requires_grad_()
        value = function(leaf)
        results.append((value.detach(), torch.autograd.grad(value, leaf, VALUES.cos())[0]))
    for other in results[1:]:
        torch.testing.assert_close(other, results[0], rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("zero_point", [-2, 0, 3])
def test_a_zero_point_as_pytorch_has_it(zero_point):
    written_out = definition(NOTEBOOK, "fake_quantize_written_out")
    expected = torch.fake_quantize_per_tensor_affine(VALUES, 0.3, zero_point, -4, 7)
    torch.testing.assert_close(written_out(VALUES, 0.3, zero_point, -4, 7), expected, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("zero_point", [0, 2])
def test_quantize_and_dequantize_undo_each_other_on_the_grid(zero_point):
    quantize, dequantize = (definition(NOTEBOOK, name) for name in ("quantize", "dequantize"))
    integers = torch.arange(8.0)
    numbers = dequantize(integers, 0.4, zero_point)
    assert torch.equal(quantize(numbers, 0.4, zero_point, 0, 7), integers)
    assert dequantize(torch.tensor(float(zero_point)), 0.4, zero_point) == 0  # zero is on the grid


@pytest.mark.parametrize("per_channel", [True, False])
def test_rounding_a_network_errs_by_half_a_step_at_most(per_channel):
    layers = definition(NOTEBOOK, "layers")
    rounded = definition(NOTEBOOK, "rounded", layers=layers, copy=copy)
    network = nn.Sequential(nn.Linear(5, 3))
    with torch.no_grad():
        network[0].weight[0] *= 100
    magnitudes = network[0].weight.abs()
    difference = (rounded(network, 8, per_channel)[0].weight - network[0].weight).abs()
    largest = magnitudes.amax(dim=1, keepdim=True) if per_channel else magnitudes.max()
    assert (difference <= largest / 127 / 2 * 1.001).all() and difference.max() > 0


# Exercises


def test_pytorchs_own_operation_passes(capsys):
    def attempt(values, step, bits):
        return torch.fake_quantize_per_tensor_affine(values.float(), step, 0, 0, 2**bits - 1)

    assert verdict(capsys, exercises.straight_through, attempt) == "✓ passed"


def own_gradient(x, numbers, inside=1):
    passing = x * inside
    return passing + (numbers - passing).detach()


def grid(x, s, low, high, rounding=torch.round):
    integers = rounding(x / s)
    inside = (integers >= low) & (integers <= high)
    return own_gradient(x, integers.clamp(low, high) * s, inside)


def clamped_last(x, s, b):
    u = x / s
    return (u + (torch.round(u) - u).detach()).clamp(0, 2**b - 1) * s


SLIPS = {
    "no gradient arrives": lambda x, s, b: torch.round(x / s).clamp(0, 2**b - 1) * s,
    "clipped values get a gradient": lambda x, s, b: own_gradient(
        x, torch.round(x / s).clamp(0, 2**b - 1) * s
    ),
    "nothing is clipped": lambda x, s, b: own_gradient(x, torch.round(x / s) * s),
    "the signed one": lambda x, s, b: grid(x, s, -(2 ** (b - 1)) + 1, 2 ** (b - 1) - 1),
    "one number too many": lambda x, s, b: grid(x, s, 0, 2**b),
    "only the upper end": lambda x, s, b: grid(x, s, -1000, 2**b - 1),
    "the step is missing": lambda x, s, b: grid(x, s, 0, 2**b - 1) / s,
    "nothing is rounded": lambda x, s, b: x.clamp(0, (2**b - 1) * s),
    "rounded down": lambda x, s, b: grid(x, s, 0, 2**b - 1, torch.floor),
}


def test_clamps_own_gradient_at_the_ends_is_named_where_it_is_zero(capsys):
    """Where PyTorch's clamp has the gradient 1 at its bound, this way is right."""
    end = torch.ones(1, requires_grad=True)
    end.clamp(0, 1).sum().backward()
    said = verdict(capsys, exercises.straight_through, clamped_last)
    assert ("the ends of the grid" in said) if end.grad == 0 else (said == "✓ passed")


@pytest.mark.parametrize("name", SLIPS)
def test_slip_in_straight_through_is_named(capsys, name):
    said = verdict(capsys, exercises.straight_through, SLIPS[name])
    assert said.startswith("✗ not yet") and name in said


@pytest.mark.parametrize(
    ("attempt", "said"),
    [
        (36_864, "steps and biases were forgotten"),
        (37_376, "the steps were forgotten"),
        (37_380, "whole layer"),
        (74_752, "a whole byte"),
        (295_936, "four bytes"),
        (37_120, "one byte each"),
        (37_632, "every input channel"),
        (5_120, "nine places"),
        (10, "too low"),
    ],
)
def test_slip_in_the_bytes_is_named(capsys, attempt, said):
    assert said in verdict(capsys, exercises.layer_bytes, attempt)


@pytest.mark.parametrize("attempt", ["neither", "a step per channel", "both", "nonsense", 3])
def test_wrong_choice_is_answered(capsys, attempt):
    assert verdict(capsys, exercises.one_loud_channel, attempt).startswith("✗ not yet")
