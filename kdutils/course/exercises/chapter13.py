"""Exercise checks of notebook 13, language models."""

import math
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from kdutils.compare import paired_gain
from kdutils.course.exercises.judge import PASSED, handed_in, judge_function, judge_value, not_yet


def stored_size(size_gb: Any) -> None:
    """Gigabytes of the 20 likeliest tokens at 300 million positions, 32-bit ids and half precision."""
    judge_value(
        size_gb,
        correct=36.0,
        tolerance=0.5,
        slips={
            "the ids were forgotten": 12.0,
            "the log-probabilities were forgotten": 24.0,
            "the log-probabilities took four bytes each": 48.0,
            "it is one number a position, not 20": 1.8,
            "it was counted in megabytes": 36_000.0,
            "it was counted in bits": 288.0,
        },
    )


def top_k(attempt: Any) -> None:
    """Forward KL over the k likeliest tokens and the rest as one class."""

    def case(seed: int) -> tuple[Tensor, Tensor, Tensor]:
        generator = torch.Generator().manual_seed(seed)
        student, teacher = 1.5 * torch.randn(2, 6, 9, dtype=torch.float64, generator=generator)
        log_probs, ids = teacher.log_softmax(dim=-1).topk(3)
        return student, ids, log_probs

    judge_function(
        attempt,
        cases=[case(0), case(1)],
        definition=_top_k,
        slips={
            "the rest is missing: k + 1 classes": lambda s, ids, log_p: _top_k(s, ids, log_p, rest=False),
            "the k were renormalized: the rest is a class of its own": _renormalized,
            "the mean runs over the k + 1 classes, too: sum over them": (
                lambda s, ids, log_p: _top_k(s, ids, log_p) / (ids.shape[1] + 1)
            ),
            "it is summed over M: take the mean": lambda s, ids, log_p: _top_k(s, ids, log_p) * len(ids),
            "the student's softmax runs over the k tokens only": _softmax_over_k,
            "it is the reverse KL": lambda s, ids, log_p: _top_k(s, ids, log_p, reverse=True),
            "the teacher learns, too: detach its side": (
                lambda s, ids, log_p: _top_k(s, ids, log_p, detach=False)
            ),
        },
    )


def own_budget(found: Any) -> None:
    """Another student or budget: words right with labels and distilled, seed by seed."""
    names = ("parameters", "labels", "distilled")
    if handed_in(found, names) is None:
        return
    labels, distilled = (_percentages(found[name]) for name in names[1:])
    if not isinstance(found["parameters"], int) or found["parameters"] < 1:
        print(not_yet(f"expected the number of your student's parameters, got {found['parameters']!r}"))
        return
    if min(len(labels), len(distilled)) < 3 or len(labels) != len(distilled):
        print(not_yet("expected three or more percentages for each arm, one for each seed, in one order"))
    elif labels == distilled:
        print(not_yet("both arms say the same, seed by seed: did the second learn from the teacher?"))
    elif len(set(labels)) == 1 and len(set(distilled)) == 1:
        print(not_yet("all seeds say the same: draw words, weights and batches from the seed"))
    elif max(labels + distilled) < 1:
        print(not_yet("neither arm says anything right: train longer, or count phonemes"))
    else:
        gain = paired_gain([new - old for old, new in zip(labels, distilled, strict=True)])
        where = "it holds zero" if gain.low <= 0 <= gain.high else "it leaves zero out"
        print(f"{PASSED}: {gain.mean:+.1f} points, 95% interval {gain.interval}; {where}")


def _percentages(values: Any) -> list[float]:
    try:
        numbers = [float(value) for value in values]
    except Exception:  # whatever the reader hands over: the verdict says what was expected
        return []
    return numbers if all(math.isfinite(n) and 0 <= n <= 100 for n in numbers) else []


def _top_k(
    student_logits: Tensor,
    ids: Tensor,
    log_probs: Tensor,
    rest: bool = True,
    reverse: bool = False,
    detach: bool = True,
) -> Tensor:
    p = (log_probs.detach() if detach else log_probs).exp()
    q = student_logits.softmax(dim=-1).gather(1, ids)
    if rest:
        p, q = (torch.cat([x, 1 - x.sum(dim=-1, keepdim=True)], dim=-1) for x in (p, q))
    p, q = (q, p) if reverse else (p, q)
    return (p * (p / q).log()).sum(dim=-1).mean()


def _renormalized(student_logits: Tensor, ids: Tensor, log_probs: Tensor) -> Tensor:
    log_p = F.log_softmax(log_probs.detach(), dim=-1)
    log_q = student_logits.log_softmax(dim=-1).gather(1, ids)
    return (log_p.exp() * (log_p - log_q)).sum(dim=-1).mean()


def _softmax_over_k(student_logits: Tensor, ids: Tensor, log_probs: Tensor) -> Tensor:
    log_p = F.log_softmax(log_probs.detach(), dim=-1)
    log_q = F.log_softmax(student_logits.gather(1, ids), dim=-1)
    return (log_p.exp() * (log_p - log_q)).sum(dim=-1).mean()
