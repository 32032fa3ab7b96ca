"""``harness attribute``: what it prints, what it writes, what it refuses."""

from __future__ import annotations

import csv
import io
import json
import runpy
import subprocess
import sys
from pathlib import Path

import pytest
from click.testing import CliRunner

from harness.attribution import grid_of, report_of, tables
from harness.attribution.plot import write_plot
from harness.cli import cli
from harness.errors import AttributionError, RunError
from harness.leaderboard import write_record
from tests.attribution.grids import grid_records, part, record

SCRIPT = Path(__file__).parents[2] / "scripts" / "rendered_attribution.py"


def additive(clusterer, refiner, memory, seed):
    return 40 + 3 * clusterer - refiner + 2 * memory + 4 * refiner * memory + seed / 3 * (1 + clusterer)


def filed(folder: Path, records) -> Path:
    for one in records:
        write_record(folder / "runs" / one.name / "record.json", one)
    return folder


@pytest.fixture
def sweep(tmp_path: Path) -> Path:
    return filed(tmp_path / "sweep", grid_records(additive))


def attribute(*arguments):
    return CliRunner().invoke(cli, ["attribute", *map(str, arguments)], catch_exceptions=False)


def test_it_prints_tables_of_rank_1_and_map(sweep: Path) -> None:
    printed = attribute(sweep).output
    assert printed.startswith("# Attribution: rendered-small-1, rendered/all/single/S/v1\n")
    assert "8 cells, 24 runs; seeds 0, 1, 2." in printed
    assert "Compared with: modality-dbscan + cluster-memory + contrast." in printed
    for heading in ("## rank-1: what each part is worth", "### mAP: interactions"):
        assert heading in printed
    rows = [line for line in printed.splitlines() if line.startswith("| clusterer ")]
    assert [row.split("|")[2].strip() for row in rows] == ["modality-dbscan → chc"] * 2


def test_rows_say_effect_interval_pairs_and_reading(sweep: Path) -> None:
    rows = [
        [cell.strip() for cell in line.strip("|").split("|")]
        for line in attribute(sweep, "--metric", "mINP").output.splitlines()
        if line.startswith("| memory ")
    ]
    assert rows == [["memory", "cluster-memory → tsmem", "+4.00", rows[0][3], "12", "4", "3", rows[0][7], rows[0][8]]]
    low, high = map(float, rows[0][3].split(" to "))
    assert low < 4 < high


def test_files_hold_what_is_printed_and_are_equal_bytes_each_time(sweep: Path, tmp_path: Path) -> None:
    def write(name: str) -> dict[str, bytes]:
        files = {kind: tmp_path / f"{name}.{kind}" for kind in ("md", "csv", "svg", "pdf", "png")}
        printed = attribute(sweep, "--markdown", files["md"], "--csv", files["csv"], "--plot", files["svg"]).output
        assert files["md"].read_text() == printed
        for kind in ("pdf", "png"):
            attribute(sweep, "--metric", "rank1", "--plot", files[kind])
        return {kind: file.read_bytes() for kind, file in files.items()}

    first, again = write("first"), write("again")
    assert first == again
    assert b"rank-1, percentage points" in first["svg"]
    assert "modality-dbscan → chc".encode() in first["svg"]
    assert first["pdf"].startswith(b"%PDF")
    assert first["png"].startswith(b"\x89PNG")


def test_csv_has_a_line_for_every_effect_and_figure(sweep: Path) -> None:
    records = grid_records(additive)
    report = report_of(grid_of(records, ("rank1", "mAP")), ("rank1", "mAP"))
    rows = list(csv.DictReader(io.StringIO(tables.comma_separated(report))))
    assert len(rows) == 2 * (3 + 3)
    assert {row["kind"] for row in rows} == {"part", "interaction"}
    refiner = next(row for row in rows if row["change"].endswith("+ ipr") and row["figure"] == "rank1")
    assert refiner["change"] == "'+ ipr"  # no formula for a spreadsheet
    assert (refiner["points"], refiner["pairs"]) == ("1.00", "12")


def test_json_holds_the_same(sweep: Path) -> None:
    found = json.loads(attribute(sweep, "--json", "--metric", "rank1").output)
    effects = {effect["change"]: effect for effect in found["effects"]}
    assert effects["cluster-memory → tsmem"]["points"] == pytest.approx(4.0)
    assert effects["cluster-memory → tsmem"]["low"] < 4 < effects["cluster-memory → tsmem"]["high"]
    assert (found["cells"], found["runs"], found["units"]) == (8, 24, [0, 1, 2])


def test_one_seed_is_drawn_and_printed_without_intervals(tmp_path: Path) -> None:
    folder = filed(tmp_path / "sweep", grid_records(additive, seeds=(0,)))
    printed = attribute(folder, "--plot", tmp_path / "one.svg").output
    assert "no interval" in printed
    assert "There is one seed only" in printed
    assert "no interval" in (tmp_path / "one.svg").read_text()


def test_a_board_folder_is_read_as_well(tmp_path: Path) -> None:
    for one in grid_records(additive):
        write_record(tmp_path / "board" / "records" / f"{one.name}.json", one)
    assert "8 cells, 24 runs" in attribute(tmp_path / "board").output
    assert "8 cells, 24 runs" in attribute(tmp_path / "board" / "records").output


def test_markup_in_options_and_names_stays_text(tmp_path: Path) -> None:
    evil = "|<b>$x$\x1b[31m"
    records = [
        record([part("memory", "tsmem", note=note)], 40 + n + seed, seed=seed, name=f"r{n}-{seed}")
        for n, note in enumerate(("plain", evil))
        for seed in (0, 1)
    ]
    printed = attribute(filed(tmp_path, records), "--plot", tmp_path / "evil.png", "--csv", tmp_path / "e.csv").output
    assert "\x1b" not in printed
    assert "\x1b" not in (tmp_path / "e.csv").read_text()
    assert r"\|\<b\>\$x\$" in printed


def test_what_cannot_be_read_or_compared_is_refused(sweep: Path, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    with pytest.raises(RunError, match=r"No record\.json was found"):
        attribute(tmp_path / "empty")
    with pytest.raises(RunError, match="no run folder or record"):
        attribute(tmp_path / "nowhere")
    with pytest.raises(AttributionError, match="svg, pdf, png"):
        attribute(sweep, "--plot", tmp_path / "plot.gif")
    with pytest.raises(AttributionError, match="all have the same parts"):
        attribute(sweep / "runs" / next((sweep / "runs").iterdir()).name)
    broken = sorted((sweep / "runs").iterdir())[0] / "record.json"
    broken.write_text(broken.read_text().replace('"seed": 0', '"seed": 7'))
    with pytest.raises(RunError, match="seal"):
        attribute(sweep)


def test_an_unknown_metric_is_a_usage_error(sweep: Path) -> None:
    done = CliRunner().invoke(cli, ["attribute", str(sweep), "--metric", "rank2"])
    assert done.exit_code == 2
    assert "rank2" in done.output


def test_help_loads_no_heavy_library() -> None:
    code = (
        "import sys\nfrom harness.cli import cli\n"
        "try: cli.main(['attribute', '--help'], standalone_mode=True)\nexcept SystemExit: pass\n"
        "print(sorted({'torch', 'pandas', 'matplotlib', 'scipy', 'ray'} & set(sys.modules)), file=sys.stderr)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stderr.strip() == "[]"


def test_the_plot_of_another_ending_is_refused_before_anything_is_drawn(tmp_path: Path) -> None:
    records = grid_records(additive)
    report = report_of(grid_of(records, ("rank1",)), ("rank1",))
    with pytest.raises(AttributionError, match=r"not 'plot'"):
        write_plot(report, tmp_path / "plot")
    assert list(tmp_path.iterdir()) == []


def test_the_document_takes_the_tables_between_its_marks(sweep: Path, tmp_path: Path) -> None:
    script = runpy.run_path(str(SCRIPT))
    document = tmp_path / "docs" / "attribution.md"
    document.parent.mkdir()
    document.write_text(script["DOCUMENT"].read_text(encoding="utf-8"), encoding="utf-8")
    before, after = (document.read_text(encoding="utf-8").split(mark) for mark in (script["BEGIN"], script["END"]))
    for _ in range(2):
        script["write"]([sweep], document)
    text = document.read_text(encoding="utf-8")
    assert text.startswith(before[0])
    assert text.endswith(after[1])
    assert text.count("### Attribution: rendered-small-1") == 1
    assert (document.parent / "images" / "attribution.svg").is_file()
