"""Runs notebooks in Binder's memory and prints what each takes: python tools/binder.py notebooks/*.ipynb

Where this user may make control groups (root on Linux), the system enforces the limit: what asks for more is
killed. Elsewhere the peak is measured, ten times a second, and compared. This program shares the notebook's
group: it stands for Jupyter's server, which shares Binder's memory. The exit status is 1 when a notebook
fails or takes more.
"""

import argparse
import contextlib
import os
import sys
import time
from collections.abc import Iterator
from importlib.metadata import version
from pathlib import Path

import nbformat
from store_notebooks import NotebookFailure, cleared, executed

BINDER_BYTES = 2_000_000_000
CONTROL_GROUPS = Path("/sys/fs/cgroup")
OWN_GROUPS = Path("/proc/self/cgroup")


def own_groups() -> dict[str, str]:
    """Controllers → path of this process' group: those of version 1 by name, version 2 under the name ""."""
    lines = OWN_GROUPS.read_text().splitlines()
    return {controllers: path for _, controllers, path in (line.split(":", 2) for line in lines)}


def places(limit: int) -> tuple[Path, Path, dict[str, int]]:
    """This process' group of memory, the group in which a new one may be made, and the new one's settings."""
    groups = own_groups()
    if "memory" in groups:
        home = CONTROL_GROUPS / "memory" / groups["memory"].lstrip("/")
        return home, home, {"memory.limit_in_bytes": limit, "memory.memsw.limit_in_bytes": limit}
    home = CONTROL_GROUPS / groups[""].lstrip("/")
    # A group of version 2 that holds processes can have no group with limits inside, except the root.
    beside = home if home == CONTROL_GROUPS else home.parent
    return home, beside, {"memory.max": limit, "memory.swap.max": 0}


@contextlib.contextmanager
def limited(limit: int) -> Iterator[bool]:
    """Whether the system keeps this process, and all that it starts in the block, to so many bytes."""
    with contextlib.ExitStack() as undo:
        try:
            home, beside, settings = places(limit)
            group = beside / f"kdutils-{os.getpid()}"
            group.mkdir()
            undo.callback(remove, group)
            (memory, most), (swap, most_with_swap) = settings.items()
            (group / memory).write_text(str(most))
            if (group / swap).exists():
                (group / swap).write_text(str(most_with_swap))
            (group / "cgroup.procs").write_text(str(os.getpid()))
            undo.callback((home / "cgroup.procs").write_text, str(os.getpid()))
        except (OSError, KeyError):
            enforced = False
        else:
            enforced = True
        yield enforced


def remove(group: Path) -> None:
    """Removes a group, once the processes that have ended in it are gone."""
    for _ in range(50):
        with contextlib.suppress(OSError):
            group.rmdir()
            return
        time.sleep(0.1)


def row(path: Path, limit: int) -> str:
    """The table's line about one notebook.   Raises NotebookFailure where it fails or takes too much."""
    start = time.perf_counter()
    client = executed(cleared(nbformat.read(path, as_version=4)), path.resolve().parent)
    if client.peak_bytes > limit:
        raise NotebookFailure(f"peak memory {client.peak_bytes / 1e6:.0f} MB, allowed are {limit / 1e6:.0f}")
    return f"| {path.stem} | {client.peak_bytes / 1e6:.0f} | {time.perf_counter() - start:.0f} |"


def main() -> int:
    parser = argparse.ArgumentParser(description="Runs notebooks in Binder's memory.")
    parser.add_argument("notebooks", nargs="+", type=Path)
    parser.add_argument("--limit", type=int, default=BINDER_BYTES, help="bytes (default: %(default)s)")
    settings = parser.parse_args()
    failed = False
    with limited(settings.limit) as enforced:
        how = "enforced by control groups" if enforced else "measured, for control groups cannot be used here"
        print(f"At most {settings.limit / 1e6:.0f} MB, {how}; PyTorch {version('torch')}.\n")
        print("| notebook | peak memory, MB | seconds |\n|---|---|---|", flush=True)
        for path in settings.notebooks:
            try:
                print(row(path, settings.limit), flush=True)
            except NotebookFailure as failure:
                failed = True
                print(f"{path.name} fails:\n{failure}", file=sys.stderr, flush=True)
    return int(failed)


if __name__ == "__main__":
    sys.exit(main())
