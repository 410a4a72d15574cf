"""One training loop for every chapter, and a frozen model's knowledge computed once."""

import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from kdutils._modes import eval_mode
from kdutils._validate import require_count, require_positive
from kdutils.batches import batches as in_memory_batches

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
    teacher: None where its knowledge is cached in the batches. A module on the model's device is put in eval
    mode, run without gradient on the first tensor of every batch, and its output is appended to the batch.

    Optimizer: AdamW under PyTorch's one-cycle schedule (a quarter of the steps to warm up, then a cosine to
    zero; Adam's first beta falls from .95 to .85 and returns).
    Returns a dict of lists, one number a step: "loss", and one entry for every named term, NaN in the steps
    that were without it.
    Raises ValueError for steps < 1, lr <= 0, batches that run out, or a loss that is no scalar or depends on
    no trainable parameter; FloatingPointError, naming step and term, for a loss that is not finite (before it
    reaches the parameters; batch norm's running statistics have seen the batch already);
    TrainingInterrupted, with the history so far, on an interrupt.

    Source: Loshchilov and Hutter 2019 (AdamW); Smith and Topin 2018 (one-cycle schedule).
    """
    from tqdm import tqdm

    require_positive("lr", lr)
    require_count("steps", steps)
    # One fused kernel updates all parameters: a tenth of a small student's step on a CPU.
    optimizer = torch.optim.AdamW(model.parameters(), lr=lr, weight_decay=weight_decay, fused=True)
    # The last step would have a rate of zero, hence + 1; under 5 the scheduler can divide by zero.
    schedule = torch.optim.lr_scheduler.OneCycleLR(
        optimizer, max_lr=lr, total_steps=max(steps + 1, 5), pct_start=0.25
    )
    device = next(model.parameters()).device
    if teacher is not None:
        teacher.eval()
    history: History = {}
    endless = _endless(batches)
    model.train()
    try:
        with tqdm(range(steps), unit="step", leave=False, delay=10) as progress:  # shown after ten seconds
            for step in progress:
                batch = tuple(tensor.to(device) for tensor in next(endless))
                if teacher is not None:
                    with torch.no_grad():
                        batch = (*batch, teacher(batch[0]))
                terms = _named_terms(loss_fn(model, *batch))
                first, *others = terms.values()
                loss = sum(others, start=first)
                values = {name: term.item() for name, term in (terms | {"loss": loss}).items()}
                _require_finite(values, step, batch, model)
                optimizer.zero_grad()
                loss.backward()
                optimizer.step()
                schedule.step()
                for name in history | values:
                    history.setdefault(name, [math.nan] * step).append(values.get(name, math.nan))
    except KeyboardInterrupt as interrupt:
        raise TrainingInterrupted(len(history.get("loss", [])), steps, history) from interrupt
    finally:
        model.eval()
    if not all(map(_is_finite, model.parameters())):
        raise FloatingPointError(
            f"step {steps - 1}: the loss is finite, its gradient is not: weights are spoiled"
        )
    return history


def predict(
    model: nn.Module,
    images: Tensor,
    forward: Callable[[Tensor], Any] | None = None,
    batch_size: int = 500,
    transform: Callable[[Tensor], Tensor] | None = None,
) -> Any:
    """What a frozen model says about images, computed once: logits (N, K), or whatever `forward` returns.

    model: put in eval mode while it runs, without gradient, on its own device; its mode is restored.
    images: (N, ...) on the CPU.   transform: what becomes of every batch first, normalizing pixels, say.
    forward: None for the model itself; else a function of a batch of images that returns a tensor or a tuple
    of tensors with N as first dimension, such as `model.embed`.
    Returns a tensor, or a tuple of tensors, on the CPU, in the images' order.
    Raises ValueError for an empty set of images, and for what does not have an entry for every image.
    """
    if len(images) == 0:
        raise ValueError(f"images: expected at least one, got shape {tuple(images.shape)}")
    forward = model if forward is None else forward
    device = next(model.parameters(), images).device
    with torch.no_grad(), eval_mode(model):
        pieces = [
            forward(batch.to(device))
            for (batch,) in in_memory_batches(images, batch_size=batch_size, transform=transform)
        ]
    if isinstance(pieces[0], tuple):
        return tuple(_joined(column, len(images)) for column in zip(*pieces, strict=True))
    return _joined(pieces, len(images))


def _joined(pieces: Sequence[Tensor], num_images: int) -> Tensor:
    """What was said of all batches, one after another, on the CPU."""
    if not all(isinstance(piece, Tensor) for piece in pieces):
        raise ValueError(
            f"forward: expected a tensor or a tuple of tensors, got a {type(pieces[0]).__name__}"
        )
    joined = torch.cat([piece.cpu() for piece in pieces])
    if len(joined) != num_images:
        raise ValueError(
            f"forward: expected an entry for each of {num_images} images, got {tuple(joined.shape)}"
        )
    return joined


def _endless(batches: Iterable[tuple[Tensor, ...]]) -> Iterator[tuple[Tensor, ...]]:
    """Epoch after epoch of the batches, each with its own shuffle where the loader knows `set_epoch`."""
    batch_sampler = getattr(batches, "batch_sampler", None)
    places = (
        batches,
        getattr(batches, "sampler", None),
        batch_sampler,
        getattr(batch_sampler, "sampler", None),
    )
    shuffler: Any = next((place for place in places if hasattr(place, "set_epoch")), None)
    epoch = 0
    while True:
        if shuffler is not None:
            shuffler.set_epoch(epoch)
        empty = True
        for batch in batches:
            empty = False
            yield batch
        if empty:
            raise ValueError(
                f"batches: ran out in epoch {epoch}; expected a non-empty re-iterable (a list, a DataLoader, "
                "batches), not a generator that is used up"
            )
        epoch += 1


def _named_terms(result: Tensor | dict[str, Tensor]) -> dict[str, Tensor]:
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
    if not any(term.requires_grad for term in terms.values()):
        raise ValueError(
            "loss_fn: expected a loss that depends on a trainable parameter of the model, "
            "got one without gradient (all frozen, detached, or computed without gradient)"
        )
    return terms


def _require_finite(values: dict[str, float], step: int, batch: tuple[Tensor, ...], model: nn.Module) -> None:
    """Raises FloatingPointError, with the cause where it can be told, for a term that is not finite."""
    for name, value in values.items():
        if not math.isfinite(value):
            cause = ""
            if spoiled := [i for i, tensor in enumerate(batch) if not _is_finite(tensor)]:
                cause = f"; not finite in the batch itself: tensor {spoiled}"
            elif not all(map(_is_finite, model.parameters())):
                cause = "; the parameters are not finite: an earlier step's gradient was not"
            raise FloatingPointError(f"step {step}: the term {name!r} is {value}{cause}")


def _is_finite(value: Any) -> bool:
    return not isinstance(value, Tensor) or bool(value.isfinite().all())
