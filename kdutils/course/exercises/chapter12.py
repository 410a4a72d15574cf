"""Exercise checks of notebook 12, the DistilBERT case study."""

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from kdutils.course.exercises.judge import judge_function, judge_value


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


def kept_above_chance(attempt: Any) -> None:
    """The chance-corrected twin of a retention: what is kept of the teacher's lead over guessing."""

    def definition(kept: Tensor, teacher: Tensor, classes: Tensor) -> Tensor:
        chance = 100 / classes
        return 100 * (kept * teacher / 100 - chance) / (teacher - chance)

    cases = [(97.0, 90.0, 2), (98.0, 92.0, 3), (90.0, 60.0, 1000), (86.4, 69.3, 2)]
    judge_function(
        attempt,
        cases=[tuple(torch.tensor(number, dtype=torch.float64) for number in case) for case in cases],
        definition=definition,
        slips={
            "chance was not taken off: that is the retention itself": lambda kept, teacher, classes: kept,
            "chance was taken off the student only": (
                lambda kept, teacher, classes: 100 * (kept * teacher / 100 - 100 / classes) / teacher
            ),
            "chance was taken off the retention: first work out the student's accuracy": (
                lambda kept, teacher, classes: 100 * (kept - 100 / classes) / (teacher - 100 / classes)
            ),
            "chance is 50% for any number of classes: it is 100 / classes": (
                lambda kept, teacher, classes: 100 * (kept * teacher / 100 - 50) / (teacher - 50)
            ),
            "that is the part lost: the part kept was asked for": (
                lambda kept, teacher, classes: 100 - definition(kept, teacher, classes)
            ),
            "a share was returned: percent were asked for": (
                lambda kept, teacher, classes: definition(kept, teacher, classes) / 100
            ),
        },
        gradient=False,
    )


def _squares(student: Tensor, teacher: Tensor, mask: Tensor) -> Tensor:
    """Squared differences, zero at the padding."""
    return (student - teacher).square() * mask.unsqueeze(2)
