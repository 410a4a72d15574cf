"""Online distillation: losses for networks that learn at the same time and teach one another.

N is the batch, K the number of classes, T the temperature.
"""

from collections.abc import Sequence

import torch
from torch import Tensor

from kdutils._numerics import at_least_float32, kl_divergence
from kdutils._validate import require_matrix, require_positive, require_same_shape
from kdutils.losses.response import kd_loss


def dml_loss(student_logits: Tensor, peer_logits: Tensor, *, temperature: float = 1.0) -> Tensor:
    """KL divergence of the student's answer from a peer's, in nats: the mimicry of mutual learning.

        KL(softmax(peer / T) ‖ softmax(student / T))

    Summed over K, averaged over N; no factor T².
    Each network of a cohort calls it as the student, once per peer; the peer gets no gradient from it.

    student_logits, peer_logits: shape (N, K), unnormalised, K >= 2. temperature: T > 0.
    Returns a 0-dim tensor of the student's dtype, >= 0, zero where both give the same probabilities.
    Raises ValueError if a shape or the temperature is not as said, naming what was received.

    Source: Zhang et al. 2018, "Deep Mutual Learning", where T = 1. Written out in notebook 05.
    """
    require_matrix("student_logits", student_logits, min_columns=2)
    require_same_shape("student_logits", student_logits, "peer_logits", peer_logits)
    require_positive("temperature", temperature)
    student = at_least_float32(student_logits)
    peer = at_least_float32(peer_logits.detach())
    return kl_divergence(student / temperature, peer / temperature).to(student_logits.dtype)


def ensemble_logits(list_of_logits: Sequence[Tensor]) -> Tensor:
    """Mean of the peers' logits, shape (N, K): the teacher that a cohort makes of itself.

    Gradients flow through it to the peers, so that the ensemble can also be trained on labels.

    list_of_logits: one tensor of shape (N, K) per peer, unnormalised.
    Raises ValueError if the list is empty or a shape differs from the first, naming what was received.

    Written out in notebook 05.
    """
    if len(list_of_logits) == 0:
        raise ValueError("list_of_logits: expected the logits of at least one peer, got none")
    for i, logits in enumerate(list_of_logits):
        require_matrix(f"list_of_logits[{i}]", logits)
        require_same_shape("list_of_logits[0]", list_of_logits[0], f"list_of_logits[{i}]", logits)
    return torch.stack(list(list_of_logits)).mean(dim=0)


def ensemble_kd_loss(
    student_logits: Tensor, list_of_logits: Sequence[Tensor], *, temperature: float = 3.0
) -> Tensor:
    """`kd_loss` with the mean of the peers' logits as the teacher, in nats, averaged over N.

    student_logits: shape (N, K), unnormalised. temperature: T > 0.
    list_of_logits: one tensor of shape (N, K) per peer, the student's own among them or not; it gets no
    gradient from the ensemble's side.
    Returns a 0-dim tensor of the student's dtype, >= 0.
    Raises ValueError if a shape or the temperature is not as said, naming what was received.

    Written out in notebook 05.
    """
    teacher_logits = ensemble_logits(list_of_logits)
    require_same_shape("student_logits", student_logits, "list_of_logits[0]", teacher_logits)
    return kd_loss(student_logits, teacher_logits, temperature=temperature)
