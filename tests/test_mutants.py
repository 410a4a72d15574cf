"""The table notebook × fault counts what failed, keeps what is known, and asks again after a change."""

import faults
import mutants
import pandas as pd
import pytest
from nbformat.v4 import new_code_cell, new_notebook
from notebook_files import write

CELL = """
import torch
from kdutils.check import check
from kdutils.response import kd_loss
student, teacher = torch.zeros(4, 3), torch.eye(4, 3)
check("there is something to learn, nats", kd_loss(student, teacher, 2.0), above=0.01)
check("four is four", 4, equals=4)
"""


@pytest.fixture
def notebook(tmp_path):
    return write(new_notebook(cells=[new_code_cell(CELL)]), tmp_path / "01_small.ipynb")


def test_a_row_counts_the_claims_that_failed(notebook):
    row = mutants.counted(notebook, "kd_loss zeroed")
    assert (row["notebook"], row["failed"], row["claims"], row["reached"]) == ("01_small", 1, 2, True)


def test_a_fault_that_is_not_reached_says_so(notebook):
    row = mutants.counted(notebook, "classes permuted")
    assert (row["failed"], row["reached"]) == (0, False)


def test_only_missing_runs_are_made(notebook, tmp_path, monkeypatch):
    asked = []

    def outcome_under(notebook, fault):
        asked.append(fault)
        return faults.Outcome({"a claim": fault == "none"}, reached=True)

    monkeypatch.setattr(faults, "outcome_under", outcome_under)
    file = tmp_path / "mutants.csv"
    mutants.run_missing([notebook], ["none", "losses zeroed"], file)
    assert sorted(asked) == ["losses zeroed", "none"]
    rows = mutants.run_missing([notebook], ["none", "losses zeroed", "T² dropped"], file)
    assert asked[2:] == ["T² dropped"] and len(rows) == 3
    write(new_notebook(cells=[new_code_cell(CELL + "1\n")]), notebook)
    mutants.run_missing([notebook], ["none"], file)
    assert asked[3:] == ["none"]
    assert list(pd.read_csv(file)["fault"]) == ["none"]  # the rows of the former notebook are gone


def test_the_table_shows_misses_and_dashes():
    rows = pd.DataFrame(
        [
            {"notebook": "01", "fault": "a", "failed": 3, "claims": 9, "reached": True},
            {"notebook": "01", "fault": "b", "failed": 0, "claims": 9, "reached": True},
            {"notebook": "01", "fault": "c", "failed": 0, "claims": 9, "reached": False},
        ]
    )
    assert mutants.as_table(rows).loc["01"].to_dict() == {"a": "3/9", "b": "0/9", "c": "–"}
