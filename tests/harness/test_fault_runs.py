"""The runs under faults are kept, asked for again after a change, and no fault goes by unnoticed."""

import re

import fault_runs
import faults
import pytest
from nbformat.v4 import new_code_cell, new_notebook
from notebook_files import CHAPTERS, ROOT, write

CELL = """
import torch
from kdutils.check import check
from kdutils.losses.response import kd_loss
student, teacher = torch.zeros(4, 3), torch.eye(4, 3)
check("there is something to learn, nats", kd_loss(student, teacher, 2.0), above=0.01)
check("four is four", 4, equals=4)
"""
SEALED = "no network, no disk"


@pytest.fixture
def notebook(tmp_path):
    return write(new_notebook(cells=[new_code_cell(CELL)]), tmp_path / "01_small.ipynb")


def test_a_run_keeps_every_claim_and_whether_the_fault_was_reached(notebook, tmp_path):
    fault_runs.run_missing([notebook], ["kd_loss zeroed", "classes permuted"], tmp_path / "kept")
    runs = fault_runs.kept_runs(notebook, tmp_path / "kept")
    broken = {"there is something to learn, nats": False, "four is four": True}
    values = {"there is something to learn, nats": 0.0, "four is four": 4.0}
    assert runs["kd_loss zeroed"] == faults.Outcome(broken, reached=True, values=values)
    # it names no teacher: not run
    assert runs["classes permuted"] == faults.Outcome({}, reached=False, values={})
    assert fault_runs.as_table({"01": runs}).loc["01", ["kd_loss zeroed", "classes permuted"]].tolist() == [
        "1/2",
        "–",
    ]


def test_only_missing_runs_are_made(notebook, tmp_path, monkeypatch):
    asked = []

    def outcome_under(notebook, fault):
        asked.append(fault)
        return faults.Outcome({"a claim": fault == SEALED}, True, {})

    monkeypatch.setattr(faults, "outcome_under", outcome_under)
    fault_runs.run_missing([notebook], [SEALED, "losses zeroed"], tmp_path)
    assert sorted(asked) == ["losses zeroed", SEALED]
    fault_runs.run_missing([notebook], [SEALED, "losses zeroed", "T² dropped"], tmp_path)
    assert asked[2:] == ["T² dropped"] and len(fault_runs.kept_runs(notebook, tmp_path)) == 3
    rewritten(notebook, CELL + "1\n")
    assert fault_runs.kept_runs(notebook, tmp_path) == {}
    fault_runs.run_missing([notebook], [SEALED], tmp_path)
    assert asked[3:] == [SEALED] and list(fault_runs.kept_runs(notebook, tmp_path)) == [SEALED]


def rewritten(notebook, cell):
    write(new_notebook(cells=[new_code_cell(cell)]), notebook)


def test_a_bound_that_is_moved_is_held_against_the_value_on_file(notebook, tmp_path):
    fault_runs.run_missing([notebook], ["two threads"], tmp_path)
    learned = fault_runs.kept_runs(notebook, tmp_path)["two threads"].values[
        "there is something to learn, nats"
    ]
    assert 0.01 < learned < 0.5
    for bound, held in [("above=0.01, below=0.5", True), ("above=0.5", False), ("below=-0.5", False)]:
        rewritten(notebook, "# moved\n" + CELL.replace("above=0.01", bound))
        claims = fault_runs.kept_runs(notebook, tmp_path)["two threads"].claims
        assert claims == {"there is something to learn, nats": held, "four is four": True}


@pytest.mark.parametrize(
    "old, new",
    [
        ("torch.eye(4, 3)", "torch.ones(4, 3)"),
        ("above=0.01", "above=0.02 / 2"),  # computed: what it comes to is not known without a run
        ('"four is four"', '"four is 4"'),
        ("equals=4)", "equals=4)\ncheck('five is five', 5, equals=5)"),
    ],
)
def test_any_other_change_asks_for_a_run(notebook, tmp_path, old, new):
    fault_runs.run_missing([notebook], ["two threads"], tmp_path)
    rewritten(notebook, CELL.replace(old, new))
    assert fault_runs.kept_runs(notebook, tmp_path) == {}


def test_bounds_are_found_for_claims_with_gaps_and_not_where_they_are_computed(notebook, tmp_path):
    cell = """
from kdutils.check import check
for name, lead in (("one", 1.0), ("two", 2.0)):
    check(f"lead of {name}, points", lead, above=0.5)
check("lead of all, points", 0.1, above=0)
check("half", 0.5, equals=1 / 2)
for _ in range(2):
    check("again", _, above=-1)
"""
    rewritten(notebook, cell)
    fault_runs.run_missing([notebook], ["two threads"], tmp_path)
    rewritten(notebook, cell.replace("above=0.5", "above=1.5").replace("above=-1", "above=0.5"))
    run = fault_runs.kept_runs(notebook, tmp_path)["two threads"]
    assert run.values == {"lead of one, points": 1.0, "lead of two, points": 2.0, "lead of all, points": 0.1}
    assert run.claims == {
        "lead of one, points": False,
        "lead of two, points": True,
        "lead of all, points": True,  # the claim without gaps comes first
        "half": True,
        "again": True,  # two values, of which none is kept
    }


def test_an_interrupt_between_two_runs_leaves_the_first_on_file(notebook, tmp_path, monkeypatch):
    def outcome_under(notebook, fault):
        if fault == "losses zeroed":
            raise KeyboardInterrupt
        return faults.Outcome({"a claim": True}, True, {})

    monkeypatch.setattr(faults, "outcome_under", outcome_under)
    fault_runs.run_missing([notebook], [SEALED], tmp_path)
    with pytest.raises(KeyboardInterrupt):
        fault_runs.run_missing([notebook], [SEALED, "losses zeroed"], tmp_path)
    assert list(fault_runs.kept_runs(notebook, tmp_path)) == [SEALED]


def test_a_claim_asked_for_without_a_run_says_how_to_make_it(notebook):
    with pytest.raises(fault_runs.NoRun, match="make fault_runs NB="):
        fault_runs.claims_under(notebook, SEALED)


def test_misses_dashes_and_gaps_are_told_apart():
    claims = {"a": True, "b": True}
    outcomes = {"losses zeroed": True, "T² dropped": False, SEALED: False}
    runs = {fault: faults.Outcome(claims, reached, {}) for fault, reached in outcomes.items()}
    table = fault_runs.as_table({"01_small": runs})
    names = ["losses zeroed", "T² dropped", SEALED, "two threads"]
    assert table.loc["01_small", names].tolist() == ["0/2", "–", "0/2", ""]
    assert "| losses zeroed | 0/2 |" in fault_runs.as_markdown(table)


def test_every_fault_and_condition_stands_in_one_section_of_the_table():
    names = [name for _, rows in fault_runs.SECTIONS.values() for name in rows]
    assert sorted(names) == sorted([*faults.FAULTS, *faults.SOUND])


def test_the_table_on_file_is_that_of_the_runs_on_file():
    assert fault_runs.TABLE.read_text() == fault_runs.whole_table()


# Where nothing that is claimed rests on what the fault takes away; the table says why.
NOT_CLAIMED = {("03_relation_knowledge", "classes permuted"), ("05_online_distillation", "kd_loss zeroed")}


@pytest.mark.parametrize("chapter", CHAPTERS, ids=lambda chapter: chapter.stem)
def test_no_spoiled_teacher_goes_by_unnoticed(chapter):
    runs = fault_runs.kept_runs(chapter)
    claimed = [name for name in faults.TAUGHT_NOTHING if (chapter.stem, name) not in NOT_CLAIMED]
    spoiled = {name: runs[name] for name in claimed if name in runs and runs[name].reached}
    assert spoiled, f"{chapter.stem}: make fault_runs NB={chapter}"
    assert [name for name, outcome in spoiled.items() if all(outcome.claims.values())] == []


@pytest.mark.parametrize("chapter", CHAPTERS, ids=lambda chapter: chapter.stem)
def test_no_claim_fails_where_nothing_is_wrong(chapter):
    runs = {name: run for name, run in fault_runs.kept_runs(chapter).items() if name in faults.SOUND}
    alarms = {name: [c for c, holds in run.claims.items() if not holds] for name, run in runs.items()}
    assert all(failed == [] for failed in alarms.values()), alarms


def test_the_weekly_workflow_runs_every_chapter():
    workflow = (ROOT / ".github" / "workflows" / "mutants.yml").read_text()
    assert re.findall(r'"(\d\d)"', workflow) == [chapter.stem[:2] for chapter in CHAPTERS]


def test_a_run_made_now_gives_the_outcome_on_file():
    chapter = CHAPTERS[0]
    now, kept = (
        {claim: holds for claim, holds in claims.items() if "latency" not in claim}  # that of a busy machine
        for claims in (
            faults.outcome_under(chapter, "kd_loss zeroed").claims,
            fault_runs.claims_under(chapter, "kd_loss zeroed"),
        )
    )
    assert now == kept and not all(now.values())
