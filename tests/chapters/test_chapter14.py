"""Chapter 14: what it writes out equals the library; its drawings; the slips of its exercises."""

import matplotlib
import matplotlib.pyplot as plt
import pytest
import torch
from matplotlib.colors import to_hex
from matplotlib.patches import FancyArrowPatch, FancyBboxPatch
from notebook_code import definition, verdict
from notebook_files import ROOT

from kdutils.course import arithmetic, drawings
from kdutils.course import pronunciation as pron
from kdutils.course.drawings import STUDENT, TEACHER
from kdutils.course.exercises import chapter14 as exercises
from kdutils.losses import kd_loss, next_token, policy_gradient_kd_loss, reverse_kl_loss

NOTEBOOK = ROOT / "notebooks" / "14_on_policy.ipynb"
START = pron.PROMPT_LENGTH - 1

# What the notebook writes out equals the library


def notebooks_helpers():
    of_answer = definition(NOTEBOOK, "of_answer", next_token=next_token, START=START)
    return of_answer, definition(NOTEBOOK, "answer_mask", pron=pron)


def test_the_mask_is_that_of_the_dictionarys_texts():
    tokens, is_learned = pron.spelled_texts(pron.part_of(pron.pronouncing_dictionary().test, 0, 50))
    _, answer_mask = notebooks_helpers()
    assert torch.equal(answer_mask(tokens), is_learned)


def test_the_distance_at_each_position_averages_to_the_forward_kl():
    of_answer, answer_mask = notebooks_helpers()
    tokens, _ = pron.spelled_texts(pron.part_of(pron.pronouncing_dictionary().test, 0, 20))
    student, teacher = pron.speller(1, depth=1, width=16, std=0.3), pron.speller(2, 1, 16, std=0.3)
    apart = definition(NOTEBOOK, "apart", of_answer=of_answer, answer_mask=answer_mask, teacher=teacher)
    at_each, counts = apart(student, tokens)
    with torch.no_grad():
        rows = (of_answer(model, tokens, answer_mask(tokens))[0] for model in (student, teacher))
        library = kd_loss(*rows, counts, temperature=1.0)
    torch.testing.assert_close(at_each[counts].mean(), library)


def one_position():
    q_logits = torch.tensor([0.3, -1.0, 1.2], dtype=torch.float64, requires_grad=True)
    log_p = torch.tensor([1.0, 0.0, -0.5], dtype=torch.float64).log_softmax(dim=-1)
    names = {"q_logits": q_logits, "log_p": log_p, "log_q": lambda: q_logits.log_softmax(dim=-1)}
    names["log_ratio"] = definition(NOTEBOOK, "log_ratio", **names)
    return names


def test_the_score_function_has_the_reverse_kls_gradient_and_the_log_ratio_none():
    names = one_position()
    mean_gradient = definition(NOTEBOOK, "mean_gradient", **names)
    q_logits, rows = names["q_logits"], (names["q_logits"][None], names["log_p"][None])
    exact = torch.autograd.grad(reverse_kl_loss(*rows), q_logits)[0]
    torch.testing.assert_close(mean_gradient(definition(NOTEBOOK, "score_function", **names)), exact)
    assert mean_gradient(names["log_ratio"]).abs().max() < 1e-12
    library = mean_gradient(
        lambda y: policy_gradient_kd_loss(q_logits[None, None], rows[1][None], torch.tensor([[y]]))
    )
    torch.testing.assert_close(library, exact)


def test_gradients_of_all_parameters_stand_in_one_row():
    gradient = definition(NOTEBOOK, "gradient")
    model = torch.nn.Linear(2, 1)
    loss = model(torch.tensor([[3.0, 4.0]])).sum()
    assert gradient(loss, model).tolist() == [3.0, 4.0, 1.0]
    assert gradient(2 * loss, model).tolist() == [6.0, 8.0, 2.0]  # the graph is still there


def test_a_text_is_marked_by_the_reverse_kl_and_the_teacher_does_not_learn():
    prompt = arithmetic.prompt_length(3)
    answer_of = definition(NOTEBOOK, "answer_of", next_token=next_token, PROMPT=prompt)
    names = {"answer_of": answer_of, "reverse_kl_loss": reverse_kl_loss}
    student, teacher = (torch.nn.Embedding(arithmetic.VOCABULARY, arithmetic.VOCABULARY) for _ in range(2))
    tokens, is_learned = arithmetic.sum_texts(arithmetic.random_sums(5, 3, seed=0), 3)
    loss = definition(NOTEBOOK, "marked_by", **names)(teacher)(student, tokens, is_learned)
    counts = is_learned[:, 1:]
    rows = (model(tokens[:, :-1])[counts] for model in (student, teacher))
    torch.testing.assert_close(loss, reverse_kl_loss(*rows))
    loss.backward()
    assert student.weight.grad.abs().sum() > 0 and teacher.weight.grad is None


@pytest.mark.parametrize(("acceptance", "drafted"), [(0.0, 3), (0.5, 1), (0.8, 4), (0.95, 7)])
def test_tokens_a_call_is_the_sum_over_how_many_were_accepted(acceptance, drafted):
    tokens_a_call = definition(NOTEBOOK, "tokens_a_call")
    by_hand = sum(
        (accepted + 1) * acceptance**accepted * (1 - acceptance if accepted < drafted else 1)
        for accepted in range(drafted + 1)
    )
    assert tokens_a_call(acceptance, drafted) == pytest.approx(by_hand)


# Drawings


@pytest.fixture
def drawn():
    matplotlib.use("agg")
    yield lambda draw: draw()
    plt.close("all")


def arrows_of(ax):
    return [patch for patch in ax.patches if type(patch) is FancyArrowPatch]


def test_the_student_writes_and_is_trained_the_teacher_marks_and_is_not(drawn):
    ax = drawn(drawings.student_writes_teacher_marks)
    frames = [patch for patch in ax.patches if type(patch) is FancyBboxPatch]
    assert {to_hex(f.get_edgecolor()): f.get_linestyle() for f in frames} == {TEACHER: "--", STUDENT: "-"}
    assert {"1 · writes", "2 · marks", "3 · learns", "KL"} <= {text.get_text() for text in ax.texts}
    assert len([arrow for arrow in arrows_of(ax) if arrow.get_linestyle() != "-"]) == 1


def test_tokens_before_the_first_refusal_are_accepted_and_those_behind_it_thrown_away(drawn):
    ax = drawn(drawings.draft_and_judge)
    said = [text.get_text() for text in ax.texts]
    assert [said.count(word) for word in ("accepted", "refused", "thrown away")] == [2, 1, 1]
    assert "one call" in said and "four calls" in said


@pytest.mark.parametrize("draw", [drawings.student_writes_teacher_marks, drawings.draft_and_judge])
def test_every_arrow_ends_within_the_sheet(drawn, draw):
    ax = drawn(draw)
    (x0, x1), (y0, y1) = ax.get_xlim(), ax.get_ylim()
    for arrow in arrows_of(ax):
        assert all(x0 <= x <= x1 and y0 <= y <= y1 for x, y in arrow._posA_posB)


# Exercises


@pytest.mark.parametrize(
    ("answer", "said"),
    [
        (3.36, "passed"),
        (3.3616, "passed"),
        (2.3616, "own token was forgotten"),
        (4.2, "after a refusal"),
        (3.2, "after a refusal"),
        (2.7712, "only where all four"),
        (5, "endlessly many"),
        (4.6, "too high"),
        ("many", "expected a number"),
        (..., "not attempted"),
    ],
)
def test_tokens_brought(capsys, answer, said):
    assert said in verdict(capsys, exercises.tokens_brought, answer)


def log_ratio_of(student_logits, teacher_logits, token_ids):
    rows = range(len(token_ids))
    log_q = student_logits.log_softmax(dim=-1)[rows, token_ids]
    return log_q, log_q - teacher_logits.detach().log_softmax(dim=-1)[rows, token_ids]


def score(*case):
    log_q, ratio = log_ratio_of(*case)
    return (ratio.detach() * log_q).mean()


def rewarded_twice(*case):
    log_q, ratio = log_ratio_of(*case)
    return (ratio * log_q).mean()


def weighed(*case):
    log_q, ratio = log_ratio_of(*case)
    return (log_q.exp().detach() * ratio.detach() * log_q).mean()


@pytest.mark.parametrize(
    ("attempt", "said"),
    [
        (score, "passed"),
        (lambda *case: log_ratio_of(*case)[1].mean(), "zero on average"),
        (rewarded_twice, "detach the log-ratio"),
        (lambda *case: -score(*case), "sign is turned round"),
        (lambda *case: 6 * score(*case), "take the mean"),
        (weighed, "drawing them has done already"),
        (lambda *case: ..., "not attempted"),
    ],
)
def test_score_function(capsys, attempt, said):
    assert said in verdict(capsys, exercises.score_function, attempt)


def draft(**changed):
    return {"drafted": 3, "acceptance": 0.75, "tokens": 2.1} | changed


@pytest.mark.parametrize(
    ("found", "said"),
    [
        (draft(), "passed: 2.10 tokens a call; for endless texts the formula says 2.73"),
        (draft(acceptance=0.0, tokens=1), "passed"),
        (draft(drafted=0), "1 or more"),
        (draft(drafted=2.5), "1 or more"),
        (draft(drafted="three"), "1 or more"),
        (draft(acceptance=75), "share from 0 to below 1"),
        (draft(acceptance=None), "share from 0 to below 1"),
        (draft(tokens=4.2), "from 1 to 4 tokens"),
        (draft(tokens=0.8), "from 1 to 4 tokens"),
        (draft(acceptance=0.3, tokens=2.1), "more than the 1.42 of the formula"),
        ({"drafted": 3}, "expected a dict"),
        (3, "expected a dict"),
        (..., "not attempted"),
    ],
)
def test_own_draft(capsys, found, said):
    assert said in verdict(capsys, exercises.own_draft, found)
