"""The slips that the exercise checks of notebook 08 know are named."""

import pytest
import torch
from notebook_code import verdict

from kdutils.course.exercises import chapter08 as exercises


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
