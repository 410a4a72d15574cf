"""Exercise checks of notebook 11, silent failures."""

from typing import Any

import torch
from torch import Tensor

from kdutils.course.exercises.judge import (
    NOT_ATTEMPTED,
    PASSED,
    handed_in,
    judge_function,
    judge_value,
    not_yet,
)

FAULTS = {
    "A": "arguments reversed",
    "B": "mean over classes",
    "C": "regressor not trained",
    "D": "cache out of step",
    "E": "selected on test",
}
# A question for whoever is on the wrong track; the same whatever the wrong answer was.
QUESTIONS = {
    "A": "whose probabilities weigh the logarithms?",
    "B": "how many numbers does the mean divide by, and how many are samples?",
    "C": "which parameters receive a gradient, and which of them does the optimizer hold?",
    "D": "in which order does the pass over the loader see the images?",
    "E": "which images judge the student, and which images chose it?",
}


def forgotten_weight(prediction: Any) -> None:
    """Which weight has a soft term of 0.9 really, if T = 4 and T² is forgotten?"""
    judge_value(
        prediction,
        correct=0.9 / 16,
        tolerance=0.001,
        slips={
            "T was divided out where T² is missing": 0.9 / 4,
            "T² was multiplied in: without it the term is smaller": 0.9 * 16,
            "the weight of the labels was taken": 0.1 / 16,
            "the shares after it were worked out: the question is the weight itself": 0.05625 / 0.15625,
            "nothing was changed: which number stands before the divergence if T² is there?": 0.9,
        },
    )


def share_in_step(attempt: Any) -> None:
    """Percentage of cached rows that lie nearest to the live row of their own image."""
    generator = torch.Generator().manual_seed(0)

    def case(num_swapped: int) -> tuple[Tensor, Tensor]:
        live = 3 * torch.randn(12, 4, generator=generator, dtype=torch.float64)
        live[:, 0] += 5  # one class for all: the predicted class says nothing
        cached = live + 0.01 * torch.randn(live.shape, generator=generator, dtype=torch.float64)
        cached[:num_swapped] = cached[:num_swapped].roll(1, dims=0)
        return cached, live

    judge_function(
        attempt,
        cases=[case(0), case(5), case(12)],
        definition=lambda cached, live: 100 * _own_is_nearest(cached, live).double().mean(),
        slips={
            "a share between 0 and 1 was returned: the question asks for a percentage": (
                lambda cached, live: _own_is_nearest(cached, live).double().mean()
            ),
            "images were counted: the question asks for a percentage": (
                lambda cached, live: _own_is_nearest(cached, live).double().sum()
            ),
            "predicted classes were compared, which a shuffle within a class leaves as they are": (
                lambda cached, live: 100 * (cached.argmax(dim=1) == live.argmax(dim=1)).double().mean()
            ),
            "rows were compared for equality, which rounding destroys": (
                lambda cached, live: 100 * (cached == live).all(dim=1).double().mean()
            ),
            "the rows out of step were counted": (
                lambda cached, live: 100 * (~_own_is_nearest(cached, live)).double().mean()
            ),
            "the furthest row was taken for the nearest": (
                lambda cached, live: 100 * _own_is(torch.cdist(cached, live).argmax(dim=1)).double().mean()
            ),
        },
        gradient=False,
    )


def five_faults(answer: Any) -> None:
    """Which fault has each of the five scripts?"""
    if handed_in(answer, FAULTS) is None:
        return
    given = {script: fault for script, fault in answer.items() if fault is not ...}
    if not given:
        print(NOT_ATTEMPTED)
        return
    wrong = [script for script in FAULTS if script in given and given[script] != FAULTS[script]]
    still_open = [script for script in FAULTS if script not in given]
    if wrong:
        print(not_yet(f"script {wrong[0]}: {QUESTIONS[wrong[0]]}"))
    elif still_open:
        print(not_yet(f"right so far; still open: {', '.join(still_open)}"))
    else:
        print(PASSED)


def _own_is_nearest(cached: Tensor, live: Tensor) -> Tensor:
    return _own_is(torch.cdist(cached, live).argmin(dim=1))


def _own_is(found: Tensor) -> Tensor:
    return found == torch.arange(len(found))
