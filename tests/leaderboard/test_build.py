"""A board's folder: made the same every time, and found out when it is not what its records make."""

from __future__ import annotations

import json
from datetime import UTC, datetime

import numpy as np
import pytest

from harness.errors import RunError
from harness.leaderboard import filing, read_record
from harness.leaderboard.build import build, differences, load_board
from harness.leaderboard.diff import changes
from harness.leaderboard.record import canonical_digest


@pytest.fixture
def built(board, make_queried):
    """A board with two methods, three seeds each, and everything that is made from them."""
    generator = np.random.default_rng(0)
    for method, share in (("baseline", 0.3), ("chcr,tsmem", 0.5)):
        for seed in range(3):
            values = (generator.random(200) < share).astype(float)
            filing.file_record(board, make_queried(values, method=method, name=f"{method}-{seed}", seed=seed))
    build(board)
    return board


def content_of(folder):
    return {
        path.relative_to(folder).as_posix(): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()
    }


def test_building_twice_gives_the_same_bytes(built):
    before = content_of(built)
    assert build(built) == []
    assert content_of(built) == before
    for path in (*built.glob("tables/*"), built / "README.md"):
        path.unlink()
    build(built)
    assert content_of(built) == before


def test_nothing_made_depends_on_where_it_is_made(built, tmp_path):
    elsewhere = tmp_path / "else" / "where"
    elsewhere.parent.mkdir()
    built.rename(elsewhere)
    assert differences(elsewhere) == []
    assert not [name for name, content in content_of(elsewhere).items() if str(tmp_path).encode() in content]


def test_every_table_is_there_in_three_formats_and_is_linked(built):
    names = {path.name for path in (built / "tables").iterdir()}
    assert {f"rendered-small-0-all-single-s-v1.{end}" for end in ("md", "csv", "tex")} <= names
    index = (built / "README.md").read_text()
    assert all(f"tables/{name}" in index for name in names)


class TestADifference:
    def test_of_one_digit_in_a_table_is_found_and_mended(self, built):
        path = built / "tables" / "rendered-small-0-all-single-s-v1.md"
        before = path.read_text()
        path.write_text(before.replace("2", "3", 1))
        assert differences(built) == ["different: tables/rendered-small-0-all-single-s-v1.md"]
        assert build(built) == ["written: tables/rendered-small-0-all-single-s-v1.md"]
        assert path.read_text() == before

    def test_of_one_digit_in_a_published_figure_is_found(self, built):
        path = built / "published.csv"
        path.write_text(path.read_text().replace("57.27", "57.28"))
        assert "different: tables/sysu-mm01-all-single-s-v1.csv" in differences(built)

    @pytest.mark.parametrize("old", ['"rank1": 0.', '"total_seconds": 7', '"seed": ', '"clusters": 9'])
    def test_of_one_digit_in_a_record_is_refused(self, built, old):
        path = next((built / "records").glob("chcr-tsmem-0*.json"))
        before = path.read_text()
        place = before.index(old) + len(old)
        digit = "1" if before[place] != "1" else "2"
        path.write_text(before[:place] + digit + before[place + (before[place].isdigit()) :])
        assert path.read_text() != before
        with pytest.raises(RunError, match="its seal does not fit"):
            differences(built)

    def test_of_any_digit_in_a_record_is_refused(self, built):
        path = next((built / "records").glob("chcr-tsmem-0*.json"))
        before = path.read_text()
        digits = [place for place, character in enumerate(before) if character.isdigit()]
        for place in digits[::20]:
            other = str((int(before[place]) + 1) % 10)
            path.write_text(before[:place] + other + before[place + 1 :])
            with pytest.raises(RunError):
                filing.read_filed(built)
        assert len(digits[::20]) > 20

    def test_of_a_digit_that_rounding_would_hide_is_refused(self, built):
        path = next((built / "records").glob("chcr-tsmem-0*.json"))
        path.write_text(path.read_text().replace('"total_seconds": 74.0', '"total_seconds": 74.0001'))
        with pytest.raises(RunError, match="is not, byte by byte, what the run wrote"):
            filing.read_filed(built)

    def test_of_a_record_under_a_new_seal_that_fits_is_found_in_the_tables(self, built):
        path = next((built / "records").glob("chcr-tsmem-0*.json"))
        content = json.loads(path.read_text())
        content.pop("seal")
        content["cost"]["total_seconds"] = 75.0
        content["seal"] = canonical_digest(content)
        path.unlink()
        path.with_name("record.json").write_text(json.dumps(content))
        record = read_record(path.with_name("record.json"))
        path.with_name("record.json").unlink()
        filing.file_record(built, record)
        assert "different: tables/rendered-small-0-all-single-s-v1.csv" in differences(built)

    def test_of_files_missing_and_left_over_is_found_and_mended(self, built):
        (built / "README.md").unlink()
        (built / "tables" / "old.md").write_text("old")
        assert differences(built) == ["missing: README.md", "left over: tables/old.md"]
        build(built)
        assert differences(built) == []
        assert not (built / "tables" / "old.md").exists()

    def test_in_other_files_is_none_of_its_business(self, built):
        (built / "rendered.md").write_text("something else")
        assert differences(built) == []
        build(built)
        assert (built / "rendered.md").read_text() == "something else"


def test_a_board_that_is_not_there_is_named(tmp_path):
    with pytest.raises(RunError, match=r"no board at .*nowhere; name one with --board"):
        load_board(tmp_path / "nowhere")


class TestTheDifferenceOfTwoBoards:
    def test_names_rows_added_removed_and_changed(self, built, make_queried):
        before = load_board(built)
        next((built / "records").glob("baseline-0*.json")).unlink()
        for path in (built / "records").glob("chcr-tsmem*.json"):
            path.unlink()
        record = make_queried([1.0] * 200, method="new|one")
        filing.file_record(built, record)
        filing.file_rescoring(built, record, record.protocols)
        text = changes(before, load_board(built))
        assert text.startswith("## Rendered (small, seed 0), all-search, single shot, galleries S\n")
        lines = [line for line in text.splitlines() if line.startswith(("| added", "| removed", "| changed"))]
        added, removed, changed = lines
        assert "new\\|one" in added
        assert "re-scored" in added
        assert "chcr,tsmem" in removed
        assert "baseline" in changed
        assert "seeds was 0, 1, 2" in changed
        assert "SYSU" not in text

    def test_gives_the_difference_of_figures_in_points(self, board, make_queried):
        def at(rank1, day):
            record = make_queried([rank1] * 50, created=datetime(2026, 1, day, tzinfo=UTC))
            path = filing.file_record(board, record)
            found = load_board(board)
            path.unlink()
            return found

        assert "rank-1 was 20.00 (+5.00)" in changes(at(0.2, 1), at(0.25, 2))

    def test_says_when_there_is_none(self, built):
        assert changes(load_board(built), load_board(built)) == "The boards do not differ in any row.\n"

    def test_names_tables_that_came_or_went(self, built):
        before = load_board(built)
        (built / "published.csv").unlink()
        assert "galleries S (table removed)" in changes(before, load_board(built))
        assert "galleries S (new table)" in changes(load_board(built), before)
