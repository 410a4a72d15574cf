"""Exercise checks of notebook 10, pruning and combining."""

from typing import Any

import torch
from torch import Tensor

from kdutils.course.exercises.judge import judge_choice, judge_function, judge_value


def break_even_sparsity(prediction: Any) -> None:
    """From which share of zeros on is a list of 8-bit values with 16-bit positions the smaller file?"""
    judge_value(
        prediction,
        correct=2 / 3,
        tolerance=0.005,
        slips={
            "that is the share that stays (or weights of 32 bits): which share has to go?": 1 / 3,
            "the positions alone are stored: the values are needed, too": 1 / 2,
            "it is in percent: give a share between 0 and 1": 200 / 3,
            "a position had 32 bits": 1 - 8 / (8 + 32),
        },
    )


def without_inputs(attempt: Any) -> None:
    """The weight of a linear layer behind a flattening, without the inputs of removed channels."""
    generator = torch.Generator().manual_seed(0)

    def case(outputs: int, channels: int, positions: int, kept: list[int]) -> tuple[Tensor, Tensor, int]:
        weight = torch.randn(outputs, channels * positions, generator=generator, dtype=torch.float64)
        return weight, torch.tensor(kept), positions

    judge_function(
        attempt,
        cases=[case(3, 4, 6, [1, 3]), case(5, 6, 4, [0, 2, 5])],
        definition=lambda w, kept, positions: w.reshape(len(w), -1, positions)[:, kept].reshape(len(w), -1),
        slips={
            "a channel owned one column: it owns as many as the map has positions": (
                lambda w, kept, positions: w[:, kept]
            ),
            "the channels changed fastest: `flatten` lays one channel after the other": (
                lambda w, kept, positions: w.reshape(len(w), positions, -1)[:, :, kept].reshape(len(w), -1)
            ),
            "the channels that go were kept": lambda w, kept, positions: w.reshape(len(w), -1, positions)[
                :, _others(kept, w.shape[1] // positions)
            ].reshape(len(w), -1),
            "the channels stand apart from the positions: give two dimensions back": (
                lambda w, kept, positions: w.reshape(len(w), -1, positions)[:, kept]
            ),
            "the removed inputs are zero, but still there": (
                lambda w, kept, positions: (
                    w * _is_kept(kept, w.shape[1] // positions).repeat_interleave(positions)
                )
            ),
        },
    )


def sensitive_layer(answer: Any) -> None:
    """After which layer's pruning does the teacher's accuracy fall lowest?"""
    measure = "measured, this one bears more than another: `remove_channels` takes one layer alone"
    judge_choice(
        answer,
        correct="stages.2.0",
        why_not={
            "stages.0.0": "close: it has the fewest channels, and one of the others still bears less",
            "stages.1.0": measure,
            "stages.1.3": measure,
            "stages.2.3": "it feeds the classifier alone, and bears most: measure the others",
        },
    )


def _is_kept(kept: Tensor, channels: int) -> Tensor:
    return torch.isin(torch.arange(channels), kept).double()


def _others(kept: Tensor, channels: int) -> Tensor:
    return (_is_kept(kept, channels) == 0).nonzero().flatten()
