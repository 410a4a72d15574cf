"""Losses on the next token: which positions of a text count, how much, and for which token.

Logits at position l are about token l + 1. The student and its teacher are made to answer with made-up logits
at every position, and the gradient says what the loss does with them.
"""

from dataclasses import dataclass
from functools import cached_property
from typing import NamedTuple

import torch
from torch import Tensor

from kdutils._modes import eval_mode
from kdutils._trees import Path, tensors_in
from kdutils.audit.bench import Bench, Comparison, DoesNotApply, close
from kdutils.audit.probe import MAX_REST_PULL, Probe, comparing_probe

COUNTS_FROM = 1e-4  # share of the largest pull from which on a position counts
ALL_BUT_A_FEW = 0.99  # share of positions that agree with a rule
SAME_WEIGHT = 0.02  # relative difference up to which two tokens weigh the same


@dataclass(frozen=True)
class Text:
    """A loss on the next token, and the batch's text.

    Attributes:
        probe: The loss, with made-up answers (N, L, V).
        tokens: What the student reads, (N, L).
    """

    probe: Probe
    tokens: Tensor

    # --- what the loss does

    @cached_property
    def pull(self) -> Tensor:
        """How the gradient changes with the teacher, (N, L, V), where each position says the same."""
        student, teacher, other = self.rows
        return self.probe.gradient(student, teacher) - self.probe.gradient(student, other)

    @cached_property
    def rows(self) -> tuple[Tensor, Tensor, Tensor]:
        """Made-up logits of a student, a teacher and another teacher, the same at every position."""
        student, teacher, other = (logits[:1, :1].expand_as(logits) for logits in self.probe.logits)
        return student, teacher, other

    @cached_property
    def teacher_counts(self) -> Tensor:
        """Positions whose teacher matters, (N, L)."""
        return large(self.pull.norm(dim=-1))

    @cached_property
    def labels_count(self) -> Tensor:
        """Positions where something pulls a student that equals its teacher, (N, L): its labels."""
        norms = self.probe.at_rest.norm(dim=-1)
        has_labels = norms.max() > MAX_REST_PULL * self.probe.pull.norm(dim=-1).max()
        return large(norms) & has_labels

    @cached_property
    def labels_used(self) -> Tensor:
        """The token to which each position is pulled where the student equals its teacher, (N, L)."""
        return self.probe.at_rest.argmin(dim=-1)

    @cached_property
    def weights(self) -> Tensor | None:
        """How much the teacher counts at each position, (N, L), 1 at most; None if not in the same way."""
        flat = self.pull.flatten(0, 1)
        largest = flat[flat.norm(dim=1).argmax()]
        weights = (flat @ largest) / largest.square().sum()
        if (flat - weights.unsqueeze(1) * largest).norm() > SAME_WEIGHT * flat.norm():
            return None
        return weights.reshape(self.tokens.shape)

    # --- what it should do

    @cached_property
    def offset(self) -> int | None:
        """How far ahead of its position the label lies in the text; None if labels are not of this text."""
        rates = {k: self._rate(k) for k in (1, 0, 2)}
        return next((k for k, rate in rates.items() if rate > ALL_BUT_A_FEW), None)

    def _rate(self, offset: int) -> float:
        """The share of positions with labels whose label is the token so far ahead."""
        length = self.tokens.shape[1] - offset
        counted = self.labels_count[:, :length]
        agree = self.labels_used[:, :length] == self.tokens[:, offset:]
        return agree[counted].float().mean().item() if counted.any() else 0.0

    @cached_property
    def labels(self) -> Tensor | None:
        """The token that the batch names for each position, (N, L), negative where none; or None."""
        found = [self.probe.bench.tensors[path] for path in self.probe.bench.places("labels")]
        labels = next((t for t in found if t.shape == self.tokens.shape and not t.is_floating_point()), None)
        if labels is None or self._are_next(labels):
            return labels
        return _one_ahead(labels, fill=-100) if self._are_next(_one_ahead(labels, fill=-100)) else None

    def _are_next(self, labels: Tensor) -> bool:
        """Whether labels name, position by position, the token that follows in the text."""
        named = labels[:, :-1] >= 0
        return bool((labels[:, :-1][named] == self.tokens[:, 1:][named]).all() and named.any())

    @cached_property
    def masks(self) -> list[tuple[Tensor, bool]]:
        """Masks (N, L) that leave something out, and whether they are about tokens, not about positions."""
        bench, pattern = self.probe.bench, self.probe.bench.pattern
        labels = [bench.tensors[path] for path in bench.places("labels")]
        labels_are_ahead = any(t.shape == self.tokens.shape and self._are_next(t) for t in labels)
        given = set(pattern.sources.values()) if pattern else set()
        masks = [(path, path in given or not labels_are_ahead) for path in bench.places("mask")]
        masks += [(path, False) for path in bench.places("positions")]
        return [
            (bench.tensors[path].bool(), of_tokens)
            for path, of_tokens in masks
            if bench.tensors[path].shape == self.tokens.shape and not bench.tensors[path].bool().all()
        ]

    @cached_property
    def to_learn(self) -> Tensor | None:
        """Which positions the batch says are to be learned, (N, L); None if it does not say."""
        said = [_one_ahead(mask, fill=0) if of_tokens else mask for mask, of_tokens in self.masks]
        return _all_of(said + ([] if self.labels is None else [self.labels >= 0]))

    @cached_property
    def to_learn_unshifted(self) -> Tensor | None:
        """The same where a mask of tokens, or labels of tokens, is taken for one of positions."""
        bench = self.probe.bench
        labels = [bench.tensors[path] for path in bench.places("labels")] if self.labels is not None else []
        return _all_of([mask for mask, _ in self.masks] + [label >= 0 for label in labels[:1]])


def text_of(bench: Bench) -> Text:
    """The text of a loss on the next token.

    Raises:
        DoesNotApply: The loss is about something else.
    """
    if bench.inputs.is_floating_point() or bench.inputs.dim() != 2:
        raise DoesNotApply("the student does not read tokens")
    text = _sparse_text(bench)
    if text is None:
        compared = bench.comparison()
        if compared.student_answer.dim() != 3:
            raise DoesNotApply("the student does not answer with logits of tokens, (N, L, V)")
        text = Text(comparing_probe(bench, compared), bench.inputs)
    answer, tokens = text.probe.compared.student_answer, text.tokens
    if answer.shape[:2] != tokens.shape or not 0 <= tokens.min() <= tokens.max() < answer.shape[2]:
        raise DoesNotApply("the student does not answer with logits of tokens, (N, L, V)")
    if text.probe.compared.student.times > 1 or not _reads_forwards(bench, text.probe.compared):
        raise DoesNotApply("the student's answer at a token depends on later ones")
    return text


def _reads_forwards(bench: Bench, compared: Comparison) -> bool:
    """Whether what a student says at a token depends on this one and those before it only."""
    pattern, place = bench.pattern, bench.places("inputs")[0]
    if pattern is None or pattern.module is not compared.student.module:
        return False
    tokens, half = bench.inputs, bench.inputs.shape[1] // 2
    changed = torch.cat([tokens[:, :half], tokens[:, half:].roll(1, dims=0)], dim=1)
    with torch.no_grad(), eval_mode(pattern.module):
        answers = [
            tensors_in(pattern.call(pattern.module, {**bench.tensors, place: text}))[compared.student_path]
            for text in (tokens, changed)
        ]
    return half > 0 and close(answers[0][:, :half], answers[1][:, :half])


class SparsePlaces(NamedTuple):
    """Where the batch holds ids (N, L, k), each once, and what the teacher said of them, (N, L, k)."""

    ids: Path
    said: Path


NOWHERE = SparsePlaces((), ())


@dataclass(frozen=True)
class SparseProbe(Probe):
    """The probe of a loss on knowledge that is stored for a few tokens.

    Attributes:
        places: Where it is stored.
    """

    places: SparsePlaces = NOWHERE

    @property
    def num_stored(self) -> int:
        """How many tokens were stored at a position, k."""
        return self.bench.tensors[self.places.ids].shape[-1]

    def stored(self, teacher: Tensor) -> dict[Path, Tensor]:
        """The most probable tokens of a made-up teacher, as the batch holds them."""
        largest = teacher.log_softmax(dim=-1).topk(self.num_stored)
        are_probabilities = bool((self.bench.tensors[self.places.said] > 0).all())
        said = largest.values.exp() if are_probabilities else largest.values
        stored = {self.places.ids: largest.indices, self.places.said: said}
        return {path: tensor.to(self.bench.tensors[path].dtype) for path, tensor in stored.items()}


def _sparse_places(bench: Bench) -> SparsePlaces | None:
    places = [path for path in bench.places("knowledge") if bench.tensors[path].dim() == 3]
    for path in places:
        ids = bench.tensors[path]
        said = [
            p for p in places if bench.tensors[p].shape == ids.shape and bench.tensors[p].is_floating_point()
        ]
        ordered = ids.sort(dim=-1).values
        if not ids.is_floating_point() and said and (ordered[..., 1:] != ordered[..., :-1]).all():
            return SparsePlaces(path, said[0])
    return None


def _sparse_text(bench: Bench) -> Text | None:
    """The text of a loss on knowledge of a few tokens."""
    call, places = bench.student_call, _sparse_places(bench)
    if call is None or places is None:
        return None
    for path, answer in call.answers(bench.num_samples).items():
        if answer.dim() == 3:
            return Text(
                SparseProbe(bench, Comparison(call, path, answer, [], [], answer), places=places),
                bench.inputs,
            )
    return None


def large(norms: Tensor) -> Tensor:
    """Which norms count: those that are not far below the largest."""
    return norms > COUNTS_FROM * norms.max()


def _one_ahead(tokens: Tensor, fill: int) -> Tensor:
    """What stands one place further in every row, and `fill` at the end."""
    return torch.cat([tokens[:, 1:], torch.full_like(tokens[:, :1], fill)], dim=1)


def _all_of(masks: list[Tensor]) -> Tensor | None:
    """Where all masks hold; None without masks, or where they leave out nothing but the last position."""
    if not masks:
        return None
    together = torch.stack(masks).all(dim=0)
    return None if together[:, :-1].all() else together
