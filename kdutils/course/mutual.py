"""Peers that teach one another, one process each, on Fashion-MNIST.

    torchrun --standalone --nproc-per-node 2 -m kdutils.course.mutual --out results

The peers exchange the logits of every batch (deep mutual learning, Zhang et al. 2018). With `--every 50`
they exchange their weights instead, every 50 steps, and learn in between from the others' stale copies
(codistillation, Anil et al. 2018); then each has labelled images of its own. `--help` lists the settings.
"""

import argparse
import copy
import itertools
import json
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from safetensors.torch import save_file
from torch import Tensor, nn

from kdutils import evaluate
from kdutils._validate import require_count
from kdutils.batches import balanced_index, batches
from kdutils.course import data, models
from kdutils.losses.online import mutual_terms
from kdutils.peers import Cohort, cohort
from kdutils.train import fit, predict

LossFunction = Callable[[nn.Module, Tensor, Tensor], dict[str, Tensor]]


def logits_exchanged(peers: Cohort, weight: float = 1.0) -> LossFunction:
    """The loss function of one peer for `fit`; every call exchanges the batch's logits with the others.

    All peers must go through the same images in the same order.   weight: of the mutual term.
    """

    def loss_fn(peer: nn.Module, images: Tensor, labels: Tensor) -> dict[str, Tensor]:
        logits = peer(images)
        return mutual_terms(logits, peers.from_others(logits), labels, weight=weight)

    return loss_fn


def weights_exchanged(
    peers: Cohort, copies: Sequence[nn.Module], every: int, weight: float = 1.0
) -> LossFunction:
    """The loss function of one peer for `fit`; every `every`-th step exchanges the weights with the others.

    Until the first exchange, after `every` steps, a peer learns from labels only: an untrained network has
    nothing to teach. In between it learns from stale copies. These answer in training mode, as peers do that
    exchange logits: the running statistics of batch norm lag behind weights that move fast.
    copies: one network per peer in the order of the ranks, built like the peers.
    weight: of the mutual term.
    The peers may go through different images.   Raises ValueError for every < 1.

    Source: Anil et al. 2018, "Large scale distributed neural network training through online distillation".
    Written out in notebook 05, for two peers in one process.
    """
    require_count("every", every)
    steps = itertools.count()
    others = [network.train() for rank, network in enumerate(copies) if rank != peers.rank]

    def loss_fn(peer: nn.Module, images: Tensor, labels: Tensor) -> dict[str, Tensor]:
        step = next(steps)
        if step < every:
            hard = F.cross_entropy(peer(images), labels)
            return {"hard": hard, "mutual": torch.zeros_like(hard)}
        if step % every == 0:
            peers.copy_weights(peer, copies)
        with torch.no_grad():
            answers = [network(images) for network in others]
        return mutual_terms(peer(images), answers, labels, weight=weight)

    return loss_fn


def new_peer(seed: int, rank: int, width: int = 8) -> models.ConvNet:
    """The untrained network of one peer: another one for every rank, the same in whatever process."""
    return models.small_cnn(1000 * seed + rank, width)


def own_images(split: data.Split, size: int, seed: int, rank: int, peers: int) -> data.Split:
    """One peer's balanced random subset of `size` images and labels, disjoint from the other peers'.

    Raises ValueError for a size that is no multiple of the number of classes, or too large for all peers.
    """
    per_class, rest = divmod(size, data.NUM_CLASSES)
    if rest:
        raise ValueError(f"size: expected a multiple of {data.NUM_CLASSES}, got {size}")
    index = balanced_index(split.labels, peers * size, seed)  # class after class
    index = index.reshape(data.NUM_CLASSES, peers, per_class)[:, rank].flatten()
    return data.Split(split.images[index], split.labels[index])


def train(peers: Cohort, settings: argparse.Namespace) -> None:
    """Trains this process' peer among the others and writes what has become of it; settings: of `main`."""
    widths = [settings.width[rank % len(settings.width)] for rank in range(peers.size)]
    networks = [new_peer(settings.seed, rank, w).to(peers.device) for rank, w in enumerate(widths)]
    fm = data.fashion_mnist()
    if settings.every is None:
        images, labels = data.labeled_subset(fm.pool, settings.labels, settings.seed)
        loss_fn = logits_exchanged(peers, settings.weight)
    else:
        images, labels = own_images(fm.pool, settings.labels, settings.seed, peers.rank, peers.size)
        loss_fn = weights_exchanged(peers, copy.deepcopy(networks), settings.every, settings.weight)
    unseen = fm.test
    del fm  # sixty thousand images, of which this process needs no more
    clock, cpu = [], []

    def timed(*batch: Any) -> dict[str, Tensor]:
        clock.append(time.perf_counter())
        cpu.append(time.process_time())
        return loss_fn(*batch)

    peer = networks[peers.rank]
    loader = batches(
        images,
        labels,
        batch_size=settings.batch_size,
        seed=settings.seed,
        transform=data.normalize_fashion_mnist,
    )
    history = fit(peer, loader, timed, steps=settings.steps, lr=settings.lr)
    clock.append(time.perf_counter())
    cpu.append(time.process_time())
    # In small batches: several wide peers on one machine answer at the same time.
    logits = predict(peer, unseen.images, transform=data.normalize_fashion_mnist, batch_size=100)
    accuracy = evaluate.accuracy(logits, unseen.labels)
    print(
        f"peer {peers.rank} of {peers.size}: test accuracy {accuracy:.2f} %, {peers.bytes_sent:,} bytes sent"
    )

    settings.out.mkdir(parents=True, exist_ok=True)
    save_file(peer.state_dict(), settings.out / f"peer-{peers.rank}.safetensors")
    results = {
        "accuracy": accuracy,
        "history": history,
        "step_seconds": [after - before for before, after in itertools.pairwise(clock)],
        "step_cpu_seconds": [after - before for before, after in itertools.pairwise(cpu)],
        "bytes_sent": peers.bytes_sent,
    }
    (settings.out / f"peer-{peers.rank}.json").write_text(json.dumps(results))


def main(arguments: Sequence[str] | None = None) -> None:
    """The program that torchrun starts once for every peer; see the module's docstring.

    It writes into the folder `--out`, for every rank, peer-0.safetensors with the weights, and peer-0.json
    with test accuracy (%), the loss's history, the seconds of every step by the clock and of the CPU, and
    the bytes sent to the others.
    """
    parser = argparse.ArgumentParser(
        prog="kdutils.course.mutual", description="Peers that teach one another."
    )
    parser.add_argument("--out", type=Path, required=True, help="folder for the results")
    parser.add_argument("--labels", type=int, default=500, help="labelled images per peer")
    parser.add_argument("--width", type=int, nargs="+", default=[8], help="of the peers' networks, by rank")
    parser.add_argument("--steps", type=int, default=400)
    parser.add_argument("--lr", type=float, default=0.06, help="peak learning rate")
    parser.add_argument("--batch-size", type=int, default=64)
    parser.add_argument("--weight", type=float, default=1.0, help="of the mutual term")
    parser.add_argument("--every", type=int, help="exchange weights every so many steps, not logits in each")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--timeout", type=float, default=60, help="seconds to wait for another peer")
    args = parser.parse_args(arguments)
    with cohort(args.timeout) as peers:
        train(peers, args)


if __name__ == "__main__":
    main()
