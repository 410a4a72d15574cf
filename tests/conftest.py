"""Every chapter's notebook runs under its faults, for minutes each: on every core, behind the other tests."""

import os
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path

import faults
import pytest

Outcomes = dict[str, bool]  # claim → whether it holds


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Claims wait for their runs: they come after all other tests. Notebooks take all cores and come last."""
    items.sort(key=lambda item: 2 if item.path.suffix == ".ipynb" else hasattr(item.module, "FAULTS"))


@pytest.fixture(scope="session", autouse=True)
def runs_under_faults(request: pytest.FixtureRequest) -> Iterator[dict[tuple[Path, str], Future[Outcomes]]]:
    """All runs that the collected tests will ask for: each module's NOTEBOOK under each of its FAULTS."""
    modules = {item.module for item in request.session.items if hasattr(item, "module")}
    asked = sorted((m.NOTEBOOK, fault) for m in modules if hasattr(m, "FAULTS") for fault in m.FAULTS)
    pool = ThreadPoolExecutor(os.cpu_count())
    yield {run: pool.submit(faults.claims_under, *run) for run in asked}
    pool.shutdown(cancel_futures=True)


@pytest.fixture(scope="module")
def outcomes(
    request: pytest.FixtureRequest, runs_under_faults: dict[tuple[Path, str], Future[Outcomes]]
) -> dict[str, Outcomes]:
    """Fault → claim → whether it holds, for the module's NOTEBOOK under its FAULTS."""
    return {
        fault: runs_under_faults[request.module.NOTEBOOK, fault].result() for fault in request.module.FAULTS
    }


@pytest.fixture(scope="module")
def survivors(outcomes: dict[str, Outcomes]) -> set[str]:
    """The claims that hold under every fault: none of these may be a claim of a gain."""
    return set.intersection(
        *({claim for claim, holds in claims.items() if holds} for claims in outcomes.values())
    )
