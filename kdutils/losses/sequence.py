"""Knowledge of models that write: losses on the next token, at every position of a text.

N is the batch, L the number of tokens, V the size of the vocabulary, T the temperature. At one position p is
the teacher's distribution over the vocabulary and q the student's. `kd_loss` with a mask, written out in
notebook 12, is the forward KL, KL(p ‖ q). Here are the other divergences, the loss on knowledge that was
stored for a few tokens only, and those on texts that the teacher or the student wrote.

Every loss takes logits (N, L, V), or (..., V), and a mask of the leading shape; what they share (`mask`,
`denominator`, `class_dim`, temperatures) is described in `kdutils.losses.response`. All divergences have the
factor T², as everywhere in this library. TRL, torchtune and axolotl leave it out: theirs are these divided
by T².

Logits at position t are about token t + 1: `next_token` makes that shift in one place. Prompt and padding
are masked, and the end token is kept, or the student never learns to stop. Where padding and the end token
share an id, take the mask from lengths, not from ids:

    positions = torch.arange(tokens.shape[1])
    mask = (positions >= prompt_lengths[:, None]) & (positions < lengths[:, None])

Teacher and student must share a tokenizer. No gradient flows through the sampling of a text.
"""

import math
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from kdutils._numerics import (
    at_least_float32,
    inner_products,
    kept_rows,
    kl_divergence,
    log_probabilities,
)
from kdutils._validate import (
    description,
    number,
    paired_rows,
    position_count,
    require_class_dim,
    require_floating,
    require_indices,
    require_mask,
    require_temperature,
)

PAIR = "student_logits", "teacher_logits"
REST = ("bucket", "renormalize", "sampled")


def next_token(logits: Tensor, tokens: Tensor, mask: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Lays what a model says at each position beside the token that it is about, the next one.

    Args:
        logits: Shape (N, L, V), one row for every token that the model read.
        tokens: The text that it read, shape (N, L); where the mask is zero any number.
        mask: Which of these tokens are to be learned, shape (N, L): zero for prompt and padding, one for the
            answer with its end token. The first token is never learned: nothing comes before it.

    Returns:
        Logits (N, L − 1, V), the tokens that they are about (N, L − 1), and which of them count, booleans
        (N, L − 1). Call it once for the student and once for the teacher.

    Raises:
        ValueError: If a shape or the mask is not as described, or L < 2.
    """
    require_floating("logits", logits)
    if logits.dim() != 3 or logits.shape[1] < 2:
        raise ValueError(f"logits: expected shape (N, L, V) with L >= 2, got {tuple(logits.shape)}")
    if mask is None:
        raise ValueError("mask: expected which tokens are to be learned, shape (N, L), got None")
    kept = require_mask("mask", mask, logits.shape[:2], may_be_empty=True)
    require_indices("tokens", tokens, logits.shape[:2], logits.shape[2], kept)
    return logits[:, :-1], tokens[:, 1:], mask[:, 1:] == 1


def reverse_kl_loss(
    student_logits: Tensor,
    teacher_logits: Tensor,
    mask: Tensor | None = None,
    *,
    temperature: float | Tensor = 1.0,
    class_dim: int | None = None,
    denominator: float | Tensor | None = None,
) -> Tensor:
    """Reverse KL divergence, of the teacher's answer from the student's, times T², in nats.

        T² · KL(q ‖ p) = T² · Σ q · (log q − log p)

    Summed over V, averaged over the positions that count. It is mode-seeking: the student is charged for what
    it says and the teacher would not, and not for what it leaves out. The gradient flows through q on both
    sides; `kd_loss` with its arguments swapped is no substitute, since it cuts one of them off.

    Args:
        student_logits: Unnormalized, shape (N, L, V) or (..., V), V >= 2.
        teacher_logits: The same shape. They get no gradient. A −inf that the student does not share makes
            the loss infinite.
        mask: Which positions count, the logits' shape without V; None for all.
        temperature: T.
        class_dim: Dimension of the vocabulary; by default the last of two or three.
        denominator: Number to divide the sum over the positions by, instead of their number.

    Returns:
        A 0-dim tensor, >= 0, zero where both give the same probabilities.

    Raises:
        ValueError: If a shape, a dtype, the mask or a setting is not as described.

    Source: Gu et al. 2024, "MiniLLM", sec. 2.1, for the divergence; here position by position, on given
    texts.
    """
    student, teacher, _ = paired_rows(PAIR, student_logits, teacher_logits, mask, class_dim, denominator)
    temperature = require_temperature(temperature)
    divergence = kl_divergence(
        log_probabilities(student, temperature), log_probabilities(teacher, temperature)
    )
    return (temperature**2 * (divergence / position_count(student, denominator))).to(student.dtype)


def generalized_jsd_loss(
    student_logits: Tensor,
    teacher_logits: Tensor,
    mask: Tensor | None = None,
    *,
    beta: float = 0.5,
    temperature: float | Tensor = 1.0,
    class_dim: int | None = None,
    denominator: float | Tensor | None = None,
) -> Tensor:
    """Generalized Jensen–Shannon divergence, between forward and reverse KL, times T², in nats.

        T² · [β · KL(p ‖ M) + (1 − β) · KL(q ‖ M)],  M = β · p + (1 − β) · q

    Averaged over the positions that count. β weighs the teacher, in the mixture and in the sum, as in the
    paper and in TRL; DistiLLM's `lam` weighs the student: lam = 1 − β. A small β pulls in the direction of
    the forward KL, a large one in that of the reverse, but the gradient vanishes at both ends: relative to
    the reverse KL's it is .006 at β = .01, .075 at .5 and .007 at .99. So the ends are refused here. TRL puts
    the forward KL at β = 0 and the reverse KL at β = 1, which is a jump.

    Args:
        student_logits: Unnormalized, shape (N, L, V) or (..., V), V >= 2.
        teacher_logits: The same shape. They get no gradient.
        mask: Which positions count, the logits' shape without V; None for all.
        beta: β, strictly between 0 and 1.
        temperature: T.
        class_dim: Dimension of the vocabulary; by default the last of two or three.
        denominator: Number to divide the sum over the positions by, instead of their number.

    Returns:
        A 0-dim tensor, >= 0, at most T² · log 2, zero where both give the same probabilities.

    Raises:
        ValueError: If a shape, a dtype, the mask or a setting is not as described.

    Source: Agarwal et al. 2024, "On-Policy Distillation of Language Models", eq. 1.
    """
    student, teacher, _ = paired_rows(PAIR, student_logits, teacher_logits, mask, class_dim, denominator)
    expected = "a number strictly between 0 and 1; for 0 take kd_loss, the forward KL, for 1 reverse_kl_loss"
    beta = float(number("beta", beta, expected, lambda value: 0 < value < 1))
    temperature = require_temperature(temperature)
    log_student, log_teacher = (log_probabilities(rows, temperature) for rows in (student, teacher))
    log_mixture = _log_mixture(beta, log_teacher, log_student)
    divergence = beta * kl_divergence(log_teacher, log_mixture)
    divergence = divergence + (1 - beta) * kl_divergence(log_student, log_mixture)
    return (temperature**2 * (divergence / position_count(student, denominator))).to(student.dtype)


def skew_kl_loss(
    student_logits: Tensor,
    teacher_logits: Tensor,
    mask: Tensor | None = None,
    *,
    alpha: float = 0.1,
    temperature: float | Tensor = 1.0,
    class_dim: int | None = None,
    denominator: float | Tensor | None = None,
) -> Tensor:
    """Skew KL divergence, of a student mixed with some of the teacher, times T², in nats.

        T² · KL(p ‖ α · p + (1 − α) · q)

    Averaged over the positions that count. α weighs the teacher in the mixture. It bounds the loss, by
    T² · log 1/α, where the student all but excludes what the teacher says. α = 0 is the forward KL, as in
    `kd_loss`.

    Args:
        student_logits: Unnormalized, shape (N, L, V) or (..., V), V >= 2.
        teacher_logits: The same shape. They get no gradient.
        mask: Which positions count, the logits' shape without V; None for all.
        alpha: α, from 0 to below 1.
        temperature: T.
        class_dim: Dimension of the vocabulary; by default the last of two or three.
        denominator: Number to divide the sum over the positions by, instead of their number.

    Returns:
        A 0-dim tensor, >= 0, zero where both give the same probabilities.

    Raises:
        ValueError: If a shape, a dtype, the mask or a setting is not as described.

    Source: Ko et al. 2024, "DistiLLM", sec. 3.1. Their code leaves out the teacher's entropy, which has no
    gradient: its value is that of a cross-entropy.
    """
    student, teacher, _ = paired_rows(PAIR, student_logits, teacher_logits, mask, class_dim, denominator)
    alpha = float(number("alpha", alpha, "a number from 0 to below 1", lambda value: 0 <= value < 1))
    temperature = require_temperature(temperature)
    log_student, log_teacher = (log_probabilities(rows, temperature) for rows in (student, teacher))
    divergence = kl_divergence(log_teacher, _log_mixture(alpha, log_teacher, log_student))
    return (temperature**2 * (divergence / position_count(student, denominator))).to(student.dtype)


def sparse_kd_loss(
    student_logits: Tensor,
    token_ids: Tensor,
    token_log_probs: Tensor,
    mask: Tensor | None = None,
    *,
    rest: str = "bucket",
    temperature: float | Tensor = 1.0,
    denominator: float | Tensor | None = None,
) -> Tensor:
    """Forward KL divergence from a teacher of whom k tokens a position were stored, times T², in nats.

    What became of the V − k others is said by `rest`:

    - "bucket": ids of the most probable tokens. The others are one further class, which has the missing mass
      on both sides. The student learns how much to leave to them, though not how to share it out.
    - "renormalize": the same ids, their probabilities divided by their sum. Biased, and here for comparison:
      it teaches that the others never occur, so the student becomes overconfident.
    - "sampled": ids that were drawn from the teacher, repeated as often as they were drawn, so that an id
      counts for count / k. Value and gradient are those of `kd_loss` on average, however small k is. A single
      draw is noisy, and its gradient is not zero where the student equals the teacher.

    Averaged over the positions that count.

    Args:
        student_logits: Unnormalized, shape (N, L, V) or (..., V), V >= 2.
        token_ids: Ids from 0 to V − 1 of an integer dtype, shape (N, L, k) or (..., k), each one once, except
            in "sampled".
        token_log_probs: The teacher's log-probabilities of these ids at the temperature T, over the whole
            vocabulary, the same shape. Where fewer than k were stored, −inf beside any id fills up. They get
            no gradient.
        mask: Which positions count, the logits' shape without V; None for all.
        rest: "bucket", "renormalize" or "sampled".
        temperature: T, at which the log-probabilities were taken; the student's logits are divided by it.
        denominator: Number to divide the sum over the positions by, instead of their number.

    Returns:
        A 0-dim tensor. "bucket" is >= 0 and at most `kd_loss`, zero where both give the same probabilities to
        the stored ids; "renormalize" is zero where the student gives all mass to the stored ids; "sampled"
        can be negative.

    Raises:
        ValueError: If a shape, a dtype, an id, the mask or a setting is not as described, if an id stands
            twice, or if the probabilities of a position sum to more than 1.

    Source: Anshumann et al. 2025, "Sparse Logit Sampling", for "sampled" and the bias of "renormalize".
    """
    require_class_dim(PAIR[0], student_logits, -1)
    kept = require_mask("mask", mask, student_logits.shape[:-1], may_be_empty=denominator is not None)
    ids, log_probs = _stored(student_logits, token_ids, token_log_probs, kept, rest)
    temperature = require_temperature(temperature)
    student = kept_rows(student_logits, kept)
    log_student = log_probabilities(student, temperature)
    of_stored = log_student.gather(1, ids)
    if rest == "sampled":
        divergence = (log_probs - of_stored).sum() / ids.shape[1]
    elif rest == "renormalize":
        divergence = kl_divergence(F.log_softmax(log_probs, dim=1), of_stored)
    else:
        divergence = kl_divergence(
            torch.cat([log_probs, _log_missing(log_probs, student.shape[1])], dim=1),
            torch.cat([of_stored, _log_rest(log_student, ids, log_probs)], dim=1),
        )
    return (temperature**2 * (divergence / position_count(student, denominator))).to(student.dtype)


def sequence_kd_loss(
    student_logits: Tensor,
    token_ids: Tensor,
    mask: Tensor | None = None,
    *,
    denominator: float | Tensor | None = None,
) -> Tensor:
    """Cross-entropy on texts that the teacher wrote, in nats: sequence-level distillation.

        −log q(token)

    Averaged over the positions that count. Nothing of the teacher is needed but its texts, so any tokenizer
    will do. Texts that were sampled from it make this an estimate of KL(p ‖ q) + H(p), which has the gradient
    of `kd_loss` on average, at the positions that the teacher came to. Greedy ones and those of a beam search
    teach a sharper distribution than the teacher's own, and the value is no divergence.

    Args:
        student_logits: Unnormalized, shape (N, L, V) or (..., V), V >= 2, at the position before each token.
        token_ids: The teacher's tokens, shape (N, L) or (...); at masked positions any number.
        mask: Which positions count, the same shape; None for all.
        denominator: Number to divide the sum over the positions by, instead of their number.

    Returns:
        A 0-dim tensor, >= 0.

    Raises:
        ValueError: If a shape, a dtype, an id, the mask or the denominator is not as described.

    Source: Kim and Rush 2016, "Sequence-Level Knowledge Distillation", sec. 3.2.
    """
    require_class_dim(PAIR[0], student_logits, -1)
    shape, vocabulary = student_logits.shape[:-1], student_logits.shape[-1]
    kept = require_mask("mask", mask, shape, may_be_empty=denominator is not None)
    require_indices("token_ids", token_ids, shape, vocabulary, kept)
    student = kept_rows(student_logits, kept)
    targets = (token_ids.flatten() if kept is None else token_ids[kept]).long()
    total = F.cross_entropy(student, targets, reduction="sum")
    return (total / position_count(student, denominator)).to(student.dtype)


def policy_gradient_kd_loss(
    student_logits: Tensor,
    teacher_logits: Tensor,
    sampled_ids: Tensor,
    mask: Tensor | None = None,
    *,
    discount: float = 0.0,
    baseline: float | Tensor = 0.0,
    denominator: float | Tensor | None = None,
) -> Tensor:
    """Score-function loss whose gradient estimates that of the reverse KL, on texts that the student wrote.

        −(A − baseline) · log q(token),  A = −Σ_{u ≥ t} discount^(u − t) · (log q − log p)(token u)

    Averaged over the positions that count. The advantage A of the token at t has no gradient: tokens that
    the teacher likes better than the student are made more probable. With `discount` 0 each token answers for
    itself, and the gradient is on average that of `reverse_kl_loss` at the positions that the student came
    to. With 1 it answers also for all that follows, and the gradient of the sum over a text is on average
    that of the reverse KL between whole texts, at the price of more noise.

    Differentiating log q − log p itself would teach nothing: on the student's own samples the gradient of
    log q is zero on average, whatever the teacher says.

    Args:
        student_logits: Unnormalized, shape (N, L, V), at the position before each sampled token.
        teacher_logits: The same shape. They get no gradient.
        sampled_ids: Tokens drawn from the student's softmax as it is now, at temperature 1, shape (N, L).
            Divide both logits by the temperature if they were drawn at another.
        mask: Which of them count, shape (N, L); None for all. Padding after the end does not, the end does.
        discount: From 0 to 1.
        baseline: What is subtracted from every advantage, a number or a tensor of shape (N, L), such as the
            mean of earlier advantages. It changes the noise, not the average, if it does not depend on the
            token at its position or on later ones. It gets no gradient.
        denominator: Number to divide the sum over the positions by, instead of their number.

    Returns:
        A 0-dim tensor for `backward`. Its value is no divergence: watch `reverse_kl_loss` instead.

    Raises:
        ValueError: If a shape, a dtype, an id, the mask or a setting is not as described.

    Source: Gu et al. 2024, "MiniLLM", sec. 2.2 (policy gradient); Williams 1992 (REINFORCE).
    """
    require_floating(PAIR[0], student_logits)
    if student_logits.dim() != 3:
        raise ValueError(f"student_logits: expected shape (N, L, V), got {tuple(student_logits.shape)}")
    student, teacher, kept = paired_rows(PAIR, student_logits, teacher_logits, mask, None, denominator)
    shape = student_logits.shape[:2]
    require_indices("sampled_ids", sampled_ids, shape, student_logits.shape[2], kept)
    discount = float(number("discount", discount, "a number from 0 to 1", lambda value: 0 <= value <= 1))
    tokens = (sampled_ids.flatten() if kept is None else sampled_ids[kept]).long()
    log_student, log_teacher = (
        -F.cross_entropy(rows, tokens, reduction="none") for rows in (student, teacher)
    )
    if kept is None:
        kept = torch.ones(shape, dtype=torch.bool, device=student.device)
    rewards = torch.zeros(shape, dtype=student.dtype, device=student.device)
    rewards[kept] = (log_teacher - log_student).detach().to(student.dtype)
    advantages = _discounted(rewards, discount) - _baseline(baseline, shape)
    loss = -(advantages[kept] * log_student).sum() / position_count(student, denominator)
    return loss.to(student.dtype)


def _log_mixture(weight: float, log_teacher: Tensor, log_student: Tensor) -> Tensor:
    """Logarithm of weight · teacher + (1 − weight) · student, finite where both are 0."""
    log_weight = math.log(weight) if weight > 0 else -math.inf
    # two times −inf would have no gradient: a number whose exponential is 0 all the same
    first = (log_teacher + log_weight).clamp(min=torch.finfo(log_teacher.dtype).min)
    return torch.logaddexp(first, log_student + math.log1p(-weight))


def _stored(
    student_logits: Tensor, token_ids: Any, token_log_probs: Any, kept: Tensor | None, rest: str
) -> tuple[Tensor, Tensor]:
    """What was stored for the kept positions, checked: ids and log-probabilities, both (M, k)."""
    shape, vocabulary = student_logits.shape[:-1], student_logits.shape[-1]
    require_floating("token_log_probs", token_log_probs)
    if token_log_probs.shape[:-1] != shape or 0 in token_log_probs.shape:
        expected = f"({', '.join(map(str, shape))}, k)"
        raise ValueError(
            f"token_log_probs: expected shape {expected} with k >= 1, got {tuple(token_log_probs.shape)}"
        )
    require_indices("token_ids", token_ids, token_log_probs.shape, vocabulary, kept)
    if not isinstance(rest, str) or rest not in REST:
        raise ValueError(f"rest: expected one of {', '.join(REST)}, got {description(rest)}")
    log_probs = kept_rows(token_log_probs.detach(), kept)
    ids = (token_ids.flatten(0, -2) if kept is None else token_ids[kept]).long()
    if log_probs.device.type == "cpu":
        _require_knowledge(ids, log_probs, rest)
    return ids, log_probs


def _require_knowledge(ids: Tensor, log_probs: Tensor, rest: str) -> None:
    """Raises ValueError for what can be no part of a distribution, or no draw from it."""
    is_empty = log_probs == -math.inf
    if rest == "sampled":
        if is_empty.any():
            raise ValueError("token_log_probs: expected those of tokens that were drawn, got −inf")
        return
    if is_empty.all(dim=1).any():
        raise ValueError("token_log_probs: expected at least one token at every position, got −inf only")
    slots = torch.arange(ids.shape[1], device=ids.device)
    in_order = torch.where(is_empty, -1 - slots, ids).sort(dim=1).values
    if (in_order[:, 1:] == in_order[:, :-1]).any():
        raise ValueError(
            'token_ids: expected every id once at a position unless rest="sampled", got one twice'
        )
    mass = log_probs.exp().sum(dim=1)
    # logarithms in half precision are off by up to one in a hundred of the probability
    if (mass > 1.02).any():
        raise ValueError(
            f"token_log_probs: expected probabilities that sum to at most 1, got {mass.max().item():.4g}"
        )


def _log_missing(log_probs: Tensor, vocabulary: int) -> Tensor:
    """Logarithm of what the stored probabilities leave to the rest, (M, 1); −inf where nothing is left."""
    missing = -torch.expm1(log_probs.logsumexp(dim=1, keepdim=True).clamp(max=0))
    is_complete = (log_probs > -math.inf).sum(dim=1, keepdim=True) == vocabulary
    return missing.log().masked_fill(is_complete, -math.inf)


def _log_rest(log_student: Tensor, ids: Tensor, log_probs: Tensor) -> Tensor:
    """Logarithm of the student's probability of all ids that were not stored, (M, 1)."""
    # an empty slot names the likeliest id once more, so that the id beside it stays in the rest
    likeliest = ids.gather(1, log_probs.argmax(dim=1, keepdim=True))
    ids = torch.where(log_probs == -math.inf, likeliest, ids)
    others = log_student.scatter(1, ids, torch.finfo(log_student.dtype).min)
    return others.logsumexp(dim=1, keepdim=True)


def _discounted(rewards: Tensor, discount: float) -> Tensor:
    """Each position's reward and all later ones, (N, L), these multiplied by the discount once per step."""
    steps = torch.arange(rewards.shape[1], device=rewards.device)
    ahead = steps - steps[:, None]  # from the row's position to the column's
    weights = torch.full_like(ahead, discount, dtype=rewards.dtype) ** ahead.clamp(min=0)
    return inner_products(rewards, torch.where(ahead >= 0, weights, 0.0))


def _baseline(baseline: Any, shape: torch.Size) -> float | Tensor:
    if isinstance(baseline, Tensor) and baseline.shape == shape:
        require_floating("baseline", baseline)
        return at_least_float32(baseline.detach())
    expected = f"a finite number or a tensor of shape {tuple(shape)}"
    value = number("baseline", baseline, expected, math.isfinite)
    return value.detach() if isinstance(value, Tensor) else value
