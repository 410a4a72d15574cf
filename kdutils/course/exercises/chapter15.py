"""Exercise checks of notebook 15, the case study of SmolLM2."""

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

LAYER, TABLE = 16 * 2048**2, 49_152 * 2048


def share_saved(share: Any) -> None:
    """What six of 24 layers of width 2,048 are of all parameters, in percent."""
    judge_value(
        share,
        correct=100 * 6 * LAYER / (24 * LAYER + TABLE),
        tolerance=0.15,
        slips={
            "the vocabulary was forgotten: its table stays": 25.0,
            "the table counts once: it reads tokens and scores them": 100
            * 6
            * LAYER
            / (24 * LAYER + 2 * TABLE),
            "it is a share, not a percentage: times 100": 6 * LAYER / (24 * LAYER + TABLE),
            "that is what is left": 100 - 100 * 6 * LAYER / (24 * LAYER + TABLE),
            "that is the small model's share": 15.8,
        },
    )


def learned_tokens(attempt: Any) -> None:
    """The mask of what a student learns from padded texts whose end token also pads."""
    end = 2
    lengths, prompts = torch.tensor([6, 4, 8]), torch.tensor([3, 2, 1])
    tokens = torch.full((3, 8), end)
    for row, length in enumerate(lengths.tolist()):
        tokens[row, : length - 1] = torch.arange(5, 4 + length)
    tokens[2, 0] = end  # a prompt may hold an end, too, as that of a chat template does,
    tokens[2, 4] = end  # and so may an answer of two messages
    short = tokens[:1, :6], prompts[:1], lengths[:1], end
    judge_function(
        attempt,
        cases=[(tokens, prompts, lengths, end), short],
        definition=_learned,
        slips={
            "the padding was found by its number, and the end, which has the same one, is gone": (
                lambda tokens, prompts, lengths, end: (
                    _learned(tokens, prompts, torch.full_like(lengths, tokens.shape[1]), end)
                    & (tokens != end)
                )
            ),
            "the end of each text is missing: a text of length 6 ends at place 5": (
                lambda tokens, prompts, lengths, end: _learned(tokens, prompts, lengths - 1, end)
            ),
            "padding is learned: nothing at or behind `lengths` counts": (
                lambda tokens, prompts, lengths, end: _learned(
                    tokens, prompts, torch.full_like(lengths, tokens.shape[1]), end
                )
            ),
            "prompts are learned, too: only the answer counts": (
                lambda tokens, prompts, lengths, end: _learned(tokens, 0 * prompts, lengths, end)
            ),
            "the prompt's last token counts: a prompt of length 3 ends at place 2": (
                lambda tokens, prompts, lengths, end: _learned(tokens, prompts - 1, lengths, end)
            ),
            "the mask is turned round: True is what counts": (lambda *case: ~_learned(*case)),
        },
        gradient=False,
    )


def own_cut(found: Any) -> None:
    """A cut of the reader's own: layers removed, and nats from the whole model before and after healing."""
    names = ("removed", "cut", "labels", "distilled")
    if handed_in(found, names) is None:
        return
    removed, cut, labels, distilled = (number(found[name]) for name in names)
    if not (removed >= 1 and removed == int(removed)):
        print(not_yet(f"expected how many layers were removed, 1 or more, got {found['removed']!r}"))
    elif min(cut, labels, distilled) < 0:
        shown = [found[name] for name in names[1:]]
        print(not_yet(f"expected nats from the whole model, 0 or more, got {shown}"))
    elif distilled >= cut:
        print(
            not_yet(
                f"{distilled:.3f} nats after distilling are no less than {cut:.3f} before: try other rates, "
                "and see that the layers above the cut train"
            )
        )
    else:
        order = "as here" if distilled < labels else "the labels came nearer than the teacher's own answers"
        print(
            f"{PASSED}: distilling took back {100 * (1 - distilled / cut):.0f}% of the distance, labels "
            f"{100 * (1 - labels / cut):.0f}%: {order}"
        )


def _learned(tokens: Tensor, prompt_lengths: Tensor, lengths: Tensor, end: int) -> Tensor:
    place = torch.arange(tokens.shape[1])
    return (place >= prompt_lengths[:, None]) & (place < lengths[:, None])
