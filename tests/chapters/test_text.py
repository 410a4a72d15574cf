"""The sentences are whole, or the error says how to repair them; none leaks from one part to another."""

import gzip
import hashlib
import io
import re
import shutil
import subprocess
import sys
import tarfile

import make_text_table
import pytest
import torch
from damage import alter, remove, truncate
from make_text_table import Row, cleaned, letters_only, rated_sentences, table, weak_table
from notebook_files import ROOT

from kdutils.course import data, text
from kdutils.course.data import DataFileError
from kdutils.course.text import movie_reviews, undecided_reviews

NAME = "snippets.tsv.gz"


@pytest.fixture(scope="module")
def parts():
    return movie_reviews()


# The file


@pytest.fixture
def copied_table(tmp_path, monkeypatch):
    """A copy of the table under a root of its own."""
    folder = tmp_path / "data" / "text"
    shutil.copytree(data.data_dir() / "text", folder)
    monkeypatch.setattr(text, "data_dir", lambda: tmp_path / "data")
    return folder / NAME


def repack(path):
    """A whole gzip file with one label turned round."""
    content = gzip.decompress(path.read_bytes()).replace(b"train\t", b"train\t-", 1)
    path.write_bytes(gzip.compress(content))


@pytest.mark.parametrize("damage", [remove, truncate, alter, repack])
def test_a_damaged_file_is_named_with_its_repair(copied_table, damage):
    root = copied_table.parents[2]
    (root / ".git").mkdir()
    damage(copied_table)
    with pytest.raises(DataFileError) as raised:
        movie_reviews()
    found = "no file" if damage is remove else f"{copied_table.stat().st_size:,} bytes with SHA-256 "
    expected = f"{copied_table}: expected a file with SHA-256 {text.SNIPPETS_SHA256}, found {found}"
    assert str(raised.value).startswith(expected)
    assert str(raised.value).endswith(f'Repair: git -C "{root}" restore data/text/{NAME}')


def test_the_copy_itself_is_read(copied_table):
    assert len(movie_reviews().test.sentences) == 2171


def test_the_folder_names_source_and_licence_and_is_small():
    folder = data.data_dir() / "text"
    readme = (folder / "README.md").read_text(encoding="utf-8")
    assert "MIT" in readme and "vaderSentiment" in readme
    assert "Hutto" in (folder / "LICENSE").read_text(encoding="utf-8")
    assert sum(path.stat().st_size for path in folder.iterdir()) < 1_100_000


def test_the_readme_counts_what_is_there():
    readme = (data.data_dir() / "text" / "README.md").read_text(encoding="utf-8")
    lines = gzip.decompress((data.data_dir() / "text" / NAME).read_bytes()).decode("utf-8").splitlines()[1:]
    told = {
        part: int(size.replace(",", ""))
        for names, sizes in re.findall(r"^\| ((?:`\w+`,? ?)+) \| ([\d, ]+) \|", readme, re.MULTILINE)
        for part, size in zip(re.findall(r"\w+", names), sizes.split(", "), strict=True)
    }
    parts_of_lines = [line.split("\t")[0] for line in lines]
    assert told == {part: parts_of_lines.count(part) for part in set(parts_of_lines)}
    assert f"a table of {len(lines):,} English sentences" in readme


def test_undecided_reviews_are_whole_and_in_no_part(parts, copied_table):
    undecided = undecided_reviews()
    assert len(undecided) == 1_432 and all(sentence.strip() == sentence != "" for sentence in undecided)
    seen = {letters_only(s) for split in parts[:3] for s in split.sentences}
    seen |= {letters_only(s) for s in parts.unlabelled}
    letters = {letters_only(sentence) for sentence in undecided}
    assert len(letters) == len(undecided) and not letters & seen
    alter(copied_table.with_name("weak.tsv.gz"))
    with pytest.raises(DataFileError, match=f"SHA-256 {text.WEAK_SHA256}"):
        undecided_reviews()


# The parts


def test_sizes_and_types(parts):
    sizes = [len(split.sentences) for split in parts[:3]]
    assert sizes == [6000, 1000, 2171] and len(parts.unlabelled) == 12_842
    for split in parts[:3]:
        assert split.labels.shape == split.ratings.shape == (len(split.sentences),)
        assert split.labels.dtype == torch.int64 and split.ratings.dtype == torch.float32


def test_no_sentence_is_in_two_parts_nor_twice_in_one_even_without_case_and_punctuation(parts):
    sentences = [s for split in parts[:3] for s in split.sentences] + parts.unlabelled
    letters = ["".join(c for c in sentence.casefold() if c.isalnum()) for sentence in sentences]
    assert "" not in letters
    assert len(set(letters)) == len(letters) == 22_013


def test_train_and_test_share_no_stretch_of_ten_words(parts):
    """Nor is a sentence of one a sentence of the other with a word changed or a clause added."""

    def stretches(split):
        words = [re.findall(r"\w+", sentence.casefold()) for sentence in split.sentences]
        return {" ".join(w[i : i + 10]) for w in words for i in range(len(w) - 9)}

    assert len(stretches(parts.test)) > 10_000
    assert stretches(parts.train) & stretches(parts.test) == set()


def test_labels_are_the_signs_of_clear_ratings(parts):
    for split in parts[:3]:
        assert torch.equal(split.labels, (split.ratings > 0).long())
        assert split.ratings.abs().min() >= 1 and split.ratings.abs().max() <= 4


def test_labels_are_balanced_in_every_part(parts):
    for split in parts[:3]:
        assert 0.48 < split.labels.double().mean() < 0.52


def test_labels_mean_what_their_names_say(parts):
    assert text.CLASS_NAMES == ("negative", "positive")
    labeled = [
        (sentence.casefold().split(), label)
        for split in parts[:3]
        for sentence, label in zip(split.sentences, split.labels.tolist(), strict=True)
    ]
    for word, expected in (("dull", 0), ("worst", 0), ("enjoyable", 1), ("moving", 1)):
        labels = [label for words, label in labeled if word in words]
        assert len(labels) > 20
        assert abs(sum(labels) / len(labels) - expected) < 0.25


def test_a_sentence_is_clean(parts):
    for sentence in [s for split in parts[:3] for s in split.sentences] + parts.unlabelled:
        assert sentence == cleaned(sentence)
        assert 1 <= len(sentence.split()) <= 150


# The script that made the table


def test_cleaning():
    assert cleaned("  so\u00a0 good &amp; true\t") == "so good & true"
    assert cleaned("at &amp;#38; t") == "at & t"
    assert letters_only("'It''s, well... GOOD_ish!'") == letters_only("it s well goodish")
    assert letters_only("café 2") != letters_only("caf 2")
    assert letters_only("?!...") == ""


REVIEWS = [(2.0, f"Good film {i}.") for i in range(40)] + [(-2.0, f"Bad film {i}.") for i in range(40)]


@pytest.fixture
def small_parts(monkeypatch):
    monkeypatch.setattr(make_text_table, "TRAIN", 50)
    monkeypatch.setattr(make_text_table, "DEV", 10)


def test_a_table_holds_every_sentence_once_with_its_own_rating(small_parts):
    doubled = [*REVIEWS, (1.5, "good film 3"), (-1.0, "GOOD, film... 4!"), (3.0, "...")]
    rows = table(
        doubled, [("tweets", "Bad film 7!"), ("tweets", "New."), ("products", "new"), ("tweets", "")]
    )
    assert [row.part for row in rows].count("train") == 50
    assert [row.part for row in rows].count("dev") == 10
    assert [row.part for row in rows].count("test") == 20
    assert {(row.rating, row.sentence) for row in rows[:80]} == {(f"{r:.2f}", s) for r, s in REVIEWS}
    assert rows[80:] == [Row("tweets", "", "New.")]


def test_reviews_without_a_clear_rating_are_left_out_and_lend_no_sentence_to_the_unlabelled(small_parts):
    rows = table([*REVIEWS, (0.99, "So so."), (-1.0, "Poor.")], [("tweets", "so so")])
    assert "So so." not in [row.sentence for row in rows] and "so so" not in [row.sentence for row in rows]
    assert "Poor." in [row.sentence for row in rows]


def test_what_one_table_leaves_out_for_its_rating_is_in_the_other(small_parts):
    reviews = [*REVIEWS, (0.99, "So so."), (-0.5, "SO SO"), (-0.5, "Bad film 3"), (-1.0, "Poor."), (0.0, "")]
    assert weak_table(reviews) == [("0.99", "So so.")]


def test_a_sentences_part_depends_on_its_letters_alone(small_parts):
    rows = table(REVIEWS, [])
    assert table(REVIEWS[::-1], []) == rows
    assert len({row.rating for row in rows[:50]}) == 2  # the classes are mixed


def test_the_sets_are_read_from_the_archive():
    lines = b"1\t2.26666\tThe  Rock &amp; roll.\r\n2\t-0.5\tToo tepid\r\n"
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w:gz") as files:
        member = tarfile.TarInfo("hutto_ICWSM_2014/some_GroundTruth.txt")
        member.size = len(lines)
        files.addfile(member, io.BytesIO(lines))
    assert rated_sentences(buffer.getvalue(), "some") == [(2.26666, "The Rock & roll."), (-0.5, "Too tepid")]


def test_another_source_package_is_refused(tmp_path):
    source = tmp_path / "vaderSentiment-3.2.1.tar.gz"
    source.write_bytes(b"something else")
    script = [sys.executable, ROOT / "tools" / "make_text_table.py"]
    before = hashlib.sha256((ROOT / "data" / "text" / NAME).read_bytes()).hexdigest()
    run = subprocess.run([*script, source], capture_output=True, text=True)
    assert run.returncode == 1
    assert run.stderr.startswith(f"{source}: expected a file with SHA-256 {make_text_table.SOURCE_SHA256}")
    run = subprocess.run(script, capture_output=True, text=True)
    assert run.returncode == 1 and "pip download" in run.stderr
    assert hashlib.sha256((ROOT / "data" / "text" / NAME).read_bytes()).hexdigest() == before
