"""Chapter 12: what the notebook writes out equals the library; its exercises name the usual slips."""

from types import SimpleNamespace

import pytest
import torch
import torch.nn.functional as F
import transformers
from notebook_code import assert_same_loss, definition, verdict
from notebook_files import ROOT

from kdutils.course.exercises import chapter12 as exercises
from kdutils.losses import hidden_cosine_loss, kd_loss

NOTEBOOK = ROOT / "notebooks" / "12_distilbert_case_study.ipynb"

# What the notebook writes out equals the library

GENERATOR = torch.Generator().manual_seed(0)
MASK = torch.tensor([[1, 1, 1, 0, 0], [1, 1, 1, 1, 1], [1, 0, 0, 0, 0]])
CASES = [
    (*(3 * torch.randn(2, 3, 5, 7, generator=GENERATOR, dtype=torch.float64)), mask)
    for mask in (MASK, torch.ones_like(MASK), MASK.bool())
]


def test_hidden_cosine_loss_equals_its_rung():
    assert_same_loss(hidden_cosine_loss, definition(NOTEBOOK, "hidden_cosine"), CASES)


def test_kd_loss_with_a_mask_equals_its_rung():
    for temperature in (1.0, 2.0, 5.0):
        assert_same_loss(
            kd_loss, definition(NOTEBOOK, "token_kd", kd_loss=kd_loss), CASES, temperature=temperature
        )


def test_rungs_send_no_gradient_to_the_teacher():
    for name in ("hidden_cosine", "token_kd"):
        student, teacher, mask = (t.clone() for t in CASES[0])
        student.requires_grad_(), teacher.requires_grad_()
        definition(NOTEBOOK, name, kd_loss=kd_loss)(student, teacher, mask).backward()
        assert teacher.grad is None and student.grad.abs().max() > 0


# The inside of a layer


@pytest.fixture(scope="module")
def small_bert():
    config = transformers.BertConfig(
        num_hidden_layers=2, hidden_size=24, num_attention_heads=3, intermediate_size=16, vocab_size=50
    )
    torch.manual_seed(0)
    model = transformers.BertModel(config).eval()
    model.set_attn_implementation("eager")
    return SimpleNamespace(encoder=model, config=config)


def test_scores_are_those_that_the_layers_attention_is_the_softmax_of(small_bert):
    tokens = torch.tensor([[3, 4, 5, 6], [7, 8, 9, 10]])
    with torch.no_grad():
        inside = small_bert.encoder(tokens, output_hidden_states=True, output_attentions=True)
        for layer in range(2):
            scores, values = definition(NOTEBOOK, "scores_and_values")(
                small_bert, layer, inside.hidden_states[layer]
            )
            torch.testing.assert_close(scores.softmax(dim=3), inside.attentions[layer])
            attention = small_bert.encoder.encoder.layer[layer].attention
            mixed = (inside.attentions[layer] @ values).transpose(1, 2).flatten(2)
            out = attention.output(mixed, inside.hidden_states[layer])
            torch.testing.assert_close(out, attention(inside.hidden_states[layer])[0])


def test_a_pooled_state_is_the_mean_of_the_kept_ones():
    states, kept = torch.randn(2, 3, 4), torch.tensor([[1, 1, 0], [1, 0, 0]])
    found = definition(NOTEBOOK, "pooled")(states, kept)
    torch.testing.assert_close(found, torch.stack([states[0, :2].mean(dim=0), states[1, 0]]))


# Exercises


def right(s, t, mask):
    return F.mse_loss(s[mask == 1], t.detach()[mask == 1])


SLIPS = {
    "padding counts, too": lambda s, t, mask: F.mse_loss(s, t.detach()),
    "also runs over the padding": lambda s, t, mask: F.mse_loss(
        s * mask.unsqueeze(2), t.detach() * mask.unsqueeze(2)
    ),
    "added up over the width": lambda s, t, mask: right(s, t, mask) * s.shape[2],
    "kept tokens are not averaged": lambda s, t, mask: right(s, t, mask) * mask.sum(),
    "every sentence weighs the same": lambda s, t, mask: torch.stack(
        [right(s[n : n + 1], t[n : n + 1], mask[n : n + 1]) for n in range(len(s))]
    ).mean(),
    "the words were left out": lambda s, t, mask: right(s, t, 1 - mask),
    "the teacher learns": lambda s, t, mask: F.mse_loss(s[mask == 1], t[mask == 1]),
}


@pytest.mark.parametrize("name", SLIPS)
def test_slip_in_hidden_mse_is_named(capsys, name):
    said = verdict(capsys, exercises.hidden_mse, SLIPS[name])
    assert said.startswith("✗ not yet") and name in said


@pytest.mark.parametrize(
    ("attempt", "said"),
    [
        (100 * (302.3 / 2) / 335.1, "the pooler stayed"),
        (50.15, "halved, too"),
        (54.6, "what is left"),
        (50, "only the layers"),
        (0.454, "a fraction"),
        (40, "too low"),
    ],
)
def test_slip_in_the_larger_bert_is_named(capsys, attempt, said):
    answer = verdict(capsys, exercises.saved_of_large, attempt)
    assert answer.startswith("✗ not yet") and said in answer


KEPT = {
    "the retention itself": lambda kept, teacher, classes: kept,
    "the student only": lambda kept, teacher, classes: kept - 100 * (100 / classes) / teacher,
    "off the retention": lambda kept, teacher, classes: (
        100 * (kept - 100 / classes) / (teacher - 100 / classes)
    ),
    "any number of classes": lambda kept, teacher, classes: (
        100 * (kept * teacher / 100 - 50) / (teacher - 50)
    ),
    "the part lost": lambda kept, teacher, classes: 100 - twin(kept, teacher, classes),
    "percent were asked for": lambda kept, teacher, classes: twin(kept, teacher, classes) / 100,
}


def twin(kept, teacher, classes):
    chance = 100 / classes
    return 100 * (kept * teacher / 100 - chance) / (teacher - chance)


@pytest.mark.parametrize("name", KEPT)
def test_slip_in_what_is_kept_above_chance_is_named(capsys, name):
    said = verdict(capsys, exercises.kept_above_chance, KEPT[name])
    assert said.startswith("✗ not yet") and name in said


def test_the_twin_passes_also_as_a_plain_number(capsys):
    assert verdict(capsys, exercises.kept_above_chance, lambda *case: float(twin(*case))) == "✓ passed"
