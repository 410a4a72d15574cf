"""What a student has of its teacher besides accuracy: the same wrong answers."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from kdutils._validate import require_finite, require_labels, require_matrix, require_same_shape


@dataclass(frozen=True)
class Agreement:
    """How often a student gives its teacher's wrong answer, in percent of the images the teacher gets wrong.

    Attributes:
        observed: The share on which the student gives that very answer.
        expected: The share to be expected of a student with the same answers to every class, dealt out among
            its images at random.
        beyond: Observed minus expected, in points.
        low: Lower end of the 95% interval of `beyond`, over images.
        high: Upper end.
        images: Number of images that the teacher gets wrong.
    """

    observed: float
    expected: float
    beyond: float
    low: float
    high: float
    images: int

    def __str__(self) -> str:
        return (
            f"{self.observed:.1f}% of {self.images:,} wrong answers shared, {self.expected:.1f}% expected: "
            f"{self.beyond:+.1f} points, 95% interval [{self.low:+.1f}, {self.high:+.1f}]"
        )


def agreement_beyond_chance(student_logits: Tensor, teacher_logits: Tensor, labels: Tensor) -> Agreement:
    """How much oftener a student gives its teacher's wrong answers than its own habits predict.

    Chance is reckoned class by class: a student that calls a fifth of all shirts a T-shirt will share a fifth
    of the teacher's shirts called T-shirts, whether or not the two have ever met. What is beyond that is
    agreement about single images. Two strangers have some of it as well, since hard images are hard for both;
    `inherited_errors` takes a stranger for comparison.

    Args:
        student_logits: Shape (N, K).
        teacher_logits: Shape (N, K).
        labels: Shape (N,), class indices.

    Raises:
        ValueError: Shapes or labels that do not fit, numbers that are not finite, a teacher that gets fewer
            than two images wrong, or a class with a single image.

    The idea is that of error consistency (Geirhos, Meding and Wichmann 2020, "Beyond accuracy"), here for the
    answer itself and with chance taken per class. Used in chapter 17.
    """
    student, teacher, labels = _answers(labels, student_logits=student_logits, teacher_logits=teacher_logits)
    wrong = teacher != labels
    if wrong.sum() < 2:
        raise ValueError(f"teacher_logits: expected at least two wrong answers, got {int(wrong.sum())}")
    num_classes = student_logits.shape[1]
    given = torch.zeros(num_classes, num_classes, dtype=torch.float64)  # [label, the student's answer]
    given.index_put_((labels, student), torch.ones(len(labels), dtype=torch.float64), accumulate=True)
    same = (student == teacher)[wrong].double()
    others = given.sum(dim=1)[labels[wrong]] - 1  # images of the class, without this one
    if (others < 1).any():
        raise ValueError("labels: expected at least two images of every class, got a class with one")
    by_chance = (given[labels[wrong], teacher[wrong]] - same) / others
    mean, half_width = _mean_and_half_width(same - by_chance)
    return Agreement(
        observed=100 * same.mean().item(),
        expected=100 * by_chance.mean().item(),
        beyond=mean,
        low=mean - half_width,
        high=mean + half_width,
        images=len(same),
    )


@dataclass(frozen=True)
class InheritedErrors:
    """How often a student repeats errors that only its teacher makes, and those only a stranger makes.

    Attributes:
        student_accuracy: In percent, and so are the two that follow.
        teacher_accuracy: The teacher's.
        control_accuracy: The stranger's.
        of_teacher: Of the images that only the teacher gets wrong, the share (%) on which the student gives
            the teacher's answer.
        of_control: Of the images that only the stranger gets wrong, the share (%) on which the student gives
            the stranger's answer.
        inherited: The first minus the second, in points.
        low: Lower end of the 95% interval of `inherited`, over images.
        high: Upper end.
        images: How many images the two shares are of.
    """

    student_accuracy: float
    teacher_accuracy: float
    control_accuracy: float
    of_teacher: float
    of_control: float
    inherited: float
    low: float
    high: float
    images: tuple[int, int]

    def __str__(self) -> str:
        return "\n".join(
            (
                f"accuracy (%): student {self.student_accuracy:.1f}, teacher {self.teacher_accuracy:.1f}, "
                f"control {self.control_accuracy:.1f}",
                f"repeats {self.of_teacher:.1f}% of {self.images[0]:,} errors that only the teacher makes",
                f"repeats {self.of_control:.1f}% of {self.images[1]:,} errors that only the control makes",
                f"inherited: {self.inherited:+.1f} points, 95% interval [{self.low:+.1f}, {self.high:+.1f}]",
            )
        )


def inherited_errors(
    student_logits: Tensor, teacher_logits: Tensor, control_logits: Tensor, labels: Tensor
) -> InheritedErrors:
    """How much oftener a student repeats its teacher's errors than those of a teacher that it never had.

    Choose as control a model made like the teacher, from another seed, about as accurate. A student that has
    learned nothing but the task repeats the errors of both alike.

    Args:
        student_logits: Shape (N, K).
        teacher_logits: Shape (N, K), of the student's own teacher.
        control_logits: Shape (N, K), of a model that the student never listened to.
        labels: Shape (N,), class indices.

    Raises:
        ValueError: Shapes or labels that do not fit, numbers that are not finite, or fewer than two images
            that only the teacher, or only the control, gets wrong.

    Written out in chapter 17.
    """
    student, teacher, control, labels = _answers(
        labels, student_logits=student_logits, teacher_logits=teacher_logits, control_logits=control_logits
    )
    repeated = []
    for name, erring, other in (
        ("teacher_logits", teacher, control),
        ("control_logits", control, teacher),
    ):
        alone = (erring != labels) & (other == labels)
        if alone.sum() < 2:
            raise ValueError(f"{name}: expected at least two errors of its own, got {int(alone.sum())}")
        repeated.append((student == erring)[alone].double())
    of_teacher, of_control = (100 * share.mean().item() for share in repeated)
    half_width = math.hypot(*(_mean_and_half_width(share)[1] for share in repeated))
    inherited = of_teacher - of_control
    accuracies = [100 * (answers == labels).double().mean().item() for answers in (student, teacher, control)]
    return InheritedErrors(
        student_accuracy=accuracies[0],
        teacher_accuracy=accuracies[1],
        control_accuracy=accuracies[2],
        of_teacher=of_teacher,
        of_control=of_control,
        inherited=inherited,
        low=inherited - half_width,
        high=inherited + half_width,
        images=(len(repeated[0]), len(repeated[1])),
    )


def _answers(labels: Tensor, **named_logits: Tensor) -> tuple[Tensor, ...]:
    """The largest logit's class for every argument, and last the labels, on the CPU."""
    first_name, first = next(iter(named_logits.items()))
    for name, logits in named_logits.items():
        require_matrix(name, logits, min_columns=2)
        require_finite(name, logits)
        require_same_shape(first_name, first, name, logits)
    labels = labels.cpu() if isinstance(labels, Tensor) else labels
    require_labels(labels, *first.shape)
    return (*(logits.cpu().argmax(dim=1) for logits in named_logits.values()), labels.long())


def _mean_and_half_width(values: Tensor) -> tuple[float, float]:
    """Mean and half of the 95% interval, in percent, of one number for every image."""
    return 100 * values.mean().item(), 100 * 1.96 * values.std().item() / math.sqrt(len(values))
