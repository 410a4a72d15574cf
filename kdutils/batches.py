"""Tensors in memory as shuffled batches that two arms of an experiment share, and balanced subsets."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator

import torch
from torch import Tensor

from kdutils._validate import description, require_count


def batches(
    *tensors: Tensor,
    batch_size: int = 64,
    seed: int | None = None,
    transform: Callable[[Tensor], Tensor] | None = None,
) -> Batches:
    """Batches of tensors kept in memory, as a re-iterable of tuples.

    Two objects with the same seed yield the same sequence: that is what makes two arms of an experiment
    paired. The last batch may be smaller; no sample is dropped. Data sets go into PyTorch's `DataLoader`.

    Args:
        tensors: Any number of tensors of the same length N, on the CPU.
        batch_size: Samples in a batch.
        seed: None keeps the order; a number shuffles. `set_epoch(epoch)`, which `fit` calls, draws the next
            shuffle; iterating again without it repeats the same batches.
        transform: What becomes of the first tensor of every batch, the inputs: normalizing pixels, say.
            None leaves them as they are. The other tensors are never touched.

    Raises:
        ValueError: What is no tensor, tensors of different length, no sample, or a batch_size that is no
            whole number >= 1.
    """
    for tensor in tensors:
        if not isinstance(tensor, Tensor) or tensor.dim() == 0:
            raise ValueError(
                f"tensors: expected tensors with a dimension of samples, got {description(tensor)}; "
                "a data set goes into a DataLoader, torch.as_tensor makes a tensor of an array"
            )
    if not tensors or any(len(t) != len(tensors[0]) for t in tensors):
        raise ValueError(
            f"tensors: expected one or more of the same length, got lengths {[len(t) for t in tensors]}"
        )
    if len(tensors[0]) == 0:
        raise ValueError("tensors: expected at least one sample, got tensors of length 0")
    require_count("batch_size", batch_size)
    return Batches(tensors, batch_size, seed, transform)


class Batches:
    """Tuples of equally long pieces of the given tensors; see `batches`."""

    def __init__(
        self,
        tensors: tuple[Tensor, ...],
        batch_size: int,
        seed: int | None,
        transform: Callable[[Tensor], Tensor] | None = None,
    ):
        self.tensors, self.batch_size, self.seed, self.transform = tensors, batch_size, seed, transform
        self.epoch = 0

    def set_epoch(self, epoch: int) -> None:
        """Chooses the shuffle of the next iteration, as `torch.utils.data.DistributedSampler` does."""
        self.epoch = epoch

    def __len__(self) -> int:
        return math.ceil(len(self.tensors[0]) / self.batch_size)

    def __iter__(self) -> Iterator[tuple[Tensor, ...]]:
        size = len(self.tensors[0])
        if self.seed is None:
            order = torch.arange(size)
        else:
            # One shuffle per (seed, epoch), whoever iterates and however often: arms stay paired.
            generator = torch.Generator().manual_seed((self.seed + 1) * 1_000_003 + self.epoch)
            order = torch.randperm(size, generator=generator)
        for index in order.split(self.batch_size):
            inputs, *others = (tensor[index] for tensor in self.tensors)
            yield (inputs if self.transform is None else self.transform(inputs), *others)


def balanced_index(labels: Tensor, size: int, seed: int) -> Tensor:
    """Indices (size,) of a random subset with as many samples of every class, class after class.

    The same seed gives the same subset; it also picks cached knowledge: `teacher_logits[index]`.

    Args:
        labels: Shape (N,), class indices.
        size: A multiple of the number of classes present.
        seed: Of the draw.

    Raises:
        ValueError: A size that is no such multiple or more than the rarest class allows, or no labels.
    """
    if len(labels) == 0:
        raise ValueError("labels: expected at least one, got none")
    classes, counts = labels.unique(return_counts=True)
    largest = len(classes) * int(counts.min())
    if not 0 < size <= largest or size % len(classes):
        raise ValueError(f"size: expected a multiple of {len(classes)} up to {largest}, got {size}")
    per_class = size // len(classes)
    order = torch.randperm(len(labels), generator=torch.Generator().manual_seed(seed))
    return torch.cat([order[labels[order] == c][:per_class] for c in classes])
