"""The parts of `fit`: its optimizer and schedule, modes, terms, history, and what it refuses."""

import inspect
import math
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.optim.lr_scheduler import OneCycleLR

from kdutils._loading import arguments_of, is_data_set, num_samples
from kdutils._modes import eval_mode
from kdutils._trees import map_tensors, tensors_in
from kdutils._validate import description, require_count, require_positive

History = dict[str, list[float]]
LossFunction = Callable[..., Tensor | dict[str, Tensor]]

WEIGHT_DECAY = 0.01
TINY = 2  # samples: batch norm fails on one, angles among samples on two


def require_valid(
    model: Any, batches: Any, steps: int, lr: float, teacher: Any, autocast: Any, on_step: Any
) -> None:
    """Raises ValueError for what `fit` cannot work with."""
    require_module(model)
    require_positive("lr", lr)
    require_count("steps", steps)
    if isinstance(batches, Tensor) or is_data_set(batches):
        raise ValueError(
            "batches: expected what yields batches, such as DataLoader(data_set, batch_size=64) or "
            f"batches(inputs, labels), got {description(batches)}, which yields single samples"
        )
    if not isinstance(batches, Iterable):
        raise ValueError(f"batches: expected a DataLoader or a list of batches, got {description(batches)}")
    if not (teacher is None or callable(teacher)):
        raise ValueError(f"teacher: expected a module or a function of the batch, got {description(teacher)}")
    if not (on_step is None or callable(on_step)):
        raise ValueError(f"on_step: expected a function of step and history, got {description(on_step)}")
    if autocast not in (None, torch.float16, torch.bfloat16):
        raise ValueError(
            f"autocast: expected torch.float16, torch.bfloat16 or None, got {description(autocast)}"
        )


def require_module(model: Any) -> None:
    if not isinstance(model, nn.Module):
        raise ValueError(f"model: expected an nn.Module, got {description(model)}")


def optimizer_of(make: Any, model: nn.Module, lr: float, weight_decay: float) -> torch.optim.Optimizer:
    """The optimizer that a function makes of the parameters, its largest rate being `lr`; AdamW for None."""
    if make is None:
        # One fused kernel updates all parameters: a tenth of a small student's step on a CPU.
        fused = all(parameter.is_floating_point() for parameter in model.parameters())
        return torch.optim.AdamW(model.parameters(), lr=lr, weight_decay=weight_decay, fused=fused)
    if weight_decay != WEIGHT_DECAY:
        raise ValueError(
            f"weight_decay: expected to be left out where optimizer= brings its own, got {weight_decay}"
        )
    optimizer = make(model.parameters()) if callable(make) else make
    if optimizer is make or not isinstance(optimizer, torch.optim.Optimizer):
        raise ValueError(
            "optimizer: expected a function of the parameters that returns a torch.optim.Optimizer, got "
            + (description(make) if optimizer is make else f"one that returns {description(optimizer)}")
        )
    largest = max(group["lr"] for group in optimizer.param_groups)
    for group in optimizer.param_groups:
        group["lr"] = lr * (group["lr"] / largest)
    return optimizer


def schedule_of(make: Any, optimizer: torch.optim.Optimizer, steps: int, changes_momentum: bool) -> Any:
    """The schedule that a function makes of the optimizer; for None the one-cycle schedule."""
    if make is None:
        # The last step would have a rate of zero, hence + 1; under 5 the scheduler can divide by zero.
        return OneCycleLR(
            optimizer,
            max_lr=[group["lr"] for group in optimizer.param_groups],
            total_steps=max(steps + 1, 5),
            pct_start=0.25,
            cycle_momentum=changes_momentum,
        )
    schedule = make(optimizer) if callable(make) else make
    if schedule is make or not callable(getattr(schedule, "step", None)):
        raise ValueError(
            "schedule: expected a function of the optimizer that returns a schedule, got "
            + (description(make) if schedule is make else f"one that returns {description(schedule)}")
        )
    return schedule


def put_in_training_mode(model: nn.Module) -> None:
    """Training mode, but for single layers and frozen batch norm in eval mode; see `fit`."""
    switched_off = {
        part
        for whole in model.modules()
        for part in whole.children()
        if whole.training and not part.training and (_has_statistics(part) or not list(part.children()))
    }
    frozen = {
        part
        for whole in model.modules()
        if not any(parameter.requires_grad for parameter in whole.parameters()) and list(whole.parameters())
        for part in whole.modules()
        if _has_statistics(part) and not part.training
    }
    model.train()
    for part in switched_off | frozen:
        part.eval()


def _has_statistics(module: nn.Module) -> bool:
    return getattr(module, "running_mean", None) is not None


def answers_of(teacher: Any, batch: Any) -> tuple[Any, ...]:
    """A live teacher's answer to a batch, as one more argument of the loss; nothing without a teacher."""
    if teacher is None:
        return ()
    with torch.no_grad():
        batch = map_tensors(Tensor.clone, batch)  # a teacher may work in place on what it is given
        if not isinstance(teacher, nn.Module):
            return (teacher(batch),)
        question = arguments_of(batch)[0]
        if not isinstance(question, Mapping):
            return (teacher(question),)
        parameters = inspect.signature(teacher.forward).parameters
        takes_any = any(parameter.kind is parameter.VAR_KEYWORD for parameter in parameters.values())
        if unknown := [] if takes_any else [key for key in question if key not in parameters]:
            raise ValueError(
                f"teacher: expected to take all of a batch that is a dict, but {unknown} it does not; "
                "give a function of the batch that picks, as in teacher=lambda batch: network(batch['x'])"
            )
        return (teacher(**question),)


def named_terms(result: Any) -> dict[str, Tensor]:
    """The scalars that a loss function returned, by name; raises ValueError for what cannot be minimised."""
    terms = result if isinstance(result, dict) else {"loss": result}
    if not terms or ("loss" in terms and len(terms) > 1):
        raise ValueError(
            "loss_fn: expected one or more named terms, none of them named 'loss' (that is their sum), "
            f"got {list(terms)}"
        )
    for name, term in terms.items():
        if not isinstance(term, Tensor) or term.dim() != 0:
            came = f"shape {tuple(term.shape)}" if isinstance(term, Tensor) else repr(term)
            raise ValueError(f"loss_fn: expected a scalar tensor for the term {name!r}, got {came}")
        if term.is_complex():
            raise ValueError(f"loss_fn: expected a real number for the term {name!r}, got {term.dtype}")
    if not any(term.requires_grad for term in terms.values()):
        raise ValueError(
            "loss_fn: expected a loss that depends on a trainable parameter of the model, "
            "got one without gradient (all frozen, detached, or computed without gradient)"
        )
    return terms


def tried_on_last(loss_fn: LossFunction, size: int | None) -> LossFunction:
    """The loss function; if an epoch ends with a tiny batch, its first call tries one of that size, too."""
    if size is None or not 0 < size <= TINY:
        return loss_fn
    is_tried = False

    def tried(model: nn.Module, *batch: Any) -> Any:
        nonlocal is_tried
        failure = None if is_tried else _failure_on_few(loss_fn, model, batch, size)
        is_tried = True
        result = loss_fn(model, *batch)  # where this fails as well, it is not for the size
        if failure is not None:
            raise ValueError(
                f"batches: every epoch ends with a batch of {size}, on which loss_fn fails ({failure}); "
                "choose another batch_size, or drop_last=True in a DataLoader"
            )
        return result

    return tried


def _failure_on_few(loss_fn: LossFunction, model: nn.Module, batch: tuple[Any, ...], size: int) -> str | None:
    """How the loss fails on so few samples, if it does; buffers and random numbers stay as they are."""
    whole = num_samples(batch)
    few = map_tensors(lambda x: x[:size] if x.dim() > 0 and len(x) == whole else x, batch)
    buffers = [(buffer, buffer.clone()) for buffer in model.buffers()]
    gpus = {parameter.device.index for parameter in model.parameters() if parameter.is_cuda}
    failure = None
    try:
        with torch.random.fork_rng(devices=gpus):
            terms = named_terms(loss_fn(model, *few))
        failure = next(
            (f"{name!r} is {term.item()}" for name, term in terms.items() if not _is_finite(term)), None
        )
    except (ValueError, RuntimeError) as error:
        failure = str(error)
    with torch.no_grad():
        for buffer, former in buffers:
            buffer.copy_(former)
    return failure


class Curves:
    """The history of a training. Numbers are fetched in blocks of steps from where they are computed."""

    def __init__(self, block: int):
        self.history: History = {}
        self.length = 0
        self._block = block
        self._waiting: list[dict[str, Tensor]] = []

    def add(self, terms: dict[str, Tensor], batch: tuple[Any, ...], model: nn.Module) -> None:
        """Adds a step; raises FloatingPointError for numbers that are not finite."""
        if self._block == 1:
            self._append(_numbers([terms])[0], lambda: _cause(batch, model))
            return
        self._waiting.append({name: term.detach() for name, term in terms.items()})
        if len(self._waiting) == self._block:
            self.fetch()

    def fetch(self) -> None:
        """Fetches what waits."""
        waiting, self._waiting = self._waiting, []
        late = "; noticed later, since values are fetched in blocks of steps"
        for values in _numbers(waiting):
            self._append(values, lambda: late)

    def fetch_finite(self) -> None:
        """Fetches what waits up to the first number that is not finite, without a complaint."""
        with suppress(Exception):
            self.fetch()

    def _append(self, values: dict[str, float], cause: Callable[[], str]) -> None:
        for name, value in values.items():
            if not math.isfinite(value):
                raise FloatingPointError(f"step {self.length}: the term {name!r} is {value}{cause()}")
        for name in self.history | values:
            if name not in self.history:
                self.history[name] = [math.nan] * self.length
            self.history[name].append(values.get(name, math.nan))
        self.length += 1


def _numbers(waiting: list[dict[str, Tensor]]) -> list[dict[str, float]]:
    """The same with numbers for tensors; from another device than the CPU they come in one transfer."""
    device = waiting[-1]["loss"].device if waiting else torch.device("cpu")
    if device.type == "cpu":
        return [{name: term.item() for name, term in terms.items()} for terms in waiting]
    numbers = iter(torch.stack([t.to(device) for terms in waiting for t in terms.values()]).cpu().tolist())
    return [{name: next(numbers) for name in terms} for terms in waiting]


def _cause(batch: tuple[Any, ...], model: nn.Module) -> str:
    """Why a loss is not finite, where it can be told."""
    tensors = tensors_in(batch).items()
    if spoiled := [path[0] if len(path) == 1 else path for path, tensor in tensors if not _is_finite(tensor)]:
        return f"; not finite in the batch itself: tensor {spoiled}"
    if not all(map(_is_finite, model.parameters())):
        return "; the parameters are not finite: an earlier step's gradient was not"
    return ""


def _is_finite(tensor: Tensor) -> bool:
    return bool(tensor.isfinite().all())


def stops(on_step: Callable[[int, History], Any], step: int, history: History, model: nn.Module) -> bool:
    """Whether `on_step` asks to stop; every part of the model has its mode again afterwards."""
    with eval_mode(model):
        answer = on_step(step, history)
    if answer is not None and not isinstance(answer, bool | np.bool_):
        raise ValueError(f"on_step: expected True to stop, else False or None, got {description(answer)}")
    return bool(answer)


def require_finite_parameters(model: nn.Module, step: int) -> None:
    if not all(map(_is_finite, model.parameters())):
        raise FloatingPointError(f"step {step}: the loss is finite, its gradient is not: weights are spoiled")
