"""``harness sweep`` on the command line: what it prints, what it refuses, what it leaves."""

from __future__ import annotations

import json
import re
import socket
import subprocess
import sys
import tomllib
from importlib.util import find_spec
from pathlib import Path

import pytest
import tomli_w

from harness.settings import to_toml
from harness.sweep.cells import plan_cells
from harness.sweep.grid import make_grid
from tests.sweep.conftest import TINY

HERE = Path(__file__).parent
GRID = {"memories": ["baseline", "tsmem"], "seeds": [0, 1], "settings": TINY}


@pytest.fixture
def grid(tmp_path: Path) -> Path:
    file = tmp_path / "grid.toml"
    file.write_text(tomli_w.dumps(GRID))
    return file


@pytest.fixture
def asked(tmp_path: Path, monkeypatch) -> Path:
    """Cells are run by the stand-in, which looks here what to do."""
    monkeypatch.setattr("harness.sweep.attempt._LAUNCH", HERE / "stand_in.py")
    monkeypatch.setenv("STAND_IN", str(tmp_path / "asked"))
    (tmp_path / "asked").mkdir()
    return tmp_path / "asked"


def test_a_dry_run_lists_cells_skips_and_cost_and_leaves_nothing(harness, grid: Path, tmp_path: Path) -> None:
    shown = harness("sweep", grid, "--memories", "baseline,tsmem,chcr", "--refiners", "none,ipr", "--dry-run")
    assert shown.code == 0
    assert "1  baseline-s0: modality-dbscan, cluster-memory, contrast\n" in shown.out
    assert "8  ipr+tsmem-s1: modality-dbscan, ipr, tsmem, contrast\n" in shown.out
    assert "chcr, named as memory, brings the label refiner ipr too; this cell has refiners = none" in shown.out
    assert "10 cells in sweeps/grid\n" in shown.out
    assert "estimate: none, as there is no earlier record" in shown.out
    assert not (tmp_path / "sweeps").exists()


def test_a_dry_run_tells_what_the_records_of_earlier_runs_make_of_it(
    harness, grid: Path, tmp_path: Path, make_record
) -> None:
    from harness.leaderboard import Cost, DatasetCard, write_record

    (cell, *_) = plan_cells(make_grid(GRID)).cells
    card = DatasetCard(name="rendered", fingerprint="f", size="tiny", images_train=1, images_test=1, cameras=[1])
    cost = Cost(seconds={"data": 30.0}, total_seconds=30.0, device="cpu", precision="fp32", threads=1)
    record = make_record(recipe=cell.plan.recipe.model_dump(mode="json"), dataset=card, cost=cost)
    write_record(tmp_path / "runs" / "a" / "record.json", record)
    assert harness("sweep", grid, "--dry-run", "--jobs", "2").out.splitlines()[-1] == (
        "estimate: 2 min 0 s for the cells that are left, 1 min 0 s with 2 at a time; from 1 earlier record on cpu "
        "(1 threads): 0 cells by records of the same parts, 4 by those of other parts"
    )


def test_flags_alone_make_a_grid_and_change_that_of_a_file(harness, grid: Path, tmp_path: Path) -> None:
    flags = ("--seeds", "3", "--set", "tsmem.step2_momentum=[0.1, 0.2]", "--set", "recipe.learning_rate=0.1")
    shown = harness("sweep", grid, *flags, "--epochs", "1", "--dry-run").out
    assert "1  baseline-s3:" in shown
    assert "3  tsmem-step2_momentum=0.2-s3:" in shown
    shown = harness("sweep", "--plugins", "chcr,tsmem", "--plugins", "ecul", "--device=cpu", "--dry-run").out
    assert "1  chcr+tsmem-s0:" in shown
    assert "2  ecul-s0:" in shown
    assert "2 cells in sweeps/sweep\n" in shown


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        (["none.toml"], "Cannot read the grid file none.toml"),
        ([], "names nothing to combine"),
        (["--clusterers", "chx"], "Did you mean 'chc'?"),
        (["--memories", "tsmem", "--set", "tsmem.x=1"], "no option 'x'"),
        (["--memories", "tsmem", "--set", "tsmem.step2_momentum=[0.1,'a']"], "got 'a'"),
        (["--memories", "tsmem", "--set", "nothing=1"], "no setting 'nothing'"),
        (["--memories", "tsmem", "--set", "seed=1"], "sets 'seed' in every cell"),
        (["--memories", "tsmem", "--seeds", "a"], "--seeds takes whole numbers"),
        (["--memories", "tsmem", "--seeds", "0-9999", "--refiners", "none,ipr"], "20,000 cells; more than 10,000"),
        (["--memories", "tsmem", "--datasets", "sysu"], "Did you mean 'sysu-mm01'"),
        (["--memories", "tsmem", "--trials", "1"], "none of its datasets has any"),
        (["--memories", "tsmem", "--address", "x:1"], "--address is for --on ray"),
        (["--memories", "tsmem", "--gpus-per-cell", "1"], "--gpus-per-cell is for --on ray"),
        (["--memories", "tsmem", "--jobs", "2", "--on", "ray"], "--jobs is for --on local"),
        (["--memories", "tsmem", "--cell", "2", "--device", "cpu"], "There is no cell 2: the grid has 1."),
        (["--memories", "tsmem", "--cell", "1", "--board"], "--cell and --board do different things"),
    ],
    ids=str,
)
def test_refusals_are_one_paragraph_and_leave_nothing(harness, tmp_path: Path, arguments, complaint: str) -> None:
    refused = harness("sweep", *arguments)
    assert refused.code == 2
    assert complaint in refused.err
    assert len(refused.err.strip().splitlines()) == 1
    assert refused.out == ""
    assert not list(tmp_path.glob("sweeps/*/cells.json"))


def test_a_board_of_no_sweep_is_refused(harness) -> None:
    refused = harness("sweep", "--memories", "tsmem", "--board")
    assert refused.code == 1
    assert "There is no sweep in" in refused.err


def test_ray_that_is_not_installed_is_named_with_its_remedy(harness, grid: Path, monkeypatch) -> None:
    monkeypatch.setitem(sys.modules, "ray", None)
    refused = harness("sweep", grid, "--on", "ray")
    assert refused.code == 1
    assert "--on ray needs Ray: pip install 'vireid-harness[ray]'." in refused.err


@pytest.mark.skipif(find_spec("ray") is None, reason="Ray is not installed")
def test_an_address_where_no_cluster_is_is_refused_at_once(grid: Path, tmp_path: Path) -> None:
    with socket.socket() as taken:  # bound, and not listening
        taken.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{taken.getsockname()[1]}"
        command = [sys.executable, "-m", "harness", "sweep", str(grid), "--on", "ray", "--address", address]
        refused = subprocess.run(command, capture_output=True, text=True, check=False, cwd=tmp_path)
    assert refused.returncode == 1
    assert f"There is no Ray cluster for this sweep at {address}: Connection refused. Begin one" in refused.stderr


def test_what_is_left_says_how_to_run_each_cell_again(harness, grid: Path, tmp_path: Path, asked: Path) -> None:
    for name in ("baseline-s0", "baseline-s1", "tsmem-s0", "tsmem-s1"):
        (asked / f"{name}.fail").touch()
    ended = harness("sweep", grid, "--out", "here")
    planned = plan_cells(make_grid(GRID))
    for cell in planned.cells:
        written = (tmp_path / "here" / "cells" / f"{cell.name}.toml").read_text()
        assert written == to_toml(cell.plan.settings)
        assert tomllib.loads(written)["name"] == cell.name
    kept = json.loads((tmp_path / "here" / "cells.json").read_text())
    assert [(cell["number"], cell["name"], cell["coordinates"]) for cell in kept["cells"]] == [
        (cell.number, cell.name, cell.coordinates) for cell in planned.cells
    ]
    assert ended.code == 1


def test_a_folder_of_images_that_is_not_there_is_named_before_any_cell_begins(harness, tmp_path, asked: Path) -> None:
    refused = harness("sweep", "--plugins", "pgm", "--datasets", "regdb=none", "--device", "cpu")
    assert refused.code == 2
    assert f"The dataset folder {tmp_path / 'none'} does not exist." in refused.err
    assert not (asked / "begun").exists()


def test_failed_cells_are_listed_and_run_again_only_on_request(harness, grid: Path, asked: Path) -> None:
    for name in ("baseline-s0", "baseline-s1", "tsmem-s0", "tsmem-s1"):
        (asked / f"{name}.fail").touch()
    first = harness("sweep", grid)
    assert "sweep of 4 cells in sweeps/grid: 0 done, 4 to run" in first.out
    assert "2/4 FAILED: baseline-s1: harness: broken on purpose (log: sweeps/grid/logs/baseline-s1.log)" in first.out
    assert "failed: tsmem-s1: harness: broken on purpose (log: sweeps/grid/logs/tsmem-s1.log)" in first.out
    assert "harness: 4 of 4 cells failed. Mend the cause, and add --retry-failed" in first.err
    assert first.code == 1
    again = harness("sweep", grid)
    assert "0 done, 4 failed before, 0 to run" in again.out
    assert again.code == 1
    assert len((asked / "begun").read_text().splitlines()) == 4
    listed = harness("sweep", grid, "--dry-run")
    assert "1  baseline-s0 (failed):" in listed.out
    retried = harness("sweep", grid, "--retry-failed")
    assert "failed, 2 times: tsmem-s0: harness: broken on purpose" in retried.out
    assert len((asked / "begun").read_text().splitlines()) == 8


def test_one_cell_of_a_job_array_that_fails_says_so(harness, grid: Path, asked: Path) -> None:
    (asked / "tsmem-s0.fail").touch()
    failed = harness("sweep", grid, "--cell", "3")
    assert failed.code == 1
    assert "Cell 3, tsmem-s0, failed: harness: broken on purpose (log: sweeps/grid/logs/tsmem-s0.log)" in failed.err
    (asked / "tsmem-s0.fail").unlink()
    assert harness("sweep", grid, "--cell", "3").code == 0
    assert (asked / "begun").read_text().split() == ["tsmem-s0", "tsmem-s0"]


def test_the_grid_of_the_documentation_is_one(harness, tmp_path: Path) -> None:
    text = (HERE.parents[1] / "docs" / "sweep.md").read_text(encoding="utf-8")
    (tmp_path / "docs.toml").write_text(text.split("```toml\n")[1].split("```")[0])
    shown = harness("sweep", "docs.toml", "--dry-run", "--device", "cpu")
    assert shown.code == 0, shown.err
    cells = [line for line in shown.out.splitlines() if re.match(r" *[0-9]+  [a-z]", line)]
    # 3 clusterers x 3 refiners less 2 excluded, baseline and two momenta of tsmem, 2 losses, 2 datasets, 3 seeds
    assert len(cells) == 7 * 3 * 2 * 2 * 3
    assert re.findall(r"^([0-9]*) cells in .*", shown.out, re.MULTILINE) == [str(len(cells))]
    assert shown.out.count("links of joint clusters are not of interest here") == 2
    assert "note: " not in shown.out


def test_the_folder_of_a_sweep_stands_for_its_grid_threads_and_all(harness, grid: Path, asked: Path) -> None:
    assert harness("sweep", grid, "--cell", "1").code == 0
    assert harness("sweep", "sweeps/grid", "--cell", "2").code == 0
    assert (asked / "begun").read_text().split() == ["baseline-s0", "baseline-s1"]
    assert harness("sweep", "sweeps/grid", "--dry-run").out == harness("sweep", grid, "--dry-run").out


def test_threads_are_those_that_the_sweep_was_begun_with(harness, tmp_path: Path, asked: Path) -> None:
    flags = ("--memories", "baseline", "--device", "cpu")
    assert harness("sweep", *flags, "--threads", "3", "--cell", "1").code == 0
    assert harness("sweep", *flags, "--jobs", "2", "--dry-run").out.startswith("1  baseline-s0 (done):")
    settings = (tmp_path / "sweeps" / "sweep" / "cells" / "baseline-s0.toml").read_text()
    assert tomllib.loads(settings)["compute"]["threads"] == 3


def test_planning_loads_nothing_heavy(grid: Path, tmp_path: Path) -> None:
    script = (
        "import sys; from harness.cli import main; sys.argv = ['harness', *sys.argv[1:]]\n"
        "try: main()\n"
        "except SystemExit as leaving: assert not leaving.code, leaving.code\n"
        "print('LOADED', sorted({'torch', 'pandas', 'ray', 'matplotlib'} & set(sys.modules)))"
    )
    for arguments in (["sweep", "--help"], ["sweep", str(grid), "--dry-run"]):
        done = subprocess.run(
            [sys.executable, "-c", script, *arguments], capture_output=True, text=True, check=False, cwd=tmp_path
        )
        assert done.returncode == 0, done.stderr
        assert done.stdout.splitlines()[-1] == "LOADED []"
