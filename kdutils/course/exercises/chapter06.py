"""Exercise checks of notebook 06, self-distillation."""

import math
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from kdutils.course.exercises.judge import handed_in, judge_choice, judge_function, not_yet
from kdutils.evaluate import accuracy, fit_temperature


def honest_confidence(results: Any) -> None:
    """A temperature for a network of the reader's own, and what it says about the network as it is.

    Args:
        results: `"validation"` and `"test"`, each a pair of logits (N, K) and labels (N,); `"temperature"`;
            `"so"`: whether mean confidence lies above accuracy on the second half, or below it.
    """
    if handed_in(results, ["validation", "test", "temperature", "so"]) is None:
        return
    try:
        (logits, labels), (test_logits, test_labels) = results["validation"], results["test"]
        temperature, given = fit_temperature(logits, labels), float(results["temperature"])
        on_test = fit_temperature(test_logits, test_labels)
        gap = 100 * test_logits.double().softmax(dim=1).amax(dim=1).mean().item()
        gap -= accuracy(test_logits, test_labels)
    except Exception as error:  # whatever the reader hands over: the verdict says what is wrong with it
        print(not_yet(f"it raised {type(error).__name__}: {str(error).partition(chr(10))[0]}"))
        return
    if logits.shape == test_logits.shape and torch.equal(logits, test_logits):
        print(not_yet("the two halves are the same: the repair would be judged on what it was fitted to"))
    elif math.isclose(given, temperature, rel_tol=0.01):
        shown = f"mean confidence minus accuracy is {gap:+.2f} points"
        follows, other = ("too sure", "too modest") if gap > 0 else ("too modest", "too sure")
        judge_choice(results["so"], follows, {other: shown})
    elif math.isclose(given, on_test, rel_tol=0.01):
        print(not_yet("the temperature was fitted on the test half, which is to judge it"))
    elif math.isclose(given * temperature, 1, rel_tol=0.01):
        print(not_yet("that is 1 / T: the logits are divided by T"))
    else:
        print(not_yet(f"the validation half is likeliest at another temperature, {temperature:.3f}"))


def smoothed_cross_entropy(attempt: Any) -> None:
    """Cross-entropy against labels mixed with the uniform distribution over all classes."""
    generator = torch.Generator().manual_seed(0)

    def case(num_classes: int, smoothing: float) -> tuple[Tensor, Tensor, float]:
        logits = 3 * torch.randn(6, num_classes, generator=generator, dtype=torch.float64)
        return logits, torch.randint(num_classes, (6,), generator=generator), smoothing

    judge_function(
        attempt,
        cases=[case(5, 0.1), case(3, 0.4)],
        definition=lambda z, y, smoothing: F.cross_entropy(z, y, label_smoothing=smoothing),
        slips={
            "the smoothing is shared among the other classes only: the label gets its part, too": (
                lambda z, y, smoothing: _mixed(z, y, smoothing * z.shape[1] / (z.shape[1] - 1))
            ),
            "the uniform distribution is missing: the other classes get nothing": (
                lambda z, y, smoothing: (1 - smoothing) * F.cross_entropy(z, y)
            ),
            "label and uniform distribution have swapped weights": (
                lambda z, y, smoothing: _mixed(z, y, 1 - smoothing)
            ),
            "every class gets `smoothing`: the uniform distribution gives each 1 / K": (
                lambda z, y, smoothing: (
                    (1 - smoothing) * F.cross_entropy(z, y) - smoothing * F.log_softmax(z, 1).sum(1).mean()
                )
            ),
            "the label keeps all its weight: the targets sum to more than one": (
                lambda z, y, smoothing: F.cross_entropy(z, y) - smoothing * F.log_softmax(z, 1).mean(1).mean()
            ),
            "the labels are not smoothed": lambda z, y, smoothing: F.cross_entropy(z, y),
            "the mean also runs over the classes": (
                lambda z, y, smoothing: _mixed(z, y, smoothing) / z.shape[1]
            ),
            "the sum over the batch is not divided by N": (
                lambda z, y, smoothing: _mixed(z, y, smoothing) * len(z)
            ),
            "the minus sign is missing": lambda z, y, smoothing: -_mixed(z, y, smoothing),
            "probabilities stand where log-probabilities belong": (
                lambda z, y, smoothing: -(_targets(z, y, smoothing) * z.softmax(1)).sum(1).mean()
            ),
        },
    )


def present_teacher(answer: Any) -> None:
    """What is the gradient of PS-KD, if the past that teaches is the present?"""
    judge_choice(
        answer,
        correct="half the gradient of the labels alone",
        why_not={
            "zero": "half of the target is still the label, and the answer differs from it",
            "the gradient of the labels alone": "the target has moved half the way to the answer: what is "
            "left of answer minus target?",
            "pointing to softer answers": "the teacher is exactly as soft as the pupil: it pulls nowhere",
        },
    )


def _targets(logits: Tensor, labels: Tensor, smoothing: float) -> Tensor:
    num_classes = logits.shape[1]
    return (1 - smoothing) * F.one_hot(labels, num_classes) + smoothing / num_classes


def _mixed(logits: Tensor, labels: Tensor, smoothing: float) -> Tensor:
    return -(_targets(logits, labels, smoothing) * F.log_softmax(logits, dim=1)).sum(dim=1).mean()
