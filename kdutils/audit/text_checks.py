"""The tests of a loss on the next token. Each returns the slip that it found, as a sentence, or None."""

from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from kdutils.audit.bench import DoesNotApply, close
from kdutils.audit.checks import MIN_SOFT_WEIGHT, is_pushed_away, sum_to_one
from kdutils.audit.forms import SLIPPED_FORMS, Evidence, Fit, best_fit, kl, reverse_kl
from kdutils.audit.probe import MAX_REST_PULL, random_like, without_label_term
from kdutils.audit.texts import SAME_WEIGHT, SparseProbe, Text, large

MAX_ROWS = 8  # positions whose gradients are compared with formulas
MAX_LOGITS = 2**16  # in all of these: a vocabulary of 50,000 words takes one
FLAT_STD = 0.5  # of made-up logits that leave no token without a share
MIN_FLOOR = 0.01  # nats, from which on the least value of a loss is not rounding
SHARP = 20.0  # factor that leaves a teacher no doubt
CERTAIN = 6.0  # logit that leaves little to the others, and not so little that a loss cuts it off

FORWARD = "forward KL, KL(teacher ‖ student)"
KL_FORMS = {FORWARD: kl, "reverse KL, KL(student ‖ teacher)": reverse_kl}


def labels_not_ahead(text: Text) -> str | None:
    """Whether a position is trained to say another token than the next one."""
    if not text.labels_count.any():
        raise DoesNotApply("no labels enter the loss")
    if text.offset is None:
        raise DoesNotApply("the labels are not the text that the student reads")
    if text.offset == 0:
        return (
            "no shift by one: the student is trained to repeat the token that it has just read; "
            "logits[:, :-1] belong to labels[:, 1:]"
        )
    if text.offset == 2:
        return "shifted twice: the labels are one token ahead already, and the loss shifts them again"
    return None


def teacher_at_another_position(text: Text) -> str | None:
    """Whether the student's answer at a position is compared with the teacher's at another one."""
    probe = text.probe
    student, teacher, other = probe.logits
    column = int(text.teacher_counts.sum(dim=0).argmax())
    changed = teacher.clone()
    changed[:, column] = other[:, column]
    change = probe.gradient(student, teacher) - probe.gradient(student, changed)
    reached = large(change.norm(dim=(0, 2))).nonzero().flatten().tolist()
    if len(reached) != 1 or reached == [column]:
        return None
    ahead = reached[0] - column
    return (
        f"the student's answer at one position is compared with the teacher's {abs(ahead)} "
        f"{'before' if ahead > 0 else 'after'} it: shift both by one, or neither"
    )


def ignored_tokens_count(text: Text) -> str | None:
    """Whether positions count that the batch's labels or masks leave out."""
    if text.to_learn is None:
        raise DoesNotApply("the batch leaves out no token, by a mask (N, L) or a negative label")
    expected, counts = text.to_learn[:, :-1], text.teacher_counts[:, :-1]
    unshifted = text.to_learn_unshifted
    if unshifted is not None and counts.equal(unshifted[:, :-1]) and not counts.equal(expected):
        if _begins_with_a_prompt(unshifted) or text.labels is not None:
            return (
                "the mask is not shifted by one: the position that is about the first token to learn does "
                "not count, and the one after the last does; logits[:, :-1] belong to mask[:, 1:] (of a mask "
                "that is about logits already, say so by the role 'positions')"
            )
        return None
    terms = {"teacher's": counts}
    if text.offset != 0:  # labels that are not shifted count at the wrong positions, too
        terms["labels'"] = text.labels_count[:, :-1]
    for term, counted in terms.items():
        wrong = counted & ~expected
        if wrong.any():
            kinds = [name for name, part in _outside(expected).items() if (wrong & part).any()]
            return (
                f"{int(wrong.sum())} positions count in the {term} term that the batch leaves out "
                f"({' and '.join(kinds)}), of {int(counted.sum())} that count"
            )
    return None


def _begins_with_a_prompt(to_learn: Tensor) -> bool:
    return bool((~to_learn[:, 0]).any())


def _outside(expected: Tensor) -> dict[str, Tensor]:
    """Positions before the first that is to be learned, after the last, and between them."""
    begun = expected.cumsum(dim=1) > 0
    over = expected.flip(1).cumsum(dim=1).flip(1) == 0
    return {"prompt": ~begun & ~over, "padding": over, "between answers": begun & ~over & ~expected}


def end_token_ignored(text: Text) -> str | None:
    """Whether the last token of every text is not learned."""
    counts = text.teacher_counts | text.labels_count
    if text.tokens.shape[1] < 3 or not counts.any(dim=1).all():
        raise DoesNotApply("there are texts of which nothing counts")
    last = counts.shape[1] - 1 - counts.flip(1).int().argmax(dim=1)  # the last position that counts
    ends = text.tokens.gather(1, (last + 1).clamp(max=counts.shape[1] - 1).unsqueeze(1))
    if len(ends.unique()) == 1:
        return None  # all texts that are learned end alike
    given = _given_masks(text)
    if given and text.labels is not None:
        last_real = text.tokens.shape[1] - 1 - given[0].flip(1).int().argmax(dim=1)
        if (last + 1 < last_real).all():
            return (
                "the last real token of every text is masked, as the end token is where pad and end share an "
                "id: the student never learns to stop; take the mask from lengths, not from ids"
            )
        return None
    left_out = [row[start + 2 :] for row, start in zip(text.tokens, last.tolist(), strict=True)]
    if min(map(len, left_out)) == 1 and len(torch.cat(left_out).unique()) == 1:
        return (
            f"the last token to count differs from text to text, and all go on with {int(left_out[0][0])}, "
            "the longest with one: the end token seems to be masked as padding, with which it shares its "
            "id; take the mask from lengths, not from ids"
        )
    return None


def _given_masks(text: Text) -> list[Tensor]:
    """Masks that the student is given: they say which tokens are real."""
    bench = text.probe.bench
    given = set(bench.pattern.sources.values()) if bench.pattern else set()
    masks = [bench.tensors[path].bool() for path in bench.places("mask") if path in given]
    return [mask for mask in masks if mask.shape == text.tokens.shape]


def tokens_weigh_differently(text: Text) -> str | None:
    """Whether parts of the batch are averaged by themselves, so that tokens of long ones weigh less."""
    weights = text.weights
    if weights is None:
        raise DoesNotApply("the loss does not treat all positions alike")
    counted = weights[text.teacher_counts]
    ratio = (counted.max() / counted.min()).item()
    if ratio < 1 + SAME_WEIGHT:
        return None
    if text.probe.bench.places("other"):
        raise DoesNotApply("the batch holds other numbers, which may be weights")
    # in a mean of means every part has the same weight in total, so equal shares are whole multiples
    weighing = [(counted - value).abs() < SAME_WEIGHT * value for value in _distinct(counted)]
    totals = torch.stack([counted[part].sum() for part in weighing])
    multiples = totals / totals.min()
    if (multiples - multiples.round()).abs().max() > SAME_WEIGHT * multiples.max():
        return None
    return (
        f"a mean of means: a token weighs up to {ratio:.3g} times as much as another, because parts of the "
        "batch (texts, chunks) are averaged by themselves; add up over all tokens that count, then divide"
    )


def _distinct(values: Tensor) -> list[float]:
    """Values that differ by more than their tolerance."""
    found: list[float] = []
    for value in values.sort().values.tolist():
        if not found or value > found[-1] * (1 + SAME_WEIGHT):
            found.append(value)
    return found


def rest_ignored(text: Text) -> str | None:
    """Whether only the teacher's most probable tokens count, and nothing stands for the others."""
    probe = text.probe
    answer = probe.compared.student_answer
    vocabulary = answer.shape[-1]
    flat = FLAT_STD * random_like(answer, seed=4)[:1, :1].expand_as(answer)
    order = flat[0, 0].argsort(descending=True)
    rare = order[vocabulary // 2 :]
    exchanged = flat.clone()
    exchanged[..., rare] = flat[..., rare.roll(1)]
    student, _, _ = probe.logits
    if isinstance(probe, SparseProbe):
        rare = order[probe.num_stored :]
    else:
        gradient, with_exchanged = (probe.gradient(student, probe.as_said(t)) for t in (flat, exchanged))
        if not close(gradient, with_exchanged):
            return None
    confident = flat.clone()
    confident[..., rare] -= CERTAIN
    pulls = probe.gradient(confident, probe.as_said(flat))[text.teacher_counts][:, rare]
    if (pulls < 0).float().mean() > 0.5:
        return None
    return (
        "only the teacher's most probable tokens count, and nothing stands for the rest: the student learns "
        "that these few have all the probability; add one class for the rest, on both sides"
    )


def drawn_elsewhere(text: Text) -> str | None:
    """Whether a student is drawn anywhere but to its teacher."""
    probe = text.probe
    if isinstance(probe, SparseProbe):
        raise DoesNotApply("knowledge is stored for a few tokens only, at a temperature that is not known")
    if teacher_at_another_position(text) is not None:
        raise DoesNotApply("student and teacher are compared at different tokens")
    evidence = _evidence(text)
    if not any(best_fit(form, evidence).holds for form in KL_FORMS.values()):
        for slip, forms in SLIPPED_FORMS.items():
            if any(best_fit(form, evidence).holds for form in forms):
                return slip
    _, teacher, _ = probe.logits
    rest = probe.at_rest
    if text.offset is not None:
        labels = F.one_hot(text.labels_used, rest.shape[-1]).to(rest.dtype)
        flat = [t.flatten(0, 1) for t in (rest, teacher.softmax(dim=-1), labels)]
        rest = without_label_term(*flat).reshape(rest.shape)
    if rest.norm() > MAX_REST_PULL * probe.pull.norm():
        if text.offset is None:
            probe.require_known_labels()
        return (
            "a student that equals the teacher is still pulled, and not only by the labels: "
            "are both softened alike, and is each softmax taken once?"
        )
    return (
        "the student is pushed away from the teacher: a sign is inverted" if is_pushed_away(probe) else None
    )


def out_of_proportion(text: Text) -> str | None:
    """Whether teacher's and labels' term are reduced in different ways."""
    scale = _scale(text)
    soft, hard, n = scale.soft, scale.hard, text.tokens.shape[0]
    counted, vocabulary = scale.counted, text.probe.compared.student_answer.shape[-1]
    means = {1.0, float(counted), counted / n, counted / text.tokens.numel()}  # what both may be multiples of
    if any(_usual(scale, soft / common, hard / common) for common in means):
        return None
    found = f"{soft:.3g} at T = {scale.fit.temperature:.3g}, labels {hard:.3g}"
    if _usual(scale, soft * vocabulary, hard):
        return (
            f"{found}: the teacher's term is divided by the {vocabulary} words of the vocabulary, too, as "
            'reduction="mean" does'
        )
    if hard > 0 and any(_usual(scale, soft / factor, hard) for factor in (counted, counted / n)):
        return f"{found}: the teacher's term is a sum over tokens, the labels' a mean"
    if hard > 0 and _usual(scale, soft * text.tokens.numel() / counted, hard):
        return f"{found}: the teacher's term is divided by all positions, padding too, the labels' is not"
    if soft < MIN_SOFT_WEIGHT * hard:
        return f"{found}: the teacher hardly counts. Divided by the size of the vocabulary?"
    return None


class Scale(NamedTuple):
    """What the teacher's term and the labels' are multiples of.

    Attributes:
        form: The divergence's name.
        fit: Its temperature.
        soft: The sum of all positions' weights in the teacher's term; T² is a part of it.
        hard: The same in the labels' cross-entropy, 0 without labels.
        counted: Positions that count in the teacher's term.
    """

    form: str
    fit: Fit
    soft: float
    hard: float
    counted: int


def _scale(text: Text) -> Scale:
    if isinstance(text.probe, SparseProbe) or text.weights is None:
        raise DoesNotApply("the loss is no KL divergence at one temperature, alike at all positions")
    rows = [tensor[0, 0] for tensor in text.rows]
    largest = text.pull.flatten(0, 1)[text.weights.argmax()]
    evidence = Evidence(*(row.detach().cpu().double().unsqueeze(0) for row in (*rows, largest)))
    fits = {name: best_fit(form, evidence) for name, form in KL_FORMS.items()}
    holding = [(name, fit) for name, fit in fits.items() if fit.holds]
    if not holding:
        raise DoesNotApply("the loss is no KL divergence at one temperature, alike at all positions")
    name, fit = holding[0]
    soft = fit.scale * text.weights.sum().item()
    if not text.labels_count.any():
        return Scale(name, fit, soft, 0.0, int(text.teacher_counts.sum()))
    if text.offset is None:
        raise DoesNotApply("the labels are not the text that the student reads")
    used = text.labels_used.unsqueeze(-1)
    shares = text.probe.logits[1].softmax(dim=-1).gather(-1, used)
    hard = -text.probe.at_rest.gather(-1, used) / (1 - shares)
    return Scale(name, fit, soft, hard[text.labels_count].sum().item(), int(text.teacher_counts.sum()))


def _usual(scale: Scale, soft: float, hard: float) -> bool:
    """Whether weights sum to one or are both one, with T² or, as in most libraries for texts, without it."""
    for weight in (soft / scale.fit.temperature**2, soft):
        both_one = sum_to_one(weight, 0.0) and (hard == 0 or sum_to_one(hard, 0.0))
        if sum_to_one(weight, hard) or both_one:
            return True
    return False


def conventions(text: Text) -> str:
    """In words, in which of the usual ways a sound loss is computed."""
    try:
        scale = _scale(text)
    except DoesNotApply:
        return ""
    t = scale.fit.temperature
    said = [f"{scale.form}, at T = {t:.3g}"]
    with_square, without = sum_to_one(scale.soft / t**2, scale.hard), sum_to_one(scale.soft, scale.hard)
    if without and not with_square:
        said.append("without the factor T², as in TRL, torchtune and axolotl")
    entropy = _entropy_in_the_loss(text) if scale.form == FORWARD and scale.hard == 0 else 0.0
    if entropy > MIN_FLOOR * scale.soft:
        said.append(f"a cross-entropy, as in torchtune: at best the teacher's entropy, {entropy:.3g} here")
    if with_square or without:
        said.append(
            "if you accumulate gradients, divide by the tokens of all micro-batches: a mean of their means "
            "weighs the tokens of short ones more"
        )
    return "; ".join(said)


def _entropy_in_the_loss(text: Text) -> float:
    """How much more a student that equals its teacher loses than with a teacher that is sure."""
    _, teacher, _ = text.probe.logits
    unsure, sure = (text.probe.loss(t, t).item() for t in (teacher, text.probe.as_said(SHARP * teacher)))
    return unsure - sure


def _evidence(text: Text) -> Evidence:
    """The pull at a few of the positions that count."""
    vocabulary = text.probe.compared.student_answer.shape[-1]
    num_rows = max(1, min(MAX_ROWS, MAX_LOGITS // vocabulary))
    places = text.teacher_counts.flatten().nonzero().flatten()[:num_rows]
    tensors = (*text.probe.logits, text.probe.pull)
    return Evidence(*(t.detach().flatten(0, 1)[places].cpu().double() for t in tensors))
