"""A claim about a value just computed: printed with its bound, or an error with the same words."""

import math
from typing import Literal

RESTS_ON = ("distillation", "teacher", "formula")


class ClaimFailed(AssertionError):
    """A claim whose bound is missed."""


def check(
    claim: str,
    value: float,
    *,
    above: float | None = None,
    below: float | None = None,
    equals: float | None = None,
    tolerance: float = 0.0,
    rests_on: Literal["distillation", "teacher", "formula"] | None = None,
) -> None:
    """Prints a claim with its value, its bound and a ✓, or raises an error with the same words and a ✗.

    Args:
        claim: What is claimed, with the unit of the value.
        value: What was measured: a number, or a tensor or array that holds one. A value that is not finite
            misses every bound.
        above: Strict lower bound. Together with `below` it makes an interval.
        below: Strict upper bound.
        equals: Expected value, instead of `above` and `below`.
        tolerance: Largest difference from `equals` that is allowed, inclusive.
        rests_on: What the claim would be false without. This changes nothing here: the course's tests run the
            notebook again with all losses of kdutils returning zero ("distillation"), also with the teacher's
            classes shuffled ("teacher"), or with `kd_loss` on another scale ("formula"), and see to it that
            the claim fails.

    Raises:
        ClaimFailed: The bound is missed.
        ValueError: No bound, an infinite one, `equals` beside another bound, `tolerance` without `equals`, or
            an unknown `rests_on`.
    """
    infinite = any(bound is not None and math.isinf(bound) for bound in (above, below, equals, tolerance))
    if infinite or (equals is None) == (above is None and below is None) or (equals is None and tolerance):
        raise ValueError(
            "expected `equals`, with or without `tolerance`, or `above` and/or `below`; "
            "a claim needs a bound that it can miss"
        )
    if rests_on is not None and rests_on not in RESTS_ON:
        raise ValueError(f"rests_on: expected one of {list(RESTS_ON)}, got {rests_on!r}")
    value = float(value)
    if equals is not None:
        holds = abs(value - equals) <= tolerance
        bound = f"= {_shown(equals)}" + (f" ± {tolerance:.2g}" if tolerance else "")
    else:
        low = -math.inf if above is None else above
        high = math.inf if below is None else below
        holds = low < value < high
        bound = " and ".join(
            ([] if above is None else [f"> {_shown(above)}"])
            + ([] if below is None else [f"< {_shown(below)}"])
        )
    line = f"{claim}: {_shown(value)} ({bound})"
    if not holds:
        raise ClaimFailed(f"✗ {line}")
    print(f"✓ {line}")


def _shown(number: float) -> str:
    """Large numbers (counts) in full, others with four significant digits."""
    return f"{number:,.0f}" if abs(number) >= 10_000 else f"{number:.4g}"
