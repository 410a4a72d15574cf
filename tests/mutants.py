"""The table notebook × fault: python tests/mutants.py notebooks/*.ipynb

Every notebook runs under every fault of `faults.py`, one run on every core, for hours. The table says how
many claims failed of how many: 0/17 is a miss, a dash a fault that the notebook never came across. The
counts are written to benchmarks/mutants.csv as they come. A run is not repeated while the notebook's code is
what it was: delete the file after a change in `kdutils`.
"""

import hashlib
import json
import os
import sys
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor, as_completed
from pathlib import Path

import faults
import pandas as pd
from tqdm import tqdm

FILE = faults.NOTEBOOKS.parent / "benchmarks" / "mutants.csv"
RUN = ["notebook", "fault", "code"]  # what a run is known by


def code_of(notebook: Path) -> str:
    """A fingerprint of the notebook's code cells: another one asks for another run."""
    cells = json.loads(notebook.read_text())["cells"]
    code = ["".join(cell["source"]) for cell in cells if cell["cell_type"] == "code"]
    return hashlib.sha256("\0".join(code).encode()).hexdigest()[:12]


def counted(notebook: Path, fault: str) -> dict[str, str | int | bool]:
    """A row of the table: how many claims the fault broke."""
    outcome = faults.outcome_under(notebook, fault)
    failed = sum(not holds for holds in outcome.claims.values())
    return {
        "notebook": notebook.stem, "fault": fault, "code": code_of(notebook),
        "failed": failed, "claims": len(outcome.claims), "reached": outcome.reached,
    }  # fmt: skip


def known_rows(file: Path, notebooks: Iterable[Path]) -> list[dict]:
    """The rows of an earlier table that still hold: their notebook is as it was."""
    if not file.exists():
        return []
    rows = pd.read_csv(file).to_dict("records")
    codes = {notebook.stem: code_of(notebook) for notebook in notebooks}
    return [row for row in rows if codes.get(row["notebook"], row["code"]) == row["code"]]


def run_missing(notebooks: list[Path], names: list[str], file: Path) -> pd.DataFrame:
    """The table's rows, once all runs that are not known have been made; an interrupt loses none of them."""
    rows = known_rows(file, notebooks)
    known = {tuple(row[name] for name in RUN) for row in rows}
    missing = [(n, f) for n in notebooks for f in names if (n.stem, f, code_of(n)) not in known]
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        runs = [pool.submit(counted, *run) for run in missing]
        try:
            for run in tqdm(as_completed(runs), total=len(runs), desc="notebooks under faults"):
                rows.append(run.result())
                pd.DataFrame(rows).sort_values(["notebook", "fault"]).to_csv(file, index=False)
        finally:
            pool.shutdown(cancel_futures=True)
    return pd.DataFrame(rows)


def as_table(rows: pd.DataFrame) -> pd.DataFrame:
    """Notebook × fault: claims that failed / claims."""
    cells = rows["failed"].astype(str) + "/" + rows["claims"].astype(str)
    return rows.assign(cell=cells.where(rows["reached"], "–")).pivot(
        index="notebook", columns="fault", values="cell"
    )


if __name__ == "__main__":
    table = as_table(run_missing([Path(name) for name in sys.argv[1:]], list(faults.FAULTS), FILE))
    print(table.to_string())
