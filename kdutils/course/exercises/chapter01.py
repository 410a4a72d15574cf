"""Exercise checks of notebook 01, response knowledge."""

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from kdutils.course.exercises.judge import judge_choice, judge_function, judge_value
from kdutils.losses import kd_loss, multilabel_kd_loss


def ratio_temperature(prediction: Any) -> None:
    """At which temperature does a ratio of e⁶ between two probabilities fall to e²?"""
    judge_value(
        prediction,
        correct=3.0,
        tolerance=0.01,
        slips={
            "the logits were divided by the wrong one of the two: 6 / T = 2": 1 / 3,
            "the temperature was subtracted from the gap, not divided into it": 4.0,
            "T² divided the gap; only the gradient of the loss carries T²": 3.0**0.5,
        },
    )


def tag_loss(attempt: Any) -> None:
    """T² times the KL divergence of yes-or-no answers, averaged over images and tags."""
    generator = torch.Generator().manual_seed(0)
    cases = [
        (*torch.randn(2, 6, 5, generator=generator, dtype=torch.float64) * 3, temperature)
        for temperature in (2.0, 5.0)
    ]

    def coins(z: Tensor, v: Tensor, T_student: float, T_teacher: float) -> Tensor:
        """Mean divergence of the coins, without T²; nobody is detached."""
        return (yes(z / T_student, v / T_teacher) + yes(-z / T_student, -v / T_teacher)).mean()

    def yes(z: Tensor, v: Tensor) -> Tensor:
        return v.sigmoid() * (F.logsigmoid(v) - F.logsigmoid(z))

    def true_loss(z: Tensor, v: Tensor, T: float) -> Tensor:
        return multilabel_kd_loss(z, v, temperature=T)

    judge_function(
        attempt,
        cases,
        true_loss,
        {
            "T² is missing": lambda z, v, T: coins(z, v.detach(), T, T),
            "T stands where T² belongs": lambda z, v, T: T * coins(z, v.detach(), T, T),
            "the tags are summed, not averaged": lambda z, v, T: true_loss(z, v, T) * z.shape[1],
            "images and tags are summed, not averaged": lambda z, v, T: true_loss(z, v, T) * z.numel(),
            "a softmax makes the tags compete: each tag is a coin of its own": (
                lambda z, v, T: kd_loss(z, v, temperature=T)
            ),
            "a softmax makes the tags compete, and the mean runs over them": (
                lambda z, v, T: kd_loss(z, v, temperature=T) / z.shape[1]
            ),
            "only the side yes of each coin is there: add the side no": (
                lambda z, v, T: T**2 * yes(z / T, v.detach() / T).mean()
            ),
            "this is the cross-entropy: its gradient is right, but it is not zero where both agree": (
                lambda z, v, T: T**2 * F.binary_cross_entropy_with_logits(z / T, (v.detach() / T).sigmoid())
            ),
            "student and teacher are swapped": lambda z, v, T: T**2 * coins(v.detach(), z, T, T),
            "the teacher learns too: detach its logits": lambda z, v, T: T**2 * coins(z, v, T, T),
            "the student does not learn: its logits are detached": (
                lambda z, v, T: true_loss(z.detach(), v, T)
            ),
            "only the student is softened": lambda z, v, T: T**2 * coins(z, v.detach(), T, 1.0),
            "only the teacher is softened": lambda z, v, T: T**2 * coins(z, v.detach(), 1.0, T),
        },
    )


def spent_budget(answer: Any) -> None:
    """Which of three ways to spend a budget buys the least with 500 labels?"""
    judge_choice(
        answer,
        correct="a student four times as large",
        why_not={
            "500 more labels": "look at the curve over the number of labels: how steep is it at 500?",
            "the teacher's answers": "that gain is in the figure of the four arms; is another one smaller?",
        },
    )
