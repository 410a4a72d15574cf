"""A fingerprint of what can move a notebook's claims: its code without imports, drawing, texts and bounds.

A run under a fault is void once the fingerprint is another one. Left out are

- comments, layout, docstrings, imports, and the bounds and marks of claims;
- what draws, prints or shows: figures with their labels and colors, tables, sliders, exercises;
- what is computed for these alone: names and functions that nothing else reads.

Only what is known to change nothing is left out. A call that is not known to be quiet may train a network,
draw a random number or alter a list, so it stays: rather a run too many than one too few.
"""

import ast
import functools
import hashlib
from collections import defaultdict
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from claims import cells_in, claim_of, is_claim

DRAWING = {"plt", "plot", "drawings", "fig", "figure", "ax", "axes"}
DRAWING_METHODS = {
    "annotate", "axhline", "axvline", "bar", "barh", "imshow", "invert_yaxis", "legend", "loglog",
    "margins", "minorticks_off", "plot", "semilogx", "semilogy", "set_title", "set_xlabel", "set_xscale",
    "set_xticklabels", "set_xticks", "set_ylabel", "set_ylim", "set_yticklabels", "tick_params",
}  # fmt: skip
SHOWING = {"print", "display", "Markdown", "explore", "course_map", "exercises", "get_ipython"}
QUIET_FUNCTIONS = {
    "abs", "all", "any", "bool", "dict", "enumerate", "filter", "float", "getattr", "hasattr", "int",
    "isinstance", "len", "list", "map", "max", "min", "paired_gain", "predict", "range", "repr", "reversed",
    "round", "set", "sorted", "str", "sum", "tuple", "type", "zip",
}  # fmt: skip
QUIET_MODULES = {"F", "evaluate", "math", "np", "pd", "torch", "trade_off"}
QUIET_METHODS = {
    "abs", "all", "amax", "amin", "any", "apply", "argmax", "argmin", "argsort", "assign", "astype", "bool",
    "clamp", "clone", "contiguous", "copy", "count", "cpu", "describe", "detach", "diff", "dim", "drop",
    "element_size", "exp", "expand", "flatten", "flip", "float", "format", "gain", "gains", "gather", "get",
    "head", "idxmax", "idxmin", "index", "int", "item", "items", "itertuples", "join", "keys", "log",
    "log_softmax", "long", "lower", "map", "max", "mean", "median", "min", "nonzero", "norm", "numel",
    "numpy", "of", "parameters", "permute", "pow", "prod", "quantile", "rename", "rename_axis", "replace",
    "reset_index", "reshape", "roll", "round", "set_index", "softmax", "sort_index", "sort_values", "split",
    "sqrt", "square", "squeeze", "startswith", "state_dict", "std", "sum", "table", "tail", "title", "to",
    "to_dict", "to_frame", "to_string", "tolist", "topk", "transpose", "unfold", "unique", "unsqueeze",
    "upper", "values", "view",
}  # fmt: skip
CALL_THEIR_ARGUMENT = {"apply", "filter", "map"}
# How names in torch and NumPy begin that draw random numbers, or set something for all that follows.
STATEFUL = (
    "bernoulli", "dropout", "enable", "initial_seed", "load", "manual_seed", "multinomial", "normal",
    "poisson", "rand", "save", "seed", "set_", "shuffle", "use_",
)  # fmt: skip
# Settings of how something looks, whoever is called with them.
LOOKS = {
    "cmap",
    "color",
    "colour",
    "figsize",
    "fontsize",
    "linestyle",
    "linewidth",
    "title",
    "xlabel",
    "ylabel",
}
QUIET_DECORATORS = {"cache", "contextmanager", "dataclass", "property", "staticmethod", "torch"}


def code_of(notebook: Path) -> str:
    """The fingerprint of the notebook's code."""
    return _code_and_names(notebook.read_text(encoding="utf-8"))[0]


def names_in(notebook: Path) -> set[str]:
    """The names, also those after a dot, in the code that can move a claim."""
    return _code_and_names(notebook.read_text(encoding="utf-8"))[1]


@functools.cache
def _code_and_names(text: str) -> tuple[str, set[str]]:
    program = relevant_code(text)
    names = {node.id for node in ast.walk(program) if isinstance(node, ast.Name)}
    names |= {node.attr for node in ast.walk(program) if isinstance(node, ast.Attribute)}
    return hashlib.sha256(written(program).encode()).hexdigest()[:12], names


def relevant_code(text: str) -> ast.Module:
    """The statements of a notebook's file that can move a claim, as one program."""
    program = ast.Module([statement for cell in cells_in(text) for statement in cell.body], [])
    quiet = Quiet(program)
    program = WithoutLooks(quiet).visit(WithoutImportsAndBounds().visit(program))
    before = ""
    while before != (before := written(program)):  # what only a removed statement read goes in the next round
        program.body = list(without_what_changes_nothing(program.body, names_read(program), quiet))
    return program


def written(node: Any) -> str:
    """A syntax tree as text, the same under every version of Python."""
    if isinstance(node, list):
        return f"[{' '.join(map(written, node))}]"
    if not isinstance(node, ast.AST):
        return repr(node)
    fields = [(name, value) for name, value in ast.iter_fields(node) if value not in (None, [])]
    parts = [f"{name}={written(value)}" for name, value in fields if name not in ("ctx", "kind")]
    return f"{type(node).__name__}({' '.join(parts)})"


class WithoutImportsAndBounds(ast.NodeTransformer):
    """Drops where names come from, and what of a claim can be held against the value on file."""

    def visit_Import(self, node: ast.Import | ast.ImportFrom) -> list[ast.stmt]:
        """Only a new name is kept: `import x.y as z` becomes `z = y`."""
        renamed = [(alias.asname, alias.name.split(".")[-1]) for alias in node.names if alias.asname]
        return [ast.Assign([ast.Name(new, ast.Store())], ast.Name(old, ast.Load())) for new, old in renamed]

    visit_ImportFrom = visit_Import  # noqa: N815

    def visit_Call(self, node: ast.Call) -> ast.Call:
        self.generic_visit(node)
        if is_claim(node):
            claim = claim_of(node)
            is_literal = claim is not None and claim.bounds is not None
            node.keywords = [k for k in node.keywords if not is_literal and k.arg != "rests_on"]
        return node


class WithoutLooks(ast.NodeTransformer):
    """Drops what a call that draws or shows is given, save what may do more than that."""

    def __init__(self, quiet: "Quiet"):
        self.quiet = quiet

    def visit_Call(self, node: ast.Call) -> ast.Call:
        if self.quiet.shows(node):
            node.args = [
                part for argument in node.args for part in parts_of(argument) if not self.quiet(part)
            ]
            node.keywords = [k for k in node.keywords if not self.quiet(k.value)]
        node.keywords = [k for k in node.keywords if k.arg not in LOOKS or not self.quiet(k.value)]
        self.generic_visit(node)
        return node


def parts_of(argument: ast.expr) -> list[ast.expr]:
    """The expressions inside an f-string; any other argument itself."""
    if isinstance(argument, ast.JoinedStr):
        return [part.value for part in argument.values if isinstance(part, ast.FormattedValue)]
    return [argument]


def names_read(program: ast.AST) -> set[str]:
    """Every name that is read, or changed in place, somewhere."""
    nodes = list(ast.walk(program))
    read = {node.id for node in nodes if isinstance(node, ast.Name) and not isinstance(node.ctx, ast.Store)}
    changed = [node.target for node in nodes if isinstance(node, ast.AugAssign)]
    return read | {target.id for target in changed if isinstance(target, ast.Name)}


def without_what_changes_nothing(
    body: Iterable[ast.stmt], read: set[str], quiet: "Quiet"
) -> Iterator[ast.stmt]:
    """The statements of a body, and within them, that are not known to change nothing that is read."""
    for statement in body:
        for field in ("body", "orelse", "finalbody"):
            if inner := getattr(statement, field, None):
                setattr(statement, field, list(without_what_changes_nothing(inner, read, quiet)))
        if not changes_nothing(statement, read, quiet):
            yield statement


def changes_nothing(statement: ast.stmt, read: set[str], quiet: "Quiet") -> bool:
    match statement:
        case ast.Pass():
            return True
        case ast.Expr(value) | ast.If(value, [], []):
            return quiet(value)
        case ast.For(_, value, [], []):  # nobody reads the variable of a loop after its end
            return quiet(value)
        case ast.With(items, []):
            return all(quiet(item.context_expr) for item in items)
        case ast.Assign(targets, value):
            return quiet(value) and all(is_unread(target, read) for target in targets)
        case ast.FunctionDef(name, arguments):
            defaults = [*arguments.defaults, *filter(None, arguments.kw_defaults)]
            return name not in read and quiet.is_plain(statement) and all(map(quiet, defaults))
        case ast.ClassDef(name):
            return name not in read and quiet.is_plain(statement)
    return False


def is_unread(target: ast.expr, read: set[str]) -> bool:
    """Whether a target consists of names, of which none is read."""
    if isinstance(target, ast.Starred):
        return is_unread(target.value, read)
    if isinstance(target, ast.Tuple | ast.List):
        return all(is_unread(part, read) for part in target.elts)
    return isinstance(target, ast.Name) and target.id not in read


class Quiet:
    """Tells of an expression whether evaluating it is known to change nothing but a figure or the screen."""

    def __init__(self, program: ast.Module):
        self.functions: dict[str, list[ast.FunctionDef]] = defaultdict(list)
        self.losses: set[str] = set()
        for node in ast.walk(program):
            if isinstance(node, ast.FunctionDef):
                self.functions[node.name].append(node)
            elif isinstance(node, ast.ImportFrom) and (node.module or "").startswith("kdutils.losses"):
                self.losses |= {alias.asname or alias.name for alias in node.names}
        self.drawing = DRAWING | drawing_names(program)
        self.harmless = set(self.functions)
        while len(self.harmless) > len(left := set(filter(self.is_harmless, self.harmless))):
            self.harmless = left

    def __call__(self, expression: ast.expr) -> bool:
        return all(map(self.allows, ast.walk(expression)))

    def is_plain(self, definition: ast.FunctionDef | ast.ClassDef) -> bool:
        """Whether its decorators do nothing but decorate."""
        return all(root_of(decorator) in QUIET_DECORATORS for decorator in definition.decorator_list)

    def is_harmless(self, name: str) -> bool:
        """Whether all that a function of the notebook does is quiet."""
        return all(self.allows_statement(line) for node in self.functions[name] for line in node.body)

    def allows_statement(self, node: ast.stmt) -> bool:
        match node:
            case ast.Pass() | ast.FunctionDef() | ast.Return(None):
                return True
            case ast.Return(value) | ast.Expr(value):
                return self(value)
            case ast.Assign(targets, value):
                return self(value) and all(isinstance(target, ast.Name | ast.Tuple) for target in targets)
            case ast.For(_, value, body, orelse) | ast.If(value, body, orelse):
                return self(value) and all(map(self.allows_statement, [*body, *orelse]))
        return False

    def allows(self, node: ast.AST) -> bool:
        if isinstance(node, ast.Call):
            return self.allows_call(node)
        if isinstance(node, ast.Name) and node.id in self.functions:  # whom it is given to may call it
            return node.id in self.harmless
        return not isinstance(node, ast.NamedExpr | ast.Await | ast.Yield | ast.YieldFrom)

    def shows(self, call: ast.Call) -> bool:
        """Whether a call draws, prints or shows what it is given."""
        root, *path = dotted(call.func)
        if root in self.functions:
            return False
        return root in self.drawing | SHOWING or bool(DRAWING_METHODS & set(path))

    def allows_call(self, call: ast.Call) -> bool:
        *path, name = dotted(call.func)
        if not path and name in self.functions:
            return name in self.harmless
        if self.shows(call):
            return True
        if any(part.startswith(STATEFUL) or part.endswith("_") for part in {*path, name} - QUIET_METHODS):
            return False
        called = call.args[:1] if name in CALL_THEIR_ARGUMENT else []
        called += [keyword.value for keyword in call.keywords if keyword.arg == "key"]
        if any(isinstance(f, ast.Name) and f.id not in QUIET_FUNCTIONS | self.harmless for f in called):
            return False
        if not path:
            return name in QUIET_FUNCTIONS | self.losses
        return path[0] in QUIET_MODULES or name in QUIET_METHODS


def dotted(expression: ast.expr) -> list[str]:
    """The names along a chain of attributes, items and calls; "" where it begins with something else."""
    path = []
    while isinstance(expression, ast.Attribute | ast.Subscript | ast.Call):
        if isinstance(expression, ast.Attribute):
            path.append(expression.attr)
        expression = expression.func if isinstance(expression, ast.Call) else expression.value
    return [expression.id if isinstance(expression, ast.Name) else "", *reversed(path)]


def root_of(expression: ast.expr) -> str:
    return dotted(expression)[0]


def drawing_names(program: ast.Module) -> set[str]:
    """Names that stand for something drawn, wherever they are set: `_, (left, right) = plt.subplots(…)`."""
    drawn, otherwise = set(), set()
    for node in ast.walk(program):
        match node:
            case ast.Assign(targets, value):
                pairs = [(target, value) for target in targets]
            case ast.For(target, value) | ast.comprehension(target, value):
                pairs = [(target, value)]
            case ast.arg(name):
                otherwise.add(name)
                continue
            case _:
                continue
        for target, value in pairs:
            names = [part.id for part in ast.walk(target) if isinstance(part, ast.Name)]
            (drawn if root_of(value) in DRAWING else otherwise).update(names)
    return drawn - otherwise
