"""Every fault is met, and ``docs/reliability.md`` says what comes of it."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.faults import kills
from tests.faults.table import DOCUMENT, GROUPS, NOTHING, Row, killed, loss_of_kill, prose, row_of
from tests.faults.workbench import Bench, Fault

FAULTS = [fault for faults in GROUPS.values() for fault in faults]
MEND = "docs/reliability.md is not what is observed: run `make reliability`"


def documented(row: Row) -> bool:
    return f"{row}\n" in DOCUMENT.read_text(encoding="utf-8")


@pytest.mark.parametrize("fault", FAULTS, ids=lambda fault: f"{fault.name}, {fault.where}".replace(" ", "-"))
def test_after_a_fault_the_run_goes_on_to_the_same_bits_and_the_table_says_so(
    bench: Bench, fault: Fault, tmp_path: Path
) -> None:
    row = row_of(fault, bench.suffer(fault, tmp_path / "runs"), bench.straight)
    assert documented(row), f"{MEND}\n{row}"


@pytest.mark.parametrize("stage", kills.STAGES)
def test_a_run_killed_outright_goes_on_to_the_same_bits(bench: Bench, stage: str, tmp_path: Path) -> None:
    # The last point of a stage: of checkpoints, the renaming; the others are killed in the long suite.
    lost = loss_of_kill(bench, kills.points(stage)[-1], tmp_path / "runs")
    (row,) = (line for line in DOCUMENT.read_text().splitlines() if line.startswith(f"| SIGKILL | {stage} |"))
    assert not lost or not row.endswith(f"| {NOTHING} |")


@pytest.mark.slow
@pytest.mark.parametrize("stage", kills.STAGES)
def test_runs_killed_all_over_a_stage_go_on_to_the_same_bits_and_the_table_says_so(
    bench: Bench, stage: str, tmp_path: Path
) -> None:
    row = killed(bench, stage, tmp_path)
    assert documented(row), f"{MEND}\n{row}"


def test_runs_are_killed_at_twenty_five_points_and_more() -> None:
    assert len({point for stage in kills.STAGES for point in kills.points(stage)}) >= 25


def test_the_document_holds_these_faults_and_no_others() -> None:
    text = DOCUMENT.read_text(encoding="utf-8")
    assert text.startswith(prose()), MEND
    rows = [line.split(" | ") for line in text.removeprefix(prose()).splitlines() if line.startswith("| ")]
    named = [(first.removeprefix("| "), where) for first, where, *_ in rows if first != "| fault"]
    expected = [(fault.name, fault.where) for fault in FAULTS] + [("SIGKILL", stage) for stage in kills.STAGES]
    assert named == expected, MEND


def test_every_row_ends_with_what_was_lost_and_that_is_at_most_the_current_epoch() -> None:
    ends = {line.split(" | ")[-1].removesuffix(" |") for line in DOCUMENT.read_text().splitlines() if line[:2] == "| "}
    assert ends - {"what was lost"} == {end for end in ends if "nothing lost" in end or "epoch" in end}
    assert NOTHING in ends
