"""Exercise checks of notebook 00, why distill."""

from typing import Any

from kdutils.course.exercises.judge import judge_choice, judge_function


def twice_the_width(prediction: Any) -> None:
    """What happens to the parameters of a network whose layers all become twice as wide?"""
    judge_choice(
        prediction,
        correct="nearly four times",
        why_not={
            "two times": "a convolution has inputs times outputs weights, and both become twice as many",
            "nearly eight times": "inputs and outputs become twice as many; the 3×3 window stays as it is",
        },
    )


def conv_macs(attempt: Any) -> None:
    """Multiply-accumulates of one convolution: output positions × window × channels in × channels out."""
    judge_function(
        attempt,
        cases=[(3, 8, 3, 14), (16, 4, 5, 7)],
        definition=lambda i, o, k, size: size**2 * k**2 * i * o,
        slips={
            "the parameters were counted: each weight works at every position of the output": (
                lambda i, o, k, size: k**2 * i * o
            ),
            "the output had one position a side: it has size × size": (
                lambda i, o, k, size: size * k**2 * i * o
            ),
            "the window had k weights: it has k × k": lambda i, o, k, size: size**2 * k * i * o,
            "multiplications and additions were counted apart: a multiply-accumulate is one": (
                lambda i, o, k, size: 2 * size**2 * k**2 * i * o
            ),
            "every output channel saw one input channel: it sees all": (
                lambda i, o, k, size: size**2 * k**2 * o
            ),
        },
        gradient=False,
    )


def labels_matched(answer: Any) -> None:
    """How many labels does the student need on its own to do as well as the distilled one with 500?"""
    judge_choice(
        answer,
        correct="two to four times as many",
        why_not={
            "fewer than twice as many": "look where the labels-only curve crosses the line",
            "more than four times as many": "the labels-only curve crosses the line before its last point",
        },
    )
