"""The same settings and seed give the same bits, also after a kill at any moment."""

from __future__ import annotations

import json
import os
import pickle
import random
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from filelock import FileLock

import toy_parts
from harness.engine import checkpoint, folder, report, train
from harness.engine import run as run_module
from harness.errors import DataError, RunError
from harness.plugins import Catalogue

REAL = {"model": {"backbone": "small", "pretrained": False}, "recipe": {"epochs": 2, "iterations": 2}}


class Killed(BaseException):
    """Stands for the end of the process: nothing in the harness may catch it."""


@pytest.mark.parametrize(
    "plugins", [("baseline",), ("chcr", "tsmem"), pytest.param(("pgm",), marks=pytest.mark.slow)], ids="+".join
)
def test_a_real_method_run_twice_is_identical(run, plugins) -> None:
    first, second = (run(out, plugins=plugins, catalogue=Catalogue(), **REAL) for out in ("a", "b"))
    assert first.bits == second.bits


@pytest.mark.parametrize(
    "plugins",
    [("pgm",), *(pytest.param(names, marks=pytest.mark.slow) for names in (("chcr", "tsmem"), ("dmic",), ("ecul",)))],
    ids="+".join,
)
def test_a_real_method_killed_between_its_stages_resumes_to_the_same_bits(run, plugins, monkeypatch) -> None:
    whole = run("whole", plugins=plugins, catalogue=Catalogue(), **REAL)
    killing(monkeypatch, train.DrawStream, "next", call=4)
    with pytest.raises(Killed):
        run("killed", plugins=plugins, catalogue=Catalogue(), **REAL)
    monkeypatch.undo()
    resumed = run("killed", plugins=plugins, catalogue=Catalogue(), resume=True, **REAL)
    assert resumed.show.resumed_at == 1
    assert resumed.bits == whole.bits


def test_other_seeds_give_other_bits(run) -> None:
    assert run("a", seed=0).bits[1] != run("b", seed=1).bits[1]


def killing(monkeypatch, owner, name: str, *, call: int) -> None:
    """Let the ``call``-th call of ``owner.name`` be the last thing that happens."""
    before, calls = getattr(owner, name), [0]

    def wrapped(*args, **kwargs):
        calls[0] += 1
        if calls[0] == call:
            raise Killed
        return before(*args, **kwargs)

    monkeypatch.setattr(owner, name, wrapped)


SPOTS = {
    "drawing a batch": (train.DrawStream, "next", 8),
    "a step": (train.Trainer, "_step", 8),
    "a memory update": (train.Trainer, "_update", 8),
    "extraction": (train, "extract_features", 4),
    "quality of labels": (run_module, "label_quality", 4),
    "serialising a checkpoint": (checkpoint.torch, "save", 4),
    "syncing a checkpoint": (os, "fsync", 4),
    "renaming a file": (os, "replace", 4),
    "writing metrics": (folder.RunFolder, "write_metrics", 4),
    "test extraction": (run_module, "extract_features", 2),
    "evaluation": (run_module, "evaluate_all", 2),
    "keeping the start": (run_module, "save_start", 1),
    "keeping labels": (run_module, "save_labels", 4),
    "saving weights": (run_module, "save_file", 2),
    "the record": (report, "code_state", 1),
    "writing the record": (run_module, "write_record", 1),
}


@pytest.mark.parametrize("spot", SPOTS)
@pytest.mark.parametrize("step", ["sum", "draw"])
def test_killed_at_a_random_moment_and_resumed_it_is_identical(run, spot: str, step: str, monkeypatch) -> None:
    settings = {"recipe": {"step": step, "optimiser": "adam" if step == "sum" else "sgd"}}
    whole = run("whole", **settings)
    owner, name, calls = SPOTS[spot]
    killing(monkeypatch, owner, name, call=random.Random(f"{spot} {step}").randint(1, calls))
    with pytest.raises(Killed):
        run("killed", **settings)
    monkeypatch.undo()
    assert run("killed", resume=True, **settings).bits == whole.bits


def test_killed_again_and_again_it_is_still_identical(run, monkeypatch) -> None:
    whole = run("whole")
    for _ in range(3):
        killing(monkeypatch, train.Trainer, "_update", call=4)
        with pytest.raises(Killed):
            run("killed", resume=True)
        monkeypatch.undo()
    resumed = run("killed", resume=True)
    assert resumed.show.resumed_at == 3
    assert resumed.bits == whole.bits


@pytest.mark.parametrize("kill", ["terms:1:2", pytest.param("cluster:3:1", marks=pytest.mark.slow)])
def test_a_process_that_is_killed_outright_resumes_to_the_same_bits(run, tmp_path: Path, kill: str) -> None:
    part = "plain" if kill.startswith("terms") else "by-index"
    options = {part: {"kill": kill, "marker": str(tmp_path / "marker")}}
    command = [
        sys.executable,
        str(Path(toy_parts.__file__).with_name("toy_run.py")),
        str(tmp_path / "runs"),
        "",
        json.dumps({"options": options}),
    ]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == -signal.SIGKILL, done.stderr
    assert (tmp_path / "runs" / "toy" / "owner").exists()
    resumed = run("runs", resume=True, options=options)
    assert resumed.show.resumed_at == int(kill.split(":")[1])
    whole = run("whole", options=options)
    assert resumed.bits == whole.bits


def test_a_teacher_is_resumed_too(run, monkeypatch) -> None:
    settings = {"recipe": {"evaluate_encoder": "teacher", "teacher_decay": 0.5}}
    whole = run("whole", **settings)
    killing(monkeypatch, train.Trainer, "_step", call=5)
    with pytest.raises(Killed):
        run("killed", **settings)
    monkeypatch.undo()
    assert run("killed", resume=True, **settings).bits == whole.bits
    assert whole.bits[1] != run("online").bits[1]


def test_a_damaged_newest_checkpoint_falls_back_to_the_one_before(run, monkeypatch) -> None:
    whole = run("whole")
    killing(monkeypatch, train.Trainer, "_update", call=7)
    with pytest.raises(Killed):
        run("killed")
    monkeypatch.undo()
    newest = checkpoint.list_checkpoints(whole.folder.parent.parent / "killed" / "toy" / "checkpoint")[-1]
    newest.write_bytes(newest.read_bytes()[:200])
    resumed = run("killed", resume=True)
    assert resumed.show.resumed_at == 2
    assert any("epoch-00003.pt is damaged" in warning for warning in resumed.record.warnings)
    assert resumed.bits == whole.bits


class TestFolder:
    def test_a_finished_run_is_refused_without_saying_what_to_do(self, run) -> None:
        run()
        with pytest.raises(RunError, match=r"already holds a finished run\. Add --force"):
            run()

    def test_a_finished_run_is_left_alone_by_resume(self, run) -> None:
        before = run()
        after = run(resume=True)
        assert after.record is None
        assert "finished already" in after.show.warnings[0]
        assert (after.folder / "record.json").read_bytes() == (before.folder / "record.json").read_bytes()

    def test_force_begins_anew(self, run) -> None:
        run(seed=1)
        assert run(seed=0, force=True).bits == run("other", seed=0).bits

    def test_force_on_an_unfinished_run_forgets_its_checkpoints(self, run, monkeypatch) -> None:
        killing(monkeypatch, train.Trainer, "_update", call=5)
        with pytest.raises(Killed):
            run()
        monkeypatch.undo()
        assert run(force=True).show.resumed_at is None

    def test_an_unfinished_run_is_refused_without_resume(self, run, monkeypatch) -> None:
        killing(monkeypatch, train.Trainer, "_update", call=5)
        with pytest.raises(Killed):
            run()
        with pytest.raises(RunError, match=r"unfinished run.*--resume.*--force"):
            run()

    def test_resuming_with_other_settings_is_refused_and_shown(self, run, monkeypatch) -> None:
        killing(monkeypatch, train.Trainer, "_update", call=5)
        with pytest.raises(Killed):
            run()
        with pytest.raises(RunError, match=r"begun with other settings.*learning_rate = 0.5"):
            run(resume=True, recipe={"learning_rate": 0.5})

    def test_resuming_on_other_images_is_refused(self, run, tiny_copy: Path, monkeypatch) -> None:
        settings = {"data_root": tiny_copy}
        killing(monkeypatch, train.Trainer, "_update", call=5)
        with pytest.raises(Killed):
            run(**settings)
        monkeypatch.undo()
        train_id = (tiny_copy / "exp" / "train_id.txt").read_text().split(",")[0]
        images = sorted((tiny_copy / "cam1" / f"{int(train_id):04d}").glob("*.jpg"))
        shutil.copyfile(images[0], images[1])
        with pytest.raises(DataError, match=r"not those this run was begun with.*--force"):
            run(resume=True, **settings)

    def test_a_folder_in_use_is_refused(self, run, tmp_path: Path) -> None:
        taken = tmp_path / "runs" / "toy"
        taken.mkdir(parents=True)
        (taken / "owner").write_text("process 4242\n")
        with FileLock(taken / ".lock"), pytest.raises(RunError, match=r"in use by process 4242.*--name"):
            run()
        assert run().record is not None

    def test_a_folder_that_cannot_be_made_is_named(self, run, tmp_path: Path) -> None:
        (tmp_path / "runs").write_text("a file")
        with pytest.raises(RunError, match="Cannot make the run folder"):
            run()

    def test_nothing_is_left_aside(self, run) -> None:
        left = {path.name for path in run().folder.iterdir()}
        assert left <= {
            ".lock", "checkpoint", "embeddings.safetensors", "metrics.jsonl", "record.json", "settings.toml",
            "weights.safetensors", "start.safetensors", "labels.safetensors",
        }  # fmt: skip

    def test_half_written_files_of_a_killed_process_are_removed(self, run, tmp_path: Path) -> None:
        checkpoints = tmp_path / "runs" / "toy" / "checkpoint"
        checkpoints.mkdir(parents=True)
        half = [checkpoints / ".epoch-00001-step-00002.pt.tmp", checkpoints.parent / ".record.json.tmp"]
        for path in half:
            path.write_bytes(b"PK")
        run(resume=True)
        assert not any(path.exists() for path in half)


class TestReading:
    def test_if_every_checkpoint_is_damaged_the_run_begins_anew_and_says_so(self, run, monkeypatch) -> None:
        whole = run("whole")
        killing(monkeypatch, train.Trainer, "_update", call=7)
        with pytest.raises(Killed):
            run("killed")
        monkeypatch.undo()
        folder = whole.folder.parent.parent / "killed" / "toy" / "checkpoint"
        for path, content in zip(sorted(folder.iterdir()), (b"", b"PK\x03\x04 torn"), strict=True):
            path.write_bytes(content)
        resumed = run("killed", resume=True)
        assert resumed.show.resumed_at is None
        assert any("No readable checkpoint is left: the run begins anew" in text for text in resumed.record.warnings)
        assert resumed.bits == whole.bits

    def test_memory_that_runs_out_is_no_damage(self, tmp_path: Path, monkeypatch) -> None:
        checkpoint.save_checkpoint(tmp_path, 1, {"epochs_done": 1})

        def refused(*_, **__):
            raise MemoryError

        monkeypatch.setattr(checkpoint.torch, "load", refused)
        with pytest.raises(MemoryError):
            checkpoint.load_latest(tmp_path)

    def test_what_holds_more_than_tensors_is_not_read_and_nobody_is_told_to_read_it_all_the_same(
        self, tmp_path: Path
    ) -> None:
        (tmp_path / "epoch-00001.pt").write_bytes(pickle.dumps(Path("/")))
        found = checkpoint.load_latest(tmp_path)
        assert found.epoch is None
        (warning,) = found.warnings
        assert "epoch-00001.pt is damaged (it is no whole archive of tensors and plain values)" in warning
