"""Observers are told figures, and cannot change a number or stop a run."""

from __future__ import annotations

import json
import os
from pathlib import Path

import numpy as np
import pytest

import toy_observers
from harness import observing
from harness.data.sysu_mm01 import read_sysu_mm01
from harness.engine import train
from harness.engine.run import plan_run
from harness.errors import PluginError, RunError
from harness.plugins import Catalogue
from harness.report.curves import curves_of
from harness.report.page import RunView, _reported
from harness.report.source import read_run
from harness.testing.identities import Walk
from toy_parts import toy_catalogue, toy_settings
from toy_runs import Ran, run_toy

OBSERVERS = {
    name: getattr(toy_observers, name.capitalize()) for name in ("noting", "hostile", "stuck", "dying", "broken")
}
SHORT = {"recipe": {"epochs": 2, "iterations": 1}, "evaluation": {"every": 1, "trials": 1}}


def observed(out: Path, *names: str, **how) -> Ran:
    return run_toy(out, observers=names, catalogue=toy_catalogue(**OBSERVERS), **{**SHORT, **how})


def noted(folder: Path) -> list[list]:
    return [json.loads(line) for line in (folder / "observers" / "noting" / "noted").read_text().splitlines()]


@pytest.fixture(scope="module")
def plain(tiny: Path, tmp_path_factory: pytest.TempPathFactory) -> Ran:
    return run_toy(tmp_path_factory.mktemp("plain"), **SHORT)


def test_an_observer_is_told_what_happens_in_a_process_of_its_own_without_torch(plain: Ran, tmp_path: Path) -> None:
    ran = observed(tmp_path, "noting")
    said = noted(ran.folder)
    assert [what for what, *_ in said] == ["started", "epoch", "epoch", "finished"]
    assert {pid for *_, pid, _ in said} != {os.getpid()}
    assert not any(has_torch for *_, has_torch in said)
    started, first, _, result = (value for _, value, *_ in said)
    assert (started["epochs"], started["epochs_done"], started["seed"]) == (2, 0, 0)
    assert started["settings"]["recipe.learning_rate"] == 0.01
    assert first["epoch"] == 1
    assert {"loss plain/visible", "ARI visible", "outliers infrared", "rank-1", "learning rate"} <= set(
        first["figures"]
    )
    assert (
        result["figures"]["rendered/all/single/S/v1"]["rank-1"]
        == ran.record.protocols["rendered/all/single/S/v1"].rank1
    )
    assert ran.bits == plain.bits
    assert ran.record.warnings == plain.record.warnings
    assert ran.record.method == plain.record.method


def test_a_hostile_observer_changes_no_bit_and_becomes_a_warning(plain: Ran, tmp_path: Path) -> None:
    ran = observed(tmp_path, "hostile", "noting")
    assert ran.bits == plain.bits
    (warning,) = set(ran.record.warnings) - set(plain.record.warnings)
    assert warning == r"The observer 'hostile' failed in harness_epoch_ended: ValueError: no \x1b[31mluck"
    assert [what for what, *_ in noted(ran.folder)] == ["started", "epoch", "epoch", "finished"]
    assert [value["seed"] for what, value, *_ in noted(ran.folder) if what == "started"] == [0]
    assert "not said by the harness" in (ran.folder / "observers" / "output.txt").read_text()


def test_an_observer_that_never_comes_back_is_left_behind(plain: Ran, tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setattr(observing, "PATIENCE_S", 0.5)
    ran = observed(tmp_path, "stuck")
    assert ran.bits == plain.bits
    assert any("did not answer" in warning and "stuck" in warning for warning in ran.record.warnings)


def test_an_observer_that_dies_costs_a_warning(plain: Ran, tmp_path: Path) -> None:
    ran = observed(tmp_path, "dying")
    assert ran.bits == plain.bits
    assert "The process of the observers (dying) ended early." in ran.record.warnings


def test_a_run_that_fails_tells_why_and_goes_on_with_other_observers(plain: Ran, tmp_path: Path, monkeypatch) -> None:
    calls = [0]
    before = train.Trainer._update

    def failing(*args):
        calls[0] += 1
        if calls[0] == 2:
            raise RunError("the disk is full")
        return before(*args)

    monkeypatch.setattr(train.Trainer, "_update", failing)
    with pytest.raises(RunError, match="the disk is full"):
        observed(tmp_path, "noting")
    monkeypatch.undo()
    what, failure, *_ = noted(tmp_path / "toy")[-1]
    assert what == "failed"
    assert (failure["error"], failure["stopped"]) == ("the disk is full", False)
    assert failure["epochs_done"] == 1
    resumed = observed(tmp_path, resume=True)
    assert resumed.show.resumed_at == 1
    assert resumed.bits == plain.bits


@pytest.mark.parametrize(
    ("name", "says"),
    [("notting", "There is no plugin 'notting'.*'?noting"), ("baseline", "'baseline' observes nothing")],
)
def test_only_an_observer_can_be_named_as_one(name: str, says: str) -> None:
    with pytest.raises(PluginError, match=says):
        plan_run(toy_settings(observers=[name]), toy_catalogue(**OBSERVERS))


def test_nothing_that_observers_are_told_leads_to_an_identity_or_an_image(
    tiny: Path, finished: Path, tmp_path: Path, monkeypatch
) -> None:
    train_set, test_set = (read_sysu_mm01(tiny, split=split) for split in ("train", "test"))
    walk = Walk([train_set.identity, test_set.identity, *(train_set.identity[train_set.modality == m] for m in (0, 1))])
    told: list[str] = []

    def tell(self, hook, **values):
        told.append(hook)
        for name, value in values.items():
            walk(value, f"{hook}:{name}")

    monkeypatch.setattr(observing.Observers, "tell", tell)
    ran = observed(tmp_path, "noting", data_root=tiny)
    source = read_run(ran.folder)
    walk(_reported(RunView(source, curves_of(source))), "report")
    assert set(told) == {"harness_run_started", "harness_epoch_ended", "harness_run_finished"}
    assert walk.leaks == []
    texts = [value for value in walk.seen.values() if isinstance(value, (str, Path))]
    assert not [text for text in texts if str(tiny) in str(text)]
    assert not [value for value in walk.seen.values() if isinstance(value, np.ndarray)]


def test_sections_of_observers_are_asked_for_and_faults_are_complaints(finished: Path) -> None:
    known = toy_catalogue(**OBSERVERS)
    source = read_run(finished)
    said: list[str] = []
    chosen = observing.choose_observers(known.require, ["noting", "broken", "noting"])
    with observing.Observers(chosen, log=None, warned=said.append) as observers:
        sections = observers.sections([_reported(RunView(source, curves_of(source)))])
    assert [(name, section.title) for name, section in sections] == [("noting", "Last values")]
    assert sections[0][1].table[0] == ("curve", "value")
    (complaint,) = said
    assert "'broken' failed in harness_report_sections" in complaint
    assert "ReportSection" in complaint


class TestTensorBoard:
    @pytest.fixture
    def board(self):
        return pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")

    @pytest.mark.slow
    @pytest.mark.filterwarnings("ignore")
    def test_every_figure_of_every_epoch_is_a_scalar(self, plain: Ran, board, tmp_path: Path) -> None:
        catalogue = Catalogue(extra={**toy_catalogue()._extra})
        ran = run_toy(tmp_path, observers=["tensorboard"], catalogue=catalogue, **SHORT)
        assert ran.bits == plain.bits
        assert ran.record.warnings == plain.record.warnings
        events = board.EventAccumulator(str(ran.folder / "observers" / "tensorboard"))
        events.Reload()
        tags = events.Tags()
        assert {"loss/plain/visible", "ARI/visible", "rank-1"} <= set(tags["scalars"])
        first, second = events.Scalars("loss/plain/visible")
        losses = [curve.losses["plain/visible"] for curve in ran.record.curves]
        assert [first.step, second.step] == [1, 2]
        assert [first.value, second.value] == pytest.approx(losses, rel=1e-6)
        (rank1,) = events.Scalars("test/rendered/all/single/S/v1/rank-1")
        assert rank1.value == pytest.approx(ran.record.protocols["rendered/all/single/S/v1"].rank1)
        assert any(tag.startswith("settings") for tag in tags["tensors"])
