"""Directives that are filled from the chapters themselves, so that no list is kept by hand.

{chapters}       the chapters that a pattern names, each with its question; they also go into the sidebar
{track}          a way through some chapters, one a line, each with words on what to do there; with times
{exercises}      every exercise of every chapter
{course-map}     the course's map, each chapter's name a link
{decision-map}   which distillation? questions and answers, each answer a link to its chapter
{stored-figure}  a figure of a chapter, named by words of the sentence above it

and a role, {chapter}`07`: the words "chapter 07", with a link where that chapter is there.
"""

import io
import re
from collections.abc import Callable, Iterator
from typing import ClassVar

import matplotlib
from decision import decision_svg
from docutils import nodes
from docutils.parsers.rst import directives
from sphinx import addnodes
from sphinx.application import Sphinx
from sphinx.directives.other import TocTree
from sphinx.util.docutils import SphinxDirective, SphinxRole
from sphinx.util.matching import patfilter
from write_lists import times

FOLDER = "notebooks/"
TIME = re.compile(r"[^.!?]*\bminutes? to run\b[^.]*\.")
EXERCISE = re.compile(r"(?P<title>Exercise \d+ · .+?)\s+difficulty (?P<difficulty>[●○]+) · (?P<time>.+)")


class Placeholder(nodes.General, nodes.Element):
    """Stands where `fill(app, docname, **arguments)` will put its nodes once all pages have been read."""


class Chapters(TocTree):
    """The chapters whose names match the pattern of its content."""

    def run(self) -> list[nodes.Node]:
        self.options |= {"glob": None, "hidden": None}
        pattern = self.content[0].strip()
        toctree = super().run() if patfilter(self.env.found_docs, pattern) else []
        return [*toctree, Placeholder(fill="chapters", arguments={"pattern": pattern})]


class Exercises(SphinxDirective):
    def run(self) -> list[nodes.Node]:
        return [Placeholder(fill="exercises", arguments={})]


class Track(SphinxDirective):
    has_content = True

    def run(self) -> list[nodes.Node]:
        stations = []
        for line in self.content:
            number, _, words = line.strip().partition(" ")
            text = nodes.paragraph("", "", *self.parse_inline(words)[0]) if words else nodes.paragraph()
            stations.append((number, text))
        return [Placeholder(fill="track", arguments={"stations": stations})]


class CourseMap(SphinxDirective):
    def run(self) -> list[nodes.Node]:
        return [Placeholder(fill="course_map", arguments={})]


class DecisionMap(SphinxDirective):
    def run(self) -> list[nodes.Node]:
        return [Placeholder(fill="decision_map", arguments={})]


class StoredFigure(SphinxDirective):
    required_arguments = 1
    has_content = True
    option_spec: ClassVar = {"below": directives.unchanged_required}

    def run(self) -> list[nodes.Node]:
        caption = nodes.caption()
        caption += self.parse_inline(" ".join(self.content))[0]
        arguments = {"chapter": self.arguments[0], "below": self.options["below"], "caption": caption}
        return [Placeholder(fill="stored_figure", arguments=arguments)]


class Chapter(SphinxRole):
    def run(self) -> tuple[list[nodes.Node], list[nodes.system_message]]:
        words = nodes.inline("", f"chapter\u00a0{self.text}")
        for name in self.env.found_docs:
            if name.startswith(f"{FOLDER}{self.text}_"):
                target = {"refdomain": "std", "reftype": "doc", "reftarget": f"/{name}", "refexplicit": True}
                return [addnodes.pending_xref("", words, **target, refdoc=self.env.docname, refwarn=True)], []
        return [words], []


def chapter_names(app: Sphinx) -> list[str]:
    return sorted(name for name in app.env.found_docs if name.startswith(FOLDER))


def title(document: nodes.document) -> str:
    return next(document.findall(nodes.title)).astext()


def question_and_time(document: nodes.document) -> tuple[str, str]:
    """The first words in bold, and the sentence that says how many minutes the chapter takes."""
    bold = next(document.findall(nodes.strong), None)
    if bold is None:
        raise ValueError(f"{title(document)}: expected its question in bold below the title")
    paragraphs = [" ".join(paragraph.astext().split()) for paragraph in document.findall(nodes.paragraph)]
    time = next((found for text in paragraphs if (found := TIME.search(text))), None)
    return bold.astext(), time[0].strip() if time else ""


def link(app: Sphinx, here: str, there: str, *content: nodes.Node, anchor: str = "") -> nodes.reference:
    address = app.builder.get_relative_uri(here, there) + (f"#{anchor}" if anchor else "")
    return nodes.reference("", "", *content, refuri=address, internal=True)


def chapters(app: Sphinx, docname: str, pattern: str) -> Iterator[nodes.Node]:
    """A list of the chapters: number and name, question, time."""
    cards = nodes.bullet_list(classes=["chapters"])
    for name in patfilter(chapter_names(app), pattern):
        document = app.env.get_doctree(name)
        question, time = question_and_time(document)
        cards += nodes.list_item(
            "",
            nodes.paragraph("", "", link(app, docname, name, nodes.Text(title(document)))),
            nodes.paragraph("", question),
            nodes.paragraph("", time, classes=["time"]),
        )
    yield cards if len(cards) else nodes.paragraph("", "Still to come.")


def exercises(app: Sphinx, docname: str) -> Iterator[nodes.Node]:
    """A table for every chapter: exercise, difficulty, time."""
    for name in chapter_names(app):
        document = app.env.get_doctree(name)
        rows = []
        for section in document.findall(nodes.section):
            if found := EXERCISE.match("\n".join(part.astext() for part in section[:2])):
                anchor = link(app, docname, name, nodes.Text(found["title"]), anchor=section["ids"][0])
                rows.append([anchor, nodes.Text(found["difficulty"]), nodes.Text(found["time"])])
        if rows:
            heading = nodes.title("", "", link(app, docname, name, nodes.Text(title(document))))
            yield nodes.section("", heading, table(rows), ids=[nodes.make_id(title(document))])


def track(app: Sphinx, docname: str, stations: list[tuple[str, nodes.paragraph]]) -> Iterator[nodes.Node]:
    """A table of the chapters that are there, with the minutes of each and of all."""
    present = {name.removeprefix(FOLDER)[:2]: name for name in chapter_names(app)}
    rows, run, read = [], 0, 0
    for number, words in stations:
        if number not in present:
            continue
        document = app.env.get_doctree(present[number])
        question, _ = question_and_time(document)
        needed = times(" ".join(paragraph.astext() for paragraph in document.findall(nodes.paragraph)))
        if needed is None:
            raise ValueError(f"{present[number]}: expected '… minutes to run …, … to read'")
        run, read = run + needed[0], read + needed[1]
        chapter = link(app, docname, present[number], nodes.Text(title(document)))
        what = nodes.inline("", "", chapter, nodes.Text(f" {question}"))
        cells = [nodes.paragraph("", "", what), words.deepcopy()]
        rows.append([*cells, *(nodes.paragraph("", str(minutes)) for minutes in needed)])
    yield track_table(rows)
    hours = f"{read // 60} h {read % 60:02}" if read >= 60 else f"{read} minutes"
    yield nodes.paragraph("", f"In all {hours} to read, and {run} minutes in which the computer works.")


def table(rows: list[list[nodes.Node]]) -> nodes.table:
    body = nodes.tbody()
    for row in rows:
        body += nodes.row("", *(nodes.entry("", nodes.paragraph("", "", cell)) for cell in row))
    columns = [nodes.colspec(colwidth=width) for width in (64, 14, 22)]
    return nodes.table("", nodes.tgroup("", *columns, body, cols=3), classes=["exercises"])


def track_table(rows: list[list[nodes.Node]]) -> nodes.table:
    names = ("chapter", "what to do there", "run", "read")
    if not any(words.children for _, words, *_ in rows):
        rows, names = [[row[0], *row[2:]] for row in rows], ("chapter", "run", "read")
    head = nodes.row("", *(nodes.entry("", nodes.paragraph("", name)) for name in names))
    body = [nodes.row("", *(nodes.entry("", cell) for cell in row)) for row in rows]
    columns = [nodes.colspec(colwidth=width) for width in (40, 40, 10, 10)[-len(names) :]]
    group = nodes.tgroup("", *columns, nodes.thead("", head), nodes.tbody("", *body), cols=len(names))
    return nodes.table("", group, classes=["track"])


def course_map(app: Sphinx, docname: str) -> Iterator[nodes.Node]:
    """The map as a drawing within the page, in which the names of the chapters are links."""
    matplotlib.use("agg")
    from kdutils.course.course_map import course_map as drawn

    figure = drawn()
    present = {name.removeprefix(FOLDER)[:2]: name for name in chapter_names(app)}
    for text in figure.axes[0].texts:
        if (number := text.get_text()[:2]) in present:
            text.set_url(app.builder.get_relative_uri(docname, present[number]))
    drawing = io.StringIO()
    # letters as text, not as paths: one can search them, and click between their strokes
    with matplotlib.rc_context({"svg.fonttype": "none", "svg.hashsalt": "course map"}):
        figure.savefig(drawing, format="svg", metadata={"Date": None}, bbox_inches="tight")
    svg = drawing.getvalue()
    svg = svg[svg.index("<svg") :].replace("xlink:href", "href").replace(' target="_blank"', "")
    label = (
        "The map of the course: a teacher and a student, the knowledge that is transferred between them, "
        "the algorithm that organizes training, and the architecture of the student, each with its chapters"
    )
    svg = svg.replace("<svg ", f'<svg role="group" aria-label="{label}" ', 1)
    yield nodes.raw("", f'<div class="course-map">{svg}</div>', format="html")


def decision_map(app: Sphinx, docname: str) -> Iterator[nodes.Node]:
    """The questions and answers as a drawing within the page; answers of chapters to come are left out."""
    present = {
        name.removeprefix(FOLDER)[:2]: app.builder.get_relative_uri(docname, name)
        for name in chapter_names(app)
    }
    yield nodes.raw("", f'<div class="course-map">{decision_svg(present.get)}</div>', format="html")


def stored_figure(
    app: Sphinx, docname: str, chapter: str, below: str, caption: nodes.caption
) -> Iterator[nodes.Node]:
    """The figure of a chapter whose alternative text holds the words.   Raises ValueError if none does."""
    images = app.env.get_doctree(chapter).findall(nodes.image)
    found = [image for image in images if below in image.get("alt", "")]
    if len(found) != 1:
        raise ValueError(f"{docname}: expected one figure of {chapter} below “{below}”, found {len(found)}")
    image = found[0].deepcopy()
    image["alt"] = re.sub(r"^Figure \d+\. ", "", image["alt"])
    yield nodes.figure("", link(app, docname, chapter, image), caption, ids=["a-figure"])


FILLS: dict[str, Callable[..., Iterator[nodes.Node]]] = {
    fill.__name__: fill for fill in (chapters, exercises, track, course_map, decision_map, stored_figure)
}


def fill_placeholders(app: Sphinx, document: nodes.document, docname: str) -> None:
    for placeholder in list(document.findall(Placeholder)):
        placeholder.replace_self(list(FILLS[placeholder["fill"]](app, docname, **placeholder["arguments"])))


def setup(app: Sphinx) -> dict[str, bool]:
    app.add_node(Placeholder)
    app.add_role("chapter", Chapter())
    app.add_directive("chapters", Chapters)
    app.add_directive("exercises", Exercises)
    app.add_directive("track", Track)
    app.add_directive("course-map", CourseMap)
    app.add_directive("decision-map", DecisionMap)
    app.add_directive("stored-figure", StoredFigure)
    app.connect("doctree-resolved", fill_placeholders)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
