"""Helpers for learning and doing knowledge distillation. Import the modules you need by name."""

import random

import torch

__version__ = "0.1.0"


def set_seed(seed: int) -> None:
    """Seeds Python's and PyTorch's random numbers, on every device."""
    random.seed(seed)
    torch.manual_seed(seed)


def best_device() -> torch.device:
    """CUDA where there is one, else Apple's MPS, else the CPU."""
    if torch.cuda.is_available():
        return torch.device("cuda")
    if torch.backends.mps.is_available():
        return torch.device("mps")
    return torch.device("cpu")
