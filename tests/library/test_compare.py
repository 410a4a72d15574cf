"""Seeds are paired, the interval is Student's, and what goes wrong is named by arm and seed."""

import math
import statistics
import sys

import numpy as np
import pytest
import scipy.special
import scipy.stats
import torch

from kdutils.compare import ComparisonInterrupted, _t_quantile, compare, paired_gain
from kdutils.course import plot

PLAIN = {0: 70.0, 1: 72.0, 2: 71.0, 3: 75.0}
GAINS = {0: 1.5, 1: 2.5, 2: 1.0, 3: 3.0}
ARMS = {"labels only": PLAIN.__getitem__, "distilled": lambda seed: PLAIN[seed] + GAINS[seed]}


def both_measures(seed):
    return {"accuracy (%)": PLAIN[seed], "loss (nats)": 1 / PLAIN[seed]}


# The interval


@pytest.mark.parametrize("differences", [[1.0, 2.0], [0.5, -0.5, 1.5, 4.0, 0.1], list(range(30))])
def test_the_interval_is_students(differences):
    gain = paired_gain(differences)
    expected = scipy.stats.ttest_1samp(differences, 0).confidence_interval(0.95)
    assert gain.mean == pytest.approx(statistics.mean(differences))
    assert gain.standard_error == pytest.approx(scipy.stats.sem(differences))
    assert (gain.low, gain.high) == (pytest.approx(expected.low), pytest.approx(expected.high))
    assert gain.differences == tuple(differences)


@pytest.mark.parametrize("degrees", [1, 2, 3, 4, 5, 6, 7, 29, 30, 99, 100, 999, 5000])
def test_the_quantile_is_scipys(degrees):
    """To ten digits: older versions of scipy know no more."""
    assert _t_quantile(degrees) == pytest.approx(scipy.special.stdtrit(degrees, 0.975), rel=1e-10)


def test_the_interval_by_hand():
    """Differences 1, 2, 3: mean 2, standard error 1/√3, t of two degrees of freedom 4.3027."""
    gain = paired_gain([1, 2, 3])
    assert gain.mean == 2.0
    assert gain.high - gain.mean == pytest.approx(4.3027 / math.sqrt(3), abs=1e-4)
    assert gain.mean - gain.low == pytest.approx(gain.high - gain.mean)


def test_the_interval_covers_the_truth_in_19_of_20():
    generator = torch.Generator().manual_seed(0)
    samples = 3.0 + torch.randn(2000, 4, generator=generator, dtype=torch.float64)
    covered = sum(gain.low < 3.0 < gain.high for gain in map(paired_gain, samples.tolist()))
    assert 0.935 < covered / 2000 < 0.965


def test_equal_differences_leave_no_width():
    gain = paired_gain([0.1, 0.1, 0.1])
    assert gain.low == pytest.approx(gain.high) == pytest.approx(0.1)


@pytest.mark.parametrize("differences", [[], [1.0], [1.0, math.nan], [1.0, math.inf]])
def test_refuses_differences_without_spread(differences):
    with pytest.raises(ValueError, match="differences: expected at least two finite numbers"):
        paired_gain(differences)


def test_a_gain_prints_as_a_sentence():
    assert str(paired_gain([1, 2, 3])) == "+2.00 ± 0.58, 95 % interval [-0.48, +4.48], 3 seeds"
    assert repr(paired_gain([-1, -1])) == "-1.00 ± 0.00, 95 % interval [-1.00, -1.00], 2 seeds"


# Running the arms


def test_values_stand_by_measure_arm_and_seed():
    runs = compare(ARMS, seeds=PLAIN)
    assert runs.seeds == [0, 1, 2, 3]
    assert runs.values == {
        "accuracy (%)": {"labels only": [70.0, 72.0, 71.0, 75.0], "distilled": [71.5, 74.5, 72.0, 78.0]}
    }
    assert runs.of("distilled") == [71.5, 74.5, 72.0, 78.0]
    assert runs.mean("labels only") == 72.0


def test_the_gain_is_paired():
    """Paired, the spread is that of the differences; unpaired it would be that of the seeds."""
    runs = compare(ARMS, seeds=PLAIN)
    gain = runs.gain("distilled", over="labels only")
    assert gain.differences == (1.5, 2.5, 1.0, 3.0)
    paired = scipy.stats.ttest_rel(runs.of("distilled"), runs.of("labels only"))
    assert gain.standard_error == pytest.approx(gain.mean / paired.statistic)
    expected = paired.confidence_interval(0.95)
    assert (gain.low, gain.high) == (pytest.approx(expected.low), pytest.approx(expected.high))
    assert runs.gain("labels only", over="distilled").mean == -gain.mean


def test_every_arm_sees_every_seed_in_order():
    calls = []
    compare({arm: lambda seed, arm=arm: calls.append((arm, seed)) or 1.0 for arm in "ab"}, seeds=(5, 3))
    assert calls == [("a", 5), ("b", 5), ("a", 3), ("b", 3)]


def test_seeds_may_be_any_iterable():
    assert compare(ARMS, seeds=iter((2, 3))).of("labels only") == [71.0, 75.0]


def test_named_measures_and_numbers_of_any_kind():
    runs = compare({"a": both_measures, "b": both_measures}, seeds=(0, 1))
    assert runs.of("a", "loss (nats)") == [1 / 70, 1 / 72]
    assert runs.gain("a", over="b", measure="loss (nats)").mean == 0.0
    assert compare({"a": lambda seed: torch.tensor(seed)}, seeds=(1, 2)).of("a") == [1.0, 2.0]
    assert all(type(value) is float for value in compare({"a": int}, seeds=(1, 2)).of("a"))


# Tables


def test_the_table_has_mean_and_standard_error():
    table = compare(ARMS, seeds=PLAIN).table()
    assert list(table.index) == ["labels only", "distilled"] and list(table.columns) == ["accuracy (%)"]
    assert table.loc["labels only", "accuracy (%)"] == "72.00 ± 1.08"
    error = scipy.stats.sem([70.0, 72.0, 71.0, 75.0])
    assert f"{error:.2f}" == "1.08"


def test_small_errors_show_two_digits():
    assert (
        str(paired_gain([0.01, 0.02, 0.03])) == "+0.0200 ± 0.0058, 95 % interval [-0.0048, +0.0448], 3 seeds"
    )
    runs = compare({"a": lambda seed: 0.2 + 0.001 * seed, "b": lambda seed: 0.25}, seeds=(0, 1, 2))
    assert runs.table().iloc[:, 0].tolist() == ["0.20100 ± 0.00058", "0.25 ± 0.00"]
    assert runs.gains(over="a").iloc[0].tolist() == ["+0.04900 ± 0.00058", "[+0.04652, +0.05148]"]


def test_the_table_has_a_column_for_every_measure():
    table = compare({"a": both_measures}, seeds=(0, 1)).table()
    assert list(table.columns) == ["accuracy (%)", "loss (nats)"]


def test_the_gains_have_a_row_for_every_other_arm():
    arms = {**ARMS, "worse": lambda seed: PLAIN[seed] - 1}
    table = compare(arms, seeds=PLAIN).gains(over="labels only")
    assert list(table.index) == ["distilled", "worse"]
    gain = paired_gain(GAINS.values())
    assert table.loc["distilled"].tolist() == ["+2.00 ± 0.46", f"[{gain.low:+.2f}, {gain.high:+.2f}]"]
    assert table.loc["worse"].tolist() == ["-1.00 ± 0.00", "[-1.00, -1.00]"]
    assert list(table.columns) == ["gain over labels only", "95 % interval"]


def test_only_tables_need_an_extra_and_say_which(monkeypatch):
    for package in ("scipy", "scipy.special", "pandas"):
        monkeypatch.setitem(sys.modules, package, None)  # as if it were not installed
    runs = compare(ARMS, seeds=PLAIN)
    assert runs.gain("distilled", over="labels only").mean == 2.0
    for ask in (runs.table, lambda: runs.gains(over="labels only")):
        with pytest.raises(ImportError) as raised:
            ask()
        assert "pip install pandas" in str(raised.value) and "kdutils[course]" in str(raised.value)


# Progress


def test_a_bar_counts_the_runs_once_they_take_long_and_leaves_nothing_behind(monkeypatch):
    bars = []

    def bar(runs, **settings):
        bars.append((list(runs), settings))
        return runs

    monkeypatch.setattr("tqdm.tqdm", bar)
    compare(ARMS, (0, 1))
    pairs = [(seed, arm) for seed in (0, 1) for arm in ARMS]
    assert bars == [(pairs, {"unit": "run", "leave": False, "delay": 2})]


# What goes wrong


@pytest.mark.parametrize(
    "arms, seeds, naming",
    [
        ({}, (0, 1), "^arms: expected at least one named function, got none$"),
        (ARMS, (0,), r"seeds: expected at least two different ones, got \[0\]"),
        (ARMS, (), r"seeds: .*got \[\]"),
        (ARMS, (1, 2, 1), r"seeds: .*got \[1, 2, 1\]"),
        ({"a": both_measures, "b": lambda seed: 1.0}, (0, 1), "expected 'b' to return .* as 'a'"),
        ({"a": lambda seed: {}}, (0, 1), r"expected 'a' to return at least one measure, got \[\]"),
        ({"a": lambda seed: None}, (0, 1), "expected 'a' to return a number or a dict of numbers, got None"),
    ],
)
def test_bad_input_is_named(arms, seeds, naming):
    with pytest.raises(ValueError, match=naming):
        compare(arms, seeds)


@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_a_value_that_is_not_finite_is_named_by_arm_and_seed(value):
    arms = {"fine": lambda seed: 1.0, "diverges": lambda seed: value if seed == 7 else 1.0}
    with pytest.raises(FloatingPointError, match=rf"arm 'diverges', seed 7: accuracy \(%\) is {value}"):
        compare(arms, seeds=(6, 7, 8))


NO_NUMBERS = {
    "tuple": ((1.0, 2.0), "a tuple"),
    "list": ([1.0], "a list"),
    "text": ("93", "'93'"),
    "several numbers": (np.arange(2), "a ndarray"),
    "a tensor of several": (torch.ones(2), r"a tensor of shape \(2,\) and torch\.float32"),
    "complex": (2j, "a complex"),
    "a named list": ({"accuracy (%)": [1.0]}, "a list"),
}


@pytest.mark.parametrize("result, came", NO_NUMBERS.values(), ids=NO_NUMBERS)
def test_an_arm_that_returns_no_number_is_named(result, came):
    arms = {"fine": float, "odd": lambda seed: result if seed == 2 else 1.0}
    with pytest.raises(
        ValueError, match=f"^arms: expected 'odd' to return a number or a dict of numbers, got {came}"
    ):
        compare(arms, seeds=(1, 2))


@pytest.mark.parametrize(
    "arms, seeds, naming",
    [
        (ARMS, 5, r"seeds: expected at least two, such as range\(5\), got 5"),
        (ARMS, None, "seeds: expected at least two, .*got None"),
        (ARMS, "012", "seeds: expected at least two, .*got '012'"),
        ([float, float], (0, 1), "arms: expected a dict of functions by their names, got a list"),
        (float, (0, 1), "arms: expected a dict of functions by their names, got a type"),
        ({"a": 71.5}, (0, 1), "arms: expected 'a' to be a function of a seed, got 71.5"),
    ],
)
def test_arms_and_seeds_of_another_kind_are_named(arms, seeds, naming):
    with pytest.raises(ValueError, match=naming):
        compare(arms, seeds)


FAILURES = {
    "error": (lambda: {}["images"], KeyError),
    "memory": (lambda: torch.zeros(2**60), RuntimeError),
    "no number": (lambda: None, ValueError),
    "not finite": (lambda: math.nan, FloatingPointError),
}


@pytest.mark.parametrize("fail, kind", FAILURES.values(), ids=FAILURES)
def test_an_error_is_the_arms_own_and_keeps_the_finished_seeds(fail, kind):
    def second(seed):
        return fail() if seed == 7 else 2.0 * seed

    with pytest.raises(kind) as raised:
        compare({"first": float, "second": second, "third": float}, seeds=(3, 4, 5, 7, 8, 9))
    error = raised.value
    assert (error.arm, error.seed, error.runs.seeds) == ("second", 7, [3, 4, 5])
    assert error.runs.of("first") == [3.0, 4.0, 5.0] and error.runs.of("third") == [3.0, 4.0, 5.0]
    assert error.runs.gain("second", over="first").mean == 4.0
    if sys.version_info >= (3, 11):
        assert error.__notes__ == [
            "compare: arm 'second', seed 7; 3 finished seeds are in `runs` of this exception"
        ]


def interrupted_at(stop):
    """What is left when the second arm is interrupted at a seed."""

    def second(seed):
        if seed == stop:
            raise KeyboardInterrupt
        return 2.0 * seed

    with pytest.raises(ComparisonInterrupted) as raised:
        compare({"first": float, "second": second}, seeds=(1, 2, 3, 4))
    assert isinstance(raised.value, KeyboardInterrupt)
    return raised.value


def test_an_interrupt_keeps_the_seeds_that_every_arm_has_finished():
    interrupt = interrupted_at(3)
    assert "2 seeds finished: they are" in str(interrupt)
    assert str(interrupt).endswith("(in Jupyter: sys.last_value.runs)")
    assert interrupt.runs.seeds == [1, 2]
    assert interrupt.runs.of("first") == [1.0, 2.0] and interrupt.runs.of("second") == [2.0, 4.0]
    assert interrupt.runs.gain("second", over="first").mean == 1.5


def test_an_interrupt_before_the_first_seed_is_finished_leaves_nothing():
    runs = interrupted_at(1).runs
    assert runs.seeds == []
    for ask in (
        lambda: runs.mean("first"),
        lambda: runs.gain("second", over="first"),
        lambda: runs.gains(over="first"),
        lambda: runs.arms,
        lambda: plot.every_seed(runs),
    ):
        with pytest.raises(ValueError, match=r"seeds: expected at least 1 finished, got \[\]"):
            ask()
    with pytest.raises(ValueError, match=r"seeds: expected at least 2 finished, got \[\]"):
        runs.table()


def test_one_finished_seed_has_a_mean_and_no_spread():
    runs = interrupted_at(2).runs
    assert runs.mean("second") == 2.0 and runs.arms == ["first", "second"]
    with pytest.raises(ValueError, match=r"seeds: expected at least 2 finished, got \[1\]"):
        runs.table()
    with pytest.raises(ValueError, match="differences: expected at least two finite numbers, got"):
        runs.gains(over="first")


def test_unknown_names_are_answered_with_the_known_ones():
    runs = compare(ARMS, seeds=PLAIN)
    with pytest.raises(ValueError, match=r"arm: expected one of \['labels only', 'distilled'\], got 'kd'"):
        runs.of("kd")
    with pytest.raises(ValueError, match=r"arm: .*got 'kd'"):
        runs.gains(over="kd")
    for ask in (runs.of, runs.mean):
        with pytest.raises(ValueError, match=r"measure: expected one of \['accuracy \(%\)'\], got 'loss'"):
            ask("distilled", "loss")
    with pytest.raises(ValueError, match=r"measure: .*got 'loss'"):
        runs.gains(over="labels only", measure="loss")
