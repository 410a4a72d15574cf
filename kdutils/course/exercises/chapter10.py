"""Exercise checks of notebook 10, pruning and combining."""

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from kdutils.course.exercises.judge import (
    NOT_ATTEMPTED,
    PASSED,
    judge_function,
    judge_value,
    not_yet,
)

PARTS = ("unpruned", "repaired", "allowed", "largest")


def break_even_sparsity(prediction: Any) -> None:
    """From which share of zeros on is a list of 8-bit values with 24-bit positions the smaller file?"""
    judge_value(
        prediction,
        correct=3 / 4,
        tolerance=0.005,
        slips={
            "that is the share that stays: which share has to go?": 1 / 4,
            "the positions alone are stored: the values are needed, too": 1 - 8 / 24,
            "it is in percent: give a share between 0 and 1": 75.0,
            "a position had 32 bits": 1 - 8 / (8 + 32),
            "a weight had 32 bits, in the list and outside it": 1 - 32 / (32 + 24),
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


def how_far(result: Any) -> None:
    """How much can go, on the reader's network and budget, before the repair fails?"""
    try:
        print(_judged(result))
    except Exception:  # whatever else was handed in
        print(not_yet(f"expected a dict of {list(PARTS)}, with numbers"))


def _judged(result: Any) -> str:
    if result is ... or (isinstance(result, Mapping) and ... in result.values()):
        return NOT_ATTEMPTED
    unpruned, repaired, allowed, largest = (result[part] for part in PARTS)
    accuracies = {float(share): float(value) for share, value in sorted(repaired.items())}
    unpruned, allowed, largest = float(unpruned), float(allowed), float(largest)
    shares = list(accuracies)
    if len(shares) < 3 or not 0 < shares[0] < shares[-1] < 1:
        return not_yet("three shares at least, each between 0 and 1: what is gone of the network")
    if not all(0 <= value <= 100 for value in (unpruned, *accuracies.values())):
        return not_yet("accuracies are in percent, between 0 and 100")
    if allowed <= 0:
        return not_yet('"allowed" is in points, and above zero')
    within = [share for share, value in accuracies.items() if value >= unpruned - allowed]
    if not within:
        return not_yet("no share keeps within your points: prune less, repair for longer, or allow more")
    if within[-1] == shares[-1]:
        return not_yet("your largest share still passes: prune further, until the repair fails")
    if abs(largest - within[-1]) > 1e-6:
        return not_yet(
            f"by your own numbers, {within[-1]:.0%} is the largest share within {allowed:g} points"
        )
    return f"{PASSED}: {largest:.0%} can go for at most {allowed:g} points, on your budget"


def _is_kept(kept: Tensor, channels: int) -> Tensor:
    return torch.isin(torch.arange(channels), kept).double()


def _others(kept: Tensor, channels: int) -> Tensor:
    return (_is_kept(kept, channels) == 0).nonzero().flatten()
