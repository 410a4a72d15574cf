"""Fashion-MNIST as tensors in memory, in the course's fixed splits."""

import gzip
import hashlib
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor

from kdutils.batches import balanced_index

CLASS_NAMES = (
    "T-shirt", "Trouser", "Pullover", "Dress", "Coat", "Sandal", "Shirt", "Sneaker", "Bag", "Ankle boot",
)  # fmt: skip
NUM_CLASSES = len(CLASS_NAMES)
# Of the pixels of the teacher's part, divided by 255.
PIXEL_MEAN, PIXEL_STD = 0.2857, 0.3530

FASHION_MNIST_SHA256 = {
    "train-images-idx3-ubyte.gz": "b0564c3eedabfbf835052cff8503ea422014ce006caf5b757f851416ee8300c7",
    "train-labels-idx1-ubyte.gz": "0ae29f65d86684f32d1b9c85147786c547b9c6aebcaf235f0400a0cce308b056",
    "t10k-images-idx3-ubyte.gz": "cc1d090a38ace84dfa1aa66e3ada7c336ef481a96936906477e6dd344da56eaa",
    "t10k-labels-idx1-ubyte.gz": "8d3605d196f4be44669e46906da9733c8131fef761fdbfec72c424d5222f1a05",
}


class DataFileError(RuntimeError):
    """A data file that is missing, truncated or altered; says what was expected and found, and the repair."""

    def __init__(self, path: Path, expected: str, found: str):
        root = next((p.parent for p in path.parents if p.name in {"data", "_data"}), path.parent)
        if (root / ".git").exists():
            repair = f'git -C "{root}" restore {path.relative_to(root).as_posix()}'
        else:
            repair = "pip install --force-reinstall --no-deps git+https://github.com/OWNER/REPO"
        super().__init__(f"{path}: expected {expected}, found {found}. Repair: {repair}")


class Split(NamedTuple):
    """Images (N, 1, 28, 28) as uint8 and their labels (N,) as int64."""

    images: Tensor
    labels: Tensor


class FashionMNIST(NamedTuple):
    """The course's four disjoint parts.

    Attributes:
        teacher: 38,000 images on which the teacher was trained.
        validation: 2,000 images on which learning rates, temperatures and weights are chosen.
        pool: 20,000 images that the teacher never saw; students learn from these. A teacher's soft targets
            on images of its own training set would be overconfident.
        test: 10,000 images, looked at once.
    """

    teacher: Split
    validation: Split
    pool: Split
    test: Split


def data_dir() -> Path:
    """The folder with the course's data: inside an installed wheel, or beside the package in a checkout."""
    package = Path(__file__).resolve().parent.parent
    return package / "_data" if (package / "_data").is_dir() else package.parent / "data"


def verified_bytes(path: Path, sha256: str) -> bytes:
    """The content of a file whose SHA-256 is the expected one.

    Raises:
        DataFileError: The file is missing, or its SHA-256 is another one.
    """
    expected = f"a file with SHA-256 {sha256}"
    if not path.is_file():
        raise DataFileError(path, expected, "no file")
    content = path.read_bytes()
    found = hashlib.sha256(content).hexdigest()
    if found != sha256:
        raise DataFileError(path, expected, f"{len(content):,} bytes with SHA-256 {found}")
    return content


def fashion_mnist() -> FashionMNIST:
    """Fashion-MNIST's images and labels in the course's fixed splits.

    Nothing is fetched: the files ship with the course. Every file's checksum is verified.
    The official training set is cut in its own order: [:38000] teacher, [38000:40000] validation,
    [40000:60000] pool. The official test set is the test part.

    Raises:
        DataFileError: A file is missing, truncated or altered.

    Source: Xiao, Rasul and Vollgraf 2017, arXiv:1708.07747.
    """
    train_images = _idx_tensor("train-images-idx3-ubyte.gz").unsqueeze(1)
    train_labels = _idx_tensor("train-labels-idx1-ubyte.gz").long()
    test_images = _idx_tensor("t10k-images-idx3-ubyte.gz").unsqueeze(1)
    test_labels = _idx_tensor("t10k-labels-idx1-ubyte.gz").long()
    return FashionMNIST(
        teacher=Split(train_images[:38_000], train_labels[:38_000]),
        validation=Split(train_images[38_000:40_000], train_labels[38_000:40_000]),
        pool=Split(train_images[40_000:], train_labels[40_000:]),
        test=Split(test_images, test_labels),
    )


def _idx_tensor(name: str) -> Tensor:
    """The uint8 tensor in one gzipped IDX file (magic number, sizes as big-endian int32, then the values)."""
    path = data_dir() / "fashion-mnist" / name
    content = bytearray(gzip.decompress(verified_bytes(path, FASHION_MNIST_SHA256[name])))
    num_dims = content[3]
    shape = [int.from_bytes(content[4 + 4 * d : 8 + 4 * d], "big") for d in range(num_dims)]
    return torch.frombuffer(content, dtype=torch.uint8, offset=4 + 4 * num_dims).reshape(shape)


def normalize_fashion_mnist(images: Tensor) -> Tensor:
    """Float32 images with mean 0 and standard deviation 1 over the teacher's part, from uint8 images.

    Raises:
        ValueError: Another dtype than uint8: such images may have been scaled already.
    """
    if images.dtype != torch.uint8:
        raise ValueError(f"images: expected uint8, got {images.dtype}")
    return (images / 255).sub_(PIXEL_MEAN).div_(PIXEL_STD)


def labeled_subset(split: Split, size: int, seed: int) -> Split:
    """The images and labels of a balanced random subset; see `balanced_index`."""
    index = balanced_index(split.labels, size, seed)
    return Split(split.images[index], split.labels[index])
