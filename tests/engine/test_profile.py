"""``--profile``: a table whose shares add up, a trace, and the same bits."""

from __future__ import annotations

import gzip
import json
from pathlib import Path

import pytest
import torch

from harness.engine.cost import Clock
from harness.engine.profile import Profile, clustering_step
from harness.engine.run import plan_run, run_planned
from harness.plugins import Catalogue
from toy_parts import Silent, toy_catalogue, toy_settings
from toy_runs import Ran


def profiled(out: Path, catalogue, **values) -> Ran:
    show = Silent()
    record = run_planned(
        plan_run(toy_settings(**values), catalogue), out, resume=False, force=False, show=show, profile=True
    )
    return Ran(record, out / "toy", show)


def test_a_profiled_run_has_the_bits_of_another_and_shares_that_add_up(run, tmp_path: Path) -> None:
    settings = {"recipe": {"iterations": 3}}
    found = profiled(tmp_path / "profiled", toy_catalogue(), **settings)
    assert found.bits == run("plain", **settings).bits
    rows, trace = found.show.profile
    works = {row.work: row for row in rows if row.part is None}
    assert {"input", "training", "extraction", "clustering", "memory", "evaluation", "checkpoint"} <= set(works)
    assert sum(row.share for row in works.values()) == pytest.approx(1)
    parts = {row.part for row in rows if row.work == "training"}
    assert {"forward", "losses", "backward", "optimiser step"} <= parts
    for work, row in works.items():
        of_parts = [other.seconds for other in rows if other.work == work and other.part is not None]
        assert sum(of_parts) <= row.seconds + 1e-6
    assert [row.seconds for row in works.values()] == sorted((r.seconds for r in works.values()), reverse=True)
    events = json.loads(gzip.decompress(trace.read_bytes()))["traceEvents"]
    assert any("convolution" in str(event.get("name")) for event in events)


def test_clustering_is_shown_by_step(tiny, tmp_path: Path) -> None:
    settings = {"model": {"backbone": "small", "pretrained": False}, "recipe": {"epochs": 1, "iterations": 1}}
    rows, trace = profiled(tmp_path, Catalogue(), **settings).show.profile
    steps = {row.part for row in rows if row.work == "clustering"}
    assert {None, "search", "encoding", "expansion", "overlap", "DBSCAN and the rest"} <= steps
    assert not trace.exists()  # one iteration is none to trace


@pytest.mark.parametrize(
    ("done", "step"),
    [
        (1, "search"),
        (10, "search"),
        (11, "encoding"),
        (20, "encoding"),
        (30, "expansion"),
        (31, "overlap"),
        (40, "overlap"),
    ],
)
def test_passes_are_told_apart_by_how_much_is_done(done: int, step: str) -> None:
    assert clustering_step("clustering", done, 40) == step


def test_other_work_is_no_step() -> None:
    assert clustering_step("searching neighbours", 3, 10) == "search"
    assert clustering_step("extracting features", 3, 10) is None


def test_seconds_of_an_earlier_process_are_not_counted(tmp_path: Path) -> None:
    clock = Clock()
    clock.seconds["training"] = 50.0
    profile = Profile(clock, tmp_path / "trace.json.gz", device=torch.device("cpu"))
    with clock("input"):
        sum(range(1000))
    assert {row.work: row.seconds for row in profile.rows()}["training"] == 0
    profile.close()
    assert not (tmp_path / "trace.json.gz").exists()


def test_parts_are_within_their_work(monkeypatch) -> None:
    times = iter(range(100))
    monkeypatch.setattr("harness.engine.cost.time.perf_counter", lambda: float(next(times)))
    clock = Clock()
    with clock("training"):
        with clock.part("forward"):
            pass
        with clock("memory"):
            clock.passed("search")
        clock.passed("losses")
    assert clock.seconds == {"training": 5.0, "memory": 2.0}
    assert clock.parts == {("training", "forward"): 1.0, ("memory", "search"): 1.0, ("training", "losses"): 1.0}
