"""Arithmetic that the losses share: precision, unit vectors, inner products, the divergence."""

import torch
import torch.nn.functional as F
from torch import Tensor

SHORTEST = 1e-12  # up to this length, a vector counts as zero


def at_least_float32(tensor: Tensor) -> Tensor:
    """float16 and bfloat16 widened to float32; float32 and float64 as they are.

    Small differences of probabilities, which losses are made of, vanish in 8 or 11 significant bits.
    """
    return tensor.float() if tensor.element_size() < 4 else tensor


def unit_vectors(vectors: Tensor, dim: int = -1, eps: float = 0.0) -> Tensor:
    """The vectors along `dim`, divided by their length plus eps; a zero vector stays zero.

    Dividing a zero vector by a tiny constant would keep it finite too, and multiply its gradient by 10¹²:
    here it is divided by 1.
    """
    length = torch.linalg.vector_norm(vectors, dim=dim, keepdim=True)
    return vectors / torch.where(length > SHORTEST, length + eps, 1.0)


def inner_products(rows: Tensor, other_rows: Tensor) -> Tensor:
    """Inner products of all rows of one, (..., I, D), with all rows of the other, (..., J, D): (..., I, J).

    Never in half precision: autocast would round the products, of which a loss then takes small differences.
    """
    with torch.autocast(rows.device.type, enabled=False):
        return torch.einsum("...id,...jd->...ij", rows, other_rows.to(rows.dtype))


def kl_divergence(student_logits: Tensor, teacher_logits: Tensor) -> Tensor:
    """KL(softmax(teacher) ‖ softmax(student)), summed over K, averaged over N, in nats; logits (N, K)."""
    # logarithms on both sides: the logarithm of a softmax that underflowed to 0 would give NaN
    return F.kl_div(
        F.log_softmax(student_logits, dim=1),
        F.log_softmax(teacher_logits, dim=1),
        log_target=True,
        reduction="batchmean",
    )
