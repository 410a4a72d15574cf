"""Another device: losses, layers, loop, measures and audit compute there what they compute on the CPU."""

import functools

import fake_device
import pytest
import torch
import torch.nn.functional as F
from fake_device import DEVICE, second_device
from loss_facts import every_loss, random_labels, random_tensor, value_and_gradient

from kdutils import compress, evaluate
from kdutils.audit import audit
from kdutils.batches import batches
from kdutils.course import data, models
from kdutils.losses import (
    feature,
    online,
    relation,
    response,
    self_distillation,
    sequence,
    transformer,
)
from kdutils.train import fit, predict

LABELS = random_labels(8, 10)
MASK = torch.tensor([[1, 1, 1, 1, 1], [1, 1, 1, 0, 0]]).repeat(4, 1)
PIXELS = torch.randint(0, 256, (64, 1, 28, 28), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))


def pair(*shape):
    return random_tensor(*shape, seed=1), random_tensor(*shape, seed=2)


def stages(pair_seed):
    """The two layers' features that FSP looks at."""
    return tuple(random_tensor(8, channels, 6, 6, seed=pair_seed + channels) for channels in (4, 3))


LOGITS, FEATURES, EMBEDDINGS = pair(8, 10), pair(8, 4, 6, 6), pair(8, 16)
HIDDEN, SCORES = pair(8, 5, 16), pair(8, 2, 5, 5)
IDS = torch.arange(3).expand(8, 5, 3)
CALLS = {
    response.kd_loss: (*HIDDEN, MASK),
    response.logit_mse_loss: LOGITS,
    response.dkd_loss: (*LOGITS, LABELS),
    response.nkd_loss: (*LOGITS, LABELS),
    response.dist_loss: LOGITS,
    response.standardized_kd_loss: LOGITS,
    response.multilabel_kd_loss: LOGITS,
    response.regression_kd_loss: LOGITS,
    feature.hint_loss: FEATURES,
    feature.at_loss: FEATURES,
    feature.fsp_loss: (stages(0), stages(9)),
    feature.nst_loss: FEATURES,
    feature.channel_kd_loss: FEATURES,
    relation.sp_loss: FEATURES,
    relation.rkd_distance_loss: EMBEDDINGS,
    relation.rkd_angle_loss: EMBEDDINGS,
    relation.rkd_loss: EMBEDDINGS,
    relation.pkt_loss: EMBEDDINGS,
    relation.cc_loss: EMBEDDINGS,
    relation.info_nce_loss: EMBEDDINGS,
    online.dml_loss: LOGITS,
    online.ensemble_kd_loss: (LOGITS[0], list(LOGITS)),
    self_distillation.ps_kd_loss: (*LOGITS, LABELS),
    self_distillation.cs_kd_loss: LOGITS,
    self_distillation.tf_kd_loss: (LOGITS[0], LABELS),
    transformer.hidden_cosine_loss: (*HIDDEN, MASK),
    transformer.hidden_mse_loss: (*HIDDEN, MASK),
    transformer.attention_mse_loss: (*SCORES, MASK),
    transformer.minilm_loss: (*SCORES, MASK),
    transformer.value_relation_loss: (*pair(8, 2, 5, 3), MASK),
    transformer.patient_loss: EMBEDDINGS,
    sequence.reverse_kl_loss: (*HIDDEN, MASK),
    sequence.generalized_jsd_loss: (*HIDDEN, MASK),
    sequence.skew_kl_loss: (*HIDDEN, MASK),
    sequence.policy_gradient_kd_loss: (*HIDDEN, IDS[..., 0], MASK),
    sequence.sequence_kd_loss: (HIDDEN[0], IDS[..., 0], MASK),
    sequence.sparse_kd_loss: (HIDDEN[0], IDS, HIDDEN[1].log_softmax(dim=-1)[..., :3], MASK),
}
SETTINGS = {self_distillation.ps_kd_loss: {"alpha": 0.5}}  # those without a default
MEASURES = {
    evaluate.accuracy: (LOGITS[0], LABELS),
    evaluate.negative_log_likelihood: (LOGITS[0], LABELS),
    evaluate.expected_calibration_error: (LOGITS[0], LABELS),
    evaluate.agreement: LOGITS,
    evaluate.linear_cka: FEATURES,
}


def sent(value):
    """The value on the second device, tensors inside tuples and lists as well."""
    if isinstance(value, (tuple, list)):
        return type(value)(map(sent, value))
    return value.to(DEVICE) if isinstance(value, torch.Tensor) else value


def there(arguments):
    """The arguments on the second device; the first tensor asks for a gradient, as a student's does."""
    first, *rest = sent(tuple(arguments))
    for tensor in first if isinstance(first, tuple) else (first,):
        tensor.requires_grad_()
    return first, *rest


@pytest.fixture
def device():
    with second_device():
        yield DEVICE


def test_every_loss_is_here():
    assert set(every_loss().values()) == set(CALLS)


@pytest.mark.parametrize("loss_fn", CALLS, ids=lambda function: function.__name__)
def test_a_loss_and_its_gradient_are_the_same_there(loss_fn, device):
    student, *rest = CALLS[loss_fn]
    loss_fn = functools.partial(loss_fn, **SETTINGS.get(loss_fn, {}))
    arguments = there((student, *rest))
    loss = loss_fn(*arguments)
    loss.backward()
    assert loss.device == device
    if isinstance(student, torch.Tensor):
        expected, gradient = value_and_gradient(loss_fn, student, *rest)
        torch.testing.assert_close(arguments[0].grad.cpu(), gradient)
    else:
        expected = loss_fn(student, *rest)
    torch.testing.assert_close(loss.detach().cpu(), expected)


@pytest.mark.parametrize("loss_fn", CALLS, ids=lambda function: function.__name__)
def test_a_loss_asks_for_no_value_there(loss_fn, device, monkeypatch):
    """Nothing is checked that the program would have to wait for; only a mask's positions are looked up."""
    asked, computed = [], fake_device.computed

    def watched(op, args, kwargs):
        if op.overloadpacket.__name__ in ("_local_scalar_dense", "equal", "nonzero"):
            asked.append(op)
        return computed(op, args, kwargs)

    monkeypatch.setattr(fake_device, "computed", watched)
    loss = loss_fn(*there(CALLS[loss_fn]), **SETTINGS.get(loss_fn, {}))
    loss.backward()
    assert asked == []
    assert loss.item() is not None and len(asked) == 1


@pytest.mark.parametrize(
    "loss_fn", [f for f, arguments in CALLS.items() if arguments[-1] is MASK], ids=lambda f: f.__name__
)
def test_without_a_mask_all_tokens_count_there(loss_fn, device):
    pair_here = CALLS[loss_fn][:-1]
    torch.testing.assert_close(loss_fn(*sent(pair_here)).cpu(), loss_fn(*pair_here))


@pytest.mark.parametrize("measure", MEASURES, ids=lambda function: function.__name__)
def test_a_measure_is_the_same_there(measure, device):
    expected = measure(*MEASURES[measure])
    assert float(measure(*sent(MEASURES[measure]))) == pytest.approx(float(expected), rel=1e-6)


def test_a_layer_of_a_loss_follows_its_model(device):
    student, teacher = (tensor.float() for tensor in FEATURES)
    regressor, vid = feature.Regressor(4, 4), feature.VIDLoss(4, 4)
    expected = feature.hint_loss(regressor(student), teacher), vid(student, teacher)
    student, teacher = sent((student, teacher))
    found = feature.hint_loss(regressor.to(device)(student), teacher), vid.to(device)(student, teacher)
    for loss, there in zip(expected, found, strict=True):
        assert there.device == device
        torch.testing.assert_close(there.cpu(), loss)


def distil(student, images, labels, teacher_logits):
    logits = student(images)
    return F.cross_entropy(logits, labels) + response.kd_loss(logits, teacher_logits)


def test_a_student_learns_the_same_there(device):
    curves, answers = [], []
    for place in ("cpu", device):
        student, teacher = models.small_cnn(seed=0).to(place), models.small_cnn(seed=1).to(place)
        labelled = batches(
            PIXELS, LABELS.repeat(8), batch_size=32, seed=0, transform=data.normalize_fashion_mnist
        )
        history = fit(student, labelled, distil, steps=6, lr=0.01, teacher=teacher)
        assert next(student.parameters()).device == torch.device(place)
        curves.append(history["loss"])
        answers.append(predict(student, PIXELS, batch_size=24, transform=data.normalize_fashion_mnist))
    assert curves[1] == pytest.approx(curves[0], rel=1e-4)
    assert [answer.device.type for answer in answers] == ["cpu", "cpu"]
    torch.testing.assert_close(answers[1], answers[0], rtol=1e-3, atol=1e-3)


def test_the_audit_finds_the_same_there(device, capsys):
    told = []
    for place in ("cpu", device):
        student, teacher = models.small_cnn(seed=0).to(place), models.small_cnn(seed=1).to(place)
        pictures = torch.randn(8, 1, 28, 28, generator=torch.Generator().manual_seed(0)).to(place)
        audit(distil, student, teacher, (pictures, LABELS.to(place)))
        told.append(capsys.readouterr().out)
    assert told[0] == told[1]


def test_integers_are_packed_and_unpacked_there(device):
    integers = torch.arange(-3, 4, dtype=torch.int8).to(device)
    content = compress.pack_integers(integers, bits=3)
    assert content.device == device
    assert torch.equal(compress.unpack_integers(content, bits=3, shape=(7,)).cpu(), integers.cpu())


# The second device itself


def test_what_mixes_two_devices_raises(device):
    with pytest.raises(RuntimeError, match="found the second device and the CPU"):
        torch.eye(10) @ LOGITS[0].T.to(device)
    with pytest.raises(RuntimeError, match="found the second device and the CPU"):
        response.kd_loss(LOGITS[0].to(device), LOGITS[1])


def test_a_tensor_made_there_is_there(device):
    far = torch.ones(3, device=device)
    assert (far + 1).device == device
    assert far.sum().item() == 3
    assert (far + torch.tensor(1.0)).sum().item() == 6  # a single number may come from the CPU
