"""The set-up of an audit: a loss, a student, a teacher and a batch, run so that no trace is left."""

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from inspect import signature
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from kdutils._modes import eval_mode

SAME = 1e-4  # relative difference up to which two values count as equal
MIN_SAMPLES = 4


@dataclass(frozen=True)
class Bench:
    """What is audited. The batch is complete: the teacher's answer is appended where the loss expects it."""

    loss_fn: Callable[..., Any]
    student: nn.Module
    teacher: nn.Module
    batch: tuple[Any, ...]
    appended: bool

    @property
    def inputs(self) -> Tensor:
        return self.batch[0]

    @property
    def knowledge(self) -> list[int]:
        """Places in the batch that hold the teacher's knowledge."""
        return [i for i, value in enumerate(self.batch) if i > 0 and is_float(value)]

    @property
    def labels(self) -> Tensor | None:
        """Class indices (N,), if the batch holds any."""
        found = (v for v in self.batch[1:] if isinstance(v, Tensor) and v.dtype == torch.int64)
        return next((v for v in found if v.dim() == 1), None)

    @property
    def mask(self) -> Tensor | None:
        """Which tokens are real, (N, L), if the batch holds such zeros and ones."""
        found = (v for v in self.batch[1:] if isinstance(v, Tensor) and v.dim() == 2 and not is_float(v))
        return next((v for v in found if v.unique().tolist() == [0, 1]), None)

    def cached(self, shape: torch.Size) -> Tensor | None:
        """The first knowledge of this shape."""
        found = (self.batch[i] for i in self.knowledge)
        return next((v for v in found if isinstance(v, Tensor) and v.shape == shape), None)

    def replaced(self, change: Callable[[Tensor], Tensor]) -> tuple[Any, ...]:
        """The batch with every piece of knowledge changed."""
        places = self.knowledge
        return tuple(mapped(change, value) if i in places else value for i, value in enumerate(self.batch))

    def loss(self, batch: tuple[Any, ...] | None = None) -> Tensor:
        """The sum of the loss's terms, drawn with the same random numbers at every call."""
        torch.manual_seed(0)
        self.student.train()  # as `fit` does
        result = self.loss_fn(self.student, *(self.batch if batch is None else batch))
        terms = list(result.values()) if isinstance(result, dict) else [result]
        if not terms or not all(isinstance(term, Tensor) and term.dim() == 0 for term in terms):
            raise ValueError(f"loss_fn: expected a scalar tensor or a dict of them, got {result!r}")
        return sum(terms[1:], start=terms[0])

    def trained(self) -> list[nn.Parameter]:
        return [p for p in self.student.parameters() if p.requires_grad]


class DoesNotApply(Exception):
    """The reason why a test says nothing about this loss."""


def bench_of(loss_fn: Callable[..., Any], student: nn.Module, teacher: nn.Module, batch: Any) -> Bench:
    """The bench, its batch on the student's device.   Raises ValueError as `audit` says."""
    batch = tuple(batch)
    if not batch or not all(isinstance(value, Tensor) for value in batch):
        kinds = [type(value).__name__ for value in batch]
        raise ValueError(f"batch: expected one or more tensors, got {kinds}")
    if any(value.dim() == 0 or len(value) != len(batch[0]) for value in batch) or len(batch[0]) < MIN_SAMPLES:
        shapes = [tuple(value.shape) for value in batch]
        raise ValueError(f"batch: expected the same N >= {MIN_SAMPLES} in every tensor, got shapes {shapes}")
    device = next((p.device for p in student.parameters()), batch[0].device)
    batch = tuple(value.detach().to(device) for value in batch)
    appended = not _takes(loss_fn, 1 + len(batch))
    if appended:
        batch = (*batch, answer_of(teacher, batch[0]))
    return Bench(loss_fn, student, teacher, batch, appended)


def _takes(function: Callable[..., Any], num_arguments: int) -> bool:
    try:
        signature(function).bind(*range(num_arguments))
    except TypeError:
        return False
    return True


@contextmanager
def left_as_found(*models: nn.Module) -> Iterator[None]:
    """After the block, values, gradients and modes of the models are what they were before."""
    tensors = [t for model in models for t in (*model.parameters(), *model.buffers())]
    values = [(tensor, tensor.detach().clone(), tensor.grad) for tensor in tensors]
    modes = [(module, module.training) for model in models for module in model.modules()]
    try:
        yield
    finally:
        with torch.no_grad():
            for tensor, value, gradient in values:
                if not torch.equal(tensor, value):
                    tensor.copy_(value)
                tensor.grad = gradient
        for module, training in modes:
            module.training = training


class Call(NamedTuple):
    """A network's answer (N, …) to an input as it was given in a step."""

    module: nn.Module
    inputs: Tensor
    output: Tensor
    times: int


def call_of(bench: Bench, network: nn.Module) -> Call | None:
    """The call in which the network, or a part of it, turns an input of the batch's shape into (N, K).

    Of nested modules the outermost: it is the last to finish. A teacher inside the student is left out.
    """
    calls: list[Call] = []
    aside = set(bench.teacher.modules()) if network is bench.student else set()

    def record(module: nn.Module, inputs: tuple[Any, ...], output: Any) -> None:
        if module in aside or not inputs or shape_of(inputs[0]) != shape_of(bench.inputs):
            return
        if isinstance(output, Tensor) and output.dim() == 2 and is_float(output):
            times = 1 + sum(call.module is module for call in calls)
            calls.append(Call(module, inputs[0].detach(), output.detach(), times))

    with hooked(network, nn.Module.register_forward_hook, record):
        bench.loss()
    return calls[-1] if calls else None


@contextmanager
def another_teacher(bench: Bench) -> Iterator[tuple[Any, ...]]:
    """The batch with every sample's knowledge given to the next; a live teacher sees the other image."""
    running: list[nn.Module] = []

    def enter(module: nn.Module, inputs: tuple[Any, ...]) -> Any:
        running.append(module)
        return rolled(inputs) if len(running) == 1 else None  # not again for the parts within

    def leave(*_: Any) -> None:
        running.pop()

    with (
        hooked(bench.teacher, nn.Module.register_forward_pre_hook, enter),
        hooked(bench.teacher, nn.Module.register_forward_hook, leave),
    ):
        yield bench.replaced(rolled)


@contextmanager
def hooked(network: nn.Module, register: Callable[..., Any], hook: Callable[..., Any]) -> Iterator[None]:
    """The hook on every module of the network.   register: `nn.Module.register_forward_hook` or its like."""
    with ExitStack() as hooks:
        for module in network.modules():
            hooks.callback(register(module, hook).remove)
        yield


def student_gradient(bench: Bench, loss: Tensor) -> Tensor:
    """The gradient for all that is trained of the student, in one row; zero where none arrives."""
    parameters = bench.trained()
    if not parameters or not loss.requires_grad:
        return torch.zeros(1)
    gradients = torch.autograd.grad(loss, parameters, allow_unused=True)
    pairs = zip(parameters, gradients, strict=True)
    return torch.cat([(torch.zeros_like(p) if g is None else g).flatten() for p, g in pairs])


def leaves_of(loss: Tensor) -> Iterator[Tensor]:
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
    return any(tensor is parameter for parameter in model.parameters())


def answer_of(teacher: nn.Module, inputs: Tensor) -> Any:
    """What the teacher says in eval mode, without gradient."""
    with torch.no_grad(), eval_mode(teacher):
        return teacher(inputs)


def mapped(change: Callable[[Tensor], Tensor], value: Any) -> Any:
    """A tensor, or every tensor of a tuple or list, changed; anything else as it is."""
    if isinstance(value, (tuple, list)):
        return type(value)(mapped(change, part) for part in value)
    return change(value) if is_float(value) else value


def rolled(value: Any) -> Any:
    """Every row of a tensor, or of the tensors in a tuple, in the place of the next."""
    if isinstance(value, tuple):
        return tuple(map(rolled, value))
    return value.roll(1, dims=0) if isinstance(value, Tensor) else value


def is_float(value: Any) -> bool:
    """Whether it is a floating-point tensor, or a tuple or list that holds one."""
    if isinstance(value, (tuple, list)):
        return any(map(is_float, value))
    return isinstance(value, Tensor) and value.is_floating_point()


def shape_of(value: Any) -> torch.Size | None:
    return value.shape if isinstance(value, Tensor) else None


def close(value: Tensor, other: Tensor, tolerance: float = SAME) -> bool:
    """Whether the difference is small beside the larger of the two."""
    return bool((value - other).norm() <= tolerance * max(value.norm(), other.norm()))


def centred(rows: Tensor) -> Tensor:
    return rows - rows.mean(dim=1, keepdim=True)
