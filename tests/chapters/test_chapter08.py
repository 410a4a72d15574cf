"""Chapter 08: what the notebook writes out equals the library; its exercises name the usual slips."""

import copy

import pytest
import torch
from notebook_code import definition, solution, verdict
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


@pytest.mark.parametrize("signed", [True, False])
def test_a_learned_scale_as_the_library_has_it(signed):
    written_out = definition(NOTEBOOK, "with_a_learned_scale")
    start, low_high = torch.tensor(0.4), integer_range(3, signed)
    scale, values, others = start.clone().requires_grad_(), VALUES.clone(), VALUES.clone()
    result = written_out(values.requires_grad_(), scale, *low_high)
    result.backward(VALUES.cos())
    quantizer = FakeQuantize(start, 3, signed)
    quantizer.log_factor = nn.Parameter(torch.tensor(0.0))
    same = quantizer(others.requires_grad_())
    same.backward(VALUES.cos())
    torch.testing.assert_close(same, result)
    torch.testing.assert_close(others.grad, values.grad)
    # the library trains a tenth of the scale's logarithm
    torch.testing.assert_close(quantizer.log_factor.grad, 10 * start * scale.grad)


def test_re_estimating_measures_the_mean_and_variance_that_flow_through():
    re_estimated = definition(
        NOTEBOOK, "re_estimated", copy=copy, nn=nn, torch=torch, normalize=lambda images: images, device="cpu"
    )
    network = nn.Sequential(nn.BatchNorm2d(2)).eval()
    images = 3 + 2 * torch.randn(40, 2, 5, 5, generator=torch.Generator().manual_seed(1))
    measured = re_estimated(network, images, batch_size=20)
    torch.testing.assert_close(measured[0].running_mean, images.mean(dim=(0, 2, 3)))
    torch.testing.assert_close(measured[0].running_var, images.var(dim=(0, 2, 3)), rtol=0.05, atol=0)
    assert not measured.training and torch.equal(network[0].running_mean, torch.zeros(2))


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


def per_group(weight, size, highest, rounding=torch.round):
    """Group by group: the slow way."""
    pieces = []
    for piece in weight.split(size, dim=1):
        scale = piece.abs().amax(dim=1, keepdim=True) / highest
        pieces.append(rounding(piece / scale) * scale)
    return torch.cat(pieces, dim=1)


def scales(weight, size, bits):
    magnitudes = weight.abs().unflatten(1, (-1, size)).amax(dim=2)
    return magnitudes.repeat_interleave(size, dim=1) / (2 ** (bits - 1) - 1)


def far_apart(weight, size, bits):
    groups = weight.shape[1] // size
    order = torch.arange(weight.shape[1]).view(size, groups).T.flatten()
    return per_group(weight[:, order], size, 2 ** (bits - 1) - 1)[:, order.argsort()]


def of_the_largest_value(weight, size, bits):
    scale = weight.unflatten(1, (-1, size)).amax(dim=2).repeat_interleave(size, dim=1) / (2 ** (bits - 1) - 1)
    return torch.round(weight / scale) * scale


def of_the_layer(weight, size, bits):
    scale = weight.abs().max() / (2 ** (bits - 1) - 1)
    return torch.round(weight / scale) * scale


SLIPS = {
    "every output has one scale": lambda w, size, b: per_group(w, w.shape[1], 2 ** (b - 1) - 1),
    "the layer has one scale": of_the_layer,
    "not neighbors": far_apart,
    "along the outputs": lambda w, size, b: per_group(w.T, w.shape[0], 2 ** (b - 1) - 1).T,
    "one number too many": lambda w, size, b: per_group(w, size, 2 ** (b - 1)),
    "no bit of its own": lambda w, size, b: per_group(w, size, 2**b - 1),
    "the largest value was taken": of_the_largest_value,
    "the scale is missing": lambda w, size, b: torch.round(w / scales(w, size, b)),
    "rounded down": lambda w, size, b: per_group(w, size, 2 ** (b - 1) - 1, torch.floor),
}


def test_rounding_group_by_group_passes(capsys):
    said = verdict(
        capsys, exercises.rounded_in_groups, lambda w, size, b: per_group(w, size, 2 ** (b - 1) - 1)
    )
    assert said == "✓ passed"


@pytest.mark.parametrize("name", SLIPS)
def test_slip_in_rounding_in_groups_is_named(capsys, name):
    said = verdict(capsys, exercises.rounded_in_groups, SLIPS[name])
    assert said.startswith("✗ not yet") and name in said


def test_one_loud_weight_spoils_its_group_alone():
    """What the printed solution is for: the other groups are rounded as before."""
    rounded_in_groups = solution(NOTEBOOK, 2)["rounded_in_groups"]
    loud = VALUES.clone()
    loud[0, 0] = 100
    before, after = rounded_in_groups(VALUES, 8, 4), rounded_in_groups(loud, 8, 4)
    assert torch.equal(before[0, 8:], after[0, 8:]) and torch.equal(before[1:], after[1:])
    assert (after[0, 1:8] == 0).all() and (before[0, 1:8] != 0).any()


@pytest.mark.parametrize(
    ("attempt", "said"),
    [
        (36_864, "scales and biases were forgotten"),
        (37_376, "the scales were forgotten"),
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


@pytest.mark.parametrize("attempt", ["neither", "a scale per channel", "both", "nonsense", 3])
def test_wrong_choice_is_answered(capsys, attempt):
    assert verdict(capsys, exercises.one_loud_channel, attempt).startswith("✗ not yet")
