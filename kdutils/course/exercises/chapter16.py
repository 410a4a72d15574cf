"""Exercise checks of notebook 16, fewer steps."""

import copy
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from kdutils.course.exercises.judge import PASSED, handed_in, judge_function, judge_value, not_yet
from kdutils.course.generator import Flow
from kdutils.samples import sliced_wasserstein


def landing_place(prediction: Any) -> None:
    """Where one step of a perfectly trained flow ends: 30% of the data at −2, 70% at +3, noise at 0.4."""
    judge_value(
        prediction,
        correct=1.5,
        tolerance=0.01,
        slips={
            "you took the more frequent of the two places: the answer is an average": 3.0,
            "you took the place in the middle of the two: they are not equally frequent": 0.5,
            "you added the velocity without leaving the noise behind: velocity = average end − noise": 1.9,
            "that is the velocity: where does the point end?": 1.1,
        },
    )


def two_in_one(attempt: Any) -> None:
    """The velocity of one step that ends where two half steps of the teacher end."""

    def case(seed: int, steps: int) -> tuple[Flow, Tensor, float, int]:
        start = torch.randn(5, 2, generator=torch.Generator().manual_seed(seed))
        return Flow(2, width=8, seed=seed).requires_grad_(False), start, 0.5, steps

    judge_function(
        attempt,
        cases=[case(0, 2), case(1, 4)],
        definition=_two_in_one,
        slips={
            "it returns where the two half steps end: divide the way by the length of the step": (
                lambda teacher, start, time, steps: start + _two_in_one(teacher, start, time, steps) / steps
            ),
            "it returns the way, not the velocity: divide by the length of the step, 1 / steps": (
                lambda teacher, start, time, steps: _two_in_one(teacher, start, time, steps) / steps
            ),
            "both half steps start at the same time: the second begins half a step later": (
                lambda teacher, start, time, steps: _two_in_one(teacher, start, time, steps, later=0.0)
            ),
            "the half steps are whole steps: each is 1 / (2 · steps) long": (
                lambda teacher, start, time, steps: _two_in_one(teacher, start, time, steps, length=2.0)
            ),
            "it takes one half step only": lambda teacher, start, time, steps: teacher(start, time) / 2,
        },
        gradient=False,
    )


def own_data(samples: Any) -> None:
    """Your data, the teacher's samples of it in 64 steps and in one, and your student's in one."""
    names = ("data", "many_steps", "one_step", "student")
    if handed_in(samples, names) is None:
        return
    clouds = {name: cloud for name in names if (cloud := _cloud(samples[name])) is not None}
    if bad := [name for name in names if name not in clouds]:
        print(not_yet(f"expected finite tensors (N, 2) with at least 500 points, {bad[0]!r} is none"))
        return
    count = min(map(len, clouds.values()))
    print(_verdict(lambda a, b: sliced_wasserstein(clouds[a][:count], clouds[b][:count])))


def _verdict(distance: Callable[[str, str], float]) -> str:
    lump, student = distance("one_step", "many_steps"), distance("student", "many_steps")
    if distance("many_steps", "data") > 0.5 * distance("one_step", "data"):
        return not_yet("64 steps are hardly nearer to your data than one: train the teacher longer")
    if student < 1e-6:
        return not_yet("your student's samples are the teacher's: let the student draw its own")
    if student > 0.5 * lump:
        return not_yet(
            "one step of your student is hardly nearer to the teacher's 64 than one step of the teacher: "
            "are noise and end points still in step?"
        )
    return PASSED


def _two_in_one(
    teacher: Flow, start: Tensor, time: float, steps: int, later: float = 1.0, length: float = 1.0
) -> Tensor:
    half = length / (2 * steps)
    middle = start + half * teacher(start, time)
    end = middle + half * teacher(middle, time + later * half)
    return (end - start) * steps


def _cloud(value: Any) -> Tensor | None:
    try:
        cloud = torch.as_tensor(copy.copy(value)).detach().cpu().float()
    except Exception:  # whatever the reader hands over: the verdict says what was expected
        return None
    fits = cloud.dim() == 2 and cloud.shape[1] == 2 and len(cloud) >= 500
    return cloud if fits and bool(cloud.isfinite().all()) else None
