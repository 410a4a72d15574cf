"""Answers written to a .npy file batch by batch, so that an interrupted run goes on where it stopped."""

import io
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import torch
from torch import Tensor

from kdutils._loading import num_samples

SAME = 1e-3  # of the largest number: other devices and batch sizes round otherwise, another model is far off


def written(
    path: str | os.PathLike[str], batches: Iterator[Any], answer: Callable[[Any], Tensor], total: int
) -> Tensor:
    """The answers to all batches, one after another, as a tensor whose numbers stay on the disk.

    They are written to PATH.part, which becomes PATH once it is complete. What is there already is kept if it
    begins with the answers to the first batch.

    Args:
        path: Of the file to be.
        batches: The batches, in order.
        answer: What to write for a batch.
        total: Number of samples in all batches together.

    Raises:
        ValueError: A file that another call has begun, answers that differ in shape or type, or more or fewer
            than the total.
    """
    path = Path(path)
    part = path.with_name(path.name + ".part")
    first_batch = next(batches, None)
    if first_batch is None:
        raise ValueError("inputs: expected at least one, got none")
    first = _rows(answer(first_batch))
    header = _header((total, *first.shape[1:]), first.dtype)
    complete = len(header) + total * first[0].nbytes
    if path.exists():
        if not _begins_alike(path, header, first) or path.stat().st_size != complete:
            raise ValueError(_refusal(path))
        return _mapped(path)
    if not part.exists() or not _begins_alike(part, header, first):
        part.write_bytes(header + first.tobytes())
    with part.open("r+b") as file:
        done = _append(file, len(header), first, batches, answer)
        if done != total:
            raise ValueError(f"inputs: expected {total} samples, as their length says, got {done}")
        os.fsync(file.fileno())
    part.replace(path)
    return _mapped(path)


def _append(
    file: BinaryIO, start: int, first: np.ndarray, batches: Iterator[Any], answer: Callable[[Any], Tensor]
) -> int:
    """Writes what comes after the first answers and is not there yet; returns how many there are then."""
    there = (file.seek(0, io.SEEK_END) - start) // first[0].nbytes
    done = len(first)
    for batch in batches:
        size = num_samples(batch)
        # what is there last may be written by halves, so one batch more is asked again
        if done + 2 * size > there:
            rows = _rows(answer(batch))
            if rows.shape[1:] != first.shape[1:] or rows.dtype != first.dtype:
                shape = ", ".join(map(str, ("N", *first.shape[1:])))
                raise ValueError(
                    f"forward: expected answers of shape ({shape}) and {first.dtype} for every batch, "
                    f"got {rows.shape} and {rows.dtype}"
                )
            file.seek(start + done * first[0].nbytes)
            file.truncate()
            file.write(rows.tobytes())
        done += size
    return done


def _begins_alike(path: Path, header: bytes, first: np.ndarray) -> bool:
    """Whether a file has the header and the first answers; False where it ends before they are complete.

    Raises ValueError for a file that begins otherwise.
    """
    with path.open("rb") as file:
        content = file.read(len(header) + first.nbytes)
    if content[: len(header)] != header[: len(content)]:
        raise ValueError(_refusal(path))
    if len(content) < len(header) + first.nbytes:
        return False
    there = np.frombuffer(content, first.dtype, offset=len(header)).reshape(first.shape)
    if not np.allclose(there, first, rtol=0, atol=SAME * np.abs(first).max(), equal_nan=True):
        raise ValueError(_refusal(path))
    return True


def _refusal(path: Path) -> str:
    return (
        f"to: expected {path} to be new or from the same call (same model, inputs and forward), got a file "
        "with other or damaged content; delete it or choose another name"
    )


def _header(shape: tuple[int, ...], dtype: np.dtype) -> bytes:
    stream = io.BytesIO()
    descr = np.lib.format.dtype_to_descr(dtype)
    np.lib.format.write_array_header_1_0(stream, {"descr": descr, "fortran_order": False, "shape": shape})
    return stream.getvalue()


def _rows(answer: Tensor) -> np.ndarray:
    """The answers as NumPy keeps them."""
    if answer.dtype == torch.bfloat16:
        raise ValueError("forward: expected a type that .npy files know, such as float16, got torch.bfloat16")
    return answer.numpy()


def _mapped(path: Path) -> Tensor:
    """The file's numbers, read where they are used; what is written to the tensor stays in memory."""
    return torch.from_numpy(np.load(path, mmap_mode="c"))
