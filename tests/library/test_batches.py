"""Batches are paired by their seed and change nothing unless told; subsets are balanced."""

import pytest
import torch
import torch.nn.functional as F
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

from kdutils.batches import Batches, balanced_index, batches
from kdutils.train import fit


def scaled(images):
    return images / 255


def network():
    torch.manual_seed(0)
    return nn.Sequential(nn.Flatten(), nn.Linear(64, 10))


# Subsets


LABELS = torch.tensor([2, 0, 1, 2, 0, 1, 2, 0, 1, 2])


def test_a_balanced_subset_has_as_many_of_every_class():
    index = balanced_index(LABELS, 9, seed=0)
    assert len(index.unique()) == 9
    assert LABELS[index].tolist() == [0, 0, 0, 1, 1, 1, 2, 2, 2]
    assert balanced_index(LABELS[LABELS > 0], 2, seed=0).shape == (2,)


def test_the_seed_decides_the_subset():
    assert torch.equal(balanced_index(LABELS, 6, seed=1), balanced_index(LABELS, 6, seed=1))
    drawn = {tuple(balanced_index(LABELS, 3, seed=seed).tolist()) for seed in range(40)}
    assert len(drawn) > 10
    assert {row for rows in drawn for row in rows} == set(range(len(LABELS)))


def test_the_global_generator_has_no_part_in_it():
    torch.manual_seed(0)
    expected = balanced_index(LABELS, 6, seed=1), list(batches(LABELS, seed=1)), torch.rand(1)
    torch.manual_seed(0)
    assert torch.equal(torch.rand(1), expected[2])
    assert torch.equal(balanced_index(LABELS, 6, seed=1), expected[0])
    assert torch.equal(next(iter(batches(LABELS, seed=1)))[0], expected[1][0][0])


@pytest.mark.parametrize("size", [0, -3, 4, 12])
def test_refuses_a_size_that_cannot_be_balanced(size):
    with pytest.raises(ValueError, match=rf"size: expected a multiple of 3 up to 9, got {size}"):
        balanced_index(LABELS, size, seed=0)


def test_refuses_a_subset_of_nothing():
    with pytest.raises(ValueError, match="labels: expected at least one"):
        balanced_index(LABELS[:0], 3, seed=0)


# Batches


ROWS = torch.arange(10)


def rows_of(loader):
    return [rows.tolist() for (rows,) in loader]


def test_without_a_seed_the_order_is_kept_and_no_sample_is_lost():
    loader = batches(ROWS, batch_size=4)
    assert rows_of(loader) == [[0, 1, 2, 3], [4, 5, 6, 7], [8, 9]]
    assert len(loader) == 3


def test_with_a_seed_every_sample_comes_once_in_another_order():
    rows = torch.cat([rows for (rows,) in batches(ROWS, batch_size=4, seed=0)]).tolist()
    assert sorted(rows) == ROWS.tolist() != rows


def test_iterating_again_repeats_and_an_epoch_reshuffles():
    loader = batches(ROWS, batch_size=4, seed=0)
    first = rows_of(loader)
    assert rows_of(loader) == first
    loader.set_epoch(1)
    second = rows_of(loader)
    assert second != first
    loader.set_epoch(0)
    assert rows_of(loader) == first


def test_two_loaders_with_one_seed_are_paired_and_two_seeds_are_not():
    long = torch.arange(100)
    sequences = {
        (seed, epoch): [rows_of(shuffled(long, seed, epoch)) for _ in range(2)]
        for seed in range(3)
        for epoch in range(3)
    }
    assert all(first == second for first, second in sequences.values())
    assert len({str(first) for first, _ in sequences.values()}) == 9


def shuffled(rows: torch.Tensor, seed: int, epoch: int) -> Batches:
    loader = batches(rows, batch_size=30, seed=seed)
    loader.set_epoch(epoch)
    return loader


def test_tensors_stay_together():
    loader = batches(ROWS, ROWS * 10, ROWS.float().unsqueeze(1), batch_size=3, seed=5)
    for rows, tens, column in loader:
        assert torch.equal(rows * 10, tens)
        assert torch.equal(column.squeeze(1), rows.float())


def test_only_the_first_tensor_is_transformed():
    images = torch.randint(256, (6, 1, 4, 4), dtype=torch.uint8)
    logits = torch.randn(6, 3)
    (batch,) = batches(images, logits, ROWS[:6], batch_size=6, transform=scaled)
    assert torch.equal(batch[0], scaled(images))
    assert torch.equal(batch[1], logits) and torch.equal(batch[2], ROWS[:6])
    assert [tensor.dtype for tensor in batch] == [torch.float32, torch.float32, torch.int64]


@pytest.mark.parametrize("transform", [None, scaled])
def test_labels_and_knowledge_in_bytes_stay_what_they_are(transform):
    """Class indices, several labels per image, and quantized logits, all in uint8."""
    images, labels = torch.zeros(6, 1, 4, 4), torch.arange(6, dtype=torch.uint8)
    multi_hot, logits = torch.eye(6, dtype=torch.uint8), torch.arange(36, dtype=torch.uint8).reshape(6, 6)
    loader = batches(images, labels, multi_hot, logits, batch_size=6, transform=transform)
    (batch,) = loader
    for given, yielded in zip((labels, multi_hot, logits), batch[1:], strict=True):
        assert yielded.dtype == torch.uint8 and torch.equal(yielded, given)
    (only,) = batches(labels, batch_size=6)
    assert torch.equal(only[0], labels)


def test_no_pixel_is_changed_unless_asked_for():
    images = torch.randint(256, (6, 3, 4, 4), dtype=torch.uint8)
    assert torch.equal(next(iter(batches(images, batch_size=6)))[0], images)


@pytest.mark.parametrize(
    "tensors, setting, naming",
    [
        ((), {}, "tensors: .*lengths \\[\\]"),
        ((ROWS, ROWS[1:]), {}, "tensors: .*lengths \\[10, 9\\]"),
        ((ROWS[:0],), {}, "tensors: .*length 0"),
        ((ROWS.numpy(),), {}, "tensors: .*got a ndarray; .*torch.as_tensor"),
        ((TensorDataset(ROWS),), {}, "tensors: .*got a TensorDataset; a data set goes into a DataLoader"),
        ((ROWS, torch.tensor(1)), {}, r"tensors: .*got a tensor of shape \(\)"),
        ((ROWS,), {"batch_size": 0}, "batch_size: .*got 0"),
        ((ROWS,), {"batch_size": -2}, "batch_size: .*got -2"),
        ((ROWS,), {"batch_size": 2.5}, "batch_size: .*got 2.5"),
    ],
)
def test_bad_input_is_named(tensors, setting, naming):
    with pytest.raises(ValueError, match=naming):
        batches(*tensors, **setting)


def test_a_dataloader_works_where_batches_do():
    """The same samples in the same order train the same weights."""
    images = torch.randint(256, (24, 1, 8, 8), dtype=torch.uint8)
    labels = torch.arange(24) % 10

    def trained(loader):
        student = network()
        fit(student, loader, lambda model, x, y: F.cross_entropy(model(x), y), steps=5, lr=0.01)
        return torch.cat([parameter.flatten() for parameter in student.parameters()])

    in_memory = trained(batches(images, labels, batch_size=8, transform=scaled))
    loaded = trained(DataLoader(TensorDataset(scaled(images), labels), batch_size=8))
    assert torch.equal(in_memory, loaded)
    assert not torch.equal(
        in_memory, trained(batches(images, labels, batch_size=8, seed=0, transform=scaled))
    )
