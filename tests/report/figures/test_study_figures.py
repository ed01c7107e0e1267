"""Every figure of a study, whatever state the study is in."""

from __future__ import annotations

import json
import pickle
from functools import partial
from itertools import pairwise
from xml.etree import ElementTree

import numpy as np
import optuna
import plotly.graph_objects as go
import pytest
from scipy.stats import kendalltau

from msnas_optuna import EncoderCost, Lattice, MSNASSpace
from msnas_optuna.methods import METHODS
from msnas_optuna.methods.msnas.published import PUBLISHED
from msnas_optuna.methods.msnas.space import FEATURE_STRIDES
from msnas_optuna.methods.picture import Line
from msnas_optuna.report import figures
from msnas_optuna.report.figures import (
    figures_of,
    plot_architecture,
    plot_best_architectures,
    plot_comparison,
    plot_evolution,
    plot_family_tree,
    plot_heatmap,
    plot_survivors,
    plot_tradeoff,
    plot_training_curves,
    plot_transfer,
    study_figures,
)
from msnas_optuna.report.figures.comparison import (
    ComparisonInfo,
    get_comparison_info,
    get_sizes_info,
)
from msnas_optuna.report.figures.evolution import get_evolution_info, get_survivors_info
from msnas_optuna.report.figures.family import ancestors
from msnas_optuna.report.figures.heatmap import get_heatmap_info
from msnas_optuna.report.figures.style import KIND_COLORS
from msnas_optuna.report.figures.svg import svg
from msnas_optuna.report.figures.tradeoff import get_tradeoff_infos
from msnas_optuna.report.figures.training import get_transfer_info, kendall_tau
from msnas_optuna.storage import CONFIG, PLAN, Plan, Worker, identify, write_curve
from msnas_optuna.study.setting import window_around
from msnas_optuna.study.view import MOST_GENERATIONS, StudyView

from .conftest import add_trial, beside, configuration, search

MSNAS = METHODS["msnas"]
FIGURES = figures_of(MSNAS)

LIMIT = 30_000
"""Bytes of JSON; a dashboard sends every figure to every reader every few seconds."""


def best_first(study):
    return sorted(study.trials, key=lambda t: (-t.value, t.number))


def texts(figure):
    return " ".join(a.text for a in figure.layout.annotations if a.text)


# ---------------------------------------------------------------------- data


def test_both_drawings_of_an_architecture_show_all_its_marks():
    published, cost = PUBLISHED["r18-1"].architecture, EncoderCost.from_preset("r18")
    picture = MSNAS.picture(published, name="<r18-1>", cost=cost)
    drawn = svg(picture)
    assert "&lt;r18-1&gt;" in drawn
    root = ElementTree.fromstring(drawn)
    titles = [e.text for e in root.iter("{http://www.w3.org/2000/svg}title")]
    n_lines = 0
    for panel in picture.panels:
        for mark in panel.marks:
            n_lines += isinstance(mark, Line)
            if not isinstance(mark, Line):
                titles.remove(mark.text)
    assert titles == [picture.name]
    assert drawn.count('fill="none"') == n_lines
    texts = [e.text for e in root.iter("{http://www.w3.org/2000/svg}text")]
    for _, label in (*picture.ticks, *picture.panels[0].ticks):
        texts.remove(label)
    bars = list(root.iter("{http://www.w3.org/2000/svg}rect"))
    heights = sum(float(bar.get("height")) for bar in bars)
    panel = picture.panels[1]
    amounts = sum(bar.height for bar in panel.marks)
    assert heights * panel.y[1] / panel.height == pytest.approx(amounts, rel=0.01)
    assert amounts == pytest.approx(cost.total(published) / 1e9)


def test_evolution_info_follows_the_population(searched):
    info = get_evolution_info(StudyView.of(searched))
    assert info.generations == [0, 1, 2, 3, 4]
    least, *_, largest = info.quantiles
    assert largest == sorted(largest)
    # Topk of the union never loses a member to a worse one.
    assert least == sorted(least)
    values = [100 * t.value for t in searched.trials]
    assert largest[0] == max(values[:6])
    assert largest[-1] == max(values)
    assert [row[-1] for row in info.quantiles] == pytest.approx(
        np.quantile(sorted(values)[-6:], (0, 0.25, 0.5, 0.75, 1))
    )
    random = [t for t in searched.trials if t.user_attrs["origin"] == "random"]
    assert info.random == [(t.user_attrs["generation"], 100 * t.value) for t in random[6:]]


def test_survivors_add_up_to_the_population(searched):
    info = get_survivors_info(StudyView.of(searched))
    sums = [sum(shares[g] for shares in info.values()) for g in range(5)]
    assert sums == pytest.approx([1.0] * 5)
    assert info["random"][0] == 1
    assert set(info) <= {"random", "recombination", "crossover", "mutation"}


def test_stride_maps_are_of_the_population(searched, table):
    populations = StudyView.of(searched).populations
    blocks, heads = (get_heatmap_info(h, populations) for h in MSNAS.heatmaps.values())
    assert (len(blocks.mean), len(heads.mean)) == (7, 5)
    last = [table.space.decode(t.params) for t in best_first(searched)[:6]]
    for i, row in enumerate(blocks.mean):
        members = [a.absolute_strides[i] for a in last]
        assert row[-1] == pytest.approx(2 ** np.log2(members).mean())
        assert blocks.share[i][-1] == max(members.count(a) for a in FEATURE_STRIDES) / 6
    assert [row[-1] for row in heads.mean] == sorted(row[-1] for row in heads.mean)  # Eq. 7


def test_family_holds_all_ancestors_and_nothing_else(searched):
    youngest = searched.trials[-1].number
    plans = {t.number: t.system_attrs[PLAN]["parents"] for t in searched.trials}
    expected, queue = set(), [youngest]
    while queue:
        for parent in plans[queue.pop()]:
            expected.add(parent)
            queue.append(parent)
    assert expected
    found = [m.number for m in ancestors(StudyView.of(searched), youngest)]
    assert found == sorted(expected, reverse=True)
    figure = plot_family_tree(searched, trial=youngest)
    assert f"{len(expected)} ancestors</sup>" in figure.layout.title.text
    edges, at = figure.data[0], {t.number: t for t in searched.trials}
    ends = [
        end
        for child in sorted(expected | {youngest})
        for parent in plans[child]
        for end in (at[parent], at[child])
    ]
    assert [x for x in edges.x if x is not None] == [t.user_attrs["generation"] for t in ends]
    assert [y for y in edges.y if y is not None] == pytest.approx(
        [100 * t.value for t in ends], rel=1e-3
    )


def test_tradeoff_points_lie_in_the_window_and_the_front_is_not_dominated(complete):
    searched = complete
    (info,) = get_tradeoff_infos(StudyView.of(searched))
    assert info.cost == "GFLOPs"
    low, high = info.window
    assert len(info.points) == 30
    assert all(low <= p.x <= high for p in info.points)
    for member in info.front:
        assert not any(
            (p.x <= member.x and p.ap > member.ap) or (p.x < member.x and p.ap >= member.ap)
            for p in info.points
        )
    assert max(info.front, key=lambda p: p.ap).ap == max(p.ap for p in info.points)
    assert info.baseline.ap == pytest.approx(30)


def test_latency_has_an_axis_of_its_own_where_it_is_measured(table):
    study = optuna.create_study(directions=["maximize", "minimize"])
    study.set_user_attr(CONFIG, configuration(table.feasible, population_size=4))
    study.set_metric_names(["AP", "latency ms"])
    for i in range(4):
        add_trial(study, table.space, table.feasible.at(i), 0.1 * i, 5.0 + i)
    gflops, info = get_tradeoff_infos(StudyView.of(study))
    assert (gflops.cost, info.cost) == ("GFLOPs", "latency ms")
    assert [p.x for p in info.front] == [5, 6, 7, 8]
    assert sorted(p.x for p in info.points) == [5, 6, 7, 8]
    best = plot_best_architectures(StudyView.of(study)).layout.title.text
    assert best.startswith("The best 4 architectures by AP, and")
    assert all(len(f.to_json()) < LIMIT for f in study_figures(study).values())


def test_comparison_counts_what_the_best_exceeds(complete):
    searched, info = complete, get_comparison_info(StudyView.of(complete))
    random = [100 * t.value for t in searched.trials if t.user_attrs["origin"] == "random"]
    assert list(info.random) == sorted(random)
    assert len(info.random) + len(info.bred) == 30
    assert info.best == (100 * searched.best_value, searched.best_trial.number)
    assert info.best_kind == "random"
    assert info.beaten == "all others"
    assert info.baseline == pytest.approx(30)


def comparison(**changes):
    values = {"random": (10.0, 20.0), "children": {}, "best": (30.0, 7), "best_kind": "mutation"}
    return ComparisonInfo(**values | {"baseline": None, "measured": 2} | changes)


def test_all_is_said_only_where_it_is_all():
    many = tuple(float(i) for i in range(200))
    assert comparison().beaten == "all of them"
    assert comparison(random=many, best=(198.5, 0)).beaten == "99% of them"  # 199 of 200
    assert comparison(random=(10.0, 30.0), best_kind="random").beaten == "all others"
    assert comparison(random=(10.0, 30.0)).beaten == "50% of them"  # a child with the same AP
    assert comparison(random=()).beaten is None
    assert comparison(random=(30.0,), best_kind="random").beaten is None
    assert comparison(random=(20.0, 30.0), best_kind="random").beaten == "all others"


def test_differences_agree_with_the_values_that_are_shown():
    info = comparison(random=(27.14,), best=(30.36, 7), baseline=30.36)
    assert f"{30.36:.1f} - {27.14:.1f}" == "30.4 - 27.1"
    assert info.over_random == "+3.3"  # and not +3.2
    assert info.over_baseline == "+0.0"


def test_margins_of_the_best_have_their_caveat(complete):
    n = len(StudyView.of(complete).results)
    assert f"the best of {n} measured values: a part of it is luck" in str(
        plot_comparison(complete).layout.title.text
    )


def test_queued_architectures_count_among_the_measured(table):
    study = search(table, 4, optuna.storages.InMemoryStorage())
    space = table.space
    add_trial(study, space, space.fpn_like(), 0.1)
    n = len(StudyView.of(study).results)
    assert n == 5
    assert "the best of 5 measured values" in str(plot_comparison(study).layout.title.text)


def test_one_trial_is_compared_with_nothing(table):
    study = search(table, 1, optuna.storages.InMemoryStorage())
    assert plot_comparison(study).layout.title.text == "The best against chance and hand"


def test_no_more_architectures_are_announced_than_drawn(table):
    study = search(table, 2, optuna.storages.InMemoryStorage())
    assert plot_best_architectures(study).layout.title.text.startswith("The best 2 architectures,")
    title = plot_best_architectures(study, top=1).layout.title.text
    assert title.startswith("The best architecture, and the FPN-like path")


def test_one_generation_is_singular(table):
    study = search(table, 6, optuna.storages.InMemoryStorage())
    assert "after 1 generation the best" in str(plot_evolution(study).layout.title.text)


def test_each_kind_has_one_color_in_every_figure(complete):
    seen = {}
    for name in ("comparison", "survivors", "family-tree", "tradeoff"):
        for trace in FIGURES[name](complete).data:
            kind = str(trace.name).split(" (")[0]
            if kind in KIND_COLORS:
                seen.setdefault(kind, set()).add(trace.marker.color)
    assert {"random", "crossover", "mutation"} <= seen.keys()
    assert all(colors == {KIND_COLORS[kind]} for kind, colors in seen.items())
    assert len(set(KIND_COLORS.values())) == len(KIND_COLORS)


def test_what_lies_over_what_and_in_which_order(complete):
    names = [trace.name for trace in plot_tradeoff(complete).data]
    kinds = [names.index(kind) for kind in KIND_COLORS if kind in names]
    assert names.index("Pareto front") > max(kinds)
    (front,) = [t for t in plot_tradeoff(complete).data if t.name == "Pareto front"]
    assert front.mode == "lines+markers"
    assert plot_survivors(complete).layout.legend.traceorder == "normal"


def test_the_stem_is_marked(searched):
    for figure in (plot_architecture(searched), plot_best_architectures(searched)):
        stems = [trace for trace in figure.data if trace.name == "stem"]
        assert stems
        assert all((trace.x, trace.y) == ((0,), (-2,)) for trace in stems)


def test_both_rows_of_an_architecture_have_their_marks_at_the_blocks(searched):
    layout = plot_architecture(searched).layout
    assert layout.xaxis.tickvals == layout.xaxis2.tickvals
    assert layout.xaxis.tickvals[:3] == (0, 1, 2)


@pytest.mark.parametrize("n_blocks", [7, 13, 32])
def test_no_lateral_connection_leaves_the_picture(n_blocks):
    space, study = MSNASSpace(n_blocks), optuna.create_study(direction="maximize")
    add_trial(study, space, space.fpn_like(), 0.1)
    view = StudyView(study, method=MSNAS, space=space)
    for figure in (plot_architecture(view), plot_best_architectures(view)):
        low, high = figure.layout.yaxis.range
        arcs = [trace for trace in figure.data if trace.name == "lateral connection"]
        assert arcs
        assert all(low < y < high for trace in arcs for y in trace.y if y is not None)


@pytest.mark.parametrize("n_blocks", [7, 21, 32])
def test_names_below_an_architecture_do_not_run_into_one_another(n_blocks):
    space, study = MSNASSpace(n_blocks), optuna.create_study(direction="maximize")
    add_trial(study, space, space.fpn_like(), 0.1)
    view = StudyView(study, method=MSNAS, space=space)
    for figure, width in ((plot_architecture(view), 500), (plot_best_architectures(view), 150)):
        axis = figure.layout.xaxis
        unit = width / (axis.range[1] - axis.range[0])  # pixels
        ends = [
            (unit * x - 3 * len(text), unit * x + 3 * len(text))
            for x, text in zip(axis.tickvals, axis.ticktext, strict=True)
        ]
        assert len(ends) >= 4
        assert all(left[1] < right[0] for left, right in pairwise(ends))


def test_the_family_tree_begins_at_the_first_generation(searched):
    for trial in searched.trials[0], searched.trials[-1]:
        axis = plot_family_tree(searched, trial=trial.number).layout.xaxis
        assert axis.range == (-0.5, trial.user_attrs["generation"] + 0.5)


def test_one_retrained_architecture_is_one(table):
    study = optuna.create_study(direction="maximize", study_name="one")
    study.set_user_attr(CONFIG, configuration(table.feasible, population_size=4))
    for at in (study, beside(study, "retrain")):
        add_trial(at, table.space, table.feasible.at(0), 0.1)
    assert plot_transfer(study).layout.title.text.endswith(">1 retrained architecture</sup>")


def test_tau_of_a_reversed_order_is_minus_one(complete):
    info = get_transfer_info(StudyView.of(complete))
    assert [p.alone for p in info.pairs] == pytest.approx([40, 50, 60])
    assert info.tau == pytest.approx(-1)
    assert (info.baseline.one_shot, info.baseline.alone) == pytest.approx((30, 20))


def test_tau_is_scipy_s():
    rng = np.random.default_rng(0)
    for n in (2, 3, 5, 40):
        first, second = rng.integers(0, 5, size=(2, n)).tolist()
        assert kendall_tau(first, second) == pytest.approx(kendalltau(first, second).statistic)
    for tied in ([], [1.0], [1.0, 1.0]):
        assert kendall_tau(tied, list(range(len(tied)))) is None


def test_sizes_are_percent_and_unknown_ones_stay_unknown(complete):
    rows = get_sizes_info(StudyView.of(complete), top=2)
    best = best_first(complete)[0]
    assert len(rows) == 2  # the baseline has no AP by size here
    assert rows[f"trial {best.number}"] == (
        pytest.approx(100 * best.value - 10),
        pytest.approx(100 * best.value),
        None,
    )


def test_training_curves_are_means_over_steps():
    study = optuna.create_study(direction="maximize")
    write_curve(study, "trial 3", [1.0] * 100_001)
    write_curve(study, "supernet", [4.0, 2.0] * 300)
    write_curve(study, "empty", [])
    supernet, retrained = plot_training_curves(study).data
    assert (supernet.name, retrained.name) == ("supernet", "trial 3")
    assert (len(supernet.x), supernet.x[-1]) == (150, 600)
    assert supernet.y == (3,) * 150
    assert retrained.x[-1] == 100_001
    for run in range(9):
        write_curve(study, f"trial {run}", [1.0] * 100_000)
    assert len(plot_training_curves(study).to_json()) < LIMIT


PLOTS = [n for n in figures.__all__ if n.startswith("plot_") and n != "plot_heatmap"]


@pytest.mark.parametrize("name", [*PLOTS, *MSNAS.heatmaps])
def test_every_public_figure_takes_a_study_and_nothing_else(complete, name):
    plot = getattr(figures, name) if name in PLOTS else partial(plot_heatmap, name=name)
    figure = plot(complete)
    assert isinstance(figure, go.Figure)
    assert figure.data, texts(figure)


def test_repeated_measurements_count_once_with_their_mean(table):
    study = optuna.create_study(direction="maximize")
    for value in (0.2, 0.4):
        add_trial(study, table.space, table.feasible.at(0), value)
    view = StudyView(study, method=MSNAS, space=table.space)
    assert [(r.number, r.ap) for r in view.results] == [(0, pytest.approx(0.3))]
    assert [r.ap for r in view.populations[0]] == [pytest.approx(0.3)]


# ---------------------------------------------------------------------- all figures


def test_titles_are_numbered_and_text_is_legible_on_any_background(complete):
    drawn = study_figures(complete)
    assert list(drawn) == list(FIGURES)
    for number, figure in enumerate(drawn.values(), start=1):
        assert figure.layout.title.text.startswith(f"{number}. ")
        assert figure.layout.template.to_plotly_json() == {}
        assert figure.layout.paper_bgcolor == figure.layout.plot_bgcolor == "rgba(0, 0, 0, 0)"
        assert figure.layout.font.color == figure.layout.modebar.color == "#808080"
        assert figure.layout.modebar.bgcolor == "rgba(0, 0, 0, 0)"
        assert figure.data, figure.layout.title.text


@pytest.mark.parametrize("state", ["empty", "one running", "one failed", "foreign", "one trial"])
def test_a_study_that_has_hardly_begun_has_figures_that_say_so(state, table):
    study = optuna.create_study(direction="maximize")
    if state == "one running":
        study.ask(table.space.distributions)
    if state == "one failed":
        study.tell(study.ask(table.space.distributions), state=optuna.trial.TrialState.FAIL)
    if state == "foreign":
        study.optimize(lambda t: t.suggest_float("x", 0, 1), n_trials=3)
    if state == "one trial":
        add_trial(study, table.space, table.feasible.at(0), 0.1)
    if state != "foreign":
        study.set_user_attr(CONFIG, configuration(table.feasible, population_size=4))
    for stages in ((), ("fpn-like", "retrain")):
        for stage in stages:
            beside(study, stage)
        for name, figure in study_figures(study).items():
            assert len(figure.to_json()) < LIMIT
            if state != "one trial" and (name != "space" or state == "foreign"):
                assert "yet" in texts(figure), name


def test_trials_of_others_and_damaged_ones_are_passed_over(searched):
    study = pickle.loads(pickle.dumps(searched))
    study.optimize(lambda t: t.suggest_float("x", 0, 1), n_trials=2)
    trial = study.ask()
    study._storage.set_trial_system_attr(trial._trial_id, PLAN, {"version": "of tomorrow"})
    study.tell(trial, state=optuna.trial.TrialState.FAIL)
    study.set_user_attr(CONFIG, {**study.user_attrs[CONFIG], "space.channels": "many"})
    assert len(StudyView.of(study).measurements) == 30
    for figure in study_figures(study).values():
        assert isinstance(figure, go.Figure)


def test_only_a_finished_trial_can_be_asked_for(searched):
    for plot in (plot_architecture, plot_family_tree):
        assert "trial 3" in str(plot(searched, trial=3).layout.title.text) + texts(
            plot(searched, trial=3)
        )
        with pytest.raises(ValueError, match=r"trial must be .* finished trial, got 99"):
            plot(searched, trial=99)


@pytest.mark.parametrize(
    ("n_blocks", "trials"), [(7, 2 * MOST_GENERATIONS), (21, 1200), (32, 300)]
)
def test_figures_of_long_studies_are_small_and_end_with_the_last_generation(n_blocks, trials):
    space, cost = MSNASSpace(n_blocks), EncoderCost.from_preset("r34")
    feasible = Lattice(space, cost, window=window_around(cost.total(space.fpn_like()), 0.02))
    study = optuna.create_study(direction="maximize")
    study.set_user_attr(CONFIG, configuration(feasible, population_size=50))
    rng, per_generation = np.random.default_rng(0), 1 if n_blocks == 7 else 20
    made_in = identify(study)
    for i in range(trials):
        architecture, generation = feasible.sample(rng), i // per_generation
        kind = ("random", "crossover_encoder", "mutation_feature_stride")[i % 3]
        parents = tuple(range(max(20 * generation - 2, 0), 20 * generation))
        params, here = space.encode(architecture), Worker.current(i)
        plan = Plan(params, generation, kind, parents, slot=i, study=made_in, worker=here)
        laterals = len(architecture.laterals) / 100  # the best are the largest to draw
        study.add_trial(
            optuna.create_trial(
                params=params,
                distributions=space.distributions,
                value=laterals + sum(architecture.absolute_strides) / 10000 + i / 77777,
                user_attrs=dict.fromkeys(("ap_small", "ap_medium", "ap_large"), 0.123456789),
                system_attrs={PLAN: plan.to_json()},
            )
        )
    view = StudyView.of(study)
    last = (trials - 1) // per_generation
    assert view.n_generations == last + 1
    blocks = get_heatmap_info(MSNAS.heatmaps["block-strides"], view.populations)
    for info in (get_evolution_info(view), blocks):
        assert info.generations[-1] == last
    assert max(get_survivors_info(view)["random"]) == last
    drawn = study_figures(view)
    assert f"after {last + 1} generations" in drawn["evolution"].layout.title.text
    assert "GFLOPs" in str(drawn["architecture"].data)
    assert drawn.keys() == FIGURES.keys()
    sizes = {name: len(figure.to_json()) for name, figure in drawn.items()}
    assert max(sizes.values()) < LIMIT, json.dumps(sizes, indent=2)
