"""Smaller weights: rounding to few bits, integers on disk, folded batch norm, pruned weights and channels.

Every function returns a new network and leaves the given one as it is. The quantized networks compute in
float32 with rounded numbers ("fake" quantization): what they lose in accuracy is real, their speed is not.
"""

import copy

import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize

from kdutils._modes import eval_mode
from kdutils._validate import require_count, require_finite, require_matrix

_CLIPPING_SHARES = torch.linspace(0.05, 1, 20).tolist()


def integer_range(bits: int, signed: bool = True) -> tuple[int, int]:
    """The smallest and the largest integer of a grid of `bits` bits, from 2 to 8.

    signed: as many integers below zero as above (8 bits: -127 … 127), for weights. Otherwise from zero
    (8 bits: 0 … 255), for what a ReLU lets through.
    Raises ValueError for bits out of range.
    """
    require_count("bits", bits)
    if not 2 <= bits <= 8:
        raise ValueError(f"bits: expected a whole number from 2 to 8, got {bits}")
    return (1 - 2 ** (bits - 1), 2 ** (bits - 1) - 1) if signed else (0, 2**bits - 1)


def least_error_scale(rows: Tensor, bits: int, signed: bool = True) -> Tensor:
    """Step between neighbouring numbers of the grid, (C,): for every row the one of least squared error.

    rows: (C, M), floating; each row gets its own step. Twenty are tried: the largest integer stands for a
    twentieth, two twentieths, …, all of the row's largest magnitude, and what lies beyond is clipped.
    A row of zeros gets the step 1.
    Raises ValueError for another shape or dtype, or numbers that are not finite.
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

    The gradient passes unchanged where the value lies within the grid, and is zero where it was clipped.
    scale: step of the grid. (C,) for one step per channel, the first dimension of what comes in; () for one
    step for all.   bits, signed: the grid, see `integer_range`; its zero point is zero.

    values → the rounded values, same shape and dtype.

    Source: Jacob et al. 2018, arXiv:1712.05877 (the grid, and simulating it in training); Bengio, Léonard and
    Courville 2013, arXiv:1308.3432 (the straight-through gradient). Written out in notebook 08.
    """

    scale: Tensor
    zero_point: Tensor

    def __init__(self, scale: Tensor, bits: int, signed: bool = True):
        super().__init__()
        self.bits, self.signed = bits, signed
        self.low, self.high = integer_range(bits, signed)
        self.register_buffer("scale", scale.detach().float().clone())  # torch's functions take no other
        # torch's functions ask for it; being zero it need not be stored
        self.register_buffer("zero_point", torch.zeros_like(scale, dtype=torch.int32), persistent=False)

    def forward(self, values: Tensor) -> Tensor:
        if self.scale.dim() == 0:
            return torch.fake_quantize_per_tensor_affine(
                values, self.scale, self.zero_point, self.low, self.high
            )
        return torch.fake_quantize_per_channel_affine(
            values, self.scale, self.zero_point, 0, self.low, self.high
        )

    def integers(self, values: Tensor) -> Tensor:
        """The grid's integers that stand for the values, same shape, int8 (uint8 where there is no sign)."""
        step = self.scale.reshape(-1, *[1] * (values.dim() - 1)) if self.scale.dim() else self.scale
        # times the inverse, as torch's function computes it: a quotient can round to the other side
        rounded = (values * (1 / step)).round().clamp(self.low, self.high)
        return rounded.to(torch.int8 if self.signed else torch.uint8)

    def extra_repr(self) -> str:
        return f"bits={self.bits}, signed={self.signed}"


def fake_quantize(network: nn.Module, bits: int, images: Tensor | None = None) -> nn.Module:
    """A copy whose weights, and with `images` also its activations, are rounded to `bits` bits.

    Every `Conv2d` and `Linear` rounds its weight, one step per output channel. Given images, every
    ReLU inside an `nn.Sequential` is followed by a rounding, one step per layer. Biases and batch norm stay
    in float32. The steps are chosen by `least_error_scale` and stay fixed; training the copy moves the
    weights under them.
    images: (N, ...) as the network takes them, a hundred or so; they run through the network in eval mode.
    Raises ValueError for bits out of range, a network with no weight or no ReLU to round or one that the
    images do not reach, or weights or images that are not finite.
    """
    network = copy.deepcopy(network)
    for name, parameter in network.named_parameters():
        require_finite(f"network: {name}", parameter)
    if images is not None:
        _round_after_relu(network, bits, images)
    layers = [module for module in network.modules() if isinstance(module, nn.Conv2d | nn.Linear)]
    if not layers:
        raise ValueError("network: expected at least one convolution or linear layer, got none")
    for layer in layers:
        scale = least_error_scale(layer.weight.detach().flatten(1), bits)
        parametrize.register_parametrization(layer, "weight", FakeQuantize(scale, bits))
    return network


def _round_after_relu(network: nn.Module, bits: int, images: Tensor) -> None:
    require_finite("images", images)
    for sequential in [module for module in network.modules() if isinstance(module, nn.Sequential)]:
        for index, child in enumerate(sequential):
            if isinstance(child, nn.ReLU):  # one module at two places needs two steps
                sequential[index] = copy.deepcopy(child)
    places = [
        (module, child)
        for module in network.modules()
        if isinstance(module, nn.Sequential)
        for child in module
        if isinstance(child, nn.ReLU)
    ]
    if not places:
        raise ValueError("network: expected at least one nn.ReLU inside an nn.Sequential, got none")
    scales: dict[nn.Module, Tensor] = {}

    def note(relu: nn.Module, _: tuple, output: Tensor) -> None:
        scales[relu] = least_error_scale(output.reshape(1, -1), bits, signed=False).squeeze(0)

    hooks = [relu.register_forward_hook(note) for _, relu in places]
    with torch.no_grad(), eval_mode(network):
        network(images)
    for hook in hooks:
        hook.remove()
    if len(scales) < len(places):
        raise ValueError("network: expected a forward pass through every nn.ReLU, it went around one")
    for sequential, relu in places:
        sequential.insert(list(sequential).index(relu) + 1, FakeQuantize(scales[relu], bits, signed=False))


def fold_batch_norm(network: nn.Module) -> nn.Module:
    """A copy, in eval mode, in which every batch norm is folded into the convolution before it.

    In eval mode a batch norm multiplies every channel by a number and adds another, so that both can be part
    of the convolution's weight and bias. The copy gives the same output, up to float32's rounding, with fewer
    operations. A weight that is fake-quantized keeps its integers, up to the sign of a channel: only its
    steps change. An activation that is fake-quantized, and lies between two numbers of its grid, may be
    rounded to the other one.
    Pairs are looked for inside every `nn.Sequential`: a convolution, directly followed by a batch norm.
    Raises ValueError for a batch norm without running statistics.

    Source: Jacob et al. 2018, arXiv:1712.05877, sec. 3.2. Written out in notebook 08.
    """
    network = copy.deepcopy(network).eval()
    for sequential in [module for module in network.modules() if isinstance(module, nn.Sequential)]:
        for index in reversed(range(len(sequential) - 1)):
            conv, norm = sequential[index], sequential[index + 1]
            if isinstance(conv, nn.Conv2d) and isinstance(norm, nn.BatchNorm2d):
                _fold(conv, norm)
                del sequential[index + 1]
    return network


@torch.no_grad()
def _fold(conv: nn.Conv2d, norm: nn.BatchNorm2d) -> None:
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
        # a channel that is multiplied by zero has the integer zero on any grid
        quantizer.scale.mul_(torch.where(factor == 0, torch.ones_like(factor), factor.abs()))
    weight.mul_(factor.reshape(-1, 1, 1, 1))


def pack_integers(integers: Tensor, bits: int) -> Tensor:
    """Bytes, uint8, that hold the signed integers of a `bits`-bit grid one after another without gaps.

    integers: any shape, int8.   Raises ValueError for integers outside the grid, or another dtype.
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

    Raises ValueError where the number of bytes does not belong to that shape.
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

    What `safetensors.torch.save_file` takes. `load_packed_state` reads it.
    Raises ValueError for a network without fake-quantized weights.
    """
    state = dict(network.state_dict())
    for key, quantizer in _weight_quantizers(network):
        state[key] = pack_integers(quantizer.integers(state[key]), quantizer.bits)
    return state


def load_packed_state(network: nn.Module, state: dict[str, Tensor]) -> None:
    """Fills a network, built as the stored one was, with what `packed_state` returned.

    Raises ValueError where the bytes do not fit, RuntimeError (PyTorch's) where names or shapes do not.
    """
    shapes = {key: tensor.shape for key, tensor in network.state_dict().items()}
    state = dict(state)
    for key, quantizer in _weight_quantizers(network):
        scale = state[key.removesuffix("original") + "0.scale"]
        integers = unpack_integers(state[key], quantizer.bits, shapes[key])
        state[key] = integers * scale.reshape(-1, *[1] * (integers.dim() - 1))
    network.load_state_dict(state)


def rounded_weight(layer: nn.Module) -> tuple[Tensor, FakeQuantize]:
    """A layer's weight in full precision, and what rounds it."""
    assert isinstance(layer.parametrizations, nn.ModuleDict)
    parametrization = layer.parametrizations["weight"]
    quantizer = next(iter(parametrization.children()))
    assert isinstance(parametrization.original, Tensor) and isinstance(quantizer, FakeQuantize)
    return parametrization.original, quantizer


def _weight_quantizers(network: nn.Module) -> list[tuple[str, FakeQuantize]]:
    """The state's key of every fake-quantized weight, and what rounds it."""
    found = [
        (f"{name}.parametrizations.weight.original", rounded_weight(module)[1])
        for name, module in network.named_modules()
        if parametrize.is_parametrized(module, "weight")
    ]
    if not found:
        raise ValueError("network: expected fake-quantized weights (see `fake_quantize`), got none")
    return found


def magnitude_masks(network: nn.Module, sparsity: float) -> dict[str, Tensor]:
    """Which weights of every `Conv2d` and `Linear` stay, boolean: layer's name → the weight's shape.

    sparsity: share of these weights that goes, in [0, 1); the smallest magnitudes of all layers together.
    Raises ValueError for a share out of range, or a network without such a layer.

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
    kept[flat.argsort()[: round(sparsity * len(flat))]] = False  # exactly so many, also among equals
    pieces = kept.split([magnitude.numel() for magnitude in magnitudes.values()])
    return {
        name: piece.reshape(magnitude.shape)
        for (name, magnitude), piece in zip(magnitudes.items(), pieces, strict=True)
    }


def require_share(sparsity: float) -> None:
    if not 0 <= sparsity < 1:
        raise ValueError(f"sparsity: expected a share in [0, 1), got {sparsity}")
