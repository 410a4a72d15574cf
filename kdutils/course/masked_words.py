"""Hidden words: what DistilBERT's students learn before any task, and the one that has learned already."""

import json
from collections.abc import Mapping
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from kdutils.course.data import DataFileError, data_dir, verified_bytes
from kdutils.course.encoder import load_encoder
from kdutils.layers import student_from_teacher

MASK, SPECIAL = 103, 999  # [MASK]; all tokens up to 999 are special or unused
CUT = (0, 2, 5)  # about every other layer, with the first and the last
LEVELS, SCALE = 31, ".scale"  # of a stored number, to either side of 0; of a row, beside its numbers


class MaskedLM(nn.Module):
    """An encoder that names hidden words: its head is one layer, then the product with every embedding.

    The logits are computed at the hidden places only: those of 30,522 words for all tokens would take far
    more memory.
    """

    def __init__(self, encoder: Any, word_counts: Tensor | None = None):
        """word_counts: how frequent each word is, (vocabulary,), so that the head begins with that."""
        super().__init__()
        width, size = encoder.config.hidden_size, encoder.config.vocab_size
        self.config, self.encoder = encoder.config, encoder
        self.transform = nn.Sequential(nn.Linear(width, width), nn.GELU(), nn.LayerNorm(width))
        counts = torch.zeros(size) if word_counts is None else word_counts
        self.bias = nn.Parameter((counts + 1.0).log())

    def words(self, states: Tensor) -> Tensor:
        """Logits (places, vocabulary) from states (places, D)."""
        vocabulary = self.encoder.embeddings.word_embeddings.weight
        return F.linear(self.transform(states), vocabulary, self.bias)

    def forward(self, tokens: Tensor, places: Tensor) -> tuple[Tensor, Tensor]:
        """Tokens and places, both (N, L) → states (N, L, D), logits (number of places, vocabulary)."""
        states = self.encoder(tokens, attention_mask=(tokens != 0).long()).last_hidden_state
        return states, self.words(states[places])


def hidden_words(tokens: Tensor, seed: int, share: float = 0.15) -> tuple[Tensor, Tensor]:
    """The tokens (N, L) with a share of the words hidden behind [MASK], and where: (N, L) as bool."""
    drawn = torch.rand(tokens.shape, generator=torch.Generator().manual_seed(seed)) < share
    places = drawn & (tokens > SPECIAL)
    return tokens.masked_fill(places, MASK), places


def load_pretrained_student() -> MaskedLM:
    """The student of three layers that was distilled on text, with its head for hidden words, in eval mode.

    Its layers and its head ship with the course, made by `tools/pretrain_student.py`; its embeddings are the
    encoder's. What it reaches stands in `data/student/card.json`.

    Raises:
        DataFileError: A file that is missing, truncated or altered.
        EncoderError: As `load_encoder`.
    """
    from safetensors.torch import load

    folder = data_dir() / "student"
    card = folder / "card.json"
    try:
        sha256 = json.loads(card.read_text())["sha256"]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise DataFileError(card, "a card with the SHA-256 of the weights", repr(error)) from error
    weights = load(verified_bytes(folder / "student.safetensors", sha256))
    student = MaskedLM(student_from_teacher(load_encoder(), CUT))
    student.load_state_dict(unpacked(weights, student.state_dict()))
    return student.eval()


def is_stored(name: str) -> bool:
    """Whether a weight of that name is the student's own: embeddings and pooler are the encoder's."""
    return not name.startswith(("encoder.embeddings.", "encoder.pooler."))


def packed(trained: Mapping[str, Tensor], copied: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """A trained student's weights in an eighth of their size, without what it has in common with the encoder.

    Of a layer's matrix is kept what training changed in it, rounded to 6 bits with one scale per row, as
    int8; of all else the numbers themselves, in half precision.

    Args:
        trained: The student's state.
        copied: The state that it would have without training.
    """
    kept: dict[str, Tensor] = {}
    for name, value in trained.items():
        if not is_stored(name):
            continue
        if name.startswith("encoder.") and value.dim() == 2:
            change = value - copied[name]
            scale = change.abs().amax(dim=1, keepdim=True).clamp(min=1e-12) / LEVELS
            kept[name] = (change / scale).round().to(torch.int8)
            kept[name + SCALE] = scale
        else:
            kept[name] = value.half()
    return {name: value.contiguous() for name, value in kept.items()}


def unpacked(kept: Mapping[str, Tensor], copied: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The state that `packed` was given, but for rounding."""
    state = dict(copied)
    for name, value in kept.items():
        if name + SCALE in kept:
            state[name] = copied[name] + value * kept[name + SCALE]
        elif not name.endswith(SCALE):
            state[name] = value.float()
    return state
