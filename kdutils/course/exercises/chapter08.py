"""Exercise checks of notebook 08, a quantized version of the teacher."""

import math
from typing import Any

import torch
from torch import Tensor

from kdutils.course.exercises.judge import judge_choice, judge_function, judge_value


def layer_bytes(prediction: Any) -> None:
    """How many bytes does a 3×3 convolution from 64 to 128 channels take, in four bits a weight?"""
    weights = 64 * 128 * 3 * 3
    judge_value(
        prediction,
        correct=weights / 2 + 2 * 128 * 4,
        tolerance=0.5,
        slips={
            "steps and biases were forgotten": weights / 2,
            "the steps were forgotten": weights / 2 + 128 * 4,
            "one step was stored for the whole layer": weights / 2 + 4 + 128 * 4,
            "every weight was given a whole byte": weights + 2 * 128 * 4,
            "four bytes were taken for a weight, not four bits": weights * 4 + 2 * 128 * 4,
            "steps and biases were given one byte each, not four": weights / 2 + 2 * 128,
            "a step was stored for every input channel": weights / 2 + 64 * 4 + 128 * 4,
            "the kernel's nine places were forgotten": 64 * 128 / 2 + 2 * 128 * 4,
        },
    )


def straight_through(attempt: Any) -> None:
    """Rounding to an unsigned grid, whose gradient is 1 where nothing is clipped."""
    generator = torch.Generator().manual_seed(0)
    cases = [
        (2 * torch.randn(5, 6, generator=generator, dtype=torch.float64) + 1, step, bits)
        for step, bits in ((0.25, 3), (0.4, 2))
    ]

    def through(values: Tensor, step: float, low: float, high: float, rounding: Any = torch.round) -> Tensor:
        integers = rounding(values / step)
        passing = values * ((low <= integers) & (integers <= high))
        return passing + (integers.clamp(low, high) * step - passing).detach()

    def passed(values: Tensor, numbers: Tensor) -> Tensor:
        return values + (numbers - values).detach()

    judge_function(
        attempt,
        cases,
        lambda values, step, bits: through(values, step, 0, 2**bits - 1),
        {
            "no gradient arrives: the staircase's own derivative is zero": (
                lambda values, step, bits: (values / step).round().clamp(0, 2**bits - 1) * step
            ),
            "clipped values get a gradient, too": (
                lambda values, step, bits: passed(values, through(values, step, 0, 2**bits - 1))
            ),
            "the ends of the grid get no gradient: clamp passes none to a value exactly at its bound": (
                lambda values, step, bits: (
                    passed(values / step, (values / step).round()).clamp(0, 2**bits - 1) * step
                )
            ),
            "nothing is clipped": lambda values, step, bits: through(values, step, -math.inf, math.inf),
            "the grid is the signed one": (
                lambda values, step, bits: through(values, step, 1 - 2 ** (bits - 1), 2 ** (bits - 1) - 1)
            ),
            "the grid has one number too many": lambda values, step, bits: through(values, step, 0, 2**bits),
            "only the upper end is clipped": (
                lambda values, step, bits: through(values, step, -math.inf, 2**bits - 1)
            ),
            "integers were returned: the step is missing at the end": (
                lambda values, step, bits: through(values / step, 1, 0, 2**bits - 1)
            ),
            "nothing is rounded": lambda values, step, bits: values.clamp(0, (2**bits - 1) * step),
            "it was rounded down, not to the nearest": (
                lambda values, step, bits: through(values, step, 0, 2**bits - 1, torch.floor)
            ),
        },
    )


def one_loud_channel(answer: Any) -> None:
    """Which step notices that one channel of a layer was made a thousand times as large?"""
    judge_choice(
        answer,
        correct="a step per layer",
        why_not={
            "neither": "the teacher's answers are the same, but is the layer's largest weight?",
            "a step per channel": "the loud channel's step grows with it: what are its integers then?",
            "both": "one of the two gives every channel a step of its own: what changes for the others?",
        },
    )
