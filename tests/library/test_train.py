"""The loop trains as the loop written by hand, keeps what it promises, and names what goes wrong."""

import contextlib
import itertools
import math
import re

import pytest
import torch
import torch.nn.functional as F
from torch import nn
from torch.utils.data import BatchSampler, DataLoader, DistributedSampler, TensorDataset

from kdutils.batches import batches
from kdutils.losses import kd_loss
from kdutils.train import TrainingInterrupted, fit, predict

N, D, K = 40, 6, 3
INPUTS = torch.randn(N, D, generator=torch.Generator().manual_seed(0))
LABELS = INPUTS[:, :K].argmax(dim=1)


def small_net(seed=0, dropout=0.0):
    """Linear layers around a batch norm, so that training and eval mode differ."""
    torch.manual_seed(seed)
    return nn.Sequential(nn.Linear(D, 5), nn.BatchNorm1d(5), nn.ReLU(), nn.Dropout(dropout), nn.Linear(5, K))


def state(model):
    return torch.cat([tensor.double().flatten() for tensor in model.state_dict().values()])


def parameters(model):
    return torch.cat([parameter.detach().flatten() for parameter in model.parameters()])


def labels_only(model, inputs, labels):
    return F.cross_entropy(model(inputs), labels)


def two_terms(model, inputs, labels):
    logits = model(inputs)
    return {"hard": F.cross_entropy(logits, labels), "size": 0.1 * logits.pow(2).mean()}


def labelled(seed=0):
    return batches(INPUTS, LABELS, batch_size=16, seed=seed)


# What the loop computes


def by_hand(model, loader, loss_fn, steps, lr, weight_decay=0.01):
    """The same training, written out; returns the losses."""
    optimizer = torch.optim.AdamW(model.parameters(), lr=lr, weight_decay=weight_decay, fused=True)
    schedule = torch.optim.lr_scheduler.OneCycleLR(
        optimizer, max_lr=lr, total_steps=max(steps + 1, 5), pct_start=0.25
    )
    losses, epoch = [], 0
    model.train()
    while len(losses) < steps:
        loader.set_epoch(epoch)
        for batch in loader:
            if len(losses) < steps:
                loss = loss_fn(model, *batch)
                optimizer.zero_grad()
                loss.backward()
                optimizer.step()
                schedule.step()
                losses.append(loss.item())
        epoch += 1
    model.eval()
    return losses


@pytest.mark.parametrize("steps", [1, 2, 3, 4, 5, 11])
def test_the_loop_is_the_one_written_by_hand(steps):
    model, other = small_net(), small_net()
    history = fit(model, labelled(), labels_only, steps=steps, lr=0.03, weight_decay=0.2)
    assert history == {"loss": by_hand(other, labelled(), labels_only, steps, 0.03, 0.2)}
    assert torch.equal(state(model), state(other))
    assert not torch.equal(parameters(model), parameters(small_net()))


def test_a_rerun_is_bit_identical_and_another_seed_is_not():
    runs = [small_net() for _ in range(3)]
    for model, seed in zip(runs, (4, 4, 5), strict=True):
        fit(model, labelled(seed), labels_only, steps=7, lr=0.03)
    assert torch.equal(state(runs[0]), state(runs[1]))
    assert not torch.equal(state(runs[0]), state(runs[2]))


def test_the_same_batches_object_serves_both_arms_alike():
    loader = labelled()
    first, second = small_net(), small_net()
    fit(first, loader, labels_only, steps=7, lr=0.03)
    fit(second, loader, labels_only, steps=7, lr=0.03)
    assert torch.equal(state(first), state(second))


def test_every_epoch_is_shuffled_anew():
    seen = []

    def loss_fn(model, inputs, labels):
        seen.append(tuple(inputs[:, 0].tolist()))
        return labels_only(model, inputs, labels)

    fit(small_net(), labelled(), loss_fn, steps=9, lr=0.01)
    epochs = [sum(seen[i : i + 3], ()) for i in (0, 3, 6)]
    assert [sorted(epoch) for epoch in epochs] == [sorted(INPUTS[:, 0].tolist())] * 3
    assert len(set(epochs)) == 3


def test_a_distributed_sampler_is_told_the_epoch():
    dataset = TensorDataset(INPUTS, LABELS)
    sampler = DistributedSampler(dataset, num_replicas=2, rank=1)
    fit(small_net(), DataLoader(dataset, batch_size=10, sampler=sampler), labels_only, steps=5, lr=0.01)
    assert sampler.epoch == 2
    in_batches = DataLoader(dataset, batch_sampler=BatchSampler(sampler, 10, drop_last=False))
    fit(small_net(), in_batches, labels_only, steps=7, lr=0.01)
    assert sampler.epoch == 3


def test_a_sampler_of_whole_batches_is_told_the_epoch():
    whole = [(INPUTS[i : i + 10], LABELS[i : i + 10]) for i in range(0, N, 10)]
    sampler = DistributedSampler(whole, num_replicas=1, rank=0)
    fit(small_net(), DataLoader(whole, batch_size=None, sampler=sampler), labels_only, steps=9, lr=0.01)
    assert sampler.epoch == 2


def test_a_batch_sampler_that_shuffles_by_epoch_is_told_it():
    class ByEpoch(BatchSampler):
        def set_epoch(self, epoch):
            self.epoch = epoch

    batch_sampler = ByEpoch(range(N), 10, drop_last=False)
    loader = DataLoader(TensorDataset(INPUTS, LABELS), batch_sampler=batch_sampler)
    fit(small_net(), loader, labels_only, steps=9, lr=0.01)
    assert batch_sampler.epoch == 2


def test_a_list_of_tuples_is_gone_through_again_and_again():
    pairs = [(INPUTS[:8], LABELS[:8]), (INPUTS[8:16], LABELS[8:16])]
    assert len(fit(small_net(), pairs, labels_only, steps=5, lr=0.01)["loss"]) == 5


def test_a_generator_serves_until_it_is_used_up():
    def three_batches():
        yield from labelled()

    assert len(fit(small_net(), three_batches(), labels_only, steps=3, lr=0.01)["loss"]) == 3
    with pytest.raises(ValueError, match="batches: ran out in epoch 1; expected") as raised:
        fit(small_net(), three_batches(), labels_only, steps=4, lr=0.01)
    assert str(raised.value) == (
        "batches: ran out in epoch 1; expected a non-empty re-iterable (a list, a DataLoader, batches), "
        "not a generator that is used up"
    )


# History and mode


def test_history_has_every_named_term_and_their_sum():
    history = fit(small_net(), labelled(), two_terms, steps=8, lr=0.03)
    assert list(history) == ["hard", "size", "loss"]
    assert [len(curve) for curve in history.values()] == [8] * 3
    for hard, size, loss in zip(*history.values(), strict=True):
        assert loss == pytest.approx(hard + size, rel=1e-6)
    assert history["loss"][-1] < history["loss"][0]


def test_the_sum_of_the_terms_is_minimised():
    summed, named = small_net(), small_net()
    fit(summed, labelled(), lambda *batch: sum(two_terms(*batch).values()), steps=6, lr=0.03)
    fit(named, labelled(), two_terms, steps=6, lr=0.03)
    assert torch.equal(state(summed), state(named))


def test_a_term_of_weight_zero_changes_nothing():
    """The distillation term at weight 0 is bit-identical to labels only."""
    teacher_logits = torch.randn(N, K, generator=torch.Generator().manual_seed(2))
    plain, weighted, distilled = small_net(), small_net(), small_net()
    loader = batches(INPUTS, LABELS, teacher_logits, batch_size=16, seed=0)

    def with_weight(weight):
        def loss_fn(model, inputs, labels, teacher_logits):
            logits = model(inputs)
            return F.cross_entropy(logits, labels) + weight * kd_loss(logits, teacher_logits, temperature=4.0)

        return loss_fn

    fit(plain, labelled(), labels_only, steps=9, lr=0.03)
    fit(weighted, loader, with_weight(0.0), steps=9, lr=0.03)
    fit(distilled, loader, with_weight(0.5), steps=9, lr=0.03)
    assert torch.equal(state(plain), state(weighted))
    assert not torch.equal(state(plain), state(distilled))


def test_trains_in_training_mode_and_leaves_the_model_in_eval_mode():
    modes = []

    def loss_fn(model, inputs, labels):
        modes.append(model.training)
        return labels_only(model, inputs, labels)

    model = small_net().eval()
    fit(model, labelled(), loss_fn, steps=3, lr=0.01)
    assert modes == [True] * 3
    assert not any(module.training for module in model.modules())


def test_peers_in_a_module_list_are_trained_together():
    peers = nn.ModuleList([small_net(0), small_net(1)])
    before = [parameters(peer) for peer in peers]

    def mutual(peers, inputs, labels):
        first, second = (peer(inputs) for peer in peers)
        return {
            "hard": F.cross_entropy(first, labels) + F.cross_entropy(second, labels),
            "mutual": kd_loss(first, second.detach(), temperature=1.0)
            + kd_loss(second, first.detach(), temperature=1.0),
        }

    history = fit(peers, labelled(), mutual, steps=4, lr=0.02)
    assert set(history) == {"hard", "mutual", "loss"}
    assert not any(torch.equal(parameters(peer), old) for peer, old in zip(peers, before, strict=True))


def test_frozen_parameters_stay():
    model = small_net()
    model[0].requires_grad_(False)
    fit(model, labelled(), labels_only, steps=4, lr=0.02)
    assert torch.equal(model[0].weight, small_net()[0].weight)
    assert not torch.equal(model[4].weight, small_net()[4].weight)


def test_the_progress_bar_is_quiet_on_short_runs(capsys):
    fit(small_net(), labelled(), labels_only, steps=20, lr=0.01)
    assert capsys.readouterr() == ("", "")


# A live teacher


def distilled(model, inputs, labels, teacher_logits):
    logits = model(inputs)
    return 0.1 * F.cross_entropy(logits, labels) + 0.9 * kd_loss(logits, teacher_logits, temperature=4.0)


def test_a_live_teacher_equals_its_cached_knowledge():
    teacher = small_net(9)
    fit(teacher, labelled(), labels_only, steps=5, lr=0.05)
    cached, live = small_net(), small_net()
    # The width of a matrix product can depend on the batch, its last bit too: cached batch by batch.
    knowledge = torch.cat([teacher(inputs) for inputs in INPUTS.split(16)]).detach()
    ordered = batches(INPUTS, LABELS, knowledge, batch_size=16)
    fit(cached, ordered, distilled, steps=8, lr=0.03)
    teacher.train()
    fit(live, batches(INPUTS, LABELS, batch_size=16), distilled, steps=8, lr=0.03, teacher=teacher)
    assert torch.equal(state(cached), state(live))


def test_a_live_teacher_is_put_in_eval_mode_and_learns_nothing():
    teacher = small_net(9, dropout=0.5).train()
    before = state(teacher)
    seen = []

    def loss_fn(model, inputs, labels, teacher_logits):
        seen.append((teacher.training, teacher_logits.requires_grad))
        return distilled(model, inputs, labels, teacher_logits) + model(inputs).mean()

    fit(small_net(), labelled(), loss_fn, steps=3, lr=0.03, teacher=teacher)
    assert seen == [(False, False)] * 3
    assert torch.equal(state(teacher), before)
    assert all(parameter.grad is None for parameter in teacher.parameters())


# What goes wrong


@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_a_term_that_is_not_finite_is_named_before_it_reaches_the_weights(value):
    model, steps_run = small_net(), []

    def loss_fn(model, inputs, labels):
        terms = two_terms(model, inputs, labels)
        steps_run.append(parameters(model))
        if len(steps_run) == 3:
            terms["size"] = terms["size"] * value
        return terms

    with pytest.raises(FloatingPointError, match=rf"step 2: the term 'size' is {value}$"):
        fit(model, labelled(), loss_fn, steps=9, lr=0.03)
    assert torch.equal(parameters(model), steps_run[-1])
    assert not torch.equal(parameters(model), parameters(small_net()))
    assert not model.training


def test_a_sum_that_overflows_is_named():
    def loss_fn(model, inputs, labels):
        big = torch.tensor(3e38) + 0 * model(inputs).sum()
        return {"one": big, "two": big}

    with pytest.raises(FloatingPointError, match="step 0: the term 'loss' is inf"):
        fit(small_net(), labelled(), loss_fn, steps=2, lr=0.01)


def test_a_batch_that_is_not_finite_is_named():
    knowledge = torch.zeros(N, K)
    knowledge[20, 1] = math.nan
    model, loader = small_net(), batches(INPUTS, LABELS, knowledge, batch_size=16)
    with pytest.raises(FloatingPointError, match=r"step 1: .*not finite in the batch itself: tensor \[2\]"):
        fit(model, loader, lambda m, x, y, t: F.mse_loss(m(x), t), steps=6, lr=0.01)


class SpoilsGradient(torch.autograd.Function):
    """The identity, with a gradient that is not a number."""

    @staticmethod
    def forward(ctx, value):
        return value.clone()

    @staticmethod
    def backward(ctx, gradient):
        return gradient * math.nan


def test_a_gradient_that_is_not_finite_is_blamed_in_the_next_step_and_after_the_last():
    def loss_fn(model, inputs, labels):
        return SpoilsGradient.apply(labels_only(model, inputs, labels))

    with pytest.raises(FloatingPointError, match="the parameters are not finite") as raised:
        fit(small_net(), labelled(), loss_fn, steps=3, lr=0.01)
    assert str(raised.value) == (
        "step 1: the term 'loss' is nan; the parameters are not finite: an earlier step's gradient was not"
    )
    with pytest.raises(FloatingPointError, match="gradient") as raised:
        fit(small_net(), labelled(), loss_fn, steps=1, lr=0.01)
    assert str(raised.value) == "step 0: the loss is finite, its gradient is not: weights are spoiled"


def test_an_interrupt_keeps_the_curve_and_the_model():
    model, calls = small_net(), []

    def loss_fn(model, inputs, labels):
        calls.append(1)
        if len(calls) == 5:
            raise KeyboardInterrupt
        return two_terms(model, inputs, labels)

    with pytest.raises(TrainingInterrupted, match="interrupted after step 4 of 9") as raised:
        fit(model, labelled(), loss_fn, steps=9, lr=0.03)
    assert isinstance(raised.value, KeyboardInterrupt)
    assert str(raised.value) == (
        "interrupted after step 4 of 9: the model keeps its weights, "
        "the curve so far is in this exception's `history` (in Jupyter: sys.last_value.history)"
    )
    assert {name: len(curve) for name, curve in raised.value.history.items()} == {
        "hard": 4, "size": 4, "loss": 4,
    }  # fmt: skip
    assert not model.training and predict(model, INPUTS).isfinite().all()
    assert not torch.equal(parameters(model), parameters(small_net()))
    fit(model, labelled(), labels_only, steps=2, lr=0.01)


def test_after_an_interrupt_jupyter_finds_the_curve(capsys):
    from IPython.core.interactiveshell import InteractiveShell
    from traitlets.config import Config

    shell = InteractiveShell(config=Config(HistoryManager={"enabled": False}))
    shell.user_ns["interrupted_fit"] = interrupted_fit
    shell.run_cell("interrupted_fit()")
    assert "in Jupyter: sys.last_value.history" in capsys.readouterr().out
    shell.run_cell("import sys\ncurve = sys.last_value.history['loss']")
    assert len(shell.user_ns["curve"]) == 2


def interrupted_fit():
    calls = []

    def loss_fn(model, inputs, labels):
        calls.append(1)
        if len(calls) > 2:
            raise KeyboardInterrupt
        return labels_only(model, inputs, labels)

    fit(small_net(), labelled(), loss_fn, steps=9, lr=0.03)


def test_an_error_in_the_loss_is_the_readers_own_and_leaves_eval_mode():
    model = small_net()
    with pytest.raises(ZeroDivisionError):
        fit(model, labelled(), lambda *batch: 1 / 0, steps=3, lr=0.01)
    assert not model.training


@pytest.mark.parametrize(
    "setting, naming",
    [
        ({"steps": 0}, "steps: .*got 0"),
        ({"steps": -1}, "steps: .*got -1"),
        ({"steps": 2.0}, r"steps: .*got 2\.0"),
        ({"lr": 0.0}, "lr: .*got 0"),
        ({"lr": -0.1}, r"lr: .*got -0\.1"),
        ({"lr": math.nan}, "lr: .*got nan"),
        ({"lr": math.inf}, "lr: .*got inf"),
    ],
)
def test_bad_settings_are_named(setting, naming):
    model = small_net()
    with pytest.raises(ValueError, match=naming):
        fit(model, labelled(), labels_only, **{"steps": 3, "lr": 0.01, **setting})
    assert torch.equal(state(model), state(small_net()))


def test_a_term_has_a_number_in_every_step_also_where_it_starts_late_or_ends_early():
    steps = itertools.count()

    def now_and_then(model, inputs, labels):
        terms = two_terms(model, inputs, labels)
        return terms if next(steps) in (2, 3) else {"hard": terms["hard"]}

    history = fit(small_net(), labelled(), now_and_then, steps=6, lr=0.01)
    assert {name: len(curve) for name, curve in history.items()} == {"hard": 6, "size": 6, "loss": 6}
    assert [math.isfinite(value) for value in history["size"]] == [False, False, True, True, False, False]
    together = torch.tensor([history["hard"], history["size"]]).nansum(dim=0)
    assert history["loss"] == pytest.approx(together.tolist())


@pytest.mark.parametrize("empty", [[], iter([]), DataLoader(TensorDataset(INPUTS[:0]))])
def test_empty_batches_are_named(empty):
    with pytest.raises(ValueError, match="batches: ran out in epoch 0"):
        fit(small_net(), empty, labels_only, steps=1, lr=0.01)


BAD_LOSSES = {
    "nothing returned": (lambda loss: None, "expected a scalar tensor for the term 'loss', got None"),
    "a number": (lambda loss: 1.5, r"expected a scalar tensor for the term 'loss', got 1\.5"),
    "no mean": (lambda loss: loss.repeat(4), r"for the term 'loss', got shape \(4,\)"),
    "no term": (
        lambda loss: {},
        r"expected one or more named terms, none of them named 'loss' \(that is their sum\), got \[\]",
    ),
    "a named number": (lambda loss: {"hard": loss, "soft": 0.0}, r"for the term 'soft', got 0\.0"),
    "a term named loss": (
        lambda loss: {"loss": loss, "soft": loss},
        r"none of them named 'loss' .*, got \['loss', 'soft'\]",
    ),
    "detached": (
        lambda loss: loss.detach(),
        "expected a loss that depends on a trainable parameter of the model, got one without gradient "
        r"\(all frozen, detached, or computed without gradient\)",
    ),
}


@pytest.mark.parametrize("spoil, naming", BAD_LOSSES.values(), ids=BAD_LOSSES.keys())
def test_a_loss_that_cannot_be_minimised_is_named(spoil, naming):
    model = small_net()
    with pytest.raises(ValueError, match=f"^loss_fn: .*{naming}$"):
        fit(model, labelled(), lambda *batch: spoil(labels_only(*batch)), steps=2, lr=0.01)
    assert torch.equal(parameters(model), parameters(small_net()))


def test_a_frozen_model_is_named():
    with pytest.raises(ValueError, match="depends on a trainable parameter"):
        fit(small_net().requires_grad_(False), labelled(), labels_only, steps=2, lr=0.01)


# Frozen knowledge, computed once


def test_predict_keeps_the_order_and_needs_no_gradient():
    model = small_net().eval()
    expected = model(INPUTS)
    for batch_size in (1, 7, N, 500):
        logits = predict(model, INPUTS, batch_size=batch_size)
        torch.testing.assert_close(logits, expected)
        assert not logits.requires_grad
        (logits.requires_grad_() * 2).sum().backward()  # it may be used in training


def test_predict_hands_over_no_more_than_a_batch():
    def lengths(inputs):
        return torch.full((len(inputs),), len(inputs))

    told = predict(small_net(), INPUTS, forward=lengths, batch_size=15)
    assert told.tolist() == [15] * 30 + [10] * 10


def test_predict_changes_no_pixels_unless_told_how():
    images = torch.randint(256, (5, 1, 2, 3), dtype=torch.uint8)
    assert torch.equal(predict(nn.Identity(), images), images)
    torch.testing.assert_close(predict(nn.Identity(), images, transform=lambda x: x / 255), images / 255)


def test_predict_runs_in_eval_mode_and_restores_every_modules_own_mode():
    model = small_net(dropout=0.5).train()
    model[1].eval()  # a frozen batch norm
    before = state(model)
    assert torch.equal(predict(model, INPUTS), predict(model, INPUTS))
    assert torch.equal(state(model), before)
    assert [module.training for module in model] == [True, False, True, True, True] and model.training
    predict(model.eval(), INPUTS)
    assert not any(module.training for module in model.modules())


def test_predict_restores_the_mode_after_an_error():
    model = small_net().train()
    with pytest.raises(RuntimeError):
        predict(model, INPUTS[:, 1:])
    assert model.training and torch.is_grad_enabled()


def test_predict_takes_another_forward_and_tuples():
    model = small_net().eval()

    def hidden_and_logits(inputs):
        hidden = model[:3](inputs)
        return hidden, model[3:](hidden)

    hidden, logits = predict(model, INPUTS, forward=hidden_and_logits, batch_size=7)
    assert hidden.shape == (N, 5)
    torch.testing.assert_close(logits, predict(model, INPUTS))
    torch.testing.assert_close(predict(model, INPUTS, forward=model[:3]), hidden)


def test_predict_takes_a_model_without_parameters():
    assert predict(nn.Flatten(), torch.ones(3, 2, 2)).shape == (3, 4)


def test_predict_refuses_what_has_no_entry_for_every_image():
    with pytest.raises(ValueError, match=re.escape(f"an entry for each of {N} images, got (5,)")):
        predict(nn.Flatten(), INPUTS[:, :5], forward=lambda inputs: inputs.mean(dim=0))
    with pytest.raises(ValueError, match="forward: expected a tensor or a tuple of tensors, got a list"):
        predict(nn.Flatten(), INPUTS, forward=lambda inputs: [inputs])


def test_predict_refuses_no_images():
    with pytest.raises(ValueError, match=re.escape("images: expected at least one, got shape (0, 6)")):
        predict(small_net(), INPUTS[:0])


# Progress, and what is not told


def test_a_bar_counts_the_steps_of_a_long_training_and_leaves_nothing_behind(monkeypatch):
    bars = []

    def bar(steps, **settings):
        bars.append((list(steps), settings))
        return contextlib.nullcontext(steps)

    monkeypatch.setattr("tqdm.tqdm", bar)
    fit(small_net(), labelled(), labels_only, steps=3, lr=0.01)
    assert bars == [([0, 1, 2], {"unit": "step", "leave": False, "delay": 10})]


def test_weights_decay_by_a_hundredth_unless_told():
    def trained(**settings):
        model = small_net()
        fit(model, labelled(), labels_only, steps=3, lr=0.01, **settings)
        return parameters(model)

    assert torch.equal(trained(), trained(weight_decay=0.01))
    assert not torch.equal(trained(), trained(weight_decay=0.1))


# Another device


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_on_a_gpu_batches_follow_the_model_and_predictions_come_back():
    model = small_net().cuda()
    history = fit(model, labelled(), two_terms, steps=20, lr=0.03, teacher=None)
    assert history["loss"][-1] < history["loss"][0]
    assert next(model.parameters()).is_cuda
    assert predict(model, INPUTS).device.type == "cpu"


class Moved(torch.Tensor):
    """A tensor that remembers to which devices it was sent."""

    devices: list = []  # noqa: RUF012 (shared on purpose)

    def to(self, device, *rest):
        self.devices.append(device)
        return self.as_subclass(torch.Tensor).to(device, *rest)


def test_every_tensor_of_a_batch_is_sent_to_the_models_device():
    Moved.devices.clear()
    batch = (INPUTS.as_subclass(Moved), LABELS.as_subclass(Moved))
    fit(small_net(), [batch], labels_only, steps=2, lr=0.01)
    assert Moved.devices == [torch.device("cpu")] * 4
