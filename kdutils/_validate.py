"""Sentences for bad input: each names the argument, what was expected and what came."""

import math
from numbers import Integral

import torch
from torch import Tensor


def require_floating(name: str, tensor: Tensor) -> None:
    """Raises ValueError unless the tensor's dtype is a floating-point one."""
    if not tensor.is_floating_point():
        raise ValueError(f"{name}: expected a floating-point dtype, got {tensor.dtype}")


def require_matrix(name: str, tensor: Tensor, min_rows: int = 1, min_columns: int = 1) -> None:
    """Raises ValueError unless the tensor is floating and (rows, columns), with at least the given sizes."""
    require_floating(name, tensor)
    if tensor.dim() != 2 or tensor.shape[0] < min_rows or tensor.shape[1] < min_columns:
        raise ValueError(
            f"{name}: expected shape (N, K) with N >= {min_rows} and K >= {min_columns}, "
            f"got {tuple(tensor.shape)}"
        )


def require_same_shape(name: str, tensor: Tensor, other_name: str, other: Tensor) -> None:
    """Raises ValueError unless both tensors are floating, of the same shape, with at least one element."""
    require_floating(name, tensor)
    require_floating(other_name, other)
    if tensor.shape != other.shape:
        raise ValueError(
            f"{other_name}: expected the shape of {name}, {tuple(tensor.shape)}, got {tuple(other.shape)}"
        )
    if tensor.numel() == 0:
        raise ValueError(f"{name}: expected at least one element, got shape {tuple(tensor.shape)}")


def require_same_batch(
    name: str, tensor: Tensor, other_name: str, other: Tensor, min_samples: int = 1
) -> None:
    """Raises ValueError unless both are floating, (N, ...), with the same N and at least one element."""
    for argument, value in ((name, tensor), (other_name, other)):
        require_floating(argument, value)
        if value.dim() < 2 or value.shape[0] < min_samples or value.numel() == 0:
            raise ValueError(
                f"{argument}: expected shape (N, ...) with N >= {min_samples}, got {tuple(value.shape)}"
            )
    if tensor.shape[0] != other.shape[0]:
        raise ValueError(
            f"{other_name}: expected N = {tensor.shape[0]} samples as in {name}, got {tuple(other.shape)}"
        )


def require_shape(name: str, tensor: Tensor, symbols: str) -> None:
    """Raises ValueError unless the tensor is floating, with one dimension per symbol and none of size 0."""
    require_floating(name, tensor)
    if tensor.dim() != len(symbols.split(",")) or tensor.numel() == 0:
        raise ValueError(f"{name}: expected shape {symbols}, none of them 0, got {tuple(tensor.shape)}")


def require_finite(name: str, tensor: Tensor) -> None:
    """Raises ValueError unless all of the tensor's numbers are finite."""
    if not tensor.isfinite().all():
        raise ValueError(
            f"{name}: expected finite numbers, got {int((~tensor.isfinite()).sum())} that are not"
        )


def require_positive(name: str, value: float) -> None:
    """Raises ValueError unless value > 0 and finite."""
    if not 0 < value < math.inf:
        raise ValueError(f"{name}: expected a finite number > 0, got {value}")


def require_count(name: str, value: int) -> None:
    """Raises ValueError unless value is a whole number >= 1."""
    if not isinstance(value, Integral) or value < 1:
        raise ValueError(f"{name}: expected a whole number >= 1, got {value!r}")


def require_labels(labels: Tensor, num_samples: int, num_classes: int) -> None:
    """Raises ValueError unless labels has shape (N,), an integer dtype, and values in [0, K)."""
    if labels.shape != (num_samples,):
        raise ValueError(f"labels: expected shape ({num_samples},), got {tuple(labels.shape)}")
    if labels.is_floating_point() or labels.is_complex() or labels.dtype == torch.bool:
        raise ValueError(f"labels: expected class indices of an integer dtype, got {labels.dtype}")
    if labels.numel() and not 0 <= int(labels.min()) <= int(labels.max()) < num_classes:
        raise ValueError(
            f"labels: expected class indices from 0 to {num_classes - 1}, "
            f"got values from {int(labels.min())} to {int(labels.max())}"
        )
