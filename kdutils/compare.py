"""Paired comparison: every arm is trained with the same seeds, and the verdict is an interval."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING, Any

import numpy as np

from kdutils._errors import keep
from kdutils._extras import require_extra
from kdutils._validate import description

if TYPE_CHECKING:
    import pandas

Measures = float | dict[str, float]


@dataclass(frozen=True)
class Gain:
    """A paired difference: its mean over seeds, the standard error of that mean, its 95% t-interval.

    The unit is that of the measure: points where the measure is a percentage.
    """

    mean: float
    standard_error: float
    low: float
    high: float
    differences: tuple[float, ...]

    def __str__(self) -> str:
        return f"{self.mean_and_error}, 95 % interval {self.interval}, {len(self.differences)} seeds"

    __repr__ = __str__

    @property
    def mean_and_error(self) -> str:
        """Mean ± standard error, with as many decimals as the error deserves."""
        decimals = _decimals(self.standard_error)
        return f"{self.mean:+.{decimals}f} ± {self.standard_error:.{decimals}f}"

    @property
    def interval(self) -> str:
        """The 95% interval in brackets."""
        decimals = _decimals(self.standard_error)
        return f"[{self.low:+.{decimals}f}, {self.high:+.{decimals}f}]"


class Runs:
    """Measures of every arm under every seed: `values[measure][arm]` is a list in the order of `seeds`."""

    def __init__(self, seeds: list[int], values: dict[str, dict[str, list[float]]]):
        self.seeds, self.values = seeds, values

    @property
    def arms(self) -> list[str]:
        """The names of the arms.

        Raises:
            ValueError: No seed was finished before an interrupt.
        """
        self._require_seeds(1)
        return list(next(iter(self.values.values())))  # the same for every measure

    def of(self, arm: str, measure: str | None = None) -> list[float]:
        """One arm's values, seed by seed.

        Args:
            arm: Its name.
            measure: The name of a measure; None for the first.

        Raises:
            ValueError: An unknown arm or measure, or no finished seed.
        """
        self._require_seeds(1)
        measure = next(iter(self.values)) if measure is None else measure
        if measure not in self.values:
            raise ValueError(f"measure: expected one of {list(self.values)}, got {measure!r}")
        if arm not in self.values[measure]:
            raise ValueError(f"arm: expected one of {list(self.values[measure])}, got {arm!r}")
        return self.values[measure][arm]

    def mean(self, arm: str, measure: str | None = None) -> float:
        """One arm's mean over the seeds."""
        return math.fsum(self.of(arm, measure)) / len(self.seeds)

    def gain(self, arm: str, over: str, measure: str | None = None) -> Gain:
        """What `arm` has more than `over`, paired seed by seed."""
        pairs = zip(self.of(arm, measure), self.of(over, measure), strict=True)
        return paired_gain([value - reference for value, reference in pairs])

    def table(self) -> pandas.DataFrame:
        """Mean ± standard error over the seeds: a row for every arm, a column for every measure.

        Raises:
            ValueError: Fewer than two finished seeds.
            ImportError: No pandas.
        """
        self._require_seeds(2)
        pandas = require_extra("pandas", "course")
        return pandas.DataFrame(
            {
                measure: {arm: _mean_and_error(values) for arm, values in arms.items()}
                for measure, arms in self.values.items()
            }
        )

    def gains(self, over: str, measure: str | None = None) -> pandas.DataFrame:
        """The paired gain of every other arm over one of them, with its interval: a row for every arm.

        Raises:
            ValueError: An unknown arm or measure, or fewer than two finished seeds.
            ImportError: No pandas.
        """
        rows = {arm: self.gain(arm, over, measure) for arm in self.arms if arm != over}
        pandas = require_extra("pandas", "course")
        return pandas.DataFrame(
            {
                f"gain over {over}": {arm: gain.mean_and_error for arm, gain in rows.items()},
                "95 % interval": {arm: gain.interval for arm, gain in rows.items()},
            }
        )

    def _require_seeds(self, least: int) -> None:
        if len(self.seeds) < least:
            raise ValueError(f"seeds: expected at least {least} finished, got {self.seeds}")


class ComparisonInterrupted(KeyboardInterrupt):
    """An interrupt in the middle of `compare`; `runs` holds the seeds that every arm has finished.

    In Jupyter the last exception is `sys.last_value`, so they are `sys.last_value.runs`.
    """

    def __init__(self, runs: Runs):
        super().__init__(
            f"interrupted with {len(runs.seeds)} seeds finished: "
            "they are in this exception's `runs` (in Jupyter: sys.last_value.runs)"
        )
        self.runs = runs


def compare(arms: Mapping[str, Callable[[int], Measures]], seeds: Iterable[int]) -> Runs:
    """Measures every arm of an experiment under every seed.

    Args:
        arms: By name, functions of a seed that train and return a number, or a dict of named numbers. The
            pairing is up to them: whatever is drawn (subset, initial weights, batches) must be drawn from the
            seed.
        seeds: At least two, so that there is a spread.

    Returns:
        The measures, for means, gains and tables.

    Raises:
        ValueError: No arm, fewer than two seeds, or repeated ones; an arm that returns no number, or other
            measures than the first arm.
        FloatingPointError: A measure that is not finite, with arm and seed.
        ComparisonInterrupted: An interrupt. It has the seeds that every arm has finished as `runs`, and so
            has any other exception that leaves an arm, with a note of arm and seed (Python 3.11 and later).
    """
    from tqdm import tqdm

    seeds = _required_seeds(seeds)
    _require_arms(arms)
    values: dict[str, dict[str, list[float]]] = {}
    for seed, arm in tqdm([(seed, arm) for seed in seeds for arm in arms], unit="run", leave=False, delay=2):
        try:
            for name, value in _measures(arm, seed, arms[arm](seed), values).items():
                values.setdefault(name, {}).setdefault(arm, []).append(value)
        except KeyboardInterrupt as interrupt:
            raise ComparisonInterrupted(_finished(seeds, seed, values)) from interrupt
        except Exception as error:
            runs = _finished(seeds, seed, values)
            note = (
                f"compare: arm {arm!r}, seed {seed}; {len(runs.seeds)} finished seeds are in `runs` of this"
            )
            keep(error, f"{note} exception", runs=runs, arm=arm, seed=seed)
            raise
    return Runs(seeds, values)


def _required_seeds(seeds: Any) -> list[int]:
    if not isinstance(seeds, Iterable) or isinstance(seeds, str):
        raise ValueError(f"seeds: expected at least two, such as range(5), got {description(seeds)}")
    seeds = list(seeds)
    if len(seeds) < 2 or len(set(seeds)) < len(seeds):
        raise ValueError(f"seeds: expected at least two different ones, got {seeds}")
    return seeds


def _require_arms(arms: Any) -> None:
    if not isinstance(arms, Mapping):
        raise ValueError(f"arms: expected a dict of functions by their names, got {description(arms)}")
    if not arms:
        raise ValueError("arms: expected at least one named function, got none")
    for name, arm in arms.items():
        if not callable(arm):
            raise ValueError(f"arms: expected {name!r} to be a function of a seed, got {description(arm)}")


def _measures(arm: str, seed: int, result: Any, values: Mapping[str, Mapping[str, Any]]) -> dict[str, float]:
    """What an arm returned, as named numbers; raises for what is no finite number or differs from before."""
    measures = result if isinstance(result, dict) else {"accuracy (%)": result}
    if not measures or (values and measures.keys() != values.keys()):
        first_arm = next(iter(next(iter(values.values())))) if values else arm
        expected = f"{list(values)} as {first_arm!r}" if values else "at least one measure"
        raise ValueError(f"arms: expected {arm!r} to return {expected}, got {list(measures)}")
    return {name: _finite_number(value, name, arm, seed) for name, value in measures.items()}


def _finite_number(value: Any, name: str, arm: str, seed: int) -> float:
    try:
        number = float(value) if hasattr(value, "__float__") else None
    except (TypeError, ValueError, RuntimeError):  # an array of several numbers
        number = None
    if number is None:
        raise ValueError(
            f"arms: expected {arm!r} to return a number or a dict of numbers, got {description(value)}"
        )
    if not math.isfinite(number):
        raise FloatingPointError(f"arm {arm!r}, seed {seed}: {name} is {value}")
    return number


def _finished(seeds: list[int], seed: int, values: dict[str, dict[str, list[float]]]) -> Runs:
    """The runs of the seeds before this one, which every arm has finished."""
    finished = seeds[: seeds.index(seed)]
    kept = {name: {arm: v[: len(finished)] for arm, v in arms.items()} for name, arms in values.items()}
    return Runs(finished, kept)


def paired_gain(differences: Iterable[float]) -> Gain:
    """Mean of paired differences, with its standard error and Student's 95% t-interval.

    Args:
        differences: One number per seed, at least two.

    Raises:
        ValueError: Fewer than two, or some that are not finite.

    Source: Student 1908, "The Probable Error of a Mean".
    """
    differences = tuple(map(float, differences))
    if len(differences) < 2 or not all(map(math.isfinite, differences)):
        raise ValueError(f"differences: expected at least two finite numbers, got {differences}")
    n = len(differences)
    mean, error = math.fsum(differences) / n, _standard_error(differences)
    half_width = error * _t_quantile(n - 1)
    return Gain(mean, error, mean - half_width, mean + half_width, differences)


@cache
def _t_quantile(degrees: int) -> float:
    """Student's t that 95% of the distribution stay within on both sides.

    At t = tan(angle) · √degrees that share is a finite sum, which grows with the angle: it is halved until
    the share is right.

    Source: Abramowitz and Stegun 1964, "Handbook of Mathematical Functions", 26.7.3 and 26.7.4.
    """
    is_odd = degrees % 2
    k = np.arange(2 + is_odd, degrees - 1, 2)

    def share_within(angle: float) -> float:
        first = 0.0 if degrees == 1 else math.cos(angle) if is_odd else 1.0
        total = first * (1 + np.cumprod((k - 1) / k * math.cos(angle) ** 2).sum()) * math.sin(angle)
        return 2 / math.pi * (angle + total) if is_odd else total

    low, high = 0.0, math.pi / 2
    while low < (middle := (low + high) / 2) < high:
        low, high = (middle, high) if share_within(middle) < 0.95 else (low, middle)
    return math.tan(middle) * math.sqrt(degrees)


def _standard_error(values: tuple[float, ...] | list[float]) -> float:
    mean = math.fsum(values) / len(values)
    return math.sqrt(math.fsum((value - mean) ** 2 for value in values) / (len(values) - 1) / len(values))


def _mean_and_error(values: list[float]) -> str:
    mean, error = math.fsum(values) / len(values), _standard_error(values)
    return f"{mean:.{_decimals(error)}f} ± {error:.{_decimals(error)}f}"


def _decimals(error: float) -> int:
    """Two, or as many as show two digits of a small error."""
    return max(2, 1 - math.floor(math.log10(error))) if error > 1e-9 else 2
