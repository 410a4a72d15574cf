"""What a loader yields: copied to a device, taken apart into arguments, gone through epoch after epoch."""

from collections.abc import Iterable, Iterator, Mapping, Sized
from typing import Any

import torch
from torch import Tensor
from torch.utils.data import (
    BatchSampler,
    Dataset,
    IterableDataset,
    RandomSampler,
    SubsetRandomSampler,
    WeightedRandomSampler,
)

from kdutils._trees import map_tensors, tensors_in
from kdutils._validate import description
from kdutils.batches import Batches


def to_device(value: Any, device: torch.device, copy: bool = True) -> Any:
    """The batch with its tensors on the device, copied so that the loader's own data stay as they are."""
    if isinstance(value, Tensor):
        return value.to(device, copy=copy)
    if type(value) is tuple:  # as nearly every batch: less work than for any nesting
        return tuple([to_device(part, device, copy) for part in value])
    return map_tensors(lambda tensor: tensor.to(device, copy=copy), value)


def arguments_of(batch: Any) -> tuple[Any, ...]:
    """A tuple or list is unpacked; a tensor or a dict is one argument."""
    if isinstance(batch, Tensor | Mapping):
        return (batch,)
    if isinstance(batch, tuple | list):
        return tuple(batch)
    raise ValueError(
        f"batches: expected tensors, tuples, lists or dicts, got {description(batch)} as a batch"
    )


def is_data_set(value: Any) -> bool:
    """Whether it yields single samples by their index, as PyTorch's and Hugging Face's data sets do."""
    if isinstance(value, Dataset):
        return not isinstance(value, IterableDataset)
    by_index = hasattr(value, "__getitem__") and hasattr(value, "__len__") and not hasattr(value, "__iter__")
    return by_index or hasattr(value, "__getitems__")


def endless(batches: Iterable[Any]) -> Iterator[Any]:
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


def num_samples(batch: Any) -> int:
    """Length of a batch's first tensor; 0 where it has none."""
    first = next(iter(tensors_in(batch).values()), None)
    return 0 if first is None or first.dim() == 0 else len(first)


def samples_in(source: Any) -> int | None:
    """How many samples a tensor, a data set or a loader has; None where it does not say."""
    batch_sampler = getattr(source, "batch_sampler", None)
    if isinstance(source, Tensor) or is_data_set(source):
        return len(source)
    if isinstance(source, Batches):
        return len(source.tensors[0])
    if type(batch_sampler) is BatchSampler and isinstance(batch_sampler.sampler, Sized):
        return len(batch_sampler.sampler)
    return None


def size_of_last(batches: Any, steps: int) -> int | None:
    """Samples in the smaller batch that ends an epoch; None where there is none, or it is not known."""
    samples, size = samples_in(batches), getattr(_in_batches(batches), "batch_size", None)
    if isinstance(batches, list | tuple) and batches:
        size, last = num_samples(batches[0]), num_samples(batches[-1])
        samples = (len(batches) - 1) * size + last
    if not samples or not size or samples > steps * size or leaves_out(batches):
        return None
    return samples % size or None


def is_shuffled(loader: Any) -> bool:
    """Whether a loader is known to yield its samples in another order than that of its data."""
    places = (loader, getattr(loader, "batch_sampler", None))
    samplers = [getattr(place, "sampler", None) for place in places]
    draws = any(isinstance(s, RandomSampler | SubsetRandomSampler | WeightedRandomSampler) for s in samplers)
    return draws or (isinstance(loader, Batches) and loader.seed is not None)


def leaves_out(loader: Any) -> bool:
    """Whether a loader leaves out the samples that do not fill its last batch."""
    rule, samples = _in_batches(loader), samples_in(loader)
    return bool(getattr(rule, "drop_last", False) and samples and samples % rule.batch_size)


def _in_batches(loader: Any) -> Any:
    """What holds a loader's batch size: its batch sampler, or itself."""
    batch_sampler = getattr(loader, "batch_sampler", None)
    return batch_sampler if type(batch_sampler) is BatchSampler else loader
