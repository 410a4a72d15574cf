"""A small network as it is after training, for the tests of what is rounded, folded and pruned."""

import torch
from torch import Tensor, nn

from kdutils.course.models import ConvNet


def used_network(widths: tuple[int, ...] = (4, 6, 8), depths: tuple[int, ...] = (1, 2, 1)) -> ConvNet:
    """A network whose batch norms have seen data and have weights of both signs, as after training."""
    network = ConvNet(widths, depths, seed=1)
    generator = torch.Generator().manual_seed(2)
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.weight.data.copy_(torch.randn(module.weight.shape, generator=generator))
            # mostly above zero: no channel is cut off by the ReLU for every image
            module.bias.data.copy_(0.7 + 0.3 * torch.randn(module.bias.shape, generator=generator))
            module.running_mean.copy_(0.1 * torch.randn(module.running_mean.shape, generator=generator))
            module.running_var.copy_(0.1 + 0.1 * torch.rand(module.running_var.shape, generator=generator))
    return network.eval()


def weights(network: nn.Module) -> dict[str, Tensor]:
    return {n: m.weight for n, m in network.named_modules() if isinstance(m, nn.Conv2d | nn.Linear)}
