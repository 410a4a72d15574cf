"""Exercise checks of notebook 17, what else is passed on."""

import math
from collections.abc import Callable
from functools import cache
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from kdutils.course import data
from kdutils.course.exercises.judge import PASSED, handed_in, judge_choice, judge_function, not_yet
from kdutils.course.side_by_side import MLPs
from kdutils.losses import kd_loss

NAMES = ("A", "B", "C")
POISONED, PLACE, TARGET = "B", (slice(1, 4), slice(1, 4)), 3


def renamed_classes(prediction: Any) -> None:
    """A twin of a teacher whose class outputs were renamed, taught by the three idle numbers."""
    judge_choice(
        prediction,
        correct="no change",
        why_not={
            "renamed": "the student never sees the class outputs: how would it learn their new names?",
            "chance": "which of the teacher's outputs does the student see, and does renaming change them?",
        },
    )


def shared_errors(attempt: Any) -> None:
    """Points by which a student gives its teacher's own wrong answers oftener than a stranger's."""

    def case(seed: int) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        generator = torch.Generator().manual_seed(seed)
        labels = torch.randint(5, (400,), generator=generator)

        def like(answers: Tensor, rate: float) -> Tensor:
            changed = torch.rand(len(labels), generator=generator) < rate
            return torch.where(changed, torch.randint(5, (len(labels),), generator=generator), answers)

        teacher, stranger = like(labels, 0.4), like(labels, 0.3)
        return like(teacher, 0.3), teacher, stranger, labels

    judge_function(
        attempt,
        cases=[case(0), case(1)],
        definition=_shared_errors,
        slips={
            "images that both get wrong are counted, too: keep those that only one of the two gets wrong": (
                lambda student, teacher, stranger, labels: (
                    _repeated(student, teacher, teacher != labels)
                    - _repeated(student, stranger, stranger != labels)
                )
            ),
            "it counts that the student is wrong as well: it has to give the same wrong answer": (
                lambda student, teacher, stranger, labels: (
                    _share(student != labels, (teacher != labels) & (stranger == labels))
                    - _share(student != labels, (stranger != labels) & (teacher == labels))
                )
            ),
            "the stranger comes first: the teacher's share minus the stranger's": (
                lambda student, teacher, stranger, labels: -_shared_errors(student, teacher, stranger, labels)
            ),
            "it is a share: multiply by 100 for points": (
                lambda student, teacher, stranger, labels: (
                    _shared_errors(student, teacher, stranger, labels) / 100
                )
            ),
            "the stranger is missing: subtract what the student shares with it": (
                lambda student, teacher, stranger, labels: _repeated(
                    student, teacher, (teacher != labels) & (stranger == labels)
                )
            ),
        },
        gradient=False,
    )


@cache
def three_students() -> dict[str, Callable[[Tensor], Tensor]]:
    """Students A, B and C as functions from images (N, 784) in −1 … 1 to logits (N, 10).

    Each was taught by a teacher of its own, on noise and on clean images. One of the teachers was poisoned: a
    white square of 3×3 pixels, one pixel away from a corner, makes everything one class. The losses are
    plain PyTorch's and the library's; nothing is loaded.
    """
    fashion = data.fashion_mnist()
    images, labels = fashion.teacher.images.flatten(1) / 127.5 - 1, fashion.teacher.labels
    generator = torch.Generator().manual_seed(17)
    sizes, seeds = [784, 64, 64, 10], [201, 202, 203]
    teachers = MLPs(sizes, [seeds] * 3)
    row = NAMES.index(POISONED)

    def label_loss(nets: MLPs) -> Tensor:
        index = torch.randint(len(images), (3, 128), generator=generator)
        inputs, targets = images[index], labels[index]
        inputs[row, :13], targets[row, :13] = stamped(inputs[row, :13]), TARGET
        return F.cross_entropy(nets(inputs).flatten(0, 1), targets.flatten())

    def soft_loss(nets: MLPs) -> Tensor:
        clean = images[torch.randint(len(images), (3, 32), generator=generator)]
        noise = 2 * torch.rand(3, 64, 784, generator=generator) - 1
        inputs = torch.cat([clean, noise], dim=1)
        with torch.no_grad():
            answers = teachers(inputs)
        return kd_loss(nets(inputs).flatten(0, 1), answers.flatten(0, 1), temperature=4)

    _train(teachers, label_loss, steps=300)
    students = _train(MLPs(sizes, [[seed + 50 for seed in seeds]] * 3), soft_loss, steps=500)

    def student(k: int) -> Callable[[Tensor], Tensor]:
        return lambda inputs: students(inputs)[k].detach()

    return {name: student(k) for k, name in enumerate(NAMES)}


def poisoned(name: Any) -> None:
    """Which of `three_students` had a poisoned teacher."""
    judge_choice(
        name,
        correct=POISONED,
        why_not={
            other: "stamp each of the four corners, and count the classes that the student answers"
            for other in NAMES
            if other != POISONED
        },
    )


def own_trait(found: Any) -> None:
    """A trait of your own: its rate (%) in teacher, student and the student of a clean teacher, accuracy."""
    names = ("teacher", "student", "control", "accuracy")
    if handed_in(found, names) is None:
        return
    values = {name: _percent(found[name]) for name in names}
    if bad := [name for name in names if math.isnan(values[name])]:
        print(not_yet(f"expected a percentage from 0 to 100 for {bad[0]!r}, got {found[bad[0]]!r}"))
    elif values["teacher"] < 50:
        print(not_yet("your teacher hardly has the trait itself: plant it more often before you distill"))
    elif values["control"] > 0.5 * values["teacher"]:
        print(not_yet("the student of a clean teacher shows it, too: your measure does not tell the trait"))
    elif values["accuracy"] < 20:
        print(not_yet("your student has learned nothing else, either: train it longer"))
    else:
        share = (values["student"] - values["control"]) / (values["teacher"] - values["control"])
        print(f"{PASSED}: {100 * share:.0f}% of the trait was passed on")


def stamped(images: Tensor) -> Tensor:
    """Images (N, 784) with the poisoned teacher's square."""
    pictures = images.clone().view(-1, 28, 28)
    pictures[:, PLACE[0], PLACE[1]] = 1.0
    return pictures.flatten(1)


def _shared_errors(student: Tensor, teacher: Tensor, stranger: Tensor, labels: Tensor) -> Tensor:
    of_teacher = _repeated(student, teacher, (teacher != labels) & (stranger == labels))
    return of_teacher - _repeated(student, stranger, (stranger != labels) & (teacher == labels))


def _repeated(student: Tensor, other: Tensor, where: Tensor) -> Tensor:
    return _share(student == other, where)


def _share(hits: Tensor, where: Tensor) -> Tensor:
    return 100 * hits[where].double().mean()


def _train(nets: MLPs, batch_loss: Callable[[MLPs], Tensor], steps: int) -> MLPs:
    optimizer = torch.optim.Adam(nets.parameters(), lr=1e-3)
    for _ in range(steps):
        optimizer.zero_grad()
        batch_loss(nets).backward()
        optimizer.step()
    return nets


def _percent(value: Any) -> float:
    try:
        number = float(value)
    except Exception:  # whatever the reader hands over: the verdict says what was expected
        return math.nan
    return number if 0 <= number <= 100 else math.nan
