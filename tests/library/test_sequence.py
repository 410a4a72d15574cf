"""The losses on sequences against their sums written out, the conventions of other libraries, sampling."""

import functools
import itertools
import math

import loss_facts as facts
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st

from kdutils.losses import (
    generalized_jsd_loss,
    kd_loss,
    next_token,
    policy_gradient_kd_loss,
    reverse_kl_loss,
    sequence_kd_loss,
    skew_kl_loss,
    sparse_kd_loss,
)

N, L, V = 3, 4, 6
MASK = torch.tensor([[0, 1, 1, 0], [1, 1, 1, 1], [0, 0, 1, 0]])


def logits(seed=0, shape=(N, L, V), dtype=torch.float64, std=2.0):
    student = facts.random_tensor(*shape, seed=2 * seed, dtype=dtype, std=std)
    return student, facts.random_tensor(*shape, seed=2 * seed + 1, dtype=dtype, std=std)


# The sums, in float64, one position and one token at a time.


def probabilities(row, temperature):
    powers = torch.exp(row / temperature)
    return powers / powers.sum()


def kl(p, q):
    return sum(p[v] * torch.log(p[v] / q[v]) for v in range(len(p)))


def position_mean(formula):
    """A formula for the two distributions of one position, averaged over all that count, times T²."""

    def averaged(student, teacher, mask=None, *, temperature=1.0, **settings):
        rows = [
            (probabilities(student[n][i], temperature), probabilities(teacher[n][i], temperature))
            for n in range(len(student))
            for i in range(student.shape[1])
            if mask is None or mask[n][i]
        ]
        return temperature**2 * sum(formula(s, t, **settings) for s, t in rows) / len(rows)

    return averaged


@position_mean
def forward_kl_formula(s, t):
    return kl(t, s)


@position_mean
def reverse_kl_formula(s, t):
    return kl(s, t)


@position_mean
def jsd_formula(s, t, beta=0.5):
    mixture = beta * t + (1 - beta) * s
    return beta * kl(t, mixture) + (1 - beta) * kl(s, mixture)


@position_mean
def skew_formula(s, t, alpha=0.1):
    return kl(t, alpha * t + (1 - alpha) * s)


FORMULAS = {
    kd_loss: functools.partial(forward_kl_formula, temperature=4.0),
    reverse_kl_loss: reverse_kl_formula,
    generalized_jsd_loss: jsd_formula,
    skew_kl_loss: skew_formula,
}
every_divergence = pytest.mark.parametrize("loss", FORMULAS, ids=lambda loss: loss.__name__)


@every_divergence
@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("mask", [None, MASK, MASK.bool()], ids=["all", "a mask", "booleans"])
def test_equals_the_sum(loss, seed, mask):
    facts.assert_matches_formula(loss, FORMULAS[loss], *logits(seed), mask)


@every_divergence
@pytest.mark.parametrize("temperature", [0.7, 1.0, 3.0, 20.0])
def test_equals_the_sum_at_every_temperature(loss, temperature):
    facts.assert_matches_formula(
        functools.partial(loss, temperature=temperature),
        functools.partial(FORMULAS[loss], temperature=temperature),
        *logits(),
        MASK,
    )


@pytest.mark.parametrize("weight", [0.01, 0.1, 0.3, 0.9, 0.99])
def test_equals_the_sum_for_every_weight(weight):
    for loss, name in ((generalized_jsd_loss, "beta"), (skew_kl_loss, "alpha")):
        facts.assert_matches_formula(
            functools.partial(loss, **{name: weight}),
            functools.partial(FORMULAS[loss], **{name: weight}),
            *logits(),
            MASK,
        )


@settings(max_examples=25, deadline=None, derandomize=True)
@given(
    seed=st.integers(0, 1000),
    std=st.sampled_from([0.1, 2.0, 8.0]),
    mask=st.lists(st.lists(st.booleans(), min_size=L, max_size=L), min_size=N, max_size=N),
    temperature=st.floats(0.5, 10),
    weight=st.floats(0.05, 0.95),
)
def test_divergences_are_the_sums_and_never_negative(seed, std, mask, temperature, weight):
    mask = torch.tensor(mask)
    mask[0, 1] = True
    student, teacher = logits(seed, std=std)
    weights = {generalized_jsd_loss: {"beta": weight}, skew_kl_loss: {"alpha": weight}}
    for loss, formula in FORMULAS.items():
        given_settings = {"temperature": temperature} | weights.get(loss, {})
        value = loss(student, teacher, mask, **given_settings)
        expected = formula(student, teacher, mask, **given_settings)
        torch.testing.assert_close(value, expected, rtol=1e-6, atol=1e-9)
        assert value >= -1e-9
    assert generalized_jsd_loss(student, teacher, mask, beta=weight) <= math.log(2)
    assert skew_kl_loss(student, teacher, mask, alpha=weight) <= -math.log(weight)


# What every divergence owes


@every_divergence
def test_gradient_is_exact(loss):
    facts.assert_gradient_is_exact(loss, *logits(shape=(2, 2, 4)), torch.tensor([[1, 0], [1, 1]]))


@every_divergence
def test_learns_only_from_difference(loss):
    facts.assert_learns_only_from_difference(loss, *logits(), MASK)
    facts.assert_teacher_gets_no_gradient(loss, *logits(), MASK)


@every_divergence
@pytest.mark.parametrize("dtype", [torch.float32, *facts.LOW_PRECISION], ids=str)
def test_low_precision_agrees_with_float64(loss, dtype):
    rtol = {torch.float32: 1e-5, torch.float16: 2e-3, torch.bfloat16: 2e-2}[dtype]
    facts.assert_agrees_with_float64(loss, *logits(dtype=dtype), MASK, rtol=rtol)
    facts.assert_works_under_autocast(loss, *logits(), MASK)


@every_divergence
def test_a_nan_is_shown(loss):
    facts.assert_nan_is_shown(loss, *logits(dtype=torch.float32))


@every_divergence
@pytest.mark.parametrize(("dtype", "gap"), [(torch.float32, 450.0), (torch.float16, 40.0)], ids=str)
def test_finite_and_right_at_the_extremes(loss, dtype, gap):
    certain = (gap * torch.eye(V))[torch.arange(N * L) % V].view(N, L, V).to(dtype)
    ordinary = logits(dtype=dtype)[0]
    extremes = (certain, certain.roll(1, dims=-1), -certain, ordinary, torch.zeros_like(ordinary))
    for student, teacher in itertools.product(extremes, extremes):
        facts.assert_finite(loss, student, teacher, MASK)
        facts.assert_agrees_with_float64(loss, student, teacher, MASK, rtol=2e-3)


@every_divergence
def test_tokens_that_both_sides_mask_are_as_if_they_were_not_there(loss):
    """A padded vocabulary, whose surplus ids have a logit of −inf."""
    student, teacher = logits()
    expected = facts.value_and_gradient(loss, student, teacher, MASK)
    padded = [F.pad(rows, (0, 3), value=-math.inf) for rows in (student, teacher)]
    value, gradient = facts.value_and_gradient(loss, *padded, MASK)
    torch.testing.assert_close((value, gradient[..., :V]), expected)
    assert gradient[..., V:].abs().max() == 0


def test_what_only_one_side_excludes():
    """Forward KL is infinite where the student excludes, reverse where the teacher does, mixtures nowhere."""
    student, teacher = logits()
    blind = (
        student.index_fill(2, torch.tensor(1), -math.inf),
        teacher.index_fill(2, torch.tensor(1), -math.inf),
    )
    assert kd_loss(blind[0], teacher).item() == reverse_kl_loss(student, blind[1]).item() == math.inf
    for pair in ((blind[0], teacher), (student, blind[1])):
        for loss in (generalized_jsd_loss, skew_kl_loss):
            facts.assert_finite(loss, *pair)
    facts.assert_finite(kd_loss, student, blind[1])
    facts.assert_finite(reverse_kl_loss, blind[0], teacher)


# Directions


def test_the_gradient_of_reverse_kl_flows_through_both_sides_of_the_logarithm():
    """A forward KL with its arguments swapped stops it on one side: another value, another gradient."""
    student, teacher = logits()
    swapped = student.clone().requires_grad_()
    value = kd_loss(teacher.requires_grad_(), swapped, temperature=1.0)
    value.backward()
    torch.testing.assert_close(value.detach(), reverse_kl_loss(student, teacher.detach()))
    assert swapped.grad is None  # all of it went to the teacher
    _, gradient = facts.value_and_gradient(reverse_kl_loss, student, teacher.detach())
    s = student.softmax(-1)
    log_ratio = student.log_softmax(-1) - teacher.detach().log_softmax(-1)
    expected = s * (log_ratio - (s * log_ratio).sum(-1, keepdim=True)) / (N * L)
    torch.testing.assert_close(gradient, expected)


def test_the_generalized_jsd_turns_from_forward_to_reverse_and_vanishes_at_both_ends():
    def cosine(one, other):
        return F.cosine_similarity(one.flatten(), other.flatten(), dim=0)

    student, teacher = logits(shape=(10, 5, 50))
    forward = facts.value_and_gradient(functools.partial(kd_loss, temperature=1.0), student, teacher)[1]
    reverse = facts.value_and_gradient(reverse_kl_loss, student, teacher)[1]
    sizes = []
    for beta in (1e-4, 0.01, 0.5, 0.99, 1 - 1e-4):
        loss = functools.partial(generalized_jsd_loss, beta=beta)
        gradient = facts.value_and_gradient(loss, student, teacher)[1]
        sizes.append((gradient.norm() / reverse.norm()).item())
        if beta == 1e-4:
            assert (gradient / beta).norm().item() == pytest.approx(forward.norm().item(), rel=0.05)
            assert cosine(gradient, forward) > 0.99 > cosine(gradient, reverse)
        if beta == 1 - 1e-4:
            assert cosine(gradient, reverse) > 0.99 > cosine(gradient, forward)
    assert sizes[0] < sizes[1] < 0.02 < 0.05 < sizes[2] < 0.1
    assert sizes[4] < sizes[3] < 0.02


def test_the_ends_of_the_generalized_jsd_name_the_two_divergences():
    for end in (0, 1, 0.0, 1.0):
        sentence = facts.assert_rejects(generalized_jsd_loss, *logits(), beta=end, naming="beta")
        assert "kd_loss, the forward KL" in sentence and "reverse_kl_loss" in sentence
    for wrong in (-0.1, 1.1, math.nan):
        facts.assert_rejects(generalized_jsd_loss, *logits(), beta=wrong, naming="beta")


def test_skew_kl_is_forward_kl_at_zero():
    student, teacher = logits()
    zero = facts.value_and_gradient(functools.partial(skew_kl_loss, alpha=0.0), student, teacher, MASK)
    forward = facts.value_and_gradient(functools.partial(kd_loss, temperature=1.0), student, teacher, MASK)
    torch.testing.assert_close(zero, forward)
    for wrong in (1.0, -0.1, math.nan):
        facts.assert_rejects(skew_kl_loss, student, teacher, alpha=wrong, naming="alpha")


# What other libraries compute, written by hand from their sources, is ours up to the factor said


LABELS = torch.where(MASK == 1, torch.arange(L) % V, -100)


def trl_generalized_jsd(student, teacher, labels, beta, temperature):
    """TRL's GKD trainer: forward KL at beta = 0, reverse KL at 1, no T²; a mean over the labels not −100."""
    log_s, log_t = (F.log_softmax(rows / temperature, dim=-1) for rows in (student, teacher))
    if beta == 0:
        jsd = F.kl_div(log_s, log_t, reduction="none", log_target=True)
    elif beta == 1:
        jsd = F.kl_div(log_t, log_s, reduction="none", log_target=True)
    else:
        log_m = torch.stack([log_s + math.log(1 - beta), log_t + math.log(beta)]).logsumexp(dim=0)
        of_teacher = F.kl_div(log_m, log_t, reduction="none", log_target=True)
        of_student = F.kl_div(log_m, log_s, reduction="none", log_target=True)
        jsd = beta * of_teacher + (1 - beta) * of_student
    kept = labels != -100
    return jsd[kept].sum() / kept.sum()


@pytest.mark.parametrize("beta", [0, 0.1, 0.5, 0.9, 1])
@pytest.mark.parametrize("temperature", [0.9, 1.0, 2.0])
def test_trl_is_this_divided_by_t_squared(beta, temperature):
    ours = {
        0: kd_loss,
        1: reverse_kl_loss,
    }.get(beta, functools.partial(generalized_jsd_loss, beta=beta))
    facts.assert_matches_formula(
        lambda s, t: ours(s, t, MASK, temperature=temperature),
        lambda s, t: temperature**2 * trl_generalized_jsd(s, t.detach(), LABELS, beta, temperature),
        *logits(),
    )


def cross_entropy_by_hand(p, log_q, labels):
    """torchtune and DistiLLM: −Σ p · log q, averaged over the labels not −100."""
    kept = (labels != -100).int()
    return -((p * log_q).sum(dim=-1) * kept).sum() / kept.sum()


def entropy(teacher, kept):
    p = teacher.softmax(dim=-1)
    return -(p * p.log()).sum(dim=-1)[kept].mean()


def test_torchtunes_forward_kl_is_a_cross_entropy_above_this_by_the_teachers_entropy():
    facts.assert_matches_formula(
        lambda s, t: kd_loss(s, t, MASK, temperature=1.0) + entropy(t, MASK.bool()),
        lambda s, t: cross_entropy_by_hand(t.softmax(-1), s.log_softmax(-1), LABELS),
        *logits(),
    )


def test_distillms_skew_kl_is_a_cross_entropy_above_this_by_the_teachers_entropy():
    def by_hand(s, t, lam=0.1):
        mixture = lam * t.softmax(-1) + (1 - lam) * s.softmax(-1)
        return cross_entropy_by_hand(t.softmax(-1), mixture.log(), LABELS)

    facts.assert_matches_formula(
        lambda s, t: skew_kl_loss(s, t, MASK, alpha=0.1) + entropy(t, MASK.bool()), by_hand, *logits()
    )


def test_distillms_lam_is_one_minus_beta():
    def by_hand(s, t, lam=0.9):
        s, t = s.softmax(-1), t.softmax(-1)
        mixture = (1 - lam) * t + lam * s
        of_student, of_teacher = s * (s.log() - mixture.log()), t * (t.log() - mixture.log())
        kept = MASK.bool()
        return (lam * of_student + (1 - lam) * of_teacher).sum(-1)[kept].mean()

    facts.assert_matches_formula(lambda s, t: generalized_jsd_loss(s, t, MASK, beta=0.1), by_hand, *logits())


def test_modelopts_batchmean_is_kd_loss_and_its_mean_divides_by_the_vocabulary_too():
    def by_hand(s, t, reduction, temperature=3.0):
        log_s, soft = (s / temperature).log_softmax(-1), (t / temperature).softmax(-1)
        return temperature**2 * F.kl_div(log_s.view(-1, V), soft.view(-1, V), reduction=reduction)

    student, teacher = logits()
    loss = kd_loss(student, teacher, temperature=3.0)
    torch.testing.assert_close(by_hand(student, teacher, "batchmean"), loss)
    with pytest.warns(UserWarning, match="batchmean"):
        torch.testing.assert_close(V * by_hand(student, teacher, "mean"), loss)


# Reduction: what public code gets wrong is far from these


def test_every_token_weighs_the_same():
    """The mean of the texts' own means weighs the one token of the last text four times one of the second."""
    student, teacher = logits()
    alone = [kd_loss(student[n : n + 1], teacher[n : n + 1], MASK[n : n + 1]) for n in range(N)]
    counts = MASK.sum(dim=1)
    total = sum(count * loss for count, loss in zip(counts, alone, strict=True)) / counts.sum()
    torch.testing.assert_close(kd_loss(student, teacher, MASK), total)
    assert (sum(alone) / N - total).abs() > 0.01 * total


def test_padding_a_batch_further_changes_nothing():
    student, teacher = logits()
    mask = F.pad(MASK, (2, 3))
    for loss in FORMULAS:
        expected = loss(student, teacher, MASK)
        padded = [
            F.pad(rows, (0, 0, 2, 3), value=junk) for rows, junk in ((student, math.nan), (teacher, 7.0))
        ]
        torch.testing.assert_close(loss(*padded, mask), expected, rtol=1e-12, atol=0)


# The shift by one


def answers(prompt_lengths, lengths):
    """Which tokens are to be learned, as the module's docstring writes it."""
    positions = torch.arange(L)
    return (positions >= prompt_lengths[:, None]) & (positions < lengths[:, None])


def test_logits_are_laid_beside_the_token_that_they_are_about():
    student, _ = logits()
    tokens = torch.tensor([[5, 0, 1, 2], [5, 3, 2, 2], [5, 4, 3, 2]])
    mask = answers(torch.tensor([1, 2, 1]), torch.tensor([4, 3, 4]))
    shifted, targets, kept = next_token(student, tokens, mask)
    for n, i in itertools.product(range(N), range(L - 1)):
        assert torch.equal(shifted[n, i], student[n, i])
        assert targets[n, i] == tokens[n, i + 1]
        assert kept[n, i] == mask[n, i + 1]
    assert kept.dtype == torch.bool
    assert torch.equal(next_token(student, tokens, mask.long())[2], kept)


def test_the_end_token_is_kept_where_padding_shares_its_id():
    """Ids cannot tell them apart; lengths can."""
    end = 2
    tokens = torch.tensor([[5, 0, end, end], [5, 0, 1, end]])
    mask = answers(torch.tensor([1, 1]), torch.tensor([3, 4]))
    _, targets, kept = next_token(torch.zeros(2, L, V), tokens, mask)
    assert targets[kept].tolist() == [0, end, 0, 1, end]


def test_neither_prompt_nor_padding_changes_a_shifted_loss():
    tokens = torch.randint(V, (N, L), generator=torch.Generator().manual_seed(0))
    mask = answers(torch.tensor([2, 1, 1]), torch.tensor([4, 3, 2]))
    student, teacher = logits()

    def loss(student, teacher, tokens):
        student, targets, kept = next_token(student, tokens, mask)
        teacher, _, _ = next_token(teacher, tokens, mask)
        return kd_loss(student, teacher, kept) + sequence_kd_loss(student, targets, kept)

    expected = loss(student, teacher, tokens)
    about = F.pad(mask[:, 1:], (0, 1))  # positions whose logits are about an answer
    other = [rows.masked_fill(~about[..., None], math.nan) for rows in (student, teacher)]
    torch.testing.assert_close(loss(*other, tokens.masked_fill(~mask, -100)), expected)


def test_the_first_token_is_never_learned():
    _, _, kept = next_token(*logits()[:1], torch.zeros(N, L, dtype=torch.long), torch.ones(N, L))
    assert kept.shape == (N, L - 1)
    facts.assert_rejects(
        next_token, torch.zeros(N, 1, V), torch.zeros(N, 1).long(), torch.ones(N, 1), naming="logits"
    )


def test_next_token_refuses_what_does_not_fit():
    student, tokens = logits()[0], torch.zeros(N, L, dtype=torch.long)
    facts.assert_rejects(next_token, student[0], tokens[0], MASK[0], naming="logits")
    facts.assert_rejects(next_token, student, tokens[:, 1:], MASK, naming="tokens")
    facts.assert_rejects(next_token, student, tokens + V, MASK, naming="tokens")
    facts.assert_rejects(next_token, student, tokens.float(), MASK, naming="tokens")
    facts.assert_rejects(next_token, student, tokens, MASK[:, 1:], naming="mask")
    facts.assert_rejects(next_token, student, tokens, None, naming="mask")
    facts.assert_rejects(next_token, None, tokens, MASK, naming="logits")


# Knowledge of k tokens


def top_k(teacher, k, temperature=1.0):
    log_probs, ids = (teacher / temperature).log_softmax(-1).topk(k)
    return ids, log_probs


def bucket_formula(student, ids, log_probs, mask=None, temperature=1.0):
    """k classes and one for all others, one position at a time."""
    terms = []
    for n, i in itertools.product(range(N), range(L)):
        if mask is None or mask[n, i]:
            s, p, kept = probabilities(student[n, i], temperature), log_probs[n, i].exp(), ids[n, i]
            others = [v for v in range(V) if v not in kept.tolist()]
            divergence = sum(p[j] * torch.log(p[j] / s[kept[j]]) for j in range(len(p)))
            missing = 1 - p.sum()
            terms.append(divergence + missing * torch.log(missing / s[others].sum()))
    return temperature**2 * sum(terms) / len(terms)


@pytest.mark.parametrize("k", [1, 2, 5])
@pytest.mark.parametrize("temperature", [1.0, 3.0])
def test_bucket_equals_the_sum_over_k_classes_and_the_rest(k, temperature):
    student, teacher = logits()
    ids, log_probs = top_k(teacher, k, temperature)
    for mask in (None, MASK):
        facts.assert_matches_formula(
            lambda s, t, mask=mask: sparse_kd_loss(s, ids, t, mask, temperature=temperature),
            lambda s, t, mask=mask: bucket_formula(s, ids, t, mask, temperature),
            student,
            log_probs,
        )
    facts.assert_teacher_gets_no_gradient(lambda s, t: sparse_kd_loss(s, ids, t), student, log_probs)


@settings(max_examples=30, deadline=None, derandomize=True)
@given(seed=st.integers(0, 1000), k=st.integers(1, V), std=st.sampled_from([0.3, 2.0, 10.0]))
def test_bucket_lies_between_nothing_and_the_whole_divergence(seed, k, std):
    """Classes thrown together hide differences: the more are stored, the nearer to `kd_loss`."""
    student, teacher = logits(seed, std=std)
    losses = [sparse_kd_loss(student, *top_k(teacher, m)).item() for m in range(k, V + 1)]
    assert losses[0] >= -1e-12
    assert all(fewer <= more + 1e-12 for fewer, more in itertools.pairwise(losses))
    assert losses[-1] == pytest.approx(kd_loss(student, teacher, temperature=1.0).item(), rel=1e-6, abs=1e-12)


def test_bucket_is_zero_where_the_stored_tokens_agree():
    _, teacher = logits()
    ids, log_probs = top_k(teacher, 2)
    value, gradient = facts.value_and_gradient(lambda s, t: sparse_kd_loss(s, ids, t), teacher, log_probs)
    assert value.abs() < 1e-12 and gradient.abs().max() < 1e-12
    # a student that shares out the rest equally
    level = (1 - log_probs.exp().sum(-1, keepdim=True)) / (V - 2)
    flat = level.expand_as(teacher).scatter(2, ids, log_probs.exp()).log()
    assert sparse_kd_loss(flat, ids, log_probs).abs() < 1e-12
    assert kd_loss(flat, teacher, temperature=1.0) > 0.01


def test_empty_slots_stand_for_nothing():
    """A fixed k for positions at which fewer tokens were kept: −inf beside any id."""
    student, teacher = logits()
    ids, log_probs = top_k(teacher, 2)
    for filler in (0, 3, ids[..., :1]):
        filled = torch.cat([ids, torch.zeros(N, L, 2, dtype=torch.long) + filler], dim=-1)
        padded = F.pad(log_probs, (0, 2), value=-math.inf)
        for order in ([0, 1, 2, 3], [3, 0, 2, 1]):
            for rest in ("bucket", "renormalize"):
                found = facts.value_and_gradient(
                    lambda s, t, i=filled[..., order], r=rest: sparse_kd_loss(s, i, t, rest=r),
                    student,
                    padded[..., order],
                )
                expected = facts.value_and_gradient(
                    lambda s, t, r=rest: sparse_kd_loss(s, ids, t, rest=r), student, log_probs
                )
                torch.testing.assert_close(found, expected)


def test_all_tokens_stored_are_the_whole_divergence_in_float32_too():
    """Rounding leaves a rest of 1e-7, for which the student has no class."""
    for seed in range(20):
        student, teacher = logits(seed, dtype=torch.float32)
        loss = sparse_kd_loss(student, *top_k(teacher, V))
        torch.testing.assert_close(loss, kd_loss(student, teacher, temperature=1.0), rtol=1e-4, atol=1e-6)


def test_renormalized_knowledge_teaches_that_the_others_never_occur():
    student, teacher = logits()
    ids, log_probs = top_k(teacher, 2)
    p = torch.zeros(N, L, V, dtype=torch.float64).scatter(2, ids, log_probs.softmax(-1))
    expected = (torch.xlogy(p, p) - p * student.log_softmax(-1)).sum(-1).mean()
    torch.testing.assert_close(sparse_kd_loss(student, ids, log_probs, rest="renormalize"), expected)
    _, gradient = facts.value_and_gradient(
        lambda s, t: sparse_kd_loss(s, ids, t, rest="renormalize"), teacher, log_probs
    )
    others = gradient.scatter(2, ids, 1.0)
    assert others.min() > 0  # at a perfect student it still pushes all others down


@pytest.mark.parametrize("k", [1, 3])
def test_sampled_knowledge_is_unbiased(k):
    """The average over all draws, each weighted by its probability, is `kd_loss`: value and gradient."""
    student, teacher = (row[:1, :1, :3] for row in logits())
    log_p = teacher.log_softmax(-1)[0, 0]
    values, gradients = [], []
    for draw in itertools.product(range(3), repeat=k):
        ids = torch.tensor(draw)
        weight = log_p[ids].sum().exp()
        value, gradient = facts.value_and_gradient(
            lambda s, t, i=ids: sparse_kd_loss(s, i[None, None], t, rest="sampled"),
            student,
            log_p[ids][None, None],
        )
        values.append(weight * value)
        gradients.append(weight * gradient)
    expected = facts.value_and_gradient(functools.partial(kd_loss, temperature=1.0), student, teacher)
    torch.testing.assert_close((sum(values), sum(gradients)), expected)


def test_ids_drawn_twice_count_twice():
    student, teacher = logits()
    log_probs = teacher.log_softmax(-1)
    twice = torch.tensor([4, 1, 4]).expand(N, L, 3)
    loss = sparse_kd_loss(student, twice, log_probs.gather(2, twice), rest="sampled")
    gap = (log_probs - student.log_softmax(-1)).mean(dim=(0, 1))
    torch.testing.assert_close(loss, (2 * gap[4] + gap[1]) / 3)


@pytest.mark.parametrize("rest", ["bucket", "renormalize", "sampled"])
def test_stored_knowledge_in_half_precision(rest):
    student, teacher = logits(dtype=torch.float32)
    ids, log_probs = top_k(teacher, 3)
    expected = sparse_kd_loss(student, ids, log_probs, rest=rest)
    for dtype in facts.LOW_PRECISION:
        for of_ids in (torch.uint8, torch.int16, torch.uint16, torch.int32):
            loss = sparse_kd_loss(student, ids.to(of_ids), log_probs.to(dtype), rest=rest)
            assert loss.dtype == torch.float32
            torch.testing.assert_close(loss, expected, rtol=0.03, atol=0.01)
    facts.assert_works_under_autocast(
        lambda s, t: sparse_kd_loss(s, ids, t, rest=rest), student, log_probs, rtol=0.05
    )


def test_stored_knowledge_that_cannot_be_a_distribution_is_refused():
    student, teacher = logits()
    ids, log_probs = top_k(teacher, 2)
    rejects = functools.partial(facts.assert_rejects, sparse_kd_loss, student)
    rejects(ids + V, log_probs, naming="token_ids")
    assert "from 0 to 5" in rejects(ids - 1, log_probs, naming="token_ids")
    rejects(ids[..., :1], log_probs, naming="token_ids")
    rejects(ids.double(), log_probs, naming="token_ids")
    assert "one twice" in rejects(ids[..., [0, 0]], log_probs, naming="token_ids")
    assert "(3, 4, k)" in rejects(ids[:, 1:], log_probs[:, 1:], naming="token_log_probs")
    rejects(ids, teacher.gather(2, ids) + 10, naming="token_log_probs")  # logits
    rejects(ids, torch.full_like(log_probs, -math.inf), naming="token_log_probs")
    rejects(ids, log_probs.masked_fill(ids == 0, -math.inf), rest="sampled", naming="token_log_probs")
    for wrong in ("tail", None, 3, ["bucket"]):
        assert "bucket, renormalize, sampled" in rejects(ids, log_probs, rest=wrong, naming="rest")


def test_ids_that_wrap_round_are_refused_by_their_dtype():
    """int16 ends at 32,767; ids beyond come back negative, or as those of other tokens."""
    student = torch.zeros(1, 1, 40_000)
    ids = torch.tensor([[[39_999]]])
    sentence = facts.assert_rejects(
        sparse_kd_loss, student, ids.to(torch.int16), torch.zeros(1, 1, 1), naming="token_ids"
    )
    assert "reaches 39999, got torch.int16" in sentence
    for dtype in (torch.uint16, torch.int32):
        assert sparse_kd_loss(student, ids.to(dtype), torch.zeros(1, 1, 1)).isfinite()


def test_a_truncated_divergence_without_the_rest_would_go_negative():
    """Public code adds up the k terms and stops: below zero, where a clamp then hides it."""
    _, teacher = logits()
    certain = teacher.clone()
    ids, log_probs = top_k(teacher, 2)
    certain.scatter_add_(2, ids, torch.full(ids.shape, 3.0, dtype=torch.float64))
    of_stored = certain.log_softmax(-1).gather(2, ids)
    truncated = (log_probs.exp() * (log_probs - of_stored)).sum(-1).mean()
    assert truncated < -0.1 < 0 < sparse_kd_loss(certain, ids, log_probs)


# The teacher's texts


def test_sequence_kd_is_the_cross_entropy_over_the_kept_tokens():
    student, _ = logits()
    tokens = torch.randint(V, (N, L), generator=torch.Generator().manual_seed(0))
    ignored = torch.where(MASK == 1, tokens, -100)
    expected = F.cross_entropy(student.flatten(0, 1), ignored.flatten(), ignore_index=-100)
    torch.testing.assert_close(sequence_kd_loss(student, tokens, MASK), expected)
    torch.testing.assert_close(sequence_kd_loss(student, ignored, MASK), expected)
    facts.assert_rejects(sequence_kd_loss, student, ignored, naming="token_ids")


def test_sampled_texts_estimate_the_divergence_and_the_teachers_entropy():
    """The average over the tokens that a teacher may write, weighted by their probabilities."""
    student, teacher = logits(shape=(1, 1, V))
    p = teacher.softmax(-1)[0, 0]
    values, gradients = zip(
        *(
            facts.value_and_gradient(
                lambda s, _, v=v: sequence_kd_loss(s, torch.tensor([[v]])), student, None
            )
            for v in range(V)
        ),
        strict=True,
    )
    expected = facts.value_and_gradient(functools.partial(kd_loss, temperature=1.0), student, teacher)
    entropy = -(p * p.log()).sum()
    torch.testing.assert_close(sum(p * torch.stack(values)), expected[0] + entropy)
    torch.testing.assert_close(sum(w * g for w, g in zip(p, gradients, strict=True)), expected[1])


# The student's texts: a language of two tokens and texts of three, in which every text can be counted


WORDS, LENGTH = 2, 3
TEXTS = torch.tensor(list(itertools.product(range(WORDS), repeat=LENGTH)))


def prefixes(table):
    """Logits (8, 3, 2) of a model that has a row for every prefix; the table holds one row for each of 7."""
    rows = [[0, 1 + text[0], 3 + 2 * text[0] + text[1]] for text in TEXTS.tolist()]
    return table[torch.tensor(rows)]


def of_texts(table):
    """The logarithm of the probability of each of the eight texts."""
    return prefixes(table).log_softmax(-1).gather(2, TEXTS[..., None]).squeeze(-1).sum(dim=1)


def expected_gradient(student_table, teacher_table, **settings):
    """The average of the loss's gradient over all texts that the student may write, and its values."""
    table = student_table.clone().requires_grad_()
    weights = of_texts(student_table).exp()
    losses = [
        policy_gradient_kd_loss(
            prefixes(table)[i : i + 1],
            prefixes(teacher_table)[i : i + 1],
            TEXTS[i : i + 1],
            denominator=1,
            **settings,
        )
        for i in range(len(TEXTS))
    ]
    return torch.autograd.grad(sum(w * loss for w, loss in zip(weights, losses, strict=True)), table)[0]


def tables(seed=0):
    return tuple(facts.random_tensor(7, WORDS, seed=seed + which) for which in (0, 50))


@pytest.mark.parametrize("baseline", [0.0, -1.3])
def test_with_discount_one_the_gradient_is_that_of_the_reverse_kl_between_texts(baseline):
    student, teacher = tables()
    table = student.clone().requires_grad_()
    divergence = (of_texts(table).exp() * (of_texts(table) - of_texts(teacher))).sum()
    (expected,) = torch.autograd.grad(divergence, table)
    found = expected_gradient(student, teacher, discount=1.0, baseline=baseline)
    torch.testing.assert_close(found, expected)


@pytest.mark.parametrize("baseline", [0.0, 2.0])
def test_with_discount_zero_it_is_that_of_the_reverse_kl_at_the_positions_that_the_student_came_to(baseline):
    student, teacher = tables()
    table = student.clone().requires_grad_()
    weights = of_texts(student).exp()  # how often each text, and so each prefix, comes up: no gradient here
    per_text = torch.stack(
        [
            reverse_kl_loss(prefixes(table)[i : i + 1], prefixes(teacher)[i : i + 1], denominator=1)
            for i in range(len(TEXTS))
        ]
    )
    (expected,) = torch.autograd.grad((weights * per_text).sum(), table)
    torch.testing.assert_close(expected_gradient(student, teacher, baseline=baseline), expected)
    whole = expected_gradient(student, teacher, discount=1.0)
    assert (whole - expected).abs().max() > 0.01


def test_differentiating_the_sampled_log_ratio_teaches_nothing():
    """On average, over all texts that the student may write, its gradient is zero, whatever the teacher."""
    student, teacher = tables()
    table = student.clone().requires_grad_()
    log_ratio = of_texts(table) - of_texts(teacher)
    (gradient,) = torch.autograd.grad((of_texts(student).exp() * log_ratio).sum(), table)
    assert gradient.abs().max() < 1e-12
    assert expected_gradient(student, teacher).abs().max() > 0.01


@pytest.mark.parametrize("discount", [0.0, 0.5, 1.0])
def test_advantages_are_the_sums_written_out(discount):
    student, teacher = logits()
    tokens = torch.randint(V, (N, L), generator=torch.Generator().manual_seed(0))

    def formula(s, t, mask):
        log_s, log_t = (rows.log_softmax(-1).gather(2, tokens[..., None]).squeeze(-1) for rows in (s, t))
        rewards = (log_t - log_s).detach() * mask
        terms = []
        for n, i in itertools.product(range(N), range(L)):
            if mask[n, i]:
                advantage = sum(discount ** (u - i) * rewards[n, u] for u in range(i, L))
                terms.append(-(advantage - 0.3) * log_s[n, i])
        return sum(terms) / len(terms)

    facts.assert_matches_formula(
        lambda s, t, m: policy_gradient_kd_loss(s, t, tokens, m, discount=discount, baseline=0.3),
        formula,
        student,
        teacher,
        MASK,
    )


def test_a_student_that_equals_its_teacher_has_nothing_to_learn():
    student, _ = logits()
    tokens = torch.randint(V, (N, L), generator=torch.Generator().manual_seed(0))
    for discount in (0.0, 1.0):
        loss = functools.partial(policy_gradient_kd_loss, discount=discount)
        facts.assert_zero_at_equality(lambda s, t, loss=loss: loss(s, t, tokens, MASK), student)
    facts.assert_teacher_gets_no_gradient(policy_gradient_kd_loss, *logits(), tokens, MASK)


def test_a_baseline_may_be_given_for_every_token_and_gets_no_gradient():
    student, teacher = logits()
    tokens = torch.zeros(N, L, dtype=torch.long)
    baseline = torch.full((N, L), 0.3, requires_grad=True)
    loss = policy_gradient_kd_loss(student.requires_grad_(), teacher, tokens, MASK, baseline=baseline)
    torch.testing.assert_close(loss, policy_gradient_kd_loss(student, teacher, tokens, MASK, baseline=0.3))
    loss.backward()
    assert baseline.grad is None
    for wrong in (torch.zeros(N, L + 1), torch.zeros(N, L).long(), math.nan, "mean", None):
        facts.assert_rejects(
            policy_gradient_kd_loss, student, teacher, tokens, baseline=wrong, naming="baseline"
        )


def test_the_score_function_loss_works_in_low_precision():
    tokens = torch.randint(V, (N, L), generator=torch.Generator().manual_seed(0))
    facts.assert_works_under_autocast(
        lambda s, t: policy_gradient_kd_loss(s, t, tokens, MASK, discount=0.9), *logits()
    )
    student, teacher = logits(dtype=torch.float32)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        loss = policy_gradient_kd_loss(student, teacher, tokens, MASK, discount=0.9)
    torch.testing.assert_close(loss, policy_gradient_kd_loss(student, teacher, tokens, MASK, discount=0.9))


def test_the_students_texts_need_their_shape():
    student, teacher = logits()
    tokens = torch.zeros(N, L, dtype=torch.long)
    rejects = functools.partial(facts.assert_rejects, policy_gradient_kd_loss)
    rejects(student[0], teacher[0], tokens[0], naming="student_logits")
    rejects(student, teacher, tokens[:, 1:], naming="sampled_ids")
    rejects(student, teacher, tokens + V, naming="sampled_ids")
    for wrong in (-0.1, 1.1, math.nan, "1", None):
        rejects(student, teacher, tokens, discount=wrong, naming="discount")


# Sizes


def test_vocabularies_that_differ_are_refused_with_advice():
    student, teacher = logits()
    tokens = torch.zeros(N, L, dtype=torch.long)
    sentence = facts.assert_rejects(
        policy_gradient_kd_loss, student, teacher[..., :-1], tokens, naming="teacher_logits"
    )
    assert "logits[..., :len(tokenizer)]" in sentence
