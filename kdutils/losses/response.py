"""Response knowledge: losses on what teacher and student answer, their logits.

N is the batch, K the number of classes, T the temperature. Logits have the shape (N, K), or (..., K) for an
answer at every position: (N, L, K) for tokens, (N, K, H, W) with `class_dim=1` for pixels. Every position
that counts weighs the same.

Every loss takes the student first and sends no gradient to the teacher. It returns one number, in float64
for float64 and in float32 for everything shorter, right up to rounding: near zero it may come out a little
below. The settings that most of them share:

- `mask`: which positions count, of the logits' shape without the classes, ones and zeros or booleans. What
  lies at the others changes nothing, whatever it is. Selecting them makes a GPU wait once.
- `temperature`: a number from 1e-6 to 1e6, or a learned one, a tensor of shape () or (1,).
- `class_dim`: the dimension of the classes. It must be named for four dimensions and more.
- `denominator`: by what the sum over the kept positions is divided, instead of by their number. Where a step
  is made of several micro-batches or processes, pass the number of kept positions in all of them, and add
  the losses up: a mean of means would weigh the tokens of short answers more. Then a micro-batch may also
  have no kept position at all.

A class that both sides mask with a logit of −inf has probability 0 and counts as 0, except in losses that
say otherwise. A class that only the student masks makes a divergence infinite.
"""

import torch
import torch.nn.functional as F
from torch import Tensor

from kdutils._numerics import (
    at_least_float32,
    cross_entropy,
    kept_rows,
    kl_divergence,
    log_probabilities,
    softened,
)
from kdutils._validate import (
    paired_rows,
    position_count,
    require_indices,
    require_mask,
    require_no_minus_infinity,
    require_positive,
    require_same_shape,
    require_temperature,
    require_weight,
)

PAIR = "student_logits", "teacher_logits"


def kd_loss(
    student_logits: Tensor,
    teacher_logits: Tensor,
    mask: Tensor | None = None,
    *,
    temperature: float | Tensor = 4.0,
    class_dim: int | None = None,
    denominator: float | Tensor | None = None,
) -> Tensor:
    """KL divergence of the student's softened answer from the teacher's, times T², in nats.

        T² · KL(softmax(teacher / T) ‖ softmax(student / T))

    Summed over K, averaged over the positions that count. This is the forward KL, which asks the student to
    cover all that the teacher does; `reverse_kl_loss` is the other direction.

    The gradient of the divergence shrinks like 1/T²; T² restores its scale. TRL, torchtune and axolotl leave
    T² out: their loss is this one divided by T².

    Args:
        student_logits: Unnormalized, shape (N, K) or (..., K), K >= 2.
        teacher_logits: The same shape. They get no gradient.
        mask: Which positions count, the logits' shape without K; None for all.
        temperature: T.
        class_dim: Dimension of the classes, 1 for (N, K, H, W); by default the last of two or three.
        denominator: Number to divide the sum over the positions by, instead of their number.

    Returns:
        A 0-dim tensor, >= 0, zero where both give the same probabilities.

    Raises:
        ValueError: If a shape, a dtype, the mask or a setting is not as described.

    Source: Hinton, Vinyals and Dean 2015, "Distilling the Knowledge in a Neural Network", sec. 2.
    Written out in notebook 01, and with a mask in notebook 12.
    """
    student, teacher, _ = paired_rows(PAIR, student_logits, teacher_logits, mask, class_dim, denominator)
    temperature = require_temperature(temperature)
    divergence = kl_divergence(
        log_probabilities(teacher, temperature), log_probabilities(student, temperature)
    )
    loss = temperature**2 * (divergence / position_count(student, denominator))
    return loss.to(student.dtype)


def logit_mse_loss(
    student_logits: Tensor,
    teacher_logits: Tensor,
    mask: Tensor | None = None,
    *,
    class_dim: int | None = None,
    denominator: float | Tensor | None = None,
) -> Tensor:
    """Mean squared difference of the logits, averaged over K and the positions that count.

        mean (student − teacher)²

    Args:
        student_logits: Unnormalized, shape (N, K) or (..., K), without −inf.
        teacher_logits: The same shape. They get no gradient.
        mask: Which positions count, the logits' shape without K; None for all.
        class_dim: Dimension of the classes, 1 for (N, K, H, W); by default the last of two or three.
        denominator: Number to divide the sum over the positions by, instead of their number.

    Returns:
        A 0-dim tensor, >= 0, zero only where the logits are equal.

    Raises:
        ValueError: If a shape, a dtype, the mask or a setting is not as described.

    Source: Ba and Caruana 2014, "Do Deep Nets Really Need to be Deep?", (regression on logits).
    """
    student, teacher, _ = paired_rows(
        PAIR, student_logits, teacher_logits, mask, class_dim, denominator, min_classes=1
    )
    _require_no_masked_class(student, teacher)
    if denominator is None:
        loss = F.mse_loss(student, teacher)
    else:
        per_position = F.mse_loss(student, teacher, reduction="sum") / student.shape[1]
        loss = per_position / position_count(student, denominator)
    return loss.to(student.dtype)


def dkd_loss(
    student_logits: Tensor,
    teacher_logits: Tensor,
    labels: Tensor,
    mask: Tensor | None = None,
    *,
    alpha: float | Tensor = 1.0,
    beta: float | Tensor = 8.0,
    temperature: float | Tensor = 4.0,
    class_dim: int | None = None,
    denominator: float | Tensor | None = None,
) -> Tensor:
    """Decoupled distillation, the labelled class apart from the others, in nats.

        T² · (alpha · TCKD + beta · NCKD)

    TCKD is the KL divergence of (target, all others), two probabilities; NCKD the one among the others,
    renormalized to sum to one. Both are averaged over the positions that count. `kd_loss` is the same with
    alpha = 1 and, sample by sample, the teacher's 1 − p_target as beta.

    Args:
        student_logits: Unnormalized, shape (N, K) or (..., K), K >= 3.
        teacher_logits: The same shape. They get no gradient.
        labels: Class indices, the logits' shape without K; at masked positions any number.
        mask: Which positions count, of the labels' shape; None for all.
        alpha: Weight of TCKD, >= 0.
        beta: Weight of NCKD, >= 0.
        temperature: T.
        class_dim: Dimension of the classes, 1 for (N, K, H, W); by default the last of two or three.
        denominator: Number to divide the sums over the positions by, instead of their number.

    Returns:
        A 0-dim tensor, >= 0, zero where both give the same probabilities.

    Raises:
        ValueError: If a shape, a dtype, a label, the mask or a setting is not as described.

    Source: Zhao et al. 2022, "Decoupled Knowledge Distillation". Written out in notebook 01.
    """
    student, teacher, kept = paired_rows(
        PAIR, student_logits, teacher_logits, mask, class_dim, denominator, min_classes=3
    )
    targets = _kept_labels(labels, student_logits, class_dim, kept)
    alpha, beta = require_weight("alpha", alpha), require_weight("beta", beta)
    temperature = require_temperature(temperature)
    student_target, student_others = _split_at_label(softened(student, temperature), targets)
    teacher_target, teacher_others = _split_at_label(softened(teacher, temperature), targets)
    count = position_count(student, denominator)
    tckd = kl_divergence(
        log_probabilities(_target_against_others(teacher_target, teacher_others)),
        log_probabilities(_target_against_others(student_target, student_others)),
    )
    nckd = kl_divergence(log_probabilities(teacher_others), log_probabilities(student_others))
    return (temperature**2 * (alpha * (tckd / count) + beta * (nckd / count))).to(student.dtype)


def nkd_loss(
    student_logits: Tensor,
    teacher_logits: Tensor,
    labels: Tensor,
    mask: Tensor | None = None,
    *,
    gamma: float | Tensor = 1.5,
    temperature: float | Tensor = 1.0,
    class_dim: int | None = None,
    denominator: float | Tensor | None = None,
) -> Tensor:
    """Normalized distillation: cross-entropies of the target and of the other classes, in nats.

        −p_y · log q_y − gamma · T² · Σ_k p'_k · log q'_k

    Here p are the teacher's probabilities and q the student's: those of the label y at T = 1, and with a
    prime those of the other classes k at T, each side renormalized over them. Averaged over the positions
    that count. A cross-entropy, not a divergence: it is not zero where the student equals the teacher.

    Args:
        student_logits: Unnormalized, shape (N, K) or (..., K), K >= 2.
        teacher_logits: The same shape. They get no gradient.
        labels: Class indices, the logits' shape without K; at masked positions any number.
        mask: Which positions count, of the labels' shape; None for all.
        gamma: Weight of the non-target part, >= 0.
        temperature: T, of the non-target part only.
        class_dim: Dimension of the classes, 1 for (N, K, H, W); by default the last of two or three.
        denominator: Number to divide the sums over the positions by, instead of their number.

    Returns:
        A 0-dim tensor, >= 0.

    Raises:
        ValueError: If a shape, a dtype, a label, the mask or a setting is not as described.

    Source: Yang et al. 2023, "From Knowledge Distillation to Self-Knowledge Distillation: A Unified Approach
    with Normalized Loss and Customized Soft Labels".
    """
    student, teacher, kept = paired_rows(PAIR, student_logits, teacher_logits, mask, class_dim, denominator)
    targets = _kept_labels(labels, student_logits, class_dim, kept)
    gamma, temperature = require_weight("gamma", gamma), require_temperature(temperature)
    teacher_target_probs = (-F.cross_entropy(teacher, targets, reduction="none")).exp()
    target_terms = teacher_target_probs * F.cross_entropy(student, targets, reduction="none")

    _, student_others = _split_at_label(softened(student, temperature), targets)
    _, teacher_others = _split_at_label(softened(teacher, temperature), targets)
    other_term = cross_entropy(F.softmax(teacher_others, dim=1), log_probabilities(student_others))
    count = position_count(student, denominator)
    return (target_terms.sum() / count + gamma * temperature**2 * (other_term / count)).to(student.dtype)


def dist_loss(
    student_logits: Tensor,
    teacher_logits: Tensor,
    mask: Tensor | None = None,
    *,
    beta: float | Tensor = 1.0,
    gamma: float | Tensor = 1.0,
    temperature: float | Tensor = 1.0,
    class_dim: int | None = None,
) -> Tensor:
    """Correlation distance of the answers, between the classes and within each class.

        T² · (beta · inter + gamma · intra)

    Each term lies in [0, 2]. inter is 1 − the Pearson correlation of a position's class probabilities,
    averaged over the positions that count; intra is 1 − the Pearson correlation of a class's probabilities
    over all these positions, averaged over K. Where one of the two is constant, their correlation counts
    as 0. It knows no `denominator`, since intra is a property of the whole batch.

    Args:
        student_logits: Unnormalized, shape (N, K) or (..., K), K >= 2, two positions or more, without −inf.
        teacher_logits: The same shape. They get no gradient.
        mask: Which positions count, the logits' shape without K; None for all.
        beta: Weight of inter, >= 0.
        gamma: Weight of intra, >= 0.
        temperature: T.
        class_dim: Dimension of the classes, 1 for (N, K, H, W); by default the last of two or three.

    Returns:
        A 0-dim tensor, >= 0, zero where both give the same probabilities and none is constant.

    Raises:
        ValueError: If a shape, a dtype, the mask or a setting is not as described.

    Source: Huang et al. 2022, "Knowledge Distillation from A Stronger Teacher". Written out in notebook 01.
    """
    student, teacher, _ = paired_rows(PAIR, student_logits, teacher_logits, mask, class_dim)
    _require_no_masked_class(student, teacher)
    if len(student) < 2:
        raise ValueError(
            "student_logits: expected shape (N, K) with N >= 2, or two positions that count, "
            f"got {tuple(student_logits.shape)} with {len(student)}"
        )
    beta, gamma = require_weight("beta", beta), require_weight("gamma", gamma)
    temperature = require_temperature(temperature)
    student_probs = F.softmax(softened(student, temperature), dim=1)
    teacher_probs = F.softmax(softened(teacher, temperature), dim=1)
    inter = 1 - _pearson_correlation(student_probs, teacher_probs, dim=1).mean()
    intra = 1 - _pearson_correlation(student_probs, teacher_probs, dim=0).mean()
    return (temperature**2 * (beta * inter + gamma * intra)).to(student.dtype)


def standardized_kd_loss(
    student_logits: Tensor,
    teacher_logits: Tensor,
    mask: Tensor | None = None,
    *,
    temperature: float | Tensor = 2.0,
    class_dim: int | None = None,
    denominator: float | Tensor | None = None,
) -> Tensor:
    """`kd_loss` of the z-scores of the logits: what counts is their pattern, not their shift and scale.

        z = (logits − mean) / (std + 1e-7)

    Mean and standard deviation are those of a position's K logits, the latter with K − 1.

    Args:
        student_logits: Unnormalized, shape (N, K) or (..., K), K >= 2, without −inf.
        teacher_logits: The same shape. They get no gradient.
        mask: Which positions count, the logits' shape without K; None for all.
        temperature: T.
        class_dim: Dimension of the classes, 1 for (N, K, H, W); by default the last of two or three.
        denominator: Number to divide the sum over the positions by, instead of their number.

    Returns:
        A 0-dim tensor in nats, averaged over the positions that count, >= 0, zero where the z-scores are
        equal.

    Raises:
        ValueError: If a shape, a dtype, the mask or a setting is not as described.

    Source: Sun et al. 2024, "Logit Standardization in Knowledge Distillation". Written out in notebook 01.
    """
    student, teacher, _ = paired_rows(PAIR, student_logits, teacher_logits, mask, class_dim, denominator)
    _require_no_masked_class(student, teacher)
    temperature = require_temperature(temperature)
    log_teacher = log_probabilities(_z_scores(teacher), temperature)
    divergence = kl_divergence(log_teacher, log_probabilities(_z_scores(student), temperature))
    return (temperature**2 * (divergence / position_count(student, denominator))).to(student.dtype)


def multilabel_kd_loss(
    student_logits: Tensor,
    teacher_logits: Tensor,
    mask: Tensor | None = None,
    *,
    temperature: float | Tensor = 1.0,
    denominator: float | Tensor | None = None,
) -> Tensor:
    """KL divergence of yes-or-no answers, one for every class, times T², in nats.

        T² · [p · log(p / q) + (1 − p) · log((1 − p) / (1 − q))],  p = σ(teacher / T),  q = σ(student / T)

    Averaged over all answers that count, so over N and K. For labels of which several may hold at once, for
    binary classification with one logit, and for segmentation with a sigmoid: wherever the student is
    trained with a binary cross-entropy.

    Args:
        student_logits: One logit for every yes-or-no answer, any shape: (N, K), (N, 1), (N,), (N, 1, H, W).
        teacher_logits: The same shape. They get no gradient.
        mask: Which answers count, of the logits' shape; None for all.
        temperature: T.
        denominator: Number to divide the sum over the answers by, instead of their number.

    Returns:
        A 0-dim tensor, >= 0, zero where both give the same probabilities.

    Raises:
        ValueError: If a shape, a dtype, the mask or a setting is not as described.

    Source: `kd_loss` for the two classes yes and no, whose logits are the given one and 0.
    """
    require_same_shape(PAIR[0], student_logits, PAIR[1], teacher_logits)
    kept = require_mask("mask", mask, student_logits.shape, may_be_empty=denominator is not None)
    temperature = require_temperature(temperature)
    student, teacher = (
        # yes or no are two classes: the logit itself, and 0
        F.pad(kept_rows(logits.unsqueeze(-1), kept), (0, 1))
        for logits in (student_logits, teacher_logits.detach())
    )
    divergence = kl_divergence(
        log_probabilities(teacher, temperature), log_probabilities(student, temperature)
    )
    return (temperature**2 * (divergence / position_count(student, denominator))).to(student.dtype)


def regression_kd_loss(
    student_outputs: Tensor, teacher_outputs: Tensor, *, delta: float | None = None
) -> Tensor:
    """Distance of predicted numbers: the squared difference, or Huber's distance, averaged over all.

        mean (student − teacher)²

    Huber's distance is half the square up to a difference of delta and grows linearly from there on:
    `½ · d²` for `|d| <= delta`, `delta · (|d| − ½ · delta)` beyond. Predictions far off weigh less.

    A teacher that regresses can be wrong without bound, where a classifier's probabilities cannot. Chen et
    al. therefore let it teach only where the student is further from the truth than the teacher, by a margin:

        student_error, teacher_error = (student - labels) ** 2, (teacher - labels) ** 2
        bounded = student_error[student_error + margin > teacher_error].sum() / len(labels)

    Args:
        student_outputs: Predicted numbers, any shape: (N,), (N, 1), (N, 4), (N, 1, H, W).
        teacher_outputs: The same shape. They get no gradient.
        delta: Where Huber's distance turns linear, > 0; None for the squared difference.

    Returns:
        A 0-dim tensor, >= 0, zero only where the outputs are equal.

    Raises:
        ValueError: If a shape, a dtype or delta is not as described.

    Source: Chen et al. 2017, "Learning Efficient Object Detection Models with Knowledge Distillation",
    sec. 3.3, for the bounded form.
    """
    require_same_shape("student_outputs", student_outputs, "teacher_outputs", teacher_outputs)
    student, teacher = at_least_float32(student_outputs), at_least_float32(teacher_outputs.detach())
    if delta is None:
        return F.mse_loss(student, teacher).to(student.dtype)
    return F.huber_loss(student, teacher, delta=float(require_positive("delta", delta))).to(student.dtype)


def _kept_labels(labels: Tensor, logits: Tensor, class_dim: int | None, kept: Tensor | None) -> Tensor:
    """The labels of the kept positions as int64, shape (M,)."""
    shape = logits.movedim(-1 if class_dim is None else class_dim, -1).shape
    require_indices("labels", labels, shape[:-1], shape[-1], kept)
    return (labels.flatten() if kept is None else labels[kept]).long()


def _require_no_masked_class(student: Tensor, teacher: Tensor) -> None:
    for name, logits in zip(PAIR, (student, teacher), strict=True):
        require_no_minus_infinity(name, logits, "leave masked classes out of both tensors")


def _split_at_label(logits: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
    """The labelled class's logit, shape (M, 1), and those of the other classes, shape (M, K − 1)."""
    target = labels.unsqueeze(1)
    others = torch.arange(logits.shape[1] - 1, device=logits.device).expand(len(logits), -1)
    return logits.gather(1, target), logits.gather(1, others + (others >= target))


def _target_against_others(target_logits: Tensor, other_logits: Tensor) -> Tensor:
    """Logits, shape (M, 2), whose softmax is (p_target, 1 − p_target)."""
    return torch.cat([target_logits, other_logits.logsumexp(dim=1, keepdim=True)], dim=1)


def _pearson_correlation(x: Tensor, y: Tensor, dim: int) -> Tensor:
    """Pearson correlations of x and y along a dimension, 0 where x or y is constant along it."""
    return (_centered_to_unit_length(x, dim) * _centered_to_unit_length(y, dim)).sum(dim)


def _centered_to_unit_length(x: Tensor, dim: int) -> Tensor:
    """x minus its mean along a dimension, divided by its length where it is not constant."""
    centered = x - x.mean(dim, keepdim=True)
    length = centered.norm(dim=dim, keepdim=True)
    # what is left of a constant is rounding error: dividing by its length would turn it into a signal
    is_constant = length <= 10 * torch.finfo(x.dtype).eps * x.norm(dim=dim, keepdim=True)
    return centered / torch.where(is_constant, 1.0, length)


def _z_scores(logits: Tensor) -> Tensor:
    """Logits with mean 0 and standard deviation 1 in every row; constant rows become 0."""
    if len(logits) == 0:  # a micro-batch without a position that counts
        return logits
    centered = logits - logits.mean(dim=1, keepdim=True)
    std = centered.std(dim=1, keepdim=True)
    # constant logits have no scale: dividing by 1e-7 would multiply their gradient by ten million
    return centered / torch.where(std > 0, std + 1e-7, 1.0)
