"""Exercise checks of notebook 12, the DistilBERT case study."""

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from kdutils.course.exercises.judge import judge_choice, judge_function, judge_value


def saved_of_large(prediction: Any) -> None:
    """How many per cent of BERT-large's parameters does halving its layers save, without the pooler?"""
    layers, embeddings, pooler = 302.3, 31.8, 1.0
    whole = layers + embeddings + pooler
    judge_value(
        prediction,
        correct=100 * (layers / 2 + pooler) / whole,
        tolerance=0.06,
        slips={
            "the pooler stayed": 100 * (layers / 2) / whole,
            "the embeddings were halved, too": 100 * (layers / 2 + embeddings / 2 + pooler) / whole,
            "that is what is left, not what is saved": 100 * (layers / 2 + embeddings) / whole,
            "only the layers were counted": 50.0,
            "the share is a fraction: per cent were asked for": (layers / 2 + pooler) / whole,
        },
    )


def hidden_mse(attempt: Any) -> None:
    """Mean squared difference of hidden states over the kept tokens and the width."""
    generator = torch.Generator().manual_seed(0)

    def case(mask: list[list[int]]) -> tuple[Tensor, Tensor, Tensor]:
        shape = len(mask), len(mask[0]), 3
        student, teacher = (torch.randn(shape, generator=generator, dtype=torch.float64) for _ in range(2))
        return student, teacher, torch.tensor(mask)

    judge_function(
        attempt,
        cases=[case([[1, 1, 1, 0], [1, 0, 0, 0]]), case([[1, 1, 0], [1, 1, 1], [1, 0, 0]])],
        definition=lambda s, t, mask: F.mse_loss(s[mask == 1], t.detach()[mask == 1]),
        slips={
            "padding counts, too": lambda s, t, mask: F.mse_loss(s, t.detach()),
            "the mean also runs over the padding, whose differences were set to zero": (
                lambda s, t, mask: _squares(s, t.detach(), mask).mean()
            ),
            "the squares are added up over the width: the mean was asked for": (
                lambda s, t, mask: _squares(s, t.detach(), mask).sum() / mask.sum()
            ),
            "the kept tokens are not averaged": (
                lambda s, t, mask: _squares(s, t.detach(), mask).sum() / s.shape[2]
            ),
            "every sentence weighs the same: every kept token should": (
                lambda s, t, mask: (_squares(s, t.detach(), mask).mean(2).sum(1) / mask.sum(1)).mean()
            ),
            "the padding was kept and the words were left out": (
                lambda s, t, mask: F.mse_loss(s[mask == 0], t.detach()[mask == 0])
            ),
            "the teacher learns, too: detach it": (lambda s, t, mask: F.mse_loss(s[mask == 1], t[mask == 1])),
        },
    )


def lost_above_chance(answer: Any) -> None:
    """Which part of what the teacher knows above guessing is lost, when 97 % of 90 % is kept?"""
    judge_choice(
        answer,
        correct="about 7 %",
        why_not={
            "3 %": "that is the part lost of the whole score, guessing included",
            "about 3 points": "true, and no part of anything: by what are they to be divided?",
        },
    )


def _squares(student: Tensor, teacher: Tensor, mask: Tensor) -> Tensor:
    """Squared differences, zero at the padding."""
    return (student - teacher).square() * mask.unsqueeze(2)
