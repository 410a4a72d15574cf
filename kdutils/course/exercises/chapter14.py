"""Exercise checks of notebook 14, on-policy, reasoning and drafts."""

from typing import Any

import torch
from torch import Tensor

from kdutils.course.exercises.judge import (
    PASSED,
    handed_in,
    judge_function,
    judge_value,
    not_yet,
    number,
)


def tokens_brought(tokens: Any) -> None:
    """Tokens that a call of the target brings, with four drafted and an acceptance of .8."""
    judge_value(
        tokens,
        correct=sum(0.8**accepted for accepted in range(5)),
        tolerance=0.02,
        slips={
            "the target's own token was forgotten": sum(0.8**accepted for accepted in range(1, 5)),
            "drafted tokens count after a refusal, too: all four times .8, and one": 1 + 4 * 0.8,
            "drafted tokens count after a refusal, too: all four times .8": 4 * 0.8,
            "the target adds one token only where all four were accepted": (
                sum(0.8**accepted for accepted in range(1, 5)) + 0.8**4
            ),
            "the first refusal never comes: 1 / (1 − .8) is for endlessly many drafted tokens": 5.0,
        },
    )


def score_function(attempt: Any) -> None:
    """Score-function loss of the reverse KL on tokens that the student drew."""

    def case(seed: int) -> tuple[Tensor, Tensor, Tensor]:
        generator = torch.Generator().manual_seed(seed)
        student, teacher = 1.5 * torch.randn(2, 6, 5, dtype=torch.float64, generator=generator)
        return student, teacher, torch.randint(5, (6,), generator=generator)

    judge_function(
        attempt,
        cases=[case(0), case(1)],
        definition=_score_function,
        slips={
            "the log-ratio itself is differentiated: its gradient is zero on average": _log_ratio,
            "the reward learns, too: detach the log-ratio": (
                lambda s, t, ids: _score_function(s, t, ids, detach=False)
            ),
            "the sign is turned round: it would learn to say what the teacher would not": (
                lambda s, t, ids: -_score_function(s, t, ids)
            ),
            "it is summed over M: take the mean": lambda s, t, ids: _score_function(s, t, ids) * len(ids),
            "the tokens are weighed by their probability, which drawing them has done already": (
                lambda s, t, ids: _score_function(s, t, ids, weigh=True)
            ),
        },
    )


def own_draft(found: Any) -> None:
    """A draft of the reader's own: tokens drafted, the share accepted, and tokens that a call brought."""
    names = ("drafted", "acceptance", "tokens")
    if handed_in(found, names) is None:
        return
    drafted, share, tokens = (number(found[name]) for name in names)
    if not (drafted >= 1 and drafted == int(drafted)):
        print(not_yet(f"expected how many tokens were drafted, 1 or more, got {found['drafted']!r}"))
    elif not 0 <= share < 1:
        print(not_yet(f"expected the acceptance as a share from 0 to below 1, got {found['acceptance']!r}"))
    elif not 1 <= tokens <= drafted + 1:
        print(not_yet(f"a call brings from 1 to {drafted + 1:.0f} tokens, got {found['tokens']!r}"))
    else:
        formula = (1 - share ** (drafted + 1)) / (1 - share)
        if tokens > 1.25 * formula:
            print(
                not_yet(
                    f"{tokens:.2f} tokens a call are more than the {formula:.2f} of the formula: count the "
                    "tokens written, not those drafted, and take the share of judged tokens"
                )
            )
        else:
            print(f"{PASSED}: {tokens:.2f} tokens a call; for endless texts the formula says {formula:.2f}")


def _log_ratio(student_logits: Tensor, teacher_logits: Tensor, token_ids: Tensor) -> Tensor:
    return (_log_of(student_logits, token_ids) - _log_of(teacher_logits.detach(), token_ids)).mean()


def _score_function(
    student_logits: Tensor,
    teacher_logits: Tensor,
    token_ids: Tensor,
    detach: bool = True,
    weigh: bool = False,
) -> Tensor:
    log_q = _log_of(student_logits, token_ids)
    reward = log_q - _log_of(teacher_logits.detach(), token_ids)
    weight = log_q.exp().detach() if weigh else 1.0
    return (weight * (reward.detach() if detach else reward) * log_q).mean()


def _log_of(logits: Tensor, token_ids: Tensor) -> Tensor:
    return logits.log_softmax(dim=-1).gather(1, token_ids[:, None])[:, 0]
