"""The audit names the slip in every broken loss and is silent on every right one; it leaves no trace."""

import copy
import re
import time
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from loss_facts import every_loss
from torch import nn

from kdutils import evaluate
from kdutils.audit import audit
from kdutils.course import models
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

N, K = 24, 6
IMAGES = torch.randn(N, 1, 8, 8, generator=torch.Generator().manual_seed(0))


def network(width=4, seed=0):
    return models.ConvNet(widths=(width, width), depths=(1, 1), seed=seed, num_classes=K)


def trained_network(width=6, seed=1):
    """A network whose answers differ from image to image, as a trained one's do, with settled batch norm."""
    made = network(width, seed)
    for _ in range(40):
        made(IMAGES)
    with torch.no_grad():
        made.classifier.weight *= 10
        made.classifier.bias.copy_(-(made.eval()(IMAGES)).mean(dim=0))
    return made.requires_grad_(False)


TEACHER = trained_network()
LOGITS = TEACHER(IMAGES)
LABELS = LOGITS.argmax(dim=1)
CACHED = (IMAGES, LABELS, LOGITS)


def log_p(logits, temperature):
    return F.log_softmax(logits / temperature, dim=1)


def on_logits(loss):
    """A loss_fn out of a loss of (student_logits, teacher_logits, labels)."""
    return lambda student, images, labels, teacher_logits: loss(student(images), teacher_logits, labels)


def mixed(soft, soft_weight=0.9, hard_weight=0.1):
    """A loss_fn out of the labels' cross-entropy and a soft loss of (student_logits, teacher_logits)."""
    return on_logits(lambda s, t, y: soft_weight * soft(s, t) + hard_weight * F.cross_entropy(s, y))


def with_features(loss, hard_weight=0.0, student_layer="stages.0", teacher_layer="stages.0"):
    """A loss_fn out of a loss of (student_features, teacher_features), both tapped as they arise."""

    def loss_fn(student, images, labels):
        with FeatureTap(student, {"layer": student_layer}) as tap:
            logits = student(images)
        with FeatureTap(TEACHER, {"layer": teacher_layer}) as teacher_tap, torch.no_grad():
            TEACHER(images)
        return loss(tap["layer"], teacher_tap["layer"]) + hard_weight * F.cross_entropy(logits, labels)

    return loss_fn


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
}
RELATION = {
    "sp": relation.sp_loss,
    "rkd": relation.rkd_loss,
    "rkd distance": relation.rkd_distance_loss,
    "rkd angle": relation.rkd_angle_loss,
    "pkt": relation.pkt_loss,
    "cc": relation.cc_loss,
}
# Not here: tf_kd_loss, which has no teacher that could be audited.


@pytest.mark.parametrize("name", RESPONSE)
def test_a_right_response_loss_passes(name):
    loss_fn = on_logits(RESPONSE[name])
    assert audit(loss_fn, network(), TEACHER, CACHED) == []
    assert audit(loss_fn, network(), TEACHER, (IMAGES, LABELS)) == []  # the teacher run by `fit`


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


class Tagger(nn.Module):
    """Tokens (N, L) to logits (N, L, K)."""

    def __init__(self, width, seed):
        super().__init__()
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            self.embedding, self.linear = nn.Embedding(50, width), nn.Linear(width, K)

    def forward(self, tokens):
        return self.linear(self.embedding(tokens))


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


TOKENS = torch.randint(50, (N, 5), generator=torch.Generator().manual_seed(0))
MASK = (torch.arange(5) < torch.randint(2, 6, (N, 1), generator=torch.Generator().manual_seed(1))).long()
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
    words = re.findall(r"\w+", Path(__file__).read_text())
    assert names - set(words) == set() and len(names) > 20


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


# --- broken losses, one for every slip that a test can expose


def test_teacher_compared_with_itself(capsys):
    for soft in (lambda s, t: kd_loss(t, t) + 0 * s.sum(), lambda s, t: kd_loss(s, s)):
        assert "compared with itself" in audit(mixed(soft), network(), TEACHER, CACHED)[0]
    assert "✗ the teacher decides what it learns" in capsys.readouterr().out


def test_teacher_and_student_swapped():
    assert "swapped" in only(audit(on_logits(lambda s, t, y: kd_loss(t, s)), network(), TEACHER, CACHED))
    assert "swapped" in audit(mixed(lambda s, t: kd_loss(t, s)), network(), TEACHER, CACHED)[0]
    # and in the call: the untrained student teaches
    slips = audit(
        on_logits(lambda s, t, y: kd_loss(s, t)),
        trained_network().requires_grad_(),
        network(),
        (IMAGES, LABELS),
    )
    assert "no better than chance: untrained, swapped" in slips[0]


def kl(s, t, temperature=4.0, reduction="batchmean"):
    return F.kl_div(log_p(s, temperature), log_p(t, temperature), log_target=True, reduction=reduction)


@pytest.mark.parametrize("weights", [(0.9, 0.1), (0.5, 0.5), (1.0, 1.0)])
def test_forgotten_t_squared(weights):
    assert "T² is forgotten" in only(audit(mixed(kl, *weights), network(), TEACHER, CACHED))


def test_other_slips_of_scale():
    for soft, named in {
        (lambda s, t: 4 * kl(s, t)): "T stands where T² belongs",
        (lambda s, t: 16 * kl(s, t) / K): "the reduction divides by the number of classes",
        (lambda s, t: kl(s, t) / K): "T² is forgotten, and the reduction divides",
        (lambda s, t: 16 * kl(s, t, reduction="sum")): "not divided by N",
    }.items():
        assert named in audit(mixed(soft), network(), TEACHER, CACHED)[0]


def test_soft_term_that_hardly_counts():
    assert "hardly counts" in audit(mixed(lambda s, t: kl(s, t), 0.7, 1.0), network(), TEACHER, CACHED)[0]
    tiny = with_features(lambda s, t: 1e-3 * feature.at_loss(s, t), hard_weight=1.0)
    assert "hardly counts" in audit(tiny, network(), TEACHER, (IMAGES, LABELS))[0]


@pytest.mark.filterwarnings("ignore:reduction")
def test_default_reduction_of_kl_div():
    def soft(s, t):
        return 16 * nn.KLDivLoss()(log_p(s, 4.0), log_p(t, 4.0).exp())

    assert "divides by the number of classes" in audit(mixed(soft), network(), TEACHER, CACHED)[0]


PROBABILITIES = {
    "probabilities stand where kl_div expects": lambda s, t: F.kl_div(
        log_p(s, 4.0).exp(), log_p(t, 4.0).exp(), reduction="batchmean"
    ),
    "not": lambda s, t: F.kl_div(log_p(s, 4.0), log_p(t, 4.0), reduction="batchmean"),
    "log-probabilities stand where its probabilities": lambda s, t: (
        (log_p(t, 4.0) * (log_p(t, 4.0) - log_p(s, 4.0))).sum(dim=1).mean()
    ),
    "student's answer goes through softmax twice": lambda s, t: kd_loss(s.softmax(dim=1), t),
    "teacher's answer goes through softmax twice": lambda s, t: kd_loss(
        s, (t / 4).softmax(dim=1), temperature=1.0
    ),
    "both answers go through softmax twice": lambda s, t: kd_loss(s.softmax(dim=1), t.softmax(dim=1)),
    "over the batch": lambda s, t: F.kl_div(
        F.log_softmax(s / 4, dim=0), F.softmax(t / 4, dim=0), reduction="batchmean"
    ),
    "arguments reversed": lambda s, t: F.kl_div(log_p(t, 4.0), log_p(s, 4.0).exp(), reduction="batchmean"),
    "both softened": lambda s, t: kl(s, t * 4),
    "sign": lambda s, t: -kd_loss(s, t),
}


@pytest.mark.parametrize("name", PROBABILITIES)
@pytest.mark.parametrize("hard_weight", [0.0, 0.1])
def test_slip_in_the_form_of_the_loss(name, hard_weight):
    slips = audit(mixed(PROBABILITIES[name], 1.0, hard_weight), network(), TEACHER, CACHED)
    if name == "not":  # kl_div without log_target: the logarithm of a negative number
        assert "it is nan" in only(slips)
    else:
        assert name in slips[0]


def test_networks_that_end_in_a_softmax():
    student, teacher = (nn.Sequential(net, nn.Softmax(dim=1)) for net in (network(), TEACHER))
    kd = on_logits(lambda s, t, y: kd_loss(s, t))
    assert "student answers with probabilities" in only(audit(kd, student, TEACHER, CACHED))
    assert "teacher answers with probabilities" in only(audit(kd, network(), teacher, (IMAGES, LABELS)))
    slips = audit(kd, network(), TEACHER, (IMAGES, LABELS, LOGITS.softmax(dim=1)))
    assert "the cache holds probabilities" in slips[0]


def live(student, images, labels):
    return kd_loss(student(images), TEACHER(images))


def test_gradient_into_the_teacher():
    teacher = copy.deepcopy(TEACHER).requires_grad_()

    def loss_fn(student, images, labels):
        return 16 * kl(student(images), teacher(images))

    assert "flows into the teacher" in only(audit(loss_fn, network(), teacher, (IMAGES, LABELS)))
    with_no_grad = on_logits(lambda s, t, y: 16 * kl(s, t))
    assert audit(with_no_grad, network(), teacher, (IMAGES, LABELS)) == []
    assert audit(live, network(), TEACHER, (IMAGES, LABELS)) == []


def test_student_and_teacher_trained_together():
    both = nn.ModuleDict({"student": network(), "teacher": copy.deepcopy(TEACHER).requires_grad_()})

    def loss_fn(both, images, labels):
        return 16 * kl(both["student"](images), both["teacher"](images))

    slips = audit(loss_fn, both, both["teacher"], (IMAGES, LABELS))
    assert "flows into the teacher" in slips[0] and "train mode" in slips[1] and len(slips) == 2


@pytest.mark.parametrize("layer", [None, nn.Dropout(0.5)])
def test_teacher_in_train_mode(layer):
    teacher = nn.Sequential(copy.deepcopy(TEACHER), layer) if layer else copy.deepcopy(TEACHER)

    def loss_fn(student, images, labels):
        with torch.no_grad():
            return kd_loss(student(images), teacher(images))

    def with_grad(student, images, labels):
        with torch.no_grad():
            teacher_logits = teacher(images)
        return kd_loss(student(images), teacher_logits)

    teacher.train()
    assert "train mode" in only(audit(with_grad, network(), teacher, (IMAGES, LABELS)))
    assert "no gradient reaches the student" in only(audit(loss_fn, network(), teacher, (IMAGES, LABELS)))
    teacher.eval()
    assert audit(with_grad, network(), teacher, (IMAGES, LABELS)) == []


@pytest.mark.parametrize("inside", [False, True])
def test_teacher_in_train_mode_when_its_knowledge_was_cached(inside):
    teacher = copy.deepcopy(TEACHER).train()
    with torch.no_grad():
        cached = teacher(IMAGES) if inside else torch.cat([teacher(part) for part in IMAGES.split(6)])
    slips = audit(on_logits(RESPONSE["kd"]), network(), TEACHER, (IMAGES, LABELS, cached))
    assert ("by a teacher in train mode" if inside else "made in train mode") in only(slips)


def test_cache_out_of_step():
    shuffled = LOGITS[torch.randperm(N, generator=torch.Generator().manual_seed(0))]
    slips = audit(mixed(kd_loss), network(), TEACHER, (IMAGES, LABELS, shuffled))
    assert "out of step" in slips[0]
    assert audit(mixed(kd_loss), network(), TEACHER, (IMAGES, LABELS, LOGITS.half().float())) == []


def test_different_normalisation():
    pixels = (IMAGES - IMAGES.min()) / (IMAGES.max() - IMAGES.min())
    for images in (pixels, 255 * pixels):
        slips = audit(mixed(kd_loss), network(), TEACHER, (IMAGES, LABELS, TEACHER(images)))
        assert "different normalisation" in slips[0]

    def loss_fn(student, images, labels):
        return kd_loss(student(images), TEACHER((images - IMAGES.min()) / (IMAGES.max() - IMAGES.min())))

    assert "different normalisation" in only(audit(loss_fn, network(), TEACHER, (IMAGES, LABELS)))


def test_teacher_with_a_normalisation_of_its_own_passes():
    def loss_fn(student, pixels, labels):
        return kd_loss(student(pixels), TEACHER(10 * pixels - 5))

    assert audit(loss_fn, network(), TEACHER, ((IMAGES + 5) / 10, LABELS)) == []


def test_teacher_whose_classes_are_in_another_order():
    slips = audit(mixed(kd_loss), network(), TEACHER, (IMAGES, (LABELS + 1) % K, LOGITS))
    assert "no better than chance" in only(slips)


def in_place_network(width, seed):
    """Convolution, batch norm, in-place ReLU, pooling, linear."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        layers = [nn.Conv2d(1, width, 3), nn.BatchNorm2d(width), nn.ReLU(inplace=True)]
        return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(width, K))


@pytest.mark.parametrize("copied", [False, True])
def test_features_tapped_before_an_in_place_relu(copied):
    teacher = in_place_network(4, seed=1).eval().requires_grad_(False)
    kept = {}

    def tap(module, inputs, output):
        kept[module] = output.clone() if copied else output

    def loss_fn(student, images, labels):
        handles = [net[1].register_forward_hook(tap) for net in (student, teacher)]
        logits = student(images)
        teacher(images)
        for handle in handles:
            handle.remove()
        return F.cross_entropy(logits, labels) + hint_loss(kept[student[1]], kept[teacher[1]])

    labels = teacher(IMAGES).argmax(dim=1)
    slips = audit(loss_fn, in_place_network(4, seed=0), teacher, (IMAGES, labels))
    assert slips == [] if copied else "in-place" in only(slips)


def test_gradient_that_points_the_wrong_way():
    reversed_gradient = with_features(lambda s, t: feature.at_loss(2 * s.detach() - s, t))
    assert "in the right direction?" in only(audit(reversed_gradient, network(), TEACHER, (IMAGES, LABELS)))


def test_regressor_missing_from_the_optimizer():
    regressor = Regressor(4, 6)
    loss_fn = with_features(lambda s, t: hint_loss(regressor(s), t))
    assert "missing from the optimizer" in only(audit(loss_fn, network(), TEACHER, (IMAGES, LABELS)))


@pytest.mark.parametrize("way", ["cached", "run by fit", "run by the loss"])
def test_padding_tokens_counted(way):
    teacher = Tagger(8, seed=1).eval().requires_grad_(False)
    batch = (TOKENS, MASK, teacher(TOKENS)) if way == "cached" else (TOKENS, MASK)

    def token_kl(student_logits, teacher_logits):
        p, q = (F.log_softmax(logits, dim=-1) for logits in (teacher_logits.detach(), student_logits))
        return (p.exp() * (p - q)).sum(dim=-1)

    def counted(student, tokens, mask, teacher_logits):
        return token_kl(student(tokens), teacher_logits).mean()

    def left_out(student, tokens, mask, teacher_logits):
        return (mask * token_kl(student(tokens), teacher_logits)).sum() / mask.sum()

    def running(loss):
        if way != "run by the loss":
            return loss
        return lambda student, tokens, mask: loss(student, tokens, mask, teacher(tokens))

    assert "padding tokens are counted" in only(audit(running(counted), Tagger(4, 0), teacher, batch))
    assert audit(running(left_out), Tagger(4, 0), teacher, batch) == []


# --- manners


def only(slips):
    assert len(slips) == 1, slips
    return slips[0]


def everything(model):
    modes = [module.training for module in model.modules()]
    flags = [(p.requires_grad, p.grad) for p in model.parameters()]
    hooks = [(len(m._forward_hooks), len(m._forward_pre_hooks)) for m in model.modules()]
    return {name: tensor.clone() for name, tensor in model.state_dict().items()}, modes, flags, hooks


@pytest.mark.parametrize("dropout", [False, True])
def test_nothing_is_changed(dropout):
    student = nn.Sequential(network(), nn.Dropout(0.5 if dropout else 0.0)).eval()
    student[0].stages.train()
    for parameter in student.parameters():
        parameter.grad = torch.ones_like(parameter)
    teacher = copy.deepcopy(TEACHER).train().requires_grad_()
    batch = tuple(tensor.clone() for tensor in CACHED)
    before, state = [everything(student), everything(teacher)], torch.get_rng_state()

    audit(mixed(kd_loss), student, teacher, batch)
    torch.testing.assert_close([everything(student), everything(teacher)], before, rtol=0, atol=0)
    torch.testing.assert_close(batch, CACHED, rtol=0, atol=0)
    assert torch.equal(torch.get_rng_state(), state)

    with pytest.raises(ZeroDivisionError):
        audit(lambda *_: 1 / 0, student, teacher, batch)
    torch.testing.assert_close([everything(student), everything(teacher)], before, rtol=0, atol=0)


def test_dropout_in_the_student_is_no_slip():
    student = nn.Sequential(network(), nn.Dropout(0.3))
    assert audit(mixed(kd_loss), student, TEACHER, CACHED) == []


def test_audit_prints_every_test_once(capsys):
    audit(mixed(kd_loss), network(), TEACHER, CACHED)
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == len({line[2:].partition(":")[0] for line in lines}) >= 10
    assert all(line[0] in "✓–" for line in lines)


def test_audit_is_fast():
    start = time.process_time()
    audit(mixed(kd_loss), network(), TEACHER, CACHED)
    assert time.process_time() - start < 5


@pytest.mark.parametrize(
    ("batch", "said"),
    [
        ((), "batch: expected one or more tensors, got"),
        ((IMAGES, [1, 2]), "batch: expected one or more tensors, got"),
        ((IMAGES[:3], LABELS[:3]), "batch: expected the same N >= 4 in every tensor, got"),
        ((IMAGES, LABELS[:8]), "batch: expected the same N >= 4 in every tensor, got"),
    ],
)
def test_bad_batches_are_refused(batch, said):
    with pytest.raises(ValueError, match=said):
        audit(mixed(kd_loss), network(), TEACHER, batch)


@pytest.mark.parametrize("result", [torch.zeros(3, requires_grad=True), 1.0, {}])
def test_a_loss_that_is_no_scalar_is_refused(result):
    with pytest.raises(ValueError, match="loss_fn: expected a scalar tensor or a dict of them, got"):
        audit(lambda *_: result, network(), TEACHER, CACHED)


def test_a_loss_without_gradient_is_named():
    slips = audit(lambda student, *batch: student(batch[0]).sum().detach(), network(), TEACHER, CACHED)
    assert "no gradient reaches the student" in only(slips)
