"""The set-up of an audit: a loss, a student, teachers and a batch, run so that no trace is left."""

import random
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from inspect import Parameter, signature
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor, nn

from kdutils._modes import eval_mode
from kdutils._training import answers_of, put_in_training_mode
from kdutils._trees import Path, map_tensors, replace_tensors, tensors_in
from kdutils._validate import description
from kdutils.audit.calls import Call, Pattern, hooked, outermost_calls, pattern_of
from kdutils.audit.roles import Ambiguous, Evidence, Role, Roles, close_within, places_said, recognized_roles

SAME_TOLERANCE = 1e-4  # relative difference up to which two values count as equal
MIN_SAMPLES = 4

Teacher = nn.Module | Callable[[Any], Any]


class DoesNotApply(Exception):
    """The reason why a test says nothing about this loss."""


class Comparison(NamedTuple):
    """Where the student's answer is found in a step, and the teachers' answers of the same shape."""

    student: Call
    student_path: Path  # within what the call returns
    student_answer: Tensor
    teachers: list[tuple[Call, Path]]  # empty where the knowledge is cached
    cached: list[Path]  # within the loss's arguments
    teacher_answer: Tensor  # the first of them


@dataclass(frozen=True)
class Bench:
    """What is audited, and what its parts are.

    Attributes:
        loss_fn: The loss.
        student: Whatever the optimizer trains.
        teacher: All teachers that are modules.
        answer_fn: A function of the batch that answers in place of a module, or None.
        arguments: What the loss takes after the student.
        whole: Whether the batch is one argument, as a dict is; a tuple or list is spread over several.
        appended: Whether the teacher's answer is the last of the arguments, and no part of the batch.
        num_samples: N.
        said: Roles that the caller named, by path within the arguments.
    """

    loss_fn: Callable[..., Any]
    student: nn.Module
    teacher: nn.ModuleList
    answer_fn: Callable[[Any], Any] | None
    arguments: tuple[Any, ...]
    whole: bool
    appended: bool
    num_samples: int
    said: Mapping[Path, Role]

    # --- running it

    def loss(self, arguments: tuple[Any, ...] | None = None) -> Tensor:
        """The sum of the loss's terms, drawn with the same random numbers at every call.

        The loss is given copies: a network that works in place on its input does not change the batch.
        """
        return self.loss_of(map_tensors(torch.clone, self.arguments if arguments is None else arguments))

    def loss_of(self, arguments: tuple[Any, ...]) -> Tensor:
        """The same of the given tensors themselves."""
        seed_random_numbers(0)
        put_in_training_mode(self.student)
        result = self.loss_fn(self.student, *arguments)
        terms = list(result.values()) if isinstance(result, dict) else [result]
        if not terms or not all(isinstance(term, Tensor) and term.dim() == 0 for term in terms):
            raise ValueError(f"loss_fn: expected a scalar tensor or a dict of them, got {result!r}")
        return sum(terms[1:], start=terms[0])

    def trained(self) -> list[nn.Parameter]:
        """The student's parameters that ask for a gradient."""
        return [p for p in self.student.parameters() if p.requires_grad]

    def gradient(self, loss: Tensor) -> Tensor:
        """The gradient for all that is trained of the student, in one row; zero where none arrives."""
        parameters = self.trained()
        if not parameters or not loss.requires_grad:
            return torch.zeros(1)
        gradients = torch.autograd.grad(loss, parameters, allow_unused=True)
        pairs = zip(parameters, gradients, strict=True)
        return torch.cat([(torch.zeros_like(p) if g is None else g).flatten() for p, g in pairs])

    # --- what is in it

    @cached_property
    def tensors(self) -> dict[Path, Tensor]:
        """All tensors of the arguments, by path."""
        return tensors_in(self.arguments)

    def place(self, path: Path) -> Any:
        """Where in the reader's batch a tensor stands: an index or a key."""
        return path[1] if self.whole and len(path) > 1 else path[0]

    @cached_property
    def calls(self) -> dict[nn.Module, list[Call]]:
        """Calls of the student and of every teacher in one step."""
        with left_as_found(self.student, self.teacher):
            return outermost_calls([self.student, *self.teacher], self.loss)

    @cached_property
    def pattern(self) -> Pattern | None:
        """How the student is called; None if it is not."""
        return pattern_of(self.calls[self.student], self.tensors)

    @cached_property
    def student_call(self) -> Call | None:
        """The last call of what the student is called with the batch as; None if there is none."""
        pattern = self.pattern
        of_it = [c for c in self.calls[self.student] if pattern is not None and c.module is pattern.module]
        return of_it[-1] if of_it else None

    @cached_property
    def roles(self) -> Roles:
        """What every tensor of the arguments is.

        Raises:
            ValueError: Tensors that may be labels or the teacher's knowledge.
        """
        call, pattern = self.student_call, self.pattern
        answers = list(call.answers(self.num_samples).values()) if call else []
        evidence = Evidence(
            tensors=self.tensors,
            said=self.said,
            names={path: self._names(path) for path in self.tensors},
            inputs=[path for path in self.tensors if pattern and path in pattern.sources.values()],
            answer=answers[0] if answers else None,
            live=self._all_that_is_said(),
            teacher_runs=self.appended or any(self.calls[teacher] for teacher in self.teacher),
        )
        try:
            return recognized_roles(evidence)
        except Ambiguous as error:
            first, second, *_ = [self.place(path) for path in error.paths]
            raise ValueError(
                f"batch: expected to recognize the teacher's knowledge, but {first!r} and {second!r} may "
                f"both be it; say so: roles={{{first!r}: 'labels', {second!r}: 'knowledge'}}, or the other "
                "way round"
            ) from None

    def _all_that_is_said(self) -> list[Tensor]:
        try:
            return self.live_answers()
        except DoesNotApply:
            return []

    def _names(self, path: Path) -> list[str]:
        """What the reader's code calls a tensor: argument of the loss, keys, keywords of the student."""
        keys = [key for key in path if isinstance(key, str)]
        if not self.whole:
            keys = positional_names(self.loss_fn)[1 + path[0] :][:1] + keys
        return keys + (self.pattern.keywords(path) if self.pattern else [])

    def places(self, role: Role) -> list[Path]:
        """Paths of the tensors that play a role."""
        return [path for path in self.tensors if self.roles.of.get(path) == role]

    def first(self, role: Role) -> Tensor | None:
        """The first tensor that plays a role."""
        return next((self.tensors[path] for path in self.places(role)), None)

    @property
    def inputs(self) -> Tensor:
        """The input, or the first of several."""
        return self.tensors[self.places("inputs")[0]]

    @property
    def labels(self) -> Tensor | None:
        """What the data say: class indices, rows of probabilities, zeros and ones, or values.

        Raises:
            DoesNotApply: Several vectors of whole numbers may be it.
        """
        if self.roles.unclear and not self.places("labels"):
            places = [self.place(path) for path in self.roles.unclear]
            raise DoesNotApply(
                f"any of {places} may hold the labels: say so, for example roles={{{places[0]!r}: 'labels'}}"
            )
        return self.first("labels")

    @property
    def mask(self) -> Tensor | None:
        """Which tokens are real, (N, L), if the batch says so; of several masks what the student is given."""
        masks = self.places("mask") + self.places("positions")
        given = [path for path in masks if self.pattern and path in self.pattern.sources.values()]
        return self.tensors[(given or masks)[0]] if masks else None

    def replaced(self, change: Callable[[Tensor], Tensor]) -> Any:
        """The arguments with the teacher's knowledge changed, as far as it is no whole numbers."""
        floating = [path for path in self.places("knowledge") if self.tensors[path].is_floating_point()]
        return self.with_tensors({path: change(self.tensors[path]) for path in floating})

    def with_tensors(self, replacements: Mapping[Path, Tensor]) -> Any:
        """The arguments with other tensors at some places."""
        return replace_tensors(self.arguments, replacements)

    # --- what the teachers say

    def live_answers(
        self, replacements: Mapping[Path, Tensor] | None = None, train: bool = False
    ) -> list[Tensor]:
        """What the teachers say to the batch, without gradient: all floating-point tensors of it.

        A teacher that the loss runs has answered in the step; any other is called as the student is.

        Args:
            replacements: Other tensors in the batch.
            train: Whether teachers answer in train mode, instead of in eval mode.

        Raises:
            DoesNotApply: A teacher cannot be called in this way.
        """
        tensors = {**self.tensors, **(replacements or {})}
        said: list[Any] = []
        try:
            with torch.no_grad():
                if self.answer_fn is not None:
                    arguments = self.with_tensors(replacements or {})
                    batch = arguments[:-1] if self.appended else arguments
                    said.append(self.answer_fn(map_tensors(torch.clone, batch[0] if self.whole else batch)))
                for teacher in self.teacher:
                    said += [call.output for call in self.calls[teacher]]
                    if self.pattern and not any(call.module is teacher for call in self.calls[teacher]):
                        with eval_mode(teacher):
                            said.append(self.pattern.call(teacher.train(train), tensors))
        except Exception as error:  # whatever a network says to arguments that are not its own
            raise DoesNotApply(f"the teacher cannot be called as the student is: {error}") from error
        return [tensor for tensor in tensors_in(said).values() if tensor.is_floating_point()]

    def comparison(self) -> Comparison:
        """The first answer of the student's that has a counterpart of the same shape.

        Raises:
            DoesNotApply: There is none.
        """
        if self.student_call is None or not self.student_call.answers(self.num_samples):
            raise DoesNotApply("the student does not answer once with (N, K)")
        comparisons = self.comparisons()
        if not comparisons:
            raise DoesNotApply("no answer of the teacher has the shape of the student's")
        return comparisons[0]

    def comparisons(self) -> list[Comparison]:
        """The student's answers, and for each the teachers' of the same shape, live or cached."""
        found = []
        call = self.student_call
        for path, answer in call.answers(self.num_samples).items() if call else ():
            live = [(c, p) for c, p, tensor in self._said_in_step() if tensor.shape == answer.shape]
            cached = [p for p in self.places("knowledge") if self.tensors[p].shape == answer.shape]
            if call and (live or cached):
                said = tensors_in(live[0][0].output)[live[0][1]] if live else self.tensors[cached[0]]
                found.append(Comparison(call, path, answer, live, cached, said))
        return found

    def _said_in_step(self) -> Iterator[tuple[Call, Path, Tensor]]:
        for teacher in self.teacher:
            for call in self.calls[teacher]:
                for path, tensor in call.answers(self.num_samples).items():
                    yield call, path, tensor

    @contextmanager
    def another_teacher(self) -> Iterator[Any]:
        """The arguments with another teacher's knowledge; a live teacher is made to be another meanwhile.

        Each sample gets the next one's knowledge, and noise as large: some teachers say the same of every
        sample, or nearly so.
        """
        running: list[nn.Module] = []

        def enter(module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
            running.append(module)
            return map_tensors(self._rolled, (args, kwargs)) if len(running) == 1 else None

        def leave(module: nn.Module, args: Any, kwargs: Any, output: Any) -> Any:
            running.pop()
            return None if running else map_tensors(_with_noise, output)

        knowledge = {path: _with_noise(self._rolled(self.tensors[path])) for path in self.places("knowledge")}
        # by an index, knowledge may be looked up
        indices = {path: self._rolled(self.tensors[path]) for path in self.places("index")}
        with hooked(self.teacher.modules(), enter, leave):
            yield self.with_tensors(knowledge | indices)

    def _rolled(self, tensor: Tensor) -> Tensor:
        """Every sample's row in the place of the next."""
        has_rows = tensor.dim() > 0 and len(tensor) == self.num_samples
        return tensor.roll(1, dims=0) if has_rows else tensor


def _with_noise(tensor: Tensor) -> Tensor:
    """The tensor with noise of its own standard deviation, or of 1 if it is constant; no whole numbers."""
    if not tensor.is_floating_point() or tensor.numel() < 2:
        return tensor
    std = tensor.detach().std()
    noise = torch.randn(tensor.shape, generator=torch.Generator().manual_seed(0)).to(tensor)
    return tensor + torch.where(std > 0, std, 1.0) * noise


def bench_of(
    loss_fn: Callable[..., Any], student: nn.Module, teacher: Any, batch: Any, roles: Mapping[Any, str] | None
) -> Bench:
    """The bench, its batch on the student's device.

    Raises:
        ValueError: As `audit` says.
    """
    teachers = list(teacher) if isinstance(teacher, (list, tuple)) else [teacher]
    modules = nn.ModuleList(t for t in teachers if isinstance(t, nn.Module))
    if len(modules) < len(teachers) and (len(teachers) > 1 or not callable(teacher)):
        kinds = [type(t).__name__ for t in teachers]
        raise ValueError(f"teacher: expected a module, a list of modules or a function, got {kinds}")
    num_samples = _num_samples(batch)
    device = next((p.device for p in student.parameters()), None)
    batch = map_tensors(lambda tensor: tensor.detach().to(device or tensor.device), batch)
    whole = isinstance(batch, (Tensor, Mapping))
    arguments = (batch,) if whole else tuple(batch)
    places = {path: path[1] if whole and len(path) > 1 else path[0] for path in tensors_in(arguments)}
    said = places_said(roles, places)
    appended = not _takes(loss_fn, student, *arguments)
    if appended:
        answer = _answer_as_in_fit(teacher, modules, batch)
        arguments = (*arguments, answer)
        said |= {(len(arguments) - 1, *path): "knowledge" for path in tensors_in(answer)}
    answer_fn = None if len(modules) else teacher
    return Bench(loss_fn, student, modules, answer_fn, arguments, whole, appended, num_samples, said)


def _num_samples(batch: Any) -> int:
    """N of a batch. Raises ValueError where it holds no tensor, or tensors that differ in N."""
    if not isinstance(batch, (Tensor, Mapping, tuple, list)):
        raise ValueError(f"batch: expected a tensor, a tuple, a list or a dict, got {description(batch)}")
    tensors = list(tensors_in(batch).values())
    if not tensors:
        raise ValueError(f"batch: expected one or more tensors, got {description(batch)}")
    numbers = {len(tensor) for tensor in tensors if tensor.dim() > 0}
    if len(numbers) != 1 or min(numbers) < MIN_SAMPLES:
        shapes = [tuple(tensor.shape) for tensor in tensors]
        raise ValueError(f"batch: expected the same N >= {MIN_SAMPLES} in every tensor, got shapes {shapes}")
    return numbers.pop()


def _takes(function: Callable[..., Any], *args: Any, **kwargs: Any) -> bool:
    try:
        signature(function).bind(*args, **kwargs)
    except TypeError:
        return False
    return True


def positional_names(function: Callable[..., Any]) -> list[str]:
    """Names of the arguments that can be passed by position."""
    kinds = (Parameter.POSITIONAL_ONLY, Parameter.POSITIONAL_OR_KEYWORD)
    return [name for name, p in signature(function).parameters.items() if p.kind in kinds]


def _answer_as_in_fit(teacher: Any, modules: nn.ModuleList, batch: Any) -> Any:
    """What `fit` appends to a batch; the answers of all, where several teachers are given."""
    try:
        if not len(modules):
            return answers_of(teacher, batch)[0]
        with eval_mode(modules):
            answers = [answers_of(module, batch)[0] for module in modules]
    except TypeError as error:
        raise ValueError(
            f"teacher: expected a module that takes the first element of a batch ({error}); "
            "give a function of the batch, as to `fit`"
        ) from error
    return answers if isinstance(teacher, (list, tuple)) else answers[0]


@contextmanager
def left_as_found(*models: nn.Module) -> Iterator[None]:
    """After the block, values, gradients and modes of the models are what they were before."""
    modules = [module for model in models for module in model.modules()]
    tensors = [tensor for model in models for tensor in (*model.parameters(), *model.buffers())]
    values = [(tensor, tensor.detach().clone(), tensor.grad, tensor.requires_grad) for tensor in tensors]
    found = [(module, module.training, dict(module._buffers)) for module in modules]
    try:
        yield
    finally:
        for module, training, buffers in found:
            module.training = training
            module._buffers.update(buffers)  # a module may put another tensor in a buffer's place
        with torch.no_grad():
            for tensor, value, gradient, requires_grad in values:
                if not torch.equal(tensor, value):
                    tensor.copy_(value)
                tensor.grad = gradient
                if tensor.requires_grad != requires_grad:
                    tensor.requires_grad_(requires_grad)


def seed_random_numbers(seed: int) -> None:
    """Seeds PyTorch on every device in use, NumPy and Python."""
    # torch.manual_seed takes longer than a small loss: it notes a stack trace for every device not in use
    torch.default_generator.manual_seed(seed)
    if torch.cuda.is_initialized():
        torch.cuda.manual_seed_all(seed)
    if torch.backends.mps.is_available():
        torch.mps.manual_seed(seed)
    random.seed(seed)
    np.random.seed(seed)


@contextmanager
def random_state_kept() -> Iterator[None]:
    """After the block, the random numbers of PyTorch, NumPy and Python go on as if it had not been."""
    states = random.getstate(), np.random.get_state()
    mps = torch.mps.get_rng_state() if torch.backends.mps.is_available() else None
    every_gpu = range(torch.cuda.device_count()) if torch.cuda.is_initialized() else ()
    try:
        with torch.random.fork_rng(devices=every_gpu):
            yield
    finally:
        random.setstate(states[0])
        np.random.set_state(states[1])
        if mps is not None:
            torch.mps.set_rng_state(mps)


def graph_leaves(loss: Tensor) -> Iterator[Tensor]:
    """All tensors in which a gradient of the loss would accumulate."""
    seen, ahead = set(), [loss.grad_fn]
    while ahead:
        node = ahead.pop()
        if node is None or node in seen:
            continue
        seen.add(node)
        if hasattr(node, "variable"):
            yield node.variable
        ahead += [next_node for next_node, _ in node.next_functions]


def is_in(tensor: Tensor, model: nn.Module) -> bool:
    """Whether the tensor is one of the model's parameters."""
    return any(tensor is parameter for parameter in model.parameters())


def close(value: Tensor, other: Tensor, tolerance: float = SAME_TOLERANCE) -> bool:
    """Whether the difference is small beside the larger of the two."""
    return close_within(value, other, tolerance)
