"""What the tests of the claims share: what became of the claims under faults, as `make fault_runs` kept it."""

import fault_runs
import pytest


@pytest.fixture(scope="module")
def outcomes(request: pytest.FixtureRequest) -> dict[str, dict[str, bool]]:
    """Fault → claim → whether it holds, for the module's NOTEBOOK under its FAULTS."""
    module = request.module
    return {fault: fault_runs.claims_under(module.NOTEBOOK, fault) for fault in module.FAULTS}


@pytest.fixture(scope="module")
def survivors(outcomes: dict[str, dict[str, bool]]) -> set[str]:
    """The claims that hold under every fault: none of these may be a claim of a gain."""
    return set.intersection(
        *({claim for claim, holds in claims.items() if holds} for claims in outcomes.values())
    )
