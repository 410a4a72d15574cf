"""Rules for a stored notebook. Each rule yields a sentence for every place that breaks it."""

import ast
import dis
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from statistics import median
from types import CodeType

from nbformat import NotebookNode
from notebook_files import code_cells, with_tag
from prose_numbers import unsupported

MAX_KB = 400
MAX_MEDIAN_LINES = 8

MACHINE_PATH = re.compile(r"(?<![\w.])(/(root|work|tmp|home|Users)\b|[A-Z]:\\Users\\)[^\s\"']*")
PROGRESS_BAR = re.compile(r"\d+%\|")
SLIDER_CALL = re.compile(r"\b(explore|interact|interactive_output)\(")
NOTEBOOK_LINK = re.compile(r"\]\((?!https?:)([^)#\s]+\.ipynb)(#[^)]*)?\)")
RELATIVE_IMAGE = re.compile(r"!\[[^\]]*\]\((?!https://)[^)]*\)|<img[^>]+src=[\"'](?!https://)[^>]*>")
MAGIC = re.compile(r"^(\s*)[%!](?=\w).*", re.MULTILINE)
MYST = re.compile(r"^\s*(`{3,}|:{3,})\{|\{[\w:-]+\}`|^\s*>\s*\[!\w+\]", re.MULTILINE)

FOLDED = {"hide-input", "hide-cell"}
TAGS = FOLDED | {"browser", "nbval-check-output"}


def outputs(notebook: NotebookNode) -> Iterator[tuple[int, NotebookNode]]:
    for cell in code_cells(notebook):
        for output in cell.outputs:
            yield cell.execution_count, output


def shown(notebook: NotebookNode) -> Iterator[tuple[str, str]]:
    """(where, text) of all outputs that a reader can read."""
    for count, output in outputs(notebook):
        yield f"output of [{count}]", output.get("text", "")
        for kind, value in output.get("data", {}).items():
            if kind.startswith("text/"):
                yield f"output of [{count}]", value


def markdown(notebook: NotebookNode) -> Iterator[tuple[int, str]]:
    for index, cell in enumerate(notebook.cells):
        if cell.cell_type == "markdown":
            yield index, cell.source


def executed_in_order(notebook: NotebookNode, path: Path) -> Iterator[str]:
    counts = [cell.execution_count for cell in code_cells(notebook)]
    if counts != list(range(1, len(counts) + 1)):
        yield f"execution counts are {counts}, not 1…{len(counts)}: run `make notebooks`"


def without_errors(notebook: NotebookNode, path: Path) -> Iterator[str]:
    for count, output in outputs(notebook):
        if output.output_type == "error":
            yield f"[{count}] holds an error: {output.ename}: {output.evalue}"
        if output.get("name") == "stderr":
            yield f"[{count}] holds a warning: {output.text}"


def without_progress_bars(notebook: NotebookNode, path: Path) -> Iterator[str]:
    for where, text in shown(notebook):
        if PROGRESS_BAR.search(text):
            yield f"{where} holds a progress bar"


def small(notebook: NotebookNode, path: Path) -> Iterator[str]:
    size = path.stat().st_size / 1e3
    if size > MAX_KB:
        yield f"the file has {size:.0f} kB, more than {MAX_KB}"


def without_widget_state(notebook: NotebookNode, path: Path) -> Iterator[str]:
    if "widgets" in notebook.metadata:
        yield "the metadata holds widget state"
    for count, output in outputs(notebook):
        if any("widget" in kind for kind in output.get("data", {})):
            yield f"[{count}] holds a widget, which nobody can see in a stored notebook"


def for_any_python3(notebook: NotebookNode, path: Path) -> Iterator[str]:
    name = notebook.metadata.get("kernelspec", {}).get("name")
    if name != "python3":
        yield f"the kernel is {name}, not python3"
    if "version" in notebook.metadata.get("language_info", {}):
        yield "the metadata names a Python version"


def figures_are_png(notebook: NotebookNode, path: Path) -> Iterator[str]:
    for count, output in outputs(notebook):
        for kind, value in output.get("data", {}).items():
            if (kind.startswith("image/") and kind != "image/png") or "<svg" in value:
                yield f"[{count}] holds a figure that is no PNG ({kind})"


def without_machine_paths(notebook: NotebookNode, path: Path) -> Iterator[str]:
    sources = [(f"cell {index}", cell.source) for index, cell in enumerate(notebook.cells)]
    for where, text in [*sources, *shown(notebook)]:
        if found := MACHINE_PATH.search(text):
            yield f"{where} names a place on one machine: {found[0]}"


def finished(notebook: NotebookNode, path: Path) -> Iterator[str]:
    for index, cell in enumerate(notebook.cells):
        if found := re.search(r"\b(TODO|FIXME|TBD)\b", cell.source):
            yield f"cell {index} is not finished: {found[0]}"


def cells_have_ids(notebook: NotebookNode, path: Path) -> Iterator[str]:
    for index, cell in enumerate(notebook.cells):
        if not cell.get("id"):
            yield f"cell {index} has no id"


def checks_a_claim(notebook: NotebookNode, path: Path) -> Iterator[str]:
    if not any(re.search(r"\bcheck\(", cell.source) for cell in code_cells(notebook)):
        yield "no cell checks a claim: check(…)"


def has_an_exercise_with_its_solution(notebook: NotebookNode, path: Path) -> Iterator[str]:
    prose = [text for _, text in markdown(notebook)]
    if not any(re.search(r"^#+ Exercise \d", text, re.MULTILINE) for text in prose):
        yield "there is no exercise: ### Exercise 1 · …"
    if not any(re.search(r"<details>\s*<summary>Solution</summary>", text) for text in prose):
        yield "there is no solution: <details><summary>Solution</summary>"


def has_a_slider(notebook: NotebookNode, path: Path) -> Iterator[str]:
    if not any(SLIDER_CALL.search(cell.source) for cell in with_tag(notebook, "browser")):
        yield "no cell tagged `browser` makes a slider: explore(…) or interact(…)"


def code_in_small_steps(notebook: NotebookNode, path: Path) -> Iterator[str]:
    lines = [lines_of(cell.source) for cell in code_cells(notebook)]
    if lines and median(lines) > MAX_MEDIAN_LINES:
        yield f"the median code cell has {median(lines):g} lines, more than {MAX_MEDIAN_LINES}"


def lines_of(source: str) -> int:
    """Lines that are not blank; a claim with its bounds counts as one, however it is wrapped."""
    nodes = ast.walk(ast.parse(MAGIC.sub(r"\1pass", source)))
    claims = [n for n in nodes if isinstance(n, ast.Call) and getattr(n.func, "id", "") == "check"]
    wrapped = sum(claim.end_lineno - claim.lineno for claim in claims)
    return len([line for line in source.splitlines() if line.strip()]) - wrapped


def numbers_in_sentences_are_shown(notebook: NotebookNode, path: Path) -> Iterator[str]:
    """What was measured agrees, within its rounding, with what a cell shows, or is cited."""
    yield from unsupported(notebook, path)


def tags_are_known(notebook: NotebookNode, path: Path) -> Iterator[str]:
    for index, cell in enumerate(notebook.cells):
        for tag in sorted(set(cell.metadata.get("tags", [])) - TAGS):
            yield f"cell {index} has the tag {tag}, of which nobody takes notice"


def folded_in_jupyter_as_on_the_site(notebook: NotebookNode, path: Path) -> Iterator[str]:
    for index, cell in enumerate(notebook.cells):
        on_the_site = bool(FOLDED & set(cell.metadata.get("tags", [])))
        if on_the_site != cell.metadata.get("jupyter", {}).get("source_hidden", False):
            yield f"cell {index} is folded in one place only: run `make notebooks`"


def commonmark_only(notebook: NotebookNode, path: Path) -> Iterator[str]:
    for index, text in markdown(notebook):
        if found := MYST.search(text):
            yield f"cell {index}: {found[0].strip()} shows as raw text in JupyterLab, Colab or GitHub"
        if re.search(r"</summary>[^\n]*\n[^\S\n]*\S", text) or re.search(r"</summary>[^\S\n]*[^\s<]", text):
            yield f"cell {index}: no blank line after </summary>"


def links_lead_somewhere(notebook: NotebookNode, path: Path) -> Iterator[str]:
    for index, text in markdown(notebook):
        for link in NOTEBOOK_LINK.finditer(text):
            if not (path.parent / link[1]).is_file():
                yield f"cell {index}: there is no {link[1]}"
        if found := RELATIVE_IMAGE.search(text):
            yield f"cell {index}: {found[0]} does not open on Colab; draw it, or link an absolute URL"


def names(code: CodeType) -> tuple[set[str], set[str]]:
    """The names that a cell, or a function in it, reads and has not set itself; and those it leaves set.

    Exempt are names deleted or, to free memory, set to None: an earlier cell that needs them then ends with
    an error, not with another number.
    """
    reads: set[str] = set()
    own: set[str] = set()
    left: set[str] = set()
    is_none = False
    for step in dis.get_instructions(code):
        match step.opname:
            case "LOAD_NAME" | "LOAD_GLOBAL":
                reads |= {step.argval} - own
            case "STORE_NAME":
                own.add(step.argval)
                left = left - {step.argval} if is_none else left | {step.argval}
            case "DELETE_NAME":
                left.discard(step.argval)
        if step.opname not in ("STORE_NAME", "COPY", "DUP_TOP"):  # a = b = None sets both to None
            is_none = step.opname == "LOAD_CONST" and step.argval is None
    for inner in code.co_consts:
        if isinstance(inner, CodeType):
            reads |= names(inner)[0] - own
    return reads, left


def without_names_set_again(notebook: NotebookNode, path: Path) -> Iterator[str]:
    """What a cell takes from an earlier one is still the same when a reader comes back and runs it again."""
    known: set[str] = set()
    reader: dict[str, int] = {}
    for index, cell in enumerate(notebook.cells):
        if cell.cell_type == "code":
            reads, left = names(compile(MAGIC.sub(r"\1pass", cell.source), f"cell {index}", "exec"))
            for name in reads & known:
                reader.setdefault(name, index)
            for name in sorted(left & reader.keys()):
                yield f"cell {index} sets {name} again, which cell {reader[name]} reads"
            known |= left


RULES: list[Callable[[NotebookNode, Path], Iterator[str]]] = [
    executed_in_order,
    without_errors,
    without_progress_bars,
    small,
    without_widget_state,
    for_any_python3,
    figures_are_png,
    without_machine_paths,
    finished,
    cells_have_ids,
    checks_a_claim,
    has_an_exercise_with_its_solution,
    has_a_slider,
    code_in_small_steps,
    numbers_in_sentences_are_shown,
    tags_are_known,
    folded_in_jupyter_as_on_the_site,
    commonmark_only,
    links_lead_somewhere,
    without_names_set_again,
]


def complaints(notebook: NotebookNode, path: Path) -> list[str]:
    """What every rule finds in the notebook, which is stored at the path."""
    return [complaint for rule in RULES for complaint in rule(notebook, path)]
