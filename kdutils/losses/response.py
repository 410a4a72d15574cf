"""Response knowledge: losses on what teacher and student answer, their logits.

N is the batch, K the number of classes, T the temperature. Every loss takes the student first, sends no
gradient to the teacher, and returns one number in the dtype of the student's logits, up to rounding: near
zero it may come out a little below, and T² enlarges what is lost where T is in the thousands.
"""

import torch
import torch.nn.functional as F
from torch import Tensor

from kdutils._numerics import at_least_float32, kl_divergence
from kdutils._validate import require_labels, require_matrix, require_positive, require_same_shape


def kd_loss(student_logits: Tensor, teacher_logits: Tensor, *, temperature: float = 4.0) -> Tensor:
    """KL divergence of the student's softened answer from the teacher's, times T², in nats.

        T² · KL(softmax(teacher / T) ‖ softmax(student / T))

    Summed over K, averaged over N.

    student_logits, teacher_logits: shape (N, K), unnormalised, K >= 2. temperature: T > 0.
    Returns a 0-dim tensor, >= 0, zero where both give the same probabilities.
    Raises ValueError if a shape or the temperature is not as said, naming what was received.

    Source: Hinton, Vinyals and Dean 2015, "Distilling the Knowledge in a Neural Network", sec. 2.
    Written out in notebook 01.
    """
    require_matrix("student_logits", student_logits, min_columns=2)
    require_same_shape("student_logits", student_logits, "teacher_logits", teacher_logits)
    require_positive("temperature", temperature)
    student = at_least_float32(student_logits)
    teacher = at_least_float32(teacher_logits.detach())
    # the gradient of the divergence shrinks like 1/T²; T² restores its scale
    loss = temperature**2 * kl_divergence(student / temperature, teacher / temperature)
    return loss.to(student_logits.dtype)


def logit_mse_loss(student_logits: Tensor, teacher_logits: Tensor) -> Tensor:
    """Mean squared difference of the logits, averaged over N and K.

        mean (student − teacher)²

    student_logits, teacher_logits: shape (N, K), unnormalised.
    Returns a 0-dim tensor, >= 0, zero only where the logits are equal.
    Raises ValueError if a shape is not as said, naming what was received.

    Source: Ba and Caruana 2014, "Do Deep Nets Really Need to be Deep?" (regression on logits).
    """
    require_matrix("student_logits", student_logits)
    require_same_shape("student_logits", student_logits, "teacher_logits", teacher_logits)
    loss = F.mse_loss(at_least_float32(student_logits), at_least_float32(teacher_logits.detach()))
    return loss.to(student_logits.dtype)


def dkd_loss(
    student_logits: Tensor,
    teacher_logits: Tensor,
    labels: Tensor,
    *,
    alpha: float = 1.0,
    beta: float = 8.0,
    temperature: float = 4.0,
) -> Tensor:
    """Decoupled distillation, the labelled class apart from the others, in nats, averaged over N.

        T² · (alpha · TCKD + beta · NCKD)

    TCKD: KL divergence of (target, all others), two probabilities. NCKD: KL divergence among the others,
    renormalised to sum to one. `kd_loss` is the same with alpha = 1 and the teacher's 1 − p_target as beta.

    student_logits, teacher_logits: shape (N, K), unnormalised, K >= 3. labels: shape (N,), class indices.
    alpha, beta: weights of TCKD and NCKD. temperature: T > 0.
    Returns a 0-dim tensor, >= 0, zero where both give the same probabilities.
    Raises ValueError if a shape, a label or the temperature is not as said, naming what was received.

    Source: Zhao et al. 2022, "Decoupled Knowledge Distillation". Written out in notebook 01.
    """
    require_matrix("student_logits", student_logits, min_columns=3)
    require_same_shape("student_logits", student_logits, "teacher_logits", teacher_logits)
    require_labels(labels, *student_logits.shape)
    require_positive("temperature", temperature)
    student_target, student_others = _split_at_label(at_least_float32(student_logits) / temperature, labels)
    teacher_target, teacher_others = _split_at_label(
        at_least_float32(teacher_logits.detach()) / temperature, labels
    )
    tckd = kl_divergence(
        _target_against_others(student_target, student_others),
        _target_against_others(teacher_target, teacher_others),
    )
    nckd = kl_divergence(student_others, teacher_others)
    return (temperature**2 * (alpha * tckd + beta * nckd)).to(student_logits.dtype)


def nkd_loss(
    student_logits: Tensor,
    teacher_logits: Tensor,
    labels: Tensor,
    *,
    gamma: float = 1.5,
    temperature: float = 1.0,
) -> Tensor:
    """Normalised distillation: target and non-target cross-entropies, in nats, averaged over N.

        −p_y · log q_y − gamma · T² · Σ_k p'_k · log q'_k

    Here p are the teacher's probabilities and q the student's: those of the label y at T = 1, and with a
    prime those of the other classes k at T, each side renormalised over them.
    A cross-entropy, not a divergence: it is not zero where the student equals the teacher.

    student_logits, teacher_logits: shape (N, K), unnormalised, K >= 2. labels: shape (N,), class indices.
    gamma: weight of the non-target part. temperature: T > 0, of the non-target part only.
    Returns a 0-dim tensor, >= 0.
    Raises ValueError if a shape, a label or the temperature is not as said, naming what was received.

    Source: Yang et al. 2023, "From Knowledge Distillation to Self-Knowledge Distillation: A Unified Approach
    with Normalized Loss and Customized Soft Labels".
    """
    require_matrix("student_logits", student_logits, min_columns=2)
    require_same_shape("student_logits", student_logits, "teacher_logits", teacher_logits)
    require_labels(labels, *student_logits.shape)
    require_positive("temperature", temperature)
    student = at_least_float32(student_logits)
    teacher = at_least_float32(teacher_logits.detach())
    teacher_target_probs = (-F.cross_entropy(teacher, labels.long(), reduction="none")).exp()
    target_term = (teacher_target_probs * F.cross_entropy(student, labels.long(), reduction="none")).mean()

    _, student_others = _split_at_label(student / temperature, labels)
    _, teacher_others = _split_at_label(teacher / temperature, labels)
    other_term = F.cross_entropy(student_others, F.softmax(teacher_others, dim=1))
    return (target_term + gamma * temperature**2 * other_term).to(student_logits.dtype)


def dist_loss(
    student_logits: Tensor,
    teacher_logits: Tensor,
    *,
    beta: float = 1.0,
    gamma: float = 1.0,
    temperature: float = 1.0,
) -> Tensor:
    """Correlation distance of the answers, between the classes and within each class.

        T² · (beta · inter + gamma · intra)

    Each term lies in [0, 2].
    inter is 1 − the Pearson correlation of a sample's class probabilities, averaged over N;
    intra is 1 − the Pearson correlation of a class's probabilities over the batch, averaged over K.
    Where one of the two is constant, their correlation counts as 0.

    student_logits, teacher_logits: shape (N, K), unnormalised, N >= 2, K >= 2.
    beta, gamma: weights of inter and intra. temperature: T > 0.
    Returns a 0-dim tensor, >= 0, zero where both give the same probabilities and none is constant.
    Raises ValueError if a shape or the temperature is not as said, naming what was received.

    Source: Huang et al. 2022, "Knowledge Distillation from A Stronger Teacher". Written out in notebook 01.
    """
    require_matrix("student_logits", student_logits, min_rows=2, min_columns=2)
    require_same_shape("student_logits", student_logits, "teacher_logits", teacher_logits)
    require_positive("temperature", temperature)
    student = F.softmax(at_least_float32(student_logits) / temperature, dim=1)
    teacher = F.softmax(at_least_float32(teacher_logits.detach()) / temperature, dim=1)
    inter = 1 - _pearson_correlation(student, teacher, dim=1).mean()
    intra = 1 - _pearson_correlation(student, teacher, dim=0).mean()
    return (temperature**2 * (beta * inter + gamma * intra)).to(student_logits.dtype)


def standardized_kd_loss(
    student_logits: Tensor, teacher_logits: Tensor, *, temperature: float = 2.0
) -> Tensor:
    """`kd_loss` of the z-scores of the logits: what counts is their pattern, not their shift and scale.

        z = (logits − mean) / (std + 1e-7)

    Mean and standard deviation are those of a sample's K logits, the latter with K − 1.

    student_logits, teacher_logits: shape (N, K), unnormalised, K >= 2. temperature: T > 0.
    Returns a 0-dim tensor in nats, averaged over N, >= 0, zero where the z-scores are equal.
    Raises ValueError if a shape or the temperature is not as said, naming what was received.

    Source: Sun et al. 2024, "Logit Standardization in Knowledge Distillation". Written out in notebook 01.
    """
    require_matrix("student_logits", student_logits, min_columns=2)
    require_same_shape("student_logits", student_logits, "teacher_logits", teacher_logits)
    student = _z_scores(at_least_float32(student_logits))
    teacher = _z_scores(at_least_float32(teacher_logits.detach()))
    return kd_loss(student, teacher, temperature=temperature).to(student_logits.dtype)


def _split_at_label(logits: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
    """The labelled class's logit, shape (N, 1), and those of the other classes, shape (N, K − 1)."""
    target = labels.long().unsqueeze(1)
    is_other = torch.ones_like(logits, dtype=torch.bool).scatter(1, target, False)
    return logits.gather(1, target), logits[is_other].view(len(logits), -1)


def _target_against_others(target_logits: Tensor, other_logits: Tensor) -> Tensor:
    """Logits, shape (N, 2), whose softmax is (p_target, 1 − p_target)."""
    return torch.cat([target_logits, other_logits.logsumexp(dim=1, keepdim=True)], dim=1)


def _pearson_correlation(x: Tensor, y: Tensor, dim: int) -> Tensor:
    """Pearson correlations of x and y along a dimension, 0 where x or y is constant along it."""
    return (_centred_to_unit_length(x, dim) * _centred_to_unit_length(y, dim)).sum(dim)


def _centred_to_unit_length(x: Tensor, dim: int) -> Tensor:
    """x minus its mean along a dimension, divided by its length where it is not constant."""
    centred = x - x.mean(dim, keepdim=True)
    length = centred.norm(dim=dim, keepdim=True)
    # what is left of a constant is rounding error: dividing by its length would turn it into a signal
    is_constant = length <= 10 * torch.finfo(x.dtype).eps * x.norm(dim=dim, keepdim=True)
    return centred / torch.where(is_constant, 1.0, length)


def _z_scores(logits: Tensor) -> Tensor:
    """Logits with mean 0 and standard deviation 1 in every row; constant rows become 0."""
    centred = logits - logits.mean(dim=1, keepdim=True)
    std = centred.std(dim=1, keepdim=True)
    # constant logits have no scale: dividing by 1e-7 would multiply their gradient by ten million
    return centred / torch.where(std > 0, std + 1e-7, 1.0)
