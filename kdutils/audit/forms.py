"""Which formula a loss follows, at which temperature and weight: read from its gradients on made-up logits.

A teacher's *pull* is how the gradient for the student's logits changes from one teacher to another. All that
does not depend on the teacher, such as the labels' cross-entropy, cancels in it.
"""

import math
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass
from functools import cached_property
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from kdutils._numerics import unit_vectors
from kdutils.audit.bench import SAME, Bench, Call, DoesNotApply, call_of, is_float, shape_of

Form = Callable[[Tensor, Tensor, Tensor], Tensor]  # student logits, teacher logits, temperatures

SAME_FORM = 5e-4  # relative difference of a pull and a formula; its temperature is found on a grid
PROBE_STD = 3.0  # of the made-up logits


@dataclass(frozen=True)
class Probe:
    """A loss whose student and teacher are made to answer with any logits (N, K)."""

    bench: Bench
    call: Call  # the student's
    teacher_answer: Tensor
    teacher_module: nn.Module | None  # None where the answer is cached

    @cached_property
    def logits(self) -> tuple[Tensor, Tensor, Tensor]:
        """Made-up logits of a student, of a teacher, and of another teacher."""
        like = self.call.output
        student, teacher, other = (PROBE_STD * random_like(like, seed) for seed in range(3))
        return student, teacher, other

    @cached_property
    def pull(self) -> Tensor:
        """How the gradient for the student's logits changes from one teacher to another, (N, K)."""
        student, teacher, other = self.logits
        return self.gradient(student, teacher) - self.gradient(student, other)

    def gradient(self, student: Tensor, teacher: Tensor, labels: Tensor | None = None) -> Tensor:
        """The loss's gradient with respect to the student's logits, (N, K)."""
        bench, leaf = self.bench, student.clone().requires_grad_()
        batch = tuple(
            labels if labels is not None and value is bench.labels
            else teacher if value is not bench.inputs and is_float(value) and shape_of(value) == leaf.shape
            else value
            for value in bench.batch
        )  # fmt: skip
        with ExitStack() as hooks:
            # copies made inside: under no_grad, or detached, they carry no gradient
            hooks.callback(self.call.module.register_forward_hook(lambda *_: leaf.clone()).remove)
            if self.teacher_module is not None:
                hooks.callback(self.teacher_module.register_forward_hook(lambda *_: teacher.clone()).remove)
            loss = bench.loss(batch)
        if not loss.requires_grad:
            return torch.zeros_like(leaf)
        (gradient,) = torch.autograd.grad(loss, leaf, allow_unused=True)
        return torch.zeros_like(leaf) if gradient is None else gradient

    @cached_property
    def labels(self) -> Tensor | None:
        """Class indices (N,) that fit the logits, if the batch holds any."""
        labels, num_classes = self.bench.labels, self.call.output.shape[1]
        fitting = labels is not None and 0 <= labels.min() <= labels.max() < num_classes
        return labels if fitting else None

    def rest(self) -> Tensor:
        """What pulls a student that equals its teacher, (N, K), beside the labels, smoothed or not."""
        _, teacher, _ = self.logits
        gradient = self.gradient(teacher, teacher)
        if self.labels is None:
            return gradient
        probs = teacher.softmax(dim=1)
        to_label = unit_vectors(probs - F.one_hot(self.labels, probs.shape[1]))
        to_uniform = _without(probs - 1 / probs.shape[1], to_label)
        return _without(_without(gradient, to_label), unit_vectors(to_uniform))


def probe_of(bench: Bench) -> Probe:
    """The probe of a loss that compares logits.   Raises DoesNotApply for any other."""
    call, teacher_call = call_of(bench, bench.student), call_of(bench, bench.teacher)
    if call is None or call.times > 1:
        raise DoesNotApply("the student does not answer once with (N, K)")
    if teacher_call is not None and teacher_call.output.shape == call.output.shape:
        probe = Probe(bench, call, teacher_call.output, teacher_call.module)
    elif (cached := bench.cached(call.output.shape)) is not None:
        probe = Probe(bench, call, cached, None)
    else:
        raise DoesNotApply("no answer of the teacher has the shape of the student's")
    if probe.pull.norm() <= SAME * probe.gradient(*probe.logits[:2]).norm():
        raise DoesNotApply("the loss does not compare the student's answer with the teacher's")
    return probe


class Fit(NamedTuple):
    """How well scale times a formula at a temperature describes a teacher's pull."""

    residual: float
    scale: float
    temperature: float


def has_form(form: Form, probe: Probe) -> bool:
    fit = best_fit(form, probe)
    return fit.residual < SAME_FORM and fit.scale > 0


def best_fit(form: Form, probe: Probe) -> Fit:
    """The best of all temperatures from 1/4 to 64, sought in ever narrower grids."""
    # on the CPU: not every device has float64
    student, teacher, other = (logits.cpu().double() for logits in probe.logits)
    pull = probe.pull.cpu().double()
    low, high = math.log(1 / 4), math.log(64)
    for points in (33, 17, 17, 17):
        grid = torch.linspace(low, high, points, dtype=pull.dtype, device=pull.device)
        leaf = student.expand(points, -1, -1).clone().requires_grad_()
        temperatures = grid.exp().view(-1, 1, 1)
        difference = form(leaf, teacher, temperatures) - form(leaf, other, temperatures)
        (pulls,) = torch.autograd.grad(difference.sum(), leaf)
        scales = (pulls * pull).sum(dim=(1, 2)) / pulls.square().sum(dim=(1, 2))
        residuals = (pull - scales.view(-1, 1, 1) * pulls).flatten(1).norm(dim=1) / pull.norm()
        best = int(residuals.argmin())
        low, high = grid[max(best - 1, 0)].item(), grid[min(best + 1, points - 1)].item()
    return Fit(residuals[best].item(), scales[best].item(), grid[best].exp().item())


def label_weight(probe: Probe) -> float | None:
    """The weight of the labels' cross-entropy, 0 without labels; None where they enter otherwise."""
    labels, (student, teacher, _) = probe.labels, probe.logits
    if labels is None:
        return 0.0
    n, k = student.shape
    others = (labels + 1) % k
    pull = n * (probe.gradient(student, teacher, others) - probe.gradient(student, teacher))
    unit_pull = (F.one_hot(labels, k) - F.one_hot(others, k)).to(pull.dtype)
    weight = (pull * unit_pull).sum() / unit_pull.square().sum()
    return weight.item() if (pull - weight * unit_pull).norm() <= SAME_FORM * n else None


def _without(rows: Tensor, unit_rows: Tensor) -> Tensor:
    """Every row less its part along the unit row."""
    return rows - (rows * unit_rows).sum(dim=1, keepdim=True) * unit_rows


def random_like(tensor: Tensor, seed: int) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(tensor.shape, generator=generator).to(tensor)


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
    return _divergence(_once(z, temperatures), _once(t, temperatures))


SLIPPED_FORMS: dict[str, tuple[Form, ...]] = {
    "KL has its arguments reversed, KL(student ‖ teacher), or student and teacher are swapped": (
        lambda z, t, T: _divergence(_once(t, T), _once(z, T)),
    ),
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
