"""Small networks that differ in their seed and are trained side by side, in the time of one or two."""

import math
from collections.abc import Iterable, Sequence

import torch
from torch import Tensor, nn


class MLPs(nn.Module):
    """S multilayer perceptrons with ReLU as one module, which answers for all of them at once.

    Where a loss is summed over the networks, one optimizer trains each of them as if it were alone.
    Weights are drawn from a normal distribution with variance 1 / inputs, biases start at zero.

    Args:
        sizes: Width of the input, of every hidden layer and of the output.
        seeds: For every layer, S seeds of its weights. A layer's weights depend on its place, its shape and
            its seed alone, so two networks can share some layers and not others.

    Raises:
        ValueError: Fewer than two sizes, another number of lists of seeds than of layers, or lists of
            different length.
    """

    def __init__(self, sizes: Sequence[int], seeds: Sequence[Sequence[int]]):
        super().__init__()
        if len(sizes) < 2 or len(seeds) != len(sizes) - 1 or len({len(layer) for layer in seeds}) != 1:
            raise ValueError(
                f"seeds: expected one list for each of {len(sizes) - 1} layers, all of one length, "
                f"got {[len(layer) for layer in seeds]}"
            )
        layers = list(zip(sizes, sizes[1:], seeds, strict=False))
        self.weights = nn.ParameterList(
            torch.stack([_weights(place, inputs, outputs, seed) for seed in layer_seeds])
            for place, (inputs, outputs, layer_seeds) in enumerate(layers)
        )
        self.biases = nn.ParameterList(
            torch.zeros(len(layer_seeds), 1, outputs) for _, outputs, layer_seeds in layers
        )

    def __len__(self) -> int:
        return len(self.biases[0])

    def forward(self, inputs: Tensor) -> Tensor:
        """Logits of every network, shape (S, N, K).

        Args:
            inputs: Shape (N, D) for all networks the same, or (S, N, D) for each its own.
        """
        hidden = inputs.expand(len(self), -1, -1)
        for weight, bias in zip(self.weights[:-1], self.biases[:-1], strict=True):
            hidden = torch.baddbmm(bias, hidden, weight).relu()
        return torch.baddbmm(self.biases[-1], hidden, self.weights[-1])


def _weights(place: int, inputs: int, outputs: int, seed: int) -> Tensor:
    generator = torch.Generator().manual_seed(1_000 * seed + place)
    return torch.randn(inputs, outputs, generator=generator) / math.sqrt(inputs)


class Row(nn.ModuleList):
    """S networks of any kind in a row, which answer for all of them at once, like `MLPs` but one by one."""

    def forward(self, inputs: Tensor) -> Tensor:
        """Logits of every network, shape (S, N, K).

        Args:
            inputs: Shape (N, D) for all networks the same, or (S, N, D) for each its own.
        """
        each: Iterable[Tensor] = inputs.expand(len(self), -1, -1)
        return torch.stack([network(batch) for network, batch in zip(self, each, strict=True)])
