"""Smaller weights: rounding to few bits, integers on disk, folded batch norm, pruned weights and channels.

Every function returns a new network and leaves the given one as it is. The quantized networks compute in
float32 with rounded numbers ("fake" quantization): what they lose in accuracy is real, their speed is not.
"""

import copy
import warnings
from collections import Counter
from collections.abc import Iterator, Mapping
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor, fx, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.utils import parametrize

from kdutils._modes import eval_mode
from kdutils._validate import require_count, require_finite, require_matrix

_CLIPPING_SHARES = torch.linspace(0.05, 1, 20).tolist()
_SPEED_OF_SCALES = 10.0  # how many times as far as a parameter a learned scale's logarithm moves in a step
_CONVOLUTIONS = (nn.Conv1d, nn.Conv2d, nn.Conv3d)


def integer_range(bits: int, signed: bool = True) -> tuple[int, int]:
    """The smallest and the largest integer of a grid of `bits` bits.

    Args:
        bits: From 2 to 8.
        signed: As many integers below zero as above (8 bits: -127 … 127), for weights. Otherwise from zero
            (8 bits: 0 … 255), for what a ReLU lets through.

    Raises:
        ValueError: For bits out of range.
    """
    require_count("bits", bits)
    if not 2 <= bits <= 8:
        raise ValueError(f"bits: expected a whole number from 2 to 8, got {bits}")
    return (1 - 2 ** (bits - 1), 2 ** (bits - 1) - 1) if signed else (0, 2**bits - 1)


def least_error_scale(rows: Tensor, bits: int, signed: bool = True) -> Tensor:
    """The scale, that is, the distance between neighbors of the grid, of least squared error for every row.

    Twenty scales are tried: the largest integer stands for a twentieth, two twentieths, …, all of the row's
    largest magnitude, and what lies beyond is clipped. A row of zeros gets the scale 1.

    Args:
        rows: (C, M), floating. Each row gets a scale of its own.
        bits: Of the grid, from 2 to 8.
        signed: See `integer_range`.

    Returns:
        Shape (C,).

    Raises:
        ValueError: For another shape or dtype, or numbers that are not finite.
    """
    low, high = integer_range(bits, signed)
    require_matrix("rows", rows)
    require_finite("rows", rows)
    largest = rows.abs().amax(dim=1)
    best_scale = largest / high
    least_error = torch.full_like(largest, torch.inf)
    for share in _CLIPPING_SHARES:
        scale = share * largest / high
        step = scale.unsqueeze(1)
        error = ((rows / step).round().clamp(low, high) * step - rows).square().mean(dim=1)
        best_scale = torch.where(error < least_error, scale, best_scale)
        least_error = torch.minimum(error, least_error)
    return torch.where(largest > 0, best_scale, 1.0)


class FakeQuantize(nn.Module):
    """Rounding to the nearest number of a grid, with the straight-through gradient.

    Called with values of any shape it returns the rounded values, same shape and dtype. The gradient passes
    unchanged where the value lies within the grid, and is zero where it was clipped. The grid's zero point is
    zero. The scale stays as it is until `learn_scales` makes it trainable.

    Args:
        scale: Distance between neighbors of the grid, > 0. (C,) for one scale per channel, which is the first
            dimension of what comes in; () for one scale for all.
        bits: Of the grid, from 2 to 8.
        signed: See `integer_range`.

    Raises:
        ValueError: For bits out of range, or a scale that is not finite and > 0.

    Source: Jacob et al. 2018, arXiv:1712.05877 (the grid, and simulating it in training); Bengio, Léonard and
    Courville 2013, arXiv:1308.3432 (the straight-through gradient); Esser et al. 2020, arXiv:1902.08153 (the
    gradient to the scale). Written out in notebook 08.
    """

    scale: Tensor
    zero_point: Tensor
    log_factor: nn.Parameter | None  # of a scale that is being learned, see `learn_scales`

    def __init__(self, scale: Tensor, bits: int, signed: bool = True):
        super().__init__()
        self.bits, self.signed = bits, signed
        self.low, self.high = integer_range(bits, signed)
        if not ((scale > 0) & scale.isfinite()).all():
            raise ValueError(f"scale: expected finite numbers > 0, got {float(scale.min())} as the smallest")
        # PyTorch's fake-quantize functions accept only a float32 scale
        self.register_buffer("scale", scale.detach().float().clone())
        # they ask for a zero point as well; being zero it need not be stored
        self.register_buffer("zero_point", torch.zeros_like(scale, dtype=torch.int32), persistent=False)
        self.register_parameter("log_factor", None)

    def forward(self, values: Tensor) -> Tensor:
        if self.log_factor is not None:
            scale = _per_row(self.learned_scale(), values).to(values.dtype)
            within = (values / scale).clamp(self.low, self.high)
            return (within + (within.round() - within).detach()) * scale
        if self.scale.dim() == 0:
            return torch.fake_quantize_per_tensor_affine(
                values, self.scale, self.zero_point, self.low, self.high
            )
        return torch.fake_quantize_per_channel_affine(
            values, self.scale, self.zero_point, 0, self.low, self.high
        )

    def learned_scale(self) -> Tensor:
        """The scale where it has been moved to, of the shape of `scale`, with its gradient."""
        if self.log_factor is None:
            return self.scale
        return self.scale * (_SPEED_OF_SCALES * self.log_factor).exp()

    def integers(self, values: Tensor) -> Tensor:
        """The grid's integers that stand for the values, same shape, int8 (uint8 where there is no sign).

        Raises:
            ValueError: For a scale that is being learned.
        """
        if self.log_factor is not None:
            raise ValueError(
                "scale: expected a fixed one, got one that is being learned; call fix_scales first"
            )
        # times the inverse, as PyTorch's function computes it: dividing could round to the other neighbor
        rounded = (values * (1 / _per_row(self.scale, values))).round().clamp(self.low, self.high)
        return rounded.to(torch.int8 if self.signed else torch.uint8)

    def extra_repr(self) -> str:
        return f"bits={self.bits}, signed={self.signed}"


def _per_row(scale: Tensor, values: Tensor) -> Tensor:
    """One scale for all as it is; (C,) shaped so that it goes with values (C, ...)."""
    return scale.reshape(-1, *[1] * (values.dim() - 1)) if scale.dim() else scale


def fake_quantize(network: nn.Module, bits: int, images: Tensor | None = None) -> nn.Module:
    """A copy whose weights, and with `images` also its activations, are rounded to `bits` bits.

    The weight of every `Linear`, every convolution that is not transposed and every `MultiheadAttention` is
    rounded, with one scale per output channel; an embedding that shares it is rounded with it. Given images,
    every ReLU inside an `nn.Sequential` is followed by a rounding, with one scale for all of its values.
    Biases and batch norm stay in float32. The scales are chosen by `least_error_scale`. They stay fixed:
    training the copy moves the weights under them, unless `learn_scales` trains them, too. A warning names
    other weights and ReLUs, which stay in float32.

    Args:
        network: Any module in floating point.
        bits: From 2 to 8.
        images: (N, ...) as the network takes them, a hundred or so. They run through it in eval mode.

    Raises:
        ValueError: For bits out of range, a network with no weight or no ReLU to round, a ReLU that the
            images do not reach, or weights or images that are not finite. For a network that has been rounded
            before, and weights that are computed from others, as by weight norm.
    """
    if any(isinstance(module, FakeQuantize) for module in network.modules()):
        raise ValueError("network: expected one that is not fake-quantized yet, got one that is")
    network = copy.deepcopy(network)
    for name, parameter in network.named_parameters():
        require_finite(f"network: {name}", parameter)
    if images is not None:
        _round_after_relu(network, bits, images)
    _round_weights(network, bits)
    for sentence in _what_stays(network, activations=images is not None):
        warnings.warn(sentence, stacklevel=2)
    return network


def learn_scales(network: nn.Module) -> nn.Module:
    """A copy of a fake-quantized network whose scales are parameters, trained with all others.

    What is trained is a tenth of the logarithm of a factor on each scale, from 0 on. So a scale stays
    positive, and a step of AdamW at the rate 0.001 changes it by up to 1%. Its gradient is that of LSQ: from
    the rounding of what lies within the grid, and from the grid's ends where values are clipped.
    `fix_scales` ends it.

    Raises:
        ValueError: For a network without a fixed scale.

    Source: Esser et al. 2020, arXiv:1902.08153, eq. 3, without its factor on the gradient, to which AdamW is
    indifferent. Written out in notebook 08.
    """
    network = copy.deepcopy(network)
    for quantizer in _quantizers(network, learned=False):
        quantizer.log_factor = nn.Parameter(torch.zeros_like(quantizer.scale))
    return network


def fix_scales(network: nn.Module) -> nn.Module:
    """A copy in which every scale has the value that it has learned, and stays: to be folded and stored.

    Raises:
        ValueError: For a network without a scale that is being learned.
    """
    network = copy.deepcopy(network)
    for quantizer in _quantizers(network, learned=True):
        quantizer.scale = quantizer.learned_scale().detach()
        quantizer.log_factor = None
    return network


def _quantizers(network: nn.Module, learned: bool) -> list[FakeQuantize]:
    all_of_them = [module for module in network.modules() if isinstance(module, FakeQuantize)]
    found = [quantizer for quantizer in all_of_them if (quantizer.log_factor is not None) == learned]
    if not found:
        kind = "is being learned (see `learn_scales`)" if learned else "is fixed (see `fake_quantize`)"
        raise ValueError(f"network: expected a scale that {kind}, got none")
    return found


def _round_weights(network: nn.Module, bits: int) -> None:
    quantizers: dict[int, FakeQuantize] = {}
    for path, module in network.named_modules():
        name = _weight_to_round(module)
        if name is None:
            continue
        weight = module._parameters.get(name)
        if weight is None:
            raise ValueError(
                f"network: expected {path}.{name} to be a parameter, got one that is computed from others; "
                "remove what computes it, such as weight norm"
            )
        scale = least_error_scale(weight.detach().flatten(1), bits)
        quantizers.setdefault(id(weight), FakeQuantize(scale, bits))
    if not quantizers:
        raise ValueError("network: expected at least one convolution or linear layer, got none")
    for module in list(network.modules()):
        for name, parameter in list(module.named_parameters(recurse=False)):
            if id(parameter) in quantizers:
                parametrize.register_parametrization(module, name, quantizers[id(parameter)])


def _weight_to_round(module: nn.Module) -> str | None:
    """The name of a layer's weight, with the output channels first."""
    if isinstance(module, nn.Linear | nn.Conv1d | nn.Conv2d | nn.Conv3d):
        return "weight"
    # without it, queries, keys and values have weights of their own: other widths, rare
    return "in_proj_weight" if getattr(module, "in_proj_weight", None) is not None else None


def _round_after_relu(network: nn.Module, bits: int, images: Tensor) -> None:
    require_finite("images", images)
    places: list[tuple[nn.Sequential, int, nn.ReLU]] = []
    for sequential in [module for module in network.modules() if isinstance(module, nn.Sequential)]:
        for index, child in enumerate(sequential):
            if isinstance(child, nn.ReLU):
                # one ReLU may stand at two places, and each of them needs a scale of its own
                sequential[index] = relu = copy.deepcopy(child)
                places.append((sequential, index, relu))
    if not places:
        raise ValueError("network: expected at least one nn.ReLU inside an nn.Sequential, got none")
    scales: dict[nn.Module, Tensor] = {}

    def note(relu: nn.Module, _: tuple, output: Tensor) -> None:
        scale = least_error_scale(output.reshape(1, -1), bits, signed=False).squeeze(0)
        scales[relu] = torch.maximum(scale, scales.get(relu, scale))

    hooks = [relu.register_forward_hook(note) for _, _, relu in places]
    with torch.no_grad(), eval_mode(network):
        network(images)
    for hook in hooks:
        hook.remove()
    if len(scales) < len(places):
        raise ValueError("network: expected a forward pass through every nn.ReLU, it went around one")
    for sequential, index, relu in places:
        # in the ReLU's own place: a network may call the parts of its Sequentials by their index
        sequential[index] = nn.Sequential(relu, FakeQuantize(scales[relu], bits, signed=False))


def _what_stays(network: nn.Module, activations: bool) -> Iterator[str]:
    """A sentence on the weights that are not rounded, and one on the ReLUs that no rounding follows."""
    parameters = dict(network.named_parameters())
    rounded = {key for key, _ in _weight_quantizers(network)}
    if stay := [name for name, weight in parameters.items() if weight.dim() > 1 and name not in rounded]:
        share = sum(parameters[name].numel() for name in stay) / sum(p.numel() for p in parameters.values())
        yield f"network: {share:.0%} of the parameters stay in float32, in weights of {_listed(stay)}"
    paths = dict(network.named_modules())
    relus = [path for path, module in paths.items() if isinstance(module, nn.ReLU | nn.ReLU6)]
    parents = {path: paths[path.rpartition(".")[0]] for path in relus}
    stay = [path for path in relus if not any(isinstance(m, FakeQuantize) for m in parents[path].children())]
    if activations and stay:
        yield f"network: activations stay in float32 after {_listed(stay)}: no nn.ReLU in an nn.Sequential"


def _listed(names: list[str]) -> str:
    rest = f" and {len(names) - 4} more" if len(names) > 4 else ""
    return ", ".join(names[:4]) + rest


def fold_batch_norm(network: nn.Module) -> nn.Module:
    """A copy, in eval mode, in which every batch norm is folded into the convolution before it.

    In eval mode a batch norm multiplies every channel by a number and adds another, so that both can be part
    of the convolution's weight and bias. The copy gives the same output, up to float32's rounding, with fewer
    operations. A weight that is fake-quantized keeps its integers, up to the sign of a channel: only its
    scales change. An activation that is fake-quantized, and lies between two numbers of its grid, may be
    rounded to the other one.

    What comes directly before a batch norm is read off a symbolic trace of the network. Where its forward
    cannot be traced, neighbors in an `nn.Sequential` are taken for pairs. A folded batch norm is taken out of
    a Sequential that is called as a whole, and is an `nn.Identity` elsewhere. A warning names those that
    stay, because no convolution comes directly before them, or one that is used at other places, too.

    Args:
        network: Any module with one- to three-dimensional convolutions.

    Raises:
        ValueError: For a batch norm behind a convolution that has no running statistics.

    Source: Jacob et al. 2018, arXiv:1712.05877, sec. 3.2. Written out in notebook 08.
    """
    network = copy.deepcopy(network).eval()
    trace = _Trace.of(network)
    pairs = list(_pairs(network, trace))
    whole = trace.called_as_a_whole() if trace is not None else set()
    superfluous: list[tuple[nn.Sequential, int]] = []
    for conv_path, norm_path in pairs:
        _fold(network.get_submodule(conv_path), network.get_submodule(norm_path))
        network.set_submodule(norm_path, nn.Identity())
        parent_path, _, name = norm_path.rpartition(".")
        parent = network.get_submodule(parent_path)
        if isinstance(parent, nn.Sequential) and parent in whole:
            superfluous.append((parent, int(name)))
    for parent, index in reversed(superfluous):
        del parent[index]
    if stay := [path for path, module in network.named_modules() if isinstance(module, _BatchNorm)]:
        warnings.warn(
            f"network: {len(stay)} batch norms stay, without a convolution of their own before them: "
            f"{_listed(stay)}",
            stacklevel=2,
        )
    return network


class _Trace(fx.Tracer):
    """What a network calls, in order, and how often it calls each part."""

    def __init__(self) -> None:
        super().__init__()
        self.calls: Counter[nn.Module] = Counter()

    @classmethod
    def of(cls, network: nn.Module) -> "_Trace | None":
        """None for a network whose forward cannot be traced, as it depends on the values that it gets."""
        trace = cls()
        trace.calls[network] += 1
        try:
            trace.trace(network)
        except Exception:  # whatever a forward raises that is called with proxies in place of tensors
            return None
        return trace

    def is_leaf_module(self, module: nn.Module, path: str) -> bool:
        """Whether a module is one step of the trace; see `torch.fx.Tracer`."""
        own = (*_CONVOLUTIONS, _BatchNorm, FakeQuantize)
        return isinstance(module, own) or super().is_leaf_module(module, path)

    def call_module(self, module: nn.Module, forward: Any, args: Any, kwargs: Any) -> Any:
        """Notes a call of a module; see `torch.fx.Tracer`."""
        self.calls[module] += 1
        if isinstance(module, nn.Sequential):  # a slice of one is no part of the network and has no path
            return forward(*args, **kwargs)
        return super().call_module(module, forward, args, kwargs)

    def called_as_a_whole(self) -> set[nn.Module]:
        """Sequentials none of whose parts is called by its own name, by its index, by a slice or twice."""
        return {
            module
            for module in self.calls
            if isinstance(module, nn.Sequential)
            and all(name.isdigit() for name in module._modules)
            and all(self.calls[part] == 1 for part in (module, *module))
        }


def _pairs(network: nn.Module, trace: _Trace | None) -> Iterator[tuple[str, str]]:
    """Paths of the convolutions that a batch norm follows and nothing else, and of that batch norm."""
    modules = dict(network.named_modules(remove_duplicate=False))
    if trace is None:
        places = Counter(modules.values())
        for path, module in modules.items():
            if isinstance(module, nn.Sequential):
                for (first, conv), (second, norm) in pairwise(module._modules.items()):
                    if _can_be_folded(conv, norm) and places[conv] == places[norm] == 1:
                        yield f"{path}.{first}".lstrip("."), f"{path}.{second}".lstrip(".")
        return
    for node in trace.graph.nodes:
        before = node.args[0] if node.op == "call_module" and node.args else None
        if not isinstance(before, fx.Node) or before.op != "call_module" or len(before.users) > 1:
            continue
        conv, norm = modules[str(before.target)], modules[str(node.target)]
        if _can_be_folded(conv, norm) and trace.calls[conv] == trace.calls[norm] == 1:
            yield str(before.target), str(node.target)


def _can_be_folded(conv: nn.Module | None, norm: nn.Module | None) -> bool:
    """Whether these are a convolution, with a weight that can be changed, and a batch norm."""
    return (
        isinstance(conv, _CONVOLUTIONS)
        and isinstance(norm, _BatchNorm)
        and ("weight" in conv._parameters or _quantizer(conv, "weight") is not None)
    )


@torch.no_grad()
def _fold(conv: Any, norm: Any) -> None:
    if norm.running_mean is None or norm.running_var is None:
        raise ValueError("network: expected a batch norm with running statistics, got one without")
    factor = (norm.running_var + norm.eps).rsqrt()
    shift = -norm.running_mean
    if conv.bias is not None:
        shift = shift + conv.bias
    bias = shift * factor
    if norm.affine:
        factor, bias = factor * norm.weight, bias * norm.weight + norm.bias
    conv.bias = nn.Parameter(bias, requires_grad=conv.weight.requires_grad)
    weight: Tensor = conv.weight
    if parametrize.is_parametrized(conv, "weight"):
        weight, quantizer = rounded_weight(conv)
        # where the factor is zero all integers become zero, and then any scale will do: it stays as it is
        quantizer.scale.mul_(torch.where(factor == 0, torch.ones_like(factor), factor.abs()))
    weight.mul_(factor.reshape(-1, *[1] * (weight.dim() - 1)))


def pack_integers(integers: Tensor, bits: int) -> Tensor:
    """Bytes, uint8, that hold the signed integers of a `bits`-bit grid one after another without gaps.

    Args:
        integers: Any shape, int8.
        bits: From 2 to 8.

    Raises:
        ValueError: For integers outside the grid, or another dtype.
    """
    low, high = integer_range(bits)
    if integers.dtype != torch.int8:
        raise ValueError(f"integers: expected int8, got {integers.dtype}")
    if integers.numel() and not low <= int(integers.min()) <= int(integers.max()) <= high:
        raise ValueError(
            f"integers: expected {low} … {high}, got {int(integers.min())} … {int(integers.max())}"
        )
    unsigned = integers.flatten().to(torch.int16) - low
    digits = (unsigned.unsqueeze(1) >> torch.arange(bits, device=integers.device)) & 1  # (M, bits)
    digits = nn.functional.pad(digits.flatten(), (0, -digits.numel() % 8)).reshape(-1, 8)
    return (digits << torch.arange(8, device=digits.device)).sum(dim=1).to(torch.uint8)


def unpack_integers(content: Tensor, bits: int, shape: torch.Size | tuple[int, ...]) -> Tensor:
    """The integers, int8, of the given shape that `pack_integers` put into bytes.

    Raises:
        ValueError: Where the number of bytes does not belong to that shape.
    """
    low, _ = integer_range(bits)
    count = torch.Size(shape).numel()
    if content.shape != (-(-count * bits // 8),):
        raise ValueError(
            f"content: expected {-(-count * bits // 8)} bytes for shape {tuple(shape)} of {bits} bits, "
            f"got shape {tuple(content.shape)}"
        )
    digits = (content.to(torch.int16).unsqueeze(1) >> torch.arange(8, device=content.device)) & 1
    digits = digits.flatten()[: count * bits].reshape(count, bits)
    return (
        ((digits << torch.arange(bits, device=digits.device)).sum(dim=1) + low).to(torch.int8).reshape(shape)
    )


def packed_state(network: nn.Module) -> dict[str, Tensor]:
    """The state of a fake-quantized network as it is stored: weights as packed integers, the rest as it is.

    What `safetensors.torch.save_file` takes: of names that share a tensor, as tied weights do, only the first
    is in it. `load_packed_state` reads it.

    Raises:
        ValueError: For a network without fake-quantized weights.
    """
    quantizers = dict(_weight_quantizers(network))
    if not quantizers:
        raise ValueError("network: expected fake-quantized weights (see `fake_quantize`), got none")
    state = network.state_dict()
    first_names = _first_names(network)
    return {
        key: pack_integers(quantizers[key].integers(tensor), quantizers[key].bits)
        if key in quantizers
        else tensor
        for key, tensor in state.items()
        if first_names[key] == key
    }


def load_packed_state(network: nn.Module, state: Mapping[str, Tensor]) -> None:
    """Fills a network, built as the stored one was, with what `packed_state` returned.

    Raises:
        ValueError: Where the bytes do not fit, and for a network without fake-quantized weights.
        RuntimeError: PyTorch's, where names or shapes do not.
    """
    quantizers = dict(_weight_quantizers(network))
    if not quantizers:
        raise ValueError("network: expected fake-quantized weights (see `fake_quantize`), got none")
    shapes = {key: tensor.shape for key, tensor in network.state_dict().items() if key in quantizers}
    state = dict(state)
    for key, quantizer in quantizers.items():
        scale = state.get(key.removesuffix("original") + "0.scale")
        if key in state and scale is not None:
            integers = unpack_integers(state[key], quantizer.bits, shapes[key])
            state[key] = integers * scale.reshape(-1, *[1] * (integers.dim() - 1))
    for key, first in _first_names(network).items():
        if first in state:
            state.setdefault(key, state[first])
    network.load_state_dict(state)


def _first_names(network: nn.Module) -> dict[str, str]:
    """From every name in the network's state to the first one of the same tensor."""
    state = network.state_dict(keep_vars=True)
    first: dict[int, str] = {}
    return {key: first.setdefault(id(tensor), key) for key, tensor in state.items()}


def rounded_weight(layer: nn.Module) -> tuple[Tensor, FakeQuantize]:
    """A layer's weight in full precision, and what rounds it."""
    quantizer = _quantizer(layer, "weight")
    assert quantizer is not None and isinstance(layer.parametrizations, nn.ModuleDict)
    weight = layer.parametrizations["weight"].original
    assert isinstance(weight, Tensor)
    return weight, quantizer


def _quantizer(layer: nn.Module, name: str) -> FakeQuantize | None:
    """What rounds a layer's weight, if that is all that computes it."""
    if not parametrize.is_parametrized(layer, name):
        return None
    assert isinstance(layer.parametrizations, nn.ModuleDict)
    steps = list(layer.parametrizations[name].children())
    return steps[0] if len(steps) == 1 and isinstance(steps[0], FakeQuantize) else None


def _weight_quantizers(network: nn.Module) -> Iterator[tuple[str, FakeQuantize]]:
    """The state's key of every fake-quantized weight, and what rounds it."""
    for path, module in network.named_modules(remove_duplicate=False):
        if parametrize.is_parametrized(module):
            assert isinstance(module.parametrizations, nn.ModuleDict)
            for name in module.parametrizations:
                if (quantizer := _quantizer(module, name)) is not None:
                    yield f"{path}.parametrizations.{name}.original".lstrip("."), quantizer


def magnitude_masks(network: nn.Module, sparsity: float) -> dict[str, Tensor]:
    """Which weights of every `Conv2d` and `Linear` stay: the smallest magnitudes of all layers together go.

    Args:
        network: Any module with such layers; others are left out.
        sparsity: Share of these weights that goes, in [0, 1).

    Returns:
        From a layer's name to booleans of its weight's shape.

    Raises:
        ValueError: For a share out of range, or a network without such a layer.

    Source: Han, Pool, Tran and Dally 2015, arXiv:1506.02626. Written out in notebook 10.
    """
    require_share(sparsity)
    magnitudes = {
        name: module.weight.detach().abs()
        for name, module in network.named_modules()
        if isinstance(module, nn.Conv2d | nn.Linear)
    }
    if not magnitudes:
        raise ValueError("network: expected at least one Conv2d or Linear, got none")
    flat = torch.cat([magnitude.flatten() for magnitude in magnitudes.values()])
    kept = torch.ones_like(flat, dtype=torch.bool)
    kept[flat.argsort()[: round(sparsity * len(flat))]] = (
        False  # by rank: also among equals exactly so many go
    )
    pieces = kept.split([magnitude.numel() for magnitude in magnitudes.values()])
    return {
        name: piece.reshape(magnitude.shape)
        for (name, magnitude), piece in zip(magnitudes.items(), pieces, strict=True)
    }


def require_share(sparsity: float) -> None:
    """Raises ValueError unless it is a share in [0, 1)."""
    if not 0 <= sparsity < 1:
        raise ValueError(f"sparsity: expected a share in [0, 1), got {sparsity}")
