"""Links the first use of each of the glossary's terms in a chapter to the glossary."""

import re

from docutils import nodes
from figures import is_prose
from sphinx.application import Sphinx

CHAPTERS, GLOSSARY = "notebooks/", "glossary"
NO_PLACE_FOR_A_LINK = (nodes.reference, nodes.literal, nodes.math, nodes.strong)


def terms(app: Sphinx) -> dict[str, str]:
    """Each term, in small letters → its place on the glossary's page. An entry may name several."""
    objects = app.env.domains.standard_domain.objects
    entries = {name.lower(): label for (kind, name), (_, label) in objects.items() if kind == "term"}
    return {name: label for entry, label in entries.items() for name in entry.split(", ")}


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
            if not isinstance(text.parent, NO_PLACE_FOR_A_LINK):
                text.parent.replace(text, linked(text, left, places, address))


def linked(
    text: str, anyone: re.Pattern[str], places: dict[str, str], address: str
) -> list[nodes.Text | nodes.reference]:
    """The text with a link in the place of each term that is new; these are taken out of the places."""
    parts: list[nodes.Text | nodes.reference] = []
    end = 0
    for found in anyone.finditer(text):
        if label := places.pop(found[1].lower(), None):
            parts.append(nodes.Text(text[end : found.start()]))
            link = nodes.reference("", found[1], internal=True, refuri=f"{address}#{label}", classes=["term"])
            parts.append(link)
            end = found.end()
    return [*parts, nodes.Text(text[end:])]


def setup(app: Sphinx) -> dict[str, bool]:
    app.connect("doctree-resolved", link_first_uses)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
