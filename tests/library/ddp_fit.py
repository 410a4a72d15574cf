"""A program for torchrun: `fit` of a network in DistributedDataParallel, as test_peers compares it.

usage: ddp_fit.py FOLDER. The first process writes the trained weights into the folder: of a network without
batch norm into plain.pt, of one with it into batch_norm.pt, of one with a regressor beside it into
regressor.pt.
"""

import gc
import sys
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import nn
from torch.nn.parallel import DistributedDataParallel
from torch.utils.data import DataLoader, DistributedSampler, TensorDataset

from kdutils.peers import cohort
from kdutils.taps import FeatureTap
from kdutils.train import fit

N, D, K, GLOBAL_BATCH, STEPS = 64, 6, 3, 16, 10


def dataset():
    inputs = torch.randn(N, D, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    return TensorDataset(inputs, inputs[:, :K].argmax(dim=1))


def network(middle):
    torch.manual_seed(1)
    return nn.Sequential(nn.Linear(D, 5), middle, nn.Linear(5, K)).double()


NETWORKS = {"plain": lambda: network(nn.Tanh()), "batch_norm": lambda: network(nn.BatchNorm1d(5))}


def labels_only(model, inputs, labels):
    return F.cross_entropy(model(inputs), labels)


def with_regressor(wrapped):
    """Network and regressor, each wrapped on its own, as FeatureTap's docstring tells."""
    torch.manual_seed(2)
    return nn.ModuleDict({"net": wrapped(network(nn.Tanh())), "regressor": wrapped(nn.Linear(5, 2).double())})


def labels_and_hints(student, inputs, labels):
    with FeatureTap(student["net"], {"hidden": "1"}) as tap:
        logits = student["net"](inputs)
    hint = F.mse_loss(student["regressor"](tap["hidden"]), inputs[:, 4:])
    return F.cross_entropy(logits, labels) + hint


def weights(model):
    return torch.cat([parameter.detach().flatten() for parameter in model.parameters()])


def trained(model, rank, size, loss_fn=labels_only):
    """The weights after `fit` in one of `size` processes, each with its share of the global batch."""
    sampler = DistributedSampler(dataset(), num_replicas=size, rank=rank, seed=3)
    loader = DataLoader(dataset(), batch_size=GLOBAL_BATCH // size, sampler=sampler)
    fit(model, loader, loss_fn, steps=STEPS, lr=0.05)
    return weights(model)


if __name__ == "__main__":
    with cohort(timeout=240) as peers:
        for name, make in NETWORKS.items():
            result = trained(DistributedDataParallel(make()), peers.rank, peers.size)
            if peers.rank == 0:
                torch.save(result, Path(sys.argv[1]) / f"{name}.pt")
        student = with_regressor(DistributedDataParallel)
        result = trained(student, peers.rank, peers.size, labels_and_hints)
        if peers.rank == 0:
            torch.save(result, Path(sys.argv[1]) / "regressor.pt")
        del student
        # The wrapped networks, which have no name, must be gone before their group of processes is.
        gc.collect()
