"""Exercise checks of notebook 07, a smaller version of the teacher."""

from typing import Any

import torch
from torch import Tensor

from kdutils.course.exercises.judge import judge_choice, judge_function, judge_value


def times_fewer(prediction: Any) -> None:
    """How many times fewer MACs has the teacher's architecture at a quarter of its width?"""
    judge_value(
        prediction,
        correct=13_605_248 / 861_152,
        tolerance=0.02,
        slips={
            "every layer saved the square: the first convolution reads one channel, and ten numbers are "
            "written at the end": 16.0,
            "only one side of a layer was cut: inside the network input and output channels are": 4.0,
            "parameters were counted, not MACs": 278_890 / 17_890,
            "the student also lost layers": 13_605_248 / 296_672,
            "it is the other way round: how many times fewer": 861_152 / 13_605_248,
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
            "channels far apart were merged, not neighbours": (
                lambda weight, group: far_apart(weight, group).mean(dim=0).sum(dim=1)
            ),
        },
    )


def head_start(answer: Any) -> None:
    """What becomes of the copied channels' lead when both students train four times as long?"""
    judge_choice(
        answer,
        correct="smaller",
        why_not={
            "larger": "what can the copy still learn that the other cannot? Both hear the same answers",
            "the same": "the lead is where the way begins: measure both after more steps, at their own rates",
        },
    )
