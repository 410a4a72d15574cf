"""Relation knowledge: losses on how samples stand to each other, in the teacher and in the student.

Only relations are compared, so student and teacher may differ in width. One sample alone has no relations:
the losses are 0 at N = 1, angles need N = 3, and a contrast needs N = 2.

N is the batch, D the width of an embedding. Every loss takes the student first, sends no gradient to the
teacher, and returns one number, in float64 for float64 and in float32 for everything shorter.
"""

import math

import torch
import torch.nn.functional as F
from torch import Tensor

from kdutils._numerics import at_least_float32, inner_products, unit_vectors
from kdutils._validate import (
    number,
    require_count,
    require_matrix,
    require_same_batch,
    require_same_shape,
    require_temperature,
    require_weight,
)

PKT_EPS = 1e-7


def sp_loss(student_features: Tensor, teacher_features: Tensor) -> Tensor:
    """Mean squared difference of similarity matrices, over N².

        mean (G_student − G_teacher)²

    Each sample's features are flattened to a row of Q. The similarity matrix G is Q·Qᵀ with every row scaled
    to unit (L2) length, so that the scale of the features does not matter.

    Args:
        student_features: Shape (N, ...).
        teacher_features: Shape (N, ...), of any other sizes. They get no gradient.

    Returns:
        A 0-dim tensor, >= 0, zero where the similarities are equal.

    Raises:
        ValueError: If N differs or is 0, or a dtype is not floating.

    Source: Tung and Mori 2019 (similarity-preserving distillation). Written out in notebook 03.
    """
    require_same_batch("student_features", student_features, "teacher_features", teacher_features)
    student, teacher = _similarity_rows(student_features), _similarity_rows(teacher_features.detach())
    return F.mse_loss(student, teacher).to(student.dtype)


def _similarity_rows(features: Tensor) -> Tensor:
    rows = at_least_float32(features).flatten(1)
    # products of two small numbers: what would be short for features is not for these
    return unit_vectors(inner_products(rows, rows), shortest=1e-19)


def rkd_distance_loss(student_embeddings: Tensor, teacher_embeddings: Tensor) -> Tensor:
    """Smooth L1 difference of pairwise distances, averaged over N².

        mean h(‖s_i − s_j‖ / m_s, ‖t_i − t_j‖ / m_t)

    h is the smooth L1 difference. Distances are Euclidean, divided by the mean m of those of the batch that
    are not 0.

    Args:
        student_embeddings: Shape (N, D), not normalized.
        teacher_embeddings: Shape (N, D') with any D'. They get no gradient.

    Returns:
        A 0-dim tensor, >= 0, zero where the relative distances are equal.

    Raises:
        ValueError: If a shape or a dtype is not as described, or if N differs.

    Source: Park et al. 2019, the distance-wise loss. Written out in notebook 03.
    """
    student, teacher = _prepared(student_embeddings, teacher_embeddings)
    return F.smooth_l1_loss(_relative_distances(student), _relative_distances(teacher)).to(student.dtype)


def _relative_distances(embeddings: Tensor) -> Tensor:
    # from differences, not from inner products: duplicates are then at distance 0 exactly
    distances = torch.cdist(embeddings, embeddings, compute_mode="donot_use_mm_for_euclid_dist")
    mean = distances.sum() / (distances > 0).sum().clamp(min=1)
    return distances / torch.where(mean > 0, mean, 1.0)


def rkd_angle_loss(student_embeddings: Tensor, teacher_embeddings: Tensor) -> Tensor:
    """Smooth L1 difference of the cosines of angles within triples of samples, averaged over N³.

        mean h(cos ∠ s_j s_i s_k, cos ∠ t_j t_i t_k)

    h is the smooth L1 difference. The angle of (i, j, k) lies at i, between the directions to j and to k; two
    samples in one place give the cosine 0. Memory grows with N³ and N²·D.

    Args:
        student_embeddings: Shape (N, D) with N >= 3.
        teacher_embeddings: Shape (N, D') with any D'. They get no gradient.

    Returns:
        A 0-dim tensor, >= 0, zero where the angles are equal.

    Raises:
        ValueError: If a shape or a dtype is not as described, or if N differs.

    Source: Park et al. 2019, the angle-wise loss. Written out in notebook 03.
    """
    student, teacher = _prepared(student_embeddings, teacher_embeddings, min_samples=3)
    return F.smooth_l1_loss(_angle_cosines(student), _angle_cosines(teacher)).to(student.dtype)


def _angle_cosines(embeddings: Tensor) -> Tensor:
    directions = unit_vectors(embeddings.unsqueeze(0) - embeddings.unsqueeze(1))
    return inner_products(directions, directions)


def rkd_loss(
    student_embeddings: Tensor,
    teacher_embeddings: Tensor,
    *,
    distance_weight: float | Tensor = 25.0,
    angle_weight: float | Tensor = 50.0,
) -> Tensor:
    """Weighted sum of `rkd_distance_loss` and `rkd_angle_loss`.

    Args:
        student_embeddings: Shape (N, D) with N >= 3.
        teacher_embeddings: Shape (N, D') with any D'. They get no gradient.
        distance_weight: Weight of the distances, >= 0.
        angle_weight: Weight of the angles, >= 0.

    Returns:
        A 0-dim tensor, >= 0.

    Raises:
        ValueError: If a shape, a dtype or a weight is not as described, or if N differs.

    Source: Park et al. 2019. Written out in notebook 03.
    """
    distance_weight = require_weight("distance_weight", distance_weight)
    angle_weight = require_weight("angle_weight", angle_weight)
    distance = rkd_distance_loss(student_embeddings, teacher_embeddings)
    angle = rkd_angle_loss(student_embeddings, teacher_embeddings)
    return (distance_weight * distance + angle_weight * angle).to(distance.dtype)


def pkt_loss(student_embeddings: Tensor, teacher_embeddings: Tensor) -> Tensor:
    """KL divergence of the student's neighbor probabilities from the teacher's, in nats, averaged over N².

        mean t_ij · log(t_ij / s_ij),  t_ij = (cos(t_i, t_j) + 1) / Σ_k (cos(t_i, t_k) + 1)

    The probabilities of a sample's neighbors, itself included, are its similarities (cosine + 1) / 2 divided
    by their sum. An eps of 1e-7 stands beside every length, t and s.

    Args:
        student_embeddings: Shape (N, D).
        teacher_embeddings: Shape (N, D') with any D'. They get no gradient.

    Returns:
        A 0-dim tensor, >= 0 up to rounding, zero where the probabilities are equal.

    Raises:
        ValueError: If a shape or a dtype is not as described, or if N differs.

    Source: Passalis and Tefas 2018 (probabilistic knowledge transfer), as in their code. Written out in
    notebook 03.
    """
    student, teacher = _prepared(student_embeddings, teacher_embeddings)
    student_probs, teacher_probs = _neighbor_probabilities(student), _neighbor_probabilities(teacher)
    log_ratio = (teacher_probs + PKT_EPS).log() - (student_probs + PKT_EPS).log()
    return (teacher_probs * log_ratio).mean().to(student.dtype)


def _neighbor_probabilities(embeddings: Tensor) -> Tensor:
    directions = unit_vectors(embeddings, eps=PKT_EPS)
    # rounding can bring the cosine of opposite embeddings just below −1, where the logarithm ends
    similarities = ((inner_products(directions, directions) + 1) / 2).clamp(min=0)
    return similarities / similarities.sum(dim=1, keepdim=True)


def cc_loss(
    student_embeddings: Tensor, teacher_embeddings: Tensor, *, gamma: float = 0.4, order: int = 2
) -> Tensor:
    """Mean squared difference of correlation matrices, over N².

        mean (C_student − C_teacher)²,  C_ij = e^(−2γ) · Σ_p (2γ)^p / p! · (x_i · x_j)^p

    The correlation of two samples is the Gaussian kernel exp(−γ·‖x − y‖²) of their embeddings at unit length,
    as its Taylor series, C, with p = 0 … order.

    Args:
        student_embeddings: Shape (N, D).
        teacher_embeddings: Shape (N, D') with any D'. They get no gradient.
        gamma: γ, a number > 0, at most 40.
        order: Last power of the series, a whole number from 1 to 100.

    Returns:
        A 0-dim tensor, >= 0, zero where the correlations are equal.

    Raises:
        ValueError: If a shape, a dtype or a setting is not as described, or if N differs.

    Source: Peng et al. 2019 (correlation congruence). Other losses carry this name too. Written out in
    notebook 03.
    """
    gamma = float(number("gamma", gamma, "a number > 0, at most 40", lambda value: 0 < value <= 40))
    require_count("order", order, most=100)
    student, teacher = _prepared(student_embeddings, teacher_embeddings)
    loss = F.mse_loss(_correlations(student, gamma, order), _correlations(teacher, gamma, order))
    return loss.to(student.dtype)


def _correlations(embeddings: Tensor, gamma: float, order: int) -> Tensor:
    directions = unit_vectors(embeddings)
    cosines = inner_products(directions, directions)
    terms = [(2 * gamma) ** p / math.factorial(p) * cosines.pow(p) for p in range(order + 1)]
    return math.exp(-2 * gamma) * torch.stack(terms).sum(dim=0)


def info_nce_loss(
    student_embeddings: Tensor, teacher_embeddings: Tensor, *, temperature: float | Tensor = 0.1
) -> Tensor:
    """Contrast with the batch: the cross-entropy of finding one's own teacher embedding, in nats.

        −log softmax_j(cos(s_i, t_j) / T) at j = i

    Averaged over N. Every student embedding is asked which of the N teacher embeddings belongs to its sample.
    The others of the batch are the negatives, so a larger batch asks more: log N is what guessing costs.

    This is the in-batch form of contrastive distillation. CRD (Tian et al. 2020) has a memory bank of some
    16,000 negatives and a binary cross-entropy for each in its place, and learned projection heads on both
    sides. Here the heads are the caller's modules, and their parameters belong in the optimizer.

    Args:
        student_embeddings: Shape (N, D) with N >= 2; scaled to unit length here.
        teacher_embeddings: The same shape: project either side first where the widths differ. They get no
            gradient.
        temperature: T; the smaller, the more the nearest negatives count.

    Returns:
        A 0-dim tensor, >= 0. It is not zero where student equals teacher, and smallest where every student
        embedding points to its own teacher's and away from the others'.

    Raises:
        ValueError: If a shape, a dtype or the temperature is not as described.

    Source: van den Oord et al. 2018, "Representation Learning with Contrastive Predictive Coding", eq. 4,
    with a teacher on one side as in Tian et al. 2020, "Contrastive Representation Distillation".
    """
    require_matrix("student_embeddings", student_embeddings, min_rows=2)
    require_same_shape("student_embeddings", student_embeddings, "teacher_embeddings", teacher_embeddings)
    student, teacher = _prepared(student_embeddings, teacher_embeddings)
    cosines = inner_products(unit_vectors(student), unit_vectors(teacher))
    own = torch.arange(len(student), device=student.device)
    return F.cross_entropy(cosines / require_temperature(temperature), own).to(student.dtype)


def _prepared(
    student_embeddings: Tensor, teacher_embeddings: Tensor, min_samples: int = 1
) -> tuple[Tensor, Tensor]:
    """Both in at least float32, the teacher's cut from its graph."""
    require_matrix("student_embeddings", student_embeddings, min_rows=min_samples)
    require_matrix("teacher_embeddings", teacher_embeddings, min_rows=min_samples)
    require_same_batch("student_embeddings", student_embeddings, "teacher_embeddings", teacher_embeddings)
    return at_least_float32(student_embeddings), at_least_float32(teacher_embeddings.detach())
