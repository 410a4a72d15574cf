"""Makes data/text, the course's sentences, from the source package of vaderSentiment 3.2.1.

    pip download --no-deps --no-binary :all: vaderSentiment==3.2.1
    python tools/make_text_table.py vaderSentiment-3.2.1.tar.gz

It makes snippets.tsv.gz, the course's parts, and weak.tsv.gz, the reviews that people rated neither clearly
good nor clearly bad, and prints the checksums that kdutils/course/text.py expects.
"""

import gzip
import hashlib
import html
import io
import re
import sys
import tarfile
from pathlib import Path
from typing import NamedTuple

from replacing import replace

from kdutils.course.data import data_dir

SOURCE_SHA256 = "5dce530a78315563f8b3cd01033bbdd3bf4985fabf359ca68d4167728081c803"
ARCHIVE = "vaderSentiment-3.2.1/additional_resources/hutto_ICWSM_2014.tar.gz"
REVIEWS = "movieReviewSnippets"
UNLABELLED = {"amazonReviewSnippets": "products", "nytEditorialSnippets": "editorials", "tweets": "tweets"}
CLEAR = 1.0  # a mean rating this far from 0, of −4 to 4, tells whether the sentence praises or blames
TRAIN, DEV = 6000, 1000  # the other labelled sentences are the test part


class Row(NamedTuple):
    part: str
    rating: str  # empty where the sentence is used without a label
    sentence: str


def cleaned(sentence: str) -> str:
    """The sentence with HTML entities read and single spaces."""
    read_once = html.unescape(sentence)
    return " ".join(sentence.split()) if read_once == sentence else cleaned(read_once)  # some are twice coded


def letters_only(sentence: str) -> str:
    """What is left without case, spaces and punctuation: sentences that agree in it count as one."""
    return re.sub(r"[\W_]+", "", sentence.casefold())


def rated_sentences(archive: bytes, name: str) -> list[tuple[float, str]]:
    """(mean rating, cleaned sentence) of one set, in the order of its file."""
    lines = member_of(archive, f"hutto_ICWSM_2014/{name}_GroundTruth.txt").decode("utf-8").splitlines()
    rows = (line.split("\t") for line in lines)
    return [(float(rating), cleaned(sentence)) for _, rating, sentence in rows]


def member_of(archive: bytes, name: str) -> bytes:
    """The content of one file of a tar archive."""
    with tarfile.open(fileobj=io.BytesIO(archive)) as files:
        member = files.extractfile(name)
        assert member is not None, f"{name} is no file"
        return member.read()


def table(reviews: list[tuple[float, str]], unlabelled: list[tuple[str, str]]) -> list[Row]:
    """The rows of train, dev and test, then those without a label.

    reviews: (rating, sentence). unlabelled: (part, sentence). Of sentences with the same letters only the
    first stays, reviews before the others; reviews without a clear rating are left out. The part of a review
    follows from a hash of its letters, so that no random number decides it.
    """
    first = first_of_each(reviews, unlabelled)
    clear = [
        (hashlib.sha256(letters.encode()).digest(), rating, sentence)
        for letters, (rating, sentence) in first.items()
        if isinstance(rating, float) and abs(rating) >= CLEAR
    ]
    labelled = [
        Row("train" if i < TRAIN else "dev" if i < TRAIN + DEV else "test", f"{rating:.2f}", sentence)
        for i, (_, rating, sentence) in enumerate(sorted(clear))
    ]
    return labelled + [Row(part, "", sentence) for part, sentence in first.values() if isinstance(part, str)]


def weak_table(reviews: list[tuple[float, str]]) -> list[tuple[str, str]]:
    """(rating, sentence) of the reviews that `table` leaves out for want of a clear rating."""
    first = first_of_each(reviews, [])
    return [
        (f"{rating:.2f}", sentence)
        for rating, sentence in first.values()
        if isinstance(rating, float) and abs(rating) < CLEAR
    ]


def first_of_each(
    reviews: list[tuple[float, str]], unlabelled: list[tuple[str, str]]
) -> dict[str, tuple[float | str, str]]:
    """By its letters the first of all sentences that have the same, with its rating or part."""
    first: dict[str, tuple[float | str, str]] = {}
    for rating_or_part, sentence in [*reviews, *unlabelled]:
        first.setdefault(letters_only(sentence), (rating_or_part, sentence))
    first.pop("", None)
    return first


def store(name: str, rows: list[tuple[str, ...]]) -> None:
    """Writes rows, the first of them the names of the columns, as a packed table, and prints its checksum."""
    lines = "".join("\t".join(row) + "\n" for row in rows)
    path = data_dir() / "text" / name
    replace(path, gzip.compress(lines.encode("utf-8"), compresslevel=9, mtime=0))
    print(f"{path}: {len(rows) - 1:,} sentences, {path.stat().st_size:,} bytes")
    print(f"SHA-256 {hashlib.sha256(path.read_bytes()).hexdigest()}")


def main(source: Path) -> None:
    content = source.read_bytes()
    found = hashlib.sha256(content).hexdigest()
    if found != SOURCE_SHA256:
        sys.exit(f"{source}: expected a file with SHA-256 {SOURCE_SHA256}, found {found}")
    archive = member_of(content, ARCHIVE)
    unlabelled = [
        (part, sentence)
        for name, part in UNLABELLED.items()
        for _, sentence in rated_sentences(archive, name)
    ]
    reviews = rated_sentences(archive, REVIEWS)
    store("snippets.tsv.gz", [("part", "rating", "sentence"), *table(reviews, unlabelled)])
    store("weak.tsv.gz", [("rating", "sentence"), *weak_table(reviews)])


if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit(__doc__)
    main(Path(sys.argv[1]))
