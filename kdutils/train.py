"""One training loop for every chapter, and a frozen model's knowledge computed once."""

import math
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import torch
from torch import Tensor, nn

from kdutils._validate import require_positive
from kdutils.data import batches as in_memory_batches

History = dict[str, list[float]]
LossFunction = Callable[..., Tensor | dict[str, Tensor]]


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
    batches: Iterable[tuple[Tensor, ...]],
    loss_fn: LossFunction,
    *,
    steps: int,
    lr: float,
    weight_decay: float = 0.01,
    teacher: nn.Module | None = None,
) -> History:
    """History of the loss, step by step, of a model that is trained in place and left in eval mode.

    model: anything whose parameters are to be trained: a network, a `ModuleList` of peers, a `ModuleDict` of
    student and regressor, a network wrapped in `DistributedDataParallel`. It stays on its device.
    batches: any re-iterable of tuples of tensors, in memory or a `DataLoader`; gone through again and again.
    loss_fn: `loss_fn(model, *batch)` returns a scalar, or a dict of named scalars whose sum is minimised.
    steps: number of optimizer steps.   lr: peak learning rate of the one-cycle schedule.
    teacher: None where its knowledge is cached in the batches. A module is put in eval mode, run without
    gradient on the first tensor of every batch, and its output is appended to the batch.

    Optimizer: AdamW under a one-cycle schedule (a quarter of the steps to warm up, then a cosine to zero).
    Returns a dict of lists, one number a step: "loss", and one entry for every named term.
    Raises ValueError for steps < 1, lr <= 0 or batches that run out; FloatingPointError, naming step and
    term, for a loss that is not finite (before it reaches the weights); TrainingInterrupted, with the history
    so far, on an interrupt.

    Source: Loshchilov and Hutter 2019 (AdamW); Smith and Topin 2018 (one-cycle schedule).
    """
    require_positive("lr", lr)
    require_positive("steps", steps)
    device = next(model.parameters()).device
    optimizer = torch.optim.AdamW(model.parameters(), lr=lr, weight_decay=weight_decay)
    # The last step would have a rate of zero, hence + 1; under 5 the scheduler can divide by zero.
    schedule = torch.optim.lr_scheduler.OneCycleLR(
        optimizer, max_lr=lr, total_steps=max(steps + 1, 5), pct_start=0.25
    )
    if teacher is not None:
        teacher.eval()
    history: History = {}
    model.train()
    try:
        for step, batch in enumerate(_progress(_endless(batches), steps)):
            batch = tuple(tensor.to(device) for tensor in batch)
            if teacher is not None:
                with torch.no_grad():
                    batch = (*batch, teacher(batch[0]))
            terms = loss_fn(model, *batch)
            if not isinstance(terms, dict):
                terms = {"loss": terms}
            loss = torch.stack(list(terms.values())).sum()
            _record(history, terms, loss, step, batch)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            schedule.step()
    except KeyboardInterrupt as interrupt:
        raise TrainingInterrupted(len(history.get("loss", [])), steps, history) from interrupt
    finally:
        model.eval()
    return history


def predict(
    model: nn.Module, images: Tensor, forward: Callable[[Tensor], Any] | None = None, batch_size: int = 500
) -> Any:
    """What a frozen model says about images, computed once: logits (N, K), or whatever `forward` returns.

    model: put in eval mode while it runs, without gradient, on its own device; its mode is restored.
    images: (N, ...) on the CPU; uint8 images are normalised batch by batch.
    forward: None for the model itself; else a function of a batch of images that returns a tensor or a tuple
    of tensors with N as first dimension, such as `model.embed`.
    Returns a tensor, or a tuple of tensors, on the CPU, in the images' order.
    Raises ValueError for an empty set of images.
    """
    forward = model if forward is None else forward
    device = next(model.parameters()).device
    was_training = model.training
    model.eval()
    try:
        with torch.no_grad():
            pieces = [
                forward(batch.to(device)) for (batch,) in in_memory_batches(images, batch_size=batch_size)
            ]
    finally:
        model.train(was_training)
    if isinstance(pieces[0], tuple):
        return tuple(torch.cat([tensor.cpu() for tensor in column]) for column in zip(*pieces, strict=True))
    return torch.cat([piece.cpu() for piece in pieces])


def _endless(batches: Iterable[tuple[Tensor, ...]]) -> Iterator[tuple[Tensor, ...]]:
    """Epoch after epoch of the batches, each with its own shuffle where the loader knows `set_epoch`."""
    shuffler: Any = batches if hasattr(batches, "set_epoch") else getattr(batches, "sampler", None)
    epoch = 0
    while True:
        if hasattr(shuffler, "set_epoch"):
            shuffler.set_epoch(epoch)
        empty = True
        for batch in batches:
            empty = False
            yield batch
        if empty:
            raise ValueError(
                f"batches: ran out in epoch {epoch}; expected a non-empty re-iterable (a list, a DataLoader, "
                "data.batches), not a generator that is used up"
            )
        epoch += 1


def _progress(batches: Iterator[tuple[Tensor, ...]], steps: int) -> Iterator[tuple[Tensor, ...]]:
    """`steps` batches, with a progress bar where they take longer than ten seconds."""
    from tqdm import tqdm

    bar = tqdm(total=steps, unit="step", leave=False, delay=10)
    with bar:
        for _ in range(steps):
            yield next(batches)
            bar.update()


def _record(
    history: History, terms: dict[str, Tensor], loss: Tensor, step: int, batch: tuple[Tensor, ...]
) -> None:
    """Appends this step's terms to the history, or raises FloatingPointError for one that is not finite."""
    values = {name: term.item() for name, term in terms.items()} | {"loss": loss.item()}
    for name, value in values.items():
        if not math.isfinite(value):
            bad = [
                i
                for i, tensor in enumerate(batch)
                if tensor.is_floating_point() and not tensor.isfinite().all()
            ]
            cause = f"; not finite in the batch itself: tensor {bad}" if bad else ""
            raise FloatingPointError(f"step {step}: the term {name!r} is {value}{cause}")
    for name, value in values.items():
        history.setdefault(name, []).append(value)
