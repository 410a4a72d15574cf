"""Sums are right, drawn once each and held out; texts and marks say what the numbers say."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from kdutils.course.arithmetic import (
    END,
    PAD,
    SYMBOLS,
    Sums,
    answers,
    held_out,
    is_right,
    prompt_length,
    random_sums,
    sum_prompts,
    sum_texts,
    text_length,
    written,
)

TWO = Sums(torch.tensor([275, 7]), torch.tensor([618, 993]))


def test_a_trace_as_the_module_shows_it():
    tokens, is_learned = sum_texts(TWO, 3)
    assert written(tokens) == [
        "275+618=5+8+0=137+1+1=092+6+0=080893.",
        "007+993=7+3+0=100+9+1=100+9+1=101000.",
    ]
    assert tokens.shape == is_learned.shape == (2, text_length(3)) and tokens.dtype == torch.int64
    assert written(tokens[:, : prompt_length(3)]) == ["275+618=", "007+993="]
    assert not is_learned[:, :8].any() and is_learned[:, 8:].all()
    assert torch.equal(sum_prompts(TWO, 3), tokens[:, :8])


def test_an_answer_without_a_trace():
    tokens, is_learned = sum_texts(TWO, 3, trace=False)
    assert written(tokens) == ["275+618=0893.", "007+993=1000."]
    assert tokens.shape == (2, text_length(3, trace=False)) and is_learned[:, 8:].all()


@settings(max_examples=40, deadline=None)
@given(st.integers(1, 8).flatmap(lambda d: st.tuples(st.just(d), *[st.integers(0, 10**d - 1)] * 2)))
def test_the_steps_are_the_sum_on_paper(drawn):
    num_digits, a, b = drawn
    sums = Sums(torch.tensor([a]), torch.tensor([b]))
    (text,) = written(sum_texts(sums, num_digits)[0])
    trace, answer = text[prompt_length(num_digits) : -num_digits - 2], text[-num_digits - 2 : -1]
    steps = [trace[i : i + 8] for i in range(0, len(trace), 8)]
    assert len(steps) == num_digits and int(answer) == a + b
    carry = 0
    for place, step in enumerate(steps):
        digits = a // 10**place % 10, b // 10**place % 10
        assert step == f"{digits[0]}+{digits[1]}+{carry}={sum(digits) + carry:02d}"
        carry = (sum(digits) + carry) // 10
    assert int(f"{carry}" + "".join(step[-1] for step in steps[::-1])) == a + b
    assert is_right(sum_texts(sums, num_digits)[0], sums, num_digits).all()


def test_another_problems_trace_keeps_prompt_and_answer():
    other = Sums(TWO.first.flip(0), TWO.second.flip(0))
    tokens, _ = sum_texts(TWO, 3, trace_of=other)
    right, theirs = sum_texts(TWO, 3)[0], sum_texts(other, 3)[0]
    assert torch.equal(tokens[:, :8], right[:, :8]) and torch.equal(tokens[:, -5:], right[:, -5:])
    assert torch.equal(tokens[:, 8:-5], theirs[:, 8:-5])
    assert is_right(tokens, TWO, 3).all()


def test_only_the_answer_before_the_end_counts():
    tokens, _ = sum_texts(TWO, 3)
    assert answers(tokens, 3).tolist() == [893, 1000]
    wrong_trace = tokens.clone()
    wrong_trace[:, 9] = PAD
    assert is_right(wrong_trace, TWO, 3).tolist() == [True, True]
    assert is_right(tokens.flip(0), TWO, 3).tolist() == [False, False]
    padded = torch.cat([tokens, torch.full((2, 3), PAD)], dim=1)
    assert answers(padded, 3).tolist() == [893, 1000] and written(padded) == written(tokens)


def test_no_answer_is_no_number():
    tokens, _ = sum_texts(TWO, 3, trace=False)
    endless = torch.where(tokens == END, PAD, tokens)
    early = tokens.clone()
    early[:, 10] = END
    padding_inside = tokens.clone()
    padding_inside[:, 9] = PAD
    for broken in (endless, early, padding_inside, tokens[:, :12]):
        assert answers(broken, 3).tolist() == [-1, -1]


def test_sums_are_drawn_once_by_their_seed():
    torch.manual_seed(0)
    expected = torch.rand(3)
    torch.manual_seed(0)
    sums = random_sums(4000, 2, seed=1)
    assert torch.equal(torch.rand(3), expected)
    assert len(set(zip(*(numbers.tolist() for numbers in sums), strict=True))) == 4000
    assert torch.equal(random_sums(4000, 2, seed=1).first, sums.first)
    assert torch.equal(random_sums(100, 2, seed=1).first, sums.first[:100]), "fewer are the first of more"
    assert not torch.equal(random_sums(4000, 2, seed=2).first, sums.first)


def test_digits_are_even():
    for numbers in random_sums(20_000, 3, seed=0):
        for place in (1, 10, 100):
            counts = torch.bincount(numbers // place % 10, minlength=10)
            assert counts.min() > 1800 and counts.max() < 2200


def test_held_out_sums_are_not_known_in_either_order():
    known, drawn = random_sums(3000, 2, seed=0), random_sums(3000, 2, seed=1)
    new = held_out(drawn, known)
    pairs = set(zip(*(numbers.tolist() for numbers in new), strict=True))
    seen = set(zip(*(numbers.tolist() for numbers in known), strict=True))
    assert 0 < len(pairs) == len(new.first) < 3000
    assert not pairs & seen and not pairs & {(b, a) for a, b in seen}
    assert len(held_out(known, known).first) == 0


def test_bad_input_is_named():
    with pytest.raises(ValueError, match="second: expected numbers of up to 2 digits, got from 5 to 100"):
        sum_texts(Sums(torch.tensor([1, 2]), torch.tensor([5, 100])), 2)
    with pytest.raises(ValueError, match="first: expected numbers of up to 2 digits, got from -1 to 1"):
        sum_prompts(Sums(torch.tensor([-1, 1]), torch.tensor([5, 6])), 2)
    with pytest.raises(ValueError, match="size: expected a whole number >= 1 and at most 50, got 51"):
        random_sums(51, 1, seed=0)
    with pytest.raises(ValueError, match="num_digits: expected a whole number >= 1 and at most 8, got 9"):
        random_sums(5, 9, seed=0)
    with pytest.raises(ValueError, match="tokens: expected 2 texts, got 1"):
        is_right(sum_texts(TWO, 3)[0][:1], TWO, 3)
    with pytest.raises(ValueError, match="trace_of: expected 2 sums, got 1"):
        sum_texts(TWO, 3, trace_of=Sums(TWO.first[:1], TWO.second[:1]))


def test_symbols_are_told_apart():
    assert len(set(SYMBOLS)) == len(SYMBOLS) == 14 and PAD == 0
