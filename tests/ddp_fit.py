"""A program for torchrun: `fit` of a network in DistributedDataParallel, as test_distributed compares it.

usage: ddp_fit.py FILE [batchnorm]. The first process writes the trained weights into the file.
"""

import sys

import torch
import torch.nn.functional as F
from torch import nn
from torch.nn.parallel import DistributedDataParallel
from torch.utils.data import DataLoader, DistributedSampler, TensorDataset

from kdutils.parallel import cohort
from kdutils.train import fit

N, D, K, GLOBAL_BATCH, STEPS = 64, 6, 3, 16, 10


def dataset():
    inputs = torch.randn(N, D, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    return TensorDataset(inputs, inputs[:, :K].argmax(dim=1))


def network(with_batch_norm=False):
    torch.manual_seed(1)
    middle = nn.BatchNorm1d(5) if with_batch_norm else nn.Tanh()
    return nn.Sequential(nn.Linear(D, 5), middle, nn.Linear(5, K)).double()


def labels_only(model, inputs, labels):
    return F.cross_entropy(model(inputs), labels)


def trained(model, rank, size):
    """The parameters after `fit` in one of `size` processes, each with its share of the global batch."""
    sampler = DistributedSampler(dataset(), num_replicas=size, rank=rank, seed=3)
    loader = DataLoader(dataset(), batch_size=GLOBAL_BATCH // size, sampler=sampler)
    fit(model, loader, labels_only, steps=STEPS, lr=0.05)
    return torch.cat([parameter.detach().flatten() for parameter in model.parameters()])


if __name__ == "__main__":
    with cohort(timeout=60) as peers:
        # No name for the wrapped network: it must be gone before its group of processes is.
        parameters = trained(
            DistributedDataParallel(network("batchnorm" in sys.argv)), peers.rank, peers.size
        )
        if peers.rank == 0:
            torch.save(parameters, sys.argv[1])
