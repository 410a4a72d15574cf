"""Sums of two numbers with the carries written out, as texts that a language model can learn to continue.

A trace goes from the last digit to the first, as on paper: at each place the two digits, the carry that comes
from the place before, and the two digits of their sum. Then comes the answer.

    275+618= 5+8+0=13 7+1+1=09 2+6+0=08 0893.

Spaces are not written. The prompt ends with the first "="; the answer has one digit more than the numbers.
"""

from typing import NamedTuple

import torch
from torch import Tensor

from kdutils._validate import require_count

SYMBOLS = ("_", *"0123456789", "+", "=", ".")
VOCABULARY = len(SYMBOLS)
IDS = {symbol: i for i, symbol in enumerate(SYMBOLS)}
PAD, END = IDS["_"], IDS["."]
STEP_LENGTH = len("5+8+0=13")


class Sums(NamedTuple):
    """Pairs of numbers, each (N,) as int64, to be added."""

    first: Tensor
    second: Tensor


def random_sums(size: int, num_digits: int, seed: int) -> Sums:
    """Pairs of numbers with the digits drawn evenly, leading zeros among them; no pair stands twice.

    Args:
        size: N, at most half of all pairs, which are 100 ** num_digits.
        num_digits: Digits of each number, from 1 to 8.
        seed: The same seed gives the same pairs.

    Raises:
        ValueError: A size or a number of digits that is not as described.
    """
    require_count("num_digits", num_digits, most=8)
    num_pairs = 100**num_digits
    require_count("size", size, most=num_pairs // 2)
    generator = torch.Generator().manual_seed(seed)
    pairs = torch.empty(0, dtype=torch.long)
    while len(pairs) < size:
        drawn = torch.randint(num_pairs, (2 * size,), generator=generator)
        pairs = _without_repeats(torch.cat([pairs, drawn]))[:size]
    return Sums(pairs // 10**num_digits, pairs % 10**num_digits)


def held_out(sums: Sums, others: Sums) -> Sums:
    """The sums that are not among the others, neither as they stand nor with their numbers exchanged."""
    known = set(zip(others.first.tolist(), others.second.tolist(), strict=True))
    pairs = zip(sums.first.tolist(), sums.second.tolist(), strict=True)
    is_new = torch.tensor([(a, b) not in known and (b, a) not in known for a, b in pairs], dtype=torch.bool)
    return Sums(sums.first[is_new], sums.second[is_new])


def prompt_length(num_digits: int) -> int:
    """Tokens of a prompt such as 275+618=."""
    return 2 * num_digits + 2


def text_length(num_digits: int, trace: bool = True) -> int:
    """Tokens of a whole text, from the first digit to the end token."""
    return prompt_length(num_digits) + trace * num_digits * STEP_LENGTH + num_digits + 2


def sum_prompts(sums: Sums, num_digits: int) -> Tensor:
    """The first tokens of the texts, up to "=": (N, 2 · num_digits + 2) as int64.

    Raises:
        ValueError: Numbers with more digits, or below 0.
    """
    first, second = _digits(sums, num_digits)
    return _tokens(*first.unbind(1), "+", *second.unbind(1), "=")


def sum_texts(
    sums: Sums, num_digits: int, *, trace: bool = True, trace_of: Sums | None = None
) -> tuple[Tensor, Tensor]:
    """Whole texts with right answers, and which of their tokens are to be learned.

    Args:
        sums: N pairs of numbers.
        num_digits: Digits of each number, with leading zeros.
        trace: Whether the carries are written out before the answer.
        trace_of: Other sums, N pairs, whose carries are written instead of the right ones: a control.

    Returns:
        Tokens (N, L) as int64, all of one length, and booleans of the same shape, true after the prompt.

    Raises:
        ValueError: Numbers with more digits, or below 0, or another number of other sums.
    """
    if trace_of is not None and len(trace_of.first) != len(sums.first):
        raise ValueError(f"trace_of: expected {len(sums.first)} sums, got {len(trace_of.first)}")
    total = sums.first + sums.second
    answer = [total // 10**place % 10 for place in reversed(range(num_digits + 1))]
    steps = _steps(sums if trace_of is None else trace_of, num_digits) if trace else []
    tokens = torch.cat([sum_prompts(sums, num_digits), _tokens(*steps, *answer, ".")], dim=1)
    is_learned = torch.zeros_like(tokens, dtype=torch.bool)
    is_learned[:, prompt_length(num_digits) :] = True
    return tokens, is_learned


def answers(tokens: Tensor, num_digits: int) -> Tensor:
    """The number that stands before the end token of each text (N, L): (N,) as int64, −1 where none does.

    It is read from the last num_digits + 1 digits; whatever stands in the trace does not count.
    """
    return torch.tensor([_answer(row, num_digits) for row in tokens.tolist()], dtype=torch.long)


def is_right(tokens: Tensor, sums: Sums, num_digits: int) -> Tensor:
    """Which texts (N, L) end with the right sum, whatever stands in their trace: booleans (N,).

    Raises:
        ValueError: Another number of texts than of sums.
    """
    if len(tokens) != len(sums.first):
        raise ValueError(f"tokens: expected {len(sums.first)} texts, got {len(tokens)}")
    return answers(tokens, num_digits) == sums.first + sums.second


def written(tokens: Tensor) -> list[str]:
    """Texts (N, L) as strings, without the padding at their end."""
    return ["".join(SYMBOLS[i] for i in row).rstrip(SYMBOLS[PAD]) for row in tokens.tolist()]


def _answer(row: list[int], num_digits: int) -> int:
    end = row.index(END) if END in row else 0
    start = end - (num_digits + 1)
    digits = "".join(SYMBOLS[i] for i in row[max(start, 0) : end])
    return int(digits) if start >= prompt_length(num_digits) and digits.isdecimal() else -1


def _steps(sums: Sums, num_digits: int) -> list[Tensor | str]:
    """The trace, token by token."""
    first, second = _digits(sums, num_digits)
    carry = torch.zeros_like(first[:, 0])
    steps: list[Tensor | str] = []
    for a, b in zip(first.unbind(1)[::-1], second.unbind(1)[::-1], strict=True):
        total = a + b + carry
        steps += [a, "+", b, "+", carry, "=", total // 10, total % 10]
        carry = total // 10
    return steps


def _digits(sums: Sums, num_digits: int) -> tuple[Tensor, Tensor]:
    """The digits of both numbers, the largest place first, each (N, num_digits)."""
    for name, numbers in zip(Sums._fields, sums, strict=True):
        if len(numbers) and not 0 <= int(numbers.min()) <= int(numbers.max()) < 10**num_digits:
            raise ValueError(
                f"{name}: expected numbers of up to {num_digits} digits, "
                f"got from {int(numbers.min())} to {int(numbers.max())}"
            )
    places = 10 ** torch.arange(num_digits - 1, -1, -1)
    return sums.first[:, None] // places % 10, sums.second[:, None] // places % 10


def _tokens(*pieces: Tensor | str) -> Tensor:
    """One column for each piece, a tensor of digits (N,) or a symbol: (N, number of pieces)."""
    size = next(len(piece) for piece in pieces if isinstance(piece, Tensor))
    columns = [
        torch.full((size,), IDS[piece]) if isinstance(piece, str) else piece + IDS["0"] for piece in pieces
    ]
    return torch.stack(columns, dim=1)


def _without_repeats(pairs: Tensor) -> Tensor:
    """Each number once, where it stands first."""
    return torch.tensor(list(dict.fromkeys(pairs.tolist())), dtype=torch.long)
