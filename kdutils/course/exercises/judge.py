"""How an exercise is judged: passed, not attempted, or not yet with the slip named. Never raises."""

import copy
import math
from collections.abc import Callable, Iterable, Mapping
from typing import Any

import torch
from torch import Tensor

PASSED = "✓ passed"
NOT_ATTEMPTED = "… not attempted: replace the dots, return the result, then run this cell again"


def not_yet(reason: str) -> str:
    """The verdict on an attempt that does not pass, with the reason."""
    return f"✗ not yet: {reason}"


def handed_in(answer: Any, names: Iterable[str]) -> Mapping[str, Any] | None:
    """A dict that the reader hands in; None for anything else, once the verdict on it is printed.

    Args:
        answer: The reader's dict, or `...`.
        names: The keys that it should have, and no others.
    """
    names = list(names)
    if answer is ...:
        print(NOT_ATTEMPTED)
    elif not isinstance(answer, Mapping) or set(answer) != set(names):
        shown = list(answer) if isinstance(answer, Mapping) else type(answer).__name__
        print(not_yet(f"expected a dict with the keys {names}, got {shown}"))
    else:
        return answer
    return None


def number(value: Any) -> float:
    """What a reader hands in as a float; −1 for what is no finite number, so that the verdict can say so."""
    try:
        result = float(value)
    except Exception:  # whatever the reader hands over
        return -1.0
    return result if math.isfinite(result) else -1.0


def judge_function(
    attempt: Any,
    cases: Iterable[tuple],
    definition: Callable[..., Any],
    slips: Mapping[str, Callable[..., Any]],
    gradient: bool = True,
) -> None:
    """Prints the verdict on a function that the reader wrote.

    Args:
        attempt: The reader's function, or `...`.
        cases: Tuples of arguments to try, seeded by the caller.
        definition: The function written out.
        slips: What a usual slip looks like ("T² is missing") → the function with that slip.
        gradient: Also compare the gradients with respect to all floating-point arguments, so that a teacher
            that learns is found out ("the gradient differs").
    """
    cases = list(cases)
    try:
        answers = [_value_and_gradients(attempt, case, gradient) for case in cases]
    except _Verdict as verdict:
        print(verdict)
        return
    except Exception as error:  # whatever the reader's code raises is the verdict, not a crash of the page
        first_line = str(error).partition("\n")[0]
        print(not_yet(f"it raised {type(error).__name__}: {first_line}"))
        return
    expected = [_value_and_gradients(definition, case, gradient) for case in cases]
    if all(map(_same, answers, expected)):
        print(PASSED)
        return
    for description, slip in slips.items():
        if all(map(_same, answers, (_value_and_gradients(slip, case, gradient) for case in cases))):
            print(not_yet(f"looks as if {description}"))
            return
    pairs = zip(answers, expected, strict=True)
    print(not_yet(next(_difference(answer, right) for answer, right in pairs if not _same(answer, right))))


def judge_value(attempt: Any, correct: float, tolerance: float, slips: Mapping[str, float]) -> None:
    """Prints the verdict on a number that the reader predicted or worked out.

    Args:
        attempt: The reader's number, or `...`.
        correct: The right number.
        tolerance: Largest difference that still passes.
        slips: What a usual slip looks like → the number it leads to.
    """
    if attempt is ...:
        print(NOT_ATTEMPTED)
        return
    try:
        answer = float(attempt)
    except Exception:  # text, None, a tensor of several numbers, …
        answer = math.nan
    if math.isnan(answer):
        print(not_yet(f"expected a number, got {attempt!r}"))
        return
    if abs(answer - correct) <= tolerance:
        print(PASSED)
        return
    for description, value in slips.items():
        if abs(answer - value) <= tolerance:
            print(not_yet(f"looks as if {description}"))
            return
    print(not_yet(f"{answer:.4g} is too {'high' if answer > correct else 'low'}"))


def judge_choice(attempt: Any, correct: str, why_not: Mapping[str, str]) -> None:
    """Prints the verdict on a choice among strings.

    Args:
        attempt: The reader's choice, or `...`.
        correct: The right choice.
        why_not: A wrong choice → what speaks against it.
    """
    if attempt is ...:
        print(NOT_ATTEMPTED)
    elif isinstance(attempt, str) and attempt == correct:
        print(PASSED)
    elif isinstance(attempt, str) and attempt in why_not:
        print(not_yet(why_not[attempt]))
    else:
        print(not_yet(f"expected one of {sorted({correct, *why_not})}, got {attempt!r}"))


class _Verdict(Exception):
    """A verdict that needs no comparison."""


def _value_and_gradients(function: Any, case: tuple, gradient: bool) -> tuple[Tensor, list[Tensor]]:
    """The value, and the gradient of its sum for every floating-point argument (zero where none arrives).

    The function gets copies: a case that it changes in place is whole again for the next one.
    """
    if function is ...:
        raise _Verdict(NOT_ATTEMPTED)
    arguments = [
        argument.detach().clone().requires_grad_(gradient) if _is_float(argument) else copy.deepcopy(argument)
        for argument in case
    ]
    inputs = [argument for argument in arguments if _is_float(argument)]
    # copies of these in turn: PyTorch lets nobody change in place what asks for a gradient itself
    value = function(*(argument.clone() if _is_float(argument) else argument for argument in arguments))
    if value is ... or value is None:
        raise _Verdict(NOT_ATTEMPTED)
    try:
        value = torch.as_tensor(value)
    except Exception as error:
        raise _Verdict(not_yet(f"expected a tensor or a number, got {type(value).__name__}")) from error
    gradients: Iterable[Tensor | None] = [None] * len(inputs)
    if gradient and inputs and value.requires_grad:
        gradients = torch.autograd.grad(value.sum(), inputs, allow_unused=True)
    return _plain(value), [
        torch.zeros_like(i) if g is None else g for g, i in zip(gradients, inputs, strict=True)
    ]


def _plain(value: Tensor) -> Tensor:
    return value.detach().to_dense().to("cpu", torch.float64)


def _is_float(argument: Any) -> bool:
    return isinstance(argument, Tensor) and argument.is_floating_point()


def _same(answer: tuple[Tensor, list[Tensor]], other: tuple[Tensor, list[Tensor]]) -> bool:
    return _close(answer[0], other[0]) and all(map(_close, answer[1], other[1]))


def _close(a: Tensor, b: Tensor) -> bool:
    return a.shape == b.shape and torch.allclose(a, b, rtol=1e-4, atol=1e-7, equal_nan=True)


def _difference(answer: tuple[Tensor, list[Tensor]], expected: tuple[Tensor, list[Tensor]]) -> str:
    value, right = answer[0], expected[0]
    if value.shape != right.shape:
        return f"expected a result of shape {tuple(right.shape)}, got {tuple(value.shape)}"
    if _close(value, right):
        return "the value is right, its gradient is not: does the teacher's side learn, or the student's not?"
    if value.dim() == 0:
        return f"on random input the definition gives {right.item():.4g}, yours {value.item():.4g}"
    return f"on random input it differs from the definition by up to {(value - right).abs().max().item():.3g}"
