"""Links the first use of each of the glossary's terms in a chapter to the glossary."""

import re

from docutils import nodes
from figures import is_prose
from sphinx.application import Sphinx

CHAPTERS, GLOSSARY = "notebooks/", "glossary"
NO_PLACE_FOR_A_LINK = (nodes.reference, nodes.literal, nodes.math, nodes.strong)
# The chapters use these in their everyday sense, too.
AMBIGUOUS = {"agreement", "mask", "repair", "scale", "step", "view"}


def terms(app: Sphinx) -> dict[str, str]:
    """Each term, in small letters → its place on the glossary's page. An entry may name several."""
    objects = app.env.domains.standard_domain.objects
    entries = {name.lower(): label for (kind, name), (_, label) in objects.items() if kind == "term"}
    names = {name: label for entry, label in entries.items() for name in entry.split(", ")}
    return {name: label for name, label in names.items() if name not in AMBIGUOUS}


def pattern(names: list[str]) -> re.Pattern[str]:
    """Finds any of the terms as whole words, also in the plural, and the longest that fits."""
    choices = "|".join(re.escape(name) for name in sorted(names, key=len, reverse=True))
    return re.compile(rf"(?<![\w-])({choices})(?=(?:s|es)?(?![\w-]))", re.IGNORECASE)


def link_first_uses(app: Sphinx, document: nodes.document, docname: str) -> None:
    if not docname.startswith(CHAPTERS):
        return
    places = terms(app)
    if not places:
        return
    left, address = pattern(list(places)), app.builder.get_relative_uri(docname, GLOSSARY)
    for paragraph in list(document.findall(is_prose)):
        for text in list(paragraph.findall(nodes.Text)):
            if may_hold_a_link(text):
                text.parent.replace(text, linked(text, left, places, address))


def may_hold_a_link(text: nodes.Text) -> bool:
    node = text.parent
    while not isinstance(node, nodes.paragraph):
        if isinstance(node, NO_PLACE_FOR_A_LINK):
            return False
        node = node.parent
    return True


def linked(
    text: str, anyone: re.Pattern[str], places: dict[str, str], address: str
) -> list[nodes.Text | nodes.reference]:
    """The text with a link in the place of each term that is new; its entry is taken out of the places."""
    parts: list[nodes.Text | nodes.reference] = []
    end = 0
    for found in anyone.finditer(text):
        if label := places.get(found[1].lower()):
            for name in [name for name, other in places.items() if other == label]:
                del places[name]
            parts.append(nodes.Text(text[end : found.start()]))
            link = nodes.reference("", found[1], internal=True, refuri=f"{address}#{label}", classes=["term"])
            parts.append(link)
            end = found.end()
    return [*parts, nodes.Text(text[end:])]


def setup(app: Sphinx) -> dict[str, bool]:
    app.connect("doctree-resolved", link_first_uses)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
