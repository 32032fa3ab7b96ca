"""Runs at the same time: each leaves what it leaves alone, and one folder takes one of them."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest
import torch

from harness.errors import RunError
from harness.leaderboard import find_records
from harness.leaderboard.record import read_record
from tests.faults.kills import processes
from tests.faults.workbench import SETTINGS, Bench, go, torn
from toy_parts import Silent
from toy_runs import Ran

PATIENCE_S = 120
"""After this time a test fails rather than waits on."""


class Holding(Silent):
    """A run that holds its folder until another one was refused."""

    def __init__(self, refused: Any) -> None:
        super().__init__()
        self.refused = refused

    def started(self, *about, **how):
        super().started(*about, **how)
        assert self.refused.wait(PATIENCE_S), "nobody else wanted the folder"


def run_beside(out: Path, cache: str, name: str, together: Any, refused: Any = None, said: Path | None = None) -> None:
    """A run in a process of its own, begun at the same moment as the others."""
    os.environ["HARNESS_CACHE"] = cache
    torch.set_num_threads(1)
    together.wait(PATIENCE_S)
    try:
        go(out, name=name, show=Holding(refused) if refused else Silent())
    except RunError as error:
        said.write_text(f"{os.getpid()}\n{error}")
        refused.set()


def all_at_once(tasks: list[tuple[Any, ...]]) -> list[Any]:
    """Start ``run_beside`` with each of ``tasks``; the processes, when all have ended."""
    context = processes()
    together = context.Barrier(len(tasks))
    started = [context.Process(target=run_beside, args=(*task[:3], together, *task[3:])) for task in tasks]
    for process in started:
        process.start()
    for process in started:
        process.join(PATIENCE_S)
    return started


def refusal(said: list[Path], processes: list[Any]) -> str:
    """What the one that was refused said; it is another process that it names."""
    (loser,) = (path for path in said if path.exists())
    pid, text = loser.read_text().split("\n", 1)
    (winner,) = (process.pid for process in processes if process.pid != int(pid))
    assert f"is in use by process {winner} on " in text
    return text


def same_as_alone(folder: Path, bench: Bench) -> bool:
    """Whether a run's figures, weights, embeddings and history are those of the straight run, and whole."""
    rows = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    assert [row["epoch"] for row in rows] == list(range(SETTINGS["recipe"]["epochs"]))
    assert not (folder / "owner").exists()
    return Ran(read_record(folder / "record.json"), folder, Silent()).bits == bench.straight.bits


def test_of_two_runs_at_once_in_one_folder_one_is_refused_and_told_who_holds_it(bench: Bench, tmp_path: Path) -> None:
    out, refused = tmp_path / "runs", processes().Event()
    said = [tmp_path / "first", tmp_path / "second"]
    cache = os.environ["HARNESS_CACHE"]
    ended = all_at_once([(out, cache, "shared", refused, path) for path in said])
    assert [process.exitcode for process in ended] == [0, 0]
    assert "Wait for it, or give this run another --name" in refusal(said, ended)
    assert same_as_alone(out / "shared", bench)


@pytest.mark.slow
def test_six_runs_at_once_on_first_use_end_as_each_does_alone(bench: Bench, tmp_path: Path) -> None:
    """They render one dataset and fill one image cache together; two of them want one folder."""
    out, cache, refused = tmp_path / "runs", tmp_path / "cache", processes().Event()
    names = ["a", "b", "c", "d"]
    said = [tmp_path / "first", tmp_path / "second"]
    alone = [(out, str(cache), name) for name in names]
    ended = all_at_once([*alone, *((out, str(cache), "shared", refused, path) for path in said)])
    assert [process.exitcode for process in ended] == [0] * 6
    refusal(said, ended[4:])
    assert all(same_as_alone(out / name, bench) for name in [*names, "shared"])
    assert sorted(record.name for record in find_records([out])) == [*names, "shared"]
    assert len(list((cache / "rendered" / "v1").glob("tiny*/"))) == 1
    assert torn(cache, out) == []
