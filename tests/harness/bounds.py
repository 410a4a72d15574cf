"""The claims of a notebook: its code without their bounds, and the bounds that they have now.

A bound that is moved asks for no new run. The runs keep what was measured, and that is held against it.
"""

import ast
import contextlib
import hashlib
import io
import json
import re
from pathlib import Path
from typing import NamedTuple

from IPython.core.inputtransformer2 import TransformerManager

from kdutils.claim import ClaimFailed, check


class Claim(NamedTuple):
    """A call of `check` whose claim and bounds are written as literals."""

    pattern: re.Pattern[str]  # of what it may print
    has_gaps: bool  # an f-string
    bounds: dict[str, float]


def code_of(notebook: Path) -> str:
    """A fingerprint of the notebook's code cells without layout, comments and bounds of claims.

    Another one asks for other runs.
    """
    code = "\0".join(_without_bounds(cell) for cell in _cells(notebook))
    return hashlib.sha256(code.encode()).hexdigest()[:12]


def claims_of(notebook: Path) -> list[Claim]:
    """The notebook's claims with literal bounds; those with gaps, which may fit the others' words, last."""
    calls = (call for cell in _cells(notebook) for call in ast.walk(cell) if isinstance(call, ast.Call))
    claims = [claim for call in calls if (claim := _claim(call)) is not None]
    return sorted(claims, key=lambda claim: claim.has_gaps)


def holds_now(claim: str, value: float, claims: list[Claim]) -> bool | None:
    """Whether a value is within the claim's present bounds; None where these are not literals."""
    for now in claims:
        if now.pattern.fullmatch(claim):
            return holds(claim, value, now.bounds)
    return None


def holds(claim: str, value: float, bounds: dict[str, float]) -> bool:
    try:
        with contextlib.redirect_stdout(io.StringIO()):
            check(claim, value, **bounds)
    except ClaimFailed:
        return False
    return True


def _cells(notebook: Path) -> list[ast.Module]:
    cells = json.loads(notebook.read_text())["cells"]
    sources = ["".join(cell["source"]) for cell in cells if cell["cell_type"] == "code"]
    return [ast.parse(TransformerManager().transform_cell(source)) for source in sources]


def _claim(call: ast.Call) -> Claim | None:
    if not (isinstance(call.func, ast.Name) and call.func.id == "check" and call.args):
        return None
    text = call.args[0]
    parts = text.values if isinstance(text, ast.JoinedStr) else [text]
    words = [part.value if isinstance(part, ast.Constant) else None for part in parts]
    if words == [None]:  # a claim that is computed
        return None
    pattern = "".join(".*" if word is None else re.escape(word) for word in words)
    try:
        bounds = {keyword.arg: ast.literal_eval(keyword.value) for keyword in call.keywords}
    except ValueError:  # a bound that is computed
        return None
    return Claim(re.compile(pattern), None in words, bounds)


def _without_bounds(cell: ast.Module) -> str:
    for call in ast.walk(cell):
        if isinstance(call, ast.Call) and _claim(call) is not None:
            call.keywords = []
    return ast.dump(cell)
