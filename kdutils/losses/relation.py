"""Relation knowledge: losses on how samples stand to each other, in the teacher and in the student.

Only relations are compared, so student and teacher may differ in width. One sample alone has no relations:
the losses are 0 at N = 1, and angles need N = 3.
"""

import math

import torch
import torch.nn.functional as F
from torch import Tensor

from kdutils._numerics import at_least_float32, inner_products, unit_vectors
from kdutils._validate import require_count, require_matrix, require_positive, require_same_batch

PKT_EPS = 1e-7


def sp_loss(student_features: Tensor, teacher_features: Tensor) -> Tensor:
    """Mean squared difference of similarity matrices, over N².

        mean (G_student − G_teacher)²

    student_features, teacher_features: shapes (N, ...), flattened per sample to Q; no gradient reaches the
    teacher. The similarity matrix G is Q·Qᵀ with every row scaled to unit (L2) length.
    Returns a 0-dim tensor of the student's dtype. Raises ValueError if N differs or is 0.

    Source: Tung and Mori 2019 (similarity-preserving distillation). Written out in notebook 03.
    """
    require_same_batch("student_features", student_features, "teacher_features", teacher_features)
    student, teacher = _similarity_rows(student_features), _similarity_rows(teacher_features.detach())
    return F.mse_loss(student, teacher).to(student_features.dtype)


def _similarity_rows(features: Tensor) -> Tensor:
    rows = at_least_float32(features).flatten(1)
    return unit_vectors(inner_products(rows, rows))


def rkd_distance_loss(student_embeddings: Tensor, teacher_embeddings: Tensor) -> Tensor:
    """Smooth L1 difference of pairwise distances, averaged over N².

        mean h(‖s_i − s_j‖ / m_s, ‖t_i − t_j‖ / m_t)

    student_embeddings, teacher_embeddings: shapes (N, D) with any D, not normalised; no gradient reaches the
    teacher. h is the smooth L1 difference. Distances are Euclidean, divided by the mean m of those of the
    batch that are not 0.
    Returns a 0-dim tensor of the student's dtype. Raises ValueError for other shapes, or if N differs.

    Source: Park et al. 2019, the distance-wise loss. Written out in notebook 03.
    """
    student, teacher = _prepared(student_embeddings, teacher_embeddings)
    loss = F.smooth_l1_loss(_relative_distances(student), _relative_distances(teacher))
    return loss.to(student_embeddings.dtype)


def _relative_distances(embeddings: Tensor) -> Tensor:
    # from differences, not from inner products: duplicates are then at distance 0 exactly
    distances = torch.cdist(embeddings, embeddings, compute_mode="donot_use_mm_for_euclid_dist")
    mean = distances.sum() / (distances > 0).sum().clamp(min=1)
    return distances / torch.where(mean > 0, mean, 1.0)


def rkd_angle_loss(student_embeddings: Tensor, teacher_embeddings: Tensor) -> Tensor:
    """Smooth L1 difference of the cosines of angles within triples of samples, averaged over N³.

        mean h(cos ∠ s_j s_i s_k, cos ∠ t_j t_i t_k)

    student_embeddings, teacher_embeddings: shapes (N, D) with any D, N ≥ 3; no gradient reaches the teacher.
    h is the smooth L1 difference. The angle of (i, j, k) lies at i, between the directions to j and to k; two
    samples in one place give the cosine 0. Memory grows with N³ and N²·D.
    Returns a 0-dim tensor of the student's dtype. Raises ValueError for other shapes, or if N differs.

    Source: Park et al. 2019, the angle-wise loss. Written out in notebook 03.
    """
    student, teacher = _prepared(student_embeddings, teacher_embeddings, min_samples=3)
    loss = F.smooth_l1_loss(_angle_cosines(student), _angle_cosines(teacher))
    return loss.to(student_embeddings.dtype)


def _angle_cosines(embeddings: Tensor) -> Tensor:
    directions = unit_vectors(embeddings.unsqueeze(0) - embeddings.unsqueeze(1))
    return inner_products(directions, directions)


def rkd_loss(
    student_embeddings: Tensor,
    teacher_embeddings: Tensor,
    *,
    distance_weight: float = 25.0,
    angle_weight: float = 50.0,
) -> Tensor:
    """Weighted sum of `rkd_distance_loss` and `rkd_angle_loss`, with their shapes and errors.

    Source: Park et al. 2019. Written out in notebook 03.
    """
    distance = rkd_distance_loss(student_embeddings, teacher_embeddings)
    angle = rkd_angle_loss(student_embeddings, teacher_embeddings)
    return distance_weight * distance + angle_weight * angle


def pkt_loss(student_embeddings: Tensor, teacher_embeddings: Tensor) -> Tensor:
    """KL divergence of the student's neighbour probabilities from the teacher's, in nats, averaged over N².

        mean t_ij · log(t_ij / s_ij),  t_ij = (cos(t_i, t_j) + 1) / Σ_k (cos(t_i, t_k) + 1)

    student_embeddings, teacher_embeddings: shapes (N, D) with any D; no gradient reaches the teacher.
    The probabilities of a sample's neighbours, itself included, are its similarities (cosine + 1) / 2 divided
    by their sum. Eps 1e-7 stands beside every length, t and s.
    Returns a 0-dim tensor of the student's dtype. Raises ValueError for other shapes, or if N differs.

    Source: Passalis and Tefas 2018 (probabilistic knowledge transfer), as in their code. Written out in
    notebook 03.
    """
    student, teacher = map(_neighbour_probabilities, _prepared(student_embeddings, teacher_embeddings))
    log_ratio = (teacher + PKT_EPS).log() - (student + PKT_EPS).log()
    return (teacher * log_ratio).mean().to(student_embeddings.dtype)


def _neighbour_probabilities(embeddings: Tensor) -> Tensor:
    directions = unit_vectors(embeddings, eps=PKT_EPS)
    # rounding can bring the cosine of opposite embeddings just below −1, where the logarithm ends
    similarities = ((inner_products(directions, directions) + 1) / 2).clamp(min=0)
    return similarities / similarities.sum(dim=1, keepdim=True)


def cc_loss(
    student_embeddings: Tensor, teacher_embeddings: Tensor, *, gamma: float = 0.4, order: int = 2
) -> Tensor:
    """Mean squared difference of correlation matrices, over N².

        mean (C_student − C_teacher)²,  C_ij = e^(−2γ) · Σ_p (2γ)^p / p! · (x_i · x_j)^p

    student_embeddings, teacher_embeddings: shapes (N, D) with any D; no gradient reaches the teacher.
    The correlation of two samples is the Gaussian kernel exp(−γ·‖x − y‖²) of their embeddings at unit length,
    as its Taylor series, C, with p = 0 … order.
    gamma: > 0. order: a whole number ≥ 1.
    Returns a 0-dim tensor of the student's dtype. Raises ValueError for other shapes or values, or if N
    differs.

    Source: Peng et al. 2019 (correlation congruence). Other losses carry this name too. Written out in
    notebook 03.
    """
    require_positive("gamma", gamma)
    require_count("order", order)
    student, teacher = _prepared(student_embeddings, teacher_embeddings)
    loss = F.mse_loss(_correlations(student, gamma, order), _correlations(teacher, gamma, order))
    return loss.to(student_embeddings.dtype)


def _correlations(embeddings: Tensor, gamma: float, order: int) -> Tensor:
    directions = unit_vectors(embeddings)
    cosines = inner_products(directions, directions)
    terms = [(2 * gamma) ** p / math.factorial(p) * cosines.pow(p) for p in range(order + 1)]
    return math.exp(-2 * gamma) * torch.stack(terms).sum(dim=0)


def _prepared(
    student_embeddings: Tensor, teacher_embeddings: Tensor, min_samples: int = 1
) -> tuple[Tensor, Tensor]:
    """Both in at least float32, the teacher's cut from its graph."""
    require_matrix("student_embeddings", student_embeddings, min_rows=min_samples)
    require_matrix("teacher_embeddings", teacher_embeddings, min_rows=min_samples)
    require_same_batch("student_embeddings", student_embeddings, "teacher_embeddings", teacher_embeddings)
    return at_least_float32(student_embeddings), at_least_float32(teacher_embeddings.detach())
