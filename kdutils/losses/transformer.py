"""Knowledge of transformer encoders: losses on hidden states, attention and value relations.

N is the batch, L the number of tokens, D the width of hidden states, A the number of attention heads. Every
loss takes the student first, sends no gradient to the teacher, and returns one number, in float64 for float64
and in float32 for everything shorter. For the answers at every token see `kd_loss` with a mask.

attention_mask is 1 (or True) for the tokens that count and 0 for padding, as tokenizers return it; None
counts all. What lies at padding changes nothing, whatever it is. Every kept token of the batch weighs the
same, so a longer sentence counts for more.
"""

import math

import torch
import torch.nn.functional as F
from torch import Tensor

from kdutils._numerics import (
    at_least_float32,
    inner_products,
    kl_divergence,
    log_probabilities,
    unit_vectors,
)
from kdutils._validate import (
    require_mask,
    require_matrix,
    require_no_minus_infinity,
    require_same_shape,
    require_shape,
)


def hidden_cosine_loss(
    student_hidden: Tensor, teacher_hidden: Tensor, attention_mask: Tensor | None = None
) -> Tensor:
    """1 − cosine of the angle between student's and teacher's hidden state, averaged over the kept tokens.

        mean 1 − s · t / (‖s‖ · ‖t‖)

    Args:
        student_hidden: Shape (N, L, D).
        teacher_hidden: The same shape. It gets no gradient.
        attention_mask: Shape (N, L); None for all.

    Returns:
        A 0-dim tensor in [0, 2]; a hidden state of zeros has the cosine 0 with any other.

    Raises:
        ValueError: If a shape, a dtype or the mask is not as described.

    Source: Sanh et al. 2019, "DistilBERT", sec. 2, the cosine embedding loss. Written out in notebook 12.
    """
    require_shape("student_hidden", student_hidden, "(N, L, D)")
    require_same_shape("student_hidden", student_hidden, "teacher_hidden", teacher_hidden)
    kept = _kept_tokens(attention_mask, student_hidden)
    student = at_least_float32(student_hidden[kept])
    teacher = at_least_float32(teacher_hidden.detach()[kept])
    cosines = (unit_vectors(student) * unit_vectors(teacher)).sum(dim=1)
    return (1 - cosines).mean().to(student.dtype)


def attention_mse_loss(
    student_scores: Tensor, teacher_scores: Tensor, attention_mask: Tensor | None = None
) -> Tensor:
    """Mean squared difference of attention scores, over the heads and all pairs of kept tokens.

        mean (S_student − S_teacher)²

    Args:
        student_scores: S, shape (N, A, L, L), query before key, as it is before the softmax and before a mask
            is added to it.
        teacher_scores: The same shape, so the same heads. They get no gradient.
        attention_mask: Shape (N, L); None for all.

    Returns:
        A 0-dim tensor, >= 0, zero only where the scores are equal.

    Raises:
        ValueError: If a shape, a dtype or the mask is not as described, or if −inf was added to the scores.

    Source: Jiao et al. 2020, "TinyBERT", sec. 3.1, eq. 7.
    """
    _require_scores(student_scores, teacher_scores, "student_scores", "teacher_scores")
    kept = _kept_tokens(attention_mask, student_scores[:, 0])
    pairs = (kept[:, None, :, None] & kept[:, None, None, :]).expand_as(student_scores)
    student = at_least_float32(student_scores[pairs])
    teacher = at_least_float32(teacher_scores.detach()[pairs])
    for name, scores in (("student_scores", student), ("teacher_scores", teacher)):
        require_no_minus_infinity(name, scores, "take them before a mask is added")
    return F.mse_loss(student, teacher).to(student.dtype)


def hidden_mse_loss(
    student_hidden: Tensor, teacher_hidden: Tensor, attention_mask: Tensor | None = None
) -> Tensor:
    """Mean squared difference of hidden states, over the kept tokens and D.

        mean (s − t)²

    Args:
        student_hidden: Shape (N, L, D); a narrower student goes through a linear layer first, trained with
            it.
        teacher_hidden: The same shape. It gets no gradient.
        attention_mask: Shape (N, L); None for all.

    Returns:
        A 0-dim tensor, >= 0, zero only where the hidden states are equal.

    Raises:
        ValueError: If a shape, a dtype or the mask is not as described.

    Source: Jiao et al. 2020, "TinyBERT", sec. 3.1, eq. 8.
    """
    require_shape("student_hidden", student_hidden, "(N, L, D)")
    require_same_shape("student_hidden", student_hidden, "teacher_hidden", teacher_hidden)
    kept = _kept_tokens(attention_mask, student_hidden)
    student = at_least_float32(student_hidden[kept])
    return F.mse_loss(student, at_least_float32(teacher_hidden.detach()[kept])).to(student.dtype)


def minilm_loss(
    student_attention_scores: Tensor,
    teacher_attention_scores: Tensor,
    attention_mask: Tensor | None = None,
) -> Tensor:
    """KL divergence of the student's attention from the teacher's, in nats, averaged over heads and queries.

        mean KL(softmax(S_teacher) ‖ softmax(S_student))

    Args:
        student_attention_scores: S, shape (N, A, L, L), query before key; the scores, not probabilities: the
            softmax over the kept keys is taken here. Keys that both sides mask with −inf, as decoders do,
            have no attention and count as 0.
        teacher_attention_scores: The same shape, so the same heads. They get no gradient.
        attention_mask: Shape (N, L), which leaves out padding as query and as key; None for all.

    Returns:
        A 0-dim tensor, >= 0, zero where both attend alike.

    Raises:
        ValueError: If a shape, a dtype or the mask is not as described.

    Source: Wang et al. 2020, "MiniLM", sec. 3.1, eq. 6, for the last layer of each.
    """
    names = "student_attention_scores", "teacher_attention_scores"
    _require_scores(student_attention_scores, teacher_attention_scores, *names)
    kept = _kept_tokens(attention_mask, student_attention_scores[:, 0])
    return _attention_divergence(student_attention_scores, teacher_attention_scores.detach(), kept)


def value_relation_loss(
    student_values: Tensor, teacher_values: Tensor, attention_mask: Tensor | None = None
) -> Tensor:
    """KL divergence of the student's value relations from the teacher's, in nats, over heads and tokens.

        mean KL(softmax(V_teacher · V_teacherᵀ / √d) ‖ softmax(V_student · V_studentᵀ / √d))

    The relations of a token are the softmax, over the kept tokens, of its value's inner products with theirs,
    divided by the square root of the head's width d. Averaged over the heads and the kept tokens.

    Args:
        student_values: Shape (N, A, L, d).
        teacher_values: Shape (N, A, L, d') with any d', so the same heads. They get no gradient.
        attention_mask: Shape (N, L); None for all.

    Returns:
        A 0-dim tensor, >= 0, zero where both have the same relations.

    Raises:
        ValueError: If a shape, a dtype or the mask is not as described.

    Source: Wang et al. 2020, "MiniLM", sec. 3.2, eq. 7 to 9, for the last layer of each.
    """
    for name, values in (("student_values", student_values), ("teacher_values", teacher_values)):
        require_shape(name, values, "(N, A, L, D)")
    if student_values.shape[:3] != teacher_values.shape[:3]:
        raise ValueError(
            f"teacher_values: expected (N, A, L) as in student_values, {tuple(student_values.shape[:3])}, "
            f"got {tuple(teacher_values.shape[:3])}"
        )
    kept = _kept_tokens(attention_mask, student_values[:, 0])
    student, teacher = _relation_scores(student_values, kept), _relation_scores(teacher_values.detach(), kept)
    return _attention_divergence(student, teacher, kept)


def patient_loss(student_hidden: Tensor, teacher_hidden: Tensor) -> Tensor:
    """Squared distance of student's and teacher's hidden state at unit length, averaged over N.

        mean ‖s / ‖s‖ − t / ‖t‖‖²

    Args:
        student_hidden: Shape (N, D), one state per sample, such as that of the first token, from one pair of
            layers; the paper adds up the pairs. A state of zeros stays zero.
        teacher_hidden: The same shape. It gets no gradient.

    Returns:
        A 0-dim tensor in [0, 4]: 2 · (1 − cosine).

    Raises:
        ValueError: If a shape or a dtype is not as described.

    Source: Sun et al. 2019, "Patient Knowledge Distillation for BERT Model Compression", sec. 3.2; their code
    divides by D too.
    """
    require_matrix("student_hidden", student_hidden)
    require_same_shape("student_hidden", student_hidden, "teacher_hidden", teacher_hidden)
    student = at_least_float32(student_hidden)
    gaps = unit_vectors(student) - unit_vectors(at_least_float32(teacher_hidden.detach()))
    return gaps.square().sum(dim=1).mean().to(student.dtype)


def _relation_scores(values: Tensor, kept: Tensor) -> Tensor:
    """Scaled inner products of the values of all kept tokens, (N, A, L, L), from (N, A, L, D)."""
    values = at_least_float32(values).masked_fill(~kept[:, None, :, None], 0)
    return inner_products(values, values) / math.sqrt(values.shape[-1])


def _attention_divergence(student_scores: Tensor, teacher_scores: Tensor, kept: Tensor) -> Tensor:
    """KL(softmax(teacher) ‖ softmax(student)) over kept keys, averaged over heads and kept queries."""

    def log_attention(scores: Tensor) -> Tensor:
        scores = at_least_float32(scores)
        scores = scores.masked_fill(~kept[:, None, None, :], torch.finfo(scores.dtype).min)
        return log_probabilities(scores.transpose(1, 2)[kept]).flatten(0, 1)

    student, teacher = log_attention(student_scores), log_attention(teacher_scores)
    return (kl_divergence(teacher, student) / len(student)).to(student.dtype)


def _kept_tokens(attention_mask: Tensor | None, tokens: Tensor) -> Tensor:
    """The mask as booleans, (N, L), for tokens of shape (N, L, ...); all true for None."""
    shape = tokens.shape[:2]
    kept = require_mask("attention_mask", attention_mask, shape)
    return torch.ones(shape, dtype=torch.bool, device=tokens.device) if kept is None else kept


def _require_scores(student: Tensor, teacher: Tensor, student_name: str, teacher_name: str) -> None:
    """Raises ValueError unless both are (N, A, L, L) with the same sizes."""
    require_shape(student_name, student, "(N, A, L, L)")
    if student.shape[2] != student.shape[3]:
        raise ValueError(
            f"{student_name}: expected as many keys as queries, (N, A, L, L), got {tuple(student.shape)}"
        )
    require_same_shape(student_name, student, teacher_name, teacher)
