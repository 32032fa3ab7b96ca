"""The board in the repository: what is made is up to date; a filed figure comes out again when it is trained anew."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from harness.leaderboard import read_record, settings_digest
from harness.leaderboard.build import differences
from harness.leaderboard.statistics import agree

BOARD = Path(__file__).parents[2] / "leaderboards"


def test_tables_and_page_are_what_the_records_give() -> None:
    assert differences(BOARD) == []


@pytest.mark.parametrize("name", ["baseline", "chcr", "ecul", "dmic", "hil", "pclhd", "pgm", "chcr-tsmem"])
def test_the_rendered_board_has_every_method_with_three_seeds(name: str) -> None:
    assert {read_record(path).seed for path in BOARD.glob(f"records/rendered-{name}-d1-s*.json")} >= {0, 1, 2}


@pytest.mark.slow
def test_a_filed_run_that_is_trained_anew_agrees(tmp_path: Path) -> None:
    (path,) = BOARD.glob("records/rendered-baseline-d1-s0-*.json")
    filed = read_record(path)
    command = [
        sys.executable,
        "-m",
        "harness",
        "run",
        "--plugins",
        "baseline",
        "--out",
        str(tmp_path),
        "--name",
        "anew",
    ]
    command += ["--set", "data.seed=1", "--seed", "0", "--threads", "1", "--precision", filed.cost.precision]
    subprocess.run(command, check=True, capture_output=True)
    anew = read_record(tmp_path / "anew" / "record.json")
    assert settings_digest(anew) == settings_digest(filed)
    assert agree(filed, anew)
