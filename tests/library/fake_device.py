"""A second device made of the CPU: `with second_device():` tensors can be sent to `DEVICE`, and back.

There they compute as on the CPU, but are no CPU tensors any more: PyTorch sees its device "meta", and what
mixes the two raises, as with a GPU.
"""

import contextlib
import importlib
from collections.abc import Iterator
from typing import Any
from unittest import mock

import torch
from torch import Tensor
from torch.utils._foreach_utils import _get_fused_kernels_supported_devices
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_flatten, tree_map_only

DEVICE = torch.device("meta")
MAY_MIX = {"copy_", "index", "index_put_", "_index_put_impl_"}  # a copy, and an index on the CPU


class Far(Tensor):
    """A tensor on the second device; its numbers are those of a CPU tensor, `near`."""

    near: Tensor

    @staticmethod
    def __new__(cls, near: Tensor) -> "Far":
        settings = {"strides": near.stride(), "dtype": near.dtype, "device": DEVICE}
        far = Tensor._make_wrapper_subclass(cls, near.shape, **settings)
        far.near = near
        return far

    @classmethod
    def __torch_dispatch__(cls, op: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        return computed(op, args, kwargs or {})


class SecondDevice(TorchDispatchMode):
    def __torch_dispatch__(self, op: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        return computed(op, args, kwargs or {})


def computed(op: Any, args: Any, kwargs: Any) -> Any:
    """What an operation returns, on the device of its tensors or the one that it names."""
    tensors = [leaf for leaf in tree_flatten((args, kwargs))[0] if isinstance(leaf, Tensor)]
    far = [tensor for tensor in tensors if isinstance(tensor, Far)]
    near = [tensor for tensor in tensors if not isinstance(tensor, Far) and tensor.dim() > 0]
    if far and near and op.overloadpacket.__name__ not in MAY_MIX:
        raise RuntimeError(f"{op}: expected all tensors on one device, found the second device and the CPU")
    device = kwargs.get("device")
    stays = bool(far) if device is None else device == DEVICE
    if device == DEVICE:
        kwargs = kwargs | {"device": torch.device("cpu")}
    args, kwargs = tree_map_only(Far, lambda tensor: tensor.near, (args, kwargs))
    result = op(*args, **kwargs)
    # an operation in place returns the tensor that it was given
    given = {id(tensor.near): tensor for tensor in far}

    def placed(tensor: Tensor) -> Tensor:
        if id(tensor) in given:
            return given[id(tensor)]
        return Far(tensor) if stays else tensor

    return tree_map_only(Tensor, placed, result)


@contextlib.contextmanager
def second_device() -> Iterator[None]:
    """While it lasts, `DEVICE` computes; AdamW's fused kernel and autocast take it for one that they know."""
    fused = [*_get_fused_kernels_supported_devices(), DEVICE.type]
    autocast = torch.autocast
    # by its name: torch.optim hides this module of its own
    optimizers = importlib.import_module("torch.optim.optimizer")

    def autocast_there(kind: str, **settings: Any) -> torch.autocast:
        return autocast("cpu" if kind == DEVICE.type else kind, **settings)

    with (
        mock.patch.object(optimizers, "_get_fused_kernels_supported_devices", lambda: fused),
        mock.patch("torch.autocast", autocast_there),
        SecondDevice(),
    ):
        yield
