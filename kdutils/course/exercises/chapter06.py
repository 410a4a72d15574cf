"""Exercise checks of notebook 06, self-distillation."""

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from kdutils.course.exercises.judge import judge_choice, judge_function, judge_value


def mean_cost(prediction: Any) -> None:
    """What does an image cost on average, if six in ten leave at exit 1, three at exit 2, one at exit 3?"""
    judge_value(
        prediction,
        correct=0.6 * 5 + 0.3 * 25 + 0.1 * 100,
        tolerance=0.01,
        slips={
            "the costs were added up on the way: each is counted from the image on": (
                0.6 * 5 + 0.3 * (5 + 25) + 0.1 * (5 + 25 + 100)
            ),
            "every exit was taken equally often": (5 + 25 + 100) / 3,
            "ten images were billed: the question is about one": 6 * 5 + 3 * 25 + 1 * 100,
            "only the images that leave early were billed": 0.6 * 5 + 0.3 * 25,
        },
    )


def smoothed_cross_entropy(attempt: Any) -> None:
    """Cross-entropy against labels mixed with the uniform distribution over all classes."""
    generator = torch.Generator().manual_seed(0)

    def case(num_classes: int, smoothing: float) -> tuple[Tensor, Tensor, float]:
        logits = 3 * torch.randn(6, num_classes, generator=generator, dtype=torch.float64)
        return logits, torch.randint(num_classes, (6,), generator=generator), smoothing

    judge_function(
        attempt,
        cases=[case(5, 0.1), case(3, 0.4)],
        definition=lambda z, y, smoothing: F.cross_entropy(z, y, label_smoothing=smoothing),
        slips={
            "the smoothing is shared among the other classes only: the label gets its part, too": (
                lambda z, y, smoothing: _mixed(z, y, smoothing * z.shape[1] / (z.shape[1] - 1))
            ),
            "the uniform distribution is missing: the other classes get nothing": (
                lambda z, y, smoothing: (1 - smoothing) * F.cross_entropy(z, y)
            ),
            "label and uniform distribution have swapped weights": (
                lambda z, y, smoothing: _mixed(z, y, 1 - smoothing)
            ),
            "every class gets `smoothing`: the uniform distribution gives each 1 / K": (
                lambda z, y, smoothing: (
                    (1 - smoothing) * F.cross_entropy(z, y) - smoothing * F.log_softmax(z, 1).sum(1).mean()
                )
            ),
            "the label keeps all its weight: the targets sum to more than one": (
                lambda z, y, smoothing: F.cross_entropy(z, y) - smoothing * F.log_softmax(z, 1).mean(1).mean()
            ),
            "the labels are not smoothed": lambda z, y, smoothing: F.cross_entropy(z, y),
            "the mean also runs over the classes": (
                lambda z, y, smoothing: _mixed(z, y, smoothing) / z.shape[1]
            ),
            "the sum over the batch is not divided by N": (
                lambda z, y, smoothing: _mixed(z, y, smoothing) * len(z)
            ),
            "the minus sign is missing": lambda z, y, smoothing: -_mixed(z, y, smoothing),
            "probabilities stand where log-probabilities belong": (
                lambda z, y, smoothing: -(_targets(z, y, smoothing) * z.softmax(1)).sum(1).mean()
            ),
        },
    )


def present_teacher(answer: Any) -> None:
    """What is the gradient of PS-KD, if the past that teaches is the present?"""
    judge_choice(
        answer,
        correct="half the gradient of the labels alone",
        why_not={
            "zero": "half of the target is still the label, and the answer differs from it",
            "the gradient of the labels alone": "the target has moved half the way to the answer: what is "
            "left of answer minus target?",
            "pointing to softer answers": "the teacher is exactly as soft as the pupil: it pulls nowhere",
        },
    )


def _targets(logits: Tensor, labels: Tensor, smoothing: float) -> Tensor:
    num_classes = logits.shape[1]
    return (1 - smoothing) * F.one_hot(labels, num_classes) + smoothing / num_classes


def _mixed(logits: Tensor, labels: Tensor, smoothing: float) -> Tensor:
    return -(_targets(logits, labels, smoothing) * F.log_softmax(logits, dim=1)).sum(dim=1).mean()
