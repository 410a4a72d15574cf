"""The divergence that most losses on answers are made of."""

import torch.nn.functional as F
from torch import Tensor


def kl_divergence(student_logits: Tensor, teacher_logits: Tensor) -> Tensor:
    """KL(softmax(teacher) ‖ softmax(student)), summed over K, averaged over N, in nats; logits (N, K)."""
    # logarithms on both sides: the logarithm of a softmax that underflowed to 0 would give NaN
    return F.kl_div(
        F.log_softmax(student_logits, dim=1),
        F.log_softmax(teacher_logits, dim=1),
        log_target=True,
        reduction="batchmean",
    )
