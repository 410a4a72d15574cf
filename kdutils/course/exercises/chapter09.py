"""Exercise checks of notebook 09, a small network with an optimized architecture."""

from typing import Any

import torch
from torch import Tensor

from kdutils.course.exercises.judge import judge_choice, judge_function, judge_value


def times_cheaper(prediction: Any) -> None:
    """How many times fewer MACs has a separable 3×3 convolution from 64 to 128 channels?"""
    judge_value(
        prediction,
        correct=1 / (1 / 128 + 1 / 9),
        tolerance=0.05,
        slips={
            "the depthwise part was left out: it looks around at nine positions": 9.0,
            "the pointwise part was left out: the channels must still be mixed": 128.0,
            "input and output channels were swapped: which does the ratio keep?": 1 / (1 / 64 + 1 / 9),
            "both parts were multiplied: they are done one after the other": 128.0 * 9.0,
            "it is the other way round: how many times fewer": 1 / 128 + 1 / 9,
        },
    )


def rank_correlation(attempt: Any) -> None:
    """Spearman's ρ of two tensors without equal values."""
    generator = torch.Generator().manual_seed(0)

    def case(size: int) -> tuple[Tensor, Tensor]:
        first = torch.randn(size, generator=generator, dtype=torch.float64)
        return first, (first + torch.randn(size, generator=generator, dtype=torch.float64)).exp()

    def ranks(values: Tensor) -> Tensor:
        return values.argsort().argsort().double()

    def pearson(first: Tensor, second: Tensor) -> Tensor:
        return torch.corrcoef(torch.stack([first, second]))[0, 1]

    def squares(first: Tensor, second: Tensor) -> Tensor:
        return ((ranks(first) - ranks(second)) ** 2).sum()

    def kendall(first: Tensor, second: Tensor) -> Tensor:
        n = len(first)
        same = (first[:, None] - first).sign() * (second[:, None] - second).sign()
        return same.sum() / (n * (n - 1))

    judge_function(
        attempt,
        cases=[case(12), case(7)],
        definition=lambda x, y: pearson(ranks(x), ranks(y)),
        slips={
            "one argsort was taken for the ranks: it says who stands at each place": (
                lambda x, y: pearson(x.argsort().double(), y.argsort().double())
            ),
            "the values were correlated, not their ranks": pearson,
            "only the first argument was ranked": lambda x, y: pearson(ranks(x), y),
            "only the second argument was ranked": lambda x, y: pearson(x, ranks(y)),
            "one of the rankings runs from the largest down": lambda x, y: -pearson(ranks(x), ranks(y)),
            "the factor 6 is missing": lambda x, y: 1 - squares(x, y) / (len(x) * (len(x) ** 2 - 1)),
            "1 minus is missing: that is how far the rankings are apart": (
                lambda x, y: 6 * squares(x, y) / (len(x) * (len(x) ** 2 - 1))
            ),
            "the denominator is n³, not n (n² − 1)": lambda x, y: 1 - 6 * squares(x, y) / len(x) ** 3,
            "the differences of ranks are not squared": (
                lambda x, y: 1 - 6 * (ranks(x) - ranks(y)).abs().sum() / (len(x) * (len(x) ** 2 - 1))
            ),
            "pairs in the same order were counted: that is Kendall's τ": kendall,
        },
        gradient=False,
    )


def millisecond_budget(answer: Any) -> None:
    """Which candidates keep within the time of the plain student of width 16, one image at a time?"""
    judge_choice(
        answer,
        correct="the plain ones",
        why_not={
            "all of them": "they share a budget in MACs; the first figure shows what that says about time",
            "the separable ones": "each of their blocks is two convolutions: count the calls",
            "the inverted ones": "each of their blocks is three convolutions: count the calls",
        },
    )
