"""The table of the trade-off is what the stored notebooks print, and gives the plot its points."""

import runpy
import shutil
from pathlib import Path

import nbformat
import pandas as pd
import pytest
import store_trade_off
from damage import alter, remove, truncate

from kdutils import evaluate
from kdutils.course import data, models, runtime, trade_off
from kdutils.course.data import DataFileError

POINTS = pd.DataFrame(
    {
        "chapter": [7] * 5,
        "model": ["5 layers, width 32"] * 2 + ["3 layers, width 8"] * 2 + ["2 layers, width 2"],
        "arm": ["teacher"] * 2 + ["distilled"] * 2 + ["labels only"],
        "shown_as": ["teacher"] * 2 + ["both"] * 2 + [None],
        "runtime": ["onnx fp32", "onnx int8", "eager", "onnx fp32", "onnx fp32"],
        "data": ["38,000 labels"] * 2 + ["20,000 unlabeled images"] * 2 + ["500 labels"],
        "start": ["teacher"] * 2 + ["scratch"] * 3,
        "parameters": [278_890, 278_890, 6_274, 6_274, 272],
        "macs": [13_605_248, 13_605_248, 296_672, 296_672, 12_000],
        "size_mb": [1.1189, 0.3, 0.0256, 0.0256, 0.001],
        "latency_ms": [0.8, 0.3, 0.2, 0.1, 0.15],
        "accuracy": [91.89, 91.8, 80.5, 80.5, 60.25],
        "standard_error": [0.0, 0.0, 0.31, 0.31, 0.5],
    }
)


def notebook_that_prints(text, path):
    cell = nbformat.v4.new_code_cell(
        "", execution_count=1, outputs=[nbformat.v4.new_output("stream", text=text)]
    )
    nbformat.write(nbformat.v4.new_notebook(cells=[cell]), path)
    return path


@pytest.fixture
def copied_table(tmp_path, monkeypatch):
    """A table of POINTS, stored by the tool, under a root of its own; the module that reads it is a copy."""
    for name in (".git", "data", "kdutils"):
        (tmp_path / name).mkdir()
    module = Path(shutil.copy(trade_off.__file__, tmp_path / "kdutils"))
    monkeypatch.setattr(trade_off, "__file__", str(module))
    monkeypatch.setattr(data, "data_dir", lambda: tmp_path / "data")
    monkeypatch.setattr(trade_off, "data_dir", data.data_dir)
    notebook = notebook_that_prints(trade_off.as_csv(POINTS, 0.8) + "\n", tmp_path / "07.ipynb")
    store_trade_off.store(store_trade_off.table([notebook]))
    monkeypatch.setattr(trade_off, "SHA256", runpy.run_path(str(module))["SHA256"])
    return tmp_path / "data" / trade_off.FILE


def test_what_a_notebook_prints_is_read_back(copied_table):
    pd.testing.assert_frame_equal(trade_off.load_trade_off(), POINTS, rtol=1e-4)


def test_the_latencies_of_a_slower_run_are_read_at_the_speed_of_the_first(copied_table, monkeypatch):
    folder = copied_table.parent
    slower = POINTS.assign(chapter=8, latency_ms=3 * POINTS["latency_ms"])
    notebooks = [
        notebook_that_prints(trade_off.as_csv(points, teacher), folder / name)
        for points, teacher, name in ((POINTS, 0.8, "07.ipynb"), (slower, 2.4, "08.ipynb"))
    ]
    store_trade_off.store(store_trade_off.table(notebooks))
    monkeypatch.setattr(trade_off, "SHA256", runpy.run_path(trade_off.__file__)["SHA256"])
    both = trade_off.load_trade_off()
    assert list(both.columns) == list(trade_off.COLUMNS)
    assert both["latency_ms"].tolist() == pytest.approx(2 * POINTS["latency_ms"].tolist())


@pytest.mark.parametrize("damage", [remove, truncate, alter])
def test_a_damaged_table_is_named_with_its_repair(copied_table, damage):
    damage(copied_table)
    with pytest.raises(DataFileError, match=r"expected .*SHA-256.* Repair: git -C .* restore data/trade_off"):
        trade_off.load_trade_off()


def test_rows_of_several_notebooks_stand_below_one_header(tmp_path):
    notebooks = [
        notebook_that_prints(
            trade_off.as_csv(POINTS.assign(chapter=chapter), 0.8), tmp_path / f"{chapter}.ipynb"
        )
        for chapter in (7, 8)
    ]
    lines = store_trade_off.table(notebooks).splitlines()
    assert lines.count(store_trade_off.HEADER) == 1
    assert [line[0] for line in lines[1:]] == ["7"] * 5 + ["8"] * 5


def test_a_notebook_without_the_table_is_refused(tmp_path):
    with pytest.raises(ValueError, match="expected a cell that prints"):
        store_trade_off.table([notebook_that_prints("accuracy\n", tmp_path / "07.ipynb")])


def test_the_stored_table_is_what_the_stored_notebooks_print():
    on_disk = (data.data_dir() / trade_off.FILE).read_text()
    assert on_disk == store_trade_off.table(store_trade_off.chapters()), "python tools/store_trade_off.py"
    assert len(trade_off.load_trade_off()) == len(on_disk.splitlines()) - 1


def test_other_columns_are_refused():
    with pytest.raises(ValueError, match="expected the columns"):
        trade_off.as_csv(POINTS.drop(columns="macs"), 0.8)


# Every model in every runtime


def test_the_front_holds_what_nothing_beats():
    assert POINTS[trade_off.on_front(POINTS)]["latency_ms"].tolist() == [0.8, 0.3, 0.1]
    alike = pd.DataFrame({"latency_ms": [1.0, 1.0, 2.0], "accuracy": [70.0, 80.0, 80.0]})
    assert trade_off.on_front(alike).tolist() == [False, True, False]


def test_the_plot_names_each_model_once_where_it_is_fastest():
    ax = trade_off.draw(POINTS)
    named = {text.get_text(): text.xy for text in ax.texts}
    assert named == {"teacher": (0.3, 91.8), "both": (0.1, 80.5)}
    assert [text.get_text() for text in ax.get_legend().get_texts()] == [
        "ONNX int8", "ONNX fp32", "eager", "teacher", "scratch",
    ]  # fmt: skip
    (front,) = (line for line in ax.lines if len(line.get_xdata()))
    assert front.get_xdata().tolist() == [0.1, 0.3, 0.8]


def test_joined_tables_are_drawn_though_they_number_their_rows_alike():
    (front,) = (
        line
        for line in trade_off.draw(pd.concat([POINTS[:2], POINTS[2:].reset_index(drop=True)])).lines
        if len(line.get_xdata())
    )
    assert front.get_xdata().tolist() == [0.1, 0.3, 0.8]


def test_a_plot_without_onnx_runtime_draws_the_front_of_the_rest():
    eager = POINTS.assign(runtime="eager")
    (front,) = (line for line in trade_off.draw(eager).lines if len(line.get_xdata()))
    assert front.get_xdata().tolist() == [0.1, 0.3, 0.8]


@pytest.fixture(scope="module")
def everywhere():
    images = data.normalize_fashion_mnist(data.fashion_mnist().test.images[:40])
    labels = data.fashion_mnist().test.labels[:40]
    networks = [models.small_cnn(seed, width=4).eval() for seed in (0, 1)]
    return networks, images, labels, trade_off.run_everywhere({"thin": networks}, images, images, labels)


def test_a_model_is_run_in_every_runtime(everywhere):
    networks, images, labels, rows = everywhere
    assert rows["runtime"].tolist() == ["eager", "onnx fp32", "onnx int8"]
    assert set(rows.columns) == set(trade_off.COLUMNS) - {"chapter", "arm", "shown_as", "data", "start"}
    scores = [evaluate.accuracy(network(images), labels) for network in networks]
    assert rows["accuracy"][:2].tolist() == pytest.approx([sum(scores) / 2] * 2)
    assert rows["standard_error"][0] == pytest.approx(abs(scores[0] - scores[1]) / 2)
    assert (rows["latency_ms"] > 0).all() and rows["size_mb"][2] < rows["size_mb"][1]


def test_where_onnx_runtime_is_missing_the_rows_are_eager(everywhere, monkeypatch, capsys):
    networks, images, labels, _ = everywhere
    monkeypatch.setattr(runtime, "find_spec", lambda name: None)
    rows = trade_off.run_everywhere({"thin": networks[:1]}, images, images, labels)
    assert rows["runtime"].tolist() == ["eager"] and rows["standard_error"].tolist() == [0.0]
    assert "pip install onnx onnxruntime onnxscript" in capsys.readouterr().out
