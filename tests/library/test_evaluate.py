"""Every measure against numbers worked out by hand and against the same measure in plain numpy."""

import logging
import math
import sys
import time
import warnings
from collections import UserDict

import loss_facts as facts
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from kdutils import evaluate
from kdutils.course import models

N, K = 200, 5


def random_answers(seed, scale=2.0, rows=N):
    generator = torch.Generator().manual_seed(seed)
    logits = scale * torch.randn(rows, K, generator=generator)
    labels = torch.randint(K, (rows,), generator=generator)
    return logits, torch.where(torch.rand(rows, generator=generator) < 0.5, logits.argmax(1), labels)


def probabilities(logits):
    exponentials = np.exp(logits.double().numpy() - logits.double().numpy().max(axis=1, keepdims=True))
    return exponentials / exponentials.sum(axis=1, keepdims=True)


def logits_of(*rows):
    """Logits whose softmax is the given probabilities."""
    return torch.tensor(rows, dtype=torch.float64).log()


# Accuracy, likelihood, agreement


def test_accuracy_by_hand():
    logits = torch.tensor([[3.0, 1.0], [0.0, 2.0], [5.0, 4.0], [-1.0, -2.0]])
    assert evaluate.accuracy(logits, torch.tensor([0, 1, 1, 0])) == 75.0
    assert evaluate.accuracy(logits, torch.tensor([1, 0, 1, 1])) == 0.0


def test_negative_log_likelihood_by_hand():
    logits = logits_of([0.5, 0.25, 0.25], [0.1, 0.8, 0.1])
    expected = -(math.log(0.25) + math.log(0.8)) / 2
    assert evaluate.negative_log_likelihood(logits + 7.0, torch.tensor([2, 1])) == pytest.approx(expected)


def test_agreement_by_hand():
    student = torch.tensor([[1.0, 2.0], [2.0, 1.0], [0.0, 9.0], [9.0, 0.0]])
    teacher = torch.tensor([[0.0, 0.1], [0.0, 0.1], [5.0, 6.0], [7.0, 6.0]])
    assert evaluate.agreement(student, teacher) == 75.0
    assert evaluate.agreement(student, -student) == 0.0


@pytest.mark.parametrize("seed", range(3))
def test_measures_equal_numpys(seed):
    logits, labels = random_answers(seed)
    p, y = probabilities(logits), labels.numpy()
    assert evaluate.accuracy(logits, labels) == pytest.approx(100 * (p.argmax(1) == y).mean())
    assert evaluate.negative_log_likelihood(logits, labels) == pytest.approx(
        -np.log(p[np.arange(N), y]).mean()
    )
    other = random_answers(seed + 50)[0]
    expected = 100 * (p.argmax(1) == probabilities(other).argmax(1)).mean()
    assert evaluate.agreement(logits, other) == pytest.approx(expected)


def test_likelihood_survives_the_extremes():
    logits = torch.tensor([[1e4, 0.0], [0.0, 300.0]])
    assert evaluate.negative_log_likelihood(logits, torch.tensor([1, 1])) == pytest.approx(5000.0)


# Calibration


def calibration_error(logits, labels, bins):
    """Bins (m/M, (m+1)/M], each weighed by its samples, written out."""
    p = probabilities(logits)
    confidence, correct = p.max(axis=1), p.argmax(axis=1) == labels.numpy()
    total = 0.0
    for m in range(bins):
        inside = (confidence > m / bins) & (confidence <= (m + 1) / bins)
        if inside.any():
            total += inside.mean() * abs(correct[inside].mean() - confidence[inside].mean())
    return 100 * total


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("bins", [1, 2, 10, 15, 100])
def test_calibration_error_matches_the_formula(seed, bins):
    logits, labels = random_answers(seed)
    expected = calibration_error(logits, labels, bins)
    assert evaluate.expected_calibration_error(logits, labels, bins) == pytest.approx(expected)
    assert expected > 0.1


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 1000), st.floats(0.1, 30), st.integers(1, 30))
def test_calibration_error_matches_the_formula_anywhere(seed, scale, bins):
    logits, labels = random_answers(seed, scale, rows=20)
    measured = evaluate.expected_calibration_error(logits, labels, bins)
    assert measured == pytest.approx(calibration_error(logits, labels, bins), abs=1e-9)
    assert 0 <= measured <= 100


def test_calibration_error_by_hand():
    """Two answers at 0.9, one right: a gap of 0.4; two at 0.6, both right: a gap of 0.4."""
    logits = logits_of([0.9, 0.1], [0.9, 0.1], [0.4, 0.6], [0.4, 0.6])
    labels = torch.tensor([0, 1, 1, 1])
    assert evaluate.expected_calibration_error(logits, labels) == pytest.approx(40.0)
    # In one bin: three of four are right at a mean confidence of 0.75.
    assert evaluate.expected_calibration_error(logits, labels, bins=1) == pytest.approx(0.0, abs=1e-9)


def test_a_bin_weighs_as_many_samples_as_it_has():
    logits = logits_of([0.9, 0.1], [0.6, 0.4], [0.6, 0.4], [0.6, 0.4])
    labels = torch.tensor([0, 0, 1, 1])
    expected = 100 * (1 / 4 * 0.1 + 3 / 4 * (0.6 - 1 / 3))
    assert evaluate.expected_calibration_error(logits, labels) == pytest.approx(expected)


def test_a_confidence_of_exactly_one_falls_in_the_last_bin():
    sure = torch.tensor([[1000.0, 0.0], [1000.0, 0.0]])
    assert evaluate.expected_calibration_error(sure, torch.tensor([0, 0])) == 0.0
    assert evaluate.expected_calibration_error(sure, torch.tensor([0, 1])) == pytest.approx(50.0)


def test_a_tie_has_the_confidence_of_chance():
    tied = torch.zeros(4, 4)
    labels = torch.tensor([0, 0, 1, 2])  # the first class is predicted: half are right, at confidence 1/4
    assert evaluate.accuracy(tied, labels) == 50.0
    assert evaluate.expected_calibration_error(tied, labels) == pytest.approx(25.0)


def test_an_edge_belongs_to_the_bin_below():
    """0.5 is in (0, 0.5]: alone there, and 0.75 alone in (0.5, 1]."""
    logits = logits_of([0.5, 0.5], [0.75, 0.25])
    assert evaluate.expected_calibration_error(logits, torch.tensor([0, 1]), bins=2) == pytest.approx(
        100 * (0.5 + 0.75) / 2
    )


# Temperature scaling


@pytest.mark.parametrize("seed, scale", [(0, 0.1), (1, 1.0), (2, 5.0), (3, 1e4), (4, 1e-4)])
def test_the_fitted_temperature_has_the_largest_likelihood(seed, scale):
    logits, labels = random_answers(seed, scale)
    temperature = evaluate.fit_temperature(logits, labels)

    def loss(t):
        return evaluate.negative_log_likelihood(logits.double() / t, labels)

    assert all(loss(temperature) <= loss(factor * temperature) for factor in (0.5, 0.99, 1.01, 2))
    inverse = torch.tensor(1 / temperature, dtype=torch.float64, requires_grad=True)
    nn.functional.cross_entropy(inverse * logits.double(), labels).backward()
    assert abs(inverse.grad.item()) < 1e-8 * scale  # the slope is zero there


def test_a_calibrated_model_has_temperature_one_and_an_overconfident_one_more():
    generator = torch.Generator().manual_seed(0)
    logits = 2 * torch.randn(50_000, K, generator=generator)
    labels = torch.multinomial(logits.softmax(dim=1), 1, generator=generator).squeeze(1)
    assert evaluate.fit_temperature(logits, labels) == pytest.approx(1, abs=0.03)
    assert evaluate.fit_temperature(3 * logits, labels) == pytest.approx(3, abs=0.09)
    overconfident = evaluate.expected_calibration_error(3 * logits, labels)
    calibrated = evaluate.expected_calibration_error(
        3 * logits / evaluate.fit_temperature(3 * logits, labels), labels
    )
    assert calibrated < 1 < 10 < overconfident


def test_two_answers_of_which_one_is_right_more_often_by_hand():
    # with a gap of 4 right in three of four cases: σ(4 / T) = 3/4
    logits = torch.tensor([[4.0, 0.0]]).repeat(4, 1)
    temperature = evaluate.fit_temperature(logits, torch.tensor([0, 0, 0, 1]))
    assert temperature == pytest.approx(4 / math.log(3), rel=1e-9)


@pytest.mark.parametrize(
    "labels, told",
    [
        ([0, 0], "logits: expected at least one wrong prediction, got none: the best temperature is 0"),
        ([1, 1], "logits: expected ones that are better than chance, got ones that no temperature helps"),
        ([0, 1], "logits: expected ones that are better than chance, got ones that no temperature helps"),
    ],
)
def test_where_no_temperature_is_best_it_is_said(labels, told):
    with pytest.raises(ValueError, match=f"^{told}$"):
        evaluate.fit_temperature(torch.tensor([[2.0, 0.0], [2.0, 0.0]]), torch.tensor(labels))


# Bad input

WITH_LABELS = (
    evaluate.accuracy,
    evaluate.negative_log_likelihood,
    evaluate.expected_calibration_error,
    evaluate.fit_temperature,
)
every_measure = pytest.mark.parametrize("measure", WITH_LABELS, ids=lambda measure: measure.__name__)


@every_measure
@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_logits_that_are_not_finite_are_refused(measure, value):
    logits, labels = random_answers(0)
    logits[3, 1] = value
    with pytest.raises(ValueError, match="logits: expected finite numbers, got 1 that are not"):
        measure(logits, labels)


@every_measure
@pytest.mark.parametrize(
    "logits, labels, naming",
    [
        (torch.zeros(0, K), torch.zeros(0, dtype=torch.long), "logits"),
        (torch.zeros(N), torch.zeros(N, dtype=torch.long), "logits"),
        (torch.zeros(N, K, dtype=torch.long), torch.zeros(N, dtype=torch.long), "logits"),
        (torch.zeros(N, K), torch.zeros(N - 1, dtype=torch.long), "labels"),
        (torch.zeros(N, K), torch.full((N,), K), "labels"),
        (torch.zeros(N, K), torch.full((N,), -1), "labels"),
        (torch.zeros(N, K), torch.zeros(N), "labels"),
        (torch.zeros(N, K), torch.zeros(N, K), "labels"),
    ],
)
def test_logits_and_labels_that_do_not_fit_are_named(measure, logits, labels, naming):
    with pytest.raises(ValueError, match=rf"^{naming}: expected"):
        measure(logits, labels)


def test_fifteen_bins_unless_told():
    logits, labels = random_answers(0)
    measured = evaluate.expected_calibration_error(logits, labels)
    assert measured == evaluate.expected_calibration_error(logits, labels, bins=15)
    assert measured != evaluate.expected_calibration_error(logits, labels, bins=16)


@pytest.mark.parametrize("bins", [0, -1, 2.5])
def test_refuses_bins_that_cannot_be_cut(bins):
    with pytest.raises(ValueError, match="bins: expected"):
        evaluate.expected_calibration_error(*random_answers(0), bins=bins)


def test_agreement_names_what_does_not_fit():
    logits = torch.zeros(4, K)
    for student, teacher, naming in (
        (logits, logits[:3], "teacher_logits: expected the shape of student_logits"),
        (logits[:0], logits[:0], "student_logits: expected"),
        (logits * math.nan, logits, "student_logits: expected"),
        (logits, logits * math.nan, "teacher_logits: expected"),
    ):
        with pytest.raises(ValueError, match=rf"^{naming}"):
            evaluate.agreement(student, teacher)


# Costs


def test_parameters_by_hand():
    net = nn.Sequential(nn.Conv2d(3, 4, 5), nn.BatchNorm2d(4), nn.Linear(7, 2, bias=False))
    net[0].requires_grad_(False)
    assert evaluate.parameter_count(net) == (3 * 4 * 25 + 4) + (4 + 4) + 14


ONE_IMAGE = torch.zeros(1, 1, 28, 28)


class Applies(nn.Module):
    def __init__(self, function):
        super().__init__()
        self.function = function

    def forward(self, *inputs, **named):
        return self.function(*inputs, **named)


def attention_block(dim=8, length=6):
    """Multi-head attention as transformers write it: four projections and the fused product."""

    class Block(nn.Module):
        def __init__(self):
            super().__init__()
            self.projections = nn.ModuleList(nn.Linear(dim, dim) for _ in range(4))

        def forward(self, x):
            q, k, v = (project(x).unsqueeze(1) for project in self.projections[:3])
            attended = nn.functional.scaled_dot_product_attention(q, k, v)
            return self.projections[3](attended.squeeze(1))

    return Block(), torch.zeros(1, length, dim)


MACS = {
    "linear": (nn.Linear(7, 3), torch.zeros(2, 7), 2 * 7 * 3),
    "convolution": (nn.Conv2d(2, 5, 3, padding=1), torch.zeros(1, 2, 8, 8), 64 * 9 * 2 * 5),
    "stride": (nn.Conv2d(2, 5, 3, stride=2), torch.zeros(1, 2, 9, 9), 16 * 9 * 2 * 5),
    "depthwise": (nn.Conv2d(6, 6, 3, padding=1, groups=6), torch.zeros(1, 6, 8, 8), 64 * 9 * 6),
    "no product": (nn.Sequential(nn.BatchNorm2d(3), nn.ReLU()), torch.zeros(1, 3, 8, 8), 0),
    "attention": (*attention_block(), 4 * 6 * 8 * 8 + 2 * 6 * 6 * 8),
    "PyTorch's own attention": (
        nn.TransformerEncoderLayer(16, 2, 32, batch_first=True),
        torch.zeros(1, 5, 16),
        5 * 4 * 16 * 16 + 2 * 5 * 5 * 16 + 2 * 5 * 16 * 32,
    ),
    "small_cnn": (
        models.small_cnn(),
        ONE_IMAGE,
        196 * 9 * 8 + 49 * 9 * 8 * 16 + 49 * 9 * 16 * 32 + 320,
    ),
    "bilinear": (nn.Bilinear(3, 4, 5), (torch.zeros(2, 3), torch.zeros(2, 4)), 2 * 5 * 3 * 4 + 2 * 5 * 3),
    "matrix times vector": (Applies(lambda x: x @ x[0, 0]), torch.zeros(2, 3, 4), 2 * 3 * 4),
    "plus a vector": (Applies(lambda x: torch.addmv(x[:, 0], x, x[0])), torch.zeros(4, 4), 4 * 4),
    "dot": (Applies(lambda x: x @ x), torch.zeros(7), 7),
    "complex dot": (Applies(lambda x: torch.vdot(x, x)), torch.zeros(7), 7),
    "sum of products": (
        Applies(lambda x: torch.addbmm(x[0] @ x[0].T, x, x.mT)),
        torch.zeros(2, 3, 4),
        3 * 3 * 4 + 2 * 3 * 3 * 4,
    ),
    "keywords": (Applies(lambda a, b: a @ b), {"a": torch.zeros(2, 3), "b": torch.zeros(3, 5)}, 30),
    "a BatchEncoding": (Applies(lambda a: a @ a.T), UserDict(a=torch.zeros(2, 3)), 12),
    "teacher_cnn": (
        models.teacher_cnn(),
        ONE_IMAGE,
        196 * 9 * 32 + 49 * 9 * (32 * 64 + 64 * 64 + 64 * 128 + 128 * 128) + 1280,
    ),
}


@pytest.mark.parametrize("model, sample, expected", MACS.values(), ids=MACS.keys())
def test_macs_by_hand(model, sample, expected):
    model.train()
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    assert evaluate.macs(model, sample) == expected
    assert model.training
    assert all(torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items())


@pytest.mark.parametrize("layer", [nn.LSTM(3, 4), nn.Sequential(nn.GRUCell(3, 4))], ids=["LSTM", "GRUCell"])
def test_a_layer_that_cannot_be_counted_is_named(layer):
    name = "LSTM" if isinstance(layer, nn.LSTM) else "GRUCell"
    with pytest.raises(ValueError, match=f"^model: expected no recurrent layer, got {name}$"):
        evaluate.macs(layer, torch.zeros(2, 3))


@pytest.fixture
def quantized():
    """Ten inputs, five outputs, quantized by PyTorch itself: its weights are packed."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return torch.ao.quantization.quantize_dynamic(nn.Sequential(nn.Linear(10, 5)))


def test_packed_weights_are_counted_and_weighed_and_their_macs_refused(quantized):
    assert evaluate.parameter_count(quantized) == 55
    # weights in one byte, biases in four, a scale and a zero point
    assert evaluate.size_mb(quantized) == (50 + 5 * 4 + 4 + 8) / 1e6
    with pytest.raises(ValueError, match=r"^model: expected no quantized layer, got Linear$"):
        evaluate.macs(quantized, torch.zeros(1, 10))


class WithState(nn.Linear):
    """A layer that stores something besides its tensors."""

    def __init__(self, state):
        super().__init__(10, 5)
        self.state = state

    def get_extra_state(self):
        return self.state

    def set_extra_state(self, state):
        self.state = state


@pytest.mark.parametrize(
    "state, num_bytes",
    [
        ({"history": [torch.zeros(3), torch.zeros(2, dtype=torch.int64)], "step": 7, "name": "x"}, 12 + 16),
        (b"12345", 5),
        (torch.zeros(9, dtype=torch.uint8), 9),
        ((torch.float16, None, 3.5), 0),
    ],
)
def test_extra_state_is_weighed_where_it_is_tensors_or_bytes(state, num_bytes):
    assert evaluate.size_mb(WithState(state)) == (4 * 55 + num_bytes) / 1e6
    assert evaluate.parameter_count(WithState(state)) == 55


def test_a_tensor_made_of_others_is_weighed_by_them():
    class Packed(torch.Tensor):
        """Claims to be float32 and holds int8 and scales, as torchao's weights do."""

        def __tensor_flatten__(self):
            return ["integers", "scales"], None

    weight = torch.zeros(5, 10).as_subclass(Packed)
    weight.integers, weight.scales = torch.zeros(5, 10, dtype=torch.int8), torch.zeros(5)
    layer = nn.Module()
    layer.register_buffer("weight", weight)
    assert evaluate.size_mb(layer) == (50 + 20) / 1e6


def test_counting_leaves_the_fast_path_as_it_was():
    evaluate.macs(nn.Linear(3, 4), torch.zeros(2, 3))
    assert torch.backends.mha.get_fastpath_enabled()
    with pytest.raises(RuntimeError):
        evaluate.macs(nn.Linear(3, 4), torch.zeros(2, 5))
    assert torch.backends.mha.get_fastpath_enabled()


@pytest.mark.parametrize("dtype", [torch.int32, torch.uint8], ids=str)
def test_labels_of_any_integer_dtype_give_the_same(dtype):
    logits, labels = random_answers(0)
    for measure in (evaluate.accuracy, evaluate.negative_log_likelihood, evaluate.expected_calibration_error):
        assert measure(logits, labels.to(dtype)) == measure(logits, labels)


def test_macs_of_the_courses_nets_are_a_whole_number_and_print_nothing(capsys):
    count = evaluate.macs(models.small_cnn(), ONE_IMAGE)
    assert count == 296_672 and isinstance(count, int)
    assert capsys.readouterr().out == ""
    assert evaluate.macs(models.small_cnn(), ONE_IMAGE.repeat(3, 1, 1, 1)) == 3 * 296_672


def test_size_counts_parameters_and_buffers_as_stored():
    net = nn.Sequential(nn.Linear(10, 5), nn.BatchNorm1d(5))
    # 55 + 10 parameters and 10 running statistics in four bytes, one counter in eight
    assert evaluate.size_mb(net) == (4 * (55 + 10 + 10) + 8) / 1e6
    assert evaluate.size_mb(nn.Linear(10, 5).half()) == 2 * 55 / 1e6


def test_size_counts_a_shared_tensor_once():
    embedding, decoder = nn.Embedding(50, 4), nn.Linear(4, 50, bias=False)
    decoder.weight = embedding.weight
    assert evaluate.size_mb(nn.Sequential(embedding, decoder)) == pytest.approx(4 * 200 / 1e6)
    assert evaluate.size_mb(nn.Linear(1000, 1000, device="meta")) == pytest.approx(4 * 1_001_000 / 1e6)


def test_latency_grows_with_the_work_and_leaves_the_model_as_it_was():
    model = models.small_cnn().train()
    model.stages[0].eval()
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    single, many = (
        evaluate.latency_ms(model, torch.zeros(n, 1, 28, 28), min_run_time=0.05) for n in (1, 128)
    )
    assert 0.01 < single < many / 4
    assert model.training and not model.stages[0].training
    assert all(torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items())


def test_latency_is_in_milliseconds():
    class Waits(nn.Module):
        def forward(self, x):
            time.sleep(0.02)
            return x

    assert 20 <= evaluate.latency_ms(Waits(), torch.zeros(1), min_run_time=0.05) < 200


def test_latency_is_the_timers_median_over_three_tenths_of_a_second(monkeypatch):
    class Measurement:
        median = 0.002

    asked = {}

    def blocked_autorange(timer, **settings):
        asked.update(settings)
        return Measurement()

    monkeypatch.setattr("torch.utils.benchmark.Timer.blocked_autorange", blocked_autorange)
    assert evaluate.latency_ms(nn.Identity(), torch.zeros(1)) == 2.0
    assert asked == {"min_run_time": 0.3}


@pytest.mark.parametrize("asked, threads", [({}, 1), ({"num_threads": 1}, 1), ({"num_threads": 2}, 2)])
def test_latency_is_that_of_so_many_threads(asked, threads):
    seen = set()

    class Looks(nn.Module):
        def forward(self, x):
            seen.add(torch.get_num_threads())
            return x

    evaluate.latency_ms(Looks(), torch.zeros(1), min_run_time=0.01, **asked)
    assert seen == {threads}


def test_latency_silences_a_warning_about_a_missing_toolkit():
    evaluate.latency_ms(nn.Identity(), torch.zeros(1), min_run_time=0.01)
    assert not logging.getLogger("torch.utils.cpp_extension").isEnabledFor(logging.WARNING)
    assert logging.getLogger("torch").isEnabledFor(logging.WARNING)


class Caches(nn.Module):
    """Keeps a tensor of its first call, as rotary embeddings and masks are kept."""

    def __init__(self):
        super().__init__()
        self.layer, self.kept = nn.Linear(3, 3), None

    def forward(self, x):
        if self.kept is None:
            self.kept = self.layer.bias.detach() + 1
        return self.layer(x) * self.kept


@pytest.mark.parametrize("measure", [evaluate.latency_ms, evaluate.macs])
def test_a_model_that_was_measured_can_be_trained(measure):
    model = Caches()
    measure(model, torch.ones(2, 3))
    model(torch.ones(2, 3)).sum().backward()
    assert model.layer.weight.grad.abs().sum() > 0


def test_no_gradient_is_recorded_while_time_is_taken():
    asked = []
    evaluate.latency_ms(Applies(lambda x: asked.append(torch.is_grad_enabled())), torch.ones(1), 0.01)
    assert set(asked) == {False}


@pytest.mark.parametrize("sample", [(torch.ones(2), torch.ones(2)), {"a": torch.ones(2), "b": torch.ones(2)}])
def test_latency_takes_several_inputs(sample):
    seen = []

    def add(a, b):
        seen.append(a + b)

    assert evaluate.latency_ms(Applies(add), sample, min_run_time=0.01) > 0
    torch.testing.assert_close(seen[0], torch.full((2,), 2.0))


def test_compiling_is_no_part_of_the_latency():
    torch._dynamo.reset()

    def slowly(graph, example_inputs):
        time.sleep(1.0)
        return graph.forward

    model = torch.compile(models.small_cnn(), backend=slowly)
    assert evaluate.latency_ms(model, ONE_IMAGE, min_run_time=0.05) < 500
    torch._dynamo.reset()


# ONNX Runtime


@pytest.fixture
def onnx_file(tmp_path):
    """An ONNX model that multiplies `a` (N, 300) with `b` (300, K)."""
    pytest.importorskip("onnxruntime", reason="ONNX Runtime is not installed")
    onnx = pytest.importorskip("onnx", reason="onnx is not installed")
    helper, kind = onnx.helper, onnx.TensorProto.FLOAT
    inputs = [
        helper.make_tensor_value_info(name, kind, shape)
        for name, shape in (("a", ["N", 300]), ("b", [300, "K"]))
    ]
    outputs = [helper.make_tensor_value_info("c", kind, ["N", "K"])]
    graph = helper.make_graph([helper.make_node("MatMul", ["a", "b"], ["c"])], "product", inputs, outputs)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    onnx.save(model, tmp_path / "product.onnx")
    return tmp_path / "product.onnx"


def factors(rows):
    return torch.ones(rows, 300), torch.ones(300, 300)


def test_onnx_latency_is_in_the_units_of_latency_ms(onnx_file):
    few, many = (evaluate.onnx_latency_ms(onnx_file, factors(rows), min_run_time=0.05) for rows in (1, 2000))
    product = Applies(lambda a, b: a @ b)
    assert 0 < 5 * few < many
    assert 1 / 20 < many / evaluate.latency_ms(product, factors(2000), min_run_time=0.05) < 20


def test_an_onnx_session_gets_its_inputs_by_order_or_name_as_tensors_or_arrays():
    class Session:
        """What is used of an `onnxruntime.InferenceSession`."""

        def __init__(self, *names):
            self.inputs, self.fed = [type("Input", (), {"name": name}) for name in names], []

        def get_inputs(self):
            return self.inputs

        def run(self, outputs, feed):
            assert outputs is None
            self.fed.append(feed)

    a, b = np.ones((1, 3), dtype=np.float32), torch.ones(3, 2)
    for sample in ((torch.from_numpy(a), b), (a, b), {"a": a, "b": b}, {"b": b, "a": torch.from_numpy(a)}):
        session = Session("a", "b")
        assert evaluate.onnx_latency_ms(session, sample, min_run_time=0.001) > 0
        assert set(session.fed[0]) == {"a", "b"}
        assert session.fed[0]["a"].shape == (1, 3) and isinstance(session.fed[0]["b"], np.ndarray)
    single = Session("tokens")
    evaluate.onnx_latency_ms(single, torch.tensor([[1, 2]]), min_run_time=0.001)
    assert single.fed[0]["tokens"].tolist() == [[1, 2]]
    with pytest.raises(ValueError, match=r"^sample: expected inputs \['a', 'b'\], got 1$"):
        evaluate.onnx_latency_ms(Session("a", "b"), b)
    with pytest.raises(ValueError, match=r"^sample: expected inputs \['tokens'\], got 2$"):
        evaluate.onnx_latency_ms(Session("tokens"), (a, b))


def test_without_onnx_runtime_the_extra_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    with pytest.raises(ImportError, match=r'onnxruntime.*pip install "kdutils\[int8\]"'):
        evaluate.onnx_latency_ms("model.onnx", torch.zeros(1))


# Linear CKA


def cka_formula(student, teacher):
    """HSIC(K, L) / √(HSIC(K, K)·HSIC(L, L)) with HSIC(K, L) = tr(K·H·L·H), H the centring matrix."""
    n = len(student)
    centring = torch.eye(n, dtype=student.dtype) - 1 / n

    def hsic(k, kk):
        return torch.trace(k @ centring @ kk @ centring)

    k, kk = (x.reshape(n, -1) @ x.reshape(n, -1).T for x in (student, teacher))
    return hsic(k, kk) / torch.sqrt(hsic(k, k) * hsic(kk, kk))


@pytest.mark.parametrize("shapes", [((5, 2), (5, 3)), ((4, 3, 2, 2), (4, 7)), ((6, 20), (6, 1))])
def test_cka_equals_the_formula(shapes):
    student = facts.random_tensor(*shapes[0], seed=1) + 3
    teacher = facts.random_tensor(*shapes[1], seed=2) - 1
    facts.assert_matches_formula(evaluate.linear_cka, cka_formula, student, teacher)
    facts.assert_gradient_is_exact(evaluate.linear_cka, student, teacher)
    torch.testing.assert_close(evaluate.linear_cka(teacher, student), evaluate.linear_cka(student, teacher))


def test_cka_in_feature_space():
    student, teacher = facts.random_tensor(30, 4, seed=1), facts.random_tensor(30, 6, seed=2)
    x, y = student - student.mean(0), teacher - teacher.mean(0)
    expected = (y.T @ x).norm() ** 2 / ((x.T @ x).norm() * (y.T @ y).norm())
    torch.testing.assert_close(evaluate.linear_cka(student, teacher), expected)


def test_cka_ignores_rotation_scale_and_offset():
    student = facts.random_tensor(12, 4, seed=1)
    rotation, _ = torch.linalg.qr(facts.random_tensor(4, 4, seed=3))
    torch.testing.assert_close(
        evaluate.linear_cka(3 * student @ rotation - 5, student), torch.ones_like(student[0, 0])
    )
    stretched = student * torch.tensor([1.0, 5.0, 1.0, 0.2])
    assert 0.1 < evaluate.linear_cka(stretched, student) < 0.95


def test_cka_falls_as_noise_grows():
    teacher = facts.random_tensor(200, 10, seed=1, dtype=torch.float32)
    noise = facts.random_tensor(200, 10, seed=2, dtype=torch.float32)
    similarity = [evaluate.linear_cka(teacher + level * noise, teacher).item() for level in (0, 0.5, 1, 4)]
    assert similarity == sorted(similarity, reverse=True)
    assert similarity[0] == pytest.approx(1, abs=1e-5) and similarity[-1] < 0.3


def test_cka_of_constant_features_is_zero():
    student, teacher = facts.random_tensor(6, 4), facts.random_tensor(6, 3, seed=1)
    for dtype in (torch.float64, torch.float32):
        for constant in (torch.zeros(6, 4, dtype=dtype), torch.full((6, 4), 0.1, dtype=dtype)):
            assert evaluate.linear_cka(constant, teacher.to(dtype)).abs() < 1e-5
            assert evaluate.linear_cka(student.to(dtype), constant[:, :3]).abs() < 1e-5
            facts.assert_finite(evaluate.linear_cka, constant, teacher.to(dtype))


@pytest.mark.parametrize("size", [1e-3, 3.0, 1e4])
def test_cka_of_two_layers_that_collapsed_is_zero(size):
    # equal rows, whose mean is rounded: what centring leaves of them is no signal, however it is scaled
    student, teacher = (size * facts.random_tensor(1, d, seed=d, dtype=torch.float32) for d in (32, 64))
    assert evaluate.linear_cka(student.expand(100, -1), teacher.expand(100, -1)) == 0
    assert evaluate.linear_cka(student.expand(100, -1).double(), teacher.expand(100, -1).double()) == 0


def debiased_formula(student, teacher):
    """HSIC₁ of Song et al. 2012, eq. 5, three times."""
    n = len(student)
    one = torch.ones(n, dtype=student.dtype)

    def hsic(k, kk):
        k, kk = (x - torch.diag(torch.diagonal(x)) for x in (k, kk))
        sums = (one @ k @ one) * (one @ kk @ one) / ((n - 1) * (n - 2))
        return (torch.trace(k @ kk) + sums - 2 / (n - 2) * (one @ k @ kk @ one)) / (n * (n - 3))

    k, kk = (x.reshape(n, -1) @ x.reshape(n, -1).T for x in (student, teacher))
    return hsic(k, kk) / torch.sqrt(hsic(k, k) * hsic(kk, kk))


def debiased(student, teacher):
    return evaluate.linear_cka(student, teacher, debiased=True)


@pytest.mark.parametrize("shapes", [((5, 2), (5, 3)), ((4, 3, 2, 2), (4, 7)), ((6, 20), (6, 1))])
def test_debiased_cka_equals_the_formula(shapes):
    student, teacher = (facts.random_tensor(*shape, seed=seed) + 3 for seed, shape in enumerate(shapes))
    facts.assert_matches_formula(debiased, debiased_formula, student, teacher)
    torch.testing.assert_close(debiased(teacher, student), debiased(student, teacher))
    assert debiased(7 * student - 2, student).item() == pytest.approx(1)


def test_only_the_debiased_estimate_is_zero_for_unrelated_features():
    pairs = [
        (facts.random_tensor(4, 512, seed=s), facts.random_tensor(4, 512, seed=s + 500)) for s in range(300)
    ]
    assert min(evaluate.linear_cka(*pair) for pair in pairs) > 0.95
    estimates = torch.stack([debiased(*pair) for pair in pairs])
    assert abs(estimates.mean()) < 3 * estimates.std() / 300**0.5 and estimates.min() < -0.3
    assert evaluate.linear_cka(pairs[0][0][:2], pairs[0][1][:2]) == pytest.approx(1)  # as the docstring says


def test_debiased_cka_needs_four_samples():
    student = facts.random_tensor(3, 2)
    facts.assert_rejects(debiased, student, student, naming="student_features")
    assert "N >= 4" in facts.assert_rejects(debiased, student, student, naming="student_features")


@pytest.mark.parametrize("measure", [evaluate.linear_cka, debiased])
@pytest.mark.parametrize("size", [1e-35, 1e-20, 1e-8, 1.0, 1e9, 1e20, 1e35])
def test_cka_does_not_depend_on_the_scale(measure, size):
    student, teacher = (facts.random_tensor(8, 5, seed=seed, dtype=torch.float32) for seed in (1, 2))
    expected, gradient = facts.value_and_gradient(measure, student, teacher)
    value, scaled_gradient = facts.value_and_gradient(measure, size * student, teacher / size)
    torch.testing.assert_close(value, expected, rtol=1e-4, atol=1e-6)
    torch.testing.assert_close(size * scaled_gradient.double(), gradient.double(), rtol=1e-3, atol=1e-5)


@pytest.mark.parametrize("dtype", facts.LOW_PRECISION, ids=str)
@pytest.mark.parametrize("measure", [evaluate.linear_cka, debiased])
def test_cka_of_half_precision_comes_in_float32(measure, dtype):
    student, teacher = (facts.random_tensor(8, 5, seed=seed).to(dtype) for seed in (1, 2))
    similarity = measure(student, teacher)
    assert similarity.dtype == torch.float32
    torch.testing.assert_close(similarity, measure(student.float(), teacher.float()))


def test_debiased_cka_of_constant_features_is_zero():
    student = facts.random_tensor(1, 32, dtype=torch.float32).expand(100, -1)
    assert debiased(student, facts.random_tensor(100, 4, dtype=torch.float32)) == 0


def test_cka_needs_two_samples_of_both():
    student, teacher = (facts.random_tensor(2, 4, 3, 2, seed=seed) for seed in (0, 100))
    facts.assert_rejects(evaluate.linear_cka, student[:1], teacher[:1], naming="student_features")
    facts.assert_rejects(evaluate.linear_cka, student, teacher[:1], naming="teacher_features")
    facts.assert_rejects(
        evaluate.linear_cka, student, torch.cat([teacher, teacher]), naming="teacher_features"
    )


def test_cka_keeps_to_the_facts_of_the_losses():
    student, teacher = (facts.random_tensor(5, 4, 3, 2, seed=seed) for seed in (0, 100))
    facts.assert_teacher_gets_no_gradient(evaluate.linear_cka, student, teacher)
    facts.assert_nan_is_shown(evaluate.linear_cka, student, teacher)
    expected = evaluate.linear_cka(student, teacher).item()
    for dtypes in ((torch.float32, torch.float64), (torch.float64, torch.float32)):
        similarity = evaluate.linear_cka(student.to(dtypes[0]), teacher.to(dtypes[1]))
        assert similarity.dtype == dtypes[0] and similarity.item() == pytest.approx(expected, rel=1e-4)


@pytest.mark.parametrize("who", ["student", "teacher"])
def test_cka_refuses_whole_numbers(who):
    pixels = torch.randint(0, 256, (4, 3, 6, 6), dtype=torch.uint8)
    arguments = (pixels, pixels.float()) if who == "student" else (pixels.float(), pixels)
    told = f"{who}_features: expected a floating-point dtype, got torch.uint8"
    assert facts.assert_rejects(evaluate.linear_cka, *arguments, naming=f"{who}_features") == told
