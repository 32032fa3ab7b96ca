"""Cells as processes: what becomes of those that end well, fail, hang, are killed, or are somewhere else already."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from filelock import FileLock

from harness.engine.stopping import Stopped
from harness.errors import SweepError
from harness.machine import usable_cores
from harness.sweep import local
from harness.sweep.attempt import Attempts, Ended, asked_to_stop
from harness.sweep.cells import Cell, Planned, plan_cells
from harness.sweep.folder import SweepFolder
from harness.sweep.grid import Grid, make_grid

HERE = Path(__file__).parent
LAUNCH = Path(local.__file__).with_name("launch.py")
PATIENCE_S = 60.0


def until(condition: Callable[[], bool]) -> None:
    """Wait for something that another process does."""
    last = time.monotonic() + PATIENCE_S
    while not condition():
        assert time.monotonic() < last, "waited in vain"
        time.sleep(0.01)


class Told:
    """Keeps what a sweep tells."""

    def __init__(self) -> None:
        self.ends: list[Ended] = []
        self.notes: list[str] = []

    def began(self, name: str) -> None:
        return None

    def ended(self, ended: Ended) -> None:
        self.ends.append(ended)

    def note(self, text: str) -> None:
        self.notes.append(text)


@pytest.fixture
def asked(tmp_path: Path, monkeypatch) -> Path:
    """Where the stand-in for a run looks what to do."""
    monkeypatch.setattr("harness.sweep.attempt._LAUNCH", HERE / "stand_in.py")
    folder = tmp_path / "asked"
    folder.mkdir()
    monkeypatch.setenv("STAND_IN", str(folder))
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    return folder


GRID = {"memories": ["baseline", "tsmem"], "seeds": [0, 1]}
NAMES = ["baseline-s0", "baseline-s1", "tsmem-s0", "tsmem-s1"]


def prepared(path: Path, grid: Grid | None = None) -> tuple[SweepFolder, Planned, list[str]]:
    grid = make_grid(GRID) if grid is None else grid
    folder = SweepFolder(path)
    planned = plan_cells(grid, known=folder.known())
    return folder, planned, folder.write(grid, planned)


@pytest.fixture
def folder(tmp_path: Path) -> SweepFolder:
    return prepared(tmp_path / "sweep")[0]


def states(ended: list[Ended]) -> dict[str, str]:
    return {one.name: one.state for one in ended}


class TestLocal:
    def test_cells_are_run_and_their_words_kept(self, folder: SweepFolder, asked: Path) -> None:
        told = Told()
        ended = local.run_local(folder, NAMES, slots=[{}, {}], watcher=told)
        assert states(ended) == dict.fromkeys(NAMES, "done")
        assert sorted(states(told.ends)) == NAMES
        settings = folder.settings("tsmem-s0")
        assert folder.log("tsmem-s0").read_text() == (
            f"$ harness run --settings {settings} --out {folder.runs} --resume\n"
        )
        assert all(folder.failure(name) is None for name in NAMES)

    def test_a_slot_gives_its_environment_to_its_cells(self, folder: SweepFolder, asked: Path) -> None:
        local.run_local(folder, NAMES, slots=[{"CUDA_VISIBLE_DEVICES": "7"}], watcher=Told())
        assert (asked / "begun").read_text() == "".join(f"{name} 7\n" for name in NAMES)

    def test_a_cell_that_fails_is_noted_with_its_last_words_and_hurts_no_other(
        self, folder: SweepFolder, asked: Path
    ) -> None:
        (asked / "baseline-s1.fail").touch()
        ended = local.run_local(folder, NAMES, slots=[{}], watcher=Told())
        assert states(ended) == {**dict.fromkeys(NAMES, "done"), "baseline-s1": "failed"}
        failure = folder.failure("baseline-s1")
        assert failure is not None
        assert (failure.code, failure.error, failure.attempts) == (3, "harness: broken on purpose", 1)
        assert "some words" in folder.log("baseline-s1").read_text()

    def test_a_failure_is_counted_and_forgotten_once_the_cell_goes_well(self, folder: SweepFolder, asked: Path) -> None:
        (asked / "tsmem-s0.fail").touch()
        for _ in range(2):
            local.run_local(folder, ["tsmem-s0"], slots=[{}], watcher=Told())
        assert folder.failure("tsmem-s0").attempts == 2
        (asked / "tsmem-s0.fail").unlink()
        local.run_local(folder, ["tsmem-s0"], slots=[{}], watcher=Told())
        assert folder.failure("tsmem-s0") is None

    def test_a_cell_that_something_killed_has_failed(self, folder: SweepFolder, asked: Path) -> None:
        (asked / "tsmem-s1.kill").touch()
        local.run_local(folder, ["tsmem-s1"], slots=[{}], watcher=Told())
        failure = folder.failure("tsmem-s1")
        assert failure.code == -signal.SIGKILL
        assert failure.error == "killed by SIGKILL (memory of the machine?) after: harness: about to end"

    def test_a_cell_that_another_process_runs_is_left_to_it(self, folder: SweepFolder, asked: Path) -> None:
        run = folder.run("tsmem-s1")
        run.path.mkdir(parents=True)
        held, let_go = threading.Event(), threading.Event()

        def hold() -> None:
            with FileLock(run.lock):
                held.set()
                let_go.wait(PATIENCE_S)

        holder = threading.Thread(target=hold)
        holder.start()
        held.wait(PATIENCE_S)
        try:
            assert Attempts(folder).run("tsmem-s1", environment={}, patience_s=0.1).state == "elsewhere"
        finally:
            let_go.set()
            holder.join()
        assert folder.failure("tsmem-s1") is None
        assert Attempts(folder).run("tsmem-s1", environment={}).state == "done"

    @pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGUSR1])
    def test_a_request_to_stop_is_passed_on_to_the_running_cells_and_begins_no_other(
        self, folder: SweepFolder, asked: Path, number: int
    ) -> None:
        for name in NAMES[:2]:
            (asked / f"{name}.hang").touch()

        def stop() -> None:
            until(lambda: all((asked / f"{name}.hangs").exists() for name in NAMES[:2]))
            os.kill(os.getpid(), number)

        threading.Thread(target=stop).start()
        told = Told()
        with pytest.raises(Stopped) as caught:
            local.run_local(folder, NAMES, slots=[{}, {}], watcher=told)
        assert caught.value.number == number
        assert [(asked / f"{name}.signal").read_text() for name in NAMES[:2]] == [str(int(number))] * 2
        assert len((asked / "begun").read_text().splitlines()) == 2
        assert all(folder.failure(name) is None for name in NAMES)
        assert "put down" in told.notes[0]


@pytest.mark.skipif(sys.platform != "linux", reason="the kernel tells of a parent's end on Linux only")
def test_a_cell_is_asked_to_stop_when_the_sweep_is_killed(tmp_path: Path) -> None:
    cell = (
        "import os, runpy, signal, sys\nfrom pathlib import Path\n"
        f"there = Path({str(tmp_path)!r})\n"
        "def stop(*_):\n    (there / 'stopped').touch()\n    sys.exit()\n"
        "signal.signal(signal.SIGTERM, stop)\n"
        f"runpy.run_path({str(LAUNCH)!r})['stop_with_parent'](int(sys.argv[1]))\n"
        "(there / 'ready').touch()\nsignal.pause()\n"
    )
    sweep = (
        "import os, subprocess, sys\n"
        f"subprocess.Popen([sys.executable, '-c', {cell!r}, str(os.getpid())], start_new_session=True).wait()\n"
    )
    with subprocess.Popen([sys.executable, "-c", sweep], start_new_session=True) as process:
        until((tmp_path / "ready").exists)
        os.killpg(process.pid, signal.SIGKILL)
    until((tmp_path / "stopped").exists)


def test_a_cell_whose_sweep_is_gone_before_it_looks_does_not_begin() -> None:
    done = subprocess.run([sys.executable, str(LAUNCH), "1", "--version"], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (143, "")


def test_exit_codes_of_a_stopped_run_are_known() -> None:
    assert [code for code in range(-20, 256) if asked_to_stop(code)] == [-15, -10, -2, 130, 138, 143]


class TestSlots:
    def test_on_a_cpu_are_as_many_as_asked_for_and_share_the_cores(self) -> None:
        assert local.local_slots(3, device="cpu") == [{}, {}, {}]
        assert local.local_slots(None, device="cpu") == [{}]
        assert local.threads_per_cell(1) == usable_cores()
        assert local.threads_per_cell(10_000) == 1

    @pytest.mark.parametrize(
        ("jobs", "shown", "expected"),
        [(None, None, ["0", "1"]), (3, None, ["0", "1", "0"]), (1, None, ["0"]), (None, "4,GPU-aa", ["4", "GPU-aa"])],
    )
    def test_are_one_per_gpu(self, monkeypatch, jobs, shown, expected) -> None:
        monkeypatch.setattr("torch.cuda.device_count", lambda: 2)
        monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
        if shown:
            monkeypatch.setenv("CUDA_VISIBLE_DEVICES", shown)
        assert local.local_slots(jobs, device="auto") == [{"CUDA_VISIBLE_DEVICES": gpu} for gpu in expected]


class TestFolder:
    def test_two_sweeps_do_not_share_one(self, folder: SweepFolder) -> None:
        script = (
            "import sys; from pathlib import Path; from harness.sweep.folder import SweepFolder\n"
            f"with SweepFolder(Path({str(folder.path)!r})).claimed():\n"
            "    print('mine', flush=True); sys.stdin.read()\n"
        )
        command = [sys.executable, "-c", script]
        with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as other:
            assert other.stdout.readline() == "mine\n"
            with pytest.raises(SweepError, match=rf"is being run by process {other.pid} on .*another --out"):
                folder.claimed().__enter__()
            other.communicate()
        with folder.claimed():
            pass

    def test_a_changed_grid_adds_cells_and_leaves_those_that_it_lacks(self, tmp_path: Path, asked: Path) -> None:
        folder, _, left = prepared(tmp_path / "sweep")
        assert left == []
        local.run_local(folder, NAMES, slots=[{}], watcher=Told())
        changed = make_grid({"memories": ["tsmem"], "refiners": ["none", "brst"], "seeds": [0, 1]})
        _, planned, left = prepared(tmp_path / "sweep", changed)
        assert [cell.name for cell in planned.cells] == ["tsmem-s0", "tsmem-s1", "brst+tsmem-s0", "brst+tsmem-s1"]
        assert left == ["baseline-s0", "baseline-s1"]
        assert [folder.done(cell) for cell in planned.cells] == [True, True, False, False]
        _, planned, left = prepared(tmp_path / "sweep")
        assert [cell.name for cell in planned.cells] == NAMES
        assert left == ["brst+tsmem-s0", "brst+tsmem-s1"]

    def test_a_finished_run_of_other_settings_is_no_cell_of_it(self, folder: SweepFolder) -> None:
        cell: Cell = plan_cells(make_grid(GRID)).cells[0]
        run = folder.run(cell.name)
        run.path.mkdir(parents=True)
        run.record.touch()
        run.settings.write_text(cell.settings)
        assert folder.done(cell)
        run.settings.write_text(cell.settings.replace("seed = 0", "seed = 7"))
        with pytest.raises(SweepError, match="was not begun with the settings of this sweep's cell"):
            folder.done(cell)

    @pytest.mark.parametrize(
        "text", ["", "{", "[]", '{"cells": 3}', '{"cells": [{"name": "../x", "number": 1}]}', "x" * 10]
    )
    def test_a_damaged_list_of_cells_is_refused(self, folder: SweepFolder, text: str) -> None:
        folder.cells.write_text(text)
        with pytest.raises(SweepError, match=r"cells\.json is not a list of cells"):
            folder.known()

    def test_a_damaged_note_of_a_failure_is_refused(self, folder: SweepFolder) -> None:
        (folder.path / "failures" / "tsmem-s0.json").write_text("{")
        with pytest.raises(SweepError, match=r"tsmem-s0\.json is not a note of a failure; remove it"):
            folder.failure("tsmem-s0")

    def test_the_threads_of_its_cells_are_remembered(self, tmp_path: Path) -> None:
        assert SweepFolder(tmp_path / "new").threads() == 0
        folder, *_ = prepared(tmp_path / "old", make_grid({**GRID, "settings": {"compute": {"threads": 5}}}))
        assert folder.threads() == 5
