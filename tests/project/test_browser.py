"""A real browser moves the slider of a notebook in a real JupyterLab, and the picture must follow.

The notebook that is opened holds only the chapter's cells tagged `browser`: its set-up and its first slider.
"""

import os
import shutil
import socket
import subprocess
import sys
import time
import urllib.request
from pathlib import Path

import psutil
import pytest
from nbformat import NotebookNode
from notebook_files import CHAPTERS, ROOT, code_cells, read, small_chapter, with_tag, write

CHROMIUM_NAMES = [
    "chromium", "chromium-browser", "google-chrome", "google-chrome-stable",
    "/Applications/Google Chrome.app/Contents/MacOS/Google Chrome",
]  # fmt: skip
CHROMIUM_FLAGS = [
    "--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run",
    "--disable-background-networking", "--disable-component-update", "--disable-sync",
]  # fmt: skip
SECONDS_TO_START = 60
SECONDS_TO_RUN = 120
SECONDS_TO_REDRAW = 15

KERNEL_IS_READY = (
    "window.jupyterapp?.shell.currentWidget?.sessionContext?.session"
    "?.kernel?.connectionStatus === 'connected'"
)
SLIDER_CELL = ".jp-CodeCell:has(.noUi-handle)"


class PictureStandsStill(AssertionError):
    """The slider was moved, and the picture stayed the same."""


def free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return listener.getsockname()[1]


def chromium() -> str:
    """The path of Chromium or Chrome. Without one the tests are skipped, but under CI=true they fail."""
    path = next(filter(None, map(shutil.which, CHROMIUM_NAMES)), None)
    if path is None:
        reason = "there is no Chromium or Chrome on this machine: install one to run the browser test"
        pytest.fail(reason) if os.environ.get("CI") == "true" else pytest.skip(reason)
    return path


@pytest.fixture(scope="module")
def lab(tmp_path_factory):
    """(address, folder) of a running JupyterLab that knows no settings but its own."""
    folder = tmp_path_factory.mktemp("lab")
    settings = tmp_path_factory.mktemp("settings")
    kinds = ("JUPYTER_CONFIG_DIR", "JUPYTER_DATA_DIR", "JUPYTER_RUNTIME_DIR", "IPYTHONDIR")
    port = free_port()
    with open(settings / "log", "w") as log:
        server = subprocess.Popen(
            [
                sys.executable, ROOT / "tests" / "harness" / "guarded.py",
                sys.executable, "-m", "jupyterlab", "--no-browser", "--allow-root", "--ip=127.0.0.1",
                f"--port={port}", "--ServerApp.port_retries=0", "--IdentityProvider.token=",
                f"--ServerApp.root_dir={folder}", "--LabApp.expose_app_in_browser=True",
                "--LabApp.check_for_updates_class=jupyterlab.NeverCheckForUpdate",
                "--LabApp.extension_manager=readonly",
            ],
            env={**os.environ, **{kind: str(settings / kind) for kind in kinds}},
            stdin=subprocess.PIPE, stdout=log, stderr=log, start_new_session=True,
        )  # fmt: skip
        try:
            address = f"http://127.0.0.1:{port}"
            wait_until_served(address, server, settings / "log")
            yield address, folder
        finally:
            server.stdin.close()
            server.wait(timeout=60)


def wait_until_served(address: str, server: subprocess.Popen, log: Path) -> None:
    for _ in range(240):
        try:
            urllib.request.build_opener(urllib.request.ProxyHandler({})).open(f"{address}/api", timeout=5)
            return
        except OSError:
            if server.poll() is not None:
                break
            time.sleep(0.25)
    pytest.fail(f"JupyterLab does not start:\n{log.read_text()}")


@pytest.fixture(scope="module")
def browser():
    from playwright.sync_api import sync_playwright

    executable = chromium()
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=executable, args=CHROMIUM_FLAGS)
        try:
            yield browser
        finally:
            browser.close()


def pictures(cell) -> list[str]:
    return cell.locator("img").evaluate_all("images => images.map(image => image.src)")


def move_slider(notebook: NotebookNode, name: str, lab: tuple[str, Path], browser) -> None:
    """Runs the notebook's cells tagged `browser` in JupyterLab and moves its first slider by one key.

    Raises PictureStandsStill unless the pictures under the slider change.
    """
    address, folder = lab
    notebook.cells = with_tag(notebook, "browser")
    for cell in code_cells(notebook):
        cell.outputs = []
    write(notebook, folder / name)
    page = browser.new_page()
    try:
        page.goto(f"{address}/lab/workspaces/{Path(name).stem}/tree/{name}")
        page.wait_for_function(KERNEL_IS_READY, timeout=1000 * SECONDS_TO_START)
        page.evaluate("void window.jupyterapp.commands.execute('notebook:run-all-cells')")
        cell = page.locator(SLIDER_CELL).first
        cell.locator("img").first.wait_for(timeout=1000 * SECONDS_TO_RUN)
        before = pictures(cell)
        handle = cell.locator(".noUi-handle").first
        value = handle.get_attribute("aria-valuenow")
        for key in ("ArrowRight", "ArrowLeft"):  # a slider may stand at its end
            if handle.get_attribute("aria-valuenow") == value:
                handle.press(key)
        assert handle.get_attribute("aria-valuenow") != value, "the slider does not move"
        deadline = time.monotonic() + SECONDS_TO_REDRAW
        while time.monotonic() < deadline:
            now = pictures(cell)
            if now and now != before:
                return
            page.wait_for_timeout(100)
        raise PictureStandsStill(f"{name}: the slider went from {value}, and the picture stayed the same")
    finally:
        page.evaluate("window.jupyterapp?.serviceManager.sessions.shutdownAll()")
        page.close()


@pytest.mark.parametrize("path", CHAPTERS, ids=lambda path: path.stem)
def test_the_slider_moves_the_picture(path, lab, browser):
    move_slider(read(path), path.name, lab, browser)


@pytest.mark.parametrize(
    "ci, outcome", [("true", pytest.fail), ("", pytest.skip)], ids=["under CI", "at home"]
)
def test_without_a_browser(ci, outcome, monkeypatch):
    monkeypatch.setenv("CI", ci)
    monkeypatch.setattr(shutil, "which", lambda name: None)
    with pytest.raises(outcome.Exception, match="no Chromium or Chrome"):
        chromium()


def test_nothing_is_left_running_when_the_tests_are_killed():
    """A child in a session of its own, as kernels are, ends when the guard's input closes."""
    child = (
        "import subprocess as s; p = s.Popen(['sleep', '99'], start_new_session=True);"
        "print(p.pid, flush=True); p.wait()"
    )
    command = [sys.executable, ROOT / "tests" / "harness" / "guarded.py", sys.executable, "-c", child]
    guard = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    sleeper = int(guard.stdout.readline())
    assert psutil.pid_exists(sleeper)
    guard.stdin.close()
    guard.wait(timeout=30)
    assert not psutil.pid_exists(sleeper) or psutil.Process(sleeper).status() == psutil.STATUS_ZOMBIE


def test_the_slider_of_the_small_chapter_moves_the_picture(lab, browser):
    move_slider(small_chapter(), "small.ipynb", lab, browser)


def test_a_slider_that_is_ignored_is_caught(lab, browser, monkeypatch):
    monkeypatch.setitem(globals(), "SECONDS_TO_REDRAW", 4)
    notebook = small_chapter()
    for cell in notebook.cells:
        cell.source = cell.source.replace("plt.plot([1, T])", "plt.plot([1, 2])")
    with pytest.raises(PictureStandsStill):
        move_slider(notebook, "dead.ipynb", lab, browser)
