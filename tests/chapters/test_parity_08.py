"""What notebook 08 writes out equals PyTorch's operation and kdutils.compress, value and gradient."""

import copy

import pytest
import torch
from faults import NOTEBOOKS
from notebook_code import definition
from torch import nn

from kdutils.compress import FakeQuantize, integer_range

NOTEBOOK = NOTEBOOKS / "08_quantized_student.ipynb"
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
