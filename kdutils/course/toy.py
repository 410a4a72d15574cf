"""Points in the plane, and many small networks that learn them side by side."""

import math
from typing import NamedTuple

import torch
from torch import Tensor, nn

NUM_BLOBS = 3
EXTENT = 3.5  # what figures show of the plane: from −EXTENT to +EXTENT, both ways


class Points(NamedTuple):
    """Points (N, 2) and the blob that each belongs to, (N,)."""

    places: Tensor
    classes: Tensor


def blobs(size: int, seed: int, spread: float = 0.8) -> Points:
    """Points around three centers that form a triangle; the blobs overlap.

    Args:
        size: Number of points N; the classes take turns.
        seed: Of the draw.
        spread: Standard deviation around the centers, which lie 1.5 from the origin.
    """
    classes = torch.arange(size) % NUM_BLOBS
    angles = 2 * math.pi * (0.25 + classes / NUM_BLOBS)
    centers = 1.5 * torch.stack([angles.cos(), angles.sin()], dim=1)
    scatter = torch.randn(size, 2, generator=torch.Generator().manual_seed(seed))
    return Points(centers + spread * scatter, classes)


def noisy_labels(classes: Tensor, draws: int, share: float, seed: int) -> Tensor:
    """Labels (draws, N) written down by somebody who guesses in a share of the cases, drawn several times.

    Args:
        classes: Shape (N,), the true ones.
        draws: How often all labels are drawn.
        share: Of labels that are guessed, and so right in one case of three.
        seed: Of the draw.
    """
    generator = torch.Generator().manual_seed(seed)
    shape = (draws, len(classes))
    guess = torch.randint(NUM_BLOBS, shape, generator=generator)
    return torch.where(torch.rand(shape, generator=generator) < share, guess, classes)


class SmallNetworks(nn.Module):
    """Many networks 2–32–32–3 with ReLU, each with its own initial weights, computed in one go.

    Places of shape (N, 2), which all networks see, or (count, N, 2) → logits (count, N, 3).

    Args:
        count: Number of networks.
        seed: Of the initial weights. The first network is the same for every count.
        hidden: Width of both hidden layers.
    """

    def __init__(self, count: int, seed: int, hidden: int = 32):
        super().__init__()
        generators = [torch.Generator().manual_seed(1000 * seed + network) for network in range(count)]
        sizes = [(2, hidden), (hidden, hidden), (hidden, NUM_BLOBS)]
        self.weights = nn.ParameterList(
            torch.stack([torch.randn(size, generator=g) for g in generators]) * math.sqrt(2 / size[0])
            for size in sizes
        )
        self.biases = nn.ParameterList(torch.zeros(count, 1, outputs) for _, outputs in sizes)

    def forward(self, places: Tensor) -> Tensor:
        first, second, last = zip(self.weights, self.biases, strict=True)
        hidden = (places @ first[0] + first[1]).relu()
        hidden = (hidden @ second[0] + second[1]).relu()
        return hidden @ last[0] + last[1]


def grid(steps: int = 120) -> Tensor:
    """Places (steps · steps, 2) that cover what figures show, row by row from below."""
    line = torch.linspace(-EXTENT, EXTENT, steps)
    y, x = torch.meshgrid(line, line, indexing="ij")
    return torch.stack([x.flatten(), y.flatten()], dim=1)


def disagreement(decisions: Tensor) -> float:
    """Share of places, in percent, on which two of the networks decide differently; the mean over all pairs.

    Args:
        decisions: Shape (count, N), the class that each network gives each place.
    """
    differs = decisions[:, None] != decisions[None]
    count = len(decisions)
    return 100 * differs.double().mean().item() * count / (count - 1)
