"""Whole channels taken out of a `ConvNet`: fewer weights and fewer operations."""

import copy
from collections.abc import Mapping

import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize

from kdutils.compress import require_share, rounded_weight
from kdutils.course.models import ConvNet


def channels_to_keep(network: ConvNet, sparsity: float) -> dict[str, Tensor]:
    """Which channels of every convolution stay: those with the largest sums of absolute weights.

    Args:
        network: Any module with `Conv2d` layers.
        sparsity: Share of the channels that goes, in [0, 1), rounded to whole channels in each convolution.
            At least one stays.

    Returns:
        From a convolution's name to the indices of its channels, sorted.

    Raises:
        ValueError: For a share out of range.

    Source: Li et al. 2017, arXiv:1608.08710. Written out in notebook 10.
    """
    require_share(sparsity)
    kept = {}
    for name, conv in network.named_modules():
        if isinstance(conv, nn.Conv2d):
            strength = conv.weight.detach().abs().sum(dim=(1, 2, 3))
            count = max(1, len(strength) - round(sparsity * len(strength)))
            kept[name] = strength.topk(count).indices.sort().values
    return kept


def remove_channels(network: ConvNet, kept: Mapping[str, Tensor]) -> ConvNet:
    """A smaller copy of a `ConvNet`, from which whole channels are gone: fewer weights, fewer operations.

    The copy equals the network whose removed channels are set to zero after each ReLU: the next layer loses
    the inputs that no longer arrive. A fake-quantized network (see `fake_quantize`) keeps the scales of what
    stays.

    Args:
        network: A chain of convolutions. Where shortcuts join, channels would have to go in groups.
        kept: From a convolution's name ("stages.0.0") to the indices of its output channels that stay, in
            their order. A convolution that is not named keeps all.

    Raises:
        ValueError: For a network that is no `ConvNet`, a name that is no convolution of it, or an empty or
            invalid selection.

    Written out in notebook 10.
    """
    if not isinstance(network, ConvNet):
        raise ValueError(f"network: expected a ConvNet, got a {type(network).__name__}")
    network = copy.deepcopy(network)
    names = {module: name for name, module in network.named_modules() if isinstance(module, nn.Conv2d)}
    if unknown := kept.keys() - set(names.values()):
        raise ValueError(f"kept: expected names among {list(names.values())}, got {sorted(unknown)}")
    arriving = torch.arange(1)  # the image's one channel
    for module in network.stages.modules():
        if isinstance(module, nn.Conv2d):
            staying = kept.get(names[module], torch.arange(module.out_channels))
            _require_channels(names[module], staying, module.out_channels)
            _cut(module, staying, arriving)
            module.in_channels, module.out_channels = len(arriving), len(staying)
            arriving = staying
        elif isinstance(module, nn.BatchNorm2d):  # follows the convolution whose channels it scales
            for name, values in list(module.named_parameters()):
                setattr(module, name, _part(values, values[arriving]))
            for name in ("running_mean", "running_var"):
                setattr(module, name, getattr(module, name)[arriving])
            module.num_features = len(arriving)
    _cut(network.classifier, torch.arange(network.classifier.out_features), arriving)
    network.classifier.in_features = len(arriving)
    return network


def _cut(layer: nn.Conv2d | nn.Linear, outputs: Tensor, inputs: Tensor) -> None:
    """Leaves a layer only the named outputs and inputs, in place."""
    if parametrize.is_parametrized(layer, "weight"):
        weight, quantizer = rounded_weight(layer)
        assert isinstance(layer.parametrizations, nn.ModuleDict)
        layer.parametrizations["weight"].original = _part(weight, weight[outputs][:, inputs])
        quantizer.scale, quantizer.zero_point = quantizer.scale[outputs], quantizer.zero_point[outputs]
    else:
        layer.weight = _part(layer.weight, layer.weight[outputs][:, inputs])
    if layer.bias is not None:
        layer.bias = _part(layer.bias, layer.bias[outputs])


def _part(parameter: Tensor, part: Tensor) -> nn.Parameter:
    return nn.Parameter(part.detach().clone(), requires_grad=parameter.requires_grad)


def _require_channels(name: str, channels: Tensor, count: int) -> None:
    if (
        channels.dim() != 1
        or channels.dtype == torch.bool  # a mask, which would be read as the indices 0 and 1
        or not 0 < len(channels) == len(channels.unique())
        or not 0 <= int(channels.min()) <= int(channels.max()) < count
    ):
        raise ValueError(
            f"kept: expected different channels from 0 to {count - 1}, at least one, for {name}, "
            f"got {channels.tolist()}"
        )
