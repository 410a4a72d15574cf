"""Self-distillation: losses in which a network learns from itself, earlier, on another sample, or imagined.

N is the batch, K the number of classes, T the temperature.
"""

import math

import torch
import torch.nn.functional as F
from torch import Tensor

from kdutils._numerics import at_least_float32, kl_divergence
from kdutils._validate import require_labels, require_matrix, require_positive, require_same_shape
from kdutils.losses.response import kd_loss


def ps_kd_loss(student_logits: Tensor, past_logits: Tensor, labels: Tensor, *, alpha: float) -> Tensor:
    """Cross-entropy against labels softened by the network's own past answer, in nats, averaged over N.

        target = (1 − alpha) · onehot(label) + alpha · softmax(past)

    No other label term is needed.
    A cross-entropy, not a divergence: it is not zero where the student equals its past.

    student_logits: shape (N, K), unnormalised, K >= 2. labels: shape (N,), class indices.
    past_logits: shape (N, K), of the same samples one epoch earlier; they get no gradient.
    alpha: trust in the past, from 0 (labels only) to 1; it grows with the epochs.
    Returns a 0-dim tensor of the student's dtype, >= 0.
    Raises ValueError if a shape, a label or alpha is not as said, naming what was received.

    Source: Kim et al. 2021, "Self-Knowledge Distillation with Progressive Refinement of Targets" (PS-KD).
    Written out in notebook 06.
    """
    require_matrix("student_logits", student_logits, min_columns=2)
    require_same_shape("student_logits", student_logits, "past_logits", past_logits)
    require_labels(labels, *student_logits.shape)
    if not 0 <= alpha <= 1:
        raise ValueError(f"alpha: expected a number from 0 to 1, got {alpha}")
    student = at_least_float32(student_logits)
    past_probs = F.softmax(at_least_float32(past_logits.detach()), dim=1)
    onehot = F.one_hot(labels.long(), num_classes=student.shape[1])
    targets = (1 - alpha) * onehot + alpha * past_probs
    return F.cross_entropy(student, targets.to(student.dtype)).to(student_logits.dtype)


def cs_kd_loss(student_logits: Tensor, same_class_logits: Tensor, *, temperature: float = 4.0) -> Tensor:
    """`kd_loss` against the network's own answer to another sample of the class, in nats, averaged over N.

    student_logits, same_class_logits: shape (N, K), unnormalised, K >= 2; row i of both belongs to one class.
    The second gets no gradient. temperature: T > 0.
    Returns a 0-dim tensor of the student's dtype, >= 0, zero where both give the same probabilities.
    Raises ValueError if a shape or the temperature is not as said, naming what was received.

    Source: Yun et al. 2020, "Regularizing Class-wise Predictions via Self-knowledge Distillation" (CS-KD).
    Written out in notebook 06.
    """
    require_same_shape("student_logits", student_logits, "same_class_logits", same_class_logits)
    return kd_loss(student_logits, same_class_logits, temperature=temperature)


def tf_kd_loss(
    student_logits: Tensor, labels: Tensor, *, temperature: float = 20.0, correct_prob: float = 0.99
) -> Tensor:
    """KL divergence of the student's answer from a virtual teacher's, both at T, in nats, averaged over N.

        KL(softmax(log v / T) ‖ softmax(student / T))

    The virtual teacher v gives the label correct_prob and shares the rest equally among the other classes;
    like any teacher's, its logits (here log-probabilities) are divided by T. No factor T². The authors' code
    is another loss: it divides the probabilities, not the logits, by T, and leaves the student at T = 1.

    student_logits: shape (N, K), unnormalised, K >= 2. labels: shape (N,), class indices.
    temperature: T > 0. correct_prob: strictly between 0 and 1.
    Returns a 0-dim tensor of the student's dtype, >= 0, zero where the student equals the virtual teacher.
    Raises ValueError if a shape, a label or a number is not as said, naming what was received.

    Source: Yuan et al. 2020, "Revisiting Knowledge Distillation via Label Smoothing Regularization" (Tf-KD).
    Written out in notebook 06.
    """
    require_matrix("student_logits", student_logits, min_columns=2)
    require_labels(labels, *student_logits.shape)
    require_positive("temperature", temperature)
    if not 0 < correct_prob < 1:
        raise ValueError(f"correct_prob: expected a number strictly between 0 and 1, got {correct_prob}")
    student = at_least_float32(student_logits)
    other_prob = (1 - correct_prob) / (student.shape[1] - 1)
    is_label = F.one_hot(labels.long(), num_classes=student.shape[1]).bool()
    teacher = torch.full_like(student, math.log(other_prob)).masked_fill(is_label, math.log(correct_prob))
    return kl_divergence(student / temperature, teacher / temperature).to(student_logits.dtype)
