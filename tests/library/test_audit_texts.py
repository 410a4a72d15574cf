"""The audit of losses on the next token: right ones pass, in every usual convention; slips are named."""

import pytest
import torch
import torch.nn.functional as F
from audit_scene import only
from torch import nn

from kdutils.audit import audit
from kdutils.losses import kd_loss, sequence

N, L, V = 8, 10, 12
PAD, END = 0, 1


class Writer(nn.Module):
    """Tokens (N, L) to logits (N, L, V); what is said at a token depends on the mean of those so far."""

    def __init__(self, width, seed):
        super().__init__()
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            self.embedding, self.linear = nn.Embedding(V, width), nn.Linear(width, V)

    def forward(self, tokens, attention_mask=None):
        number = torch.arange(1, tokens.shape[1] + 1).unsqueeze(1)
        return self.linear(self.embedding(tokens).cumsum(dim=1) / number)


TEACHER = Writer(8, seed=1).eval().requires_grad_(False)


def texts(end=END, seed=0):
    """Tokens (N, L): prompt, answer, end token, padding; the length of each prompt, and of each text."""
    generator = torch.Generator().manual_seed(seed)
    tokens = torch.randint(2, V, (N, L), generator=generator)
    prompts = torch.randint(1, 4, (N,), generator=generator)
    lengths = torch.randint(6, L + 1, (N,), generator=generator)
    lengths[0] = L
    places = torch.arange(L)
    tokens[places >= lengths.unsqueeze(1)] = PAD
    tokens[torch.arange(N), lengths - 1] = end
    return tokens, prompts, lengths


TEXT, PROMPTS, LENGTHS = texts()
PLACES = torch.arange(L)
REAL = (LENGTHS.unsqueeze(1) > PLACES).long()
ANSWER = REAL * (PROMPTS.unsqueeze(1) <= PLACES).long()  # tokens to be learned, in the text's own places
LABELS = torch.where(ANSWER == 1, TEXT, -100)


def log_probs(logits, temperature=1.0):
    return F.log_softmax(logits / temperature, dim=-1)


def forward_kl(s, t, temperature=1.0):
    log_p, log_q = log_probs(t, temperature), log_probs(s, temperature)
    return (log_p.exp() * (log_p - log_q)).sum(dim=-1)


def reverse_kl(s, t, temperature=1.0):
    return forward_kl(t, s, temperature)


def jsd(s, t, beta=0.5):
    p, q = log_probs(t), log_probs(s)
    mixture = torch.logsumexp(
        torch.stack([p + torch.tensor(beta).log(), q + torch.tensor(1 - beta).log()]), dim=0
    )
    return beta * (p.exp() * (p - mixture)).sum(-1) + (1 - beta) * (q.exp() * (q - mixture)).sum(-1)


def skewed(s, t):
    p, q = log_probs(t), log_probs(s)
    return (p.exp() * (p - (0.1 * p.exp() + 0.9 * q.exp()).log())).sum(-1)


def of_masked(divergence, soft=0.5, hard=0.5):
    """A right loss_fn of (student, text, answer) out of a divergence per token."""

    def loss_fn(student, text, answer):
        s, t = student(text)[:, :-1], TEACHER(text)[:, :-1]
        kept, labels = answer[:, 1:].bool(), text[:, 1:]
        terms = {"soft": soft * divergence(s[kept], t[kept]).mean()}
        if hard:
            terms["hard"] = hard * F.cross_entropy(s[kept], labels[kept])
        return terms

    return loss_fn


def of_labels(reduce, hard=0.0):
    """A loss_fn of a dict batch as of Hugging Face, its losses per token reduced in some way."""

    def loss_fn(student, batch):
        given = (batch["input_ids"], batch["attention_mask"])
        s, t = student(*given)[:, :-1], TEACHER(*given)[:, :-1]
        labels = batch["labels"][:, 1:]
        kept = labels != -100
        soft = reduce(forward_kl(s, t), kept)
        return soft + hard * F.cross_entropy(s.flatten(0, 1), labels.flatten(), ignore_index=-100)

    return loss_fn


BATCH = (TEXT, ANSWER)
DICT_BATCH = {"input_ids": TEXT, "attention_mask": REAL, "labels": LABELS}
MEAN = lambda each, kept: (each * kept).sum() / kept.sum()  # noqa: E731

RIGHT = {
    "forward": forward_kl,
    "forward, T = 2, with T²": lambda s, t: 4 * forward_kl(s, t, 2.0),
    "forward, T = 2, without T², as in TRL": lambda s, t: forward_kl(s, t, 2.0),
    "reverse": reverse_kl,
    "reverse, T = 0.9": lambda s, t: reverse_kl(s, t, 0.9),
    "jsd": jsd,
    "jsd, beta = 0.1": lambda s, t: jsd(s, t, 0.1),
    "skew": skewed,
    "cross-entropy, as in torchtune": lambda s, t: -(log_probs(t).exp() * log_probs(s)).sum(dim=-1),
}


@pytest.mark.parametrize("name", RIGHT)
@pytest.mark.parametrize("hard", [0.0, 0.5])
def test_a_right_loss_passes(name, hard, capsys):
    soft = 1 - hard
    assert audit(of_masked(RIGHT[name], soft, hard), Writer(4, 0), TEACHER, BATCH) == []
    assert capsys.readouterr().out.count("✓ the labels are one token ahead") == bool(hard)


REDUCTIONS = {
    "mean over tokens": MEAN,
    "sum over all tokens of a step": lambda each, kept: (each * kept).sum() / 1000,
    "sum": lambda each, kept: (each * kept).sum(),
    "sum, divided by N": lambda each, kept: (each * kept).sum() / N,
}


@pytest.mark.parametrize("name", REDUCTIONS)
def test_a_right_loss_of_labels_passes(name):
    assert audit(of_labels(REDUCTIONS[name]), Writer(4, 0), TEACHER, DICT_BATCH) == []
    if name == "mean over tokens":
        assert audit(of_labels(REDUCTIONS[name], hard=1.0), Writer(4, 0), TEACHER, DICT_BATCH) == []


def test_whole_texts_without_mask_or_labels():
    text = torch.randint(2, V, (N, L), generator=torch.Generator().manual_seed(3))

    def all_positions(student, text):
        return forward_kl(student(text), TEACHER(text)).mean()

    def pairs(student, text, following):
        s = student(text)
        return forward_kl(s, TEACHER(text)).mean() + F.cross_entropy(s.flatten(0, 1), following.flatten())

    assert audit(all_positions, Writer(4, 0), TEACHER, (text,)) == []
    following = torch.cat([text[:, 1:], text[:, :1]], dim=1)
    assert audit(pairs, Writer(4, 0), TEACHER, (text, following)) == []


def test_a_mask_of_positions_is_named():
    def loss_fn(student, text, learned):
        return forward_kl(student(text), TEACHER(text))[learned.bool()].mean()

    batch = (TEXT[:, :-1], ANSWER[:, 1:])
    assert "by the role 'positions'" in only(audit(loss_fn, Writer(4, 0), TEACHER, batch))
    assert audit(loss_fn, Writer(4, 0), TEACHER, batch, roles={1: "positions"}) == []


def test_labels_and_mask_that_are_one_token_ahead():
    def loss_fn(student, text, following, learned):
        s, kept = student(text), learned.bool()
        return forward_kl(s, TEACHER(text))[kept].mean() + F.cross_entropy(s[kept], following[kept])

    assert audit(loss_fn, Writer(4, 0), TEACHER, (TEXT[:, :-1], TEXT[:, 1:], ANSWER[:, 1:])) == []


@pytest.mark.parametrize("kind", ["logits", "half", "log-probabilities"])
def test_stored_logits(kind):
    said = TEACHER(TEXT)
    stored = {"logits": said, "half": said.half(), "log-probabilities": log_probs(said)}[kind]

    def loss_fn(student, text, answer, said):
        kept = answer[:, 1:].bool()
        return 4 * forward_kl(student(text)[:, :-1][kept], said[:, :-1][kept].float(), 2.0).mean()

    assert audit(loss_fn, Writer(4, 0), TEACHER, (*BATCH, stored)) == []
    assert "out of step" in audit(loss_fn, Writer(4, 0), TEACHER, (*BATCH, stored.flip(0)))[0]


def test_conventions_are_said(capsys):
    for name, said in {
        "forward, T = 2, with T²": "· forward KL, KL(teacher ‖ student), at T = 2; if you accumulate",
        "forward, T = 2, without T², as in TRL": "at T = 2; without the factor T², as in TRL",
        "reverse": "· reverse KL, KL(student ‖ teacher), at T = 1",
        "cross-entropy, as in torchtune": "a cross-entropy, as in torchtune: at best the teacher's entropy",
    }.items():
        audit(of_masked(RIGHT[name], 1.0, 0.0), Writer(4, 0), TEACHER, BATCH)
        assert said in capsys.readouterr().out


@pytest.mark.parametrize("side", ["left", "right"])
def test_models_of_transformers(side, capsys):
    transformers = pytest.importorskip("transformers")

    def model(width, seed):
        torch.manual_seed(seed)
        sizes = {"vocab_size": V, "hidden_size": width, "intermediate_size": width, "num_hidden_layers": 1}
        return transformers.LlamaForCausalLM(transformers.LlamaConfig(**sizes, num_attention_heads=2))

    student, teacher = model(8, seed=0), model(16, seed=1).eval().requires_grad_(False)
    with torch.no_grad():
        teacher.lm_head.weight *= 20
    batch = transformers.BatchEncoding(DICT_BATCH)
    if side == "left":
        fills = {"input_ids": PAD, "attention_mask": 0, "labels": -100}
        for key, fill in fills.items():
            moved = torch.full_like(batch[key], fill)
            for row, length in enumerate(LENGTHS.tolist()):
                moved[row, L - length :] = batch[key][row, :length]
            batch[key] = moved

    def loss_fn(kept_of):
        def of_batch(student, batch):
            s = student(**batch)  # with the labels it computes its own loss
            with torch.no_grad():
                t = teacher(**batch)
            kept = kept_of(batch)
            return 0.5 * s.loss + 0.5 * forward_kl(s.logits[:, :-1][kept], t.logits[:, :-1][kept]).mean()

        return of_batch

    assert audit(loss_fn(lambda batch: batch["labels"][:, 1:] != -100), student, teacher, batch) == []
    assert "cross-entropy" not in capsys.readouterr().out
    prompts = audit(loss_fn(lambda batch: batch["attention_mask"][:, 1:] == 1), student, teacher, batch)
    assert "that the batch leaves out (prompt)" in only(prompts)


# --- one slip at a time


def broken(loss_fn, batch=BATCH, teacher=TEACHER):
    return audit(loss_fn, Writer(4, 0), teacher, batch)


def test_no_shift_of_the_labels():
    def loss_fn(student, text, answer):
        s, kept = student(text), answer.bool()
        soft = forward_kl(s[:, :-1], TEACHER(text)[:, :-1])[answer[:, 1:].bool()].mean()
        return soft + F.cross_entropy(s[kept], text[kept])

    assert "no shift by one: the student is trained to repeat" in broken(loss_fn)[0]


def test_labels_shifted_twice():
    def loss_fn(student, text, following):
        s = student(text)
        soft = forward_kl(s, TEACHER(text)).mean()
        return soft + F.cross_entropy(s[:, :-1].flatten(0, 1), following[:, 1:].flatten())

    text = torch.randint(2, V, (N, L + 1), generator=torch.Generator().manual_seed(3))
    assert "shifted twice" in only(broken(loss_fn, (text[:, :-1], text[:, 1:])))


@pytest.mark.parametrize("shifted", ["student", "teacher"])
def test_only_one_side_is_shifted(shifted):
    def loss_fn(student, text, answer):
        s, t = student(text), TEACHER(text)
        s, t = (s[:, 1:], t[:, :-1]) if shifted == "student" else (s[:, :-1], t[:, 1:])
        return forward_kl(s, t)[answer[:, 1:].bool()].mean()

    slips = broken(loss_fn)
    where = "before" if shifted == "student" else "after"
    assert f"compared with the teacher's 1 {where} it" in "".join(slips)


def test_mask_that_is_not_shifted():
    def loss_fn(student, text, answer):
        return forward_kl(student(text), TEACHER(text))[answer.bool()].mean()

    assert "the mask is not shifted by one" in only(broken(loss_fn))

    def of_dict(student, batch):
        kept = batch["labels"] != -100
        return forward_kl(student(batch["input_ids"]), TEACHER(batch["input_ids"]))[kept].mean()

    assert "the mask is not shifted by one" in only(broken(of_dict, DICT_BATCH))


def test_padding_and_prompt_counted():
    def everything(student, batch):
        given = (batch["input_ids"], batch["attention_mask"])
        return forward_kl(student(*given)[:, :-1], TEACHER(*given)[:, :-1]).mean()

    slips = "".join(broken(everything, DICT_BATCH))
    assert "padding tokens are counted" in slips and "(prompt and padding)" in slips

    def prompts(student, batch):
        given = (batch["input_ids"], batch["attention_mask"])
        return MEAN(
            forward_kl(student(*given)[:, :-1], TEACHER(*given)[:, :-1]), batch["attention_mask"][:, 1:]
        )

    assert "positions count in the teacher's term that the batch leaves out (prompt)" in only(
        broken(prompts, DICT_BATCH)
    )


def test_padding_counted_in_the_labels_term():
    def loss_fn(student, text, real):
        s, t = student(text, real)[:, :-1], TEACHER(text, real)[:, :-1]
        soft = forward_kl(s, t)[real[:, 1:].bool()].mean()
        return soft + F.cross_entropy(s.flatten(0, 1), text[:, 1:].flatten())

    assert "in the labels' term that the batch leaves out (padding)" in broken(loss_fn, (TEXT, REAL))[0]


def test_end_token_masked_by_its_label():
    labels = torch.where(TEXT == END, -100, LABELS)
    batch = {**DICT_BATCH, "labels": labels}
    assert "the last real token of every text is masked" in only(broken(of_labels(MEAN), batch))


def test_what_follows_the_end_token_may_be_masked():
    """Chat templates end with a line break after the end token, which is no part of the answer."""
    text = torch.cat([TEXT[:, :1], TEXT], dim=1)[:, :L]
    places = torch.arange(L)
    end = (text == END).int().argmax(dim=1, keepdim=True)
    text = torch.where((end > 0) & (places == end + 1), 2, text)
    kept = (end > 0) & (places >= 3) & (places <= end)
    rows = (end > 0).flatten() & (end.flatten() < L - 1)
    real = (places <= end + 1).long()
    batch = {"input_ids": text, "attention_mask": real, "labels": torch.where(kept, text, -100)}
    batch = {key: tensor[rows] for key, tensor in batch.items()}
    assert len(batch["input_ids"]) >= 4 and broken(of_labels(MEAN), batch) == []


def test_end_token_masked_as_padding():
    text, prompts, lengths = texts(end=PAD)
    kept = (text != PAD) & (prompts.unsqueeze(1) <= PLACES)
    assert "the end token seems to be masked as padding" in only(broken(of_masked(forward_kl), (text, kept)))
    by_length = (prompts.unsqueeze(1) <= PLACES) & (lengths.unsqueeze(1) > PLACES)
    assert broken(of_masked(forward_kl), (text, by_length)) == []

    def inside(student, text):
        s, t = student(text)[:, :-1], TEACHER(text)[:, :-1]
        kept = text[:, 1:] != PAD
        return forward_kl(s[kept], t[kept]).mean() + F.cross_entropy(s[kept], text[:, 1:][kept])

    assert "the end token seems to be masked as padding" in only(broken(inside, (text,)))
    assert broken(inside, (TEXT,)) == []


def test_texts_cut_without_an_end_token():
    text = torch.randint(2, V, (N, L), generator=torch.Generator().manual_seed(3))
    lengths = torch.tensor([L, 5, 6, 7, 8, 9, 9, L])
    text[lengths.unsqueeze(1) <= PLACES] = PAD
    assert broken(of_masked(forward_kl), (text, lengths.unsqueeze(1) > PLACES)) == []


@pytest.mark.parametrize("hard", [0.0, 0.5])
def test_mean_over_the_vocabulary(hard):
    def loss_fn(student, text, answer):
        kept = answer[:, 1:].bool()
        s, t = student(text)[:, :-1][kept], TEACHER(text)[:, :-1][kept]
        soft = F.kl_div(log_probs(s, 2.0), log_probs(t, 2.0), log_target=True, reduction="mean")
        return 4 * (1 - hard) * soft + hard * F.cross_entropy(s, text[:, 1:][kept])

    assert f"divided by the {V} words of the vocabulary, too" in only(broken(loss_fn))


def test_terms_that_are_reduced_in_different_ways():
    for reduce, said in {
        (
            lambda each, kept: (each * kept).sum() / N
        ): "the teacher's term is a sum over tokens, the labels' a mean",
        (
            lambda each, kept: (each * kept).sum()
        ): "the teacher's term is a sum over tokens, the labels' a mean",
        (lambda each, kept: (each * kept).sum() / (N * L)): "divided by all positions, padding too",
    }.items():
        assert said in only(broken(of_labels(reduce, hard=1.0), DICT_BATCH))


def test_mean_of_means():
    def per_text(each, kept):
        return ((each * kept).sum(dim=1) / kept.sum(dim=1)).mean()

    def per_chunk(each, kept):
        pieces = [MEAN(*part) for part in zip(each.split(3), kept.split(3), strict=True)]
        return torch.stack(pieces).mean()

    for reduce in (per_text, per_chunk):
        assert "a mean of means: a token weighs up to" in only(broken(of_labels(reduce), DICT_BATCH))


def test_student_compared_with_itself():
    assert "compared with itself" in broken(of_masked(lambda s, t: forward_kl(s, s.detach())))[0]


def test_gradient_through_the_teacher():
    teacher = Writer(8, seed=1).eval()

    def loss_fn(student, text, answer):
        kept = answer[:, 1:].bool()
        return forward_kl(student(text)[:, :-1][kept], teacher(text)[:, :-1][kept]).mean()

    assert "flows into the teacher" in only(broken(loss_fn, teacher=teacher))


def bucketed(log_q, log_p, ids):
    """Forward KL of k tokens and one class for the rest."""
    p, q = (
        torch.cat([x, (1 - x.exp().sum(-1, keepdim=True)).clamp(min=1e-6).log()], -1) for x in (log_p, log_q)
    )
    return (p.exp() * (p - q)).sum(-1)


def truncated(log_q, log_p, ids):
    return (log_p.exp() * (log_p - log_q)).sum(-1)


def renormalized(log_q, log_p, ids):
    return truncated(log_q, log_p - log_p.logsumexp(-1, keepdim=True), ids)


TOP_K = {"bucket": bucketed, "truncated": truncated, "renormalized": renormalized}


@pytest.mark.parametrize("name", TOP_K)
@pytest.mark.parametrize("stored", [False, True])
def test_top_k(name, stored):
    largest = log_probs(TEACHER(TEXT)).topk(4)

    def loss_fn(student, text, answer, *knowledge):
        kept = answer[:, 1:].bool()
        log_q = log_probs(student(text)[:, :-1])
        log_p, ids = knowledge if stored else log_probs(TEACHER(text)).topk(4)
        log_p, ids = log_p[:, :-1], ids[:, :-1]
        return TOP_K[name](log_q.gather(-1, ids)[kept], log_p[kept], ids[kept]).mean()

    batch = (*BATCH, largest.values, largest.indices) if stored else BATCH
    slips = broken(loss_fn, batch)
    if name == "bucket":
        assert slips == []
    else:
        assert any("only the teacher's most probable tokens count" in slip for slip in slips)


@pytest.mark.parametrize("temperature", [0.9, 2.0])
def test_stored_at_another_temperature(temperature):
    largest = log_probs(TEACHER(TEXT), temperature).topk(4)

    def loss_fn(student, text, answer, log_p, ids):
        kept = answer[:, 1:].bool()
        log_q = log_probs(student(text)[:, :-1], temperature).gather(-1, ids[:, :-1])
        return bucketed(log_q[kept], log_p[:, :-1][kept], ids).mean()

    assert broken(loss_fn, (*BATCH, largest.values, largest.indices)) == []


SLIPS_OF_FORM = {
    "student's answer goes through softmax twice": lambda s, t: forward_kl(s.softmax(-1), t, 2.0),
    "log-probabilities stand where its probabilities": lambda s, t: (
        log_probs(t) * (log_probs(t) - log_probs(s))
    ).sum(-1),
    "still pulled": lambda s, t: forward_kl(s, 3 * t),
    "sign is inverted": lambda s, t: -forward_kl(s, t),
}


@pytest.mark.parametrize("name", SLIPS_OF_FORM)
def test_slip_in_the_form(name):
    assert any(name in slip for slip in broken(of_masked(SLIPS_OF_FORM[name], 1.0, 0.0)))


def test_no_line_about_texts_where_there_is_none(capsys):
    class Tagger(Writer):
        def forward(self, tokens):
            return self.linear(
                self.embedding(tokens) + self.embedding(tokens.flip(1))
            )  # reads backwards, too

    teacher = Tagger(8, 1).eval().requires_grad_(False)
    tagging = lambda student, text, real: MEAN(forward_kl(student(text), teacher(text)), real)  # noqa: E731
    assert audit(tagging, Tagger(4, 0), teacher, (TEXT, REAL)) == []
    assert "end token" not in capsys.readouterr().out


# The library's own


LIBRARY = {
    "kd": lambda s, t, ids, kept: kd_loss(s, t, kept) + F.cross_entropy(s[kept], ids[kept]),
    "reverse": lambda s, t, ids, kept: sequence.reverse_kl_loss(s, t, kept),
    "jsd": lambda s, t, ids, kept: sequence.generalized_jsd_loss(s, t, kept),
    "jsd, T = 2": lambda s, t, ids, kept: sequence.generalized_jsd_loss(
        s, t, kept, beta=0.9, temperature=2.0
    ),
    "skew": lambda s, t, ids, kept: sequence.skew_kl_loss(s, t, kept),
    "policy gradient": lambda s, t, ids, kept: sequence.policy_gradient_kd_loss(s, t, ids, kept),
}


def of_library(loss):
    def loss_fn(student, text, answer):
        s, ids, kept = sequence.next_token(student(text), text, answer)
        t, _, _ = sequence.next_token(TEACHER(text), text, answer)
        return loss(s, t, ids, kept)

    return loss_fn


@pytest.mark.parametrize("name", LIBRARY)
def test_a_loss_of_the_library_passes(name):
    assert audit(of_library(LIBRARY[name]), Writer(4, 0), TEACHER, BATCH) == []


@pytest.mark.parametrize("rest", ["bucket", "sampled", "renormalize"])
def test_sparse_knowledge_of_the_library(rest):
    said = log_probs(TEACHER(TEXT))
    if rest == "sampled":
        torch.manual_seed(0)
        ids = said.exp().flatten(0, 1).multinomial(6, replacement=True).reshape(N, L, 6)
    else:
        ids = said.topk(4).indices

    def loss_fn(student, text, answer, ids, teacher_log_probs):
        s, _, kept = sequence.next_token(student(text), text, answer)
        return sequence.sparse_kd_loss(s, ids[:, :-1], teacher_log_probs[:, :-1], kept, rest=rest)

    slips = audit(loss_fn, Writer(4, 0), TEACHER, (*BATCH, ids, said.gather(-1, ids)))
    if rest == "renormalize":
        assert "only the teacher's most probable tokens count" in only(slips)
    else:
        assert slips == []


def test_a_loss_that_never_asks_the_teacher_is_told_so():
    """sequence_kd_loss learns from texts that the teacher wrote before; to the audit these are labels."""
    loss_fn = of_library(lambda s, t, ids, kept: sequence.sequence_kd_loss(s, ids, kept))
    (complaint,) = audit(loss_fn, Writer(4, 0), TEACHER, BATCH)
    assert "another teacher changes nothing" in complaint
