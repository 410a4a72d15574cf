"""What a loss does to made-up answers of student and teacher: its gradient, and what pulls besides.

A teacher's *pull* is how the gradient for the student's answer changes from one teacher to another. All that
does not depend on the teacher, such as the labels' cross-entropy, cancels in it.
"""

from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from kdutils._numerics import unit_vectors
from kdutils._trees import Path, replace_tensors
from kdutils.audit.bench import SAME_TOLERANCE, Bench, Comparison, DoesNotApply
from kdutils.audit.calls import hooked
from kdutils.audit.forms import FORM_TOLERANCE, Evidence
from kdutils.audit.roles import SUM_TOLERANCE, are_distributions, same_but_for_a_one

MAX_REST_PULL = 5e-3  # on a student that equals its teacher, as a share of a teacher's pull elsewhere
PROBE_STD = 3.0  # of the made-up logits


@dataclass(frozen=True)
class Probe:
    """A loss whose student and teachers are made to answer with any tensor of the student's shape.

    Attributes:
        bench: The loss.
        compared: Where the answers are.
        softened: Whether the loss takes the cached knowledge for probabilities, and rightly so.
    """

    bench: Bench
    compared: Comparison
    softened: bool = False

    @cached_property
    def logits(self) -> tuple[Tensor, Tensor, Tensor]:
        """Made-up answers of a student, of a teacher, and of another teacher."""
        like = self.compared.student_answer
        student, teacher, other = (PROBE_STD * random_like(like, seed) for seed in range(3))
        return student, self.as_said(teacher), self.as_said(other)

    def as_said(self, logits: Tensor) -> Tensor:
        """Made-up logits of a teacher; log-probabilities where that is what it answers with."""
        as_log_probs = logits.dim() > 1 and _are_log_probs(self.compared.teacher_answer)
        return logits.log_softmax(dim=-1) if as_log_probs else logits

    @cached_property
    def pull(self) -> Tensor:
        """How the gradient for the student's answer changes from one teacher to another."""
        student, teacher, other = self.logits
        return self.gradient(student, teacher) - self.gradient(student, other)

    @cached_property
    def at_rest(self) -> Tensor:
        """The gradient of a student that equals its teacher."""
        _, teacher, _ = self.logits
        return self.gradient(teacher, teacher)

    def gradient(
        self, student: Tensor, teacher: Tensor, replacements: Mapping[Path, Tensor] | None = None
    ) -> Tensor:
        """The gradient for the student's answer, of the answer's shape.

        Args:
            student: What the student answers.
            teacher: What every teacher answers, live or cached.
            replacements: Other tensors in the batch.
        """
        leaf = student.clone().requires_grad_()
        loss = self.loss(leaf, teacher, replacements)
        if not loss.requires_grad:
            return torch.zeros_like(leaf)
        (gradient,) = torch.autograd.grad(loss, leaf, allow_unused=True)
        return torch.zeros_like(leaf) if gradient is None else gradient

    def loss(
        self, student: Tensor, teacher: Tensor, replacements: Mapping[Path, Tensor] | None = None
    ) -> Tensor:
        """The loss where student and teachers answer like this; arguments as those of `gradient`."""
        arguments = self.bench.with_tensors({**self.stored(teacher), **(replacements or {})})
        with ExitStack() as stack:
            stack.enter_context(answering(self.compared.student.module, self.compared.student_path, student))
            for call, path in self.compared.teachers:
                stack.enter_context(answering(call.module, path, teacher))
            return self.bench.loss(arguments)

    def stored(self, teacher: Tensor) -> dict[Path, Tensor]:
        """What the batch holds in the teacher's place, by path."""
        said = teacher.softmax(dim=-1) if self.softened else teacher
        return {path: said.to(self.bench.tensors[path].dtype) for path in self.compared.cached}

    # --- labels

    @cached_property
    def label_rows(self) -> Tensor | None:
        """What the labels ask for, as a distribution per answer, (N, K); None if they are no classes."""
        labels, answer = self.bench.labels, self.compared.student_answer
        if labels is None or answer.dim() != 2 or answer.shape[1] < 2:
            return None
        if labels.shape == answer.shape and are_distributions(labels):
            return labels.to(answer.dtype)
        if not is_class_index(labels, answer):
            return None
        return F.one_hot(labels.long(), answer.shape[1]).to(answer.dtype)

    @cached_property
    def label_values(self) -> Tensor | None:
        """What the labels ask for, as zeros and ones or as values, of the answer's shape; None if not so."""
        labels, answer = self.bench.labels, self.compared.student_answer
        if labels is None or self.label_rows is not None or not same_but_for_a_one(labels, answer):
            return None
        return labels.to(answer.dtype).reshape(answer.shape)

    @cached_property
    def other_labels(self) -> dict[Path, Tensor]:
        """Labels that ask for something else, in the batch's own way; empty if they are not understood."""
        labels = self.bench.labels
        if labels is None:
            return {}
        if self.label_rows is not None:
            num_classes = self.label_rows.shape[1]
            others = labels.roll(1, dims=1) if labels.dim() == 2 else (labels + 1) % num_classes
        elif self.label_values is not None:
            others = labels.logical_not() if labels.dtype == torch.bool else 1 - labels
        else:
            return {}
        return {self.bench.places("labels")[0]: others}

    def rest(self) -> Tensor:
        """What pulls a student that equals its teacher, beside the labels, of the answer's shape."""
        _, teacher, _ = self.logits
        if not self.other_labels or self.gradient(teacher, teacher, self.other_labels).equal(self.at_rest):
            return self.at_rest
        if self.label_rows is not None:
            answered = (teacher.softmax(dim=1), teacher.sigmoid())
            rests = [without_label_term(self.at_rest, p, self.label_rows) for p in answered]
        else:
            # the weights of a term for values or single classes are unknown, its sign is sure
            values = self.label_values if self.label_values is not None else torch.zeros_like(teacher)
            signs = [answered - values for answered in (teacher.sigmoid(), teacher)]
            rests = [torch.where(self.at_rest * sign < 0, self.at_rest, 0.0) for sign in signs]
        return min(rests, key=torch.linalg.vector_norm)

    def require_known_labels(self) -> None:
        """Raises DoesNotApply if tensors that are not understood pull a student that equals its teacher."""
        _, teacher, _ = self.logits
        paths = self.bench.places("index") + self.bench.places("other")
        paths += [] if self.other_labels else self.bench.places("labels")
        for path in paths:
            tensor = self.bench.tensors[path]
            moved = self.gradient(teacher, teacher, {path: tensor.roll(1, dims=0)}) if tensor.dim() else None
            if moved is not None and not moved.equal(self.at_rest):
                raise DoesNotApply(
                    f"{self.bench.place(path)!r} of the batch pulls the student, too, and is not understood"
                )

    def label_weight(self) -> float | None:
        """The weight of the labels' cross-entropy, 0 without labels; None where they enter otherwise."""
        student, teacher, _ = self.logits
        if not self.other_labels:
            return 0.0
        change = self.gradient(student, teacher, self.other_labels) - self.gradient(student, teacher)
        if self.label_rows is None:
            return None if change.any() else 0.0
        n, num_classes = self.label_rows.shape
        (others,) = self.other_labels.values()
        rows = others if others.dim() == 2 else F.one_hot(others.long(), num_classes)
        unit_change = self.label_rows - rows.to(change.dtype)
        weight = n * (change * unit_change).sum() / unit_change.square().sum()
        return weight.item() if (n * change - weight * unit_change).norm() <= FORM_TOLERANCE * n else None


def probe_of(bench: Bench) -> Probe:
    """The probe of a loss that compares answers (N,) or (N, K).

    Raises:
        DoesNotApply: The loss compares something else.
    """
    compared = bench.comparison()
    if compared.student_answer.dim() > 2 or compared.student.times > 1:
        raise DoesNotApply("the student does not answer once with (N, K)")
    return comparing_probe(bench, compared)


def comparing_probe(bench: Bench, compared: Comparison) -> Probe:
    """The probe of two answers that the loss compares.

    Raises:
        DoesNotApply: It does not compare them.
    """
    probe = Probe(bench, compared)
    if not compared.teachers and are_distributions(compared.teacher_answer):
        softened = Probe(bench, compared, softened=True)
        if softened.rest().norm() <= MAX_REST_PULL * softened.pull.norm():
            probe = softened  # the loss knows that it is given probabilities
    if probe.pull.norm() <= SAME_TOLERANCE * probe.gradient(*probe.logits[:2]).norm():
        raise DoesNotApply("the loss does not compare the student's answer with the teacher's")
    return probe


@contextmanager
def answering(module: nn.Module, path: Path, answer: Tensor) -> Iterator[None]:
    """A module that gives the same answer whatever it is asked.

    Args:
        module: The module.
        path: Where the answer stands within what the module returns.
        answer: The answer. It is handed out in copies: one made under no_grad carries no gradient.
    """

    def replaced(module: nn.Module, args: Any, kwargs: Any, output: Any) -> Any:
        return replace_tensors(output, {path: answer.clone()})

    with hooked([module], after=replaced):
        yield


def is_class_index(labels: Tensor, answer: Tensor) -> bool:
    """Whether labels are class indices (N,) of an answer (N, K)."""
    whole = not labels.is_floating_point() and labels.dim() == 1
    return whole and bool(0 <= labels.min() <= labels.max() < answer.shape[1])


def without_label_term(gradient: Tensor, answered: Tensor, label_rows: Tensor) -> Tensor:
    """What a cross-entropy with the labels, smoothed or not, leaves of a gradient (N, K)."""
    to_label = unit_vectors(answered - label_rows)
    to_uniform = _without(answered - 1 / answered.shape[1], to_label)
    return _without(_without(gradient, to_label), unit_vectors(to_uniform))


def _without(rows: Tensor, unit_rows: Tensor) -> Tensor:
    """Every row less its part along the unit row."""
    return rows - (rows * unit_rows).sum(dim=1, keepdim=True) * unit_rows


def _are_log_probs(answer: Tensor) -> bool:
    return bool(answer.logsumexp(dim=-1).abs().max() < SUM_TOLERANCE)


def random_like(tensor: Tensor, seed: int) -> Tensor:
    """Standard normal numbers of a tensor's shape, the same for the same seed."""
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(tensor.shape, generator=generator).to(tensor)


def evidence_of(probe: Probe) -> Evidence:
    """The pull of a loss of logits (N, K)."""
    # on the CPU: not every device has float64
    tensors = [tensor.detach().cpu().double() for tensor in (*probe.logits, probe.pull)]
    return Evidence(*tensors)
