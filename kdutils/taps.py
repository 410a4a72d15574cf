"""Activations inside a network, recorded without changing it."""

import difflib
import sys
from collections.abc import Callable, Mapping, Sequence

import torch
from torch import Tensor, fx, nn
from torch.autograd.function import FunctionCtx
from torch.nn.parallel import DataParallel, DistributedDataParallel
from torch.utils.hooks import RemovableHandle


class FeatureTap:
    """Context manager that records what named layers of a model return, by forward hooks.

        with FeatureTap(student, {"early": "stages.0", "late": "stages.2"}) as tap:
            logits = student(images)
        loss = at_loss(tap["late"], teacher_features)

    `tap[name]` is the tensor that the layer returned in its last call, inside the block or after it. It
    carries gradients, and it is a copy: an in-place ReLU or `+=` further on does not reach it. Leaving the
    block removes the hooks, also when an exception leaves it.

    Several calls: for a head that one forward pass calls several times, `tap.calls(name)` is the list of all
    its answers. For two views of a batch in two forward passes, read the tap after each of them.

    Several devices: what DataParallel spread over its devices comes back as one batch, in order, on the first
    of them. With DistributedDataParallel wrap what you train one by one, in a ModuleDict, and tap the network
    in it. In this way gradients are averaged over the processes, of the regressor as well:

        student = nn.ModuleDict({"net": DDP(net), "regressor": DDP(regressor)})
        with FeatureTap(student["net"], {"hint": "stages.1"}) as tap:
            logits = student["net"](images)
        loss = hint_loss(student["regressor"](tap["hint"]), teacher_features)

    A DistributedDataParallel around the ModuleDict, or calls that go to its `.module`, average nothing, and
    the processes drift apart without a word.

    Compiled models: tap the module that you call, be it `torch.compile`'s result or a model after its
    `compile()`, and let its first call happen inside the block: PyTorch ignores hooks in code compiled
    without them. To tap it at any time, set `torch._dynamo.config.skip_nnmodule_hook_guards = False` before
    the first call.

    Args:
        model: Any module that is called.
        layers: From a name of your choice to the path of a layer, as `named_modules()` spells it; in
            DataParallel, DistributedDataParallel and a compiled module, the path within the wrapped model.

    Raises:
        ValueError: For arguments of another kind, and a path that does not exist, with the nearest that does.
            For a `ModuleDict` or `ModuleList`, which is never called itself. For a layer inside a scripted,
            traced or exported module: it runs there without its hooks.
        TypeError: From the forward pass, for a layer that returns anything but a tensor.
        RuntimeError: From the forward pass, for a layer that runs inside an autograd Function, as it does in
            checkpointing with `use_reentrant=True`: what it returns there has no gradient. Also for a layer
            that DataParallel runs on several devices if the model inside was tapped instead of the whole.
    """

    def __init__(self, model: nn.Module, layers: Mapping[str, str]):
        if not isinstance(model, nn.Module) or isinstance(model, nn.ModuleDict | nn.ModuleList):
            raise ValueError(
                f"model: expected a module that is called, got a {type(model).__name__}: "
                "tap the network in it"
            )
        if not isinstance(layers, Mapping):
            raise ValueError(
                "layers: expected a dict from names of your choice to paths of layers, "
                f"got a {type(layers).__name__}"
            )
        inner, parallel = _unwrapped(model)
        # with its duplicates: a module that is registered at two places has two paths
        modules = dict(inner.named_modules(remove_duplicate=False))
        for name, path in layers.items():
            _require_path(name, path, inner, modules)
        self._model = model
        self._paths = dict(layers)
        self._layers = {name: modules[path] for name, path in layers.items()}
        self._is_parallel = parallel is not None
        self._device_ids: Sequence[int | None] = getattr(parallel, "device_ids", None) or [None]
        self._parts: dict[str, dict[int | None, list[Tensor]]] = {}
        self._ran_outside: set[str] = set()
        self._is_open = self._is_running = self._was_called = False
        self._asks_gradient = True
        self._hooks: list[RemovableHandle] = []

    def __enter__(self) -> "FeatureTap":
        self._is_open, self._was_called = True, False
        self._hooks.append(self._model.register_forward_pre_hook(_Hook(self._begin)))
        for name, layer in self._layers.items():
            self._hooks.append(layer.register_forward_hook(_Hook(self._recorder(name))))
        self._hooks.append(self._model.register_forward_hook(_Hook(self._end)))
        return self

    def __exit__(self, *exception: object) -> None:
        self._is_open = False
        for hook in self._hooks:
            hook.remove()
        self._hooks.clear()

    def __getitem__(self, name: str) -> Tensor:
        """What the layer returned in its last call.

        Raises:
            KeyError: For a name that was not given.
            RuntimeError: For a layer that the last forward pass did not reach.
        """
        return self._recorded(name)[-1]

    def calls(self, name: str) -> list[Tensor]:
        """What the layer returned in every call of the model's last forward pass, in order.

        Raises:
            KeyError: For a name that was not given.
            RuntimeError: For a layer that the last forward pass did not reach, or that has run outside of it.
        """
        outputs = self._recorded(name)
        if name in self._ran_outside:
            raise RuntimeError(
                f"the calls of {name!r} are not those of one forward pass: {self._paths[name]!r} ran "
                "outside of it, by another method than forward or in a backward pass through checkpoints. "
                "Call the model itself, and read the tap before the backward pass"
            )
        return outputs

    def _recorded(self, name: str) -> list[Tensor]:
        if name not in self._paths:
            raise KeyError(f"no layer is tapped as {name!r}, only as {sorted(self._paths)}")
        if name in self._parts:
            parts = self._parts[name]
            calls = zip(*parts.values(), strict=True)
            return [_in_batch_order(dict(zip(parts, call, strict=True)), self._device_ids) for call in calls]
        if not self._was_called:
            raise RuntimeError(
                f"nothing recorded for {name!r}: no forward pass of the tapped {type(self._model).__name__} "
                f"inside the `with` block has reached the layer {self._paths[name]!r}. "
                "A copy of the model, or a version of it that was compiled, traced or exported, is not tapped"
            )
        raise RuntimeError(
            f"nothing recorded for {name!r}: the last forward pass went around the layer "
            f"{self._paths[name]!r}, or ran code that was compiled outside of the `with` block and ignores "
            "hooks: call a compiled model inside the block first, or set "
            "torch._dynamo.config.skip_nnmodule_hook_guards = False before its first call"
        )

    def _begin(self, module: nn.Module, output: object) -> None:
        if _is_only_traced():
            return
        self._asks_gradient = torch.is_grad_enabled() or _is_in_function()
        # a layer that this forward pass goes around must not answer with features of an earlier batch
        self._parts.clear()
        self._ran_outside.clear()
        self._is_running = self._was_called = True

    def _end(self, module: nn.Module, output: object) -> None:
        self._is_running = False

    def _loses_gradient(self) -> bool:
        """Whether a gradient is asked for, but not recorded where the layer runs."""
        return (
            self._asks_gradient
            and not torch.is_grad_enabled()
            and _is_in_function()  # false while Dynamo traces this code: it must not come upon the model
            and any(parameter.requires_grad for parameter in self._model.parameters())
        )

    def _recorder(self, name: str) -> Callable[[nn.Module, object], None]:
        def record(module: nn.Module, output: object) -> None:
            # compiled code keeps the hooks of its first call: out of the block they must do nothing
            if not self._is_open or _is_only_traced():
                return
            if not isinstance(output, Tensor):
                raise TypeError(
                    f"layer {self._paths[name]!r} returns a {type(output).__name__}, not a tensor: "
                    "tap a layer inside it"
                )
            if getattr(module, "_is_replica", False) and not self._is_parallel:
                raise RuntimeError(
                    "DataParallel split the batch: tap the DataParallel model, not the one inside"
                )
            if self._loses_gradient():
                raise RuntimeError(
                    f"layer {self._paths[name]!r} runs inside an autograd Function, without gradient. "
                    "If that is a checkpoint with use_reentrant=True, use use_reentrant=False"
                )
            replica = output.device.index if self._is_parallel else None
            outputs = self._parts.setdefault(name, {}).setdefault(replica, [])
            if not self._is_running:
                outputs.clear()
                self._ran_outside.add(name)
            # copied because later layers may write into `output`, and copying costs next to nothing in a step
            outputs.append(output.clone())

        return record


class _Hook:
    """A hook that copies of the model carry without effect, and that is not saved with it."""

    def __init__(self, run: Callable[[nn.Module, object], None]):
        self._run = run

    def __call__(self, module: nn.Module, inputs: object, output: object = None) -> None:
        self._run(module, output)

    def __deepcopy__(self, memo: object) -> Callable[..., None]:
        return _do_nothing

    def __reduce__(self) -> str:
        raise RuntimeError("leave the `with FeatureTap` block before you save the model: it holds its hooks")


def _do_nothing(*arguments: object) -> None:
    pass


def _unwrapped(model: nn.Module) -> tuple[nn.Module, DataParallel | None]:
    """The network inside DataParallel, DistributedDataParallel and `torch.compile`; the first, if any."""
    parallel = None
    while True:
        if isinstance(model, DataParallel):
            parallel = model
        if isinstance(model, DataParallel | DistributedDataParallel):
            model = model.module
        elif "_orig_mod" in model._modules:  # how a compiled module holds the original
            model = model.get_submodule("_orig_mod")
        else:
            return model, parallel


def _require_path(name: str, path: str, inner: nn.Module, modules: Mapping[str, nn.Module]) -> None:
    """Raises ValueError unless the path leads to a layer whose hooks fire."""
    if not isinstance(path, str):
        raise ValueError(
            f"layers[{name!r}]: expected the path of a layer as a string, got a {type(path).__name__}"
        )
    if path not in modules:
        nearest = difflib.get_close_matches(path, modules, n=1, cutoff=0.0)
        raise ValueError(
            f"layers[{name!r}]: expected the path of a layer of {type(inner).__name__}, "
            f"got {path!r}; the nearest is {nearest[0]!r}"
        )
    steps = path.split(".") if path else []
    for count in range(len(steps) + 1):
        outer, rest = modules[".".join(steps[:count])], ".".join(steps[count:])
        if isinstance(outer, torch.jit.ScriptModule) or _has_inlined(outer, rest):
            raise ValueError(
                f"layers[{name!r}]: expected a layer whose hooks run, got {path!r}, which was scripted, "
                f"traced or exported with {type(outer).__name__}: tap the model that it was made from"
            )


def _has_inlined(module: nn.Module, path: str) -> bool:
    """Whether a graph module holds this part without calling it, as exported programs do."""
    if not path or not isinstance(module, fx.GraphModule):
        return False
    called = [str(node.target) for node in module.graph.nodes if node.op == "call_module"]
    return not any(path == target or path.startswith(f"{target}.") for target in called)


def _is_only_traced() -> bool:
    """Whether the forward pass that runs only draws up a graph, from tensors that are no features."""
    return torch.jit.is_tracing() or torch.compiler.is_exporting()


def _is_in_function() -> bool:
    """Whether this is called from the forward of an autograd Function, where no gradient is recorded."""
    if torch.compiler.is_compiling():
        return False
    frame = sys._getframe()
    while frame := frame.f_back:  # type: ignore[assignment]
        if frame.f_code.co_name == "forward" and frame.f_code.co_varnames:
            first = frame.f_code.co_varnames[0]
            if isinstance(frame.f_locals.get(first), FunctionCtx):
                return True
    return False


def _in_batch_order(parts: Mapping[int | None, Tensor], device_ids: Sequence[int | None]) -> Tensor:
    """One tensor from the parts that DataParallel dealt out to its devices in this order."""
    if len(parts) == 1:
        return next(iter(parts.values()))
    ordered = [parts[index] for index in device_ids if index in parts]
    return torch.cat([part.to(ordered[0].device) for part in ordered])
