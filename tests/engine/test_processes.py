"""Two processes on a CPU give what one gives, as one run: same losses, same labels, one record, one message."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

import toy_parts
from harness.leaderboard.record import read_record

pytestmark = pytest.mark.slow
SCRIPT = Path(toy_parts.__file__).with_name("toy_processes.py")
DEADLINE_S = 600


def start(out: Path, *, devices: int, resume: bool = False, torchrun: bool = False, **values) -> subprocess.Popen:
    """Begin a run of its own process group."""
    out.mkdir(parents=True, exist_ok=True)
    compute = {"devices": 0 if torchrun else devices, "threads": 1, **values.pop("compute", {})}
    program = [sys.executable]
    if torchrun:
        program += ["-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={devices}"]
    arguments = [str(out), "resume" if resume else "", json.dumps({"compute": compute, **values})]
    environment = {name: text for name, text in os.environ.items() if name not in ("RANK", "LOCAL_RANK", "WORLD_SIZE")}
    return subprocess.Popen(
        [*program, str(SCRIPT), *arguments],
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment, start_new_session=True,
    )  # fmt: skip


def finished(out: Path, **how) -> subprocess.CompletedProcess[str]:
    """The end of a run, with what it printed."""
    process = start(out, **how)
    try:
        printed, said = process.communicate(timeout=DEADLINE_S)
    finally:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
    return subprocess.CompletedProcess(process.args, process.returncode, printed, said)


def well(out: Path, **how) -> Path:
    done = finished(out, **how)
    assert done.returncode == 0, done.stderr[-3000:]
    assert done.stdout.count("record: ") == 1
    return out / "toy"


def rows(folder: Path) -> list[dict]:
    return [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]


def steps(folder: Path) -> list[dict[str, float]]:
    return json.loads((folder.parent / "steps.json").read_text())


def assert_alike(one: Path, two: Path, *, tolerance: float) -> None:
    first, second = steps(one), steps(two)
    assert len(first) == len(second)
    for number, (alone, shared) in enumerate(zip(first, second, strict=True)):
        assert shared == pytest.approx(alone, rel=tolerance, abs=tolerance), f"step {number}"
    assert [row["labels"] for row in rows(one)] == [row["labels"] for row in rows(two)]


SMALL = {"model": {"backbone": "small"}, "recipe": {"epochs": 1, "iterations": 20}, "real": True}
METHODS = {
    "baseline": {"plugins": ["baseline"]},
    "a teacher": {"plugins": ["pclhd"]},
    "two embeddings": {"plugins": ["hil"], "model": {"backbone": "small-vit"}},
}


@pytest.mark.parametrize("method", METHODS)
def test_twenty_steps_of_two_processes_are_those_of_one(tiny, tmp_path: Path, method: str) -> None:
    settings = SMALL | METHODS[method]
    one = well(tmp_path / "one", devices=1, **settings)
    two = well(tmp_path / "two", devices=2, **settings)
    assert len(steps(one)) == 20
    assert_alike(one, two, tolerance=2e-3)
    cost = read_record(two / "record.json").cost
    assert (cost.world_size, cost.batch_norm) == (2, "synchronised")
    assert cost.bn_batch == read_record(one / "record.json").cost.bn_batch


def test_twenty_epochs_clustered_anew_and_batches_of_uneven_shares(tiny, tmp_path: Path) -> None:
    recipe = {"epochs": 20, "iterations": 1, "visible_clusters": 3, "infrared_clusters": 3, "instances": 3}
    one = well(tmp_path / "one", devices=1, recipe=recipe)
    two = well(tmp_path / "two", devices=2, recipe=recipe)
    assert len(steps(two)) >= 20
    assert_alike(one, two, tolerance=1e-4)


def test_torchrun_and_three_processes(tiny, tmp_path: Path) -> None:
    one = well(tmp_path / "one", devices=1)
    three = well(tmp_path / "three", devices=3, torchrun=True)
    assert_alike(one, three, tolerance=1e-4)


def test_local_batch_norm_is_another_training_and_says_so(tiny, tmp_path: Path) -> None:
    local = {"compute": {"batch_norm": "local"}}
    folder = well(tmp_path / "local", devices=2, **local)
    cost = read_record(folder / "record.json").cost
    assert cost.batch_norm == "local"
    assert cost.bn_batch * 2 == read_record(well(tmp_path / "one", devices=1) / "record.json").cost.bn_batch
    assert steps(folder) != steps(tmp_path / "one" / "toy")


def test_stopped_within_an_epoch_by_a_signal_to_all_and_resumed_it_ends_as_if_it_had_not(tiny, tmp_path: Path) -> None:
    whole = well(tmp_path / "whole", devices=2)
    stopped = finished(tmp_path / "stopped", devices=2, fail="0:3:stop")
    assert stopped.returncode == 128 + signal.SIGINT, stopped.stderr[-3000:]
    assert stopped.stderr.count("stopped by Ctrl-C after") == 1
    refused = finished(tmp_path / "stopped", devices=1, resume=True)
    assert refused.returncode == 2
    assert "devices = 1" in refused.stderr
    assert "Another number of devices adds floats in another order" in refused.stderr
    resumed = well(tmp_path / "stopped", devices=2, resume=True)
    assert (resumed / "metrics.jsonl").read_text() == (whole / "metrics.jsonl").read_text()
    assert (resumed / "weights.safetensors").read_bytes() == (whole / "weights.safetensors").read_bytes()


@pytest.mark.parametrize(
    ("fail", "complaint"),
    [("1:2", "no room"), ("0:2", "no room"), ("1:2:kill", "ended without a word")],
    ids=["another fails", "the first fails", "another is killed"],
)
def test_one_process_that_fails_ends_all_with_one_message(tiny, tmp_path: Path, fail: str, complaint: str) -> None:
    done = finished(tmp_path, devices=2, fail=fail)
    assert done.returncode not in (0, -signal.SIGKILL) or fail.endswith("kill")
    assert done.returncode != 0
    if done.returncode != -signal.SIGKILL:  # Fabric, which started the killed one, may be quicker
        assert done.stderr.count("harness: ") == 1, done.stderr[-3000:]
        assert complaint in done.stderr
    assert not (tmp_path / "toy" / "record.json").exists()


def test_a_number_that_torchrun_did_not_start_is_refused_once(tiny, tmp_path: Path) -> None:
    done = finished(tmp_path, devices=2, torchrun=True, compute={"devices": 3})
    assert done.returncode != 0
    assert "torchrun has started 2 processes, but compute.devices is 3" in done.stderr
