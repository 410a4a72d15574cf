"""Unit vectors and inner products that zero vectors and half precision do not spoil."""

import torch
from torch import Tensor

SHORTEST = 1e-12  # up to this length, a vector counts as zero


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
