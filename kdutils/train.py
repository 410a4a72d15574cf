"""One training loop for every chapter, and a frozen model's knowledge computed once."""

import itertools
import os
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import nullcontext
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset

from kdutils._errors import keep
from kdutils._loading import (
    arguments_of,
    endless,
    is_data_set,
    is_shuffled,
    leaves_out,
    num_samples,
    samples_in,
    size_of_last,
    to_device,
)
from kdutils._modes import eval_mode
from kdutils._npy import written
from kdutils._training import (
    WEIGHT_DECAY,
    Curves,
    History,
    LossFunction,
    answers_of,
    named_terms,
    optimizer_of,
    put_in_training_mode,
    require_finite_parameters,
    require_module,
    require_valid,
    schedule_of,
    stops,
    tried_on_last,
)
from kdutils._trees import tensors_in
from kdutils._validate import description
from kdutils.batches import Batches
from kdutils.batches import batches as in_memory_batches

STEPS_IN_A_BLOCK = 50  # of a history that lies on a GPU: fetching it makes the CPU wait


class TrainingInterrupted(KeyboardInterrupt):
    """An interrupt in the middle of `fit`. The model keeps its weights; `history` holds the finished steps.

    In Jupyter the last exception is `sys.last_value`, so the curve so far is `sys.last_value.history`.
    """

    def __init__(self, step: int, steps: int, history: History):
        super().__init__(
            f"interrupted after step {step} of {steps}: the model keeps its weights, "
            "the curve so far is in this exception's `history` (in Jupyter: sys.last_value.history)"
        )
        self.history = history


def fit(
    model: nn.Module,
    batches: Iterable[Any],
    loss_fn: LossFunction,
    *,
    steps: int,
    lr: float,
    weight_decay: float = WEIGHT_DECAY,
    teacher: nn.Module | Callable[[Any], Any] | None = None,
    optimizer: Callable[[Iterator[nn.Parameter]], torch.optim.Optimizer] | None = None,
    schedule: Callable[[torch.optim.Optimizer], Any] | None = None,
    autocast: torch.dtype | None = None,
    on_step: Callable[[int, History], bool | None] | None = None,
) -> History:
    """Trains a model in place, leaves it in eval mode, and returns the history of its loss.

    That is all it does. For gradient clipping or accumulation, several optimizers, or resuming from a
    checkpoint, write a loop of your own: it is the dozen lines at the end of this function. Programs under
    `examples/` show it.

    The whole model is put in training mode, pretrained parts that come in eval mode included. Two kinds of
    layers stay in eval mode if you put them there: a single layer inside a part in training mode, such as a
    dropout that you switched off, and the batch norm of a part whose parameters are all frozen, since its
    running statistics would move on. Afterwards everything is in eval mode. So batch norm stays frozen in
    a second call as long as the parameters around it are, and a single layer must be switched off again.

    Args:
        model: Whatever is to be trained: a network, a `ModuleList` of peers, a `ModuleDict` of student and
            regressor, a network wrapped in `DistributedDataParallel`. It stays on its device.
        batches: A `DataLoader`, `batches(...)`, a list: anything that can be gone through again and again.
            A batch is a tensor, a tuple, a list or a dict, or a nesting of them. Its tensors are copied to
            the model's device; anything else, such as file names, is passed on as it is.
        loss_fn: Called as `loss_fn(model, *batch)` with a tuple or list, as `loss_fn(model, batch)` with
            a tensor or a dict. Returns a scalar, or a dict of named scalars whose sum is minimized.
        steps: Number of optimizer steps.
        lr: Peak learning rate.
        weight_decay: Of the default optimizer; left out where `optimizer` brings its own.
        teacher: Where its knowledge is not cached in the batches. A module on the model's device is put in
            eval mode and called without gradient, with the first element of a tuple or list, or with all
            of a dict as keywords: `teacher(**batch)`. A teacher that needs anything else, such as a tuple's
            attention mask, is given as a function of the batch, `lambda batch: network(batch[0], batch[1])`;
            its modules are in the mode that you put them in. The answer is one more argument of `loss_fn`,
            the last. The teacher is given a copy of the batch.
        optimizer: Function of the model's parameters that returns a PyTorch optimizer, such as
            `torch.optim.SGD`. Its learning rate is set to `lr`: with several groups the largest, and the
            others in proportion. None stands for AdamW.
        schedule: Function of the optimizer that returns a PyTorch schedule, whose `step()` is called after
            every step. None stands for the one-cycle schedule: the rate rises for a quarter of the steps and
            falls to zero as a cosine. With AdamW, its first beta falls from .95 to .85 and returns.
        autocast: `torch.bfloat16` or `torch.float16`: the precision in which teacher and loss are computed
            where PyTorch takes it to be safe. Gradients of float16 are scaled.
        on_step: Called after every step, with its number from 0 and the history so far, and the model in eval
            mode: for validation, checkpoints, early stopping. Training ends where it returns True.

    Returns:
        The loss, step by step, as "loss", and one list more for every named term, NaN in the steps that were
        without it.

    Raises:
        ValueError: A setting out of range; batches that run out, or cannot be understood; a loss that is no
            scalar or depends on no trainable parameter; a last batch of one or two samples on which the loss
            fails. Where the loader's length is known, that is found in the first step, which then calls
            `loss_fn` on so few samples, too.
        FloatingPointError: A loss that is not finite, with step and term. On a CPU it never reaches the
            parameters (but batch norm's running statistics have seen the batch). On a GPU, where values are
            fetched in blocks of 50 steps unless there is an `on_step`, it is noticed later, at the latest
            before `fit` returns.
        TrainingInterrupted: An interrupt. It has the history so far as `history`, as any other exception has
            that leaves `fit`.

    Source: Loshchilov and Hutter 2019 (AdamW); Smith and Topin 2018 (one-cycle schedule).
    """
    from tqdm import tqdm

    require_valid(model, batches, steps, lr, teacher, autocast, on_step)
    updates = optimizer_of(optimizer, model, lr, weight_decay)
    rates = schedule_of(schedule, updates, steps, changes_momentum=optimizer is None)
    device = next(model.parameters()).device
    precision = nullcontext() if autocast is None else torch.autocast(device.type, autocast)
    scaler = torch.amp.GradScaler(device.type, enabled=autocast is torch.float16)
    curves = Curves(1 if device.type == "cpu" or on_step else STEPS_IN_A_BLOCK)
    loss_fn = tried_on_last(loss_fn, size_of_last(batches, steps))
    endless_batches, shared = endless(batches), not isinstance(batches, Batches)  # it makes new tensors
    if isinstance(teacher, nn.Module):
        teacher.eval()
    put_in_training_mode(model)
    try:
        with tqdm(range(steps), unit="step", leave=False, delay=10) as progress:  # shown after ten seconds
            for step in progress:
                batch = to_device(next(endless_batches), device, copy=shared)
                with precision:
                    arguments = (*arguments_of(batch), *answers_of(teacher, batch))
                    terms = named_terms(loss_fn(model, *arguments))
                first, *others = terms.values()
                loss = sum(others, start=first)
                curves.add(terms | {"loss": loss}, arguments, model)
                updates.zero_grad()
                scaler.scale(loss).backward()
                scaler.step(updates)
                scaler.update()
                rates.step()
                if on_step and stops(on_step, step, curves.history, model):
                    break
        curves.fetch()
        require_finite_parameters(model, step)
    except KeyboardInterrupt as interrupt:
        curves.fetch_finite()
        raise TrainingInterrupted(curves.length, steps, curves.history) from interrupt
    except Exception as error:
        curves.fetch_finite()
        note = f"fit: the curve of {curves.length} of {steps} steps is in this exception's `history`"
        keep(error, note if curves.length else None, history=curves.history)
        raise
    finally:
        model.eval()
    return curves.history


def predict(
    model: nn.Module,
    inputs: Any,
    forward: Callable[..., Any] | None = None,
    batch_size: int = 500,
    transform: Callable[[Any], Any] | None = None,
    to: str | os.PathLike[str] | None = None,
) -> Any:
    """What a frozen model says about inputs, computed once: its logits (N, K), or whatever `forward` returns.

    The model is in eval mode while it runs, without gradient, on its own device; afterwards every part of it
    has its former mode again. Inputs are handed over as they are: only `transform` changes pixels.

    Args:
        model: Any module.
        inputs: A tensor (N, ...), a data set, or a loader that keeps the order of its samples. Of samples or
            batches that are tuples the first element is the input; those that are dicts are keywords of
            the model.
        forward: None for the model itself; else a function of a batch of inputs, or of its keywords, such as
            `model.embed`. It returns a tensor or a tuple of tensors with N as first dimension.
        batch_size: Inputs computed at once; a loader has its own.
        transform: What becomes of every batch of inputs first: normalizing pixels, say.
        to: A file, "answers.npy" say, that the answers are written to batch by batch where memory does not
            hold them all. It appears once it is complete, and is read, not computed, in the next call. Until
            then "answers.npy.part" holds what there is: after an interrupt the same call goes on from there.
            Only what returns one tensor can be written.

    Returns:
        A tensor, or a tuple of tensors, on the CPU, in the order of the inputs. With `to`, a tensor whose
        numbers are read from the file where they are used.

    Raises:
        ValueError: No input, or inputs of another kind; a loader that shuffles or leaves samples out; answers
            without an entry for every input; a file at `to` that does not belong to this call.
    """
    require_module(model)
    batches = _in_order(inputs, batch_size)
    prepared = transform or (lambda question: question)
    questions = (prepared(arguments_of(batch)[0]) for batch in batches)

    def answer(question: Any) -> Any:
        return _answer(model, forward or model, question)

    with torch.no_grad(), eval_mode(model):
        if to is not None:
            return written(to, questions, lambda question: _one_tensor(answer(question)), _total(inputs))
        pieces = [answer(question) for question in questions]
    if not pieces:
        raise ValueError("inputs: expected at least one, got none")
    if isinstance(pieces[0], tuple):
        return tuple(_joined(column) for column in zip(*pieces, strict=True))
    return _joined(pieces)


def _in_order(inputs: Any, batch_size: int) -> Iterable[Any]:
    """The inputs, in batches, in their order."""
    if isinstance(inputs, Tensor):
        if inputs.dim() == 0 or len(inputs) == 0:
            raise ValueError(f"inputs: expected at least one, got shape {tuple(inputs.shape)}")
        return in_memory_batches(inputs, batch_size=batch_size)
    if isinstance(inputs, Dataset) or is_data_set(inputs):
        return DataLoader(inputs, batch_size=batch_size)
    plain = isinstance(inputs, list | tuple | Mapping | str | np.ndarray)
    if plain or not isinstance(inputs, Iterable):
        raise ValueError(
            f"inputs: expected a tensor, a data set or a loader, got {description(inputs)}; "
            "torch.as_tensor makes a tensor of an array, torch.stack of a list of tensors"
        )
    if is_shuffled(inputs) or leaves_out(inputs):
        raise ValueError(
            "inputs: expected a loader that keeps the order and all samples, so that answers can be told "
            "apart, got one with shuffle, a seed or drop_last; give its data set"
        )
    return inputs


def _total(inputs: Any) -> int:
    total = samples_in(inputs)
    if total is None:
        raise ValueError(
            "to: expected inputs of known length (a tensor, a data set, or a DataLoader of one), got "
            + description(inputs)
        )
    return total


def _one_tensor(answer: Any) -> Tensor:
    if isinstance(answer, tuple):
        raise ValueError("to: expected forward to return one tensor, got a tuple")
    return answer


def _answer(model: nn.Module, forward: Callable[..., Any], question: Any) -> Any:
    """What is said of a batch, on the CPU."""
    tensors = tensors_in(question).values()
    if not tensors:
        raise ValueError(f"inputs: expected batches of tensors, got {description(question)} as a batch")
    device = next(itertools.chain(model.parameters(), tensors)).device
    question = to_device(question, device)
    answer = forward(**question) if isinstance(question, Mapping) else forward(question)
    pieces = answer if isinstance(answer, tuple) else (answer,)
    for piece in pieces:
        if not isinstance(piece, Tensor):
            raise ValueError(
                f"forward: expected a tensor or a tuple of tensors, got {description(piece)}; "
                "pick one, as in forward=lambda **batch: model(**batch).logits"
            )
        if piece.dim() == 0 or len(piece) != num_samples(question):
            raise ValueError(
                f"forward: expected an entry for each of {num_samples(question)} inputs, "
                f"got shape {tuple(piece.shape)}"
            )
    return tuple(piece.cpu() for piece in pieces) if isinstance(answer, tuple) else answer.cpu()


def _joined(pieces: Iterable[Tensor]) -> Tensor:
    """What was said of all batches, one after another."""
    pieces = list(pieces)
    shapes = sorted({tuple(piece.shape[1:]) for piece in pieces})
    if len(shapes) > 1:
        raise ValueError(
            f"forward: expected the same shape for every input, got {shapes[0]} and {shapes[1]}; "
            "pad all inputs to one length"
        )
    return torch.cat(pieces)
