"""What reStructuredText does not know of docstrings that people read in an editor.

`kd_loss` leads to what kdutils calls so, and notebook 01 to the chapter; a name that nothing in kdutils has,
such as a parameter's, stays code. An indented paragraph, be it a formula or code, is shown as it stands.
"""

import re

from docutils import nodes
from sphinx.addnodes import pending_xref
from sphinx.application import Sphinx
from sphinx.environment import BuildEnvironment
from sphinx.util.nodes import make_refnode

SECTIONS = re.compile(r"[A-Z]\w+:$")  # Args:, Returns:, Raises:, which napoleon reads


def link_chapters(app: Sphinx, what: str, name: str, obj: object, options: object, lines: list[str]) -> None:
    lines[:] = [re.sub(r"notebook (\d\d)", r":chapter:`\1`", line) for line in lines]


def keep_indented(app: Sphinx, what: str, name: str, obj: object, options: object, lines: list[str]) -> None:
    """Puts `::` before each indented paragraph that follows one that is not."""
    kept: list[str] = []
    last = ""
    for before, line in zip(["", *lines], lines, strict=False):
        starts = line.startswith(" ") and not before.strip() and not last.startswith(" ")
        if starts and not SECTIONS.match(last):
            kept += ["::", ""]
        kept.append(line)
        last = line if line.strip() else last
    lines[:] = kept


def find_by_last_name(
    app: Sphinx, env: BuildEnvironment, node: pending_xref, contents: nodes.Element
) -> nodes.Element | None:
    """Resolves `kd_loss` from any module, where one object alone has that name."""
    if node.get("refdomain") != "py" or node.get("reftype") != "obj":
        return None
    wanted = node["reftarget"].removesuffix("()")
    objects = env.domains.python_domain.objects
    found = [name for name in objects if name.endswith(f".{wanted}") and not objects[name].aliased]
    if len(found) != 1:
        return None
    entry = objects[found[0]]
    return make_refnode(app.builder, node["refdoc"], entry.docname, entry.node_id, contents, found[0])


def setup(app: Sphinx) -> dict[str, bool]:
    app.connect("autodoc-process-docstring", keep_indented, priority=100)  # before napoleon
    app.connect("autodoc-process-docstring", link_chapters, priority=900)  # after napoleon
    app.connect("missing-reference", find_by_last_name)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
