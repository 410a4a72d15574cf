"""Arithmetic that the losses share: precision, temperature, unit vectors, inner products, divergences."""

import math

import torch
import torch.nn.functional as F
from torch import Tensor

SHORTEST = 1e-12  # up to this length, a vector counts as zero
HOT = 100.0  # above this temperature, float32 has too few digits for a divergence


def at_least_float32(tensor: Tensor) -> Tensor:
    """Widens float16 and bfloat16 to float32; returns float32 and float64 as they are.

    Small differences of probabilities, which losses are made of, vanish in 8 or 11 significant bits.
    """
    return tensor.float() if tensor.element_size() < 4 else tensor


def kept_rows(tensor: Tensor, kept: Tensor | None, class_dim: int = -1) -> Tensor:
    """Brings the classes last and the positions into one row each.

    Args:
        tensor: Shape (..., K), or with the classes at `class_dim`.
        kept: Which positions count, booleans of the shape without the classes; None for all.
        class_dim: The dimension of the classes.

    Returns:
        Shape (M, K) for M kept positions, in at least float32.
    """
    if class_dim != -1:
        tensor = tensor.movedim(class_dim, -1)
    return at_least_float32(tensor.flatten(0, -2) if kept is None else tensor[kept])


def softened(logits: Tensor, temperature: float | Tensor) -> Tensor:
    """Divides logits by the temperature, in float64 where it is so high that float32 would not do.

    A learned temperature is not looked at, since that would make its device wait.
    """
    if not isinstance(temperature, Tensor) and temperature > HOT:
        logits = logits.double()
    return logits if isinstance(temperature, float) and temperature == 1.0 else logits / temperature


def log_probabilities(logits: Tensor, temperature: float | Tensor = 1.0) -> Tensor:
    """Logarithms of softmax(logits / temperature) over the last dimension."""
    return F.log_softmax(softened(logits, temperature), dim=-1)


def kl_divergence(log_p: Tensor, log_q: Tensor) -> Tensor:
    """KL(p ‖ q) in nats, summed over the last dimension and all others.

    Logarithms on both sides: the logarithm of a softmax that underflowed to 0 would give NaN. Where p is
    exactly 0 (a logit of −inf), p · log p counts as 0, as in the definition.

    Args:
        log_p: Logarithms of probabilities, shape (..., K).
        log_q: The same of the other distribution.

    Returns:
        A 0-dim tensor. Gradients flow to both sides.
    """
    log_ratio = (log_p - log_q).masked_fill_(log_p == -math.inf, 0.0)
    return (log_p.exp() * log_ratio).sum()


def cross_entropy(p: Tensor, log_q: Tensor) -> Tensor:
    """−Σ p · log q in nats, summed over all dimensions; a class with p = 0 counts as 0, whatever its q."""
    return -(p * log_q.masked_fill(p == 0, 0.0)).sum()


def unit_vectors(vectors: Tensor, dim: int = -1, eps: float = 0.0, shortest: float = SHORTEST) -> Tensor:
    """Divides the vectors along `dim` by their length plus eps; up to the length `shortest` they stay.

    Dividing a zero vector by a tiny constant would keep it finite too, and multiply its gradient by 10¹²:
    here it is divided by 1.
    """
    length = torch.linalg.vector_norm(vectors, dim=dim, keepdim=True)
    # beyond the dtype's range the length is infinite: NaN is seen, a vector of zeros would not be
    addend = torch.full_like(length, eps).masked_fill(length.isinf(), math.nan)
    return vectors / torch.where(length > shortest, length + addend, 1.0)


def inner_products(rows: Tensor, other_rows: Tensor) -> Tensor:
    """Inner products of all rows of one, (..., I, D), with all rows of the other, (..., J, D): (..., I, J).

    Never in half precision: autocast would round the products, of which a loss then takes small differences.
    """
    with torch.autocast(rows.device.type, enabled=False):
        return torch.einsum("...id,...jd->...ij", rows, other_rows.to(rows.dtype))
