"""Exercise checks of notebook 01, response knowledge."""

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from kdutils.course.exercises.judge import judge_choice, judge_function, judge_value
from kdutils.losses.response import kd_loss


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


def soft_loss(attempt: Any) -> None:
    """T² times the KL divergence of softened answers, summed over classes, averaged over the batch."""
    generator = torch.Generator().manual_seed(0)
    cases = [
        (*torch.randn(2, 6, 5, generator=generator, dtype=torch.float64) * 3, temperature)
        for temperature in (2.0, 5.0)
    ]

    def log_p(logits: Tensor, temperature: float) -> Tensor:
        return F.log_softmax(logits / temperature, dim=1)

    def divergence(log_q: Tensor, log_p: Tensor) -> Tensor:
        return F.kl_div(log_q, log_p, log_target=True, reduction="batchmean")

    judge_function(
        attempt,
        cases,
        lambda s, t, T: kd_loss(s, t, temperature=T),
        {
            "T² is missing": lambda s, t, T: divergence(log_p(s, T), log_p(t.detach(), T)),
            "T stands where T² belongs": lambda s, t, T: T * divergence(log_p(s, T), log_p(t.detach(), T)),
            "the mean also runs over the classes": lambda s, t, T: kd_loss(s, t, temperature=T) / s.shape[1],
            "the sum over the batch is not divided by N": lambda s, t, T: (
                kd_loss(s, t, temperature=T) * s.shape[0]
            ),
            "student and teacher are swapped": lambda s, t, T: kd_loss(t, s, temperature=T),
            "the teacher learns too: detach its logits": lambda s, t, T: (
                T**2 * divergence(log_p(s, T), log_p(t, T))
            ),
            "the student does not learn: its logits are detached": lambda s, t, T: kd_loss(
                s.detach(), t, temperature=T
            ),
            "probabilities stand where kl_div expects log-probabilities": lambda s, t, T: (
                T**2 * F.kl_div(log_p(s, T).exp(), log_p(t.detach(), T).exp(), reduction="batchmean")
            ),
            "the teacher's log-probabilities stand where probabilities belong (or log_target=True)": (
                lambda s, t, T: T**2 * F.kl_div(log_p(s, T), log_p(t.detach(), T), reduction="batchmean")
            ),
            "the teacher's logits are on both sides": lambda s, t, T: (
                kd_loss(t.detach(), t, temperature=T) + 0 * s.sum()
            ),
            "only the student is softened": lambda s, t, T: (
                T**2 * divergence(log_p(s, T), log_p(t.detach(), 1.0))
            ),
            "only the teacher is softened": lambda s, t, T: (
                T**2 * divergence(log_p(s, 1.0), log_p(t.detach(), T))
            ),
            "the softmax runs over the batch, not over the classes": lambda s, t, T: (
                T**2 * divergence(F.log_softmax(s / T, dim=0), F.log_softmax(t.detach() / T, dim=0))
            ),
        },
    )


def permuted_teacher(answer: Any) -> None:
    """What happens to a student whose teacher names every class by another class's name?"""
    judge_choice(
        answer,
        correct="far below labels only",
        why_not={
            "the same as labels only": "the teacher carries most of the weight: can it be ignored?",
            "slightly below labels only": "the labels carry a tenth of the weight: which of the two does the "
            "student follow where they disagree on every single image?",
            "better than labels only": "soft targets help because they are right about the classes, "
            "not because they are soft",
        },
    )
