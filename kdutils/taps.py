"""Activations inside a network, recorded without changing it."""

import difflib
from collections.abc import Callable, Mapping, Sequence

import torch
from torch import Tensor, nn
from torch.nn.parallel import DataParallel, DistributedDataParallel
from torch.utils.hooks import RemovableHandle


class FeatureTap:
    """Context manager that records what named layers of a model return, by forward hooks.

        with FeatureTap(student, {"early": "stages.0", "late": "stages.2"}) as tap:
            logits = student(images)
        loss = at_loss(tap["late"], teacher_features)

    model: any module that is called. layers: from a name of your choice to the path of a layer, as
    `named_modules()` spells it; in DataParallel or DistributedDataParallel, the path within the wrapped
    model.

    `tap[name]` is the tensor that the layer returned in its last call, inside the block or after it. It
    carries gradients, and it is a copy: an in-place ReLU or `+=` further on does not reach it. What
    DataParallel spread over several devices comes back as one batch, in order, on the first of them.
    Leaving the block removes the hooks, also when an exception leaves it.

    Raises ValueError for a path that does not exist, with the nearest that does, and for a `ModuleDict` or
    `ModuleList`, which is never called itself: tap the network in it. Reading raises KeyError for
    a name that was not given and RuntimeError for a layer that the last forward pass did not reach. A layer
    that returns anything but a tensor raises TypeError as it runs; a layer that DataParallel runs on several
    devices, RuntimeError if the model inside was tapped instead of the whole.
    """

    def __init__(self, model: nn.Module, layers: Mapping[str, str]):
        if isinstance(model, nn.ModuleDict | nn.ModuleList):
            raise ValueError(
                f"model: expected a module that is called, got a {type(model).__name__}: "
                "tap the network in it"
            )
        inner = model.module if isinstance(model, DataParallel | DistributedDataParallel) else model
        modules = dict(inner.named_modules())
        for name, path in layers.items():
            if path not in modules:
                nearest = difflib.get_close_matches(path, modules, cutoff=0.0)[0]
                raise ValueError(
                    f"layers[{name!r}]: expected the path of a layer of {type(inner).__name__}, "
                    f"got {path!r}; the nearest is {nearest!r}"
                )
        self._model = model
        self._paths = dict(layers)
        self._layers = {name: modules[path] for name, path in layers.items()}
        self._parts: dict[str, dict[int | None, Tensor]] = {}
        self._hooks: list[RemovableHandle] = []

    def __enter__(self) -> "FeatureTap":
        self._hooks.append(self._model.register_forward_pre_hook(self._forget))
        for name, layer in self._layers.items():
            self._hooks.append(layer.register_forward_hook(self._recorder(name)))
        return self

    def __exit__(self, *exception: object) -> None:
        for hook in self._hooks:
            hook.remove()
        self._hooks.clear()

    def __getitem__(self, name: str) -> Tensor:
        if name not in self._paths:
            raise KeyError(f"no layer is tapped as {name!r}, only as {sorted(self._paths)}")
        if name not in self._parts:
            raise RuntimeError(
                f"nothing recorded for {name!r}: no forward pass inside the `with` block has reached the "
                f"layer {self._paths[name]!r}, or the last one went around it"
            )
        return _in_batch_order(self._parts[name], getattr(self._model, "device_ids", None) or [None])

    def _forget(self, module: nn.Module, inputs: object) -> None:
        # a layer that this forward pass goes around must not answer with features of an earlier batch
        self._parts.clear()

    def _recorder(self, name: str) -> Callable[[nn.Module, object, object], None]:
        def record(module: nn.Module, inputs: object, output: object) -> None:
            if not isinstance(output, Tensor):
                raise TypeError(
                    f"layer {self._paths[name]!r} returns a {type(output).__name__}, not a tensor: "
                    "tap a layer inside it"
                )
            if getattr(module, "_is_replica", False) and not isinstance(self._model, DataParallel):
                raise RuntimeError(
                    "DataParallel split the batch: tap the DataParallel model, not the one inside"
                )
            replica = output.device.index if isinstance(self._model, DataParallel) else None
            # copied because later layers may write into `output`, and copying costs next to nothing in a step
            self._parts.setdefault(name, {})[replica] = output.clone()

        return record


def _in_batch_order(parts: Mapping[int | None, Tensor], device_ids: Sequence[int | None]) -> Tensor:
    """One tensor from the parts that DataParallel dealt out to its devices in this order."""
    if len(parts) == 1:
        return next(iter(parts.values()))
    ordered = [parts[index] for index in device_ids if index in parts]
    return torch.cat([part.to(ordered[0].device) for part in ordered])
