"""Exercise checks of notebook 09, a small network with an optimized architecture."""

from typing import Any

import torch
from torch import Tensor

from kdutils.course.exercises.judge import judge_choice, judge_function, judge_value


def times_cheaper(prediction: Any) -> None:
    """By what factor do the MACs shrink if a 5×5 convolution from 64 to 128 channels becomes separable?"""
    judge_value(
        prediction,
        correct=1 / (1 / 128 + 1 / 25),
        tolerance=0.05,
        slips={
            "the window were 3×3: this one has 25 positions": 1 / (1 / 128 + 1 / 9),
            "the window had five positions: it is a square": 1 / (1 / 128 + 1 / 5),
            "the depthwise part was left out: it looks around at 25 positions": 25.0,
            "the pointwise part was left out: the channels must still be mixed": 128.0,
            "input and output channels were swapped: which does the ratio keep?": 1 / (1 / 64 + 1 / 25),
            "both parts were multiplied: they are done one after the other": 128.0 * 25.0,
            "it is the other way round: by what factor do they shrink": 1 / 128 + 1 / 25,
        },
    )


def nearest_mixed_first(attempt: Any) -> None:
    """The weight nearest to a plain convolution's that a pointwise and then a depthwise one can make."""
    generator = torch.Generator().manual_seed(0)

    def weight(outputs: int, inputs: int) -> Tensor:
        return torch.randn(outputs, inputs, 3, 3, generator=generator, dtype=torch.float64)

    judge_function(
        attempt,
        cases=[(weight(5, 4),), (weight(6, 6),)],
        definition=lambda w: _as_weight(_of_rank(w.flatten(2), 1)),
        slips={
            "every input channel had one pattern: that is the chapter's order, look first and mix after": (
                lambda w: _as_weight(_of_rank(w.transpose(0, 1).flatten(2), 1)).transpose(0, 1)
            ),
            "all channels shared one pattern: every output channel has its own": (
                lambda w: _of_rank(w.reshape(1, -1, 9), 1).reshape(w.shape)
            ),
            "two patterns per channel were kept: a depthwise convolution has one": (
                lambda w: _as_weight(_of_rank(w.flatten(2), 2))
            ),
            "the singular values are missing": lambda w: _as_weight(
                _of_rank(w.flatten(2), 1, weighted=False)
            ),
            "the pattern were the mean over the inputs: the nearest one weighs them": _with_mean_pattern,
            "input and output channels stand the wrong way round in the result": (
                lambda w: _as_weight(_of_rank(w.flatten(2), 1)).transpose(0, 1)
            ),
        },
        gradient=False,
    )


def one_layer(answer: Any) -> None:
    """Which layer of the teacher costs most if its nearest separable one takes its place?"""
    judge_choice(
        answer,
        correct="stages.1.3",
        why_not={
            "stages.1.0": "another layer keeps as little of its weights: measure both",
            "stages.2.0": "two layers keep less of their weights: measure them",
            "stages.2.3": "four fifths of its squared weights are kept, and it costs least",
        },
    )


def _of_rank(matrices: Tensor, rank: int, weighted: bool = True) -> Tensor:
    """The nearest matrices of a rank; without their singular values where not weighted."""
    u, s, v = torch.linalg.svd(matrices, full_matrices=False)
    left = u * s[:, None] if weighted else u
    return left[:, :, :rank] @ v[:, :rank]


def _as_weight(by_output: Tensor) -> Tensor:
    return by_output.unflatten(2, (3, 3))


def _with_mean_pattern(weight: Tensor) -> Tensor:
    pattern = weight.mean(dim=1).flatten(1)
    pattern = pattern / pattern.norm(dim=1, keepdim=True)
    mixture = torch.einsum("ocp,op->oc", weight.flatten(2), pattern)
    return (mixture[:, :, None] * pattern[:, None]).unflatten(2, (3, 3))
