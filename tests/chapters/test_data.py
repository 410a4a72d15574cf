"""The data are whole or the error says how to repair them; splits are fixed."""

import hashlib
import shutil
from pathlib import Path

import pytest
import torch
from damage import alter, remove, truncate

from kdutils.batches import balanced_index
from kdutils.course import data
from kdutils.course.data import DataFileError, fashion_mnist, normalize_fashion_mnist

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


def test_a_labelled_subset_keeps_image_and_label_together(parts):
    subset = data.labeled_subset(parts.pool, 50, seed=3)
    index = balanced_index(parts.pool.labels, 50, seed=3)
    assert torch.equal(subset.images, parts.pool.images[index])
    assert torch.equal(subset.labels, parts.pool.labels[index])
    assert subset.labels.bincount().tolist() == [5] * 10


def test_images_that_may_be_scaled_already_are_refused():
    with pytest.raises(ValueError, match=r"images: expected uint8, got torch\.float32"):
        normalize_fashion_mnist(torch.rand(2, 1, 28, 28))


def test_the_readme_of_the_data_names_source_and_licence():
    folder = Path(data.data_dir()) / "fashion-mnist"
    assert "Expat" in (folder / "README.md").read_text() and "Zalando" in (folder / "LICENSE").read_text()
