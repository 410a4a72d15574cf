"""The quick lane, about a minute on two cores: python tools/quick.py

Lint, format, types, the floors, the library's tests and those of the exercises. What starts processes, a
browser or a server, trains for seconds or runs a notebook, is left to `make test`. Every step is run, also
after one that fails; then the exit status is 1.
"""

import os
import subprocess
import sys
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
TESTS = ["tests/library", "tests/project/test_floors.py", "tests/project/test_exercises.py"]
CHAPTERS = sorted(str(path.relative_to(ROOT)) for path in ROOT.glob("tests/chapters/test_chapter*.py"))
STEPS = [
    ["ruff", "check", "."],
    ["ruff", "format", "--check", "."],
    ["mypy"],
    ["pytest", "-q", "-n", "2", "-m", "not slow", *TESTS, *CHAPTERS],
]


def passes(step: list[str]) -> bool:
    """Runs a step in this Python, with one thread for each process; tells how long it took."""
    start = time.perf_counter()
    run = subprocess.run([sys.executable, "-m", *step], cwd=ROOT, env={**os.environ, "OMP_NUM_THREADS": "1"})
    told = "passed" if run.returncode == 0 else "FAILED"
    print(f"{' '.join(step[:3])}: {told}, {time.perf_counter() - start:.0f} s\n", flush=True)
    return run.returncode == 0


def main() -> int:
    start = time.perf_counter()
    results = [passes(step) for step in STEPS]
    print(f"The quick lane took {time.perf_counter() - start:.0f} s.")
    return 0 if all(results) else 1


if __name__ == "__main__":
    sys.exit(main())
