"""The runs under faults are kept, asked for again after a change, and no fault goes by unnoticed."""

import json
import re
import subprocess
import sys

import fault_runs
import faults
import pytest
from nbformat.v4 import new_code_cell, new_notebook
from notebook_files import CHAPTERS, ROOT, write
from weekly import weekly_runs

CELL = """
import torch
from kdutils.claim import check
from kdutils.losses import kd_loss
student, teacher = torch.zeros(4, 3), torch.eye(4, 3)
check("there is something to learn, nats", kd_loss(student, teacher, temperature=2.0), above=0.01)
check("four is four", 4, equals=4)
"""
TO_LEARN = "there is something to learn, nats"
SEALED = "no network, no disk"


@pytest.fixture
def notebook(tmp_path):
    return write(new_notebook(cells=[new_code_cell(CELL)]), tmp_path / "01_small.ipynb")


def rewritten(notebook, cell):
    write(new_notebook(cells=[new_code_cell(cell)]), notebook)


@pytest.fixture
def pretended(monkeypatch):
    """The faults that are asked for; no notebook is run."""
    asked = []

    def outcome_under(notebook, fault):
        asked.append(fault)
        return faults.Outcome({TO_LEARN: True, "four is four": True}, True, {TO_LEARN: 0.1}, seconds=90.4)

    monkeypatch.setattr(faults, "outcome_under", outcome_under)
    return asked


# What a run keeps


def test_a_run_keeps_every_claim_and_whether_the_fault_was_reached(notebook, tmp_path):
    fault_runs.run_missing([notebook], ["kd_loss zeroed", "classes permuted"], tmp_path / "kept")
    runs = fault_runs.kept_runs(notebook, tmp_path / "kept")
    zeroed = runs["kd_loss zeroed"]
    assert zeroed.outcome.claims == {TO_LEARN: False, "four is four": True}
    assert zeroed.outcome.values == {TO_LEARN: 0.0, "four is four": 4.0}
    assert zeroed.outcome.reached and 1 <= zeroed.seconds < 100
    assert re.fullmatch(r"20\d\d-\d\d-\d\d", zeroed.date)
    not_run = runs["classes permuted"].outcome  # it names no teacher
    assert not_run.claims == {} and not not_run.reached
    content = fault_runs.content_of(notebook, tmp_path / "kept")
    cells = [fault_runs.cell(notebook, content, fault) for fault in ("kd_loss zeroed", "classes permuted")]
    assert cells == ["1/2", "–"]


def test_only_missing_runs_are_made(notebook, tmp_path, pretended):
    fault_runs.run_missing([notebook], [SEALED, "losses zeroed"], tmp_path)
    assert sorted(pretended) == ["losses zeroed", SEALED]
    fault_runs.run_missing([notebook], [SEALED, "losses zeroed", "T² dropped"], tmp_path)
    assert pretended[2:] == ["T² dropped"] and len(fault_runs.kept_runs(notebook, tmp_path)) == 3


def test_an_interrupt_between_two_runs_leaves_the_first_on_file(notebook, tmp_path, pretended, monkeypatch):
    fault_runs.run_missing([notebook], [SEALED], tmp_path)

    def interrupted(notebook, fault):
        raise KeyboardInterrupt

    monkeypatch.setattr(faults, "outcome_under", interrupted)
    with pytest.raises(KeyboardInterrupt):
        fault_runs.run_missing([notebook], [SEALED, "losses zeroed"], tmp_path)
    assert list(fault_runs.kept_runs(notebook, tmp_path)) == [SEALED]


def test_a_run_of_a_notebook_that_was_changed_meanwhile_is_not_kept(notebook, tmp_path, monkeypatch):
    def outcome_under(notebook, fault):
        rewritten(notebook, CELL.replace("temperature=2.0", "temperature=3.0"))
        return faults.Outcome({TO_LEARN: True}, True, {TO_LEARN: 0.1}, seconds=1.0)

    monkeypatch.setattr(faults, "outcome_under", outcome_under)
    with pytest.raises(RuntimeError, match=r"01_small.ipynb was changed while it ran under 'losses zeroed'"):
        fault_runs.run_missing([notebook], ["losses zeroed"], tmp_path)
    assert fault_runs.kept_runs(notebook, tmp_path) == {}


# What voids it


def test_a_change_of_code_makes_earlier_runs_of_all_and_asks_for_new_ones(notebook, tmp_path, pretended):
    fault_runs.run_missing([notebook], [SEALED, "losses zeroed"], tmp_path)
    rewritten(notebook, CELL.replace("temperature=2.0", "temperature=3.0"))
    assert fault_runs.kept_runs(notebook, tmp_path) == {}
    fault_runs.run_missing([notebook], ["losses zeroed"], tmp_path)
    content = fault_runs.content_of(notebook, tmp_path)
    assert pretended[2:] == ["losses zeroed"]
    assert list(content["runs"]) == ["losses zeroed"] and list(content["earlier"]) == [SEALED]
    stars = [fault_runs.cell(notebook, content, fault) for fault in ("losses zeroed", SEALED, "two threads")]
    assert stars == ["0/2", "0/2*", ""]


def test_a_change_of_what_a_loss_computes_is_named(notebook, tmp_path, pretended, monkeypatch):
    monkeypatch.setattr(fault_runs, "FOLDER", tmp_path)
    fault_runs.run_missing([notebook], ["losses zeroed"], tmp_path)
    file = tmp_path / "01_small.json"
    content = json.loads(file.read_text())
    content["computes"]["kd_loss"][0] *= 1.01
    file.write_text(json.dumps(content))
    with pytest.raises(
        fault_runs.NoRun, match=r"something has changed: what kd_loss computes\. make faults NB="
    ):
        fault_runs.run_under(notebook, "losses zeroed", tmp_path)
    assert fault_runs.cell(notebook, content, "losses zeroed") == "0/2*"


def test_a_bound_that_is_moved_is_held_against_the_value_on_file(notebook, tmp_path):
    fault_runs.run_missing([notebook], ["two threads"], tmp_path)
    learned = fault_runs.kept_runs(notebook, tmp_path)["two threads"].outcome.values[TO_LEARN]
    assert 0.01 < learned < 0.5
    for bound, held in [("above=0.01, below=0.5", True), ("above=0.5", False), ("below=-0.5", False)]:
        rewritten(notebook, "# moved\n" + CELL.replace("above=0.01", bound))
        claims = fault_runs.kept_runs(notebook, tmp_path)["two threads"].outcome.claims
        assert claims == {TO_LEARN: held, "four is four": True}


@pytest.mark.parametrize(
    "old, new",
    [
        ("torch.eye(4, 3)", "torch.ones(4, 3)"),
        ("above=0.01", "above=0.02 / 2"),  # computed: what it comes to is not known without a run
        ('"four is four"', '"four is 4"'),
        ("equals=4)", "equals=4)\ncheck('five is five', 5, equals=5)"),
    ],
)
def test_any_other_change_asks_for_a_run(notebook, tmp_path, pretended, old, new):
    fault_runs.run_missing([notebook], ["two threads"], tmp_path)
    rewritten(notebook, CELL.replace(old, new))
    assert fault_runs.kept_runs(notebook, tmp_path) == {}


def test_bounds_are_found_for_claims_with_gaps_and_not_where_they_are_computed(notebook, tmp_path):
    cell = """
from kdutils.claim import check
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
    run = fault_runs.kept_runs(notebook, tmp_path)["two threads"].outcome
    assert run.values == {"lead of one, points": 1.0, "lead of two, points": 2.0, "lead of all, points": 0.1}
    assert run.claims == {
        "lead of one, points": False,
        "lead of two, points": True,
        "lead of all, points": True,  # the claim without gaps comes first
        "half": True,
        "again": True,  # two values, of which none is kept
    }


@pytest.mark.parametrize("fault, command", [("losses zeroed", ""), (SEALED, " ALL=1")])
def test_a_run_asked_for_that_is_not_on_file_says_how_to_make_it(notebook, fault, command):
    wanted = rf"there is no run\. make faults NB=notebooks/01_small\.ipynb{command}$"
    with pytest.raises(fault_runs.NoRun, match=wanted):
        fault_runs.claims_under(notebook, fault)


def test_a_weekly_run_that_is_missing_is_passed_over_with_a_notice_unless_all_are_asked_for(
    notebook, monkeypatch
):
    monkeypatch.delenv("FAULTS", raising=False)
    with pytest.raises(pytest.skip.Exception, match="01_small: the weekly workflow has not run"):
        weekly_runs(notebook, [SEALED])
    monkeypatch.setenv("FAULTS", "all")
    with pytest.raises(fault_runs.NoRun):
        weekly_runs(notebook, [SEALED])


# How long it takes


def test_the_forecast_knows_what_the_last_runs_took(notebook, tmp_path, pretended):
    jobs = [fault_runs.Job(notebook, fault) for fault in ("losses zeroed", "T² dropped", "classes permuted")]
    # nothing is known, and a notebook without a teacher is not run under the third
    assert fault_runs.forecast(jobs, tmp_path, cores=2) == "3 runs to make, 2 at a time: about 4 minutes."
    fault_runs.run_missing([notebook], ["losses zeroed"], tmp_path)
    assert fault_runs.forecast(jobs, tmp_path, cores=1) == "3 runs to make, 1 at a time: about 3 minutes."
    assert (
        fault_runs.forecast(100 * jobs, tmp_path, cores=2)
        == "300 runs to make, 2 at a time: about 2.5 hours."
    )


def test_the_runs_that_every_test_run_asks_for_take_at_most_ninety_minutes():
    jobs = [fault_runs.Job(chapter, f) for chapter in CHAPTERS for f in fault_runs.asked_for(chapter)]
    assert sum(map(fault_runs.seconds_of, jobs)) / 2 <= 90 * 60


def test_a_run_is_asked_for_where_a_claim_rests_on_what_it_takes_away(tmp_path):
    rests = {
        "teacher": ["losses zeroed", "classes permuted"],
        "distillation": ["losses zeroed"],
        "formula": [],
    }
    for mark, faults_asked_for in rests.items():
        cell = new_code_cell(f"check('a gain, points', gain, above=1, rests_on='{mark}')")
        notebook = write(new_notebook(cells=[cell]), tmp_path / f"01_{mark}.ipynb")
        assert fault_runs.asked_for(notebook) == faults_asked_for


# The table, and what is on file


def test_every_fault_and_condition_stands_in_one_section_of_the_table():
    names = [name for _, rows in fault_runs.SECTIONS.values() for name in rows]
    assert sorted(names) == sorted(fault_runs.EVERY)


def test_the_table_tells_of_every_notebook_how_old_its_runs_are_and_how_long_they_take(
    notebook, tmp_path, pretended
):
    fault_runs.run_missing([notebook], ["losses zeroed", "classes permuted"], tmp_path)
    file = tmp_path / "01_small.json"
    file.write_text(re.sub(r"20\d\d-\d\d-\d\d", "2020-02-20", file.read_text(), count=1))
    table = fault_runs.as_markdown([notebook], tmp_path)
    assert "| losses zeroed | 0/2 |" in table and "| *oldest run* | 2020-02-20 |" in table
    assert "| *seconds of CPU* | 90 |" in table


def test_the_table_on_file_is_that_of_the_runs_on_file():
    assert fault_runs.TABLE.read_text(encoding="utf-8") == fault_runs.whole_table(), "make faults writes it"


# Where nothing that is claimed rests on what the fault takes away; the table says why.
NOT_CLAIMED = {("03_relation_knowledge", "classes permuted"), ("05_online_distillation", "kd_loss zeroed")}
every_chapter = pytest.mark.parametrize("chapter", CHAPTERS, ids=lambda chapter: chapter.stem)


@every_chapter
def test_no_spoiled_teacher_goes_by_unnoticed(chapter):
    claimed = [name for name in faults.TAUGHT_NOTHING if (chapter.stem, name) not in NOT_CLAIMED]
    outcomes = {name: run.outcome for name, run in weekly_runs(chapter, claimed).items()}
    spoiled = {name: outcome.claims for name, outcome in outcomes.items() if outcome.reached}
    assert spoiled
    assert [name for name, claims in spoiled.items() if all(claims.values())] == []


@every_chapter
def test_no_claim_fails_where_nothing_is_wrong(chapter):
    outcomes = {name: run.outcome for name, run in weekly_runs(chapter, list(faults.SOUND)).items()}
    alarms = {name: [c for c, holds in o.claims.items() if not holds] for name, o in outcomes.items()}
    assert all(failed == [] for failed in alarms.values()), alarms


def test_the_weekly_workflow_runs_every_chapter():
    workflow = (ROOT / ".github" / "workflows" / "faults.yml").read_text()
    (lists,) = re.findall(r'python3 -c "(.*?)"', workflow, re.DOTALL)
    program = [sys.executable, "-c", " ".join(lists.split())]
    told = subprocess.run(program, cwd=ROOT, capture_output=True, text=True, check=True).stdout
    assert json.loads(told.removeprefix("found=")) == [chapter.stem[:2] for chapter in CHAPTERS]
    assert "chapter: ${{ fromJSON(needs.chapters.outputs.found) }}" in workflow
