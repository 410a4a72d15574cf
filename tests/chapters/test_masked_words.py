"""Words are hidden as said; the shipped student is whole, small, and what its card says."""

import json
import shutil

import pytest
import torch
from damage import alter, remove, truncate
from safetensors.torch import load_file

from kdutils.course import data, masked_words
from kdutils.course.data import DataFileError
from kdutils.course.encoder import load_encoder, load_tokenizer
from kdutils.course.masked_words import (
    CUT,
    MASK,
    SPECIAL,
    MaskedLM,
    hidden_words,
    load_pretrained_student,
    packed,
    unpacked,
)
from kdutils.course.text import movie_reviews
from kdutils.layers import student_from_teacher

FOLDER = data.data_dir() / "student"
CARD = json.loads((FOLDER / "card.json").read_text())


@pytest.fixture(scope="module")
def student():
    return load_pretrained_student()


@pytest.fixture(scope="module")
def sentences():
    padded = {"padding": True, "truncation": True, "max_length": 32, "return_tensors": "pt"}
    return load_tokenizer()(movie_reviews().dev.sentences[:200], **padded).input_ids


# Hidden words


def test_one_word_in_seven_is_hidden_and_no_padding(sentences):
    tokens, places = hidden_words(sentences, seed=0)
    words = sentences > SPECIAL
    assert not (places & ~words).any() and (tokens[places] == MASK).all()
    assert torch.equal(tokens[~places], sentences[~places])
    assert 0.13 < places.sum() / words.sum() < 0.17
    assert torch.equal(hidden_words(sentences, seed=0)[1], places)
    assert not torch.equal(hidden_words(sentences, seed=1)[1], places)


def test_words_are_named_at_the_hidden_places_only(student, sentences):
    tokens, places = hidden_words(sentences[:4], seed=0)
    with torch.no_grad():
        states, logits = student(tokens, places)
    assert states.shape == (4, tokens.shape[1], 384) and logits.shape == (places.sum(), 30_522)
    by_hand = student.transform(states[places]) @ student.encoder.embeddings.word_embeddings.weight.T
    torch.testing.assert_close(logits, by_hand + student.bias, atol=1e-4, rtol=1e-4)


def test_a_new_head_knows_how_frequent_words_are():
    counts = torch.zeros(30_522)
    counts[2_000] = 99
    assert MaskedLM(load_encoder(), counts).bias[2_000].exp().item() == pytest.approx(100)


# The shipped student


def test_its_embeddings_are_the_encoders_and_its_layers_are_its_own(student):
    copied = student_from_teacher(load_encoder(), CUT).state_dict()
    for name, value in student.encoder.state_dict().items():
        is_shared = name.startswith(("embeddings.", "pooler."))
        is_matrix = value.dim() == 2
        assert not is_shared or torch.equal(value, copied[name])
        assert is_shared or not is_matrix or not torch.equal(value, copied[name])
    assert not student.training and student.config.num_hidden_layers == len(CUT)
    assert CARD["layers_of_the_encoder"] == list(CUT)


def test_it_names_hidden_words_far_better_than_a_copy(student, sentences):
    tokens, places = hidden_words(sentences, seed=2)
    copied = MaskedLM(student_from_teacher(load_encoder(), CUT)).eval()
    copied.load_state_dict(
        {k: v for k, v in student.state_dict().items() if "encoder." not in k}, strict=False
    )
    with torch.no_grad():
        nats, of_copy = (
            torch.nn.functional.cross_entropy(m(tokens, places)[1], sentences[places]).item()
            for m in (student, copied)
        )
    told = CARD["dev_perplexity"]["student"]
    assert 0.6 * told < 2.718281828**nats < 1.6 * told  # of other places, in a part of dev
    assert nats < of_copy - 0.5


def test_it_is_small():
    files = [path for path in FOLDER.iterdir() if path.suffix == ".safetensors"]
    assert sum(path.stat().st_size for path in files) < 6e6
    weights = load_file(files[0])
    matrices = [value for name, value in weights.items() if name + masked_words.SCALE in weights]
    assert len(matrices) == 3 * 6 and all(value.dtype == torch.int8 for value in matrices)
    assert max(value.abs().max() for value in matrices) == masked_words.LEVELS
    assert CARD["parameters"] == 3 * 1_774_464 + 384 * 384 + 3 * 384 + 30_522


@pytest.mark.parametrize("damage", [remove, truncate, alter])
def test_damaged_weights_are_refused(damage, tmp_path, monkeypatch):
    shutil.copytree(FOLDER, tmp_path / "data" / "student")
    monkeypatch.setattr(masked_words, "data_dir", lambda: tmp_path / "data")
    damage(tmp_path / "data" / "student" / "student.safetensors")
    with pytest.raises(DataFileError, match=r"student\.safetensors: expected a file with SHA-256"):
        load_pretrained_student()
    (tmp_path / "data" / "student" / "card.json").write_text("{}")
    with pytest.raises(DataFileError, match=r"card\.json: expected a card with the SHA-256 of the weights"):
        load_pretrained_student()


# Packing


def test_packing_rounds_what_training_changed_and_keeps_the_rest():
    generator = torch.Generator().manual_seed(0)
    copied = {
        "encoder.embeddings.word": torch.randn(5, 4, generator=generator),
        "encoder.layer.weight": torch.randn(6, 8, generator=generator),
        "encoder.layer.bias": torch.randn(6, generator=generator),
        "transform.weight": torch.randn(3, 3, generator=generator),
    }
    trained = {
        name: value + 0.1 * torch.randn(value.shape, generator=generator) for name, value in copied.items()
    }
    kept = packed(trained, copied)
    assert "encoder.embeddings.word" not in kept and kept["transform.weight"].dtype == torch.float16
    state = unpacked(kept, copied)
    assert torch.equal(state["encoder.embeddings.word"], copied["encoder.embeddings.word"])
    change = trained["encoder.layer.weight"] - copied["encoder.layer.weight"]
    step = change.abs().amax(dim=1, keepdim=True) / masked_words.LEVELS
    off = (state["encoder.layer.weight"] - trained["encoder.layer.weight"]).abs()
    assert (off <= 0.5 * step + 1e-6).all()
    for name in ("encoder.layer.bias", "transform.weight"):
        torch.testing.assert_close(state[name], trained[name], atol=2e-3, rtol=2e-3)


def test_what_did_not_change_comes_back_as_it_was():
    copied = {"encoder.layer.weight": torch.randn(3, 4)}
    assert torch.equal(
        unpacked(packed(copied, copied), copied)["encoder.layer.weight"], copied["encoder.layer.weight"]
    )
