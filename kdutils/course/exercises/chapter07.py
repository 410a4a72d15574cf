"""Exercise checks of notebook 07, a smaller version of the teacher."""

from typing import Any

import torch
from torch import Tensor

from kdutils.course.exercises.judge import NOT_ATTEMPTED, PASSED, judge_function, judge_value, not_yet


def largest_width(prediction: Any) -> None:
    """How wide may five layers be, if they are to have at most 50,000 parameters?"""
    judge_value(
        prediction,
        correct=13,
        tolerance=0.01,
        slips={
            "the width was rounded up: 14 takes 53,980 parameters": 14,
            "a whole width was asked for: the square root of the ratio is not whole": 13.55,
            "the parameters were taken to fall with the width; they fall with its square": 5,
            "the parameters were taken to fall with the width, rounded up; they fall with its square": 6,
            "some budget is left over: 13 takes 46,615 parameters": 12,
            "the widths of the first and the last layer were mixed up": 52,
        },
    )


def merged_weight(attempt: Any) -> None:
    """Weight of a convolution whose channels are merged in groups: mean over outputs, sum over inputs."""
    generator = torch.Generator().manual_seed(0)
    cases = [
        (torch.randn(*shape, 3, 3, generator=generator, dtype=torch.float64), group)
        for shape, group in (((6, 4), 2), ((6, 9), 3))
    ]

    def grouped(weight: Tensor, group: int) -> Tensor:
        outputs, inputs, height, width = weight.shape
        return weight.reshape(outputs // group, group, inputs // group, group, height, width)

    def far_apart(weight: Tensor, group: int) -> Tensor:
        """Every (O / group)-th output, and every (I / group)-th input, into one group."""
        outputs, inputs, height, width = weight.shape
        return weight.reshape(group, outputs // group, group, inputs // group, height, width)

    judge_function(
        attempt,
        cases,
        lambda weight, group: grouped(weight, group).mean(dim=1).sum(dim=2),
        {
            "the inputs were averaged: an input that stands for several must count as often": (
                lambda weight, group: grouped(weight, group).mean(dim=(1, 3))
            ),
            "the outputs were added up: a merged output is a mean": (
                lambda weight, group: grouped(weight, group).sum(dim=(1, 3))
            ),
            "only the outputs were merged": (
                lambda weight, group: grouped(weight, group).mean(dim=1).flatten(1, 2)
            ),
            "only the inputs were merged": (
                lambda weight, group: grouped(weight, group).sum(dim=3).flatten(0, 1)
            ),
            "channels were selected, not merged": lambda weight, group: weight[::group, ::group],
            "channels far apart were merged, not neighbors": (
                lambda weight, group: far_apart(weight, group).mean(dim=0).sum(dim=1)
            ),
        },
    )


def head_start(curves: Any) -> None:
    """Your steps → (accuracy from scratch, accuracy of the copy), for a short and a long training."""
    if curves is ...:
        print(NOT_ATTEMPTED)
        return
    try:
        leads = {float(steps): float(copied) - float(scratch) for steps, (scratch, copied) in curves.items()}
        seen = [float(accuracy) for pair in curves.values() for accuracy in pair]
        shortest, longest = min(leads), max(leads)
    except Exception:  # whatever the reader hands over: the verdict says what was expected
        print(not_yet("expected a dict, steps → two accuracies, as in {150: (70, 75), 600: (80, 81)}"))
        return
    if not all(0 <= accuracy <= 100 for accuracy in seen) or max(seen) <= 1:
        print(not_yet("expected accuracies in percent, from 0 to 100"))
    elif longest < 4 * shortest:
        print(not_yet(f"expected one length at least four times another, got {sorted(leads)}"))
    else:
        first, last = leads[shortest], leads[longest]
        fate = "fades" if abs(last) < abs(first) / 2 else "lasts"
        print(f"{PASSED} The copy's lead is {first:+.1f} points at first and {last:+.1f} at last: it {fate}.")
