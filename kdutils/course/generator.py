"""Chapter 16's generator of clothes: an autoencoder of Fashion-MNIST, and a flow among its codes."""

import json
import math
from itertools import pairwise

import torch
from torch import Tensor, nn

from kdutils.course.data import DataFileError, data_dir, verified_bytes

CODE_SIZE = 32


class Flow(nn.Module):
    """A velocity field: which way a point moves at a time between 0 (noise) and 1 (data).

    Args:
        size: Coordinates D of a point.
        width: Units of each of the three hidden layers.
        seed: The same seed gives the same initial weights, whatever was drawn before.
    """

    def __init__(self, size: int, width: int = 96, seed: int = 0):
        super().__init__()
        with torch.random.fork_rng(devices=[]):
            torch.default_generator.manual_seed(seed)
            self.layers = _perceptron(size + 3, width, width, width, size)

    def forward(self, points: Tensor, time: Tensor | float) -> Tensor:
        """Velocities (N, D) of points (N, D) at a time: one number for all, or (N, 1)."""
        time = torch.as_tensor(time, dtype=points.dtype, device=points.device).expand(len(points), 1)
        angle = math.pi * time
        return self.layers(torch.cat([points, time, angle.sin(), angle.cos()], dim=1))


class Autoencoder(nn.Module):
    """Images (N, 1, 28, 28) with pixels from 0 to 1, to codes (N, 32) and back.

    Codes are standardized: over the training images every coordinate has mean 0 and standard deviation 1.
    """

    code_mean: Tensor
    code_std: Tensor

    def __init__(self, seed: int = 0):
        super().__init__()
        with torch.random.fork_rng(devices=[]):
            torch.default_generator.manual_seed(seed)
            self.encoder = _perceptron(28 * 28, 768, 384, CODE_SIZE)
            self.decoder = _perceptron(CODE_SIZE, 384, 768, 28 * 28)
        self.register_buffer("code_mean", torch.zeros(CODE_SIZE))
        self.register_buffer("code_std", torch.ones(CODE_SIZE))

    def encode(self, images: Tensor) -> Tensor:
        """Codes (N, 32) of images (N, 1, 28, 28) with pixels from 0 to 1."""
        return (self.encoder(images.flatten(1)) - self.code_mean) / self.code_std

    def decode(self, codes: Tensor) -> Tensor:
        """Images (N, 1, 28, 28), pixels from 0 to 1, of codes (N, 32)."""
        pixels = self.decoder(codes * self.code_std + self.code_mean).sigmoid()
        return pixels.unflatten(1, (1, 28, 28))

    def forward(self, images: Tensor) -> Tensor:
        return self.decode(self.encode(images))


def clothes_flow(seed: int = 0) -> Flow:
    """The flow among the autoencoder's codes, untrained."""
    return Flow(CODE_SIZE, width=512, seed=seed)


def load_autoencoder() -> Autoencoder:
    """The trained autoencoder that ships with the course, in eval mode, its parameters frozen.

    How it was trained and what it reaches stands in `data/generator/card.json`.

    Raises:
        DataFileError: A file that is missing, truncated or altered.
    """
    return _with_shipped_weights(Autoencoder(), "autoencoder")


def load_clothes_flow() -> Flow:
    """The trained flow among the autoencoder's codes, chapter 16's teacher, in eval mode and frozen.

    Raises:
        DataFileError: A file that is missing, truncated or altered.
    """
    return _with_shipped_weights(clothes_flow(), "flow")


def _perceptron(*widths: int) -> nn.Sequential:
    """Linear layers with SiLU between them."""
    layers: list[nn.Module] = []
    for narrow, wide in pairwise(widths):
        layers += [nn.Linear(narrow, wide), nn.SiLU()]
    return nn.Sequential(*layers[:-1])


def _with_shipped_weights(model: nn.Module, name: str):
    from safetensors.torch import load

    folder = data_dir() / "generator"
    card = folder / "card.json"
    try:
        sha256 = json.loads(card.read_text())[name]["sha256"]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise DataFileError(card, f"a card with the SHA-256 of the {name}", repr(error)) from error
    weights = load(verified_bytes(folder / f"{name}.safetensors", sha256))
    model.load_state_dict({key: value.float() for key, value in weights.items()})  # stored in half precision
    return model.eval().requires_grad_(False)
