"""Sparklines on a terminal, whatever it can show, and the way to the report."""

from __future__ import annotations

import io
from pathlib import Path

import pytest
from click.testing import CliRunner
from rich.console import Console

from harness.cli import cli
from harness.cli.show import Terminal
from harness.cli.sparklines import ASCII, BLOCKS, levels, sparkline, summary
from harness.leaderboard.record import read_record

RUN = [
    "run",
    "--plugins",
    "baseline",
    "--set",
    "data.size=tiny",
    "--epochs",
    "2",
    "--iterations",
    "1",
    "--threads",
    "1",
]


@pytest.mark.parametrize(
    ("values", "line"),
    [([], ""), ([3.0], "▄"), ([1.0, 1.0], "▄▄"), ([0, 7], "▁█"), ([7, 0, 3.5], "█▁▅"), (range(8), BLOCKS)],
    ids=str,
)
def test_a_sparkline_goes_from_the_lowest_value_to_the_highest(values, line: str) -> None:
    assert sparkline(list(values)) == line


def test_a_long_curve_is_thinned_out_and_keeps_its_ends() -> None:
    line = sparkline([0.0, *[5.0] * 300, 10.0])
    assert len(line) == 40
    assert (line[0], line[-1]) == ("▁", "█")


@pytest.mark.parametrize(("encoding", "characters"), [("utf-8", BLOCKS), ("ascii", ASCII), ("latin-1", ASCII)])
def test_blocks_are_used_where_they_can_be_shown(encoding: str, characters: str) -> None:
    stream = io.TextIOWrapper(io.BytesIO(), encoding=encoding)
    assert levels(stream) == characters
    for line in summary([("loss", [3.0, 1.0])], characters=levels(stream)):
        stream.write(line)


def test_lines_are_aligned_and_say_first_and_last_value() -> None:
    lines = summary([("loss a", [2.0, 1.0, 0.123456]), ("clusters", [5, 1234]), ("none", [])], characters=ASCII)
    assert lines == ["loss a    #~_  2 -> 0.123", "clusters  _#   5 -> 1234"]


def test_the_end_of_a_run_shows_its_curves_and_the_way_to_the_report(finished: Path) -> None:
    for reports in (False, True):
        show = Terminal(reports=reports)
        show.console = Console(file=io.StringIO(), width=200)
        show.finished(read_record(finished / "record.json"), finished)
        said = show.console.file.getvalue()
        for name in ("loss plain/visible", "ARI visible", "NMI infrared", "clusters joint", "rank-1"):
            assert f"\n{name} " in said
        assert (f"harness report {finished}" in said.replace("\n", "")) is not reports


@pytest.mark.slow
def test_run_writes_the_report_if_asked(tiny: Path, tmp_path: Path) -> None:
    done = CliRunner().invoke(cli, [*RUN, "--out", str(tmp_path), "--name", "r", "--report"])
    assert done.exit_code == 0, done.output
    assert (tmp_path / "r" / "report.html").exists()
    assert done.output.rstrip().splitlines()[-1].startswith(f"report: {tmp_path / 'r' / 'report.html'}")


def test_observers_are_no_part_of_the_method(tmp_path: Path) -> None:
    dry = [*RUN, "--dry-run"]
    plain = CliRunner().invoke(cli, dry)
    watched = CliRunner().invoke(cli, [*dry, "--observers", "tensorboard"])
    assert watched.exit_code == 0, watched.output
    assert 'observers = [\n    "tensorboard",\n]' in watched.output
    assert [line for line in watched.output.splitlines() if line.startswith("name = ")] == [
        line for line in plain.output.splitlines() if line.startswith("name = ")
    ]
