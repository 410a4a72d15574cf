"""How networks are called in a step, and how another network is called in the same way."""

from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from typing import Any, NamedTuple

from torch import Tensor, nn

from kdutils._trees import Path, map_tensors, replace_tensors, tensors_in


class Call(NamedTuple):
    """One call of a module in a step; copies of what it was given and of what it returned."""

    module: nn.Module
    args: tuple[Any, ...]
    kwargs: dict[str, Any]
    output: Any
    times: int  # calls of this module so far, this one included

    def answers(self, num_samples: int) -> dict[Path, Tensor]:
        """Floating-point tensors of the output with a row per sample, by path; what is named logits first."""
        found = {
            path: tensor
            for path, tensor in tensors_in(self.output).items()
            if tensor.is_floating_point() and 1 <= tensor.dim() <= 3 and len(tensor) == num_samples
        }
        return dict(sorted(found.items(), key=lambda item: "logits" not in item[0]))


class Pattern(NamedTuple):
    """A way of calling a network: arguments, and which of their tensors come from the batch."""

    module: nn.Module  # the one that was called like this
    arguments: tuple[tuple[Any, ...], dict[str, Any]]
    sources: dict[Path, Path]  # from a tensor within the arguments to one of the batch

    def call(self, network: nn.Module, tensors: Mapping[Path, Tensor]) -> Any:
        """What a network returns when it is called in this way, with tensors of the batch."""
        # copies: the network may work in place
        replacements = {path: tensors[source].clone() for path, source in self.sources.items()}
        args, kwargs = replace_tensors(self.arguments, replacements)
        return network(*args, **kwargs)

    def keywords(self, source: Path) -> list[str]:
        """Keywords under which a tensor of the batch is passed."""
        return [path[1] for path, from_batch in self.sources.items() if from_batch == source and path[0] == 1]


def outermost_calls(networks: Iterable[nn.Module], step: Callable[[], Any]) -> dict[nn.Module, list[Call]]:
    """Runs a step; the calls of each network, or of its parts where it is not called as a whole.

    A network inside another counts for itself only.
    """
    networks = list(dict.fromkeys(networks))
    calls: dict[nn.Module, list[Call]] = {network: [] for network in networks}
    with ExitStack() as stack:
        for network in networks:
            inner = {m for other in networks if other is not network for m in other.modules()}
            own = [module for module in network.modules() if module not in inner or network in inner]
            stack.enter_context(_recording(own, calls[network]))
        step()
    return calls


@contextmanager
def _recording(modules: list[nn.Module], calls: list[Call]) -> Iterator[None]:
    """Appends the calls of modules that happen inside no other call of one of them."""
    running: list[Any] = []

    def enter(module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        running.append(_copied((args, kwargs)) if not running else None)

    def leave(module: nn.Module, args: Any, kwargs: Any, output: Any) -> None:
        given = running.pop()
        if given is not None:
            times = 1 + sum(call.module is module for call in calls)
            calls.append(Call(module, given[0], given[1], _copied(output), times))

    with hooked(modules, enter, leave):
        yield


@contextmanager
def hooked(
    modules: Iterable[nn.Module],
    before: Callable[..., Any] | None = None,
    after: Callable[..., Any] | None = None,
) -> Iterator[None]:
    """Forward hooks on modules while the block lasts.

    Args:
        modules: The modules.
        before: A hook of (module, args, kwargs); it may return other (args, kwargs).
        after: A hook of (module, args, kwargs, output); it may return another output.
    """
    with ExitStack() as stack:
        for module in modules:
            if before is not None:
                handle = module.register_forward_pre_hook(before, with_kwargs=True)
                stack.callback(handle.remove)
            if after is not None:
                handle = module.register_forward_hook(after, with_kwargs=True)
                stack.callback(handle.remove)
        yield


def pattern_of(calls: list[Call], tensors: Mapping[Path, Tensor]) -> Pattern | None:
    """The way in which a network is called with the batch; None if it is not called.

    Of several calls the first that is given a tensor of the batch, or one of the same shape and dtype, such
    as an augmented one; the first of all if there is none.
    """
    patterns = [_pattern(call, tensors) for call in calls]
    return next((pattern for pattern in patterns if pattern.sources), next(iter(patterns), None))


def _pattern(call: Call, tensors: Mapping[Path, Tensor]) -> Pattern:
    arguments = (call.args, call.kwargs)
    given = {path: tensor for path, tensor in tensors_in(arguments).items() if tensor.dim() > 0}
    alike = {path: [place for place in tensors if _same_kind(tensors[place], t)] for path, t in given.items()}
    sources: dict[Path, Path] = {}
    for path, tensor in given.items():  # first what is equal, so that it is taken for nothing else
        equal = [place for place in alike[path] if tensors[place].equal(tensor)]
        sources |= {path: equal[0]} if equal else {}
    for path in given:
        free = [place for place in alike[path] if place not in sources.values()]
        sources |= {path: free[0]} if free and path not in sources else {}
    return Pattern(call.module, arguments, sources)


def _same_kind(tensor: Tensor, other: Tensor) -> bool:
    return tensor.shape == other.shape and tensor.dtype == other.dtype


def _copied(value: Any) -> Any:
    return map_tensors(lambda tensor: tensor.detach().clone(), value)
