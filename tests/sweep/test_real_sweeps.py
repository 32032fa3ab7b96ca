"""Sweeps that train: killed, stopped, shared among processes and machines, they end as one that nothing disturbed."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest
import tomli_w

from harness.engine.run import run_planned
from harness.leaderboard import figures_digest, read_record
from harness.sweep.board import write_board
from harness.sweep.cells import Planned, plan_cells
from harness.sweep.folder import SweepFolder
from harness.sweep.grid import make_grid
from tests.sweep.conftest import TINY
from tests.sweep.processes import (
    done,
    frozen_with_checkpoint,
    kill_all_at_once,
    parent_of,
    ray_cluster,
    running,
    sweeping,
    until,
)
from toy_parts import Silent

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(sys.platform != "linux", reason="looks at processes in /proc"),
]

TWELVE = {
    "clusterers": ["baseline", "chc", "emcc"],
    "refiners": ["none", "brst"],
    "memories": ["baseline", "tsmem"],
    "recipe": "pgm",
    "seeds": [0, 1],
    "settings": TINY,
}
SIX = {**TWELVE, "refiners": ["none"], "memories": ["baseline"]}


def written(path: Path, grid: dict) -> Planned:
    path.write_text(tomli_w.dumps(grid))
    return plan_cells(make_grid(grid))


def undisturbed(planned: Planned, path: Path) -> str:
    """The board of the same cells, run one after the other in this process."""
    folder = SweepFolder(path)
    for cell in planned.cells:
        run_planned(cell.plan, folder.runs, resume=False, force=False, show=Silent())
    return write_board(folder, planned.cells)


def test_twelve_cells_with_two_seeds_killed_twice_end_with_the_board_of_an_undisturbed_sweep(
    tiny: Path, tmp_path: Path
) -> None:
    planned = written(tmp_path / "grid.toml", TWELVE)
    assert len(planned.cells) == 24
    folder = SweepFolder(tmp_path / "sweeps" / "grid")
    command = ("grid.toml", "--jobs", "2")

    with sweeping(tmp_path, *command) as first:
        until(lambda: len(done(folder)) >= 5, first.process)
        victim = until(lambda: frozen_with_checkpoint(folder), first.process)
        kill_all_at_once(first, folder)
    killed_at = done(folder)
    assert victim not in killed_at
    assert len(killed_at) < 24

    with sweeping(tmp_path, *command) as second:
        until(lambda: len(done(folder)) >= len(killed_at) + 5 and running(folder), second.process)
        os.kill(second.process.pid, signal.SIGTERM)
        code, said = second.ended()
    assert code == 143
    assert "stopped by SIGTERM" in said
    assert "The same command goes on." in said
    assert running(folder) == {}
    stopped_at = done(folder)
    assert killed_at < stopped_at
    assert len(stopped_at) < 24
    assert "resumed after epoch" in folder.log(victim).read_text()

    with sweeping(tmp_path, *command) as third:
        code, said = third.ended()
    assert code == 0, said
    assert f"sweep of 24 cells in sweeps/grid: {len(stopped_at)} done, {24 - len(stopped_at)} to run" in said
    board = folder.board.read_text()
    assert board == undisturbed(planned, tmp_path / "undisturbed")
    assert board in said
    assert board.count("± ") >= 12 * 4
    assert all(folder.log(cell.name).read_text().count("record: ") <= 1 for cell in planned.cells)  # none done twice


def test_ctrl_c_is_heard_in_the_middle_of_a_cell_and_a_second_sweep_waits_its_turn(tiny: Path, tmp_path: Path) -> None:
    long = {**TINY, "recipe": TINY["recipe"] | {"epochs": 500}}
    grid = {**SIX, "clusterers": ["baseline"], "seeds": [0], "settings": long}
    planned = written(tmp_path / "grid.toml", grid)
    folder = SweepFolder(tmp_path / "sweeps" / "grid")
    (name,) = (cell.name for cell in planned.cells)
    with sweeping(tmp_path, "grid.toml") as first:
        until(lambda: any((folder.runs / name / "checkpoint").glob("epoch-*.pt")), first.process)
        with sweeping(tmp_path, "grid.toml") as second:
            code, said = second.ended()
        assert code == 1
        assert f"is being run by process {first.process.pid} on " in said
        os.killpg(first.process.pid, signal.SIGINT)
        code, said = first.ended()
    assert code == 130
    assert "stopped by Ctrl-C: 0 of the 1 cells that were left are done." in said
    assert "stopped by Ctrl-C after" in folder.log(name).read_text()
    assert running(folder) == {}


def test_cells_of_a_job_array_run_side_by_side_and_one_command_makes_the_board(tiny: Path, tmp_path: Path) -> None:
    planned = written(tmp_path / "grid.toml", {**SIX, "clusterers": ["baseline", "chc"]})
    command = [sys.executable, "-m", "harness", "sweep", "grid.toml"]
    jobs = [
        subprocess.Popen(
            [*command, "--cell", str(cell.number)], cwd=tmp_path, stdout=subprocess.PIPE, stderr=subprocess.STDOUT
        )
        for cell in planned.cells[:3]
    ]
    said = [job.communicate()[0].decode() for job in jobs]
    assert [job.returncode for job in jobs] == [0, 0, 0], said
    early = subprocess.run([*command, "--board"], cwd=tmp_path, capture_output=True, text=True, check=False)
    assert early.returncode == 1
    assert "3 of 4 cells are done." in early.stdout
    subprocess.run([*command, "--cell", "4"], cwd=tmp_path, check=True)
    last = subprocess.run([*command, "--board"], cwd=tmp_path, capture_output=True, text=True, check=True)
    assert undisturbed(planned, tmp_path / "undisturbed") in last.stdout


@pytest.mark.skipif(find_spec("ray") is None, reason="Ray is not installed")
def test_a_sweep_on_ray_that_loses_a_node_and_gains_another_has_the_figures_of_a_local_one(
    tiny: Path, tmp_path: Path
) -> None:
    planned = written(tmp_path / "grid.toml", SIX)
    folder = SweepFolder(tmp_path / "sweeps" / "grid")
    with ray_cluster() as cluster:
        lost, stays = cluster.join(), cluster.join()
        command = ("grid.toml", "--on", "ray", "--address", cluster.address)
        with sweeping(tmp_path, *command, environment=cluster.environment) as sweep:
            until(lambda: running(folder), sweep.process)
            os.killpg(sweep.process.pid, signal.SIGINT)
            code, said = sweep.ended()
        assert code == 130, said
        assert "The same command goes on." in said
        assert running(folder) == {}
        with sweeping(tmp_path, *command, environment=cluster.environment) as sweep:

            def on_the_node_to_be_lost() -> str | None:
                cells = running(folder).items()
                return next((name for name, pid in cells if parent_of(parent_of(pid)) == lost), None)

            victim = until(on_the_node_to_be_lost, sweep.process)
            attempts = folder.log(victim).read_text().count("$ harness run")
            os.kill(lost, signal.SIGKILL)
            joined = cluster.join()
            code, said = sweep.ended()
    assert code == 0, said
    assert len({lost, stays, joined}) == 3
    assert done(folder) == {cell.name for cell in planned.cells}
    assert folder.log(victim).read_text().count("$ harness run") == attempts + 1
    assert folder.board.read_text() == undisturbed(planned, tmp_path / "undisturbed")
    for cell in planned.cells:
        here, there = (
            read_record(root.run(cell.name).record) for root in (folder, SweepFolder(tmp_path / "undisturbed"))
        )
        assert figures_digest(here) == figures_digest(there)
