"""Collects the rows that notebooks 07 to 10 print into data/trade_off.csv: python tools/store_trade_off.py

A notebook prints its rows as text below the table's header (`trade_off.as_csv`). Run this after
`make notebooks` has stored one of them anew; it also sets the checksum in kdutils/course/trade_off.py.
The rows stand in the chapters' order; a chapter that is missing has none.
Other notebooks can be named, such as ones that were executed elsewhere; the table then holds their rows only.
"""

import hashlib
import sys
from pathlib import Path

import nbformat
from replacing import replace

from kdutils.course import data, trade_off

ROOT = Path(__file__).resolve().parent.parent
HEADER = ",".join((*trade_off.COLUMNS, trade_off.TEACHER))


def printed_rows(notebook: Path) -> list[str]:
    """The rows that a stored notebook prints below the table's header.   Raises ValueError for none."""
    for cell in nbformat.read(notebook, as_version=4).cells:
        for output in cell.get("outputs", []):
            lines = output.get("text", "").splitlines()
            if HEADER in lines:
                return [line for line in lines[lines.index(HEADER) + 1 :] if line]
    raise ValueError(f"{notebook}: expected a cell that prints trade_off.as_csv(…), found none")


def table(notebooks: list[Path]) -> str:
    rows = [row for notebook in notebooks for row in printed_rows(notebook)]
    return "\n".join([HEADER, *rows, ""])


def chapters() -> list[Path]:
    """Notebooks 07 to 10, as far as they are there."""
    return sorted(p for p in (ROOT / "notebooks").glob("*.ipynb") if p.name[:2] in {"07", "08", "09", "10"})


def store(text: str) -> None:
    """Writes the table, and its checksum into the module that reads it."""
    replace(data.data_dir() / trade_off.FILE, text)
    module = Path(trade_off.__file__)
    sha256 = hashlib.sha256(text.encode()).hexdigest()
    replace(module, module.read_text(encoding="utf-8").replace(trade_off.SHA256, sha256))


if __name__ == "__main__":
    notebooks = [Path(name) for name in sys.argv[1:]] or chapters()
    store(table(notebooks))
    print(f"{data.data_dir() / trade_off.FILE}: from {', '.join(path.name for path in notebooks)}")
