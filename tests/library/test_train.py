"""The loop trains as the loop written by hand, keeps what it promises, and names what goes wrong."""

import contextlib
import itertools
import math
import sys
from collections import OrderedDict, UserDict, namedtuple
from functools import partial
from types import SimpleNamespace

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from fake_device import DEVICE, second_device
from torch import nn
from torch.utils.data import BatchSampler, DataLoader, DistributedSampler, IterableDataset, TensorDataset

from kdutils import _training
from kdutils._errors import keep
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


class TakesMask(nn.Module):
    """A teacher that counts only what its mask lets through."""

    def __init__(self):
        super().__init__()
        self.layer, self.drop = nn.Linear(D, K), nn.Dropout(0.5)

    def forward(self, x, mask=None):
        return self.drop(self.layer(x if mask is None else x * mask))


MASK = (torch.arange(N * D).reshape(N, D) % 3 > 0).float()


def test_a_teacher_may_be_a_function_of_the_batch():
    teacher, seen = TakesMask().eval(), []

    def loss_fn(model, inputs, mask, answer):
        seen.append((answer, answer.requires_grad))
        return model(inputs).pow(2).mean()

    def ask(batch):
        return teacher(batch[0], mask=batch[1])

    fit(small_net(), [(INPUTS, MASK)], loss_fn, steps=1, lr=0.01, teacher=ask)
    ((answer, has_gradient),) = seen
    assert torch.equal(answer, teacher(INPUTS, MASK)) and not has_gradient
    assert not torch.equal(answer, teacher(INPUTS))


def test_a_function_is_given_a_dict_as_it_is_and_may_answer_anything():
    def loss_fn(model, batch, answer):
        assert set(batch) == {"x", "mask", "files"} and batch["files"] == ["a.png"]
        return F.mse_loss(model(batch["x"]), answer["logits"])

    teacher = TakesMask().eval()
    loader = [{"x": INPUTS, "mask": MASK, "files": ["a.png"]}]
    fit(
        small_net(), loader, loss_fn, steps=2, lr=0.01,
        teacher=lambda batch: {"logits": teacher(batch["x"], batch["mask"])},
    )  # fmt: skip


def test_a_teacher_of_another_precision_is_asked_by_a_function_that_casts():
    teacher, answers = layer_norm_net(1).double().eval(), []

    def loss_fn(model, inputs, labels, answer):
        answers.append(answer)
        return distilled(model, inputs, labels, answer)

    def ask(batch):
        return teacher(batch[0].double()).float()

    fit(small_net(), [(INPUTS, LABELS)], loss_fn, steps=1, lr=0.01, teacher=ask)
    assert torch.equal(answers[0], teacher(INPUTS.double()).float())


@pytest.mark.parametrize("inside", [False, True])
def test_a_module_is_given_all_of_a_dict(inside):
    teacher, seen = TakesMask(), []
    batch = {"x": INPUTS, "mask": MASK}

    def loss_fn(model, *batch):
        seen.append(batch[-1])
        return model(INPUTS).mean()

    loader = [(batch, LABELS)] if inside else [batch]
    fit(small_net(), loader, loss_fn, steps=1, lr=0.01, teacher=teacher)
    assert torch.equal(seen[0], teacher(INPUTS, MASK)) and not teacher.training


def test_what_a_module_does_not_take_of_a_dict_is_named_and_never_dropped():
    batch = {"x": INPUTS, "attention_mask": MASK, "labels": LABELS}
    with pytest.raises(ValueError, match=r"^teacher: .*\['attention_mask', 'labels'\] it does not; give a f"):
        fit(small_net(), [batch], from_dict, steps=1, lr=0.01, teacher=TakesMask())

    class TakesAnything(nn.Module):
        def forward(self, x, **others):
            return x + len(others)

    answers = []
    fit(
        small_net(), [batch], lambda m, b, answer: answers.append(answer) or m(b["x"]).mean(), steps=1,
        lr=0.01, teacher=TakesAnything(),
    )  # fmt: skip
    assert torch.equal(answers[0], INPUTS + 2)


@pytest.mark.parametrize("as_function", [False, True])
def test_a_teacher_that_works_in_place_changes_nothing_for_student_and_reader(as_function):
    class InPlace(nn.Module):
        def forward(self, x):
            return x.mul_(-3).sum(dim=1)

    data, seen = [(INPUTS.clone(), LABELS)], []

    def loss_fn(model, inputs, labels, answer):
        seen.append((inputs.clone(), answer))
        return labels_only(model, inputs, labels)

    teacher = (lambda batch: InPlace()(batch[0])) if as_function else InPlace()
    fit(small_net(), data, loss_fn, steps=3, lr=0.01, teacher=teacher)
    for inputs, answer in seen:
        assert torch.equal(inputs, INPUTS)
        torch.testing.assert_close(answer, -3 * INPUTS.sum(dim=1))
    assert torch.equal(data[0][0], INPUTS)


# Batches of any kind


Pair = namedtuple("Pair", "x y")


class Encoding(UserDict):
    """Like a tokenizer's `BatchEncoding`: a dict with attributes."""

    def __getattr__(self, name):
        try:
            return self.data[name]
        except KeyError:
            raise AttributeError(name) from None


def from_dict(model, batch):
    return F.cross_entropy(model(batch["x"]), batch["y"])


def joined(x, y):
    """One tensor for both."""
    return torch.cat([x, y[:, None]], dim=1)


FORMS = {
    "tuple": (lambda x, y: (x, y), labels_only),
    "list": (lambda x, y: [x, y], labels_only),
    "named tuple": (Pair, labels_only),
    "dict": (lambda x, y: {"x": x, "y": y}, from_dict),
    "ordered dict": (lambda x, y: OrderedDict(x=x, y=y), from_dict),
    "encoding": (lambda x, y: Encoding(x=x, y=y), lambda model, b: labels_only(model, b.x, b.y)),
    "tuple of dicts": (
        lambda x, y: ({"x": x}, {"y": y}), lambda model, a, b: labels_only(model, a["x"], b["y"]),
    ),
    "nested": (
        lambda x, y: {"in": [(x, "a.png")], "y": y}, lambda m, b: labels_only(m, b["in"][0][0], b["y"]),
    ),
    "bare": (joined, lambda model, both: labels_only(model, both[:, :D], both[:, D].long())),
}  # fmt: skip


@pytest.mark.parametrize("form, loss_fn", FORMS.values(), ids=FORMS)
def test_a_batch_of_any_form_trains_the_same(form, loss_fn):
    pairs = list(labelled())
    of_form, of_tuples = small_net(), small_net()
    history = fit(of_form, [form(x, y) for x, y in pairs], loss_fn, steps=5, lr=0.03)
    expected = fit(of_tuples, pairs, labels_only, steps=5, lr=0.03)
    # to rounding: the slice of a wider tensor has other strides, so a product may sum in another order
    assert history["loss"] == pytest.approx(expected["loss"], rel=1e-6)
    torch.testing.assert_close(state(of_form), state(of_tuples), rtol=1e-5, atol=1e-6)


def test_a_batch_keeps_its_type_and_what_is_no_tensor():
    seen = []
    batch = {"x": INPUTS, "files": ["a.png", None], "rows": np.arange(3), "pair": Pair(LABELS, 7)}

    def loss_fn(model, batch):
        seen.append(batch)
        return model(batch["x"]).mean()

    encoding = Encoding(batch)
    fit(small_net(), [encoding], loss_fn, steps=1, lr=0.01)
    (given,) = seen
    assert type(given) is Encoding and type(given["pair"]) is Pair and given["pair"].y == 7
    assert given["files"] == ["a.png", None] and given["rows"] is batch["rows"]
    assert encoding["x"] is INPUTS


def test_an_encoding_of_transformers_keeps_its_attributes():
    transformers = pytest.importorskip("transformers")
    encoding = transformers.BatchEncoding({"input_ids": INPUTS, "labels": LABELS})

    def loss_fn(model, batch):
        assert isinstance(batch, transformers.BatchEncoding)
        return F.cross_entropy(model(batch.input_ids), batch.labels)

    history = fit(small_net(), [encoding], loss_fn, steps=2, lr=0.01)
    assert history == fit(small_net(), [(INPUTS, LABELS)], labels_only, steps=2, lr=0.01)


def test_a_batch_of_unlabelled_images_reaches_the_loss_whole():
    """Not unpacked along its samples: sixteen images, one argument."""
    shapes = []

    def loss_fn(student, *batch):
        shapes.append([tuple(part.shape) for part in batch])
        return student(batch[0]).pow(2).mean()

    fit(small_net(), list(INPUTS[:32].split(16)), loss_fn, steps=2, lr=0.01)
    assert shapes == [[(16, D)]] * 2
    with pytest.raises(TypeError, match="missing 1 required positional argument: 'labels'"):
        fit(small_net(), list(INPUTS.split(2)), labels_only, steps=2, lr=0.01)


NO_BATCHES = {
    "a tensor": (INPUTS, "got a tensor of shape \\(40, 6\\) .*, which yields single samples"),
    "a data set": (TensorDataset(INPUTS, LABELS), "got a TensorDataset, which yields single samples"),
    "a number": (3, "expected a DataLoader or a list of batches, got 3"),
    "names": (["a.png"], "expected tensors, tuples, lists or dicts, got 'a.png' as a batch"),
    "arrays": (INPUTS.numpy(), "expected tensors, tuples, lists or dicts, got a ndarray as a batch"),
    "a dict": ({"x": INPUTS}, "expected tensors, tuples, lists or dicts, got 'x' as a batch"),
    "nothing": ([None], "expected tensors, tuples, lists or dicts, got None as a batch"),
}


@pytest.mark.parametrize("loader, naming", NO_BATCHES.values(), ids=NO_BATCHES)
def test_what_yields_no_batches_is_named(loader, naming):
    with pytest.raises(ValueError, match=f"^batches: .*{naming}"):
        fit(small_net(), loader, labels_only, steps=1, lr=0.01)


def test_an_endless_stream_serves():
    class Stream(IterableDataset):
        def __iter__(self):
            return zip(itertools.cycle(INPUTS), itertools.cycle(LABELS), strict=True)

    history = fit(small_net(), DataLoader(Stream(), batch_size=8), labels_only, steps=7, lr=0.01)
    assert len(history["loss"]) == 7


def test_work_in_place_reaches_neither_the_readers_data_nor_the_next_epoch():
    data = [{"x": INPUTS.clone(), "more": (INPUTS.clone(),)}]

    def loss_fn(model, batch):
        seen.append(batch["x"].clone())
        batch["more"][0].zero_()
        return model(batch["x"].mul_(2)).mean()

    seen: list = []
    fit(small_net(), data, loss_fn, steps=3, lr=0.01)
    assert all(torch.equal(x, INPUTS) for x in seen)
    assert torch.equal(data[0]["x"], INPUTS) and torch.equal(data[0]["more"][0], INPUTS)


def test_a_loader_of_inference_tensors_serves():
    with torch.inference_mode():
        batch = (INPUTS.clone(), LABELS.clone())
    assert len(fit(small_net(), [batch], labels_only, steps=2, lr=0.01)["loss"]) == 2


# The last batch


def needs(least):
    def loss_fn(model, inputs, labels):
        if len(inputs) < least:
            raise ValueError(f"expected N >= {least}")
        return F.cross_entropy(model(inputs), labels)

    return loss_fn


def layer_norm_net(seed=0):
    torch.manual_seed(seed)
    return nn.Sequential(nn.Linear(D, 5), nn.LayerNorm(5), nn.Dropout(0.5), nn.Linear(5, K))


def rest_of(last):
    """Loaders of batches of 13, and a last one of this size."""
    number = 26 + last
    data = INPUTS[:number], LABELS[:number]
    in_memory, data_set = batches(*data, batch_size=13, seed=0), TensorDataset(*data)
    by_sampler = DataLoader(data_set, batch_sampler=BatchSampler(range(number), 13, drop_last=False))
    return {
        "batches": in_memory, "list": list(in_memory), "sampler": by_sampler,
        "loader": DataLoader(data_set, batch_size=13, shuffle=True),
    }  # fmt: skip


@pytest.mark.parametrize("kind", ["batches", "list", "sampler", "loader"])
@pytest.mark.parametrize(
    "model, loss_fn, last, why",
    [
        (small_net, labels_only, 1, "Expected more than 1 value per channel"),
        (layer_norm_net, needs(2), 1, "expected N >= 2"),
        (layer_norm_net, needs(3), 2, "expected N >= 3"),
        (layer_norm_net, lambda m, x, y: m(x).std(dim=0).sum(), 1, "'loss' is nan"),
    ],
)
@pytest.mark.filterwarnings("ignore:std")
def test_a_last_batch_too_small_for_the_loss_is_named_in_the_first_step(kind, model, loss_fn, last, why):
    with pytest.raises(ValueError) as raised:
        fit(model(), rest_of(last)[kind], loss_fn, steps=3, lr=0.01)
    assert f"batches: every epoch ends with a batch of {last}, on which loss_fn fails ({why}" in str(
        raised.value
    )
    assert "drop_last=True" in str(raised.value) and raised.value.history == {}


@pytest.mark.parametrize("kind", ["batches", "list", "sampler", "loader"])
def test_a_last_batch_that_is_never_reached_or_large_enough_is_none_of_our_business(kind):
    assert len(fit(small_net(), rest_of(1)[kind], labels_only, steps=2, lr=0.01)["loss"]) == 2
    calls = []

    def loss_fn(model, inputs, labels):
        calls.append(len(inputs))
        return labels_only(model, inputs, labels)

    fit(small_net(), rest_of(3)[kind], loss_fn, steps=3, lr=0.01)
    assert calls == [13, 13, 3]
    dropped = DataLoader(TensorDataset(INPUTS[:27], LABELS[:27]), batch_size=13, drop_last=True)
    assert len(fit(small_net(), dropped, labels_only, steps=6, lr=0.01)["loss"]) == 6


def test_trying_the_last_batch_leaves_no_trace():
    """Random numbers and running statistics are those of a training without the trial."""

    def network():
        torch.manual_seed(1)
        return nn.Sequential(nn.Linear(D, 5), nn.Unflatten(1, (5, 1)), nn.BatchNorm1d(5), nn.Flatten(),
                             nn.Dropout(0.5), nn.Linear(5, K))  # fmt: skip

    pairs = list(batches(INPUTS[:26], LABELS[:26], batch_size=13))
    tiny = [*pairs, (INPUTS[:2], LABELS[:2])]
    model, other = network(), network()
    torch.manual_seed(3)
    history = fit(model, tiny, labels_only, steps=3, lr=0.01)
    torch.manual_seed(3)
    expected = fit(other, iter(tiny), labels_only, steps=3, lr=0.01)  # of unknown length: no trial
    assert history == expected and torch.equal(state(model), state(other))


def test_an_error_of_the_whole_batch_is_not_blamed_on_the_last():
    with pytest.raises(ZeroDivisionError):
        fit(small_net(), rest_of(1)["list"], lambda *batch: 1 / 0, steps=3, lr=0.01)


# What you put in eval mode


def modes_seen(model, **settings):
    """The names of the modules that are in eval mode while `fit` trains."""
    seen = []

    def loss_fn(model, inputs, labels):
        seen.append([name for name, module in model.named_modules() if not module.training])
        return model(inputs).pow(2).mean()

    fit(model, labelled(), loss_fn, steps=2, lr=0.03, **settings)
    assert seen[0] == seen[1] and not any(module.training for module in model.modules())
    return seen[0]


def with_frozen_part(affine=True):
    """A frozen part with batch norm and dropout in eval mode, and a head."""
    torch.manual_seed(0)
    part = nn.Sequential(nn.Linear(D, 5), nn.BatchNorm1d(5, affine=affine), nn.Dropout(0.5), nn.ReLU())
    part.requires_grad_(False).eval()
    return nn.Sequential(part, nn.BatchNorm1d(5), nn.Linear(5, K))


@pytest.mark.parametrize("affine", [True, False])
def test_batch_norm_of_a_frozen_part_stays_as_it_is_in_every_call(affine):
    model = with_frozen_part(affine)
    before, head = state(model[0]), state(model[1:])
    for _ in range(2):
        assert modes_seen(model) == ["0.1"]
        assert torch.equal(state(model[0]), before) and not torch.equal(state(model[1:]), head)


def test_batch_norm_of_a_frozen_part_stays_in_a_model_wholly_in_eval_mode_and_in_a_wrapper():
    assert modes_seen(with_frozen_part().eval()) == ["0.1"]
    assert modes_seen(nn.Sequential(with_frozen_part().eval())) == ["0.0.1"]


def test_a_frozen_part_in_training_mode_is_trained_as_pytorch_does():
    model = with_frozen_part().train()
    before = state(model[0])
    assert modes_seen(model) == []
    assert not torch.equal(state(model[0]), before)


@pytest.mark.parametrize("place", [1, 3])
def test_a_layer_switched_off_by_itself_stays_off_for_this_call(place):
    model = small_net(dropout=0.5)
    model[place].eval()
    assert modes_seen(model) == [str(place)]
    assert modes_seen(model) == []  # all was in eval mode when this call began


def test_what_comes_in_eval_mode_is_trained_in_training_mode():
    """A model as `fit` leaves it, and a pretrained one in a new frame, as `from_pretrained` gives it."""
    assert modes_seen(small_net(dropout=0.5).eval()) == []
    pretrained, head = small_net(dropout=0.5).eval(), nn.Linear(K, K)
    assert modes_seen(nn.Sequential(OrderedDict(pretrained=pretrained, head=head))) == []
    part_frozen = small_net(dropout=0.5).eval()
    part_frozen[0].requires_grad_(False)
    assert modes_seen(part_frozen) == []


# Optimizer, schedule, precision


@pytest.mark.parametrize("momentum", [0.0, 0.9])
def test_an_optimizer_and_a_schedule_of_ones_own(momentum):
    model, other = small_net(), small_net()
    history = fit(
        model, labelled(), labels_only, steps=7, lr=0.1,
        optimizer=partial(torch.optim.SGD, momentum=momentum),
        schedule=lambda optimizer: torch.optim.lr_scheduler.StepLR(optimizer, step_size=3),
    )  # fmt: skip
    optimizer = torch.optim.SGD(other.parameters(), lr=0.1, momentum=momentum)
    losses, step, loader = [], 0, labelled()
    other.train()
    for epoch in range(3):
        loader.set_epoch(epoch)
        for batch in list(loader)[: 7 - step]:
            optimizer.param_groups[0]["lr"] = 0.1 * 0.1 ** (step // 3)
            loss = labels_only(other, *batch)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            losses.append(loss.item())
            step += 1
    assert history["loss"] == pytest.approx(losses, rel=1e-6)
    torch.testing.assert_close(parameters(model), parameters(other))


def test_the_default_schedule_moves_the_rate_of_any_optimizer_and_nothing_else():
    settings = []

    def groups(model):
        return lambda parameters: torch.optim.SGD(
            [{"params": model[0].parameters(), "lr": 0.2}, {"params": model[4].parameters()}],
            lr=2.0, momentum=0.5,
        )  # fmt: skip

    def keep_optimizer(make):
        def made(parameters):
            settings.append(make(parameters))
            return settings[-1]

        return made

    model = small_net()
    rates = []

    def note(step, history):
        rates.append([(group["lr"], group["momentum"]) for group in settings[0].param_groups])

    fit(
        model, labelled(), labels_only, steps=40, lr=0.5,
        optimizer=keep_optimizer(groups(model)), on_step=note,
    )  # fmt: skip
    first, second = zip(*rates, strict=True)
    assert max(second)[0] == pytest.approx(0.5, rel=0.01) and max(first)[0] == pytest.approx(0.05, rel=0.01)
    assert {momentum for _, momentum in first + second} == {0.5}
    assert second.index(max(second)) in (9, 10) and second[-1][0] < 0.01


def test_a_complex_parameter_is_trained():
    class Complex(nn.Module):
        def __init__(self):
            super().__init__()
            self.weight = nn.Parameter(torch.ones(D, dtype=torch.complex64))

    model = Complex()
    history = fit(model, [INPUTS], lambda m, x: (x.cfloat() @ m.weight).abs().mean(), steps=20, lr=0.1)
    assert history["loss"][-1] < history["loss"][0]
    with pytest.raises(ValueError, match=r"loss_fn: expected a real number .*'loss', got torch\.complex64"):
        fit(model, [INPUTS], lambda m, x: (x.cfloat() @ m.weight).mean(), steps=2, lr=0.1)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_under_autocast_teacher_and_student_compute_in_half(dtype):
    seen = []

    def loss_fn(model, inputs, labels, knowledge):
        logits = model(inputs)
        seen.append((logits.dtype, knowledge.dtype, next(model.parameters()).dtype))
        return F.cross_entropy(logits, labels)

    model = layer_norm_net()
    history = fit(model, labelled(), loss_fn, steps=30, lr=0.03, autocast=dtype, teacher=layer_norm_net(1))
    assert set(seen) == {(dtype, dtype, torch.float32)}
    assert history["loss"][-1] < history["loss"][0] and parameters(model).isfinite().all()
    assert not torch.is_autocast_enabled("cpu")


def tiny_loss(model, inputs):
    """Its gradient with respect to the logits, 1e-9, is zero in float16."""
    return 1e-6 * model(inputs).float().sum() / 1000


def test_gradients_in_float16_are_scaled():
    """By 65536: the small ones survive, and none is so large that a step is left out."""

    def moved(**settings):
        model = nn.Linear(D, 1)
        before = parameters(model)
        optimizer = partial(torch.optim.SGD)
        fit(model, [INPUTS], tiny_loss, steps=1, lr=1e6, optimizer=optimizer, **settings)
        return (parameters(model) - before).abs().max()

    expected = moved()
    assert expected > 0
    assert moved(autocast=torch.float16) == pytest.approx(expected.item(), rel=0.05)


def test_kd_under_float16_leaves_out_no_step():
    """A loss in float16 would get a gradient of 65536, which is infinite there: a step without effect."""
    teacher, student = layer_norm_net(1), nn.Linear(D, K)
    before = parameters(student)
    fit(
        student, batches(INPUTS), lambda m, x, t: kd_loss(m(x), t), steps=1, lr=0.1,
        teacher=teacher, autocast=torch.float16,
    )  # fmt: skip
    assert not torch.equal(parameters(student), before)


def test_an_autocast_around_fit_holds_inside():
    seen = []

    def loss_fn(model, inputs, labels):
        seen.append(model(inputs).dtype)
        return labels_only(model, inputs, labels)

    with torch.autocast("cpu", torch.bfloat16):
        fit(layer_norm_net(), labelled(), loss_fn, steps=2, lr=0.01)
    assert seen == [torch.bfloat16] * 2


# After every step


def test_on_step_sees_the_step_the_history_and_the_model_in_eval_mode_and_may_stop():
    model, seen = small_net(dropout=0.5), []
    model[3].eval()

    def on_step(step, history):
        seen.append((step, len(history["loss"]), any(module.training for module in model.modules())))
        return step == 3

    modes = []

    def loss_fn(model, inputs, labels):
        modes.append([module.training for module in model])
        return labels_only(model, inputs, labels)

    history = fit(model, labelled(), loss_fn, steps=9, lr=0.01, on_step=on_step)
    assert seen == [(step, step + 1, False) for step in range(4)]
    assert modes == [[True, True, True, False, True]] * 4
    assert len(history["loss"]) == 4 and not model.training


def test_on_step_that_only_looks_changes_nothing():
    watched, alone = small_net(), small_net()

    def validate(step, history):
        predict(watched, INPUTS)
        watched.eval()

    history = fit(watched, labelled(), labels_only, steps=7, lr=0.03, on_step=validate)
    assert history == fit(alone, labelled(), labels_only, steps=7, lr=0.03)
    assert torch.equal(state(watched), state(alone))


@pytest.mark.parametrize(
    "answer, stops", [(True, True), (False, False), (None, False), (np.bool_(True), True)]
)
def test_only_true_stops(answer, stops):
    history = fit(small_net(), labelled(), labels_only, steps=3, lr=0.01, on_step=lambda *_: answer)
    assert len(history["loss"]) == (1 if stops else 3)


def test_another_answer_of_on_step_is_named():
    with pytest.raises(ValueError, match=r"on_step: expected True to stop, else False or None, got 0\.93"):
        fit(small_net(), labelled(), labels_only, steps=3, lr=0.01, on_step=lambda *_: 0.93)


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

    with pytest.raises(FloatingPointError) as raised:
        fit(model, labelled(), loss_fn, steps=9, lr=0.03)
    assert str(raised.value) == f"step 2: the term 'size' is {value}"
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


@pytest.mark.parametrize("error", [ZeroDivisionError, torch.OutOfMemoryError, OSError])
def test_an_error_is_the_readers_own_and_keeps_the_curve_and_the_model(error):
    model, calls = small_net(), []

    def loss_fn(model, inputs, labels):
        calls.append(1)
        if len(calls) == 4:
            raise error("in the fourth step")
        return two_terms(model, inputs, labels)

    with pytest.raises(error) as raised:
        fit(model, labelled(), loss_fn, steps=9, lr=0.01)
    assert {name: len(curve) for name, curve in raised.value.history.items()} == {
        "hard": 3, "size": 3, "loss": 3,
    }  # fmt: skip
    assert not model.training and not torch.equal(parameters(model), parameters(small_net()))
    if sys.version_info >= (3, 11):
        assert raised.value.__notes__ == ["fit: the curve of 3 of 9 steps is in this exception's `history`"]


def test_an_error_that_takes_no_notes_keeps_the_curve_as_well():
    """As in Python 3.10."""
    error = SimpleNamespace()
    keep(error, "a note", history={"loss": [1.0]})
    assert vars(error) == {"history": {"loss": [1.0]}}


def test_an_error_before_the_first_step_adds_no_words():
    with pytest.raises(ValueError, match="loss_fn") as raised:
        fit(small_net(), labelled(), lambda *batch: None, steps=3, lr=0.01)
    assert raised.value.history == {} and not hasattr(raised.value, "__notes__")


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


class Stepless:
    """No schedule: it has no step."""


SETTINGS = {
    "model": ({"model": labels_only}, "model: expected an nn.Module, got a function"),
    "steps": ({"steps": "many"}, "steps: .*got 'many'"),
    "teacher": ({"teacher": "resnet"}, "teacher: expected a module or a function of the batch, got 'resnet'"),
    "autocast": ({"autocast": torch.float32}, r"autocast: expected torch\.float16, .*got a dtype"),
    "autocast as text": ({"autocast": "bf16"}, "autocast: .*got 'bf16'"),
    "on_step": ({"on_step": 10}, "on_step: expected a function of step and history, got 10"),
    "an optimizer made before": (
        {"optimizer": torch.optim.SGD(nn.Linear(1, 1).parameters())},
        r"optimizer: expected a function of the parameters that returns a torch\.optim\.Optimizer, got a SGD",
    ),
    "a function of no optimizer": (
        {"optimizer": lambda parameters: None}, "optimizer: .*got one that returns None",
    ),
    "weight decay twice": (
        {"optimizer": torch.optim.SGD, "weight_decay": 0.1},
        "weight_decay: expected to be left out where optimizer= brings its own, got 0.1",
    ),
    "a schedule made before": (
        {"schedule": Stepless()}, "schedule: expected a function of the optimizer .*, got a Stepless",
    ),
    "a function of no schedule": (
        {"schedule": lambda optimizer: Stepless()}, "schedule: .*got one that returns a Stepless",
    ),
}  # fmt: skip


@pytest.mark.parametrize("setting, naming", SETTINGS.values(), ids=SETTINGS)
def test_a_setting_of_another_kind_is_named(setting, naming):
    model = small_net()
    arguments = {"model": model, "steps": 3, "lr": 0.01, **setting}
    with pytest.raises(ValueError, match=naming):
        fit(batches=labelled(), loss_fn=labels_only, **arguments)
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

    def to(self, device, **settings):
        self.devices.append(device)
        return self.as_subclass(torch.Tensor).to(device, **settings)


def test_every_tensor_of_a_batch_is_sent_to_the_models_device():
    Moved.devices.clear()
    inputs, labels = INPUTS.as_subclass(Moved), LABELS.as_subclass(Moved)
    for batch in ((inputs, labels), [inputs, {"labels": labels}], {"x": [inputs], "y": (labels, "a.png")}):
        fit(small_net(), [batch], lambda model, *_: model(INPUTS).mean(), steps=2, lr=0.01)
    assert Moved.devices == [torch.device("cpu")] * 12


def test_elsewhere_numbers_are_fetched_in_blocks_and_the_history_is_the_same(monkeypatch):
    fetched = []
    numbers = _training._numbers

    def counted(waiting):
        fetched.append(len(waiting))
        return numbers(waiting)

    def now_and_then(model, inputs, labels):
        terms = two_terms(model, inputs, labels)
        return terms if next(turns) % 3 else {"hard": terms["hard"]}

    def curve(model, **settings):
        nonlocal turns
        turns = itertools.count()
        return fit(model, labelled(), now_and_then, steps=120, lr=0.01, **settings)

    turns = itertools.count()
    expected = curve(small_net())
    with second_device(), monkeypatch.context() as patch:
        patch.setattr(_training, "_numbers", counted)
        found = curve(small_net().to(DEVICE))
        assert fetched == [50, 50, 20]
        fetched.clear()
        curve(small_net().to(DEVICE), on_step=lambda step, history: step == 2)
        assert fetched == [1, 1, 1, 0]
    assert found.keys() == expected.keys()
    for name, values in expected.items():
        assert found[name] == pytest.approx(values, rel=1e-3, nan_ok=True)


@pytest.mark.parametrize("spoiled, steps", [(3, 5), (3, 60), (70, 80)])
def test_elsewhere_a_loss_that_is_not_finite_is_named_before_fit_returns(spoiled, steps):
    calls = itertools.count()

    def loss_fn(model, inputs, labels):
        return labels_only(model, inputs, labels) * (math.nan if next(calls) == spoiled else 1.0)

    with second_device():
        model = small_net().to(DEVICE)
        with pytest.raises(FloatingPointError) as raised:
            fit(model, labelled(), loss_fn, steps=steps, lr=0.01)
    assert str(raised.value) == (
        f"step {spoiled}: the term 'loss' is nan; noticed later, since values are fetched in blocks of steps"
    )
    assert len(raised.value.history["loss"]) == spoiled


def test_elsewhere_an_error_keeps_the_steps_that_were_not_fetched_yet():
    calls = itertools.count()

    def loss_fn(model, inputs, labels):
        if next(calls) == 57:
            raise OSError
        return labels_only(model, inputs, labels)

    with second_device():
        model = small_net().to(DEVICE)
        with pytest.raises(OSError) as raised:
            fit(model, labelled(), loss_fn, steps=99, lr=0.01)
    assert len(raised.value.history["loss"]) == 57
