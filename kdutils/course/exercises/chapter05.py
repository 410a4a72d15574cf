"""Exercise checks of notebook 05, online distillation."""

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from kdutils.course.exercises.judge import judge_choice, judge_function, judge_value
from kdutils.losses.online import dml_loss


def break_even(prediction: Any) -> None:
    """A million weights, or 128 × 10 logits a step: how many steps between exchanges make them equal?"""
    judge_value(
        prediction,
        correct=781.25,
        tolerance=1.0,
        slips={
            "the batch was forgotten: every step sends the logits of 128 images": 100_000,
            "the classes were forgotten: every image has 10 logits": 7812.5,
            "the weights were counted in bytes and the logits in numbers": 3125,
            "the weights were counted in numbers and the logits in bytes": 195.3125,
        },
    )


def cohort_loss(attempt: Any) -> None:
    """The loss of a whole cohort: each peer's cross-entropy and its mean divergence from the others."""
    generator = torch.Generator().manual_seed(0)
    labels = torch.tensor([0, 3, 1, 4, 2, 0])
    cases = [
        (3 * torch.randn(peers, 6, 5, generator=generator, dtype=torch.float64), labels) for peers in (3, 4)
    ]

    def hard(logits: Tensor, labels: Tensor) -> Tensor:
        return torch.stack([F.cross_entropy(own, labels) for own in logits]).sum()

    def pairs(logits: Tensor) -> list[tuple[Tensor, Tensor]]:
        return [(own, other) for i, own in enumerate(logits) for j, other in enumerate(logits) if i != j]

    def divergences(logits: Tensor) -> Tensor:
        return torch.stack([dml_loss(own, other) for own, other in pairs(logits)]).sum()

    def from_every_other(own: Tensor, other: Tensor) -> Tensor:
        log_q, log_p = F.log_softmax(own, dim=-1), F.log_softmax(other, dim=-1)
        return F.kl_div(log_q, log_p, log_target=True, reduction="batchmean")

    judge_function(
        attempt,
        cases,
        lambda logits, y: hard(logits, y) + divergences(logits) / (len(logits) - 1),
        {
            "the divergences are summed over the other peers, not averaged": (
                lambda logits, y: hard(logits, y) + divergences(logits)
            ),
            "the mean counts the peer itself among the others": (
                lambda logits, y: hard(logits, y) + divergences(logits) / len(logits)
            ),
            "the other peers learn too: detach their logits": lambda logits, y: (
                hard(logits, y) + sum(from_every_other(*pair) for pair in pairs(logits)) / (len(logits) - 1)
            ),
            "a peer and the other are swapped in the divergence": lambda logits, y: (
                hard(logits, y)
                + sum(from_every_other(other.detach(), own) for own, other in pairs(logits))
                / (len(logits) - 1)
            ),
            "the labels are missing": lambda logits, y: divergences(logits) / (len(logits) - 1),
            "the peers do not learn from one another: only the labels count": hard,
            "the cohort's mean was taken where the sum belongs": lambda logits, y: (
                hard(logits, y) / len(logits) + divergences(logits) / (len(logits) - 1) / len(logits)
            ),
        },
    )


def heavy_weight(answer: Any) -> None:
    """What does a heavy mutual weight do to the lead of the ensemble over its peers?"""
    judge_choice(
        answer,
        correct="it shrinks",
        why_not={
            "it grows": "an ensemble lives on peers that err differently: what does agreeing do to that?",
            "it stays": "look at how often the peers disagree, at a weight of 0 and at a weight of 10",
        },
    )
