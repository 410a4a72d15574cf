"""A pytest plugin that tells what each notebook took: seconds of CPU and peak memory of its kernel.

Seconds of CPU, those of child processes with them, say what a chapter costs on a machine that does other
work, too; the time on the clock does not. The table stands above pytest's summary.
"""

from pathlib import Path
from typing import Any

import psutil
import pytest
from nbval.plugin import IPyNbFile

COSTS: dict[str, tuple[float, float]] = {}  # notebook → seconds of CPU, MB at the peak


def costs_of(pid: int) -> tuple[float, float]:
    """Seconds of CPU of a process and its children, and the most memory that it held, in MB."""
    process = psutil.Process(pid)
    seconds = sum(process.cpu_times()[:4]) + sum(sum(c.cpu_times()[:2]) for c in process.children(True))
    status = dict(line.split(":", 1) for line in Path(f"/proc/{pid}/status").read_text().splitlines())
    return seconds, int(status["VmHWM"].split()[0]) / 1e3


def pytest_configure() -> None:
    teardown = IPyNbFile.teardown

    def teardown_and_note(notebook: IPyNbFile) -> None:
        provisioner = getattr(getattr(notebook.kernel, "km", None), "provisioner", None)
        if provisioner is not None and Path("/proc").exists():
            COSTS[notebook.path.name] = costs_of(provisioner.pid)
        teardown(notebook)

    IPyNbFile.teardown = teardown_and_note


def pytest_sessionfinish(session: Any) -> None:
    if hasattr(session.config, "workeroutput"):
        session.config.workeroutput["kernel_costs"] = COSTS


@pytest.hookimpl(optionalhook=True)  # of pytest-xdist
def pytest_testnodedown(node: Any) -> None:
    COSTS.update(getattr(node, "workeroutput", {}).get("kernel_costs", {}))


def pytest_terminal_summary(terminalreporter: Any) -> None:
    if COSTS:
        terminalreporter.section("what the notebooks took")
        for name, (seconds, megabytes) in sorted(COSTS.items()):
            terminalreporter.line(f"{seconds:6.0f} s of CPU  {megabytes:6.0f} MB  {name}")
