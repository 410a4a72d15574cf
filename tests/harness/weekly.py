"""Runs under faults that a workflow makes once a week; `make test` looks at them where they are current."""

import os
from pathlib import Path

import fault_runs
import pytest


def weekly_runs(notebook: Path, names: list[str]) -> fault_runs.Runs:
    """The named runs of the notebook as it is.

    Where one is missing the test that asks is skipped, with a notice. With FAULTS=all in the environment, as
    in the workflow, it fails instead.
    """
    runs = fault_runs.kept_runs(notebook)
    missing = [name for name in names if name not in runs]
    if missing and os.environ.get("FAULTS") != "all":
        pytest.skip(
            f"{notebook.stem}: the weekly workflow has not run this version under {', '.join(missing)}"
        )
    for name in missing:
        fault_runs.run_under(notebook, name)  # raises, and says what to do
    return {name: runs[name] for name in names}
