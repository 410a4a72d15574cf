"""Chapter 05: what the notebook writes out equals the library; its exercises name the usual slips."""

import copy
import itertools
import math

import pytest
import torch
import torch.nn.functional as F
from notebook_code import assert_same_loss, definition, verdict
from notebook_files import ROOT
from torch import nn

from kdutils.batches import batches
from kdutils.course import data
from kdutils.course.exercises import chapter05 as exercises
from kdutils.course.mutual import weights_exchanged
from kdutils.losses import dml_loss, mutual_terms

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


def test_mutual_is_the_sum_of_what_every_process_minimizes():
    """The notebook trains all peers in one loss; in processes each has `mutual_terms` of its own."""
    names = {"dml_loss": dml_loss, "itertools": itertools, "F": F}
    written = definition(NOTEBOOK, "mutual", **names)(weight=0.7)
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


class OtherPeer:
    """A cohort of two in one process: "exchanging" copies the weights that both have at that time."""

    def __init__(self, rank, peers):
        self.rank, self.peers = rank, peers

    def copy_weights(self, own, copies):
        for network, peer in zip(copies, self.peers, strict=True):
            network.load_state_dict(peer.state_dict())


def test_codistilled_is_the_sum_of_what_every_process_minimizes():
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


def pool_loss(teachers, every=2):
    pool = data.Split(torch.randn(64 * 6, 5, generator=GENERATOR), None)
    fm = data.FashionMNIST(None, None, pool, None)
    names = {"copy": copy, "itertools": itertools, "dml_loss": dml_loss, "batches": batches, "fm": fm}
    written = definition(NOTEBOOK, "pool_labeled", **names, normalize=lambda images: images)
    unlabeled = iter(batches(pool.images, batch_size=64, seed=3))
    return written(teachers, seed=3, every=every), unlabeled


@pytest.mark.parametrize("teachers", [(1, 0), (0, 1)], ids=["the other", "oneself"])
def test_pool_labeled_learns_from_stale_answers_to_the_pool_and_labels_at_home(teachers):
    loss_fn, unlabeled = pool_loss(teachers)
    peers = three_peers()[:2]
    parts = [(IMAGES[:8], LABELS[:8]), (IMAGES[8:], LABELS[8:])]
    stale = None
    for step in range(5):
        (pool,) = next(unlabeled)
        terms = loss_fn(peers, *parts[0], *parts[1])
        hard = sum(F.cross_entropy(peer(part[0]), part[1]) for peer, part in zip(peers, parts, strict=True))
        torch.testing.assert_close(terms["hard"], hard)
        if step >= 2:
            stale = copy.deepcopy(peers) if step % 2 == 0 else stale
            own, answers = [peer(pool) for peer in peers], [stale[teacher](pool) for teacher in teachers]
            torch.testing.assert_close(terms["mutual"], sum(map(dml_loss, own, answers)))
        assert ("mutual" in terms) == (step >= 2)
        with torch.no_grad():
            for parameter in peers.parameters():
                parameter += 0.1


def test_augmented_images_are_moved_by_two_pixels_at_most_and_keep_their_background():
    moved_and_mirrored = definition(NOTEBOOK, "moved_and_mirrored", F=F)
    images = torch.full((200, 1, 28, 28), -0.8)
    images[:, 0, 13:15, 13:15] = 1.0
    moved = moved_and_mirrored(images)
    assert moved.shape == images.shape and set(moved.unique().tolist()) == set(images.unique().tolist())
    rows = (moved[:, 0].amax(dim=2) > 0).int().argmax(dim=1)
    assert rows.unique().tolist() == [11, 12, 13, 14, 15]


# Exercises


def divergence(own, other):
    """KL(other ‖ own)."""
    log_q, log_p = F.log_softmax(own, dim=1), F.log_softmax(other, dim=1)
    return F.kl_div(log_q, log_p, log_target=True, reduction="batchmean")


def taught(own, other):
    return divergence(own, other.detach())


def hard(logits, labels, has_label):
    return sum(F.cross_entropy(own[has_label], labels[has_label]) for own in logits)


def mutual(logits, pair_loss=taught):
    return sum(pair_loss(own, other) for own, other in itertools.permutations(logits, 2)) / (len(logits) - 1)


def mutual_where(logits, where):
    return mutual([own[where] for own in logits])


SLIPS = {
    "asked for one": lambda z, y, m: sum(F.cross_entropy(own, y) for own in z) + mutual(z),
    "the labeled images only": lambda z, y, m: hard(z, y, m) + mutual_where(z, m),
    "the unlabeled images only": lambda z, y, m: hard(z, y, m) + mutual_where(z, ~m),
    "divided by the whole batch": lambda z, y, m: hard(z, y, m) * m.sum() / len(m) + mutual(z),
    "summed over the other peers": lambda z, y, m: hard(z, y, m) + mutual(z) * (len(z) - 1),
    "counts the peer itself": lambda z, y, m: hard(z, y, m) + mutual(z) * (len(z) - 1) / len(z),
    "the other peers learn too": lambda z, y, m: hard(z, y, m) + mutual(z, divergence),
    "swapped": lambda z, y, m: hard(z, y, m) + mutual(z, lambda own, other: divergence(other.detach(), own)),
    "the labels are missing": lambda z, y, m: mutual(z),
    "only the labels count": hard,
    "the cohort's mean": lambda z, y, m: (hard(z, y, m) + mutual(z)) / len(z),
}


@pytest.mark.parametrize("name", SLIPS)
def test_slip_in_cohort_loss_is_named(capsys, name):
    said = verdict(capsys, exercises.cohort_loss, SLIPS[name])
    assert said.startswith("✗ not yet") and name in said


@pytest.mark.parametrize(
    ("attempt", "said"),
    [
        (5e8 / 1.2e6, "the tokens were forgotten"),
        (5e8 / 1.5e8, "the texts were forgotten"),
        (5e8 / 8e3, "the vocabulary was forgotten"),
        (2e9 / 1.2e9, "the weights were counted in bytes"),
        (5e8 / 4.8e9, "the logits in bytes"),
        (1.2e9 / 5e8, "upside down"),
        (500, "too high"),
    ],
)
def test_slip_in_break_even_is_named(capsys, attempt, said):
    assert said in verdict(capsys, exercises.break_even, attempt)


ARMS = {"alone": [60.0, 61.0, 62.0, 61.5], "same images": [61.0, 62.5, 63.0, 62.0]}
ALIKE = [61.5, 62.0, 63.5, 62.2]  # own images, no better and no worse than the same ones


@pytest.mark.parametrize(
    ("own", "follows"),
    [
        ([64.0, 65.4, 66.1, 65.0], "the other's labels help"),
        ([58.0, 59.4, 60.1, 59.0], "the same images are better"),
        (ALIKE, "cannot tell"),
    ],
)
def test_the_conclusion_has_to_follow_from_the_interval(capsys, own, follows):
    results = ARMS | {"own images": own}
    assert verdict(capsys, exercises.missing_control, results | {"so": follows}) == "✓ passed"
    for other in {"the other's labels help", "the same images are better", "cannot tell"} - {follows}:
        said = verdict(capsys, exercises.missing_control, results | {"so": other})
        assert said.startswith("✗ not yet: own over same images: ") and "interval" in said


@pytest.mark.parametrize(
    ("results", "said"),
    [
        (ARMS, "keys"),
        ([1, 2, 3], "keys"),
        (ARMS | {"own images": ALIKE[:3], "so": "cannot tell"}, "three or more seeds"),
        (ARMS | {"own images": [math.nan] * 4, "so": "cannot tell"}, "three or more seeds"),
        (ARMS | {"own images": None, "so": "cannot tell"}, "three or more seeds"),
        (ARMS | {"own images": [x / 100 - 1 for x in ALIKE], "so": "cannot tell"}, "in percent"),
        (ARMS | {"own images": ARMS["alone"], "so": "cannot tell"}, "the same run"),
        (ARMS | {"own images": ALIKE, "so": "maybe"}, "expected one of"),
    ],
)
def test_results_that_show_nothing_are_sent_back(capsys, results, said):
    answer = verdict(capsys, exercises.missing_control, results)
    assert answer.startswith("✗ not yet") and said in answer
