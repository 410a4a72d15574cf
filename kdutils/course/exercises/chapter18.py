"""Exercise checks of notebook 18, your own problem."""

import contextlib
import io
import math
from collections.abc import Callable, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from kdutils.audit import audit
from kdutils.batches import batches
from kdutils.compare import Gain, paired_gain
from kdutils.course import data, models
from kdutils.course.exercises.judge import (
    NOT_ATTEMPTED,
    PASSED,
    handed_in,
    judge_function,
    judge_value,
    not_yet,
)
from kdutils.evaluate import accuracy
from kdutils.train import fit, predict

SEEDS = (0, 1, 2)
NUM_IMAGES, STEPS, BASELINE_LR = 500, 300, 0.6


def partly_rounded(size: Any) -> None:
    """The encoder's megabytes if its linear layers have eight bits and its word table keeps float32."""
    judge_value(
        size,
        correct=58.0,
        tolerance=1.5,
        slips={
            "the word table was rounded, too": 22.7,
            "nothing was rounded": 90.9,
            "the table was rounded and the layers were not": 55.7,
            "only the table was counted": 46.9,
            "only the layers were counted": 11.0,
        },
    )


def worth_in_labels(attempt: Any) -> None:
    """How many labels a baseline needs for an accuracy, read off its curve on a doubling axis."""
    curve = torch.tensor([250.0, 500.0, 1000.0, 2000.0]), torch.tensor([60.0, 66.0, 70.0, 73.0])
    rising = torch.tensor([100.0, 400.0, 3200.0]), torch.tensor([50.0, 58.0, 64.0])
    judge_function(
        attempt,
        cases=[(*curve, 67.0), (*curve, 72.0), (*curve, 66.0), (*rising, 61.5), (*curve, 62.0)],
        definition=_worth,
        slips={
            "the line was drawn over labels, not over their logarithm": _worth_linear,
            "the nearest point of the curve was taken: draw a line between two": _worth_nearest,
            "the result is a logarithm: raise 2 to it": _worth_logarithm,
        },
        gradient=False,
    )


def project_images() -> tuple[Tensor, Tensor]:
    """The project's 500 images (N, 1, 28, 28), uint8, and their labels."""
    return data.labeled_subset(data.fashion_mnist().pool, NUM_IMAGES, seed=0)


def repaired(project: Any) -> None:
    """A repaired project: a dict of its "loss", the teacher's cached "answers" (500, 10), its peak rate "lr".

    What costs nothing is looked at first. Only what passes is trained, three times, in about half a minute.
    """
    parts = ("loss", "answers", "lr")
    if handed_in(project, parts) is None:
        return
    if any(project[part] is ... for part in parts):
        print(NOT_ATTEMPTED)
        return
    try:
        print(_verdict_on(project["loss"], project["answers"], float(project["lr"])))
    except Exception as error:  # whatever the reader's code raises is the verdict, not a crash of the page
        first_line = str(error).partition("\n")[0]
        print(not_yet(f"it raised {type(error).__name__}: {first_line}"))


def own_problem(report: Any) -> None:
    """A report on a problem of your own: scores of three arms seed by seed, the teacher's, the size in MB."""
    arms, names = ("labels", "know-nothing", "distilled"), ("teacher", "megabytes")
    if handed_in(report, [*arms, *names]) is None:
        return
    scores = {arm: _numbers(report[arm]) for arm in arms}
    single = {name: _numbers([report[name]]) for name in names}
    if bad := [name for name, found in (scores | single).items() if not found]:
        print(not_yet(f"expected numbers for {bad[0]!r}, got {report[bad[0]]!r}"))
        return
    print(_verdict_on_report(scores, teacher=single["teacher"][0], megabytes=single["megabytes"][0]))


def _verdict_on_report(scores: dict[str, list[float]], teacher: float, megabytes: float) -> str:
    counts = {len(of_arm) for of_arm in scores.values()}
    if len(counts) > 1:
        return not_yet("the arms have different numbers of seeds: pair them, seed by seed")
    if counts.pop() < 5:
        return not_yet("fewer than five seeds: an interval from so few says little")
    whole = _gain(scores["distilled"], scores["labels"])
    left = _gain(scores["distilled"], scores["know-nothing"])
    if teacher <= sum(scores["labels"]) / len(scores["labels"]):
        return not_yet("the teacher is no better than the student on labels: nothing is there to be learned")
    if whole.low <= 0:
        return f"{PASSED}: an honest null, {whole}. Take the student on labels, {megabytes:g} MB"
    if left.low <= 0:
        return f"{PASSED}: a gain of {whole}, but a teacher who knows nothing may bring as much: {left}"
    return f"{PASSED}: ship it, {megabytes:g} MB. Over labels {whole}; beyond a know-nothing teacher {left}"


def _verdict_on(loss_fn: Callable[..., Any], answers: Any, lr: float) -> str:
    images, labels = project_images()
    if not isinstance(answers, Tensor) or answers.shape != (NUM_IMAGES, data.NUM_CLASSES):
        return not_yet(f"answers: expected shape (500, 10), got {_described(answers)}")
    if (reached := accuracy(answers, labels)) < 85:
        return not_yet(
            f"the cached answers are right on {reached:.0f}% of the images: prepared as in training?"
        )
    loader = batches(images, labels, answers, seed=0, transform=data.normalize_fashion_mnist)
    teacher = models.load_teacher()
    with contextlib.redirect_stdout(io.StringIO()):
        slips = audit(loss_fn, models.small_cnn(seed=0), teacher, next(iter(loader)))
    if slips:
        return not_yet(f"the audit says: {slips[0]}")
    if not 0.05 <= lr <= 3:
        return not_yet("the learning rate is still far from its best: try it in steps of three")
    gain = _gain(
        [_trained(loss_fn, answers, lr, seed) for seed in SEEDS],
        [_trained(_labels_only, answers, BASELINE_LR, seed) for seed in SEEDS],
    )
    if gain.mean <= 0.5:
        return not_yet(f"sound, but no better than labels: {gain}. Try other learning rates")
    return f"{PASSED}: {gain}"


def _trained(loss_fn: Callable[..., Any], answers: Tensor, lr: float, seed: int) -> float:
    images, labels = project_images()
    student = models.small_cnn(seed)
    loader = batches(images, labels, answers, seed=seed, transform=data.normalize_fashion_mnist)
    fit(student, loader, loss_fn, steps=STEPS, lr=lr)
    test = data.fashion_mnist().test
    return accuracy(predict(student, test.images, transform=data.normalize_fashion_mnist), test.labels)


def _labels_only(student: nn.Module, images: Tensor, labels: Tensor, teacher_logits: Tensor) -> Tensor:
    return F.cross_entropy(student(images), labels)


def _gain(values: Sequence[float], others: Sequence[float]) -> Gain:
    return paired_gain([value - other for value, other in zip(values, others, strict=True)])


def _between(labels: Tensor, accuracies: Tensor, wanted: float) -> tuple[int, float]:
    """The piece of the curve, and how far along it the wanted accuracy lies, from 0 to 1."""
    piece = min(int((accuracies <= wanted).sum()) - 1, len(labels) - 2)
    low, high = accuracies[piece], accuracies[piece + 1]
    return piece, float((wanted - low) / (high - low))


def _worth(labels: Tensor, accuracies: Tensor, wanted: float) -> Tensor:
    return 2 ** _worth_logarithm(labels, accuracies, wanted)


def _worth_logarithm(labels: Tensor, accuracies: Tensor, wanted: float) -> Tensor:
    piece, way = _between(labels, accuracies, float(wanted))
    logs = labels.log2()
    return logs[piece] + way * (logs[piece + 1] - logs[piece])


def _worth_linear(labels: Tensor, accuracies: Tensor, wanted: float) -> Tensor:
    piece, way = _between(labels, accuracies, float(wanted))
    return labels[piece] + way * (labels[piece + 1] - labels[piece])


def _worth_nearest(labels: Tensor, accuracies: Tensor, wanted: float) -> Tensor:
    return labels[(accuracies - wanted).abs().argmin()]


def _numbers(values: Any) -> list[float]:
    """The values as finite numbers; none if that is not what they are."""
    try:
        numbers = [float(value) for value in values]
    except Exception:  # whatever the reader hands over: the verdict says what was expected
        return []
    return numbers if all(map(math.isfinite, numbers)) else []


def _described(found: Any) -> str:
    return f"shape {tuple(found.shape)}" if isinstance(found, Tensor) else type(found).__name__
