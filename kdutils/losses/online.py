"""Online distillation: losses for networks that learn at the same time and teach one another.

N is the batch, K the number of classes, T the temperature. Logits may have any leading shape, (..., K), as
in `kdutils.losses.response`, which also describes `mask`, `class_dim` and `denominator`. Every loss returns
one number, in float64 for float64 and in float32 for everything shorter.
"""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from kdutils._numerics import kl_divergence, log_probabilities
from kdutils._validate import (
    description,
    paired_rows,
    position_count,
    require_class_dim,
    require_floating,
    require_labels,
    require_matrix,
    require_same_shape,
    require_temperature,
    require_weight,
)
from kdutils.losses.response import kd_loss


def dml_loss(
    student_logits: Tensor,
    peer_logits: Tensor,
    mask: Tensor | None = None,
    *,
    temperature: float | Tensor = 1.0,
    class_dim: int | None = None,
    denominator: float | Tensor | None = None,
) -> Tensor:
    """KL divergence of the student's answer from a peer's, in nats: the mimicry of mutual learning.

        KL(softmax(peer / T) ‖ softmax(student / T))

    Summed over K, averaged over the positions that count; no factor T². Each network of a cohort calls it as
    the student, once per peer.

    Args:
        student_logits: Unnormalized, shape (N, K) or (..., K), K >= 2.
        peer_logits: The same shape. They get no gradient.
        mask: Which positions count, the logits' shape without K; None for all.
        temperature: T.
        class_dim: Dimension of the classes, 1 for (N, K, H, W); by default the last of two or three.
        denominator: Number to divide the sum over the positions by, instead of their number.

    Returns:
        A 0-dim tensor, >= 0, zero where both give the same probabilities.

    Raises:
        ValueError: If a shape, a dtype, the mask or a setting is not as described.

    Source: Zhang et al. 2018, "Deep Mutual Learning", where T = 1. Written out in notebook 05.
    """
    names = "student_logits", "peer_logits"
    student, peer, _ = paired_rows(names, student_logits, peer_logits, mask, class_dim, denominator)
    temperature = require_temperature(temperature)
    divergence = kl_divergence(log_probabilities(peer, temperature), log_probabilities(student, temperature))
    return (divergence / position_count(student, denominator)).to(student.dtype)


def mutual_terms(
    student_logits: Tensor,
    list_of_logits: Sequence[Tensor],
    labels: Tensor,
    *,
    weight: float | Tensor = 1.0,
) -> dict[str, Tensor]:
    """A peer's two terms: cross-entropy, and `weight` times the mean of `dml_loss` over the other peers.

    Args:
        student_logits: Unnormalized, shape (N, K), K >= 2.
        list_of_logits: The same shape, one tensor for every other peer. They get no gradient.
        labels: Class indices, shape (N,).
        weight: Of the mutual term, >= 0.

    Returns:
        {"hard": …, "mutual": …}, two 0-dim tensors in nats, averaged over N, as `fit` takes them.

    Raises:
        ValueError: If there is no other peer, or a shape, a label or the weight is not as described.

    Source: Zhang et al. 2018, "Deep Mutual Learning". Written out in notebook 05.
    """
    _require_peers(list_of_logits)
    require_matrix("student_logits", student_logits, min_columns=2)
    for i, peer_logits in enumerate(list_of_logits):
        require_same_shape("student_logits", student_logits, f"list_of_logits[{i}]", peer_logits)
    require_labels(labels, *student_logits.shape)
    weight = require_weight("weight", weight)
    mutual = torch.stack([dml_loss(student_logits, peer_logits) for peer_logits in list_of_logits]).mean()
    hard = F.cross_entropy(student_logits.to(mutual.dtype), labels.long())
    return {"hard": hard, "mutual": (weight * mutual).to(mutual.dtype)}


def ensemble_logits(list_of_logits: Sequence[Tensor]) -> Tensor:
    """Mean of the peers' logits: the teacher that a cohort makes of itself.

    Gradients flow through it to the peers, so that the ensemble can also be trained on labels.

    Args:
        list_of_logits: One tensor per peer, unnormalized, shape (N, K) or (..., K).

    Returns:
        The same shape and dtype.

    Raises:
        ValueError: If the list is empty, or a shape differs from the first.

    Written out in notebook 05.
    """
    _require_peers(list_of_logits)
    for i, logits in enumerate(list_of_logits):
        require_floating(f"list_of_logits[{i}]", logits)
        require_class_dim(f"list_of_logits[{i}]", logits, logits.dim() - 1, min_classes=1)
        require_same_shape("list_of_logits[0]", list_of_logits[0], f"list_of_logits[{i}]", logits)
    return torch.stack(list(list_of_logits)).mean(dim=0)


def ensemble_kd_loss(
    student_logits: Tensor,
    list_of_logits: Sequence[Tensor],
    mask: Tensor | None = None,
    *,
    temperature: float | Tensor = 3.0,
    class_dim: int | None = None,
    denominator: float | Tensor | None = None,
) -> Tensor:
    """`kd_loss` with the mean of the peers' logits as the teacher, in nats.

    Args:
        student_logits: Unnormalized, shape (N, K) or (..., K), K >= 2.
        list_of_logits: The same shape, one tensor per peer, the student's own among them or not. They get no
            gradient from the ensemble's side.
        mask: Which positions count, the logits' shape without K; None for all.
        temperature: T.
        class_dim: Dimension of the classes, 1 for (N, K, H, W); by default the last of two or three.
        denominator: Number to divide the sum over the positions by, instead of their number.

    Returns:
        A 0-dim tensor, averaged over the positions that count, >= 0.

    Raises:
        ValueError: If a shape, a dtype, the mask or a setting is not as described.

    Written out in notebook 05.
    """
    teacher_logits = ensemble_logits(list_of_logits)
    require_same_shape("student_logits", student_logits, "list_of_logits[0]", teacher_logits)
    return kd_loss(
        student_logits,
        teacher_logits,
        mask,
        temperature=temperature,
        class_dim=class_dim,
        denominator=denominator,
    )


def _require_peers(list_of_logits: Sequence[Tensor]) -> None:
    if not isinstance(list_of_logits, (list, tuple)):
        raise ValueError(
            f"list_of_logits: expected a list with a tensor per peer, got {description(list_of_logits)}"
        )
    if not list_of_logits:
        raise ValueError("list_of_logits: expected the logits of at least one peer, got none")
