"""The online losses against their formulas written out, and the facts of loss_facts."""

import functools
import math

import loss_facts as facts
import pytest
import torch
import torch.nn.functional as F

from kdutils.losses import dml_loss, ensemble_kd_loss, ensemble_logits, kd_loss, mutual_terms

N, K = 6, 7
SEEDS = range(3)
PRECISIONS = (torch.float64, torch.float32, *facts.LOW_PRECISION)


def mean_kl(student_logits, teacher_logits, temperature):
    """KL(teacher ‖ student) at T, sample by sample, then averaged."""
    total = 0
    for z, v in zip(student_logits, teacher_logits, strict=True):
        q, p = torch.exp(z / temperature), torch.exp(v / temperature)
        q, p = q / q.sum(), p / p.sum()
        total = total + sum(p[i] * torch.log(p[i] / q[i]) for i in range(len(p)))
    return total / len(student_logits)


def dml_formula(student_logits, peer_logits, temperature=1.0):
    return mean_kl(student_logits, peer_logits, temperature)


def ensemble_kd_formula(student_logits, list_of_logits, temperature=3.0):
    mean = sum(list_of_logits) / len(list_of_logits)
    return temperature**2 * mean_kl(student_logits, mean, temperature)


def pair(seed=0, dtype=torch.float64, num_samples=N, num_classes=K):
    return (
        facts.random_tensor(num_samples, num_classes, seed=2 * seed, dtype=dtype),
        facts.random_tensor(num_samples, num_classes, seed=2 * seed + 1, dtype=dtype),
    )


def cohort(seed=0, dtype=torch.float64):
    """The logits of three peers."""
    return [facts.random_tensor(N, K, seed=100 + 3 * seed + i, dtype=dtype) for i in range(3)]


def ensemble_of_stacked(student_logits, stacked_logits):
    """ensemble_kd_loss for a teacher side in one tensor of shape (peers, N, K)."""
    return ensemble_kd_loss(student_logits, list(stacked_logits))


def ensemble_of_one(student_logits, teacher_logits):
    return ensemble_kd_loss(student_logits, [teacher_logits])


# Mutual learning


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("temperature", [None, 0.7, 1.0, 3.0, 20.0])
def test_dml_matches_the_formula(seed, temperature):
    setting = {} if temperature is None else {"temperature": temperature}
    facts.assert_matches_formula(
        functools.partial(dml_loss, **setting), functools.partial(dml_formula, **setting), *pair(seed)
    )


def test_dml_is_kd_without_t_squared():
    student, peer = pair()
    torch.testing.assert_close(dml_loss(student, peer), kd_loss(student, peer, temperature=1.0))
    torch.testing.assert_close(
        25 * dml_loss(student, peer, temperature=5.0), kd_loss(student, peer, temperature=5.0)
    )


def test_dml_in_both_directions_trains_each_network_only_by_its_own_loss():
    """The sum over a cohort: each network's gradient is that of the loss in which it is the student."""
    first, second = (logits.requires_grad_() for logits in pair())
    (dml_loss(first, second) + dml_loss(second, first)).backward()
    for student, peer in ((first, second), (second, first)):
        _, alone = facts.value_and_gradient(dml_loss, student, peer.detach())
        torch.testing.assert_close(student.grad, alone)


def test_dml_is_not_symmetric():
    first, second = pair()
    assert (dml_loss(first, second) - dml_loss(second, first)).abs() > 0.01


# A peer's two terms


def test_a_peers_terms_are_cross_entropy_and_the_mean_over_the_others():
    student, labels, others = pair()[0], facts.random_labels(N, K), cohort()
    terms = mutual_terms(student, others, labels, weight=0.7)
    assert terms.keys() == {"hard", "mutual"}
    torch.testing.assert_close(terms["hard"], F.cross_entropy(student, labels))
    torch.testing.assert_close(terms["mutual"], 0.7 * sum(dml_formula(student, o) for o in others) / 3)
    torch.testing.assert_close(mutual_terms(student, others, labels)["mutual"], terms["mutual"] / 0.7)


@pytest.mark.parametrize("dtype", PRECISIONS, ids=str)
def test_a_peers_terms_are_at_least_float32_and_teach_this_peer_alone(dtype):
    student = pair(dtype=dtype)[0].requires_grad_()
    others = [peer.requires_grad_() for peer in cohort(dtype=dtype)]
    terms = mutual_terms(student, others, facts.random_labels(N, K).to(torch.int32))
    assert {term.dtype for term in terms.values()} == {facts.at_least_float32(dtype)}
    assert {term.shape for term in terms.values()} == {()}
    sum(terms.values()).backward()
    assert student.grad.abs().max() > 0
    assert all(peer.grad is None for peer in others)


def test_a_peers_terms_refuse_bad_input():
    student, labels, others = pair()[0], facts.random_labels(N, K), cohort()
    rejects = functools.partial(facts.assert_rejects, mutual_terms)
    for wrong in ([], None, others[0], "peers"):
        rejects(student, wrong, labels, naming="list_of_logits")
    rejects(student, [others[0], others[1][:, 1:]], labels, naming=r"list_of_logits\[1\]")
    rejects(student, others, labels + K, naming="labels")
    rejects(student[:, :1], [peer[:, :1] for peer in others], labels, naming="student_logits")
    rejects(student, others, labels, weight=-1.0, naming="weight")


# Ensembles of peers


def test_ensemble_logits_are_the_mean_of_the_peers():
    logits = cohort()
    expected = torch.stack([(logits[0][i] + logits[1][i] + logits[2][i]) / 3 for i in range(N)])
    torch.testing.assert_close(ensemble_logits(logits), expected)
    torch.testing.assert_close(ensemble_logits(tuple(logits)), expected)
    torch.testing.assert_close(ensemble_logits(logits[:1]), logits[0])


def test_ensemble_logits_carry_gradients_to_every_peer():
    logits = [peer.requires_grad_() for peer in cohort()]
    ensemble_logits(logits).sum().backward()
    for peer in logits:
        torch.testing.assert_close(peer.grad, torch.full((N, K), 1 / 3, dtype=torch.float64))


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("temperature", [None, 0.7, 1.0, 4.0, 20.0])
def test_ensemble_kd_matches_the_formula(seed, temperature):
    setting = {} if temperature is None else {"temperature": temperature}
    facts.assert_matches_formula(
        functools.partial(ensemble_kd_loss, **setting),
        functools.partial(ensemble_kd_formula, **setting),
        pair(seed)[0],
        cohort(seed),
    )


def test_ensemble_of_logits_is_not_the_ensemble_of_probabilities():
    """Mean logits are a geometric mean of probabilities; public code sometimes takes the arithmetic one."""
    student, logits = pair()[0], cohort()
    mean_probs = torch.stack([torch.softmax(peer / 3, dim=1) for peer in logits]).mean(dim=0)
    other = kd_loss(student, 3 * mean_probs.log(), temperature=3.0)
    assert (ensemble_kd_loss(student, logits) - other).abs() > 0.001


def test_student_in_the_ensemble_learns_only_as_the_student():
    """Its own logits are part of the teacher, yet the gradient is that of a fixed teacher."""
    logits = cohort()
    student = logits[0].clone().requires_grad_()
    ensemble_kd_loss(student, [student, *logits[1:]]).backward()
    _, fixed = facts.value_and_gradient(
        functools.partial(kd_loss, temperature=3.0), logits[0], sum(logits) / 3
    )
    torch.testing.assert_close(student.grad, fixed)


def test_peers_get_no_gradient_from_the_ensemble():
    peers = [peer.requires_grad_() for peer in cohort()]
    student = pair()[0].requires_grad_()
    ensemble_kd_loss(student, peers).backward()
    assert all(peer.grad is None for peer in peers)
    assert student.grad.abs().max() > 0


# What every loss must satisfy


LOSSES = (dml_loss, ensemble_of_one, ensemble_of_stacked)
every_loss = pytest.mark.parametrize("loss", LOSSES, ids=lambda loss: loss.__name__)


def arguments(loss, dtype=torch.float64):
    student, teacher = pair(dtype=dtype)
    return (student, torch.stack(cohort(dtype=dtype))) if loss is ensemble_of_stacked else (student, teacher)


@every_loss
def test_gradient_is_exact(loss):
    facts.assert_gradient_is_exact(loss, *arguments(loss))


@every_loss
@pytest.mark.parametrize("dtype", PRECISIONS, ids=str)
def test_one_number_in_at_least_float32(loss, dtype):
    facts.assert_one_number(loss, *arguments(loss, dtype))


@every_loss
def test_teacher_gets_no_gradient(loss):
    facts.assert_teacher_gets_no_gradient(loss, *arguments(loss))


@pytest.mark.parametrize("loss", [dml_loss, ensemble_of_one], ids=lambda loss: loss.__name__)
def test_learns_only_from_difference(loss):
    facts.assert_learns_only_from_difference(loss, *arguments(loss))


def test_a_cohort_that_agrees_has_nothing_to_learn():
    student = pair()[0]
    facts.assert_zero_at_equality(lambda s, t: ensemble_kd_loss(s, [t, t, t]), student)


@every_loss
@pytest.mark.parametrize("dtype", PRECISIONS[1:], ids=str)
def test_low_precision_agrees_with_float64(loss, dtype):
    rtol = {torch.float32: 1e-5, torch.float16: 2e-3, torch.bfloat16: 2e-2}[dtype]
    facts.assert_agrees_with_float64(loss, *arguments(loss, dtype), rtol=rtol)


@every_loss
def test_works_under_autocast(loss):
    facts.assert_works_under_autocast(loss, *arguments(loss))


@every_loss
def test_nan_is_shown(loss):
    facts.assert_nan_is_shown(loss, *arguments(loss, torch.float32))


@pytest.mark.parametrize("loss", [dml_loss, ensemble_of_one], ids=lambda loss: loss.__name__)
@pytest.mark.parametrize(("dtype", "gap"), [(torch.float32, 450.0), (torch.float16, 40.0)], ids=str)
def test_finite_at_the_extremes(loss, dtype, gap):
    certain = (gap * torch.eye(K))[torch.arange(N) % K].to(dtype)
    ordinary = facts.random_tensor(N, K, dtype=dtype)
    extremes = [
        certain,
        certain.roll(1, dims=1),
        -certain,
        ordinary[:1].repeat(N, 1),
        torch.full((N, K), 0.1, dtype=dtype),
        torch.zeros(N, K, dtype=dtype),
    ]
    for student in extremes:
        for teacher in extremes:
            facts.assert_finite(loss, student, teacher)
            facts.assert_agrees_with_float64(loss, student, teacher, rtol=2e-3)


def test_ensemble_logits_of_many_float16_peers_do_not_overflow():
    peers = [torch.full((1, 2), 40000.0).half() for _ in range(4)]
    torch.testing.assert_close(ensemble_logits(peers), peers[0])


def test_two_classes_are_enough():
    student, peer = pair()
    facts.assert_learns_only_from_difference(dml_loss, student[:, :2], peer[:, :2])


# Bad input


@pytest.mark.parametrize("shape", [(0, K), (N,), (N, K, 1), (N, 1)], ids=str)
def test_refuses_logits_of_another_shape(shape):
    logits = torch.zeros(shape)
    assert str(shape) in facts.assert_rejects(dml_loss, logits, logits, naming="student_logits")
    naming = r"student_logits" if shape[-1] == 1 else r"list_of_logits\[0\]"
    assert str(shape) in facts.assert_rejects(ensemble_kd_loss, logits, [logits], naming=naming)


def test_refuses_logits_that_differ_in_shape():
    student, peer = pair()
    facts.assert_rejects(dml_loss, student, peer[:, :-1], naming="peer_logits")
    facts.assert_rejects(ensemble_kd_loss, student, [peer[:, :-1]], naming=r"list_of_logits")
    facts.assert_rejects(ensemble_kd_loss, student, [peer, peer[:-1]], naming=r"list_of_logits\[1\]")
    message = facts.assert_rejects(ensemble_logits, [peer, student, peer[:1]], naming=r"list_of_logits\[2\]")
    assert f"({N}, {K})" in message and f"(1, {K})" in message


def test_refuses_an_ensemble_of_nobody():
    facts.assert_rejects(ensemble_logits, [], naming="list_of_logits")
    facts.assert_rejects(ensemble_kd_loss, pair()[0], [], naming="list_of_logits")


@pytest.mark.parametrize("temperature", [0, -1.0, math.nan])
def test_refuses_a_temperature_that_is_not_positive(temperature):
    student, peer = pair()
    facts.assert_rejects(dml_loss, student, peer, temperature=temperature, naming="temperature")
    facts.assert_rejects(ensemble_kd_loss, student, [peer], temperature=temperature, naming="temperature")
