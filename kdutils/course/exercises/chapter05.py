"""Exercise checks of notebook 05, online distillation."""

import math
from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from kdutils.compare import paired_gain
from kdutils.course.exercises.judge import handed_in, judge_choice, judge_function, judge_value, not_yet
from kdutils.losses.online import dml_loss

ARMS = ("alone", "same images", "own images")
HELP, HURT, OPEN = "the other's labels help", "the same images are better", "cannot tell"


def break_even(prediction: Any) -> None:
    """Half a billion weights, or 8 × 1,000 × 150,000 logits a step: how many steps make them equal?"""
    judge_value(
        prediction,
        correct=5e8 / (8 * 1000 * 150_000),
        tolerance=0.01,
        slips={
            "the tokens were forgotten: every token of a text has logits of its own": 5e8 / (8 * 150_000),
            "the texts were forgotten: a batch holds eight": 5e8 / (1000 * 150_000),
            "the vocabulary was forgotten: every token has 150,000 logits": 5e8 / 8000,
            "the weights were counted in bytes and the logits in numbers": 4 * 5e8 / 1.2e9,
            "the weights were counted in numbers and the logits in bytes": 5e8 / 4.8e9,
            "the fraction is upside down: k steps of logits cost as much as the weights once": 1.2e9 / 5e8,
        },
    )


def cohort_loss(attempt: Any) -> None:
    """The loss of a cohort that answers one another on every image, of which only some have labels."""
    generator = torch.Generator().manual_seed(0)
    labels = torch.tensor([0, 3, 1, 4, 2, 0])
    has_label = torch.tensor([True, False, True, True, False, False])
    cases = [
        (3 * torch.randn(peers, 6, 5, generator=generator, dtype=torch.float64), labels, has_label)
        for peers in (3, 4)
    ]
    every = torch.ones_like(has_label)

    def hard(logits: Tensor, labels: Tensor, where: Tensor) -> Tensor:
        return torch.stack([F.cross_entropy(own[where], labels[where]) for own in logits]).sum()

    def soft(
        logits: Tensor, where: Tensor = every, divergence: Callable[[Tensor, Tensor], Tensor] = dml_loss
    ) -> Tensor:
        pairs = [(own, other) for i, own in enumerate(logits) for j, other in enumerate(logits) if i != j]
        terms = [divergence(own[where], other[where]) for own, other in pairs]
        return torch.stack(terms).sum() / (len(logits) - 1)

    def both_learn(own: Tensor, other: Tensor) -> Tensor:
        log_q, log_p = F.log_softmax(own, dim=-1), F.log_softmax(other, dim=-1)
        return F.kl_div(log_q, log_p, log_target=True, reduction="batchmean")

    judge_function(
        attempt,
        cases,
        lambda z, y, m: hard(z, y, m) + soft(z),
        {
            "the images without a label were asked for one: their labels mean nothing": (
                lambda z, y, m: hard(z, y, every) + soft(z)
            ),
            "the peers answer one another on the labeled images only: the others are the point": (
                lambda z, y, m: hard(z, y, m) + soft(z, m)
            ),
            "the peers answer one another on the unlabeled images only: all images count": (
                lambda z, y, m: hard(z, y, m) + soft(z, ~m)
            ),
            "the cross-entropy was divided by the whole batch: it is a mean over the labeled images": (
                lambda z, y, m: hard(z, y, m) * m.double().mean() + soft(z)
            ),
            "the divergences are summed over the other peers, not averaged": (
                lambda z, y, m: hard(z, y, m) + soft(z) * (len(z) - 1)
            ),
            "the mean counts the peer itself among the others": (
                lambda z, y, m: hard(z, y, m) + soft(z) * (len(z) - 1) / len(z)
            ),
            "the other peers learn too: detach their logits": (
                lambda z, y, m: hard(z, y, m) + soft(z, divergence=both_learn)
            ),
            "a peer and the other are swapped in the divergence": (
                lambda z, y, m: (
                    hard(z, y, m) + soft(z, divergence=lambda own, other: both_learn(other.detach(), own))
                )
            ),
            "the labels are missing": lambda z, y, m: soft(z),
            "the peers do not learn from one another: only the labels count": (lambda z, y, m: hard(z, y, m)),
            "the cohort's mean was taken where the sum belongs": (
                lambda z, y, m: (hard(z, y, m) + soft(z)) / len(z)
            ),
        },
    )


def missing_control(results: Any) -> None:
    """Accuracies of three arms under the same seeds, and what the reader concludes from them.

    Args:
        results: `"alone"`, `"same images"` and `"own images"`: accuracies in percent, one for every seed;
            `"so"`: the conclusion, which has to follow from the interval of own over same images.
    """
    if handed_in(results, [*ARMS, "so"]) is None:
        return
    columns = [_accuracies(results[arm]) for arm in ARMS]
    if not all(columns) or len(set(map(len, columns))) > 1 or len(columns[0]) < 3:
        print(not_yet("expected accuracies in percent, for the same three or more seeds in every arm"))
        return
    alone, same, own = columns
    if alone in (same, own) or same == own:
        print(
            not_yet("two arms are the same run: did the peers exchange anything, and read what they should?")
        )
        return
    gain = paired_gain(a - b for a, b in zip(own, same, strict=True))
    follows = HELP if gain.low > 0 else HURT if gain.high < 0 else OPEN
    found = f"own over same images: {gain.mean:+.2f} points, interval {gain.low:+.2f} to {gain.high:+.2f}"
    judge_choice(results["so"], follows, {other: found for other in {HELP, HURT, OPEN} - {follows}})


def _accuracies(values: Any) -> list[float]:
    """The values as numbers; an empty list where they are no accuracies in percent."""
    try:
        numbers = [float(value) for value in values]
    except Exception:  # whatever the reader hands over: the verdict says what was expected
        return []
    return numbers if all(math.isfinite(x) and 0 <= x <= 100 for x in numbers) else []
