"""Self-distillation: losses in which a network learns from itself, earlier, on another sample, or imagined.

N is the batch, K the number of classes, T the temperature. Every loss returns one number, in float64 for
float64 and in float32 for everything shorter.
"""

import math

import torch
import torch.nn.functional as F
from torch import Tensor

from kdutils._numerics import at_least_float32, cross_entropy, kl_divergence, log_probabilities
from kdutils._validate import (
    number,
    require_labels,
    require_matrix,
    require_same_shape,
    require_temperature,
)
from kdutils.losses.response import kd_loss


def ps_kd_loss(
    student_logits: Tensor, past_logits: Tensor, labels: Tensor, *, alpha: float | Tensor
) -> Tensor:
    """Cross-entropy against labels softened by the network's own past answer, in nats, averaged over N.

        target = (1 − alpha) · onehot(label) + alpha · softmax(past)

    No other label term is needed. A cross-entropy, not a divergence: it is not zero where the student equals
    its past.

    Args:
        student_logits: Unnormalized, shape (N, K), K >= 2.
        past_logits: Shape (N, K), of the same samples one epoch earlier. They get no gradient.
        labels: Class indices, shape (N,).
        alpha: Trust in the past, from 0 (labels only) to 1; it grows with the epochs.

    Returns:
        A 0-dim tensor, >= 0.

    Raises:
        ValueError: If a shape, a dtype, a label or alpha is not as described.

    Source: Kim et al. 2021, "Self-Knowledge Distillation with Progressive Refinement of Targets" (PS-KD).
    Written out in notebook 06.
    """
    require_matrix("student_logits", student_logits, min_columns=2)
    require_same_shape("student_logits", student_logits, "past_logits", past_logits)
    require_labels(labels, *student_logits.shape)
    alpha = number("alpha", alpha, "a number from 0 to 1", lambda value: 0 <= value <= 1)
    student = at_least_float32(student_logits)
    past_probs = F.softmax(at_least_float32(past_logits.detach()), dim=1)
    onehot = F.one_hot(labels.long(), num_classes=student.shape[1])
    targets = ((1 - alpha) * onehot + alpha * past_probs).to(student.dtype)
    return cross_entropy(targets, log_probabilities(student)) / len(student)


def cs_kd_loss(
    student_logits: Tensor, same_class_logits: Tensor, *, temperature: float | Tensor = 4.0
) -> Tensor:
    """`kd_loss` against the network's own answer to another sample of the class, in nats, averaged over N.

    Args:
        student_logits: Unnormalized, shape (N, K), K >= 2.
        same_class_logits: Shape (N, K); row i of both belongs to one class. They get no gradient.
        temperature: T.

    Returns:
        A 0-dim tensor, >= 0, zero where both give the same probabilities.

    Raises:
        ValueError: If a shape, a dtype or the temperature is not as described.

    Source: Yun et al. 2020, "Regularizing Class-wise Predictions via Self-knowledge Distillation" (CS-KD).
    Written out in notebook 06.
    """
    require_matrix("student_logits", student_logits, min_columns=2)
    require_same_shape("student_logits", student_logits, "same_class_logits", same_class_logits)
    return kd_loss(student_logits, same_class_logits, temperature=temperature)


def tf_kd_loss(
    student_logits: Tensor,
    labels: Tensor,
    *,
    temperature: float | Tensor = 20.0,
    correct_prob: float = 0.99,
) -> Tensor:
    """KL divergence of the student's answer from a virtual teacher's, both at T, in nats, averaged over N.

        KL(softmax(log v / T) ‖ softmax(student / T))

    The virtual teacher v gives the label correct_prob and shares the rest equally among the other classes;
    like any teacher's, its logits (here log-probabilities) are divided by T. No factor T². The authors' code
    is another loss: it divides the probabilities, not the logits, by T, and leaves the student at T = 1.

    Args:
        student_logits: Unnormalized, shape (N, K), K >= 2.
        labels: Class indices, shape (N,).
        temperature: T.
        correct_prob: Probability of the label, strictly between 0 and 1.

    Returns:
        A 0-dim tensor, >= 0, zero where the student equals the virtual teacher.

    Raises:
        ValueError: If a shape, a dtype, a label or a setting is not as described.

    Source: Yuan et al. 2020, "Revisiting Knowledge Distillation via Label Smoothing Regularization" (Tf-KD).
    Written out in notebook 06.
    """
    require_matrix("student_logits", student_logits, min_columns=2)
    require_labels(labels, *student_logits.shape)
    temperature = require_temperature(temperature)
    expected = "a number strictly between 0 and 1"
    correct_prob = float(number("correct_prob", correct_prob, expected, lambda value: 0 < value < 1))
    student = at_least_float32(student_logits)
    other_prob = (1 - correct_prob) / (student.shape[1] - 1)
    is_label = F.one_hot(labels.long(), num_classes=student.shape[1]).bool()
    teacher = torch.full_like(student, math.log(other_prob)).masked_fill(is_label, math.log(correct_prob))
    divergence = kl_divergence(
        log_probabilities(teacher, temperature), log_probabilities(student, temperature)
    )
    return (divergence / len(student)).to(student.dtype)
