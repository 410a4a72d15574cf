"""A claim about a value just computed: printed with its bound, or an error with the same words."""

import math


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
) -> None:
    """Prints the claim, the value, the bound and ✓; raises ClaimFailed with the same words when it is missed.

    above, below: strict bounds; both together make an interval.   equals: within `tolerance`, inclusive.
    A value that is not finite misses every bound.
    Raises ValueError where no bound is given, one is infinite, `equals` stands beside another bound, or
    `tolerance` without `equals`.
    """
    infinite = any(bound is not None and math.isinf(bound) for bound in (above, below, equals, tolerance))
    if infinite or (equals is None) == (above is None and below is None) or (equals is None and tolerance):
        raise ValueError(
            "expected `equals`, with or without `tolerance`, or `above` and/or `below`; "
            "a claim needs a bound that it can miss"
        )
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
