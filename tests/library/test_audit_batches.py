"""The audit understands batches, teachers and targets of many kinds: right losses pass, slips are found."""

import copy
import dataclasses
from typing import NamedTuple

import pytest
import torch
import torch.nn.functional as F
from audit_scene import (
    CACHED,
    IMAGES,
    LABELS,
    LOGITS,
    MASK,
    TEACHER,
    TOKENS,
    K,
    N,
    Tagger,
    kd,
    kl,
    mixed,
    network,
    on_logits,
    only,
    trained_network,
)
from torch import nn

from kdutils.audit import audit

# --- dicts, keyword calls and structured outputs


class Output(dict):
    """What transformers return in short: a dict whose entries are attributes, too."""

    def __setitem__(self, key, value):
        super().__setitem__(key, value)
        super().__setattr__(key, value)


@dataclasses.dataclass(frozen=True)
class Answer:
    logits: torch.Tensor
    note: str = "no tensor"


class Pair(NamedTuple):
    logits: torch.Tensor
    rest: int


def as_output(logits):
    output = Output()
    output["logits"] = logits
    return output


WRAPPINGS = {
    "ModelOutput": as_output,
    "dict": lambda logits: {"logits": logits},
    "dataclass": Answer,
    "namedtuple": lambda logits: Pair(logits, 0),
    "tuple": lambda logits: (logits, None),
    "nested": lambda logits: {"heads": [{"logits": logits}]},
}


def unwrapped(output):
    while not isinstance(output, torch.Tensor):
        if isinstance(output, dict):
            output = next(iter(output.values()))
        else:
            output = output.logits if isinstance(output, (Answer, Pair)) else output[0]
    return output


class Sentences(nn.Module):
    """Tokens (N, L) to one answer (N, K); the mask says which of the tokens are read."""

    def __init__(self, width, seed, wrap=lambda logits: logits):
        super().__init__()
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            self.embedding, self.linear = nn.Embedding(50, width), nn.Linear(width, K)
        self.wrap = wrap

    def forward(self, input_ids, attention_mask=None):
        mask = torch.ones_like(input_ids) if attention_mask is None else attention_mask
        mean = (self.embedding(input_ids) * mask.unsqueeze(2)).sum(dim=1) / mask.sum(dim=1, keepdim=True)
        return self.wrap(self.linear(mean))


class Needing(Sentences):
    """The same; the mask is required."""

    def forward(self, input_ids, attention_mask):
        return super().forward(input_ids, attention_mask)


def sentence_networks(wrap=lambda logits: logits, kind=Sentences):
    teacher = kind(8, 1, wrap).eval().requires_grad_(False)
    with torch.no_grad():
        teacher.linear.weight *= 20
    return kind(4, 0, wrap), teacher


READER = sentence_networks()[1]
SENTENCE_LABELS = READER(TOKENS, MASK).argmax(dim=1)
SENTENCES = {"input_ids": TOKENS, "attention_mask": MASK, "labels": SENTENCE_LABELS}


@pytest.mark.parametrize("wrap", WRAPPINGS.values(), ids=WRAPPINGS)
def test_teacher_called_by_keyword_that_answers_with_a_structure(wrap):
    student, teacher = sentence_networks(wrap)

    def loss_fn(soft):
        def of_batch(student, batch):
            given = {"input_ids": batch["input_ids"], "attention_mask": batch["attention_mask"]}
            s = unwrapped(student(**given))
            with torch.no_grad():
                t = unwrapped(teacher(**given))
            return {"soft": 0.9 * soft(s, t), "hard": 0.1 * F.cross_entropy(s, batch["labels"])}

        return of_batch

    assert audit(loss_fn(kd), student, teacher, SENTENCES) == []
    assert "T² is forgotten" in only(audit(loss_fn(kl), student, teacher, SENTENCES))
    itself = audit(loss_fn(lambda s, t: kd(t, t) + 0 * s.sum()), student, teacher, SENTENCES)
    assert "compared with itself" in itself[0]
    reversed_kl = audit(loss_fn(lambda s, t: 16 * kl_to_student(s, t)), student, teacher, SENTENCES)
    assert "arguments reversed" in only(reversed_kl)


def kl_to_student(s, t):
    return F.kl_div(F.log_softmax(t / 4, dim=1), F.softmax(s / 4, dim=1), reduction="batchmean")


def test_answer_appended_to_a_dict_batch():
    student, teacher = sentence_networks(WRAPPINGS["ModelOutput"])

    def loss_fn(student, batch, said):
        s = student(batch["input_ids"], batch["attention_mask"])
        return 0.9 * kd(s.logits, said.logits) + 0.1 * F.cross_entropy(s.logits, batch["labels"])

    assert (
        audit(loss_fn, student, lambda batch: teacher(batch["input_ids"], batch["attention_mask"]), SENTENCES)
        == []
    )
    without_labels = {key: SENTENCES[key] for key in ("input_ids", "attention_mask")}
    assert (
        audit(lambda s, batch, said: kd(s(**batch).logits, said.logits), student, teacher, without_labels)
        == []
    )


def test_cached_knowledge_in_a_dict_batch():
    student, teacher = sentence_networks(WRAPPINGS["ModelOutput"])
    batch = {**SENTENCES, "teacher_logits": teacher(TOKENS, MASK).logits}

    def loss_fn(student, batch):
        return kd(student(batch["input_ids"], batch["attention_mask"]).logits, batch["teacher_logits"])

    assert audit(loss_fn, student, teacher, batch) == []
    shuffled = {**batch, "teacher_logits": batch["teacher_logits"].flip(0)}
    assert "out of step" in audit(loss_fn, student, teacher, shuffled)[0]


@pytest.mark.parametrize("cached", [False, True])
def test_teacher_with_two_required_inputs(cached):
    student, teacher = sentence_networks(kind=Needing)

    def loss_fn(soft):
        def of_batch(student, ids, mask, labels, *knowledge):
            s = student(ids, mask)
            t = knowledge[0] if cached else teacher(ids, mask)
            return 0.9 * soft(s, t) + 0.1 * F.cross_entropy(s, labels)

        return of_batch

    batch = (TOKENS, MASK, SENTENCE_LABELS)
    batch += (teacher(TOKENS, MASK),) if cached else ()
    assert audit(loss_fn(kd), student, teacher, batch) == []
    assert "T² is forgotten" in only(audit(loss_fn(kl), student, teacher, batch))
    if cached:
        without_mask = teacher(TOKENS, torch.ones_like(MASK))
        assert "not equal to it" in audit(loss_fn(kd), student, teacher, (*batch[:3], without_mask))[0]


def test_teacher_that_is_not_given_the_mask():
    student, teacher = sentence_networks()

    def appended(student, ids, mask, labels, said):
        return kd(student(ids, mask), said)

    def run_by_the_loss(student, ids, mask, labels):
        return kd(student(ids, mask), teacher(ids))

    batch = (TOKENS, MASK, SENTENCE_LABELS)
    for loss_fn in (appended, run_by_the_loss):
        assert "the teacher is not given [1]" in only(audit(loss_fn, student, teacher, batch))
        assert audit(loss_fn, student, teacher, (TOKENS, torch.ones_like(MASK), SENTENCE_LABELS)) == []
    assert audit(appended, student, lambda batch: teacher(*batch[:2]), batch) == []


def test_padding_counted_where_the_teacher_answers_with_a_structure(capsys):
    class Structured(Tagger):
        def forward(self, input_ids, attention_mask=None):
            return as_output(super().forward(input_ids))

    teacher = Structured(8, seed=1).eval().requires_grad_(False)

    def token_kl(student, batch):
        given = {"input_ids": batch["input_ids"], "attention_mask": batch["attention_mask"]}
        p, q = (F.log_softmax(net(**given)["logits"], dim=-1) for net in (teacher, student))
        return (p.exp() * (p - q)).sum(dim=-1)

    def counted(student, batch):
        return token_kl(student, batch).mean()

    def left_out(student, batch):
        return (batch["attention_mask"] * token_kl(student, batch)).sum() / batch["attention_mask"].sum()

    batch = {"input_ids": TOKENS, "attention_mask": MASK}
    assert "padding tokens are counted" in audit(counted, Structured(4, 0), teacher, batch)[0]
    assert audit(left_out, Structured(4, 0), teacher, batch) == []
    assert "✓ padding does not count" in capsys.readouterr().out


def test_models_of_transformers():
    transformers = pytest.importorskip("transformers")
    sizes = {"vocab_size": 50, "hidden_size": 8, "num_hidden_layers": 1, "num_attention_heads": 2}
    config = transformers.BertConfig(**sizes, intermediate_size=16, num_labels=K, hidden_dropout_prob=0.0)
    torch.manual_seed(0)
    student = transformers.BertForSequenceClassification(config)
    teacher = transformers.BertForSequenceClassification(config).eval().requires_grad_(False)
    with torch.no_grad():
        teacher.classifier.weight *= 100
    batch = transformers.BatchEncoding({"input_ids": TOKENS, "attention_mask": MASK})
    batch["labels"] = teacher(TOKENS, MASK).logits.argmax(dim=1)

    def loss_fn(soft):
        def of_batch(student, batch):
            output = student(**batch)  # with the labels it computes its own loss
            with torch.no_grad():
                said = teacher(**batch).logits
            return soft(output.logits, said) + output.loss

        return of_batch

    assert audit(loss_fn(kd), student, teacher, batch) == []
    assert "compared with itself" in audit(loss_fn(lambda s, t: kd(t, t)), student, teacher, batch)[0]


# --- labels of other kinds


def test_labels_of_mixed_images():
    other = torch.randperm(N, generator=torch.Generator().manual_seed(2))
    one_hot = F.one_hot(LABELS, K).float()
    labels, images = 0.7 * one_hot + 0.3 * one_hot[other], 0.7 * IMAGES + 0.3 * IMAGES[other]
    smooth = 0.9 * labels + 0.1 / K
    said = TEACHER(images)
    loss_fn = mixed(kd, 0.5, 0.5)
    for mixed_labels in (labels, smooth):
        assert audit(loss_fn, network(), TEACHER, (images, mixed_labels)) == []
        assert audit(loss_fn, network(), TEACHER, (images, mixed_labels, said)) == []
        assert "T² is forgotten" in only(
            audit(mixed(kl, 0.5, 0.5), network(), TEACHER, (images, mixed_labels))
        )
    assert "out of step" in audit(loss_fn, network(), TEACHER, (images, labels, said.flip(0)))[0]
    other_scale = mixed(lambda s, t: kd(s, 4 * t), 0.5, 0.5)
    assert "still pulled" in audit(other_scale, network(), TEACHER, (images, labels, said))[0]


def bernoulli_kd(s, t, temperature=2.0):
    p, q = torch.sigmoid(t.detach() / temperature), torch.sigmoid(s / temperature)
    return temperature**2 * (F.binary_cross_entropy(q, p) - F.binary_cross_entropy(p, p))


MULTI_HOT = LOGITS.mean() < LOGITS


@pytest.mark.parametrize("dtype", [torch.float32, torch.bool, torch.int64])
@pytest.mark.parametrize("cached", [False, True])
def test_several_labels_per_sample(dtype, cached):
    def loss_fn(soft, **settings):
        def of_logits(s, t, y):
            return soft(s, t) + F.binary_cross_entropy_with_logits(s, y.float(), **settings)

        return on_logits(of_logits)

    batch = (IMAGES, MULTI_HOT.to(dtype), LOGITS) if cached else (IMAGES, MULTI_HOT.to(dtype))
    for settings in ({}, {"pos_weight": torch.linspace(1, 3, K)}):
        assert audit(loss_fn(bernoulli_kd, **settings), network(), TEACHER, batch) == []
    assert audit(on_logits(lambda s, t, y: bernoulli_kd(s, t)), network(), TEACHER, batch) == []
    assert (
        "sign is inverted"
        in audit(loss_fn(lambda s, t: -4 * bernoulli_kd(s, t)), network(), TEACHER, batch)[0]
    )
    unlike = on_logits(lambda s, t, y: bernoulli_kd(s, 4 * t))
    assert "still pulled" in audit(unlike, network(), TEACHER, batch)[0]
    alone = loss_fn(lambda s, t: bernoulli_kd(t, t))
    assert "compared with itself" in audit(alone, network(), TEACHER, batch)[0]


def test_sigmoid_taken_twice():
    teacher = nn.Sequential(TEACHER, nn.Sigmoid())
    loss_fn = on_logits(lambda s, t, y: bernoulli_kd(s, t) + F.binary_cross_entropy_with_logits(s, y))
    slips = audit(loss_fn, network(), teacher, (IMAGES, MULTI_HOT.float()))
    assert "teacher answers with probabilities, not logits: the sigmoid" in only(slips)


@pytest.mark.parametrize("shape", [(N, 1), (N,)])
def test_one_yes_or_no_per_sample(shape):
    student, teacher = network(num_outputs=1), trained_network(num_outputs=1)
    labels = (teacher(IMAGES) > 0).reshape(shape)

    def loss_fn(student, images, labels):
        s, t = student(images), teacher(images)
        return bernoulli_kd(s, t) + F.binary_cross_entropy_with_logits(s, labels.reshape(N, 1).float())

    for dtype in (torch.float32, torch.int64, torch.bool):
        assert audit(loss_fn, student, teacher, (IMAGES, labels.to(dtype))) == []


# --- values instead of classes


class Flat(nn.Module):
    """A network with one output per sample, (N,)."""

    def __init__(self, inner):
        super().__init__()
        self.inner = inner

    def forward(self, images):
        return self.inner(images).squeeze(1)


REGRESSION = {
    "(N, 1)": (network(num_outputs=1), trained_network(num_outputs=1)),
    "(N,)": (Flat(network(num_outputs=1)), Flat(trained_network(num_outputs=1)).eval()),
    "(N, 3)": (network(num_outputs=3), trained_network(num_outputs=3)),
}


@pytest.mark.parametrize("shape", REGRESSION)
@pytest.mark.parametrize("way", ["run by fit", "run by the loss", "cached"])
def test_regression(shape, way):
    student, teacher = REGRESSION[shape]
    said = teacher(IMAGES)
    values = said + torch.randn(said.shape, generator=torch.Generator().manual_seed(0))
    batch = (IMAGES, values, said) if way == "cached" else (IMAGES, values)

    def loss_fn(soft, hard=F.mse_loss):
        def of_answers(student, images, values, said=None):
            s = student(images)
            t = teacher(images) if said is None else said
            return soft(s, t) + 0.5 * hard(s, values)

        if way == "run by the loss":
            return lambda student, images, values: of_answers(student, images, values)
        return lambda student, images, values, said: of_answers(student, images, values, said)

    for hard in (F.mse_loss, F.l1_loss, F.huber_loss):
        assert audit(loss_fn(F.mse_loss, hard), student, teacher, batch) == []
    assert audit(loss_fn(F.smooth_l1_loss), student, teacher, batch) == []
    assert "compared with itself" in audit(loss_fn(lambda s, t: F.mse_loss(t, t)), student, teacher, batch)[0]
    away = loss_fn(lambda s, t: -2 * F.mse_loss(s, t))
    assert "sign is inverted" in audit(away, student, teacher, batch)[0]
    doubled = loss_fn(lambda s, t: 9 * F.mse_loss(s, 2 * t))
    assert "still pulled" in audit(doubled, student, teacher, batch)[0]


def test_regression_with_a_teacher_that_must_be_named():
    student, teacher = REGRESSION["(N, 1)"]
    said = teacher(IMAGES)
    values = said + torch.randn(said.shape, generator=torch.Generator().manual_seed(0))

    def loss_fn(student, images, y, z):
        s = student(images)
        return F.mse_loss(s, z) + 0.5 * F.mse_loss(s, y)

    assert audit(loss_fn, student, teacher, (IMAGES, values, said)) == []
    out_of_step = (IMAGES, values, said.flip(0))
    with pytest.raises(ValueError, match="1 and 2 may both be it; say so: roles="):
        audit(loss_fn, student, teacher, out_of_step)
    slips = audit(loss_fn, student, teacher, out_of_step, roles={1: "labels", 2: "knowledge"})
    assert "the cached knowledge belongs to other images" in only(slips)


# --- order, indices, weights


def test_index_before_the_labels():
    def loss_fn(student, images, index, labels, said):
        s = student(images)
        return 0.9 * kd(s, said) + 0.1 * F.cross_entropy(s, labels)

    def spread(student, images, *rest):
        return loss_fn(student, images, *rest)

    index = torch.arange(100, 100 + N)
    for some_loss in (loss_fn, spread):
        assert audit(some_loss, network(), TEACHER, (IMAGES, index, LABELS, LOGITS)) == []
    small = torch.arange(N) % K  # could be classes, as far as one can see
    slips = audit(spread, network(), TEACHER, (IMAGES, small, LABELS, LOGITS))
    assert slips == []
    assert (
        audit(spread, network(), TEACHER, (IMAGES, small, LABELS, LOGITS), roles={2: "labels", 1: "index"})
        == []
    )


def test_labels_that_must_be_named_and_are_not(capsys):
    def loss_fn(student, images, a, b, said):
        s = student(images)
        return kl(s, said) + F.cross_entropy(s, b)

    batch = (IMAGES, torch.arange(N) % K, LABELS, LOGITS)
    assert audit(loss_fn, network(), TEACHER, batch) == []
    assert "is right about the labels: any of [1, 2] may hold the labels" in capsys.readouterr().out


def test_knowledge_that_is_looked_up_by_index(capsys):
    bank = torch.cat([torch.randn(100, K), LOGITS])

    def loss_fn(student, images, index, labels):
        s = student(images)
        return 0.9 * kd(s, bank[index]) + 0.1 * F.cross_entropy(s, labels)

    assert audit(loss_fn, network(), TEACHER, (IMAGES, torch.arange(100, 100 + N), LABELS)) == []
    assert "✓ the teacher decides" in capsys.readouterr().out


def test_no_teacher_at_all():
    def loss_fn(student, images, labels):
        return F.cross_entropy(student(images), labels)

    assert "runs no teacher" in audit(loss_fn, network(), TEACHER, (IMAGES, LABELS))[0]


@pytest.mark.parametrize("dtype", [torch.int32, torch.uint8, torch.int16])
def test_labels_of_another_integer_dtype(dtype):
    def loss_fn(student, images, labels, said):
        s = student(images)
        return 0.9 * kd(s, said) + 0.1 * F.cross_entropy(s, labels.long())

    assert audit(loss_fn, network(), TEACHER, (IMAGES, LABELS.to(dtype), LOGITS)) == []
    shuffled_classes = ((LABELS + 1) % K).to(dtype)
    assert "no better than chance" in only(
        audit(loss_fn, network(), TEACHER, (IMAGES, shuffled_classes, LOGITS))
    )


@pytest.mark.parametrize("names", [True, False])
def test_labels_before_images(names):
    def loss_fn(soft):
        if names:
            return lambda student, labels, images: of(soft, student, labels, images)
        return lambda student, *batch: of(soft, student, *batch)

    def of(soft, student, labels, images):
        s = student(images)
        return 0.9 * soft(s, TEACHER(images)) + 0.1 * F.cross_entropy(s, labels)

    assert audit(loss_fn(kd), network(), TEACHER, (LABELS, IMAGES)) == []
    assert "T² is forgotten" in only(audit(loss_fn(kl), network(), TEACHER, (LABELS, IMAGES)))


def test_sample_weights():
    weights = torch.rand(N, generator=torch.Generator().manual_seed(0)) + 0.5

    def loss_fn(student, images, labels, weights):
        s, t = student(images), TEACHER(images)
        each = (log_probs(t).exp() * (log_probs(t) - log_probs(s))).sum(dim=1)
        return (weights * (16 * each + F.cross_entropy(s, labels, reduction="none"))).mean()

    assert audit(loss_fn, network(), TEACHER, (IMAGES, LABELS, weights)) == []

    def ignoring(student, images, labels, weights):
        return (weights * F.cross_entropy(student(images), labels, reduction="none")).mean()

    assert "runs no teacher" in audit(ignoring, network(), TEACHER, (IMAGES, LABELS, weights))[0]


def log_probs(logits):
    return F.log_softmax(logits / 4, dim=1)


def focal(s, y):
    cross_entropy = F.cross_entropy(s, y, reduction="none")
    return ((1 - torch.exp(-cross_entropy)) ** 2 * cross_entropy).mean()


LABEL_TERMS = {
    "class weights": lambda s, y: F.cross_entropy(s, y, weight=torch.linspace(0.5, 1.5, K)),
    "smoothing": lambda s, y: F.cross_entropy(s, y, label_smoothing=0.1),
    "focal": focal,
    "one against all": lambda s, y: F.binary_cross_entropy_with_logits(s, F.one_hot(y, K).float()),
}


@pytest.mark.parametrize("name", LABEL_TERMS)
def test_other_terms_of_the_labels(name):
    def loss_fn(soft):
        return on_logits(lambda s, t, y: 0.5 * soft(s, t) + 0.5 * LABEL_TERMS[name](s, y))

    assert audit(loss_fn(kd), network(), TEACHER, CACHED) == []
    assert "still pulled" in audit(loss_fn(lambda s, t: kd(s, 4 * t)), network(), TEACHER, CACHED)[0]


def test_a_class_for_every_pixel():
    class Segmenting(nn.Module):
        def __init__(self, width, seed):
            super().__init__()
            torch.manual_seed(seed)
            self.layers = nn.Sequential(nn.Conv2d(1, width, 3, padding=1), nn.ReLU(), nn.Conv2d(width, K, 1))

        def forward(self, images):
            return self.layers(images)

    with torch.random.fork_rng(devices=[]):
        student, teacher = Segmenting(4, 0), Segmenting(8, 1).eval().requires_grad_(False)
    batch = {"image": IMAGES, "mask": teacher(IMAGES).argmax(dim=1)}

    def loss_fn(student, batch):
        s, t = (net(batch["image"]).movedim(1, 3).flatten(0, 2) for net in (student, teacher))
        return 0.9 * kd(s, t) + 0.1 * F.cross_entropy(s, batch["mask"].flatten())

    assert audit(loss_fn, student, teacher, batch) == []


def test_networks_with_two_heads():
    class TwoHeads(nn.Module):
        def __init__(self, net):
            super().__init__()
            self.net, self.other = net, nn.Linear(net.classifier.in_features, 3)

        def forward(self, images):
            embeddings = self.net.embed(images)
            return self.other(embeddings), self.net.classifier(embeddings)

    student, teacher = TwoHeads(network()), TwoHeads(TEACHER).eval().requires_grad_(False)

    def loss_fn(soft):
        def of_batch(student, images, labels, said):
            s = student(images)
            hard = F.cross_entropy(s[1], labels)
            return {
                "first": 0.45 * soft(s[0], said[0]),
                "second": 0.45 * soft(s[1], said[1]),
                "labels": 0.1 * hard,
            }

        return of_batch

    assert audit(loss_fn(kd), student, teacher, (IMAGES, LABELS)) == []
    assert "sign is inverted" in audit(loss_fn(lambda s, t: -kd(s, t)), student, teacher, (IMAGES, LABELS))[0]


# --- augmentation, several teachers, stored probabilities


def noisy(images):
    return images + 0.1 * torch.randn(images.shape)


def shifted(images):
    return 1.2 * images + 0.1  # the teacher knows less about these than about the batch's


def cropped(images):
    return images[:, :, 1:, 1:]


@pytest.mark.parametrize("augment", [noisy, shifted, cropped])
def test_augmentation_that_is_the_same_for_both(augment):
    def loss_fn(student, images, labels):
        seen = augment(images)
        s = student(seen)
        return 0.9 * kd(s, TEACHER(seen)) + 0.1 * F.cross_entropy(s, labels)

    labels = TEACHER(cropped(IMAGES)).argmax(dim=1) if augment is cropped else LABELS
    assert audit(loss_fn, network(), TEACHER, (IMAGES, labels)) == []


def taught_alike(net):
    """A teacher that agrees with the first on most samples and not on all."""
    other = copy.deepcopy(net)
    with torch.no_grad():
        noise = torch.randn(other.classifier.weight.shape, generator=torch.Generator().manual_seed(0))
        other.classifier.weight += other.classifier.weight.std() * noise / 3
    return other


OTHER_TEACHER = taught_alike(TEACHER)


@pytest.mark.parametrize("cached", [False, True])
def test_several_teachers(cached):
    teachers = [TEACHER, OTHER_TEACHER]

    def loss_fn(soft):
        def of_batch(student, images, labels, *said):
            said = said or [teacher(images) for teacher in teachers]
            s = student(images)
            return 0.9 * soft(s, torch.stack(said).mean(dim=0)) + 0.1 * F.cross_entropy(s, labels)

        return of_batch

    batch = (IMAGES, LABELS)
    batch += tuple(teacher(IMAGES) for teacher in teachers) if cached else ()
    assert audit(loss_fn(kd), network(), teachers, batch) == []
    assert "T² is forgotten" in only(audit(loss_fn(kl), network(), teachers, batch))
    if cached:
        wrong = (*batch[:3], batch[3].flip(0))
        assert "out of step" in audit(loss_fn(kd), network(), teachers, wrong)[0]


def test_one_of_several_teachers_is_wrong():
    in_train_mode = copy.deepcopy(TEACHER).train()
    untrained = network(seed=5).eval().requires_grad_(False)

    def loss_fn(*teachers):
        def of_batch(student, images, labels):
            with torch.no_grad():
                said = torch.stack([teacher(images) for teacher in teachers]).mean(dim=0)
            return kd(student(images), said)

        return of_batch

    for wrong, said in ((in_train_mode, "train mode"), (untrained, "no better than chance")):
        slips = audit(loss_fn(TEACHER, wrong), network(), [TEACHER, wrong], (IMAGES, LABELS))
        assert said in only(slips)
    learning = copy.deepcopy(OTHER_TEACHER).requires_grad_()

    def both(student, images, labels):
        return 16 * kl(student(images), (TEACHER(images) + learning(images)) / 2)

    assert "flows into the teacher" in only(audit(both, network(), [TEACHER, learning], (IMAGES, LABELS)))


def test_stored_probabilities_that_are_taken_as_such():
    def of_probabilities(s, p, y):
        return (p * (p.log() - F.log_softmax(s, dim=1))).sum(dim=1).mean()

    def of_log_probabilities(s, log_p, y):
        return (log_p.exp() * (log_p - F.log_softmax(s, dim=1))).sum(dim=1).mean()

    probabilities = LOGITS.softmax(dim=1)
    assert audit(on_logits(of_probabilities), network(), TEACHER, (IMAGES, LABELS, probabilities)) == []
    stored = (IMAGES, LABELS, LOGITS.log_softmax(dim=1))
    assert audit(on_logits(of_log_probabilities), network(), TEACHER, stored) == []


def test_a_teacher_that_knows_nothing():
    class Uniform(nn.Module):
        def forward(self, images):
            return torch.zeros(len(images), K)

    assert audit(mixed(kd), network(), Uniform(), (IMAGES[:8], LABELS[:8])) == []
    assert (
        "compared with itself"
        in audit(mixed(lambda s, t: kd(t, t)), network(), Uniform(), (IMAGES, LABELS))[0]
    )


# --- manners


def test_a_teacher_that_works_in_place():
    class InPlace(nn.Module):
        def __init__(self):
            super().__init__()
            self.inner = copy.deepcopy(TEACHER)

        def forward(self, images):
            return self.inner(images.mul_(0.5).sub_(1))

    def loss_fn(student, images, labels):
        with torch.no_grad():
            said = teacher(images)
        return kd(student(images), said)

    teacher, images = InPlace().eval(), IMAGES.clone()
    slips = audit(loss_fn, network(), teacher, (images, LABELS))
    assert any("overwritten in place, at [0]" in slip for slip in slips)
    assert torch.equal(images, IMAGES)


def test_nothing_of_a_nested_batch_is_changed():
    batch = {"x": [IMAGES.clone()], "labels": LABELS.clone(), "more": {"teacher_logits": LOGITS.clone()}}

    def loss_fn(student, batch):
        s, t = student(batch["x"][0].mul_(1)), batch["more"].pop("teacher_logits")
        batch["x"].clear()
        return kd(s, t) + F.cross_entropy(s, batch.pop("labels"))

    assert audit(loss_fn, network(), TEACHER, batch) == []
    torch.testing.assert_close(batch["x"], [IMAGES], rtol=0, atol=0)
    torch.testing.assert_close(batch["more"], {"teacher_logits": LOGITS}, rtol=0, atol=0)
    assert set(batch) == {"x", "labels", "more"}


@pytest.mark.parametrize(
    ("roles", "said"),
    [
        ({3: "labels"}, r"roles: expected places of tensors in the batch, \[0, 1, 2\], got 3"),
        (
            {1: "label"},
            r"roles\[1\]: expected one of \['inputs', 'labels', 'knowledge', 'mask', 'positions', 'index', ",
        ),
    ],
)
def test_roles_that_are_none(roles, said):
    with pytest.raises(ValueError, match=said):
        audit(mixed(kd), network(), TEACHER, CACHED, roles=roles)


def test_a_batch_that_is_one_tensor():
    assert audit(lambda student, images, t: kd(student(images), t), network(), TEACHER, IMAGES) == []


@pytest.mark.parametrize("teacher", [None, [TEACHER, lambda batch: LOGITS], "teacher"])
def test_what_is_no_teacher(teacher):
    with pytest.raises(ValueError, match="teacher: expected a module, a list of modules or a function, got"):
        audit(mixed(kd), network(), teacher, CACHED)
