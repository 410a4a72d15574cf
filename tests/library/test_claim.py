"""A claim says the same words whether it holds or not, and needs a bound that it can miss."""

import math

import numpy as np
import pytest
import torch

from kdutils.claim import RESTS_ON, ClaimFailed, check

HOLDS = [
    ((2.5,), {"above": 2.0}, "2.5 (> 2)"),
    ((1.5,), {"below": 2.0}, "1.5 (< 2)"),
    ((1.5,), {"above": 1, "below": 2}, "1.5 (> 1 and < 2)"),
    ((0.0,), {"above": -0.5, "below": 0.5}, "0 (> -0.5 and < 0.5)"),
    ((3,), {"equals": 3}, "3 (= 3)"),
    ((3.04,), {"equals": 3, "tolerance": 0.05}, "3.04 (= 3 ± 0.05)"),
    ((3.25,), {"equals": 3, "tolerance": 0.25}, "3.25 (= 3 ± 0.25)"),
    ((296_672,), {"equals": 296_672}, "296,672 (= 296,672)"),
    ((0.0012345,), {"below": 1e9}, "0.001234 (< 1,000,000,000)"),
    ((torch.tensor([2.0]),), {"above": 1}, "2 (> 1)"),
    ((np.float32(2.0),), {"above": 1}, "2 (> 1)"),
]


@pytest.mark.parametrize("value, bounds, words", HOLDS)
def test_a_claim_that_holds_is_printed_with_value_and_bound(value, bounds, words, capsys):
    check("the gain, points", *value, **bounds)
    assert capsys.readouterr().out == f"✓ the gain, points: {words}\n"


MISSED = [
    (2.0, {"above": 2.0}, "2 (> 2)"),
    (2.0, {"below": 2.0}, "2 (< 2)"),
    (3.0, {"above": 1, "below": 2}, "3 (> 1 and < 2)"),
    (0.0, {"above": 1, "below": 2}, "0 (> 1 and < 2)"),
    (4, {"equals": 3}, "4 (= 3)"),
    (296_671, {"equals": 296_672}, "296,671 (= 296,672)"),
    (3.06, {"equals": 3, "tolerance": 0.05}, "3.06 (= 3 ± 0.05)"),
    (2.94, {"equals": 3, "tolerance": 0.05}, "2.94 (= 3 ± 0.05)"),
    (math.nan, {"above": 2.0}, "nan (> 2)"),
    (math.nan, {"below": 2.0}, "nan (< 2)"),
    (math.nan, {"above": -9e9, "below": 9e9}, "nan (> -9,000,000,000 and < 9,000,000,000)"),
    (math.nan, {"equals": math.nan, "tolerance": 1e300}, "nan (= nan ± 1e+300)"),
    (math.inf, {"above": 0}, "inf (> 0)"),
    (-math.inf, {"below": 0}, "-inf (< 0)"),
    (math.inf, {"equals": 1.0, "tolerance": 1e300}, "inf (= 1 ± 1e+300)"),
    (1.0, {"above": math.nan}, "1 (> nan)"),
]


@pytest.mark.parametrize("value, bounds, words", MISSED)
def test_a_claim_that_is_missed_raises_with_the_same_words(value, bounds, words, capsys):
    with pytest.raises(ClaimFailed) as raised:
        check("the gain, points", value, **bounds)
    assert str(raised.value) == f"✗ the gain, points: {words}"
    assert isinstance(raised.value, AssertionError)
    assert capsys.readouterr().out == ""


@pytest.mark.parametrize(
    "bounds",
    [
        {},
        {"tolerance": 1.0},
        {"equals": 1, "above": 0},
        {"equals": 1, "below": 2},
        {"above": 0, "tolerance": 1},
        {"above": -math.inf},
        {"above": 0, "below": math.inf},
        {"equals": math.inf},
        {"equals": 1, "tolerance": math.inf},
    ],
)
def test_a_claim_needs_a_bound_that_fits(bounds):
    with pytest.raises(ValueError, match="a claim needs"):
        check("nothing is claimed", 1.0, **bounds)


@pytest.mark.parametrize("rests_on", RESTS_ON)
def test_what_a_claim_rests_on_changes_no_word(rests_on, capsys):
    check("the gain, points", 2.5, above=2.0, rests_on=rests_on)
    assert capsys.readouterr().out == "✓ the gain, points: 2.5 (> 2)\n"
    with pytest.raises(ClaimFailed, match=r"^✗ the gain, points: 1\.5"):
        check("the gain, points", 1.5, above=2.0, rests_on=rests_on)


def test_a_claim_rests_on_something_known():
    with pytest.raises(ValueError, match=r"rests_on: expected one of .*'teacher'.*, got 'luck'"):
        check("the gain, points", 2.5, above=2.0, rests_on="luck")
