"""Words and how they are said, as texts that a language model can learn to continue.

A text has 20 places: 8 for the letters, filled up from the left, a separator, 10 for phonemes, and the end.

    _ _ _ _ _ c a t = K AE T .

So every answer starts at the same place, and its end tells how long it is.
"""

import gzip
import json
import random
from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from kdutils.course.data import DataFileError, data_dir, verified_bytes
from kdutils.course.gpt import GPT

WORDS_SHA256 = "be91b07e4d7b9998ac4d920334d44e870af7420191657e08e7f0db0a5cda0e00"
LETTERS = "abcdefghijklmnopqrstuvwxyz"
PHONEMES = (
    "AA", "AE", "AH", "AO", "AW", "AY", "B", "CH", "D", "DH", "EH", "ER", "EY", "F", "G", "HH", "IH", "IY",
    "JH", "K", "L", "M", "N", "NG", "OW", "OY", "P", "R", "S", "SH", "T", "TH", "UH", "UW", "V", "W", "Y",
    "Z", "ZH",
)  # fmt: skip
SYMBOLS = ("_", *LETTERS, "=", *PHONEMES, ".")
VOCABULARY = len(SYMBOLS)
IDS = {symbol: i for i, symbol in enumerate(SYMBOLS)}
PAD, SEPARATOR, END = IDS["_"], IDS["="], IDS["."]
MOST_LETTERS, MOST_PHONEMES = 8, 10
PROMPT_LENGTH = MOST_LETTERS + 1
CONTEXT = PROMPT_LENGTH + MOST_PHONEMES + 1


class Words(NamedTuple):
    """Words with their pronunciations.

    Attributes:
        spellings: N words of 3 to 8 letters from a to z.
        pronunciations: For each word one or more, phonemes with spaces between them, the dictionary's first
            choice first. Each of them is right.
    """

    spellings: list[str]
    pronunciations: list[list[str]]


class PronouncingDictionary(NamedTuple):
    """The course's four parts. No spelling is in two of them, and all its pronunciations are in one.

    Attributes:
        train: 54,374 words on which the teacher was trained.
        pool: 24,000 words that the teacher never saw; students learn from these.
        validation: 2,000 words on which learning rates, temperatures and weights are chosen.
        test: 4,000 words, looked at once.
    """

    train: Words
    pool: Words
    validation: Words
    test: Words


def pronouncing_dictionary() -> PronouncingDictionary:
    """Words and pronunciations of the CMU Pronouncing Dictionary without stress, in the course's splits.

    Nothing is fetched: the file ships with the course, and its checksum is verified. Words stand in a random
    order, so that the first thousand are a random thousand.

    Raises:
        DataFileError: The file is missing, truncated or altered.

    Source: The Carnegie Mellon Pronouncing Dictionary. `data/pronunciation/README.md` says what was left out.
    """
    content = verified_bytes(data_dir() / "pronunciation" / "words.tsv.gz", WORDS_SHA256)
    parts: dict[str, Words] = {part: Words([], []) for part in PronouncingDictionary._fields}
    for line in gzip.decompress(content).decode("utf-8").splitlines():
        part, spelling, *pronunciations = line.split("\t")
        parts[part].spellings.append(spelling)
        parts[part].pronunciations.append(pronunciations)
    return PronouncingDictionary(**parts)


def part_of(words: Words, start: int, end: int) -> Words:
    """The words from `start` to before `end`."""
    return Words(words.spellings[start:end], words.pronunciations[start:end])


def spelling_prompts(spellings: Sequence[str]) -> Tensor:
    """The first nine tokens of a text, letters and separator: (N, 9) as int64.

    Raises:
        ValueError: A spelling that is not one to eight letters from a to z.
    """
    for spelling in spellings:
        if not 1 <= len(spelling) <= MOST_LETTERS or not set(spelling) <= set(LETTERS):
            raise ValueError(
                f"spellings: expected words of 1 to {MOST_LETTERS} letters from a to z, got {spelling!r}"
            )
    rows = [[IDS[symbol] for symbol in f"{spelling:_>{MOST_LETTERS}}="] for spelling in spellings]
    return torch.tensor(rows, dtype=torch.long).reshape(-1, PROMPT_LENGTH)


def spelled_texts(words: Words, seed: int | None = None) -> tuple[Tensor, Tensor]:
    """Whole texts, from the first letter to the end token, and which of their tokens are to be learned.

    Args:
        words: N words.
        seed: Draws one of a word's pronunciations; None takes the dictionary's first choice.

    Returns:
        Tokens (N, 20) as int64, padded behind the end, and booleans of the same shape: true for phonemes and
        the end token, false for prompt and padding.
    """
    draw = random.Random(seed)
    answers = torch.full((len(words.spellings), MOST_PHONEMES + 1), PAD)
    for i, pronunciations in enumerate(words.pronunciations):
        said = pronunciations[0] if seed is None else draw.choice(pronunciations)
        ids = [IDS[phoneme] for phoneme in said.split()] + [END]
        answers[i, : len(ids)] = torch.tensor(ids)
    tokens = torch.cat([spelling_prompts(words.spellings), answers], dim=1)
    is_learned = tokens != PAD  # the end token is another symbol than the padding
    is_learned[:, :PROMPT_LENGTH] = False
    return tokens, is_learned


def said(tokens: Tensor) -> list[str]:
    """The answers in texts (N, L), phonemes with spaces between them, up to the end token.

    An answer that does not end within the text, or holds a symbol that is no phoneme, is followed by " …" and
    shows that symbol, so that it is equal to no pronunciation.
    """
    answers = []
    for row in tokens[:, PROMPT_LENGTH:].tolist():
        end = row.index(END) if END in row else len(row)
        answers.append(" ".join(SYMBOLS[i] for i in row[:end]) + " …" * (end == len(row)))
    return answers


def is_right(tokens: Tensor, words: Words) -> Tensor:
    """Which texts (N, L) answer with one of their word's pronunciations: booleans (N,).

    Raises:
        ValueError: Another number of texts than of words.
    """
    if len(tokens) != len(words.spellings):
        raise ValueError(f"tokens: expected {len(words.spellings)} texts, got {len(tokens)}")
    pairs = zip(said(tokens), words.pronunciations, strict=True)
    return torch.tensor([answer in pronunciations for answer, pronunciations in pairs], dtype=torch.bool)


def speller(seed: int = 0, depth: int = 4, width: int = 128, std: float = 0.02) -> GPT:
    """A GPT for these texts, untrained: 804 thousand parameters, or as many as depth and width ask for."""
    return GPT(VOCABULARY, CONTEXT, depth, width, seed=seed, std=std)


def load_speller() -> GPT:
    """The trained teacher that ships with the course, in eval mode, its parameters frozen.

    How it was trained and what it reaches stands in `data/speller/card.json`.

    Raises:
        DataFileError: A file is missing, truncated or altered.
    """
    from safetensors.torch import load

    card, weights = data_dir() / "speller" / "card.json", data_dir() / "speller" / "speller.safetensors"
    try:
        sha256 = json.loads(card.read_text())["sha256"]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise DataFileError(card, "the speller's card with the weights' SHA-256", repr(error)) from error
    model = speller()
    stored = load(verified_bytes(weights, sha256))
    model.load_state_dict({key: value.float() for key, value in stored.items()})  # stored in half precision
    return model.eval().requires_grad_(False)
