"""Exercise checks of notebook 08, a quantized version of the teacher."""

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
            "scales and biases were forgotten": weights / 2,
            "the scales were forgotten": weights / 2 + 128 * 4,
            "one scale was stored for the whole layer": weights / 2 + 4 + 128 * 4,
            "every weight was given a whole byte": weights + 2 * 128 * 4,
            "four bytes were taken for a weight, not four bits": weights * 4 + 2 * 128 * 4,
            "scales and biases were given one byte each, not four": weights / 2 + 2 * 128,
            "a scale was stored for every input channel": weights / 2 + 64 * 4 + 128 * 4,
            "the kernel's nine places were forgotten": 64 * 128 / 2 + 2 * 128 * 4,
        },
    )


def rounded_in_groups(attempt: Any) -> None:
    """Rounding to a symmetric grid that has one scale for every group of consecutive inputs."""
    generator = torch.Generator().manual_seed(0)
    cases = [
        (torch.randn(4, 12, generator=generator, dtype=torch.float64), group_size, bits)
        for group_size, bits in ((4, 4), (3, 3))
    ]

    def to_grid(groups: Tensor, largest: Tensor, highest: float, rounding: Any = torch.round) -> Tensor:
        scale = largest / highest
        return rounding(groups / scale) * scale

    def rounded(weight: Tensor, group_size: int, highest: float, rounding: Any = torch.round) -> Tensor:
        groups = weight.reshape(len(weight), -1, group_size)
        largest = groups.abs().amax(dim=2, keepdim=True)
        return to_grid(groups, largest, highest, rounding).reshape(weight.shape)

    def interleaved(weight: Tensor, group_size: int, bits: int) -> Tensor:
        """Members of a group as far apart as there are groups."""
        groups = weight.reshape(len(weight), group_size, -1)
        largest = groups.abs().amax(dim=1, keepdim=True)
        return to_grid(groups, largest, 2 ** (bits - 1) - 1).reshape(weight.shape)

    def without_the_sign(weight: Tensor, group_size: int, bits: int) -> Tensor:
        groups = weight.reshape(len(weight), -1, group_size)
        largest = groups.amax(dim=2, keepdim=True)
        return to_grid(groups, largest, 2 ** (bits - 1) - 1).reshape(weight.shape)

    def integers(weight: Tensor, group_size: int, bits: int) -> Tensor:
        groups = weight.reshape(len(weight), -1, group_size)
        scale = groups.abs().amax(dim=2, keepdim=True) / (2 ** (bits - 1) - 1)
        return torch.round(groups / scale).reshape(weight.shape)

    judge_function(
        attempt,
        cases,
        lambda weight, group_size, bits: rounded(weight, group_size, 2 ** (bits - 1) - 1),
        {
            "every output has one scale: its inputs make several groups": (
                lambda weight, group_size, bits: rounded(weight, weight.shape[1], 2 ** (bits - 1) - 1)
            ),
            "the layer has one scale": (
                lambda weight, group_size, bits: to_grid(weight, weight.abs().max(), 2 ** (bits - 1) - 1)
            ),
            "the members of a group are not neighbors": interleaved,
            "the groups lie along the outputs, not along the inputs": (
                lambda weight, group_size, bits: rounded(weight.T, len(weight), 2 ** (bits - 1) - 1).T
            ),
            "the grid is not symmetric: it has one number too many": (
                lambda weight, group_size, bits: rounded(weight, group_size, 2 ** (bits - 1))
            ),
            "the sign has no bit of its own": (
                lambda weight, group_size, bits: rounded(weight, group_size, 2**bits - 1)
            ),
            "the largest value was taken, not the largest magnitude": without_the_sign,
            "integers were returned: the scale is missing at the end": integers,
            "it was rounded down, not to the nearest": (
                lambda weight, group_size, bits: rounded(weight, group_size, 2 ** (bits - 1) - 1, torch.floor)
            ),
        },
        gradient=False,
    )


def one_loud_channel(answer: Any) -> None:
    """Which scale notices that one channel of a layer was made a thousand times as large?"""
    judge_choice(
        answer,
        correct="a scale per layer",
        why_not={
            "neither": "the teacher's answers are the same, but is the layer's largest weight?",
            "a scale per channel": "the loud channel's scale grows with it: what are its integers then?",
            "both": "one of the two gives every channel a scale of its own: what changes for the others?",
        },
    )
