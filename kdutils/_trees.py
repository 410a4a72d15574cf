"""Tensors inside tuples, lists, dicts and dataclasses, as loaders and models return them."""

import copy
import dataclasses
from collections.abc import Callable, Mapping
from typing import Any

from torch import Tensor

Path = tuple[Any, ...]  # indices, keys and field names, from the outermost container to the tensor


def tensors_in(value: Any, path: Path = ()) -> dict[Path, Tensor]:
    """All tensors in a nested value, by their path; a bare tensor has the empty path."""
    if isinstance(value, Tensor):
        return {path: value}
    found: dict[Path, Tensor] = {}
    for key, part in _parts(value).items():
        found |= tensors_in(part, (*path, key))
    return found


def leaves_of(value: Any) -> list[Any]:
    """Everything in a nested value that is no container."""
    parts = _parts(value)
    if not parts and not isinstance(value, (tuple, list, Mapping)):
        return [value]
    return [leaf for part in parts.values() for leaf in leaves_of(part)]


def map_tensors(change: Callable[[Tensor], Tensor], value: Any) -> Any:
    """The nested value with every tensor changed; anything else in it is left as it is."""
    if isinstance(value, Tensor):
        return change(value)
    return _with_parts(value, {key: map_tensors(change, part) for key, part in _parts(value).items()})


def replace_tensors(value: Any, replacements: Mapping[Path, Tensor]) -> Any:
    """The nested value with other tensors at the given paths."""
    if () in replacements:
        return replacements[()]
    inner: dict[Any, dict[Path, Tensor]] = {}
    for (key, *rest), tensor in replacements.items():
        inner.setdefault(key, {})[tuple(rest)] = tensor
    parts = _parts(value)
    return _with_parts(value, {key: replace_tensors(parts[key], inner[key]) for key in inner})


def _parts(value: Any) -> dict[Any, Any]:
    """What a container holds, by index, key or field name; empty for anything else."""
    if isinstance(value, Mapping):  # a ModelOutput of transformers is one, and a dataclass, too
        return dict(value)
    if isinstance(value, (tuple, list)):
        return dict(enumerate(value))
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {field.name: getattr(value, field.name) for field in dataclasses.fields(value)}
    return {}


def _with_parts(value: Any, parts: Mapping[Any, Any]) -> Any:
    """A copy of the container with some of its parts exchanged."""
    if not parts:
        return value
    if isinstance(value, (tuple, list)):
        items = [parts.get(index, item) for index, item in enumerate(value)]
        return type(value)(*items) if hasattr(value, "_fields") else type(value)(items)
    copied = copy.copy(value)
    for key, part in parts.items():
        if isinstance(value, Mapping):
            copied[key] = part
        else:
            object.__setattr__(copied, key, part)  # frozen dataclasses, too
    return copied
