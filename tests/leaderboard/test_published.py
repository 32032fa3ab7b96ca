"""Published figures and dataset versions: what is taken from the files, and what in them is refused."""

from __future__ import annotations

from pathlib import Path

import pytest

from harness.errors import DataError
from harness.leaderboard.published import read_published
from harness.leaderboard.versions import add_version, entry_for, read_versions, version_of

SHIPPED = Path(__file__).parents[2] / "leaderboards"


class TestPublishedFigures:
    def test_are_read_with_their_protocol_and_source(self, board):
        pgm, agw = read_published(board / "published.csv")
        assert pgm.figures == {"rank1": 57.27, "rank10": 92.48, "rank20": 97.23, "mAP": 51.78, "mINP": 34.96}
        assert (pgm.protocol, pgm.plugin, pgm.year) == ("sysu-mm01/all/single/S/v1", "pgm", 2023)
        assert (pgm.secondary, pgm.reference) == (False, None)
        assert (agw.secondary, agw.reference) == (True, "supervised")

    def test_of_official_permutations_belong_to_those_galleries(self, board):
        path = board / "published.csv"
        path.write_text(path.read_text().replace("the paper", "the log (official permutation protocol)"))
        assert read_published(path)[0].protocol == "sysu-mm01/all/single/O/v1"

    def test_say_what_else_was_used(self, board):
        path = board / "published.csv"
        path.write_text(path.read_text().replace(",unsupervised,", ",unsupervised (extra labelled data),"))
        pgm = read_published(path)[0]
        assert (pgm.reference, pgm.extra_information) == (None, "extra labelled data")

    @pytest.mark.parametrize(
        ("old", "new", "reason"),
        [
            ("57.27", "572.7", "line 2, is not valid at r1: .*less than or equal to 100"),
            ("57.27", "", "line 2, .*r1 is missing"),
            ("92.48", "52.48", "line 2, .*a later rank is below an earlier one"),
            ("51.78", "51,78", "line 2, is not valid"),
            ("all-search", "indoors", "line 2, is not valid at setting"),
            ("sysu-mm01,all-search", "regdb,all-search", "regdb has no setting all-search"),
            ("the paper", "", "not valid at source"),
            ("AGW", "pgm", r"line 3: pgm has figures under sysu-mm01/all/single/S/v1 already"),
        ],
    )
    def test_that_cannot_be_right_are_refused_with_their_line(self, board, old, new, reason):
        path = board / "published.csv"
        path.write_text(path.read_text().replace(old, new, 1))
        with pytest.raises(DataError, match=reason):
            read_published(path)

    def test_there_are_none_without_a_file(self, tmp_path):
        assert read_published(tmp_path / "published.csv") == ()

    def test_shipped_with_the_harness_are_valid(self):
        figures = read_published(SHIPPED / "published.csv")
        assert {figure.dataset for figure in figures} == {"sysu-mm01", "regdb"}
        assert any(figure.secondary for figure in figures)
        assert not all(figure.secondary for figure in figures)


class TestVersions:
    def test_of_the_rendered_dataset_are_shipped(self):
        found = read_versions(SHIPPED / "datasets.toml")
        assert [found[f"rendered-small-{seed}"].seed for seed in range(3)] == [0, 1, 2]

    def test_are_found_by_all_that_tells_them_apart(self, versions, make_record):
        card = make_record().dataset
        assert version_of(card, versions) == "rendered-small-0"
        assert version_of(card.model_copy(update={"trial": 3}), versions) == "rendered-small-0"
        assert version_of(card.model_copy(update={"seed": 1}), versions) is None

    def test_are_added_under_a_name_of_their_own_and_old_lines_stay(self, board, versions, make_record):
        path = board / "datasets.toml"
        path.write_text("# a comment\n" + path.read_text())
        before = path.read_text()
        cards = [make_record().dataset.model_copy(update=change) for change in ({"fingerprint": "new"}, {"seed": 5})]
        for card in cards:
            add_version(path, card)
        assert path.read_text().startswith(before.rstrip())
        found = read_versions(path)
        assert [version_of(card, found) for card in cards] == ["rendered-small-0-new", "rendered-small-5"]
        assert list(found) == [*versions, "rendered-small-0-new", "rendered-small-5"]

    def test_the_first_of_a_dataset_bears_its_name(self, make_record):
        card = make_record().dataset.model_copy(update={"name": "regdb", "size": None, "seed": None})
        assert entry_for(card, {}).startswith("[regdb]\n")

    @pytest.mark.parametrize(
        ("text", "reason"),
        [
            ("[", "no TOML"),
            ("[a]\nname = 'x'", "not valid at a.fingerprints"),
            ("[a]\nname = 'x'\nfingerprints = []", "not valid at a.fingerprints"),
            ("[A]\nname = 'x'\nfingerprints = ['1']", "write 'a'"),
        ],
    )
    def test_that_cannot_be_read_are_refused(self, tmp_path, text, reason):
        (tmp_path / "datasets.toml").write_text(text)
        with pytest.raises(DataError, match=reason):
            read_versions(tmp_path / "datasets.toml")
