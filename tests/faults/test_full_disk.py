"""A disk that is really full: a small tmpfs in a mount namespace of its own, where the system grants one."""

from __future__ import annotations

import json
import resource
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

import toy_parts
from harness.leaderboard.record import read_record
from toy_parts import Silent
from toy_runs import Ran, run_toy

TOY_RUN = Path(toy_parts.__file__).with_name("toy_run.py")
SCRIPT = """
mount -t tmpfs -o size=64k none "$1" || exit 99
"$2" "$3" "$1" "" "$4" && exit 98
ls -A "$1/toy" "$1/toy/checkpoint"
mount -o remount,size=64m "$1" || exit 99
"$2" "$3" "$1" resume "$4" || exit 97
cp -r "$1/toy" "$5"
"""


@pytest.mark.slow
def test_a_disk_that_fills_up_costs_the_epoch_and_no_more(tiny: Path, tmp_path: Path) -> None:
    disk, left = tmp_path / "disk", tmp_path / "left"
    disk.mkdir()
    settings = {"evaluation": {"trials": 1}}
    if shutil.which("unshare") is None or resource.getpagesize() != 4096:
        pytest.skip("unshare is not installed, or pages are large: files take other room than this test counts on")
    command = ["unshare", "--map-root-user", "--mount", "sh", "-c", SCRIPT, "sh"]
    done = subprocess.run(
        [*command, str(disk), sys.executable, str(TOY_RUN), json.dumps(settings), str(left)],
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode in (1, 99):
        pytest.skip(f"no mount namespace is granted here: {done.stderr.strip()}")
    assert done.returncode == 0, done.stderr
    assert "RunError: Cannot write the checkpoint" in done.stderr
    assert "No space left on device" in done.stderr
    assert {"epoch-00001.pt", "epoch-00002.pt"} <= set(done.stdout.split())
    assert ".tmp" not in done.stdout
    assert Ran(read_record(left / "record.json"), left, Silent()).bits == run_toy(tmp_path / "whole", **settings).bits
