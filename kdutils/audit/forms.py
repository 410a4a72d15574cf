"""The formulas of a divergence and of its usual slips, and how well one describes what is measured."""

import math
from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor

Form = Callable[[Tensor, Tensor, Tensor], Tensor]  # student logits, teacher logits, temperatures

FORM_TOLERANCE = 5e-4  # relative difference of a pull and a formula; its temperature is found on a grid


class Evidence(NamedTuple):
    """A pull on logits (M, K), and the logits at which it was found; float64, on the CPU."""

    student: Tensor
    teacher: Tensor
    other: Tensor
    pull: Tensor


class Fit(NamedTuple):
    """How well scale times a formula at a temperature describes a pull."""

    residual: float  # relative
    scale: float
    temperature: float

    @property
    def holds(self) -> bool:
        """Whether the formula is the loss's."""
        return self.residual < FORM_TOLERANCE and self.scale > 0


def best_fit(form: Form, evidence: Evidence) -> Fit:
    """The best of all temperatures from 1/4 to 64, sought in ever narrower grids."""
    low, high, fits = math.log(1 / 4), math.log(64), []
    for num_points in (33, 17, 17, 17):
        grid = torch.linspace(low, high, num_points, dtype=torch.float64)
        fits = _fits(form, evidence, grid.exp())
        best = min(range(num_points), key=lambda i: fits[i].residual)
        low, high = grid[max(best - 1, 0)].item(), grid[min(best + 1, num_points - 1)].item()
    return min(fits, key=lambda fit: fit.residual)


def _fits(form: Form, evidence: Evidence, temperatures: Tensor) -> list[Fit]:
    """How well a formula describes a pull, at every temperature."""
    student, teacher, other, pull = evidence
    leaf = student.expand(len(temperatures), -1, -1).clone().requires_grad_()
    columns = temperatures.view(-1, 1, 1)
    difference = form(leaf, teacher, columns) - form(leaf, other, columns)
    (pulls,) = torch.autograd.grad(difference.sum(), leaf)
    scales = (pulls * pull).sum(dim=(1, 2)) / pulls.square().sum(dim=(1, 2))
    residuals = (pull - scales.view(-1, 1, 1) * pulls).flatten(1).norm(dim=1) / pull.norm()
    residuals = residuals.nan_to_num(nan=math.inf)  # a formula without any pull describes none
    return [Fit(*map(float, row)) for row in zip(residuals, scales, temperatures, strict=True)]


def _expected(weights: Tensor, values: Tensor) -> Tensor:
    """Sum over classes, mean over the batch, one number for every temperature."""
    return (weights * values).sum(dim=-1).mean(dim=-1)


def _divergence(log_q: Tensor, log_p: Tensor) -> Tensor:
    return _expected(log_p.exp(), log_p - log_q)


def _once(logits: Tensor, temperatures: Tensor) -> Tensor:
    return (logits / temperatures).log_softmax(dim=-1)


def _twice(logits: Tensor, temperatures: Tensor) -> Tensor:
    return (logits.softmax(dim=-1) / temperatures).log_softmax(dim=-1)


def _softened_twice(logits: Tensor, temperatures: Tensor) -> Tensor:
    return (logits / temperatures).softmax(dim=-1).log_softmax(dim=-1)


def _over_batch(logits: Tensor, temperatures: Tensor) -> Tensor:
    return (logits / temperatures).log_softmax(dim=-2)


def kl(z: Tensor, t: Tensor, temperatures: Tensor) -> Tensor:
    """Forward divergence of student logits z from teacher logits t."""
    return _divergence(_once(z, temperatures), _once(t, temperatures))


def reverse_kl(z: Tensor, t: Tensor, temperatures: Tensor) -> Tensor:
    """Reverse divergence of student logits z from teacher logits t."""
    return _divergence(_once(t, temperatures), _once(z, temperatures))


SLIPPED_FORMS: dict[str, tuple[Form, ...]] = {
    "KL has its arguments reversed, KL(student ‖ teacher), or student and teacher are swapped": (reverse_kl,),
    "probabilities stand where kl_div expects log-probabilities": (
        lambda z, t, T: -_expected(_once(t, T).exp(), _once(z, T).exp()),
    ),
    "the teacher's log-probabilities stand where its probabilities belong": (
        lambda z, t, T: -_expected(_once(t, T), _once(z, T)),
    ),
    "the student's answer goes through softmax twice": (
        lambda z, t, T: _divergence(_twice(z, T), _once(t, T)),
        lambda z, t, T: _divergence(_softened_twice(z, T), _once(t, T)),
    ),
    "the teacher's answer goes through softmax twice": (
        lambda z, t, T: _divergence(_once(z, T), _twice(t, T)),
        lambda z, t, T: _divergence(_once(z, T), _softened_twice(t, T)),
    ),
    "both answers go through softmax twice": (
        lambda z, t, T: _divergence(_twice(z, T), _twice(t, T)),
        lambda z, t, T: _divergence(_softened_twice(z, T), _softened_twice(t, T)),
    ),
    "the softmax runs over the batch, not over the classes": (
        lambda z, t, T: _divergence(_over_batch(z, T), _over_batch(t, T)),
    ),
}
