"""Sentences for bad input: each names the argument, what was expected and what came.

Types, shapes and settings are checked on every device. Values (labels, masks) are checked on the CPU only:
to read them elsewhere, the program would have to wait for the device in every step.
"""

import math
from collections.abc import Callable
from numbers import Integral, Real
from typing import Any

import torch
from torch import Tensor

from kdutils._numerics import at_least_float32, kept_rows

FLOATING = (torch.float16, torch.bfloat16, torch.float32, torch.float64)
INTEGER = (
    torch.uint8, torch.uint16, torch.uint32, torch.int8, torch.int16, torch.int32, torch.int64
)  # fmt: skip
TEMPERATURES = (1e-6, 1e6)  # beyond them, float64 itself has too few digits
MOST_SHOWN = 5  # values of a mask


def description(value: Any) -> str:
    """What came, in a few words: a number itself, a text shortened, of all else the type."""
    if value is None or isinstance(value, (bool, Real)):
        return str(value)[:40]
    if isinstance(value, Tensor):
        return f"a tensor of shape {tuple(value.shape)} and {value.dtype}"
    if isinstance(value, str):
        return repr(value if len(value) <= 20 else value[:20] + "…")
    kind = type(value).__name__
    return f"{'an' if kind[0] in 'aeiou' else 'a'} {kind}"


# Tensors


def require_tensor(name: str, tensor: Any) -> None:
    """Raises ValueError unless it is a dense tensor."""
    if not isinstance(tensor, Tensor):
        raise ValueError(f"{name}: expected a tensor, got {description(tensor)}")
    if tensor.layout != torch.strided:
        raise ValueError(f"{name}: expected a dense tensor, got one of layout {tensor.layout}")


def require_floating(name: str, tensor: Any) -> None:
    """Raises ValueError unless it is a tensor of 16, 32 or 64 floating-point bits."""
    require_tensor(name, tensor)
    if tensor.dtype not in FLOATING:
        width = " of 16, 32 or 64 bits" if tensor.is_floating_point() else ""
        raise ValueError(f"{name}: expected a floating-point dtype{width}, got {tensor.dtype}")


def require_matrix(name: str, tensor: Any, min_rows: int = 1, min_columns: int = 1) -> None:
    """Raises ValueError unless the tensor is floating and (rows, columns), with at least the given sizes."""
    require_floating(name, tensor)
    if tensor.dim() != 2 or tensor.shape[0] < min_rows or tensor.shape[1] < min_columns:
        raise ValueError(
            f"{name}: expected shape (N, K) with N >= {min_rows} and K >= {min_columns}, "
            f"got {tuple(tensor.shape)}"
        )


def require_same_shape(name: str, tensor: Any, other_name: str, other: Any) -> None:
    """Raises ValueError unless both tensors are floating, of the same shape, with at least one element."""
    require_floating(name, tensor)
    require_floating(other_name, other)
    if tensor.shape != other.shape:
        raise ValueError(
            f"{other_name}: expected the shape of {name}, {tuple(tensor.shape)}, got {tuple(other.shape)}"
        )
    if tensor.numel() == 0:
        raise ValueError(f"{name}: expected at least one element, got shape {tuple(tensor.shape)}")


def require_same_batch(name: str, tensor: Any, other_name: str, other: Any, min_samples: int = 1) -> None:
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


def require_shape(name: str, tensor: Any, symbols: str) -> None:
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


def require_no_minus_infinity(name: str, tensor: Tensor, advice: str) -> None:
    """Raises ValueError for a −inf, which stands for what is masked, where a loss has no use for it."""
    if tensor.device.type == "cpu" and (tensor == -math.inf).any():
        raise ValueError(
            f"{name}: expected numbers without −inf, got {(tensor == -math.inf).sum()}: {advice}"
        )


# Logits, positions and labels


def require_logits(
    name: str,
    student: Any,
    other_name: str,
    other: Any,
    class_dim: int | None = None,
    min_classes: int = 2,
) -> int:
    """Raises ValueError unless both are floating and of one shape, (..., K) or with K elsewhere.

    Returns:
        The dimension of the classes: `class_dim`, or the last one of two or three dimensions.
    """
    class_dim = require_class_dim(name, student, class_dim, min_classes)
    require_floating(other_name, other)
    if student.shape != other.shape:
        raise ValueError(
            f"{other_name}: expected the shape of {name}, {tuple(student.shape)}, got {tuple(other.shape)}"
            + vocabulary_advice(student, other)
        )
    return class_dim


def require_class_dim(name: str, logits: Any, class_dim: int | None, min_classes: int = 2) -> int:
    """Raises ValueError unless the logits have a dimension of classes, large enough, and a position."""
    require_floating(name, logits)
    shape = tuple(logits.shape)
    if class_dim is None:
        if len(shape) > 3:
            raise ValueError(
                f"{name}: expected class_dim with {len(shape)} dimensions, 1 for (N, K, H, W), "
                f"{len(shape) - 1} for (..., K), got {shape} and class_dim=None"
            )
        class_dim = -1
    elif isinstance(class_dim, bool) or not isinstance(class_dim, Integral):
        raise ValueError(f"class_dim: expected a whole number, got {description(class_dim)}")
    if len(shape) < 2 or not -len(shape) <= class_dim < len(shape):
        wrong = name if len(shape) < 2 else "class_dim"
        raise ValueError(
            f"{wrong}: expected logits of shape (..., K), or class_dim among their dimensions, "
            f"got {shape} and class_dim={class_dim}"
        )
    if shape[class_dim] < min_classes or 0 in shape:
        raise ValueError(
            f"{name}: expected shape (..., K) with K >= {min_classes} and at least one position, got {shape}"
        )
    return class_dim


def vocabulary_advice(student: Tensor, other: Tensor) -> str:
    """What to do about logits of tokens that differ in the size of the vocabulary only."""
    if student.dim() < 3 or student.shape[:-1] != other.shape[:-1]:
        return ""
    return (
        ". Vocabularies padded to different sizes: cut both, logits[..., :len(tokenizer)]. "
        "Different tokenizers need another loss: chapter 14"
    )


def require_mask(name: str, mask: Any, shape: tuple[int, ...], may_be_empty: bool = False) -> Tensor | None:
    """Raises ValueError unless the mask is None or has the shape, zeros and ones, and something that counts.

    Returns:
        Booleans, true where a position counts; None where all do.
    """
    if mask is None:
        return None
    require_tensor(name, mask)
    if mask.shape != shape:
        raise ValueError(f"{name}: expected shape {tuple(shape)}, got {tuple(mask.shape)}")
    if mask.dtype == torch.bool:
        kept = mask
    else:
        kept = mask == 1
        if mask.device.type == "cpu" and not (kept | (mask == 0)).all():
            values = mask.unique().tolist()
            shown = ", ".join(map(str, values[:MOST_SHOWN])) + ", …" * (len(values) > MOST_SHOWN)
            raise ValueError(f"{name}: expected zeros and ones, got [{shown}]")
    if not may_be_empty and kept.device.type == "cpu" and not kept.any():
        raise ValueError(f"{name}: expected at least one position that counts, got zeros only")
    return kept


def require_labels(labels: Any, num_samples: int, num_classes: int) -> None:
    """Raises ValueError unless labels has shape (N,), an integer dtype, and values in [0, K)."""
    require_indices("labels", labels, (num_samples,), num_classes)


def require_indices(
    name: str, indices: Any, shape: tuple[int, ...], num_classes: int, kept: Tensor | None = None
) -> None:
    """Raises ValueError unless they have the shape, an integer dtype and, where kept, values in [0, K)."""
    require_tensor(name, indices)
    if indices.shape != shape:
        raise ValueError(f"{name}: expected shape {tuple(shape)}, got {tuple(indices.shape)}")
    if indices.dtype not in INTEGER:
        raise ValueError(f"{name}: expected class indices of an integer dtype, got {indices.dtype}")
    if torch.iinfo(indices.dtype).max < num_classes - 1:
        raise ValueError(
            f"{name}: expected an integer dtype that reaches {num_classes - 1}, "
            f"got {indices.dtype}, which wraps round before"
        )
    if indices.device.type != "cpu":
        return
    counted = (indices if kept is None else indices[kept]).long()
    if counted.numel() and not 0 <= int(counted.min()) <= int(counted.max()) < num_classes:
        raise ValueError(
            f"{name}: expected class indices from 0 to {num_classes - 1}, "
            f"got values from {int(counted.min())} to {int(counted.max())}"
        )


def paired_rows(
    names: tuple[str, str],
    student: Any,
    other: Any,
    mask: Any,
    class_dim: int | None = None,
    denominator: float | Tensor | None = None,
    min_classes: int = 2,
) -> tuple[Tensor, Tensor, Tensor | None]:
    """Checks a student's logits, another's and a mask, and brings the kept positions into one row each.

    Returns:
        Both as (M, K) in at least float32, the other's without gradient; and which positions are kept,
        booleans of the shape without K, or None for all.
    """
    class_dim = require_logits(names[0], student, names[1], other, class_dim, min_classes)
    kept = None
    if mask is not None:
        shape = student.movedim(class_dim, -1).shape[:-1]
        kept = require_mask("mask", mask, shape, may_be_empty=denominator is not None)
    return kept_rows(student, kept, class_dim), kept_rows(other.detach(), kept, class_dim), kept


def position_count(rows: Tensor, denominator: float | Tensor | None) -> float | Tensor:
    """The number by which a sum over rows is divided: theirs, or the caller's."""
    return len(rows) if denominator is None else require_positive("denominator", denominator)


# Settings


def number(name: str, value: Any, expected: str, fits: Callable[[Any], bool]) -> float | Tensor:
    """The number itself, or a learned one as a 0-dim tensor; its value is looked at on the CPU only.

    Raises:
        ValueError: If it is neither a real number nor a real tensor of shape () or (1,), or does not fit.
    """
    if isinstance(value, Tensor):
        is_real = not value.is_complex() and value.dtype != torch.bool and value.layout == torch.strided
        if not is_real or value.shape not in ((), (1,)):
            raise ValueError(f"{name}: expected {expected}, got {description(value)}")
        if value.device.type == "cpu" and not fits(value.item()):
            raise ValueError(f"{name}: expected {expected}, got {value.item()}")
        return at_least_float32(value.reshape(()))
    if isinstance(value, bool) or not isinstance(value, Real) or not fits(value):
        raise ValueError(f"{name}: expected {expected}, got {description(value)}")
    return float(value)


def require_temperature(temperature: Any) -> float | Tensor:
    """Raises ValueError unless it is a number > 0, neither so small nor so large that digits are lost."""
    low, high = TEMPERATURES
    expected = "a number > 0, from 1e-6 to 1e6"
    return number("temperature", temperature, expected, lambda value: low <= value <= high)


def require_weight(name: str, value: Any) -> float | Tensor:
    """Raises ValueError unless it is a finite number >= 0."""
    return number(name, value, "a finite number >= 0", lambda value: 0 <= value < math.inf)


def require_positive(name: str, value: Any) -> float | Tensor:
    """Raises ValueError unless it is a finite number > 0."""
    return number(name, value, "a finite number > 0", lambda value: 0 < value < math.inf)


def require_count(name: str, value: Any, most: float = math.inf) -> None:
    """Raises ValueError unless value is a whole number >= 1, and no more than `most`."""
    if isinstance(value, bool) or not isinstance(value, Integral) or not 1 <= int(value) <= most:
        bound = "" if most == math.inf else f" and at most {most}"
        raise ValueError(f"{name}: expected a whole number >= 1{bound}, got {description(value)}")
