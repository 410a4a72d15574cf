"""Runs every notebook under every fault and every sound condition, and keeps what became of each claim.

    python tests/fault_runs.py notebooks/*.ipynb                                   # hours, one run on every core
    python tests/fault_runs.py notebooks/01_*.ipynb --only "losses zeroed"         # one of them

The outcomes are written to benchmarks/fault_runs/, a file for every notebook, as they come; the tests of the
claims read them there. They belong to the notebook's code cells: where these change, all runs are asked for
again, and the tests say so until they are made. Only a claim's bound can be moved without: the value that was
measured is held against the new one. After a change in `kdutils` that may move a claim, delete the folder
first. benchmarks/mutants.md holds the table notebook × fault.
"""

import argparse
import json
import os
from concurrent.futures import ThreadPoolExecutor, as_completed
from pathlib import Path
from typing import Any, NamedTuple

import bounds
import faults
import pandas as pd
from replacing import replace
from tqdm import tqdm

FOLDER = Path(__file__).parent / "outcomes"
TABLE = faults.NOTEBOOKS.parent / "docs" / "fault_runs.md"
HEADING = """# Claims under faults, and where nothing is wrong

Written by `make fault_runs`: how many of a notebook's claims fail, of how many. A dash stands where the notebook
never comes across the fault; an empty cell has not been run with the notebook as it is. A claim that a fault
leaves standing is listed, with the reason, in `tests/test_claims_*.py`.
"""
# What a table holds → how to read it, and its rows.
SECTIONS = {
    "The teaching is taken away": (
        "Nothing is to be learned from the teacher. In every notebook claims must fail: 0/17 is a miss.\n"
        "Two are none: 03 asks which pictures belong together, not what they are called, so that permuted\n"
        "classes teach the same; and the gains of 05 are those of `dml_loss`, while what `kd_loss` brings\n"
        "there, with the ensemble as the teacher, is reported as not settled. One network for all was made\n"
        "for what 00 says of sizes: no student is smaller than its teacher there, and none is run elsewhere.",
        faults.TAUGHT_NOTHING,
    ),
    "The teaching is bent": (
        "The student is still taught: by a loss of another scale, or by a teacher whose batch norm follows\n"
        "the batch. 0/17 says that the gains are still there, by the claims that fail in the table above\n"
        "where they are not. What a notebook says of the formula itself must fail.",
        [fault for fault in faults.FAULTS if fault not in faults.TAUGHT_NOTHING],
    ),
    "Nothing is wrong": (
        "Other arithmetic, other subsets, initial weights and batches. No claim may fail.",
        list(faults.SOUND),
    ),
}

Runs = dict[str, faults.Outcome]  # fault or condition → what became of the claims


class NoRun(AssertionError):
    """A notebook was not run under a fault, or its code has changed since."""


class Job(NamedTuple):
    notebook: Path
    fault: str


def kept_runs(notebook: Path, folder: Path = FOLDER) -> Runs:
    """The runs on file for the notebook as it is; none where its code has changed."""
    file = folder / f"{notebook.stem}.json"
    if not file.exists():
        return {}
    content = json.loads(file.read_text())
    if content["code"] != bounds.code_of(notebook):
        return {}
    claims = bounds.claims_of(notebook)
    return {fault: judged(run, claims) for fault, run in content["runs"].items()}


def judged(run: dict[str, Any], claims: list[bounds.Claim]) -> faults.Outcome:
    """A run on file, its values held against the bounds that the claims have now.

    What is on file as true or false has no value, or bounds that are computed: that stays as it was seen.
    """
    values = {claim: kept for claim, kept in run["claims"].items() if not isinstance(kept, bool)}
    seen = {claim: bounds.holds_now(claim, value, claims) for claim, value in values.items()}
    return faults.Outcome({**run["claims"], **seen}, run["reached"], values)


def keep_run(job: Job, outcome: faults.Outcome, folder: Path = FOLDER) -> None:
    """Adds a run to the notebook's file, which is replaced at one stroke: an interrupt leaves it whole."""
    claims = bounds.claims_of(job.notebook)
    runs = kept_runs(job.notebook, folder) | {job.fault: outcome}
    content = {
        "code": bounds.code_of(job.notebook),
        "runs": {fault: to_keep(runs[fault], claims) for fault in sorted(runs)},
    }
    folder.mkdir(exist_ok=True)
    replace(folder / f"{job.notebook.stem}.json", json.dumps(content, indent=1, ensure_ascii=False) + "\n")


def to_keep(outcome: faults.Outcome, claims: list[bounds.Claim]) -> dict[str, Any]:
    """What the file holds of a run: a claim's value where its bounds are literals, else whether it held."""
    judgeable = {
        claim: value
        for claim, value in outcome.values.items()
        if bounds.holds_now(claim, value, claims) is not None
    }
    return {"claims": outcome.claims | judgeable, "reached": outcome.reached}


def claims_under(notebook: Path, fault: str) -> dict[str, bool]:
    """Claim → whether it held when the notebook was run under the fault.

    Raises NoRun where it was not, or not as it is now.
    """
    runs = kept_runs(notebook)
    if fault not in runs:
        raise NoRun(f"{notebook.stem} as it is was not run under {fault!r}: make fault_runs NB={notebook}")
    return runs[fault].claims


def claims_that_fail(notebook: Path, fault: str) -> set[str]:
    """The claims that do not hold when the notebook is run under the fault; raises as `claims_under`."""
    return {claim for claim, holds in claims_under(notebook, fault).items() if not holds}


def missing_jobs(notebooks: list[Path], names: list[str], folder: Path = FOLDER) -> list[Job]:
    """All runs that are not on file."""
    kept = {notebook: kept_runs(notebook, folder) for notebook in notebooks}
    return [Job(notebook, name) for notebook in notebooks for name in names if name not in kept[notebook]]


def run_missing(notebooks: list[Path], names: list[str], folder: Path = FOLDER) -> None:
    """Makes all runs that are not on file, one on every core; an interrupt loses none that has ended."""
    jobs = missing_jobs(notebooks, names, folder)
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        runs = {pool.submit(faults.outcome_under, *job): job for job in jobs}
        try:
            for run in tqdm(as_completed(runs), total=len(runs), desc="notebooks under faults"):
                keep_run(runs[run], run.result(), folder)
        finally:
            pool.shutdown(cancel_futures=True)


def as_table(runs: dict[str, Runs]) -> pd.DataFrame:
    """Notebook × fault: claims that failed / claims; a dash where the fault was not reached."""
    names = [*faults.FAULTS, *faults.SOUND]
    return pd.DataFrame(
        {name: {notebook: cell(runs[notebook], name) for notebook in runs} for name in names}
    ).rename_axis("notebook")


def cell(runs: Runs, name: str) -> str:
    if name not in runs:
        return ""
    if name in faults.FAULTS and not runs[name].reached:
        return "–"
    claims = runs[name].claims
    return f"{sum(not holds for holds in claims.values())}/{len(claims)}"


def as_markdown(table: pd.DataFrame) -> str:
    """The table as tables of Markdown, turned: a row for every fault, a column for every notebook."""
    head = [["", *(notebook[:2] for notebook in table.index)], ["---"] * (len(table) + 1)]
    return "\n".join(
        f"## {title}\n\n{how_to_read}\n\n"
        + "".join(f"| {' | '.join(row)} |\n" for row in head + [[name, *table[name]] for name in names])
        for title, (how_to_read, names) in SECTIONS.items()
    )


def whole_table() -> str:
    """What benchmarks/mutants.md has to say: all notebooks, all faults, from the runs on file."""
    notebooks = sorted(faults.NOTEBOOKS.glob("*.ipynb"))
    return HEADING + "\n" + as_markdown(as_table({n.stem: kept_runs(n) for n in notebooks}))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    names = [*faults.FAULTS, *faults.SOUND]
    parser.add_argument("notebooks", nargs="+", type=Path)
    parser.add_argument("--only", choices=names, action="append", help="a fault or a sound condition")
    arguments = parser.parse_args()
    try:
        run_missing([n.resolve() for n in arguments.notebooks], arguments.only or names)
    finally:
        TABLE.write_text(whole_table())
    print(TABLE.read_text())


if __name__ == "__main__":
    main()
