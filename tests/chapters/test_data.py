"""The data are whole or the error says how to repair them; splits are fixed; batches are paired."""

import hashlib
import shutil
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from damage import alter, remove, truncate
from torch.utils.data import DataLoader, TensorDataset

from kdutils.batches import Batches, balanced_index, batches
from kdutils.course import data, models
from kdutils.course.data import DataFileError, fashion_mnist, normalize_fashion_mnist
from kdutils.train import fit

SIZES = {"teacher": 38_000, "validation": 2_000, "pool": 20_000, "test": 10_000}


@pytest.fixture(scope="module")
def parts():
    return fashion_mnist()


# Files


@pytest.mark.parametrize("name", data.FASHION_MNIST_SHA256)
def test_a_shipped_file_has_its_checksum(name):
    content = (data.data_dir() / "fashion-mnist" / name).read_bytes()
    assert hashlib.sha256(content).hexdigest() == data.FASHION_MNIST_SHA256[name]


@pytest.fixture
def copied_data(tmp_path, monkeypatch):
    """A copy of the data under a root of its own."""
    folder = tmp_path / "data" / "fashion-mnist"
    shutil.copytree(data.data_dir() / "fashion-mnist", folder)
    monkeypatch.setattr(data, "data_dir", lambda: tmp_path / "data")
    return folder


@pytest.mark.parametrize("damage", [remove, truncate, alter])
@pytest.mark.parametrize("name", data.FASHION_MNIST_SHA256)
def test_a_damaged_file_is_named_with_its_repair(copied_data, name, damage, monkeypatch):
    root = copied_data.parent.parent
    (root / ".git").mkdir()
    damage(copied_data / name)
    if name.startswith("t10k"):  # what comes before is whole, and slow to read
        monkeypatch.setattr(data, "_idx_tensor", skipping_train_files(data._idx_tensor))
    with pytest.raises(DataFileError) as raised:
        fashion_mnist()
    sentence = str(raised.value)
    assert str(copied_data / name) in sentence
    assert f"expected a file with SHA-256 {data.FASHION_MNIST_SHA256[name]}" in sentence
    found = "no file" if damage is remove else f"{(copied_data / name).stat().st_size:,} bytes with SHA-256"
    assert f"found {found}" in sentence
    assert sentence.endswith(f'Repair: git -C "{root}" restore data/fashion-mnist/{name}')


def skipping_train_files(read):
    return lambda name: torch.zeros(1) if name.startswith("train-images") else read(name)


def test_the_repair_of_an_installed_package_is_a_new_installation(copied_data):
    name = "train-images-idx3-ubyte.gz"
    remove(copied_data / name)
    with pytest.raises(DataFileError, match=r"Repair: pip install --force-reinstall --no-deps git\+https://"):
        fashion_mnist()


def test_the_data_lie_beside_the_package_in_a_checkout_and_inside_it_in_a_wheel(tmp_path, monkeypatch):
    assert (data.data_dir() / "fashion-mnist" / "LICENSE").is_file()
    package = tmp_path / "kdutils"
    package.mkdir()
    monkeypatch.setattr(data, "__file__", str(package / "course" / "data.py"))
    assert data.data_dir() == tmp_path.resolve() / "data"
    (package / "_data").mkdir()
    assert data.data_dir() == package.resolve() / "_data"


# Splits


def test_sizes_shapes_and_types(parts):
    assert {name: len(split.images) for name, split in parts._asdict().items()} == SIZES
    for split in parts:
        assert split.images.shape == (len(split.labels), 1, 28, 28)
        assert split.images.dtype == torch.uint8 and split.labels.dtype == torch.int64
        assert split.labels.unique().tolist() == list(range(data.NUM_CLASSES))
    assert len(data.CLASS_NAMES) == data.NUM_CLASSES == 10


def test_splits_are_disjoint(parts):
    """Different stretches of the training file, and no image of one is an image of another (bar the few
    duplicates that Fashion-MNIST itself has)."""
    starts = [split.images.storage_offset() // 784 for split in parts[:3]]
    assert [start - starts[0] for start in starts] == [0, 38_000, 40_000]
    digests = [
        {image.numpy().tobytes() for image in split.images} for split in (parts.validation, parts.pool)
    ]
    assert len(digests[0] & digests[1]) <= 5
    assert len(digests[1]) > 19_900


def test_images_are_the_official_ones(parts):
    """Labels and mean pixels of the official order: the first training image is an ankle boot."""
    assert parts.teacher.labels[:5].tolist() == [9, 0, 0, 3, 0]
    assert parts.test.labels[:5].tolist() == [9, 2, 1, 1, 6]
    assert parts.test.labels.bincount().tolist() == [1000] * 10


def test_normalised_images_have_mean_0_and_deviation_1_over_the_teachers_part(parts):
    pixels = normalize_fashion_mnist(parts.teacher.images)
    assert pixels.dtype == torch.float32
    assert pixels.mean(dtype=torch.float64).abs() < 5e-4
    assert abs(pixels.std().item() - 1) < 5e-4


def test_normalised_is_the_formula():
    images = torch.arange(256, dtype=torch.uint8).reshape(1, 1, 16, 16)
    torch.testing.assert_close(
        normalize_fashion_mnist(images), ((images.double() / 255 - 0.2857) / 0.3530).float()
    )


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


def test_a_labelled_subset_keeps_image_and_label_together(parts):
    subset = data.labeled_subset(parts.pool, 50, seed=3)
    index = balanced_index(parts.pool.labels, 50, seed=3)
    assert torch.equal(subset.images, parts.pool.images[index])
    assert torch.equal(subset.labels, parts.pool.labels[index])
    assert subset.labels.bincount().tolist() == [5] * 10


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


def test_images_that_may_be_scaled_already_are_refused():
    with pytest.raises(ValueError, match=r"images: expected uint8, got torch\.float32"):
        normalize_fashion_mnist(torch.rand(2, 1, 28, 28))


def test_only_the_first_tensor_is_transformed():
    images = torch.randint(256, (6, 1, 4, 4), dtype=torch.uint8)
    logits = torch.randn(6, 3)
    (batch,) = batches(images, logits, ROWS[:6], batch_size=6, transform=normalize_fashion_mnist)
    assert torch.equal(batch[0], normalize_fashion_mnist(images))
    assert torch.equal(batch[1], logits) and torch.equal(batch[2], ROWS[:6])
    assert [tensor.dtype for tensor in batch] == [torch.float32, torch.float32, torch.int64]


def test_no_pixel_is_changed_unless_asked_for():
    images = torch.randint(256, (6, 3, 4, 4), dtype=torch.uint8)
    assert torch.equal(next(iter(batches(images, batch_size=6)))[0], images)


@pytest.mark.parametrize(
    "tensors, setting, naming",
    [
        ((), {}, "tensors: .*lengths \\[\\]"),
        ((ROWS, ROWS[1:]), {}, "tensors: .*lengths \\[10, 9\\]"),
        ((ROWS[:0],), {}, "tensors: .*length 0"),
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
    images = torch.randint(256, (24, 1, 28, 28), dtype=torch.uint8)
    labels = torch.arange(24) % 10

    def trained(loader):
        student = models.small_cnn(seed=0)
        fit(student, loader, lambda model, x, y: F.cross_entropy(model(x), y), steps=5, lr=0.01)
        return torch.cat([parameter.flatten() for parameter in student.parameters()])

    in_memory = trained(batches(images, labels, batch_size=8, transform=normalize_fashion_mnist))
    loaded = trained(DataLoader(TensorDataset(normalize_fashion_mnist(images), labels), batch_size=8))
    assert torch.equal(in_memory, loaded)
    assert not torch.equal(
        in_memory, trained(batches(images, labels, batch_size=8, seed=0, transform=normalize_fashion_mnist))
    )


def test_the_readme_of_the_data_names_source_and_licence():
    folder = Path(data.data_dir()) / "fashion-mnist"
    assert "Expat" in (folder / "README.md").read_text() and "Zalando" in (folder / "LICENSE").read_text()
