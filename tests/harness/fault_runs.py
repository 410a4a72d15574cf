"""Runs notebooks under faults and keeps what became of each claim.

    python tests/harness/fault_runs.py notebooks/*.ipynb            # those that `make test` asks for
    python tests/harness/fault_runs.py --all notebooks/*.ipynb      # every fault and every sound condition

One run on every core; the outcomes are written as they come, a file for every notebook. They belong to what
can move the notebook's claims: its code (see `fingerprint`) and what the library computes (see `computes`).
Where one of these has changed, the runs are kept as earlier ones and no longer count. Only a claim's bound
can be moved without a new run: the value that was measured is held against it.
"""

import argparse
import datetime
import json
import os
import textwrap
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor, as_completed
from pathlib import Path
from statistics import mean
from typing import Any, NamedTuple

import claims
import computes
import faults
import fingerprint
from replacing import replace
from tqdm import tqdm

FOLDER = Path(__file__).parent / "outcomes"
TABLE = faults.NOTEBOOKS.parent / "docs" / "fault_runs.md"
REQUIRED = ["losses zeroed", "classes permuted"]
EVERY = [*faults.FAULTS, *faults.SOUND]
SECONDS = 240  # of CPU, for a run of a notebook of which none is on file

HEADING = """# Claims under faults, and where nothing is wrong

Written by `make faults`: how many of a notebook's claims fail, of how many. A dash stands where the notebook
never comes across the fault, an empty cell where there is no run. The star marks a run of an earlier version
of the notebook or of the library.
"""
# What a table holds → how to read it, and its rows.
SECTIONS = {
    "Asked for by every test run": (
        "The losses of the library return zero, or the teacher names every class by another's name. A "
        "claim that rests on distillation, or on the teacher, says so where it is made (`check(…, "
        "rests_on=…)`), and has to fail here. Permuted classes are asked for only where a claim rests on "
        "the teacher: 03, for one, asks which images belong together, not what they are called.",
        REQUIRED,
    ),
    "Once a week: the teaching is taken away": (
        "Nothing is to be learned from the teacher. One network for all was made for what 00 says of "
        "sizes: no student is smaller than its teacher there.",
        [fault for fault in faults.TAUGHT_NOTHING if fault not in REQUIRED],
    ),
    "Once a week: the teaching is bent": (
        "The student is still taught: by a loss of another scale, or by a teacher whose batch norm "
        "follows the batch. What a notebook says of the formula itself has to fail.",
        [fault for fault in faults.FAULTS if fault not in faults.TAUGHT_NOTHING],
    ),
    "Once a week: nothing is wrong": (
        "Other arithmetic, other subsets, initial weights and batches. No claim may fail.",
        list(faults.SOUND),
    ),
}


class NoRun(AssertionError):
    """A notebook was not run under a fault, or something that can move its claims has changed since."""


class Job(NamedTuple):
    notebook: Path
    fault: str


class Run(NamedTuple):
    """What became of the claims, when, and in how many seconds of CPU; None where that was not measured."""

    outcome: faults.Outcome
    date: str
    seconds: float | None


Runs = dict[str, Run]  # fault or condition → run


def asked_for(notebook: Path) -> list[str]:
    """The faults that every test run asks for: those under which some claim of the notebook has to fail."""
    marks = {claim.rests_on for claim in claims.claims_of(notebook)}
    return [fault for fault in REQUIRED if any(fault in claims.HAS_TO_FAIL.get(m or "", []) for m in marks)]


# Reading


def content_of(notebook: Path, folder: Path = FOLDER) -> dict[str, Any]:
    """What the notebook's file holds."""
    file = folder / f"{notebook.stem}.json"
    return json.loads(file.read_text(encoding="utf-8")) if file.exists() else {"runs": {}, "earlier": {}}


def changes(notebook: Path, content: dict[str, Any]) -> list[str]:
    """What has changed since the runs on file were made: they count only where this is nothing."""
    if "code" not in content:
        return []
    found = [] if content["code"] == fingerprint.code_of(notebook) else ["the notebook's code"]
    now = computes.computed(fingerprint.names_in(notebook))
    return found + [f"what {call} computes" for call in computes.moved(content["computes"], now)]


def kept_runs(notebook: Path, folder: Path = FOLDER) -> Runs:
    """The runs on file of the notebook as it is; none where something that can move a claim has changed."""
    content = content_of(notebook, folder)
    return {} if changes(notebook, content) else judged_runs(notebook, content["runs"])


def judged_runs(notebook: Path, runs: dict[str, Any]) -> Runs:
    made = claims.claims_of(notebook)
    return {fault: judged(run, made) for fault, run in runs.items()}


def judged(run: dict[str, Any], made: list[claims.Claim]) -> Run:
    """A run on file, its values held against the bounds that the claims have now.

    What is on file as true or false has no value, or bounds that are computed: that stays as it was seen.
    """
    values = {claim: kept for claim, kept in run["claims"].items() if not isinstance(kept, bool)}
    seen = {claim: claims.holds_now(claim, value, made) for claim, value in values.items()}
    outcome = faults.Outcome(run["claims"] | seen, run["reached"], values, run["seconds"] or 0.0)
    return Run(outcome, run["date"], run["seconds"])


def run_under(notebook: Path, fault: str, folder: Path = FOLDER) -> faults.Outcome:
    """What became of the claims of the notebook as it is under a fault.

    Raises NoRun where that is not on file, with the reason and what to do.
    """
    content = content_of(notebook, folder)
    changed = changes(notebook, content)
    if fault in content["runs"] and not changed:
        return judged_runs(notebook, content["runs"])[fault].outcome
    reason = f"since its runs something has changed: {', '.join(changed)}" if changed else "there is no run"
    everything = "" if fault in REQUIRED else " ALL=1"
    raise NoRun(
        f"{notebook.stem} under {fault!r}: {reason}. make faults NB=notebooks/{notebook.name}{everything}"
    )


def claims_under(notebook: Path, fault: str) -> dict[str, bool]:
    """Claim → whether it holds under the fault; raises as `run_under`."""
    return run_under(notebook, fault).claims


# Writing


def keep_run(job: Job, outcome: faults.Outcome, folder: Path = FOLDER) -> None:
    """Adds a run to the notebook's file, which is replaced at one stroke: an interrupt leaves it whole."""
    content = content_of(job.notebook, folder)
    if changes(job.notebook, content):
        content["earlier"] |= content["runs"]
        content["runs"] = {}
    made = claims.claims_of(job.notebook)
    content["runs"][job.fault] = to_keep(outcome, made)
    content["earlier"].pop(job.fault, None)
    numbers = computes.computed(fingerprint.names_in(job.notebook))
    content = {
        "code": fingerprint.code_of(job.notebook),
        "computes": {call: [float(f"{n:.6g}") for n in numbers[call]] for call in sorted(numbers)},
        "runs": dict(sorted(content["runs"].items())),
        "earlier": dict(sorted(content["earlier"].items())),
    }
    folder.mkdir(exist_ok=True)
    replace(folder / f"{job.notebook.stem}.json", as_json(content))


def to_keep(outcome: faults.Outcome, made: list[claims.Claim]) -> dict[str, Any]:
    """What the file holds of a run: a claim's value where its bounds are literals, else whether it held."""
    judgeable = {
        claim: value
        for claim, value in outcome.values.items()
        if claims.holds_now(claim, value, made) is not None
    }
    return {
        "date": datetime.date.today().isoformat(),
        "seconds": round(outcome.seconds),
        "reached": outcome.reached,
        "claims": outcome.claims | judgeable,
    }


def as_json(content: dict[str, Any]) -> str:
    """A line for every claim, and one for what every call computes."""
    computed = [f"  {json.dumps(call)}: {json.dumps(n)}" for call, n in content["computes"].items()]
    marker = json.dumps("the numbers")
    text = json.dumps(content | {"computes": "the numbers"}, indent=1, ensure_ascii=False)
    return text.replace(marker, "{\n" + ",\n".join(computed) + "\n }", 1) + "\n"


# Making


def missing_jobs(notebooks: list[Path], names: list[str] | None, folder: Path = FOLDER) -> list[Job]:
    """All runs that are not on file; without names, of those that every test run asks for."""
    kept = {notebook: kept_runs(notebook, folder) for notebook in notebooks}
    return [
        Job(notebook, name)
        for notebook in notebooks
        for name in names or asked_for(notebook)
        if name not in kept[notebook]
    ]


def seconds_of(job: Job, folder: Path = FOLDER) -> float:
    """How long a run will take: as the last one under the fault, or as the notebook's others."""
    if not faults.can_reach(job.notebook, job.fault):
        return 0.0
    content = content_of(job.notebook, folder)
    known = {f: run["seconds"] for f, run in (content["earlier"] | content["runs"]).items() if run["seconds"]}
    return known.get(job.fault) or mean(known.values() or [SECONDS])


def forecast(jobs: list[Job], folder: Path = FOLDER, cores: int | None = None) -> str:
    """How many runs, and how long they will take on this machine."""
    cores = cores or os.cpu_count() or 1
    minutes = sum(seconds_of(job, folder) for job in jobs) / cores / 60
    how_long = f"{minutes / 60:.1f} hours" if minutes >= 90 else f"{minutes:.0f} minutes"
    return f"{len(jobs)} runs to make, {cores} at a time: about {how_long}."


def outcome_of(job: Job) -> faults.Outcome:
    """What became of a notebook under a fault.

    Raises RuntimeError where its code was changed meanwhile: nobody could tell which of the two had run.
    """
    code = fingerprint.code_of(job.notebook)
    outcome = faults.outcome_under(*job)
    if fingerprint.code_of(job.notebook) != code:
        raise RuntimeError(f"{job.notebook.name} was changed while it ran under {job.fault!r}: run it again")
    return outcome


def run_missing(notebooks: list[Path], names: list[str] | None, folder: Path = FOLDER) -> None:
    """Makes all runs that are not on file, one on every core; an interrupt loses none that has ended."""
    jobs = missing_jobs(notebooks, names, folder)
    print(forecast(jobs, folder), flush=True)
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        runs = {pool.submit(outcome_of, job): job for job in jobs}
        try:
            for run in tqdm(as_completed(runs), total=len(runs), desc="notebooks under faults"):
                keep_run(runs[run], run.result(), folder)
        finally:
            pool.shutdown(cancel_futures=True)


# The table


def cell(notebook: Path, content: dict[str, Any], fault: str) -> str:
    """Claims that failed / claims; a dash where the fault was not reached, a star for an earlier version."""
    run = content["runs"].get(fault) or content["earlier"].get(fault)
    if run is None:
        return ""
    if fault in faults.FAULTS and not run["reached"]:
        return "–"
    held = judged_runs(notebook, {fault: run})[fault].outcome.claims.values()
    is_earlier = fault not in content["runs"] or bool(changes(notebook, content))
    return f"{sum(not holds for holds in held)}/{len(held)}{'*' if is_earlier else ''}"


def oldest(content: dict[str, Any], names: Iterable[str]) -> str:
    runs = content["earlier"] | content["runs"]
    return min((runs[name]["date"] for name in names if name in runs), default="")


def seconds(content: dict[str, Any], names: Iterable[str]) -> str:
    """What a run takes on the average, of those that were measured."""
    runs = content["earlier"] | content["runs"]
    known = [runs[name]["seconds"] for name in names if name in runs and runs[name]["seconds"]]
    return f"{mean(known):.0f}" if known else ""


def as_markdown(notebooks: list[Path], folder: Path = FOLDER) -> str:
    """Tables with a row for every fault and a column for every notebook; below, how old and how long."""
    contents = {notebook: content_of(notebook, folder) for notebook in notebooks}
    text = []
    for title, (how_to_read, names) in SECTIONS.items():
        rows = [
            ["", *(notebook.stem[:2] for notebook in notebooks)],
            ["---"] * (len(notebooks) + 1),
            *([name, *(cell(n, contents[n], name) for n in notebooks)] for name in names),
            ["*oldest run*", *(oldest(contents[n], names) for n in notebooks)],
            ["*seconds of CPU*", *(seconds(contents[n], names) for n in notebooks)],
        ]
        table = "".join(f"| {' | '.join(row)} |\n" for row in rows)
        text.append(f"## {title}\n\n{textwrap.fill(how_to_read, 110)}\n\n{table}")
    return "\n".join(text)


def whole_table() -> str:
    """What docs/fault_runs.md has to say: all notebooks, all faults, from the runs on file."""
    return HEADING + "\n" + as_markdown(sorted(faults.NOTEBOOKS.glob("*.ipynb")))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("notebooks", nargs="+", type=Path)
    parser.add_argument("--all", action="store_true", help="every fault and condition (hours)")
    parser.add_argument("--only", choices=EVERY, action="append", help="a fault or a sound condition")
    arguments = parser.parse_args()
    names = arguments.only or (EVERY if arguments.all else None)
    try:
        run_missing([notebook.resolve() for notebook in arguments.notebooks], names)
    finally:
        TABLE.write_text(whole_table(), encoding="utf-8")
    print(f"The table: {TABLE}")


if __name__ == "__main__":
    main()
