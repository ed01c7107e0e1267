"""What a search writes for optuna-dashboard, and how little of it."""

from __future__ import annotations

import json
import re
import subprocess
import sys
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import pairwise
from pathlib import Path

import optuna
import pytest
from markdown_it import MarkdownIt
from optuna.artifacts import get_all_artifact_meta
from optuna.trial import create_trial
from optuna_dashboard import get_note, save_note
from optuna_dashboard._custom_plot_data import get_plotly_graph_objects
from sqlalchemy import event

from msnas_optuna.cli.experiments import open_experiment
from msnas_optuna.methods import METHODS
from msnas_optuna.report.artifacts import (
    ArtifactFolder,
    Picture,
    put_pictures,
    stored_pictures,
)
from msnas_optuna.report.dashboard import Publisher, PublishingError, publish
from msnas_optuna.report.dashboard.note import BEGIN, END, by_people, merged
from msnas_optuna.report.detections import Drawing, refresh_detections, stored_detections
from msnas_optuna.report.figures import figures_of, study_figures
from msnas_optuna.report.overview import TOP, NothingToShowError
from msnas_optuna.storage import DETECTIONS, PUBLISHED, read_curves, write_curve, write_wanted
from msnas_optuna.storage.optuna_private import database_of, set_system_attr
from msnas_optuna.study.config import RETRAIN
from msnas_optuna.study.experiment import keep_losses
from msnas_optuna.study.rank import pool
from msnas_optuna.study.setting import Setting
from msnas_optuna.study.view import StudyView

MSNAS = METHODS["msnas"]
FIGURES = figures_of(MSNAS)

FULL_REFRESH = len(FIGURES) + TOP + len(["note version", "note", "what is shown", "digest"])
"""Writes, each a commit, when everything is new; 22 for a study of any length."""


@contextmanager
def writes(setting: Setting, *, stop_at: int | None = None) -> Iterator[list[str]]:
    """Every writing statement; dies before number `stop_at`, as a killed process does."""
    seen: list[str] = []

    def count(connection, cursor, statement, *_):
        if statement.lstrip().upper().startswith(("INSERT", "UPDATE", "DELETE")):
            seen.append(statement)
            if len(seen) == stop_at:
                raise Killed

    engine = database_of(setting.storage).engine
    event.listen(engine, "before_cursor_execute", count)
    try:
        yield seen
    finally:
        event.remove(engine, "before_cursor_execute", count)


class Killed(BaseException):
    """The process ends here."""


def shown(setting: Setting) -> dict[str, str]:
    study = setting.stored_study()
    return get_plotly_graph_objects(study._storage.get_study_system_attrs(study._study_id))


def best_pictures(setting: Setting) -> dict[str, Picture]:
    found = stored_pictures(setting.stored_study(), ArtifactFolder(setting.artifact_dir))
    return {name: picture for name, picture in found.items() if name.startswith("best-")}


def test_a_refresh_writes_figures_note_and_pictures(finished):
    setting = Setting.load(finished)
    publish(setting)
    assert shown(setting).keys() == FIGURES.keys()
    study = setting.stored_study()
    note = get_note(study)
    best = study.best_trial
    strides, reading = best.user_attrs["arch"].split(" | ")
    assert f"| trial {best.number}&emsp; | `{strides}`&emsp; | `{reading}`&emsp; |" in note
    assert "inside the window" in note
    assert MSNAS.legend in note
    assert f"msnas search {finished}" in note
    ids = {meta.filename: meta.artifact_id for meta in get_all_artifact_meta(study)}
    assert sorted(ids) == [f"best-{rank}.svg" for rank in range(1, TOP + 1)]
    for artifact in ids.values():
        assert f"(/artifacts/{study._study_id}/{artifact})" in note
    pictures = best_pictures(setting)
    assert all(b"<svg " in picture.content for picture in pictures.values())


def test_a_refresh_takes_few_commits_and_none_where_nothing_is_new(finished):
    setting = Setting.load(finished)
    with writes(setting) as first:
        publish(setting)
    assert len(first) <= FULL_REFRESH == 22
    with writes(setting) as second:
        publish(setting)
    assert second == []


def another_trial(setting: Setting, stage: str | None) -> None:
    study, space = setting.stored_study(stage), setting.space
    params, distributions = space.encode(setting.feasible.at(0)), space.distributions
    study.add_trial(optuna.create_trial(params=params, distributions=distributions, value=0.9))


def erase(setting: Setting, key: str) -> None:
    study = setting.stored_study()
    study._storage.set_study_system_attr(study._study_id, key, "")


CHANGES = {
    "a trial": lambda setting: another_trial(setting, None),
    "a measurement of the baseline": lambda setting: another_trial(setting, "fpn-like"),
    "a retraining": lambda setting: another_trial(setting, "retrain"),
    "losses": lambda setting: write_curve(setting.stored_study(), "supernet", [2.0, 1.0]),
    "wanted trials": lambda setting: write_wanted(setting.stored_study(), 90),
    "a figure": lambda setting: erase(setting, "dashboard:plot_data:evolution:0"),
    "a note": lambda setting: save_note(setting.stored_study(), "ours"),
    "a picture": lambda setting: next(setting.artifact_dir.iterdir()).unlink(),
}


@pytest.mark.slow
@pytest.mark.parametrize("change", CHANGES.values(), ids=CHANGES.keys())
def test_what_has_changed_is_published_and_nothing_is_drawn_before(finished, change, monkeypatch):
    drawn = []

    def count(view):
        drawn.append(view)
        return study_figures(view)

    monkeypatch.setitem(publish.__globals__, "study_figures", count)
    setting = Setting.load(finished)
    publish(setting)
    for n_drawn in (1, 2):
        for process in (setting, Setting.load(finished)):
            publish(process)
            assert len(drawn) == n_drawn
        if n_drawn == 1:
            change(setting)
            publish(setting)
    assert shown(setting).keys() == FIGURES.keys()


def test_what_could_not_be_drawn_is_tried_again(finished):
    setting, tried = Setting.load(finished), []

    def draw(selected):
        tried.append(selected)
        raise OSError("no GPU is free")

    publish(setting)
    for _ in range(2):
        with pytest.warns(UserWarning, match="the detections are not drawn: no GPU is free"):
            publish(setting, draw=draw)
    assert len(tried) == 2


def test_every_figure_is_one_attribute_and_leftovers_of_longer_ones_vanish(finished):
    setting = Setting.load(finished)
    study = setting.stored_study()
    for piece in range(3):
        study._storage.set_study_system_attr(
            study._study_id, f"dashboard:plot_data:evolution:{piece}", "old"
        )
    publish(setting)
    assert json.loads(shown(setting)["evolution"])["layout"]["title"]["text"].startswith("4. ")


@pytest.mark.slow
@pytest.mark.parametrize("step", range(1, FULL_REFRESH + 1, 4))
def test_a_kill_leaves_whole_figures_and_the_next_refresh_repairs(finished, step):
    setting = Setting.load(finished)
    with writes(setting, stop_at=step), pytest.raises(Killed):
        publish(setting)
    for text in shown(setting).values():
        json.loads(text)
    get_note(setting.stored_study())
    study = setting.stored_study()
    attributes = study._storage.get_study_system_attrs(study._study_id)
    assert PUBLISHED not in attributes  # so that the next trial refreshes
    publish(setting)
    assert shown(setting).keys() == FIGURES.keys()
    assert get_note(study).count(BEGIN) == get_note(study).count(END) == 1
    assert len(get_all_artifact_meta(study)) == TOP
    assert len(best_pictures(setting)) == TOP


def test_a_picture_that_was_announced_and_never_written_comes_with_the_next_refresh(finished):
    setting = Setting.load(finished)
    publish(setting)
    for file in ArtifactFolder(setting.artifact_dir).folder.iterdir():
        file.unlink()
    publish(setting)
    study = setting.stored_study()
    assert len(best_pictures(setting)) == TOP
    assert len(get_all_artifact_meta(study)) == TOP


def test_a_picture_that_somebody_has_deleted_in_the_dashboard_comes_back(finished):
    setting = Setting.load(finished)
    publish(setting)
    study = setting.stored_study()
    for meta in get_all_artifact_meta(study):  # as optuna-dashboard does
        ArtifactFolder(setting.artifact_dir).remove(meta.artifact_id)
        key = f"artifacts:{meta.artifact_id}"
        study._storage.set_study_system_attr(study._study_id, key, "null")
    publish(setting)
    assert len(best_pictures(setting)) == TOP
    assert len(get_all_artifact_meta(study)) == TOP


PUBLISHING = """
import sys
from msnas_optuna.report.dashboard import publish
from msnas_optuna.report.detections import Drawing
from msnas_optuna.study.setting import Setting

def draw(selected):
    print("at it", flush=True)
    sys.stdin.read()

publish(Setting.load(sys.argv[1]), draw=draw)
"""


def test_of_several_publishers_one_works_at_a_time_and_a_killed_one_is_in_nobodys_way(finished):
    setting = Setting.load(finished)
    with subprocess.Popen(
        [sys.executable, "-c", PUBLISHING, str(finished)],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
    ) as other:  # fmt: skip
        assert other.stdout.readline() == "at it\n"
        with pytest.raises(PublishingError, match=r"another process has been publishing for 0\.1"):
            publish(setting, wait=0.1)
        study = setting.stored_study()
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            Publisher(setting).after_trial(study)  # leaves it to the other
        assert not get_note(study)
        other.kill()
        publish(setting)  # waits until it is dead
    assert len(get_all_artifact_meta(study)) == TOP


def test_where_the_run_folder_is_not_shared_each_picture_has_one_id_too(finished, tmp_path):
    study, pictures = Setting.load(finished).stored_study(), {"best-1.svg": b"1", "a.png": b"2"}
    there = ArtifactFolder(tmp_path / "there")

    class Overtaken(ArtifactFolder):
        """While it writes, another machine stores the same pictures from start to end."""

        def write(self, artifact_id, content_body):
            put_pictures(study, there, pictures)
            super().write(artifact_id, content_body)

    here = Overtaken(tmp_path / "here")
    put_pictures(study, here, pictures)
    metas = get_all_artifact_meta(study)
    assert sorted(meta.filename for meta in metas) == ["a.png", "best-1.svg"]
    assert {meta.mimetype for meta in metas} == {"image/svg+xml", "image/png"}
    for folder in (here, there):
        assert {meta.filename: stored(folder, meta.artifact_id) for meta in metas} == pictures


def stored(folder: ArtifactFolder, artifact_id: str) -> bytes:
    with folder.open_reader(artifact_id) as file:
        return file.read()


@pytest.mark.slow
def test_several_workers_leave_each_picture_once(trained):
    text = trained.read_text().replace("tolerance = 0.05", "tolerance = 0.2")
    trained.write_text(text)
    command = [sys.executable, "-m", "msnas_optuna", "search", str(trained)]
    subprocess.run([*command, "--workers", "4", "--trials", "24"], check=True)
    setting = Setting.load(trained)
    study = setting.stored_study()
    names = [meta.filename for meta in get_all_artifact_meta(study)]
    assert len(names) == len(set(names))
    assert {f"best-{rank}.svg" for rank in range(1, TOP + 1)} <= set(names)
    assert len(list(setting.artifact_dir.iterdir())) == len(names)
    for meta in get_all_artifact_meta(study):
        assert f"/{meta.artifact_id})" in get_note(study)
    assert study._storage.get_study_system_attrs(study._study_id)[PUBLISHED] == 24
    assert f"| trial {study.best_trial.number}&emsp; |" in get_note(study)


def test_what_people_write_into_the_note_stays(finished):
    setting = Setting.load(finished)
    publish(setting)
    study = setting.stored_study()
    save_note(study, f"ours above\n\n{get_note(study)}\n\nours below, " + "long " * 1000)
    publish(setting)
    note = get_note(study)
    assert note.startswith("ours above")
    assert note.rstrip().endswith("long")
    assert note.count("long") == 1000
    assert note.count(BEGIN) == note.count("## Best architectures") == 1
    assert by_people(note).split() == ["ours", "above", "ours", "below,", *["long"] * 1000]


def test_what_people_write_while_detections_are_drawn_stays(finished):
    setting = Setting.load(finished)
    study = setting.stored_study()

    def draw(_):
        save_note(study, "written meanwhile")
        return Drawing("retrained/of-it.pt", {})

    publish(setting, draw=draw)
    assert by_people(get_note(study)) == "written meanwhile"


def test_marks_are_replaced_as_text_and_not_as_patterns():
    once = merged("mine", r"a \1 \g<0>")
    assert merged(once, "b") == merged("mine", "b")
    assert r"a \1 \g<0>" in once
    assert re.search(r"mine\s*$", once)


def test_detections_are_drawn_once_for_the_best_retrained_architecture(finished):
    asked = []

    def draw(selected):
        asked.append(selected)
        return Drawing("retrained/of-it.pt", {"image-1.png": b"a PNG file", "image-2.png": b"two"})

    Publisher(Setting.load(finished), draw=draw).refresh()
    setting = Setting.load(finished)
    Publisher(setting, draw=draw).refresh()
    study = setting.stored_study()
    (selected,) = asked  # the second process finds them
    assert selected.trial == study.best_trial.number
    assert not selected.one_shot
    stored = stored_detections(setting, study)
    assert stored.source.trial == selected.trial
    assert stored.source.weights == "retrained/of-it.pt"
    assert {name: p.content for name, p in stored.pictures.items()} == {
        "image-1.png": b"a PNG file",
        "image-2.png": b"two",
    }
    note = get_note(study)
    assert f"## What trial {selected.trial} detects" in note
    assert "(retrained/of-it.pt)" in note
    assert f"![trial {selected.trial} on image-1](/artifacts/" in note
    publish(setting)  # a process without a detector
    assert get_note(study) == note


EVIL = (
    "a\n\n# Injected\n\n- x `` ` ![i](http://evil/i.png) <img src=//evil/i> \r\r[l](//evil) **b**"
)
"""A name that is a heading, a picture and a link to those who take it for Markdown."""


def marks(note: str) -> tuple[list[str], list[str]]:
    """The headings of a note, and the kinds and links of all that its paragraphs are made of."""
    tokens = MarkdownIt("commonmark").parse(note)
    headings = [t.content for before, t in pairwise(tokens) if before.type == "heading_open"]
    parts = [part for token in tokens for part in token.children or ()]
    return headings, [f"{p.type} {p.attrGet('src') or p.attrGet('href')}" for p in parts]


@pytest.mark.parametrize("drawn", [True, False])
def test_no_name_is_more_than_text_in_the_note(finished, drawn):
    def note_of(name: str) -> str:
        study_file = finished.with_name(f"{name.replace('/', '')}.toml")
        study_file.write_text(finished.read_text())
        setting = Setting.load(study_file)
        images = {f"{name.replace('/', '')}.png": b"PNG"}
        set_system_attr(setting.stored_study(), DETECTIONS, {})
        publish(setting, draw=(lambda _: Drawing(name, images)) if drawn else None)
        return get_note(setting.stored_study())

    plain, evil = marks(note_of("plain")), marks(note_of(EVIL))
    assert evil[0] == plain[0]
    assert [part for part in evil[1] if not part.startswith(("text", "image /artifacts"))] == [
        part for part in plain[1] if not part.startswith(("text", "image /artifacts"))
    ]


def test_names_of_images_are_text_in_the_note(finished):
    names = {"a](b c.png": b"1", "[d\\.png": b"2"}
    Publisher(Setting.load(finished), draw=lambda _: Drawing("w.pt", names)).refresh()
    note = get_note(Setting.load(finished).stored_study())
    assert r" on a\](b c](/artifacts/" in note
    assert r" on \[d\\](/artifacts/" in note


def test_a_kill_never_leaves_pictures_under_another_trial_s_name(finished):
    setting = Setting.load(finished)
    study = setting.stored_study()
    refresh_detections(setting, study, lambda _: Drawing("first.pt", {"a.png": b"1"}))
    retrained = setting.stored_study("retrain")
    other = min(retrained.trials[:2], key=lambda t: t.value)
    retrained.add_trial(  # measured again: it has the best mean, and is drawn in its place
        optuna.create_trial(params=other.params, distributions=other.distributions, value=0.9)
    )
    for step in (1, 2):
        with writes(setting, stop_at=step), pytest.raises(Killed):
            refresh_detections(setting, study, lambda _: Drawing("second.pt", {"b.png": b"2"}))
        stored = stored_detections(setting, study)
        assert stored is None or (stored.source.weights, list(stored.pictures)) == (
            "first.pt",
            ["a.png"],
        )
    refresh_detections(setting, study, lambda _: Drawing("second.pt", {"b.png": b"2"}))
    assert list(stored_detections(setting, study).pictures) == ["b.png"]


def test_without_detections_the_note_says_what_draws_them(finished):
    setting = Setting.load(finished)
    publish(setting)
    assert f"None are stored; `msnas search {finished}` draws them" in get_note(
        setting.stored_study()
    )


def test_nothing_stored_is_nothing_to_publish(tiny):
    with pytest.raises(NothingToShowError, match="tiny has not begun; run `msnas train`"):
        publish(Setting.load(tiny))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        Publisher(Setting.load(tiny)).refresh()


def test_a_failure_is_a_warning(finished):
    setting = Setting.load(finished)
    (setting.run_dir / "artifacts").write_text("no folder")
    with pytest.warns(UserWarning, match=r"artifacts must be a folder, it is a file; move it"):
        Publisher(setting).refresh()


def test_the_note_is_written_though_the_weights_to_draw_with_are_lost(retrained):
    experiment = open_experiment(Setting.load(retrained))
    for file in (retrained.parent / "retrained").glob("*.pt"):
        file.unlink()
    with pytest.warns(UserWarning, match="the detections are not drawn: there is no checkpoint"):
        experiment.refresh()
    assert get_note(experiment.setting.stored_study())
    assert shown(experiment.setting).keys() == FIGURES.keys()


def test_the_search_refreshes_once_a_generation_and_at_its_end(trained):
    from msnas_optuna.study.experiment import Experiment

    setting, stages = Setting.load(trained), []

    class Counting(Publisher):
        def refresh(self, **options):
            super().refresh(**options)
            study = self.setting.stored_study()
            stages.append(study._storage.get_study_system_attrs(study._study_id)[PUBLISHED])

    publisher = Counting(setting)
    experiment = Experiment(setting, after_trial=publisher.after_trial, refresh=publisher.refresh)
    experiment.search()  # population 3, then 3 trials a generation, 7 in all
    assert stages == [3, 6, 7]
    open_experiment(Setting.load(trained)).search(9)
    study = experiment.setting.stored_study()
    assert study._storage.get_study_system_attrs(study._study_id)[PUBLISHED] == 9
    assert shown(experiment.setting).keys() == FIGURES.keys()
    assert '"name":"supernet"' in shown(experiment.setting)["training"]


def test_the_dashboard_can_be_turned_off(trained: Path):
    trained.write_text(trained.read_text() + "dashboard = false\n")
    experiment = open_experiment(Setting.load(trained))
    experiment.search(3)
    assert shown(experiment.setting) == {}
    assert not (trained.parent / "artifacts").exists()
    assert isinstance(experiment.setting.stored_study(), optuna.Study)


def test_a_study_keeps_the_losses_of_its_training_runs(retrained):
    setting = Setting.load(retrained)
    alone, other = setting.stored_study(RETRAIN), pool(setting.valid, 20, seed=0)[-1]
    params, distributions = setting.space.encode(other), setting.space.distributions
    attrs = {"checkpoint": alone.trials[0].user_attrs["checkpoint"]}  # of a ranking's sample
    alone.add_trial(
        create_trial(value=0.1, params=params, distributions=distributions, user_attrs=attrs)
    )
    keep_losses(setting)
    curves = read_curves(setting.stored_study())
    trials = [result.name for result in StudyView.load(setting).best[:2]]
    assert sorted(curves) == sorted(["supernet", *trials, "FPN-like path"])
    assert curves.pop("supernet").steps == (1, 2, 3, 4)
    for curve in curves.values():
        assert curve.steps == (1, 2, 3)
        assert len(set(curve.losses)) == 3
