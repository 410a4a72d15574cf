"""The audit names the slip in every broken loss, and leaves no trace."""

import copy
import random
import time

import numpy as np
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
    kl,
    log_p,
    mixed,
    network,
    on_logits,
    only,
    trained_network,
    with_features,
)
from torch import nn

from kdutils.audit import audit
from kdutils.losses import Regressor, feature, hint_loss, kd_loss


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
    slips = audit(on_logits(lambda s, t, y: kd_loss(s, t)), network(), TEACHER, (IMAGES, LABELS, cached))
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
    python_state, numpy_state = random.getstate(), np.random.get_state()

    audit(mixed(kd_loss), student, teacher, batch)
    torch.testing.assert_close([everything(student), everything(teacher)], before, rtol=0, atol=0)
    torch.testing.assert_close(batch, CACHED, rtol=0, atol=0)
    assert torch.equal(torch.get_rng_state(), state)
    assert random.getstate() == python_state and np.array_equal(np.random.get_state()[1], numpy_state[1])

    with pytest.raises(ZeroDivisionError):
        audit(lambda *_: 1 / 0, student, teacher, batch)
    torch.testing.assert_close([everything(student), everything(teacher)], before, rtol=0, atol=0)


def test_a_loss_that_draws_numbers_elsewhere_is_given_the_same_ones():
    def loss_fn(student, images, labels, teacher_logits):
        scale = 1 + 0.1 * random.random() + 0.1 * np.random.rand()
        return kd_loss(student(scale * images), teacher_logits)

    assert audit(loss_fn, network(), TEACHER, CACHED) == []


def test_a_buffer_that_is_exchanged_is_put_back():
    class Counting(nn.Module):
        def __init__(self):
            super().__init__()
            self.inner = network()
            self.register_buffer("steps", torch.zeros(()))

        def forward(self, images):
            self.steps = self.steps + 1
            return self.inner(images)

    student = Counting()
    steps = student.steps
    audit(mixed(kd_loss), student, TEACHER, CACHED)
    assert student.steps is steps and steps == 0


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
        ((), "batch: expected one or more tensors, got a tuple"),
        ({"name": "a file"}, "batch: expected one or more tensors, got a dict"),
        ("a file", "batch: expected a tensor, a tuple, a list or a dict, got 'a file'"),
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
