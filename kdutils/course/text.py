"""Movie-review sentences with their labels, in the course's fixed splits, and sentences without labels."""

import gzip
from typing import NamedTuple

import torch
from torch import Tensor

from kdutils.course.data import data_dir, verified_bytes

CLASS_NAMES = ("negative", "positive")
SNIPPETS_SHA256 = "535295e718dd36205ee4ac6679b2d5069298b47bea489fcf2928d8a42aee14e1"
WEAK_SHA256 = "af7ae237b37c645838a7aca85dc802db2b26e01d9eacbdaea00bfcd748a12748"


class TextSplit(NamedTuple):
    """Sentences with their labels and ratings.

    Attributes:
        sentences: N strings.
        labels: (N,) as int64, 1 for praise and 0 for blame.
        ratings: (N,) as float32, the mean of some twenty people's, from −4 to 4; its sign is the label.
    """

    sentences: list[str]
    labels: Tensor
    ratings: Tensor


class MovieReviews(NamedTuple):
    """The course's four parts; no sentence is in two of them, nor twice in one, even without punctuation.

    Attributes:
        train: 6,000 sentences.
        dev: 1,000 sentences, on which learning rates and weights are chosen.
        test: 2,171 sentences, looked at once.
        unlabelled: 12,842 sentences of product reviews, newspaper opinion pieces and tweets, in the order of
            these sets.
    """

    train: TextSplit
    dev: TextSplit
    test: TextSplit
    unlabelled: list[str]


def movie_reviews() -> MovieReviews:
    """Sentences of movie reviews that people rated clearly, and others without a label.

    A clear rating is 1 or more away from 0. Nothing is fetched: the file ships with the course, and its
    checksum is verified.

    Raises:
        DataFileError: The file is missing, truncated or altered.

    Source: Hutto and Gilbert 2014, "VADER: A Parsimonious Rule-based Model for Sentiment Analysis of Social
    Media Text". `data/text/README.md` says how the sentences were cleaned.
    """
    content = verified_bytes(data_dir() / "text" / "snippets.tsv.gz", SNIPPETS_SHA256)
    _, *lines = gzip.decompress(content).decode("utf-8").splitlines()
    rows = [line.split("\t") for line in lines]

    def split(name: str) -> TextSplit:
        ratings = torch.tensor([float(rating) for part, rating, _ in rows if part == name])
        sentences = [sentence for part, _, sentence in rows if part == name]
        return TextSplit(sentences, (ratings > 0).long(), ratings)

    unlabelled = [sentence for _, rating, sentence in rows if not rating]
    return MovieReviews(split("train"), split("dev"), split("test"), unlabelled)


def undecided_reviews() -> list[str]:
    """1,432 sentences of movie reviews that people rated less than 1 away from 0, so without a label.

    None of them is among those of `movie_reviews`, not even with other punctuation.

    Raises:
        DataFileError: The file is missing, truncated or altered.

    Source: as of `movie_reviews`.
    """
    content = verified_bytes(data_dir() / "text" / "weak.tsv.gz", WEAK_SHA256)
    _, *lines = gzip.decompress(content).decode("utf-8").splitlines()
    return [line.split("\t")[1] for line in lines]
