"""Paired comparison: every arm is trained with the same seeds, and the verdict is an interval."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import pandas

Measures = float | dict[str, float]


@dataclass(frozen=True)
class Gain:
    """A paired difference: its mean over seeds, the standard error of that mean, its 95 % t-interval.

    The unit is the measure's own: points where the measure is a percentage.
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
        """The 95 % interval in brackets."""
        decimals = _decimals(self.standard_error)
        return f"[{self.low:+.{decimals}f}, {self.high:+.{decimals}f}]"


class Runs:
    """Measures of every arm under every seed: `values[measure][arm]` is a list in the order of `seeds`."""

    def __init__(self, seeds: list[int], values: dict[str, dict[str, list[float]]]):
        self.seeds, self.values = seeds, values

    @property
    def arms(self) -> list[str]:
        """The names of the arms.   Raises ValueError where an interrupt has left no finished seed."""
        self._require_seeds(1)
        return list(next(iter(self.values.values())))  # the same for every measure

    def of(self, arm: str, measure: str | None = None) -> list[float]:
        """One arm's values, seed by seed; of the first measure unless another is named.

        Raises ValueError for an unknown arm or measure, and where there is no finished seed.
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

        Raises ValueError for fewer than two finished seeds.
        """
        import pandas

        self._require_seeds(2)
        return pandas.DataFrame(
            {
                measure: {arm: _mean_and_error(values) for arm, values in arms.items()}
                for measure, arms in self.values.items()
            }
        )

    def gains(self, over: str, measure: str | None = None) -> pandas.DataFrame:
        """The paired gain of every other arm over one of them, with its interval: a row for every arm."""
        import pandas

        rows = {arm: self.gain(arm, over, measure) for arm in self.arms if arm != over}
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
    """An interrupt in the middle of `compare`; `runs` holds the seeds that every arm has finished."""

    def __init__(self, seeds: list[int], values: dict[str, dict[str, list[float]]]):
        super().__init__(
            f"interrupted with {len(seeds)} seeds finished: "
            "they are in this exception's `runs` (in Jupyter: sys.last_value.runs)"
        )
        kept = {name: {arm: v[: len(seeds)] for arm, v in arms.items()} for name, arms in values.items()}
        self.runs = Runs(seeds, kept)


def compare(arms: Mapping[str, Callable[[int], Measures]], seeds: Iterable[int]) -> Runs:
    """Measures of every arm under every seed.

    arms: name → function of a seed that trains and returns a number, or a dict of named numbers. The pairing
    is the functions' duty: whatever is drawn (subset, initial weights, batches) is drawn from the seed.
    seeds: at least two, so that there is a spread.
    Raises ValueError for no arm, fewer than two seeds, repeated seeds, or arms that return nothing or
    different measures; FloatingPointError, naming arm and seed, for a measure that is not finite;
    ComparisonInterrupted, with the seeds that every arm has finished, on an interrupt.
    """
    seeds = list(seeds)
    if not arms:
        raise ValueError("arms: expected at least one named function, got none")
    if len(seeds) < 2 or len(set(seeds)) < len(seeds):
        raise ValueError(f"seeds: expected at least two different ones, got {seeds}")
    from tqdm import tqdm

    values: dict[str, dict[str, list[float]]] = {}
    first_arm = next(iter(arms))
    for seed, arm in tqdm([(seed, arm) for seed in seeds for arm in arms], unit="run", leave=False, delay=2):
        try:
            result = arms[arm](seed)
        except KeyboardInterrupt as interrupt:
            raise ComparisonInterrupted(seeds[: seeds.index(seed)], values) from interrupt
        measures = result if isinstance(result, dict) else {"accuracy (%)": result}
        if not measures or (values and measures.keys() != values.keys()):
            expected = f"{list(values)} as {first_arm!r}" if values else "at least one measure"
            raise ValueError(f"arms: expected {arm!r} to return {expected}, got {list(measures)}")
        for name, value in measures.items():
            if value is None:
                raise ValueError(f"arms: expected {arm!r} to return a number or a dict of numbers, got None")
            if not math.isfinite(value):
                raise FloatingPointError(f"arm {arm!r}, seed {seed}: {name} is {value}")
            values.setdefault(name, {}).setdefault(arm, []).append(float(value))
    return Runs(seeds, values)


def paired_gain(differences: Iterable[float]) -> Gain:
    """Mean of paired differences with its standard error and Student's 95 % t-interval.

    differences: one number per seed, at least two, finite.   Raises ValueError otherwise.

    Source: Student 1908, "The Probable Error of a Mean".
    """
    from scipy.special import stdtrit

    differences = tuple(map(float, differences))
    if len(differences) < 2 or not all(map(math.isfinite, differences)):
        raise ValueError(f"differences: expected at least two finite numbers, got {differences}")
    n = len(differences)
    mean, error = math.fsum(differences) / n, _standard_error(differences)
    half_width = error * float(stdtrit(n - 1, 0.975))
    return Gain(mean, error, mean - half_width, mean + half_width, differences)


def _standard_error(values: tuple[float, ...] | list[float]) -> float:
    mean = math.fsum(values) / len(values)
    return math.sqrt(math.fsum((value - mean) ** 2 for value in values) / (len(values) - 1) / len(values))


def _mean_and_error(values: list[float]) -> str:
    mean, error = math.fsum(values) / len(values), _standard_error(values)
    return f"{mean:.{_decimals(error)}f} ± {error:.{_decimals(error)}f}"


def _decimals(error: float) -> int:
    """Two, or as many as show two digits of a small error."""
    return max(2, 1 - math.floor(math.log10(error))) if error > 1e-9 else 2
