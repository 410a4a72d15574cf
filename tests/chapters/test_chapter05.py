"""Chapter 05: what the notebook writes out equals the library; its exercises name the usual slips."""

import copy
import itertools

import pytest
import torch
import torch.nn.functional as F
from notebook_code import assert_same_loss, definition, verdict
from notebook_files import ROOT
from torch import nn

from kdutils.course.exercises import chapter05 as exercises
from kdutils.course.mutual import weights_exchanged
from kdutils.losses import dml_loss, ensemble_kd_loss, mutual_terms

NOTEBOOK = ROOT / "notebooks" / "05_online_distillation.ipynb"

# What the notebook writes out equals the library

GENERATOR = torch.Generator().manual_seed(0)
CASES = [tuple(3 * torch.randn(2, 16, 10, generator=GENERATOR, dtype=torch.float64)) for _ in range(3)]
IMAGES, LABELS = torch.randn(16, 5, generator=GENERATOR), torch.arange(16) % 10


def three_peers():
    torch.manual_seed(1)
    return nn.ModuleList(nn.Linear(5, 10) for _ in range(3))


def gradients(terms, peers):
    return torch.autograd.grad(sum(terms), list(peers.parameters()))


def test_dml_loss_equals_the_one_written_out():
    assert_same_loss(dml_loss, definition(NOTEBOOK, "dml_loss_written_out"), CASES)


def test_mutual_is_the_sum_of_what_every_process_minimises():
    """The notebook trains all peers in one loss; in processes each has `mutual_terms` of its own."""
    hard = definition(NOTEBOOK, "hard")
    written = definition(NOTEBOOK, "mutual", hard=hard, dml_loss=dml_loss, itertools=itertools)(weight=0.7)
    peers = three_peers()
    logits = [peer(IMAGES) for peer in peers]
    together = written(peers, IMAGES, LABELS)
    apart = [
        mutual_terms(own, [other.detach() for other in logits if other is not own], LABELS, weight=0.7)
        for own in logits
    ]
    for name in ("hard", "mutual"):
        torch.testing.assert_close(together[name], sum(terms[name] for terms in apart))
    expected = gradients([term for terms in apart for term in terms.values()], peers)
    torch.testing.assert_close(gradients(together.values(), peers), expected)


def test_taught_by_ensemble_is_cross_entropy_and_ensemble_kd_loss():
    hard = definition(NOTEBOOK, "hard")
    written = definition(NOTEBOOK, "taught_by_ensemble", hard=hard, ensemble_kd_loss=ensemble_kd_loss)
    peers = three_peers()
    logits = [peer(IMAGES) for peer in peers]
    expected = sum(
        F.cross_entropy(own, LABELS) + 0.3 * ensemble_kd_loss(own, logits, temperature=2.0) for own in logits
    )
    terms = written(weight=0.3, temperature=2.0)(peers, IMAGES, LABELS)
    torch.testing.assert_close(sum(terms.values()), expected)


class OtherPeer:
    """A cohort of two in one process: "exchanging" copies the weights that both have at that time."""

    def __init__(self, rank, peers):
        self.rank, self.peers = rank, peers

    def copy_weights(self, own, copies):
        for network, peer in zip(copies, self.peers, strict=True):
            network.load_state_dict(peer.state_dict())


def test_codistilled_is_the_sum_of_what_every_process_minimises():
    names = {"copy": copy, "itertools": itertools, "dml_loss": dml_loss}
    written = definition(NOTEBOOK, "codistilled", **names)(every=2, weight=0.7)
    peers = three_peers()[:2]
    apart = [
        weights_exchanged(OtherPeer(rank, peers), copy.deepcopy(peers), every=2, weight=0.7)
        for rank in (0, 1)
    ]
    parts = [(IMAGES[:8], LABELS[:8]), (IMAGES[8:], LABELS[8:])]
    for step in range(5):
        together = written(peers, *parts[0], *parts[1])
        terms = [loss_fn(peer, *part) for loss_fn, peer, part in zip(apart, peers, parts, strict=True)]
        expected = sum(term for peers_terms in terms for term in peers_terms.values())
        torch.testing.assert_close(sum(together.values()), expected)
        assert ("mutual" in together) == (step >= 2)
        with torch.no_grad():
            for parameter in peers.parameters():
                parameter += 0.1


# Exercises


def divergence(own, other):
    """KL(other ‖ own)."""
    log_q, log_p = F.log_softmax(own, dim=1), F.log_softmax(other, dim=1)
    return F.kl_div(log_q, log_p, log_target=True, reduction="batchmean")


def hard(logits, labels):
    return sum(F.cross_entropy(own, labels) for own in logits)


def mutual(logits, pair_loss=lambda own, other: divergence(own, other.detach())):
    return sum(pair_loss(own, other) for own, other in itertools.permutations(logits, 2))


SLIPS = {
    "summed over the other peers": lambda z, y: hard(z, y) + mutual(z),
    "counts the peer itself": lambda z, y: hard(z, y) + mutual(z) / len(z),
    "the other peers learn too": lambda z, y: hard(z, y) + mutual(z, divergence) / (len(z) - 1),
    "swapped": lambda z, y: (
        hard(z, y) + mutual(z, lambda own, other: divergence(other.detach(), own)) / (len(z) - 1)
    ),
    "the labels are missing": lambda z, y: mutual(z) / (len(z) - 1),
    "only the labels count": hard,
    "the cohort's mean": lambda z, y: (hard(z, y) + mutual(z) / (len(z) - 1)) / len(z),
}


@pytest.mark.parametrize("name", SLIPS)
def test_slip_in_cohort_loss_is_named(capsys, name):
    said = verdict(capsys, exercises.cohort_loss, SLIPS[name])
    assert said.startswith("✗ not yet") and name in said


@pytest.mark.parametrize(
    ("attempt", "said"),
    [
        (1e6 / 10, "the batch was forgotten"),
        (1e6 / 128, "the classes were forgotten"),
        (4e6 / 1280, "the weights were counted in bytes"),
        (1e6 / 5120, "the logits in bytes"),
        (500, "too low"),
    ],
)
def test_slip_in_break_even_is_named(capsys, attempt, said):
    assert said in verdict(capsys, exercises.break_even, attempt)


@pytest.mark.parametrize(
    ("attempt", "said"),
    [("it grows", "err differently"), ("it stays", "disagree"), ("so what", "expected one")],
)
def test_wrong_choice_is_answered(capsys, attempt, said):
    answer = verdict(capsys, exercises.heavy_weight, attempt)
    assert answer.startswith("✗ not yet") and said in answer
