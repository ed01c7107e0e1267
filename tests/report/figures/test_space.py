from __future__ import annotations

import json

import plotly.graph_objects as go
import pytest

from msnas_optuna.methods import METHODS
from msnas_optuna.methods.msnas.cost import EncoderCost
from msnas_optuna.methods.msnas.space import MSNASSpace
from msnas_optuna.report.figures import plot_flops_distribution, write_figure
from msnas_optuna.report.figures.space import plot_counted_space
from msnas_optuna.spaces.lattice import Lattice
from msnas_optuna.study.feasibility import Feasibility, preset_feasibility


@pytest.fixture(scope="module")
def r18():
    return preset_feasibility("r18")[0]


def test_the_figure_of_a_published_setting(r18):
    figure = plot_counted_space(r18)
    bars, *lines = figure.data
    assert isinstance(bars, go.Bar)
    assert sum(bars.y) == 13_003_499
    marks = {line.name.partition(":")[0]: line.x[0] for line in lines}
    assert marks == {
        "target": 145.45,
        "FPN-like path": r18.baseline / 1e9,
        "R18-FPN baseline": r18.references["R18-FPN baseline"] / 1e9,
    }
    (window,) = figure.layout.shapes
    assert (window.x0, window.x1) == (r18.window[0] / 1e9, r18.window[1] / 1e9)
    assert "13,003,499 architectures, 209,524 (1.61%) in the window" in figure.layout.title.text
    assert len(figure.to_json()) < 30_000


def test_a_space_of_ones_own_has_no_baseline_and_may_have_an_empty_window():
    cost = EncoderCost("basic", 8, (128, 128))
    found = Feasibility(METHODS["msnas"], MSNASSpace(5), cost, target=1e12, tolerance=0.01)
    figure = plot_counted_space(found)
    names = [line.name.partition(":")[0] for line in figure.data[1:]]
    assert names == ["target", "FPN-like path"]
    assert " 0 (0.00%) in the window" in figure.layout.title.text


def test_a_study_s_space_is_that_of_its_stored_configuration(searched, table):
    info, figure = table.feasible, plot_flops_distribution(searched)
    (window,) = figure.layout.shapes
    assert (window.x0, window.x1) == tuple(edge / 1e9 for edge in info.window)
    assert sum(figure.data[0].y) == Lattice(table.space).count()


def test_files(r18, tmp_path):
    figure = plot_counted_space(r18)
    write_figure(figure, tmp_path / "new" / "flops.json")
    stored = json.loads((tmp_path / "new" / "flops.json").read_text())
    assert stored == json.loads(figure.to_json())
    write_figure(figure, tmp_path / "flops.html")
    page = (tmp_path / "flops.html").read_text()
    assert '<meta name="color-scheme" content="light dark" />' in page
    assert "<script src=" not in page  # self-contained
    with pytest.raises(ValueError, match=r"a \.html or \.json file, got flops\.pdf"):
        write_figure(figure, type(tmp_path)("flops.pdf"))
