"""Exercise checks of chapter 00, why distill."""

import math
from collections.abc import Mapping
from typing import Any

from kdutils.compare import paired_gain
from kdutils.course.exercises.judge import NOT_ATTEMPTED, judge_choice, judge_function, not_yet

LEAST_SEEDS = 3
VERDICTS = ("helps", "could be luck", "harms")


def believable(answer: Any) -> None:
    """Which of three reported gains is more than luck?"""
    judge_choice(
        answer,
        correct="A and B",
        why_not={
            "A": "± is a standard error: with ten seeds the interval is a little over two of them, each way",
            "B": "a wide interval may still lie on one side of zero",
            "C": "one seed has no spread: nobody can tell how far another seed would have landed",
            "A and C": "C has one seed, and nobody can tell how far another would have landed; B has ten",
            "B and C": "C has one seed, and nobody can tell how far another would have landed; A has three",
            "A, B and C": "C has one seed: nobody can tell how far another would have landed",
        },
    )


def conv_macs(attempt: Any) -> None:
    """Multiply-accumulates of one convolution: output positions × kernel × channels in × channels out."""
    judge_function(
        attempt,
        cases=[(3, 8, 3, 14), (16, 4, 5, 7)],
        definition=lambda i, o, k, size: size**2 * k**2 * i * o,
        slips={
            "the parameters were counted: each weight works at every position of the output": (
                lambda i, o, k, size: k**2 * i * o
            ),
            "the output had one position a side: it has size × size": (
                lambda i, o, k, size: size * k**2 * i * o
            ),
            "the kernel had k weights: it has k × k": lambda i, o, k, size: size**2 * k * i * o,
            "multiplications and additions were counted apart: a multiply-accumulate is one": (
                lambda i, o, k, size: 2 * size**2 * k**2 * i * o
            ),
            "every output channel saw one input channel: it sees all": (
                lambda i, o, k, size: size**2 * k**2 * o
            ),
        },
        gradient=False,
    )


def own_budget(results: Any) -> None:
    """A comparison of the reader's own: accuracies in percent, seed by seed, and what they show."""
    if results is ...:
        print(NOT_ATTEMPTED)
        return
    if problem := _problem_with(results):
        print(not_yet(problem))
        return
    there, here = _accuracies(results)
    gain = paired_gain([t - h for t, h in zip(there, here, strict=True)])
    verdict = "helps" if gain.low > 0 else "harms" if gain.high < 0 else "could be luck"
    judge_choice(
        results["verdict"],
        correct=verdict,
        why_not={other: f"the 95% interval is {gain.interval}" for other in VERDICTS if other != verdict},
    )


def _accuracies(results: Mapping[str, Any]) -> tuple[list[float], list[float]]:
    return list(map(float, results["distilled"])), list(map(float, results["augmented labels"]))


def _problem_with(results: Any) -> str | None:
    """What is wrong with a reader's results; None where they can be compared."""
    if not isinstance(results, Mapping) or set(results) != {"augmented labels", "distilled", "verdict"}:
        return f"expected a dict with 'augmented labels', 'distilled' and 'verdict', got {results!r}"
    try:
        distilled, labels = _accuracies(results)
    except (TypeError, ValueError):
        return "expected a list of numbers for each arm: one accuracy for every seed"
    if len(labels) != len(distilled):
        return f"{len(labels)} and {len(distilled)} seeds: a paired comparison runs both arms on every seed"
    if len(labels) < LEAST_SEEDS:
        return f"{len(labels)} seeds: take {LEAST_SEEDS} at least, or the interval says next to nothing"
    values = labels + distilled
    if not all(math.isfinite(value) and 0 <= value <= 100 for value in values):
        return "an accuracy in percent lies between 0 and 100"
    if max(values) <= 1:
        return "looks as if these are shares: give percent"
    if labels == distilled:
        return "both arms are equal to the last digit: has the second been trained with the teacher's loss?"
    if len(set(labels)) == 1 or len(set(distilled)) == 1:
        return "all seeds are equal to the last digit: does the seed reach the images and the weights?"
    return None
