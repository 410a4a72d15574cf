"""Frozen knowledge is computed once, in order, from tensors, data sets and loaders, in memory or on disk."""

import math
import re

import numpy as np
import pytest
import torch
from torch import nn
from torch.utils.data import (
    BatchSampler,
    DataLoader,
    Dataset,
    IterableDataset,
    RandomSampler,
    SubsetRandomSampler,
    TensorDataset,
)

from kdutils.batches import batches
from kdutils.train import predict

N, D, K = 40, 6, 3
INPUTS = torch.randn(N, D, generator=torch.Generator().manual_seed(0))
LABELS = torch.arange(N)


def small_net(seed=0, dropout=0.0):
    """Linear layers around a batch norm, so that training and eval mode differ."""
    torch.manual_seed(seed)
    return nn.Sequential(nn.Linear(D, 5), nn.BatchNorm1d(5), nn.ReLU(), nn.Dropout(dropout), nn.Linear(5, K))


def state(model):
    return torch.cat([tensor.double().flatten() for tensor in model.state_dict().values()])


# From tensors


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


@pytest.mark.parametrize(
    "forward, came",
    [
        (lambda x: x.mean(dim=0), "shape (6,)"),
        (lambda x: x.mean(), "shape ()"),
        (lambda x: (x, x.mean()), "shape ()"),
        (lambda x: x[:-1], "shape (6, 6)"),
    ],
)
def test_an_answer_without_an_entry_for_every_input_is_named(forward, came):
    with pytest.raises(ValueError) as raised:
        predict(nn.Flatten(), INPUTS, forward=forward, batch_size=7)
    assert str(raised.value) == f"forward: expected an entry for each of 7 inputs, got {came}"


@pytest.mark.parametrize(
    "forward, came",
    [
        (lambda x: [x], "a list"),
        (lambda x: {"logits": x}, "a dict"),
        (lambda x: None, "None"),
        (lambda x: (x, None), "None"),
        (lambda x: (x, (x, x)), "a tuple"),
    ],
)
def test_an_answer_that_is_no_tensor_is_named(forward, came):
    with pytest.raises(ValueError, match=f"^forward: expected a tensor or a tuple of tensors, got {came}; p"):
        predict(nn.Flatten(), INPUTS, forward=forward)


def test_answers_of_different_shapes_are_named():
    lengths = iter((2, 3, 2))
    with pytest.raises(ValueError, match=r"forward: expected the same shape for every input, got \(2,\) and"):
        predict(nn.Flatten(), INPUTS, forward=lambda x: x[:, : next(lengths)], batch_size=16)


NO_INPUTS = {
    "an array": (INPUTS.numpy(), "got a ndarray; torch.as_tensor makes a tensor of an array"),
    "a list of images": (list(INPUTS), "got a list; .*torch.stack of a list of tensors"),
    "a tuple": ((INPUTS, LABELS), "got a tuple"),
    "a dict": ({"x": INPUTS}, "got a dict"),
    "a text": ("images", "got 'images'"),
    "a number": (3, "got 3"),
    "nothing": (None, "got None"),
    "no image": (INPUTS[:0], r"expected at least one, got shape \(0, 6\)"),
    "no image in a set": (TensorDataset(INPUTS[:0]), "expected at least one, got none"),
    "a single number": (torch.tensor(1.0), r"expected at least one, got shape \(\)"),
}


@pytest.mark.parametrize("inputs, naming", NO_INPUTS.values(), ids=NO_INPUTS)
def test_inputs_of_another_kind_are_named(inputs, naming):
    with pytest.raises(ValueError, match=f"^inputs: .*{naming}"):
        predict(small_net(), inputs)


def test_a_function_is_no_model():
    with pytest.raises(ValueError, match=r"model: expected an nn\.Module, got a function"):
        predict(lambda x: x, INPUTS)


def test_a_model_that_works_in_place_leaves_the_inputs_alone():
    inputs = INPUTS.clone()
    predict(nn.ReLU(inplace=True), inputs)
    predict(nn.ReLU(inplace=True), DataLoader([inputs], batch_size=None))
    assert torch.equal(inputs, INPUTS)


# From data sets and loaders


class ByName(Dataset):
    """Samples that are dicts, as text classifiers have them."""

    def __len__(self):
        return N

    def __getitem__(self, index):
        return {"x": INPUTS[index], "mask": torch.tensor(index % 2)}


class Masked(nn.Module):
    def __init__(self):
        super().__init__()
        self.net = small_net()

    def forward(self, x, mask):
        return self.net(x) * mask[:, None]


class PlainSet:
    """What Hugging Face's data sets and many of one's own are: no subclass of PyTorch's."""

    def __len__(self):
        return N

    def __getitem__(self, index):
        if index >= N:
            raise IndexError
        return INPUTS[index], index


class Stream(IterableDataset):
    def __iter__(self):
        return iter(INPUTS)


SOURCES = {
    "data set": TensorDataset(INPUTS, LABELS),
    "unlabelled data set": TensorDataset(INPUTS),
    "data set of no subclass": PlainSet(),
    "stream": Stream(),
    "loader": DataLoader(TensorDataset(INPUTS, LABELS), batch_size=7),
    "loader of bare tensors": DataLoader(INPUTS, batch_size=7),
    "loader of streams": DataLoader(Stream(), batch_size=7),
    "loader with a batch sampler": DataLoader(
        TensorDataset(INPUTS), batch_sampler=BatchSampler(range(N), 7, drop_last=False)
    ),
    "loader that drops nothing": DataLoader(TensorDataset(INPUTS), batch_size=8, drop_last=True),
    "batches": batches(INPUTS, LABELS, batch_size=7),
}


@pytest.mark.parametrize("source", SOURCES.values(), ids=SOURCES)
def test_data_sets_and_loaders_give_what_the_tensor_gives(source):
    model = small_net()
    torch.testing.assert_close(predict(model, source), predict(model, INPUTS))
    twice = predict(model, source, transform=lambda x: 2 * x, batch_size=9)
    torch.testing.assert_close(twice, predict(model, 2 * INPUTS))


@pytest.mark.parametrize("source", [ByName(), DataLoader(ByName(), batch_size=7)], ids=["set", "loader"])
def test_dicts_are_keywords_of_the_model(source):
    model = Masked()
    expected = predict(model.net, INPUTS) * (LABELS % 2)[:, None]
    torch.testing.assert_close(predict(model, source), expected)
    torch.testing.assert_close(predict(model, source, forward=lambda x, mask: model.net(x)),
                               predict(model.net, INPUTS))  # fmt: skip
    flipped = predict(model, source, transform=lambda batch: {**batch, "mask": 1 - batch["mask"]})
    torch.testing.assert_close(flipped, predict(model.net, INPUTS) - expected)


def test_a_dict_with_more_than_the_model_takes_is_pythons_own_error():
    with pytest.raises(TypeError, match="unexpected keyword argument"):
        predict(small_net(), ByName())


SHUFFLED = {
    "shuffled loader": DataLoader(TensorDataset(INPUTS), shuffle=True),
    "sampler": DataLoader(TensorDataset(INPUTS), sampler=SubsetRandomSampler(range(N))),
    "batch sampler": DataLoader(
        TensorDataset(INPUTS), batch_sampler=BatchSampler(RandomSampler(range(N)), 7, drop_last=False)
    ),
    "seeded batches": batches(INPUTS, seed=0),
    "loader that drops": DataLoader(TensorDataset(INPUTS), batch_size=7, drop_last=True),
    "batch sampler that drops": DataLoader(
        TensorDataset(INPUTS), batch_sampler=BatchSampler(range(N), 7, drop_last=True)
    ),
}


@pytest.mark.parametrize("loader", SHUFFLED.values(), ids=SHUFFLED)
def test_a_loader_whose_answers_could_not_be_told_apart_is_refused(loader):
    with pytest.raises(ValueError, match=r"^inputs: expected a loader that keeps the order and all samples"):
        predict(small_net(), loader)


def test_a_loader_of_texts_is_named():
    with pytest.raises(ValueError, match="inputs: expected batches of tensors, got a list as a batch"):
        predict(small_net(), DataLoader(["a", "b"], collate_fn=lambda texts: (texts,)))


# To a file


class Stops(nn.Module):
    """A network that is interrupted when it has seen so many batches."""

    def __init__(self, batches=math.inf, seed=0, error=KeyboardInterrupt):
        super().__init__()
        self.net, self.left, self.error, self.asked = small_net(seed), batches, error, 0

    def forward(self, x):
        if self.asked == self.left:
            raise self.error
        self.asked += 1
        return self.net(x)


EXPECTED = predict(small_net(), INPUTS, batch_size=7)


@pytest.fixture
def path(tmp_path):
    return tmp_path / "answers.npy"


def part_of(path):
    return path.with_name("answers.npy.part")


def test_a_file_holds_what_memory_would_and_is_read_from_the_disk(path):
    answers = predict(small_net(), INPUTS, batch_size=7, to=path)
    assert torch.equal(answers, EXPECTED) and not part_of(path).exists()
    assert np.array_equal(np.load(path), EXPECTED.numpy())
    answers[0] = 0  # changes the tensor, not the file
    assert np.array_equal(np.load(path), EXPECTED.numpy())


@pytest.mark.parametrize(
    "source",
    [TensorDataset(INPUTS, LABELS), DataLoader(TensorDataset(INPUTS), batch_size=7), batches(INPUTS)],
    ids=["set", "loader", "batches"],
)
def test_a_file_is_written_from_data_sets_and_loaders(source, path):
    torch.testing.assert_close(predict(small_net(), source, batch_size=7, to=str(path)), EXPECTED)


@pytest.mark.parametrize("dtype", [torch.float16, torch.float64, torch.int64, torch.bool])
def test_a_file_keeps_the_type_and_any_shape(dtype, path):
    def forward(x):
        return (x > 0)[:, None].to(dtype).expand(-1, 2, -1)

    answers = predict(small_net(), INPUTS, forward=forward, batch_size=7, to=path)
    assert answers.dtype == dtype and torch.equal(answers, forward(INPUTS))
    one = predict(small_net(), INPUTS, lambda x: x.argmax(dim=1), batch_size=7, to=path.with_name("one.npy"))
    assert torch.equal(one, INPUTS.argmax(dim=1))


@pytest.mark.parametrize("error", [KeyboardInterrupt, OSError])
@pytest.mark.parametrize("batches_done", [1, 2, 3, 4, 5])
def test_what_was_interrupted_goes_on_where_it_stopped(error, batches_done, path):
    with pytest.raises(error):
        predict(Stops(batches_done, error=error), INPUTS, batch_size=7, to=path)
    assert part_of(path).exists() and not path.exists()
    again = Stops()
    assert torch.equal(predict(again, INPUTS, batch_size=7, to=path), EXPECTED)
    assert path.exists() and not part_of(path).exists()
    # the first, for comparison, and the last written, which may be damaged, are asked again
    assert again.asked == min(6, 1 + 6 - batches_done + (batches_done > 1))


def test_interrupted_before_anything_is_known(path):
    with pytest.raises(KeyboardInterrupt):
        predict(Stops(0), INPUTS, batch_size=7, to=path)
    assert torch.equal(predict(small_net(), INPUTS, batch_size=7, to=path), EXPECTED)


@pytest.mark.parametrize(
    "size", [0, 5, 64, 127, 128, 130, 128 + 7 * 12 - 1, 128 + 7 * 12, 128 + 300, 128 + 479]
)
def test_a_file_that_was_cut_off_anywhere_goes_on(size, path):
    predict(small_net(), INPUTS, batch_size=7, to=path)
    whole = path.read_bytes()
    assert len(whole) == 128 + N * K * 4
    path.unlink()
    part_of(path).write_bytes(whole[:size])
    assert torch.equal(predict(small_net(), INPUTS, batch_size=7, to=path), EXPECTED)
    assert path.read_bytes() == whole


def test_a_last_batch_that_was_reserved_but_not_written_is_asked_again(path):
    """As a machine that loses its power may leave it."""
    predict(small_net(), INPUTS, batch_size=7, to=path)
    whole = path.read_bytes()
    path.unlink()
    part_of(path).write_bytes(whole[: 128 + 14 * 12] + bytes(7 * 12))
    assert torch.equal(predict(small_net(), INPUTS, batch_size=7, to=path), EXPECTED)


def test_it_may_go_on_in_batches_of_another_size(path):
    with pytest.raises(KeyboardInterrupt):
        predict(Stops(4), INPUTS, batch_size=7, to=path)
    torch.testing.assert_close(predict(small_net(), INPUTS, batch_size=5, to=path), EXPECTED)
    part_of(path).write_bytes(path.read_bytes()[: 128 + 20 * 12])
    path.unlink()
    torch.testing.assert_close(predict(small_net(), INPUTS, batch_size=30, to=path), EXPECTED)


def test_a_complete_file_is_read_and_not_computed_again(path):
    predict(small_net(), INPUTS, batch_size=7, to=path)
    again = Stops()
    assert torch.equal(predict(again, INPUTS, batch_size=7, to=path), EXPECTED)
    assert again.asked == 1


FOREIGN = {
    "another model": dict(model=small_net(seed=1)),
    "other inputs": dict(inputs=INPUTS + 1),
    "fewer inputs": dict(inputs=INPUTS[:30]),
    "more inputs": dict(inputs=torch.cat([INPUTS, INPUTS])),
    "another layer": dict(forward=lambda x: x),
    "another type": dict(forward=lambda x: small_net().eval()(x).double()),
    "another transform": dict(transform=lambda x: x / 2),
}


@pytest.mark.parametrize("complete", [True, False])
@pytest.mark.parametrize("call", FOREIGN.values(), ids=FOREIGN)
def test_a_file_of_another_call_is_refused_and_left_as_it_is(complete, call, path):
    if complete:
        predict(small_net(), INPUTS, batch_size=7, to=path)
    else:
        with pytest.raises(KeyboardInterrupt):
            predict(Stops(3), INPUTS, batch_size=7, to=path)
    there = path if complete else part_of(path)
    before = there.read_bytes()
    call = {"model": small_net(), "inputs": INPUTS, **call}
    with pytest.raises(ValueError, match=re.escape(f"to: expected {there} to be new or from the same call")):
        predict(**call, batch_size=7, to=path)
    assert there.read_bytes() == before


@pytest.mark.parametrize(
    "damage",
    [
        lambda content: content[:-1],
        lambda content: content + b"0",
        lambda content: b"text" + content,
        lambda content: content[:100] + b"x" + content[101:],
        lambda content: content[:128] + bytes(84) + content[212:],
        lambda content: b"",
    ],
)
def test_a_damaged_file_is_refused(damage, path):
    predict(small_net(), INPUTS, batch_size=7, to=path)
    path.write_bytes(damage(path.read_bytes()))
    with pytest.raises(ValueError, match=r"to: .*delete it or choose another name"):
        predict(small_net(), INPUTS, batch_size=7, to=path)


def test_a_damaged_part_is_refused(path):
    part_of(path).write_bytes(b"a text that someone keeps under this name")
    with pytest.raises(ValueError, match=r"to: .*answers\.npy\.part to be new"):
        predict(small_net(), INPUTS, batch_size=7, to=path)


def test_what_cannot_be_written_is_named(path):
    with pytest.raises(ValueError, match=r"to: expected inputs of known length .*, got a Stream"):
        predict(small_net(), Stream(), to=path)
    with pytest.raises(ValueError, match="to: expected forward to return one tensor, got a tuple"):
        predict(small_net(), INPUTS, forward=lambda x: (x, x), to=path)
    with pytest.raises(
        ValueError, match=r"forward: expected a type that \.npy files know.*got torch.bfloat16"
    ):
        predict(small_net(), INPUTS, forward=lambda x: x.bfloat16(), to=path)
    with pytest.raises(ValueError, match="inputs: expected at least one, got none"):
        predict(small_net(), TensorDataset(INPUTS[:0]), to=path)
    sizes = iter((2, 3, 3))
    with pytest.raises(
        ValueError, match=r"forward: expected answers of shape \(N, 2\) and float32 for every"
    ):
        predict(small_net(), INPUTS, forward=lambda x: x[:, : next(sizes)], batch_size=16, to=path)


def test_a_loader_that_yields_more_or_fewer_than_it_says_is_named(path):
    for number, sampler in ((N - 5, range(N - 5)), (N, range(N))):
        loader = DataLoader(TensorDataset(INPUTS), batch_size=9, sampler=Misjudged(sampler))
        with pytest.raises(
            ValueError, match=f"inputs: expected 38 samples, as their length says, got {number}"
        ):
            predict(small_net(), loader, to=path)
        part_of(path).unlink()


class Misjudged:
    def __init__(self, order):
        self.order = order

    def __iter__(self):
        return iter(self.order)

    def __len__(self):
        return 38


# Another device


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_predictions_of_a_gpu_come_back(path):
    model = small_net().cuda()
    for settings in ({}, {"to": path}):
        assert predict(model, INPUTS, **settings).device.type == "cpu"
