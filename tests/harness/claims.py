"""The claims of a notebook as its cells write them: their words, their bounds, and what they rest on.

A bound that is moved asks for no new run: the runs keep what was measured, and that is held against it.
"""

import ast
import contextlib
import functools
import io
import json
import re
from pathlib import Path
from typing import NamedTuple

from IPython.core.inputtransformer2 import TransformerManager

from kdutils.claim import ClaimFailed, check

# What a claim rests on → the faults under which it has to fail.
HAS_TO_FAIL = {
    "distillation": ["losses zeroed"],
    "teacher": ["losses zeroed", "classes permuted"],
    "formula": ["T² dropped", "mean over classes"],
}


class Claim(NamedTuple):
    """A call of `check` whose words are written as a literal."""

    pattern: re.Pattern[str]  # of what it may print
    has_gaps: bool  # an f-string
    bounds: dict[str, float] | None  # None where one of them is computed
    rests_on: str | None


def cells_in(text: str) -> list[ast.Module]:
    """The code cells of a notebook's file, parsed; magics have become calls."""
    cells = json.loads(text)["cells"]
    sources = ["".join(cell["source"]) for cell in cells if cell["cell_type"] == "code"]
    return [ast.parse(TransformerManager().transform_cell(source)) for source in sources]


def claims_of(notebook: Path) -> list[Claim]:
    """The notebook's claims; those with gaps, which may fit the others' words, last."""
    return _claims_in(notebook.read_text(encoding="utf-8"))


@functools.cache
def _claims_in(text: str) -> list[Claim]:
    calls = (call for cell in cells_in(text) for call in ast.walk(cell) if is_claim(call))
    claims = [claim for call in calls if (claim := claim_of(call)) is not None]
    return sorted(claims, key=lambda claim: claim.has_gaps)


def is_claim(node: ast.AST) -> bool:
    return isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "check"


def claim_of(call: ast.Call) -> Claim | None:
    """What a call of `check` claims; None where its words are computed.

    Raises ValueError where such a claim is said to rest on something: nobody could tell which one it is.
    """
    text = call.args[0] if call.args else None
    parts = text.values if isinstance(text, ast.JoinedStr) else [text]
    words = [part.value if isinstance(part, ast.Constant) else None for part in parts]
    settings = {keyword.arg: keyword.value for keyword in call.keywords}
    rests_on = settings.pop("rests_on", None)
    if words == [None]:
        if rests_on is not None:
            raise ValueError(f"rests_on: expected words that stand in the call, got {ast.unparse(call)}")
        return None
    pattern = "".join(".*" if word is None else re.escape(word) for word in words)
    try:
        bounds = {name: ast.literal_eval(bound) for name, bound in settings.items()}
    except ValueError:
        bounds = None
    mark = None if rests_on is None else ast.literal_eval(rests_on)
    return Claim(re.compile(pattern), None in words, bounds, mark)


def claim_for(words: str, claims: list[Claim]) -> Claim | None:
    """The claim that prints these words."""
    return next((claim for claim in claims if claim.pattern.fullmatch(words)), None)


def left_standing(fault: str, outcome: dict[str, bool], claims: list[Claim]) -> list[str]:
    """The claims that rest on what the fault takes away and did not fail: they hold, or were never made."""
    found = []
    for claim in claims:
        if fault in HAS_TO_FAIL.get(claim.rests_on or "", []):
            instances = [words for words in outcome if claim_for(words, claims) is claim]
            found += [words for words in instances if outcome[words]]
            found += [] if instances else [f"never made: {claim.pattern.pattern}"]
    return found


def holds_now(words: str, value: float, claims: list[Claim]) -> bool | None:
    """Whether a value is within the claim's present bounds; None where these are not literals."""
    claim = claim_for(words, claims)
    return None if claim is None or claim.bounds is None else holds(words, value, claim.bounds)


def holds(words: str, value: float, bounds: dict[str, float]) -> bool:
    try:
        with contextlib.redirect_stdout(io.StringIO()):
            check(words, value, **bounds)
    except ClaimFailed:
        return False
    return True
