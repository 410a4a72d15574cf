"""How far apart two sets of samples are: what a generator draws against what it should draw."""

import torch
from torch import Tensor

from kdutils._validate import require_count, require_matrix


def sliced_wasserstein(samples: Tensor, other: Tensor, num_directions: int = 200, seed: int = 0) -> float:
    """Sliced Wasserstein-2 distance of two point clouds, in the units of their coordinates.

    Along each of many random directions both clouds become one-dimensional. There the best transport pairs
    the sorted points; the squared distances are averaged over points and directions, and the root is taken.
    Two clouds drawn from one distribution are not at zero but at a floor that shrinks with N: measure it.

    Args:
        samples: Shape (N, D).
        other: Shape (N, D), as many points.
        num_directions: Random unit vectors.
        seed: Of the directions; the same seed compares every pair of clouds along the same ones.

    Returns:
        The distance, >= 0.

    Raises:
        ValueError: Shapes that differ or are not (N, D), or a count that is no whole number >= 1.

    Source: Rabin, Peyré, Delon and Bernot 2011, "Wasserstein Barycenter and Its Application to Texture
    Mixing". Used in notebook 16.
    """
    _require_clouds(samples, other, min_points=1)
    if samples.shape != other.shape:
        raise ValueError(
            f"other: expected the shape of samples, {tuple(samples.shape)}, got {tuple(other.shape)}"
        )
    require_count("num_directions", num_directions)
    generator = torch.Generator().manual_seed(seed)
    directions = torch.randn(samples.shape[1], num_directions, generator=generator, dtype=torch.float64)
    directions /= directions.norm(dim=0)
    sorted_samples, sorted_other = (
        (cloud.cpu().double() @ directions).sort(dim=0).values for cloud in (samples, other)
    )
    return (sorted_samples - sorted_other).square().mean().sqrt().item()


def frechet_distance(features: Tensor, other: Tensor) -> float:
    """Fréchet distance of two Gaussians fitted to two sets of features, in squared units of the features.

        |mean₁ − mean₂|² + trace(C₁ + C₂ − 2·(C₁C₂)^½)

    With the features of an Inception network this is the FID of the papers; with another network's features
    only numbers of that same network compare. It is biased upwards for few samples: measure the floor between
    two sets of real samples of the same size.

    Args:
        features: Shape (N, D), N >= 2.
        other: Shape (M, D), M >= 2.

    Returns:
        The distance, >= 0.

    Raises:
        ValueError: Shapes that are not (N, D) and (M, D), or fewer than two samples.

    Source: Heusel et al. 2017, arXiv:1706.08500, eq. 6 (Dowson and Landau 1982 for the formula).
    """
    _require_clouds(features, other, min_points=2)
    means, covariances = [], []
    for rows in (features.cpu().double(), other.cpu().double()):
        means.append(rows.mean(dim=0))
        covariances.append(torch.cov(rows.T).reshape(rows.shape[1], rows.shape[1]))
    # the eigenvalues of a product of two covariances are real and >= 0, but for rounding
    root_trace = torch.linalg.eigvals(covariances[0] @ covariances[1]).real.clamp(min=0).sqrt().sum()
    distance = (means[0] - means[1]).square().sum() + covariances[0].trace() + covariances[1].trace()
    return max(0.0, (distance - 2 * root_trace).item())


def _require_clouds(samples: Tensor, other: Tensor, min_points: int) -> None:
    require_matrix("samples", samples, min_rows=min_points)
    require_matrix("other", other, min_rows=min_points)
    if samples.shape[1] != other.shape[1]:
        raise ValueError(f"other: expected {samples.shape[1]} columns, got shape {tuple(other.shape)}")
