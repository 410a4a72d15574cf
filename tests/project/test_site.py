"""The site, built as `make site` builds it but without a network, is read, and opened in Chromium."""

import functools
import http.server
import json
import os
import re
import subprocess
import sys
import threading
import urllib.parse
from collections.abc import Iterator
from html.parser import HTMLParser
from pathlib import Path

import axe_playwright_python
import numpy as np
import pytest
from docstring_text import keep_indented
from docutils import nodes
from figures import HOSTS, MOST_CHARACTERS, message
from frames import stored_frames
from mathml import mathml
from nbformat import NotebookNode
from notebook_files import CHAPTERS, ROOT, code_cells, read
from notebook_rules import markdown
from PIL import Image
from set_repository import declared_repository, linked_repositories, site_address
from store_notebooks import SLIDER_TEXT, code_of, explores, has_slider
from terms import linked, pattern
from test_browser import CHROMIUM_FLAGS, chromium
from write_lists import PICTURE, README, chapter_row, picture

import kdutils.losses

PATIENCE = 180  # seconds for a page, beside other busy processes
NO_NETWORK = {
    name: "http://127.0.0.1:9" for name in ("http_proxy", "https_proxy", "HTTP_PROXY", "HTTPS_PROXY")
}
LOSSES = sorted(path.stem for path in (ROOT / "kdutils" / "losses").glob("*.py") if path.stem != "__init__")
MOST_BYTES_OF_FRAMES = 12_000_000
PHONE = {"width": 390, "height": 844}
A4 = {"width": 794, "height": 1123}
AXE = (Path(axe_playwright_python.__file__).parent / "axe.min.js").read_text(encoding="utf-8")
AXE_OPTIONS = "{preload: false, resultTypes: ['violations']}"  # asks for no style sheet a second time
DARKEST_TEXT_ON_DARK = 4.5  # contrast that WCAG 2.1 asks for, level AA

CONTRAST = """
element => {
    const luminance = colour => {
        const [r, g, b] = colour.match(/[\\d.]+/g).slice(0, 3).map(value => value / 255)
            .map(value => value <= 0.03928 ? value / 12.92 : ((value + 0.055) / 1.055) ** 2.4);
        return 0.2126 * r + 0.7152 * g + 0.0722 * b;
    };
    let behind = element;
    const isClear = node => /rgba\\(.*, 0\\)|transparent/.test(getComputedStyle(node).backgroundColor);
    while (behind.parentElement && isClear(behind)) behind = behind.parentElement;
    const [dark, light] = [getComputedStyle(element).color, getComputedStyle(behind).backgroundColor]
        .map(luminance).sort((a, b) => a - b);
    return (light + 0.05) / (dark + 0.05);
}
"""


class Page(HTMLParser):
    """The elements of a page, as (tag, attributes), and its text."""

    def __init__(self, path: Path):
        super().__init__()
        self.path, self.elements, self.text = path, [], ""
        self.feed(path.read_text(encoding="utf-8"))

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))

    def handle_data(self, data: str) -> None:
        self.text += data

    def all(self, tag: str, attribute: str) -> list[str]:
        return [attributes[attribute] or "" for name, attributes in self.elements
                if name == tag and attribute in attributes]  # fmt: skip

    def with_class(self, name: str) -> list[dict[str, str | None]]:
        return [attrs for _, attrs in self.elements if name in (attrs.get("class") or "").split()]


@pytest.fixture(scope="module")
def site(tmp_path_factory) -> Path:
    """The folder of the built site."""
    folder = tmp_path_factory.mktemp("site") / "html"
    run = subprocess.run(
        [sys.executable, ROOT / "docs" / "build.py", folder],
        capture_output=True, text=True, env={**os.environ, **NO_NETWORK},
    )  # fmt: skip
    assert run.returncode == 0, run.stdout + run.stderr
    return folder


@pytest.fixture(scope="module")
def pages(site) -> dict[str, Page]:
    """Name, such as notebooks/00_why_distill.html, → page; what the theme keeps in _static is none."""
    paths = [path for path in sorted(site.rglob("*.html")) if path.parts[len(site.parts)] != "_static"]
    return {path.relative_to(site).as_posix(): Page(path) for path in paths}


def chapter(path: Path) -> str:
    return f"notebooks/{path.stem}.html"


def dead_links(pages: dict[str, Page], site: Path) -> Iterator[str]:
    """A sentence for every link and picture within the site that leads nowhere."""
    anchors = {page.path: {attrs.get("id") for _, attrs in page.elements} for page in pages.values()}
    for name, page in pages.items():
        for address in [*page.all("a", "href"), *page.all("img", "src"), *page.all("link", "href")]:
            target = urllib.parse.urlsplit(address)
            if target.scheme or target.netloc:
                continue
            file = (
                (page.path.parent / urllib.parse.unquote(target.path)).resolve() if target.path else page.path
            )
            anchor = urllib.parse.unquote(target.fragment)
            if not file.is_file() or (anchor and file in anchors and anchor not in anchors[file]):
                yield f"{name}: {address}"


def test_every_chapter_is_in_the_sidebar_in_order(pages):
    links = [link for link in pages["index.html"].all("a", "href") if link.startswith("notebooks/")]
    assert list(dict.fromkeys(sorted(links))) == [chapter(path) for path in CHAPTERS]
    in_sidebar = [link for link in pages["search.html"].all("a", "href") if link.startswith("notebooks/")]
    assert in_sidebar == [chapter(path) for path in CHAPTERS]


def test_no_link_is_dead(pages, site):
    assert list(dead_links(pages, site)) == []


def test_a_dead_link_is_noticed(tmp_path):
    (tmp_path / "a.html").write_text(
        '<h1 id="top"><a href="a.html#top"><a href="#no"><a href="b.html"><img src="c.png">'
    )
    pages = {"a.html": Page(tmp_path / "a.html")}
    assert list(dead_links(pages, tmp_path)) == ["a.html: #no", "a.html: b.html", "a.html: c.png"]


@pytest.mark.parametrize("path", CHAPTERS, ids=lambda path: path.stem)
def test_every_figure_says_in_words_what_it_shows(path, pages):
    stored = sum(
        "image/png" in output.get("data", {})
        for cell in read(path).cells
        for output in cell.get("outputs", [])
    )
    page = pages[chapter(path)]
    alternatives = [
        alt
        for tag, attrs in page.elements
        if tag == "img" and "_images/" in attrs["src"]
        for alt in [attrs["alt"]]
    ]
    assert len(alternatives) == len(set(alternatives)) == stored
    assert all(re.match(r"Figure \d+\. .{10}", alt) for alt in alternatives)
    assert all(page.all("img", "alt")) and len(page.all("img", "alt")) == len(page.all("img", "src"))


@pytest.mark.parametrize("path", CHAPTERS, ids=lambda path: path.stem)
def test_every_chapter_can_be_run_from_its_page(path, pages):
    repository, page = declared_repository(ROOT), pages[chapter(path)]
    colab, binder = [attrs["href"] for attrs in page.with_class("launch")][:2]
    assert colab == f"https://colab.research.google.com/github/{repository}/blob/main/notebooks/{path.name}"
    assert binder == f"https://mybinder.org/v2/gh/{repository}/main?urlpath=lab/tree/notebooks/{path.name}"
    in_header = [link for link in page.all("a", "href") if any(link.startswith(host) for host in HOSTS)]
    assert {urllib.parse.unquote(link).removesuffix("/") for link in in_header} == {colab, binder}


def slider_cells(path: Path) -> list[NotebookNode]:
    return [cell for cell in code_cells(read(path)) if has_slider(cell)]


def frames(path: Path) -> list[dict]:
    """What is stored of a chapter's sliders. Without any, the test is skipped."""
    stored = stored_frames(ROOT / "docs", path.stem)
    if not stored:
        pytest.skip(f"no pictures yet: python tools/store_notebooks.py --only-frames notebooks/{path.name}")
    return [exploration for exploration in stored if exploration]


@pytest.mark.parametrize("path", CHAPTERS, ids=lambda path: path.stem)
def test_a_slider_has_its_place(path, pages):
    assert len(pages[chapter(path)].with_class("slider")) == len(slider_cells(path)) >= 1
    assert SLIDER_TEXT not in pages[chapter(path)].text


@pytest.mark.parametrize("path", CHAPTERS, ids=lambda path: path.stem)
def test_the_pictures_belong_to_the_sliders_that_are_stored(path, pages):
    stored = frames(path)
    cells = [cell for cell in slider_cells(path) if explores(cell)]
    assert [exploration["code"] for exploration in stored] == [code_of(cell) for cell in cells]
    names = {name for exploration in stored for name in exploration["frames"]}
    folder = ROOT / "docs" / "frames" / path.stem[:2]
    assert {file.name for file in folder.iterdir()} == {"sliders.json", *names}
    assert len(pages[chapter(path)].with_class("explore")) == len(stored)


def test_the_pictures_of_the_sliders_are_small():
    sizes = [file.stat().st_size for file in (ROOT / "docs" / "frames").rglob("*.webp")]
    assert sum(sizes) <= MOST_BYTES_OF_FRAMES and max(sizes, default=0) <= 100_000


def test_every_loss_stands_beside_its_paper(pages):
    links = pages["papers.html"].all("a", "href")
    losses = [name for name in kdutils.losses.__all__ if name.endswith(("_loss", "VIDLoss"))]
    found = {link.rpartition(".")[2] for link in links if "#kdutils.losses." in link}
    # these are forms or parts of another, or need no paper
    assert set(losses) - found == {
        "ensemble_kd_loss", "multilabel_kd_loss", "rkd_angle_loss", "rkd_distance_loss",
    }  # fmt: skip


def test_the_glossary_is_sorted_and_each_chapter_links_its_terms_once(pages):
    names = re.findall(r'<dt id="term-[^>]+>(.*?)<', pages["glossary.html"].path.read_text(encoding="utf-8"))
    assert len(names) > 30 and names == sorted(names, key=str.lower)
    for path in CHAPTERS:
        links = [attrs["href"] for attrs in pages[chapter(path)].with_class("term")]
        assert len(links) == len(set(links)) >= 3, path.stem
        assert all(link.startswith("../glossary.html#term-") for link in links)
        in_a_link = r"<a [^>]*>(?:(?!</a>).)*<a "
        assert not re.search(in_a_link, pages[chapter(path)].path.read_text(encoding="utf-8"), re.DOTALL)
    assert sum("../glossary.html#term-teacher" in page.all("a", "href") for page in pages.values()) >= 5


def test_a_term_is_found_as_whole_words_and_the_longest_one():
    places = {"soft targets": "a", "soft labels": "a", "kl": "b", "student": "c", "layer": "d"}
    parts = linked("Two students, a student. Multi-layer: soft targets.", pattern(list(places)), places, "g")
    assert [part.astext() for part in parts] == [
        "Two ",
        "student",
        "s, a student. Multi-layer: ",
        "soft targets",
        ".",
    ]
    assert places == {"kl": "b", "layer": "d"}


def test_a_way_in_adds_up(pages):
    tracks = [page for name, page in pages.items() if name.startswith("tracks/")]
    assert len(tracks) == 5
    for page in tracks:
        rows = re.findall(r"\n(\d+)\s+(\d+)\s", re.sub(r"[^\S\n]+", "", page.text))
        totals = re.findall(
            r"In all (?:(\d+) h )?(\d+)(?: minutes)? to read, and (\d+) minutes in", page.text
        )
        read = sum(60 * int(hours or 0) + int(minutes) for hours, minutes, _ in totals)
        assert len(rows) >= 3 and totals
        assert (sum(int(run) for run, _ in rows), sum(int(of_one) for _, of_one in rows)) == (
            sum(int(run) for *_, run in totals), read,
        )  # fmt: skip


@pytest.mark.parametrize("path", CHAPTERS, ids=lambda path: path.stem)
def test_a_chapter_leads_on_with_the_next_question(path, pages):
    page, place = pages[chapter(path)], CHAPTERS.index(path)
    neighbors = [*CHAPTERS[:place][-1:], *CHAPTERS[place + 1 :][:1]]
    assert len(page.with_class("question")) >= len(neighbors)
    for neighbor in neighbors:
        _, question, _, _ = chapter_row(neighbor).strip("| \n").split(" | ")
        assert plain(question) in plain(page.text)


def plain(text: str) -> str:
    return re.sub(r"[^\w%]+", " ", text)


def test_every_page_says_what_it_is_to_those_who_find_or_share_it(pages, site):
    for name, page in pages.items():
        if name == "search.html":
            continue
        said = {attrs.get("name", attrs.get("property")): attrs.get("content")
                for tag, attrs in page.elements if tag == "meta"}  # fmt: skip
        assert len(said["description"]) > 20 and said["og:title"] and said["og:image:alt"], name
        assert said["og:url"] == site_address(declared_repository(ROOT)) + name
        picture = said["og:image"].removeprefix(site_address(declared_repository(ROOT)))
        assert Image.open(site / picture).size == (1200, 630)
        (data,) = re.findall(r'<script type="application/ld\+json">(.*?)</script>', page.path.read_text())
        kind = (
            "Course"
            if name == "index.html"
            else "LearningResource"
            if "notebooks/" in name
            else "TechArticle"
        )
        found = json.loads(data)
        assert found["@type"] == kind and found["description"] and found["name"], name
    assert re.fullmatch(r"PT\d+M", json.loads(structured(pages[chapter(CHAPTERS[0])]))["timeRequired"])


def structured(page: Page) -> str:
    return re.findall(r'<script type="application/ld\+json">(.*?)</script>', page.path.read_text())[0]


def test_the_readmes_picture_and_its_numbers_are_those_of_chapter_00():
    assert PICTURE.read_bytes() == picture(CHAPTERS[0]), "python tools/write_lists.py"
    (alternative,) = re.findall(
        r"!\[(.*?)\]\(docs/_static/paired_seeds.png\)", README.read_text(encoding="utf-8")
    )
    known = {float(number) for number in re.findall(r"\d+\.?\d*", "".join(shown(CHAPTERS[0])))}
    rounded = known | {round(number) for number in known} | {round(number, 1) for number in known}
    assert len(numbers := re.findall(r"\d+(?:\.\d+)?(?=%| points| over)", alternative)) == 6
    assert {float(number) for number in numbers} <= rounded
    assert len(alternative) > 100


def shown(path: Path) -> Iterator[str]:
    """What the cells of a chapter printed, tables too."""
    for cell in code_cells(read(path)):
        for output in cell.outputs:
            yield output.get("text", "") + output.get("data", {}).get("text/plain", "")


def test_every_link_to_the_repository_leads_to_the_declared_one(pages):
    found = {
        name for page in pages.values() for name in linked_repositories("\n".join(page.all("a", "href")))
    }
    assert found == {declared_repository(ROOT)}


def test_every_exercise_is_in_the_index(pages):
    exercises = [
        title.strip()
        for path in CHAPTERS
        for _, text in markdown(read(path))
        for title in re.findall(r"^### (Exercise \d+ · .+?)\s+difficulty", text, re.MULTILINE)
    ]
    assert len(exercises) >= 3 * len(CHAPTERS)
    page = pages["exercises.html"]
    assert len(
        [link for link in page.all("a", "href") if re.match(r"notebooks/\w+\.html#exercise-", link)]
    ) == len(exercises)
    assert len(re.findall("[●○]{3}", page.text)) == len(exercises)


def test_every_public_module_has_a_page_and_the_course_comes_last(pages):
    on_disk = {
        ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")
        for path in (ROOT / "kdutils").rglob("*.py")
        if not path.name.startswith("_") or path.name == "__init__.py"
    }
    # parts of one thing have one page together; kdutils itself stands on the page of all modules
    public = {name for name in on_disk if not re.search(r"\.(audit|exercises)\.", name)} - {"kdutils"}
    assert {f"api/{name}.html" for name in public} == {name for name in pages if name.startswith("api/")}
    listed = [link for link in pages["api.html"].all("a", "href") if link.startswith("api/")]
    listed = list(dict.fromkeys(link.removeprefix("api/").removesuffix(".html") for link in listed))
    assert sorted(listed) == sorted(public)
    of_the_course = [name.startswith("kdutils.course") for name in listed]
    assert of_the_course == sorted(of_the_course) and listed[0] == "kdutils.losses"


@pytest.mark.parametrize("module", LOSSES)
def test_the_losses_say_what_they_take_and_where_they_are_written_out(module, pages):
    page = pages[f"api/kdutils.losses.{module}.html"]
    assert "Parameters" in page.text and "Raises" in page.text
    assert "Args:" not in page.text
    written_out = set(re.findall(r"notebook (\d\d)", (ROOT / "kdutils/losses" / f"{module}.py").read_text()))
    in_sidebar = {link for link in pages["api.html"].all("a", "href") if link.startswith("notebooks/")}
    assert len(in_sidebar) == len(CHAPTERS)
    links = [link for link in page.all("a", "href") if link.startswith("../notebooks/")]
    assert len(links) >= len(CHAPTERS) + len(written_out)


def test_names_in_docstrings_are_links(pages):
    """`fit` in kdutils.batches leads to kdutils.train, and a parameter's name stays code."""
    page = pages["api/kdutils.batches.html"]
    assert "kdutils.train.html#kdutils.train.fit" in page.all("a", "href")
    assert not [link for link in page.all("a", "href") if link.endswith("#seed")]


def test_an_indented_paragraph_of_a_docstring_is_shown_as_it_stands():
    lines = [
        "The mean:",
        "",
        "    |x| ** 2",
        "",
        "    more",
        "",
        "Args:",
        "    x: One.",
        "",
        "        Two.",
        "",
    ]
    keep_indented(None, "function", "f", None, None, lines)
    assert lines[:6] == ["The mean:", "", "::", "", "    |x| ** 2", ""] and lines.count("::") == 1
    lines = ["Args:", "", "    x: One."]
    keep_indented(None, "function", "f", None, None, lines)
    assert "::" not in lines


def test_nothing_is_left_unrendered(pages):
    for name, page in pages.items():
        assert not page.with_class("problematic") and not page.with_class("system-message"), name
        assert not re.search(r"\$\$|:(py:obj|chapter|doc):", page.text), name


def test_formulas_become_mathml():
    assert "<mfrac>" in mathml(r"\frac12 \big\| x \big\|", "inline")
    assert "ℒ" in mathml(r"\mathcal L_{KD}", "block")
    with pytest.raises(ValueError, match=r"\\nosuch cannot be converted .* in the formula a \\nosuch b"):
        mathml(r"a \nosuch b", "inline")


def test_a_figure_is_described_by_the_bold_words_above_it():
    def paragraph(before: str, bold: str = "", after: str = "") -> nodes.paragraph:
        return (
            nodes.paragraph("", before, nodes.strong("", bold), nodes.Text(after))
            if bold
            else nodes.paragraph("", before)
        )

    assert message([paragraph("One. Two. ", "Look here.", " Then there.")]) == "Look here. Then there."
    assert (
        message([paragraph("One. At last ", "a test", ", of two."), paragraph("Three.")])
        == "At last a test, of two."
    )
    assert message([paragraph("One."), paragraph("Two.\nThree.")]) == "Two. Three."
    assert message([paragraph("", "Look.", " And so on." * 99)]).endswith("And so on.")
    assert len(message([paragraph("", "Look.", " And so on." * 99)])) <= MOST_CHARACTERS
    assert message([]) == ""


@pytest.fixture(scope="module")
def address(site) -> Iterator[str]:
    """Where the site is served."""

    class Quiet(http.server.SimpleHTTPRequestHandler):
        def log_message(self, *arguments: object) -> None:
            pass

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(Quiet, directory=site))
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()


@pytest.fixture(scope="module")
def browser():
    from playwright.sync_api import sync_playwright

    executable = chromium()
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=executable, args=CHROMIUM_FLAGS)
        yield browser
        browser.close()


@pytest.fixture
def tab(browser, address):
    """A function that opens a tab; whatever goes wrong in it fails the test."""
    complaints, opened = [], []

    def new_tab(viewport: dict[str, int] | None = None, color_scheme: str = "light"):
        page = browser.new_page(viewport=viewport, color_scheme=color_scheme, base_url=address)
        page.set_default_timeout(1000 * PATIENCE)
        page.on(
            "console",
            lambda said: said.type in ("error", "warning") and complaints.append(f"{page.url}: {said.text}"),
        )
        page.on("pageerror", lambda error: complaints.append(f"{page.url}: {error}"))
        page.on(
            "request",
            lambda asked: (
                asked.url.startswith((address, "data:")) or complaints.append(f"{page.url} asks {asked.url}")
            ),
        )
        page.on(
            "response",
            lambda answer: (
                answer.ok
                or answer.status == 304
                or complaints.append(f"{page.url}: {answer.status} {answer.url}")
            ),
        )
        opened.append(page)
        return page

    yield new_tab
    for page in opened:
        page.close()
    assert complaints == []


def test_every_page_opens_on_a_phone_in_the_dark(pages, tab):
    """Without an error in the console, without asking another host, and no wider than the screen."""
    page = tab(PHONE, "dark")
    for name in pages:
        page.goto(f"/{name}")
        assert page.evaluate("document.documentElement.dataset.theme") == "dark"
        assert page.evaluate("document.documentElement.scrollWidth") <= PHONE["width"], name


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_text_stands_out(scheme, tab):
    page = tab(color_scheme=scheme)
    page.goto(f"/{chapter(CHAPTERS[0])}")
    selectors = [
        "h1",
        "article p",
        ".cell_input pre",
        ".cell_output pre",
        ".slider p",
        "a.launch",
        "table.dataframe td",
    ]
    contrasts = {selector: page.locator(selector).first.evaluate(CONTRAST) for selector in selectors}
    assert {selector for selector, contrast in contrasts.items() if contrast < DARKEST_TEXT_ON_DARK} == set()


@pytest.mark.parametrize("viewport", [None, PHONE], ids=["wide", "phone"])
@pytest.mark.parametrize("path", CHAPTERS, ids=lambda path: path.stem)
def test_a_slider_moves_by_key_and_changes_its_picture(path, viewport, tab):
    """Every slider, to both of its ends: picture and words are those of its value, and the picture loads.

    No picture is asked for before the slider comes into view. A slider may change nothing where another one
    decides alone, but not everywhere.
    """
    from playwright.sync_api import expect

    stored, page = frames(path), tab(viewport)
    asked = []
    page.on("request", lambda request: asked.append(request.url) if "/frames/" in request.url else None)
    page.goto(f"/{chapter(path)}")
    page.wait_for_load_state("networkidle")
    assert len(set(asked)) <= len(stored)
    for number, exploration in enumerate(stored):
        box = page.locator(".explore").nth(number)
        image = box.locator("img")
        box.scroll_into_view_if_needed()
        sliders = exploration["sliders"]
        numbers = np.arange(len(exploration["frames"])).reshape([len(each["labels"]) for each in sliders])
        places = [each["start"] for each in sliders]
        for which, (slider, handle) in enumerate(zip(sliders, box.locator("input").all(), strict=True)):
            along = np.moveaxis(numbers, which, -1).reshape(-1, len(slider["labels"]))
            assert any(len({exploration["frames"][frame] for frame in row}) > 1 for row in along)
            handle.focus()
            last, start = len(slider["labels"]) - 1, slider["start"]
            for key, step in [("ArrowRight", 1)] * (last - start) + [("ArrowLeft", -1)] * last:
                page.keyboard.press(key)
                places[which] += step
                label = slider["labels"][places[which]]
                assert handle.get_attribute("aria-valuetext") == label
                alternative = re.compile(rf"Here: (.+, )?{re.escape(slider['name'])} {re.escape(label)}[,.]")
                expect(image).to_have_attribute("alt", alternative)
                picture = exploration["frames"][numbers[tuple(places)]]
                expect(image).to_have_attribute("src", re.compile(f"{picture}$"))
            image.evaluate("image => image.decode()")
        assert image.bounding_box()["width"] <= page.viewport_size["width"]


WRONG = """<!doctype html><title>a</title><link rel="icon" href="_static/favicon.svg">
<h1>a</h1><h3>b</h3><img src="_static/favicon.svg">"""
SPOKEN = [
    "index.html", "which.html", "tracks/four_sessions.html", "exercises.html", "glossary.html", "papers.html",
    "install.html", "api/kdutils.losses.response.html", "search.html", chapter(CHAPTERS[0]),
]  # fmt: skip


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_nothing_hinders_those_who_listen_or_see_little(scheme, tab):
    """axe finds nothing: contrast, headings, names, alternative texts, landmarks."""
    page, findings = tab(color_scheme=scheme), {}
    for name in SPOKEN if scheme == "dark" else dict.fromkeys([*SPOKEN, *map(chapter, CHAPTERS)]):
        page.goto(f"/{name}")
        page.wait_for_load_state("networkidle")
        page.evaluate(AXE)
        # the colors of code are those of one page everywhere, and take axe most of its time
        context = "document" if name in SPOKEN else "{exclude: ['.highlight']}"
        found = page.evaluate(f"axe.run({context}, {AXE_OPTIONS})")["violations"]
        findings[name] = [(what["id"], what["nodes"][0]["html"]) for what in found]
    assert {name: found for name, found in findings.items() if found} == {}


def test_axe_finds_what_is_wrong(tab, site):
    (site / "wrong.html").write_text(WRONG)
    page = tab()
    page.goto("/wrong.html")
    page.evaluate(AXE)
    found = {what["id"] for what in page.evaluate(f"axe.run({AXE_OPTIONS})")["violations"]}
    assert {"image-alt", "heading-order", "html-has-lang"} <= found
    (site / "wrong.html").unlink()


@pytest.mark.parametrize("path", CHAPTERS, ids=lambda path: path.stem)
def test_a_chapter_can_be_printed(path, tab):
    """From title to references on a sensible number of pages, no figure cut in two or too wide."""
    page = tab(A4)
    page.goto(f"/{chapter(path)}")
    page.emulate_media(media="print")
    measure = "image => [image.clientWidth, image.clientHeight, getComputedStyle(image).breakInside]"
    pictures = page.locator("article img:not(details *)").evaluate_all(f"all => all.map({measure})")
    assert pictures
    for width, height, inside in pictures:
        assert 0 < width <= A4["width"] and 0 < height <= 0.8 * A4["height"] and inside == "avoid"
    for gone in (".bd-sidebar-primary", ".prev-next-area", ".explore .controls", "a.launch"):
        assert not page.locator(gone).first.is_visible(), gone
    sheets = len(re.findall(rb"/Type\s*/Page\b", page.pdf(format="A4")))
    words = len(page.locator("article").inner_text().split())
    assert words / 900 < sheets < words / 100


def test_without_a_script_the_slider_is_a_picture(browser, address):
    path = next((path for path in CHAPTERS if stored_frames(ROOT / "docs", path.stem)), CHAPTERS[0])
    frames(path)
    page = browser.new_page(java_script_enabled=False)
    page.set_default_timeout(1000 * PATIENCE)
    page.goto(f"{address}/{chapter(path)}")
    assert page.locator(".explore img").first.is_visible()
    assert not page.locator(".explore input").first.is_visible()
    page.close()


SOUGHT = {
    "temperature": "notebooks/01_",
    "attention_map": "api/kdutils.losses.feature",
    "relational knowledge distillation": "papers",
    "decoupled": "api/kdutils.losses.response",
    "fitnets": "api/kdutils.losses.feature",
    "minillm": "api/kdutils.losses.sequence",
}


def test_search_finds_a_chapter_and_a_loss_also_by_its_papers_name(tab):
    page = tab()
    for words, expected in SOUGHT.items():
        page.goto("/index.html")
        page.keyboard.press("Control+k")
        page.keyboard.type(words)
        page.keyboard.press("Enter")
        result = page.locator(f"#search-results a[href*='{expected}']").first
        result.click()
        page.wait_for_url(f"**/{expected}*")
        assert words in page.locator("article").inner_text().lower()


def test_the_map_and_the_cards_lead_to_the_chapters(tab):
    page = tab()
    for place in (".course-map a", "ul.chapters a"):
        page.goto("/index.html")
        assert page.locator(place).count() >= min(len(CHAPTERS), 9)
        page.locator(f"{place}[href*='02_feature']").first.click()
        page.wait_for_url("**/notebooks/02_feature_knowledge.html")
