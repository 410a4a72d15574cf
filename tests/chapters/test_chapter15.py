"""Chapter 15: what it writes out equals library and model; its drawings; the slips of its exercises."""

import copy

import matplotlib
import matplotlib.pyplot as plt
import pytest
import torch
from matplotlib.colors import to_hex
from matplotlib.patches import FancyArrowPatch, FancyBboxPatch
from notebook_code import definition, verdict
from notebook_files import ROOT

from kdutils.course import drawings
from kdutils.course.drawings import STUDENT, TEACHER
from kdutils.course.exercises import chapter15 as exercises
from kdutils.course.smollm import reader
from kdutils.losses import sparse_kd_loss

transformers = pytest.importorskip("transformers")

NOTEBOOK = ROOT / "notebooks" / "15_case_study_smollm.ipynb"
CUT = 2


def small_llama(depth=8):
    torch.manual_seed(0)
    config = transformers.LlamaConfig(
        hidden_size=32, intermediate_size=64, num_hidden_layers=depth, num_attention_heads=4,
        num_key_value_heads=2, vocab_size=90, tie_word_embeddings=True, initializer_range=0.2,
    )  # fmt: skip
    return transformers.LlamaForCausalLM(config).eval().requires_grad_(False)


@pytest.fixture(scope="module")
def model():
    return small_llama()


@pytest.fixture(scope="module")
def written():
    """The notebook's functions by name, each with those that it uses."""
    import math

    names = {"math": math, "copy": copy, "CUT": CUT, "sparse_kd_loss": sparse_kd_loss, "SLICE": 4}
    for name in (
        "through", "logits_of", "perplexity", "stored_answers", "apart", "from_labels", "from_teacher",
        "from_shuffled", "cut_open", "healed", "judged_on", "assembled",
    ):  # fmt: skip
        names[name] = definition(NOTEBOOK, name, **names)
    return names


def rows(count=4, length=12, seed=0):
    return torch.randint(90, (count, length), generator=torch.Generator().manual_seed(seed))


# What the notebook writes out equals the library and the model


def test_going_through_all_layers_is_the_model(model, written):
    tokens = rows()
    with torch.no_grad():
        stream = written["through"](model, model.model.layers, model.model.embed_tokens(tokens))
        assert torch.equal(written["logits_of"](model, stream), model(tokens).logits)


def test_perplexity_is_that_of_the_models_own_loss(model, written):
    tokens = rows()
    found = written["perplexity"](model, model.model.embed_tokens(tokens), tokens, model.model.layers)
    with torch.no_grad():
        loss = model(tokens, labels=tokens).loss
    assert found == pytest.approx(loss.exp().item(), rel=1e-4)


def test_what_is_stored_are_the_stream_and_the_likeliest_tokens(model, written):
    tokens = rows()
    read, below, ids, log_probs = written["stored_answers"](model, tokens, 3, k=7)
    with torch.no_grad():
        answers = model(tokens, output_hidden_states=True)
    assert torch.equal(read, tokens) and ids.shape == (4, 12, 7)
    torch.testing.assert_close(below, answers.hidden_states[3], rtol=1e-4, atol=1e-4)
    best = answers.logits.log_softmax(dim=-1).topk(7)
    torch.testing.assert_close(log_probs, best.values, rtol=1e-4, atol=1e-4)


def test_nats_apart_are_those_of_the_librarys_loss(written):
    student, teacher = torch.randn(2, 3, 5, 40, generator=torch.Generator().manual_seed(1))
    log_probs, ids = teacher.log_softmax(dim=-1).topk(6)
    library = sparse_kd_loss(student, ids, log_probs)
    torch.testing.assert_close(written["apart"](student, ids, log_probs).mean(), library)
    torch.testing.assert_close(written["from_teacher"](student, None, ids, log_probs), library)


def test_shuffled_answers_are_answers_to_other_places(written):
    logits = torch.randn(1, 30, 40, generator=torch.Generator().manual_seed(1))
    log_probs, ids = logits.log_softmax(dim=-1).topk(6)
    tokens = rows(1, 30)
    assert written["from_teacher"](logits, tokens, ids, log_probs) < 1e-6
    assert written["from_shuffled"](logits, tokens, ids, log_probs) > 0.5


def test_only_the_layers_above_the_cut_train_and_distilling_brings_them_nearer(model, written):
    before = copy.deepcopy(model.state_dict())
    data = written["stored_answers"](model, rows(32), 3, k=16)
    above = written["healed"](model, 3, data, written["from_teacher"], 3e-3, seed=0)
    assert len(above) == 8 - 3 - CUT
    assert [any(p.requires_grad for p in layer.parameters()) for layer in above] == [True] * 3
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    test = written["stored_answers"](model, rows(8, seed=9), 3, k=16)
    nats = [written["judged_on"](model, layers, test)[1] for layers in (model.model.layers[3 + CUT :], above)]
    assert nats[1] < nats[0]


def test_layers_beyond_those_that_train_are_the_models_own(model, written):
    above = written["cut_open"](model, 1, num_trained=2)
    assert [layer is own for layer, own in zip(above, model.model.layers[1 + CUT :], strict=True)] == [
        False, False, True, True, True,
    ]  # fmt: skip


def test_the_whole_model_is_no_nats_from_itself(model, written):
    data = written["stored_answers"](model, rows(), 3, k=16)
    perplexity, nats = written["judged_on"](model, model.model.layers[3:], data)
    assert nats == pytest.approx(0, abs=1e-5)
    below = data[1]
    assert perplexity == pytest.approx(
        written["perplexity"](model, below, data[0], model.model.layers[3:]), rel=1e-5
    )


def test_an_assembled_model_shares_tensors_and_writes_with_a_cache(model, written):
    above = written["cut_open"](model, 3)
    student = written["assembled"](model, 3, above)
    assert len(student.model.layers) == 6 and student.config.num_hidden_layers == 6
    assert len(model.model.layers) == 8 and model.config.num_hidden_layers == 8
    assert [layer.self_attn.layer_idx for layer in student.model.layers] == list(range(6))
    assert [layer.self_attn.layer_idx for layer in model.model.layers] == list(range(8))
    shared = {id(parameter) for parameter in [*model.parameters(), *above[0].parameters()]}
    assert {id(parameter) for parameter in student.model.layers[3].parameters()} <= shared
    assert student.lm_head.weight is model.lm_head.weight
    tokens = rows(1)
    with torch.no_grad():
        stream = written["through"](
            model, [*model.model.layers[:3], *above], model.model.embed_tokens(tokens)
        )
        expected = written["logits_of"](model, stream)
        torch.testing.assert_close(student(tokens).logits, expected)
        cache = transformers.DynamicCache()
        read = reader(student)
        first, rest = read(tokens[:, :5], cache), read(tokens[:, 5:], cache)
    torch.testing.assert_close(torch.cat([first, rest], dim=1), expected, rtol=1e-4, atol=1e-4)


def test_the_case_study_runs_on_another_model(written):
    import pandas

    case_study = definition(NOTEBOOK, "case_study", pd=pandas, **written)
    rates = {"labels only": 1e-3, "distilled": 1e-3}
    first, table = case_study(small_llama(9), rows(20), rows(12, seed=3), rates)
    assert 0 <= first < 9 - CUT - 3
    assert list(table.index) == ["cut", "whole", "labels only", "distilled"]
    assert table.loc["whole", "nats, text"] == pytest.approx(0, abs=1e-5)
    assert (table.loc["cut"] > 0).all()


# Drawings


@pytest.fixture
def drawn():
    matplotlib.use("agg")
    yield lambda draw: draw()
    plt.close("all")


def arrows_of(ax):
    return [patch for patch in ax.patches if type(patch) is FancyArrowPatch]


def test_one_layer_adds_nothing_and_what_lies_above_is_computed_again(drawn):
    ax = drawn(drawings.layer_left_out)
    said = [text.get_text() for text in ax.texts]
    assert said.count("+") == 4 and said.count("adds nothing") == 1
    assert {f"layer {number}" for number in range(18, 23)} <= set(said)
    assert {"stored from the first pass", "computed again"} <= set(said)


def test_three_layers_train_and_the_rest_is_frozen(drawn):
    ax = drawn(lambda: drawings.heal_around_the_cut(10, 8))
    frames = [patch for patch in ax.patches if type(patch) is FancyBboxPatch]
    styles = [(to_hex(frame.get_edgecolor()), frame.get_linestyle()) for frame in frames]
    assert sorted(styles) == sorted([(TEACHER, "--")] * 3 + [(STUDENT, "-")])
    said = {text.get_text() for text in ax.texts}
    assert {"0 to 9", "10 to 17", "18 to 20", "21 to 29", "whole model, 30 layers", "removed", "KL"} <= said
    assert len([arrow for arrow in arrows_of(ax) if arrow.get_linestyle() != "-"]) == 1


@pytest.mark.parametrize("draw", [drawings.layer_left_out, drawings.heal_around_the_cut])
def test_every_arrow_ends_within_the_sheet(drawn, draw):
    ax = drawn(draw)
    (x0, x1), (y0, y1) = ax.get_xlim(), ax.get_ylim()
    for arrow in arrows_of(ax):
        assert all(x0 <= x <= x1 and y0 <= y <= y1 for x, y in arrow._posA_posB)


# Exercises


@pytest.mark.parametrize(
    ("answer", "said"),
    [
        (23.5, "passed"),
        (23.53, "passed"),
        (25, "the vocabulary was forgotten"),
        (22.2, "the table counts once"),
        (0.2353, "not a percentage"),
        (76.5, "what is left"),
        (15.8, "the small model's share"),
        (30, "too high"),
        ("a quarter", "expected a number"),
        (..., "not attempted"),
    ],
)
def test_share_saved(capsys, answer, said):
    assert said in verdict(capsys, exercises.share_saved, answer)


def mask(tokens, first, behind):
    place = torch.arange(tokens.shape[1])
    return (place >= first[:, None]) & (place < behind[:, None])


def everything(tokens):
    return torch.full((len(tokens),), tokens.shape[1])


MASKS = {
    "passed": lambda tokens, prompts, lengths, end: mask(tokens, prompts, lengths),
    "found by its number": lambda tokens, prompts, lengths, end: (
        mask(tokens, prompts, everything(tokens)) & (tokens != end)
    ),
    "the end of each text is missing": lambda tokens, prompts, lengths, end: mask(
        tokens, prompts, lengths - 1
    ),
    "padding is learned": lambda tokens, prompts, lengths, end: mask(tokens, prompts, everything(tokens)),
    "prompts are learned, too": lambda tokens, prompts, lengths, end: mask(tokens, 0 * prompts, lengths),
    "the prompt's last token counts": lambda tokens, prompts, lengths, end: mask(
        tokens, prompts - 1, lengths
    ),
    "turned round": lambda tokens, prompts, lengths, end: ~mask(tokens, prompts, lengths),
}


@pytest.mark.parametrize("said", MASKS)
def test_learned_tokens(capsys, said):
    assert said in verdict(capsys, exercises.learned_tokens, MASKS[said])


def test_a_mask_of_another_shape_or_an_error_is_answered(capsys):
    assert verdict(capsys, exercises.learned_tokens, lambda *case: 1 / 0).startswith("✗ not yet")
    assert verdict(capsys, exercises.learned_tokens, lambda *case: case[0]).startswith("✗ not yet")
    assert "not attempted" in verdict(capsys, exercises.learned_tokens, lambda *case: ...)


FOUND = {"removed": 2, "cut": 0.8, "labels": 0.5, "distilled": 0.3}


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({}, "passed: distilling took back 62% of the distance, labels 38%: as here"),
        ({"distilled": 0.6}, "the labels came nearer than the teacher's own answers"),
        ({"labels": 0.9}, "labels -12%: as here"),
        ({"distilled": 0.8}, "no less than 0.800 before"),
        ({"removed": 0}, "1 or more, got 0"),
        ({"removed": 1.5}, "1 or more, got 1.5"),
        ({"cut": -0.1}, "0 or more"),
        ({"labels": "few"}, "0 or more"),
        ({"distilled": float("nan")}, "0 or more"),
    ],
)
def test_own_cut(capsys, change, said):
    assert said in verdict(capsys, exercises.own_cut, FOUND | change)


@pytest.mark.parametrize("answer", [3, {"removed": 2}, FOUND | {"more": 1}])
def test_another_thing_than_the_four_numbers_is_answered(capsys, answer):
    assert "expected a dict with the keys" in verdict(capsys, exercises.own_cut, answer)


def test_nothing_handed_in(capsys):
    assert "not attempted" in verdict(capsys, exercises.own_cut, ...)
