"""The audit is silent on every loss of the library."""

import re
from pathlib import Path

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
    N,
    Tagger,
    network,
    on_logits,
    with_features,
)
from loss_facts import every_loss
from torch import nn

from kdutils import evaluate
from kdutils.audit import audit
from kdutils.losses import (
    Regressor,
    VIDLoss,
    feature,
    hint_loss,
    kd_loss,
    online,
    relation,
    response,
    self_distillation,
    transformer,
)
from kdutils.taps import FeatureTap


def through(module, loss):
    """A loss_fn of a ModuleDict of a student and a module through which its features go."""

    def loss_fn(both, images, labels):
        with FeatureTap(both["student"], {"layer": "stages.1"}) as tap:
            logits = both["student"](images)
        with FeatureTap(TEACHER, {"layer": "stages.1"}) as teacher_tap, torch.no_grad():
            TEACHER(images)
        hint = loss(both["module"], tap["layer"], teacher_tap["layer"])
        return {"hint": hint, "labels": F.cross_entropy(logits, labels)}

    return loss_fn, nn.ModuleDict({"student": network(), "module": module})


def on_embeddings(loss, hard_weight=0.0):
    def loss_fn(student, images, labels):
        embeddings = student.embed(images)
        with torch.no_grad():
            teacher_embeddings = TEACHER.embed(images)
        hard = F.cross_entropy(student.classifier(embeddings), labels)
        return loss(embeddings, teacher_embeddings) + hard_weight * hard

    return loss_fn


def fsp(student, images, labels):
    pairs = []
    for net in (student, TEACHER):
        with FeatureTap(net, {"early": "stages.0", "late": "stages.1"}) as tap:
            net(images)
        pairs.append((tap["early"][:, :4], tap["late"][:, :4]))
    return feature.fsp_loss(*pairs)


RESPONSE = {
    "kd": lambda s, t, y: kd_loss(s, t),
    "kd at T = 1": lambda s, t, y: kd_loss(s, t, temperature=1.0),
    "kd at T = 20": lambda s, t, y: kd_loss(s, t, temperature=20.0),
    "kd and labels": lambda s, t, y: 0.9 * kd_loss(s, t) + 0.1 * F.cross_entropy(s, y),
    "kd and labels, weights of 1": lambda s, t, y: kd_loss(s, t, temperature=2.0) + F.cross_entropy(s, y),
    "kd and labels, halves": lambda s, t, y: 0.5 * kd_loss(s, t, temperature=2.0) + F.cross_entropy(s, y),
    "kd and smoothed labels": lambda s, t, y: (
        0.7 * kd_loss(s, t) + 0.3 * F.cross_entropy(s, y, label_smoothing=0.1)
    ),
    "patient": lambda s, t, y: transformer.patient_loss(s, t),
    "logit mse": lambda s, t, y: response.logit_mse_loss(s, t),
    "logit mse and labels": lambda s, t, y: response.logit_mse_loss(s, t) + F.cross_entropy(s, y),
    "dkd": response.dkd_loss,
    "dkd and labels": lambda s, t, y: response.dkd_loss(s, t, y) + F.cross_entropy(s, y),
    "nkd": response.nkd_loss,
    "nkd and labels": lambda s, t, y: response.nkd_loss(s, t, y) + F.cross_entropy(s, y),
    "dist": lambda s, t, y: response.dist_loss(s, t),
    "dist at T = 4, and labels": lambda s, t, y: (
        response.dist_loss(s, t, temperature=4.0) + F.cross_entropy(s, y)
    ),
    "standardized": lambda s, t, y: response.standardized_kd_loss(s, t),
    "standardized and labels": lambda s, t, y: (
        9 * response.standardized_kd_loss(s, t) + 0.1 * F.cross_entropy(s, y)
    ),
    "dml": lambda s, t, y: online.dml_loss(s, t) + F.cross_entropy(s, y),
    "ensemble": lambda s, t, y: online.ensemble_kd_loss(s, [t, t]),
    "ps-kd": lambda s, t, y: self_distillation.ps_kd_loss(s, t, y, alpha=0.6),
    "cs-kd": lambda s, t, y: F.cross_entropy(s, y) + self_distillation.cs_kd_loss(s, t),
}
FEATURE = {
    "hint": with_features(lambda s, t: hint_loss(s, t[:, :4])),
    "at": with_features(feature.at_loss),
    "at and labels": with_features(lambda s, t: 500 * feature.at_loss(s, t), hard_weight=1.0),
    "nst": with_features(feature.nst_loss),
    "sp on features": with_features(relation.sp_loss),
    "1 - cka": with_features(lambda s, t: 1 - evaluate.linear_cka(s, t)),
    "fsp": fsp,
    "channel kd": with_features(lambda s, t: feature.channel_kd_loss(s, t[:, :4])),
}
RELATION = {
    "sp": relation.sp_loss,
    "rkd": relation.rkd_loss,
    "rkd distance": relation.rkd_distance_loss,
    "rkd angle": relation.rkd_angle_loss,
    "pkt": relation.pkt_loss,
    "cc": relation.cc_loss,
    "info nce": lambda s, t: relation.info_nce_loss(s, t[:, : s.shape[1]]),
}
# Not here: tf_kd_loss, which has no teacher that could be audited.


@pytest.mark.parametrize("name", RESPONSE)
def test_a_right_response_loss_passes(name):
    loss_fn = on_logits(RESPONSE[name])
    assert audit(loss_fn, network(), TEACHER, CACHED) == []


@pytest.mark.parametrize("name", FEATURE)
def test_a_right_feature_loss_passes(name):
    assert audit(FEATURE[name], network(), TEACHER, (IMAGES, LABELS)) == []


@pytest.mark.parametrize("hard_weight", [0.0, 0.1])
@pytest.mark.parametrize("name", RELATION)
def test_a_right_relation_loss_passes(name, hard_weight):
    loss_fn = on_embeddings(RELATION[name], hard_weight)
    assert audit(loss_fn, network(), TEACHER, (IMAGES, LABELS)) == []


def test_right_losses_with_modules_of_their_own_pass():
    hint, both = through(Regressor(4, 6), lambda module, s, t: hint_loss(module(s), t))
    assert audit(hint, both, TEACHER, (IMAGES, LABELS)) == []
    vid, both = through(VIDLoss(4, 6), lambda module, s, t: module(s, t))
    assert audit(vid, both, TEACHER, (IMAGES, LABELS)) == []


def test_the_other_way_of_passing_knowledge_passes():
    embeddings = TEACHER.embed(IMAGES)

    def loss_fn(student, images, labels, teacher_logits, teacher_embeddings):
        both = (
            kd_loss(student(images), teacher_logits),
            relation.sp_loss(student.embed(images), teacher_embeddings),
        )
        return dict(zip(("kd", "sp"), both, strict=True))

    assert audit(loss_fn, network(), TEACHER, (*CACHED, embeddings)) == []


class Attending(nn.Module):
    """Tokens (N, L) to attention scores (N, 2 heads, L, L), or to values (N, 2 heads, L, width)."""

    def __init__(self, width, seed, values=False):
        super().__init__()
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            self.embedding, self.linear = nn.Embedding(50, 2 * width), nn.Linear(2 * width, 2 * width)
        self.values = values

    def forward(self, tokens):
        embedded = self.embedding(tokens)
        heads = self.linear(embedded).unflatten(-1, (2, -1)).transpose(1, 2)
        return heads if self.values else heads @ embedded.unflatten(-1, (2, -1)).permute(0, 2, 3, 1)


TOKEN = {
    "token kd": (kd_loss, Tagger),
    "hidden cosine": (transformer.hidden_cosine_loss, Tagger),
    "hidden mse": (transformer.hidden_mse_loss, Tagger),
    "attention mse": (transformer.attention_mse_loss, Attending),
    "minilm": (transformer.minilm_loss, Attending),
    "value relation": (transformer.value_relation_loss, lambda *a: Attending(*a, values=True)),
}


@pytest.mark.parametrize("name", TOKEN)
def test_a_right_token_loss_passes(name):
    loss, make = TOKEN[name]

    def loss_fn(student, tokens, mask, teacher_knowledge):
        return loss(student(tokens), teacher_knowledge, mask)

    teacher = make(8, 1).eval().requires_grad_(False)
    assert audit(loss_fn, make(4, 0), teacher, (TOKENS, MASK, teacher(TOKENS))) == []
    assert audit(loss_fn, make(4, 0), teacher, (TOKENS, MASK)) == []


def test_every_loss_of_the_library_is_audited_here_or_named_as_an_exception():
    names = set(every_loss())
    texts = [path.read_text(encoding="utf-8") for path in Path(__file__).parent.glob("test_audit*.py")]
    words = re.findall(r"\w+", "".join(texts))
    assert names - set(words) == set() and len(names) > 20


def test_losses_of_several_labels_and_of_values_pass():
    labels = (LOGITS > 0).float()
    multi_label = on_logits(
        lambda s, t, y: response.multilabel_kd_loss(s, t) + F.binary_cross_entropy_with_logits(s, y)
    )
    assert audit(multi_label, network(), TEACHER, (IMAGES, labels)) == []
    values = LOGITS + torch.randn(LOGITS.shape, generator=torch.Generator().manual_seed(0))
    for delta in (None, 1.0):
        regression = on_logits(
            lambda s, t, y, delta=delta: response.regression_kd_loss(s, t, delta=delta) + F.mse_loss(s, y)
        )
        assert audit(regression, network(), TEACHER, (IMAGES, values)) == []


class Described(nn.Module):
    """A teacher that answers with logits and embeddings."""

    def __init__(self):
        super().__init__()
        self.network = TEACHER

    def forward(self, images):
        return self.network(images), self.network.embed(images)


def test_teacher_that_answers_with_two_tensors_passes():
    def loss_fn(student, images, labels, knowledge):
        embeddings = student.embed(images)
        kd = kd_loss(student.classifier(embeddings), knowledge[0])
        return {"kd": kd, "sp": relation.sp_loss(embeddings, knowledge[1])}

    assert audit(loss_fn, network(), Described(), (IMAGES, LABELS)) == []


def test_numbers_that_are_no_labels_pass():
    def loss_fn(student, images, number, teacher_logits):
        return kd_loss(student(images), teacher_logits)

    for number in (torch.arange(N), torch.full((N,), -100)):
        assert audit(loss_fn, network(), TEACHER, (IMAGES, number, LOGITS)) == []
    assert audit(lambda student, images, t: kd_loss(student(images), t), network(), TEACHER, (IMAGES,)) == []
