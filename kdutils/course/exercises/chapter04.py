"""Exercise checks of notebook 04, offline distillation."""

import itertools
import math
from typing import Any

import torch
import torch.nn.functional as F

from kdutils.course.exercises.judge import NOT_ATTEMPTED, PASSED, judge_function, judge_value, not_yet


def store_mb(prediction: Any) -> None:
    """MB for 30 views of a million images: a seed of 8 bytes, ten pairs of two bytes and two bytes each."""
    judge_value(
        prediction,
        correct=1440.0,
        tolerance=0.5,
        slips={
            "the 30 views were forgotten": 48.0,
            "the seeds were forgotten": 1200.0,
            "the classes were forgotten: a log-probability without its class is worth nothing": 840.0,
            "the seeds and the classes were forgotten": 600.0,
            "a number for the rest was stored: it is one minus the sum of the ten": 1500.0,
            "classes or log-probabilities took four bytes each: a thousand classes fit into 16 bits": 2040.0,
            "all thousand log-probabilities were stored": 60_240.0,
            "it was counted in bits": 11_520.0,
            "the numbers were counted, not their bytes": 630.0,
        },
    )


def ensemble_targets(attempt: Any) -> None:
    """Mean of the teachers' probabilities, each softened by T."""
    generator = torch.Generator().manual_seed(0)
    cases = [
        (3 * torch.randn(teachers, 6, 5, generator=generator, dtype=torch.float64), temperature)
        for teachers, temperature in ((3, 2.0), (4, 5.0))
    ]
    judge_function(
        attempt,
        cases,
        lambda logits, T: F.softmax(logits / T, dim=-1).mean(dim=0),
        {
            "the logits were averaged, not the probabilities": (
                lambda logits, T: F.softmax(logits.mean(dim=0) / T, dim=-1)
            ),
            "the temperature is missing": lambda logits, T: F.softmax(logits, dim=-1).mean(dim=0),
            "the logits were multiplied by T, not divided": (
                lambda logits, T: F.softmax(logits * T, dim=-1).mean(dim=0)
            ),
            "the average was softened, not each teacher": (
                lambda logits, T: F.softmax(F.softmax(logits, dim=-1).mean(dim=0) / T, dim=-1)
            ),
            "the probabilities were added up, not averaged": (
                lambda logits, T: F.softmax(logits / T, dim=-1).sum(dim=0)
            ),
            "the softmax runs over the batch, not over the classes": (
                lambda logits, T: F.softmax(logits / T, dim=1).mean(dim=0)
            ),
            "the softmax runs over the teachers, not over the classes": (
                lambda logits, T: F.softmax(logits / T, dim=0).mean(dim=0)
            ),
            "log-probabilities were averaged: the question is about probabilities": (
                lambda logits, T: F.log_softmax(logits / T, dim=-1).mean(dim=0)
            ),
            "the logarithm of the mean was returned": (
                lambda logits, T: F.softmax(logits / T, dim=-1).mean(dim=0).log()
            ),
            "only the first teacher was asked": lambda logits, T: F.softmax(logits[0] / T, dim=-1),
        },
    )


def own_patience(curves: Any) -> None:
    """Your steps → (accuracy of augmented labels, of matching answers); each length twice the last."""
    if curves is ...:
        print(NOT_ATTEMPTED)
        return
    pairs = _pairs(curves)
    if pairs is None:
        print(not_yet("expected a dict, steps → two finite accuracies, as in {64: (70.0, 65.0)}"))
        return
    lengths = sorted(pairs)
    if len(lengths) < 3 or any(longer < 2 * shorter for shorter, longer in itertools.pairwise(lengths)):
        print(not_yet(f"expected three lengths or more, each at least twice the one before, got {lengths}"))
        return
    values = [value for pair in pairs.values() for value in pair]
    if not all(0 <= value <= 100 for value in values) or max(values) <= 1:
        print(not_yet("expected accuracies in percent, from 0 to 100"))
        return
    print(f"{PASSED} {_read(lengths, pairs)}")


def _pairs(curves: Any) -> dict[float, tuple[float, float]] | None:
    try:
        pairs = {float(steps): (float(one), float(other)) for steps, (one, other) in curves.items()}
    except Exception:  # whatever the reader hands over: the verdict says what was expected
        return None
    numbers = [number for steps, pair in pairs.items() for number in (steps, *pair)]
    return pairs if numbers and all(map(math.isfinite, numbers)) else None


def _read(lengths: list[float], pairs: dict[float, tuple[float, float]]) -> str:
    """What the curves say: who leads at the end, and whether the last doubling still paid."""
    *_, before, last = lengths
    labels, matching = pairs[last]
    rise = matching - pairs[before][1]
    leads = "matching answers lead" if matching > labels else "augmented labels lead"
    patience = "still rising: train longer" if rise > 1 else "flat: this is long enough"
    return f"At {last:,.0f} steps {leads} by {abs(matching - labels):.1f} points; the curve is {patience}."
