"""Distances of sample sets: closed forms, floors, and what must not change them."""

import math

import pytest
import torch

from kdutils.samples import frechet_distance, sliced_wasserstein


def cloud(seed, n=2_000, d=3):
    return torch.randn(n, d, generator=torch.Generator().manual_seed(seed))


@pytest.mark.slow
def test_a_shift_is_measured_in_its_own_units():
    """Along a unit vector u a shift s moves every point by u·s; (u·s)² is |s|²/D on average."""
    shift = torch.tensor([3.0, 0.0, 4.0])
    distance = sliced_wasserstein(cloud(0), cloud(0) + shift, num_directions=4_000)
    assert distance == pytest.approx(5 / math.sqrt(3), rel=0.05)


def test_order_does_not_matter_and_equal_clouds_are_at_zero():
    points = cloud(1)
    assert sliced_wasserstein(points, points.flip(0)) == 0
    assert frechet_distance(points, points.flip(0)) == pytest.approx(0, abs=1e-6)


def test_two_draws_of_one_distribution_are_at_a_floor_that_shrinks():
    few, many = (sliced_wasserstein(cloud(2, n), cloud(3, n)) for n in (100, 10_000))
    assert 0 < many < few / 5


def test_the_frechet_distance_of_two_gaussians_has_its_closed_form():
    """Independent coordinates: |Δmean|² + Σ (σ₁ − σ₂)²."""
    wide = cloud(4, 100_000) * torch.tensor([1.0, 2.0, 3.0]) + torch.tensor([1.0, 0.0, 0.0])
    assert frechet_distance(cloud(5, 100_000), wide) == pytest.approx(1 + 0 + 1 + 4, rel=0.03)
    assert frechet_distance(wide, cloud(5, 100_000)) == pytest.approx(6, rel=0.03)


def test_a_constant_feature_and_a_single_column_are_no_trouble():
    flat = torch.zeros(10, 2)
    assert frechet_distance(flat, flat + 1) == pytest.approx(2)
    assert frechet_distance(cloud(6, 50, 1), cloud(6, 50, 1) + 2) == pytest.approx(4, rel=1e-5)


@pytest.mark.parametrize("measure", [sliced_wasserstein, frechet_distance])
@pytest.mark.parametrize(
    "samples, other, naming",
    [
        (torch.zeros(0, 2), torch.zeros(3, 2), "samples"),
        (torch.zeros(3), torch.zeros(3, 2), "samples"),
        (torch.zeros(3, 2), torch.zeros(3, 2, dtype=torch.long), "other"),
        (torch.zeros(3, 2), torch.zeros(3, 4), "other: expected 2 columns"),
    ],
)
def test_bad_input_is_named(measure, samples, other, naming):
    with pytest.raises(ValueError, match=naming):
        measure(samples, other)


def test_the_sorted_points_need_partners():
    with pytest.raises(ValueError, match="other: expected the shape of samples"):
        sliced_wasserstein(torch.zeros(3, 2), torch.zeros(4, 2))
    with pytest.raises(ValueError, match="num_directions"):
        sliced_wasserstein(torch.zeros(3, 2), torch.zeros(3, 2), num_directions=0)
