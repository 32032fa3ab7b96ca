"""Which runs make a row, which rows a table, and what a row says."""

from __future__ import annotations

from datetime import UTC, datetime

import numpy as np
import pytest

from harness.errors import RunError
from harness.leaderboard import CodeState, EpochCurve, Extraction, filing
from harness.leaderboard.filing import Filed
from harness.leaderboard.published import read_published
from harness.leaderboard.record import NeighbourSearchCard
from harness.leaderboard.rows import board_of
from harness.leaderboard.statistics import paired_differences

PROTOCOL = "rendered/all/single/S/v1"
INDOOR = "rendered/indoor/single/S/v1"
SYSU = "sysu-mm01/all/single/S/v1"


def chance(share, *, seed, count=300):
    return (np.random.default_rng(seed).random(count) < share).astype(float)


@pytest.fixture
def board_from(versions):
    """The board of records, each filed under its own name; keyword arguments are those of the filed entry."""

    def build(records, published=(), **changes):
        names = {"rendered": "rendered-small-0"}
        entries = [
            Filed(
                filing.filed_name(record),
                record,
                **{"version": names.get(record.dataset.name, record.dataset.name), "verified": "run"} | changes,
            )
            for record in records
        ]
        return board_of(entries, published, versions)

    return build


@pytest.fixture
def table_of(board_from):
    """The only table of records, and its rows by method."""

    def build(records, published=(), **changes):
        (table,) = board_from(records, published, **changes).tables
        return table

    return build


@pytest.fixture
def on_sysu(make_queried):
    """A record on SYSU-MM01."""

    def build(rank1_Q, *, dataset="sysu-mm01", protocol=SYSU, trial=None, **changes):
        card = make_queried([0.5]).dataset.model_copy(
            update={"name": dataset, "size": None, "seed": None, "fingerprint": "5ca1ab1e", "trial": trial}
        )
        return make_queried(rank1_Q, dataset=card, primary_protocol=protocol, **changes)

    return build


class TestARow:
    def test_is_the_seeds_of_one_set_of_settings(self, table_of, make_queried):
        ranks = [0.2, 0.3, 0.4]
        (row,) = table_of([make_queried([rank] * 50, seed=seed) for seed, rank in enumerate(ranks)]).rows
        assert (row.seeds, row.kind, row.method) == ((0, 1, 2), "run", "chcr,tsmem")
        assert row.figures["rank1"].mean == pytest.approx(30)
        assert row.figures["rank1"].sd_seeds == pytest.approx(10)
        assert len(row.records) == 3

    def test_has_the_deviation_over_galleries_apart(self, table_of, make_record):
        figures = make_record().protocols[PROTOCOL]
        spread = figures.model_copy(update={"sd": dict.fromkeys(figures.sd, 0.02)})
        (row,) = table_of([make_record(protocols={PROTOCOL: spread})]).rows
        assert (row.figures["mAP"].sd_seeds, row.figures["mAP"].sd_trials) == (None, pytest.approx(2))
        assert row.trials == 2

    def test_of_other_settings_is_another_and_both_say_how_they_differ(self, table_of, make_record):
        table = table_of([make_record(), make_record(seed=1, recipe={"epochs": 60})])
        assert len({row.identifier for row in table.rows}) == 2
        marks = {mark for row in table.rows for mark in row.marks}
        assert {"recipe.epochs = 12", "recipe.epochs = 60", "recipe.learning_rate = not set"} <= marks

    def test_cannot_be_improved_by_running_again(self, table_of, make_queried):
        early, late = datetime(2026, 1, 1, tzinfo=UTC), datetime(2026, 1, 2, tzinfo=UTC)
        worse, better = make_queried([0.2] * 50, created=early), make_queried([0.4] * 50, created=late)
        for records in ([worse, better], [better, worse]):
            (row,) = table_of(records).rows
            assert row.figures["rank1"].mean == pytest.approx(20)
            assert row.records == (f"{filing.filed_name(worse)}.json",)

    def test_is_verified_as_far_as_its_weakest_run(self, versions, make_record):
        entries = [
            Filed(f"r{seed}", make_record(seed=seed), "rendered-small-0", level)
            for seed, level in enumerate(["retrained", "re-scored"])
        ]
        (table,) = board_of(entries, (), versions).tables
        assert table.rows[0].verified == "re-scored"

    def test_has_the_mean_cost_in_hours_of_what_it_ran_on(self, table_of, make_record):
        def costing(seed, seconds, **changes):
            cost = make_record().cost.model_copy(update={"total_seconds": seconds, "threads": 2, **changes})
            return make_record(seed=seed, cost=cost)

        (row,) = table_of([costing(0, 3600.0, peak_memory_mib=10.0), costing(1, 7200.0, peak_memory_mib=30.0)]).rows
        assert (row.cost.hours, row.cost.unit, row.cost.peak_memory_mib) == (3.0, "CPU-hours", 20.0)
        (row,) = table_of([costing(0, 3600.0, device="NVIDIA H200", world_size=4)]).rows
        assert (row.cost.hours, row.cost.unit) == (4.0, "GPU-hours")

    def test_has_no_cost_where_it_is_unknown_or_of_two_kinds(self, table_of, make_record):
        gpu = make_record().cost.model_copy(update={"device": "NVIDIA H200"})
        cpu = make_record().cost.model_copy(update={"threads": 1})
        assert table_of([make_record()]).rows[0].cost is None
        (row,) = table_of([make_record(cost=gpu), make_record(cost=cpu, seed=1)]).rows
        assert row.cost is None
        assert "CPU and GPU: no common cost" in row.marks

    @pytest.mark.parametrize(
        ("change", "mark"),
        [
            ({"selection": "oracle"}, "epoch chosen by test figures: optimistic"),
            ({"selection": "label-free"}, "epoch chosen label-free"),
            ({"reference": "supervised"}, "reference (supervised), not an unsupervised method"),
            (
                {"neighbour_search": NeighbourSearchCard(kind="approximate", probes=4, recall=0.987)},
                "approximate neighbour search, recall at least 0.987",
            ),
            ({"code": CodeState(revision="abc", dirty=True)}, "made with uncommitted code"),
            ({"code": CodeState()}, "revision of the code unknown"),
            ({"skipped_epochs": [3]}, "epochs without training, all images being outliers"),
        ],
    )
    def test_is_marked_with_what_keeps_it_from_plain_comparison(self, table_of, make_record, change, mark):
        assert table_of([make_record()]).rows[0].marks == ()
        assert table_of([make_record(**change)]).rows[0].marks == (mark,)

    def test_says_when_a_repetition_disagrees(self, table_of, make_record):
        assert table_of([make_record()], disagrees=True).rows[0].marks == ("another run of seed 0 disagrees",)

    def test_has_the_mean_curves_of_its_runs(self, table_of, make_record):
        def curved(seed, loss, rank1):
            curve = [EpochCurve(epoch=0, learning_rate=0.1, losses={"contrast": loss})]
            curve.append(EpochCurve(epoch=1, learning_rate=0.1, losses={"contrast": loss}, rank1=rank1, mAP=0.5))
            return make_record(seed=seed, curves=curve)

        (row,) = table_of([curved(0, 1.0, 0.2), curved(1, 3.0, None)]).rows
        curves = {curve.name: (curve.epochs, curve.values) for curve in row.curves}
        assert curves["loss contrast"] == ((1, 2), (2.0, 2.0))
        assert curves["rank-1"] == ((2,), (20.0,))
        assert curves["labels ARI visible"] == ((1,), (0.5,))
        assert curves["labels outliers visible"] == ((1,), (pytest.approx(1 / 3, abs=1e-6),))
        assert curves["labels precision visible>infrared"] == ((1,), (pytest.approx(2 / 3, abs=1e-6),))


class TestATable:
    def test_is_of_one_protocol_and_plain_or_centred_features(self, board_from, make_record):
        figures = make_record().protocols[PROTOCOL]
        records = [make_record(protocols={PROTOCOL: figures, INDOOR: figures})]
        records.append(make_record(extraction=Extraction(camera_centred=True)))
        tables = board_from(records).tables
        assert [table.identifier for table in tables] == [
            "rendered-small-0-all-single-s-v1",
            "rendered-small-0-all-single-s-v1-camera-centred",
            "rendered-small-0-indoor-single-s-v1",
        ]
        assert tables[1].title.endswith("camera-centred features")

    def test_of_another_than_the_primary_protocol_has_no_groups_and_says_so(self, board_from, make_record):
        figures = make_record().protocols[PROTOCOL]
        primary, other = board_from([make_record(protocols={PROTOCOL: figures, INDOOR: figures})]).tables
        assert primary.rows[0].group == 1
        assert (other.rows[0].group, other.rows[0].figures["rank1"].low, other.rows[0].pairs) == (None, None, {})
        assert "no intervals, no groups" in other.about
        assert "no groups" not in primary.about

    def test_groups_what_queries_cannot_tell_apart(self, table_of, make_queried):
        shares = {"a": 0.6, "b": 0.6, "c": 0.2}
        queried = {method: chance(share, seed=place) for place, (method, share) in enumerate(shares.items())}
        table = table_of([make_queried(values, method=method) for method, values in queried.items()])
        assert {row.method: row.group for row in table.rows} == {"a": 1, "b": 1, "c": 2}
        assert [row.group for row in table.rows] == [1, 1, 2]
        rows = {row.method: row for row in table.rows}
        expected = paired_differences(100 * np.stack([queried["a"], queried["c"]]))[0, 1]
        found = rows["a"].pairs[rows["c"].identifier]["rank1"]
        assert (found.mean, found.low, found.high) == pytest.approx(
            (expected.mean, expected.low, expected.high), abs=0.01
        )
        assert rows["a"].figures["mAP"].low < rows["a"].figures["mAP"].mean < rows["a"].figures["mAP"].high

    def test_puts_equal_rows_into_one_group(self, table_of, make_queried):
        values = chance(0.5, seed=0)
        assert [row.group for row in table_of([make_queried(values, method=method) for method in "ab"]).rows] == [1, 1]

    def test_has_reference_rows_below_and_outside_the_groups(self, table_of, make_queried):
        best = make_queried(chance(0.9, seed=0), method="supervised", reference="supervised")
        table = table_of([best, make_queried(chance(0.4, seed=1), method="m")])
        assert [(row.method, row.group) for row in table.rows] == [("m", 1), ("supervised", None)]
        assert table.rows[0].pairs[table.rows[1].identifier]["rank1"].mean < 0

    def test_refuses_runs_that_had_other_queries(self, board_from, make_queried):
        with pytest.raises(RunError, match="scored with 60 queries, but another run on the same images with 50"):
            board_from([make_queried([0.2] * 50), make_queried([0.2] * 60, seed=1)])

    def test_does_not_depend_on_the_order_of_the_records(self, board_from, make_queried):
        records = [make_queried(chance(0.5, seed=seed), seed=seed, method=m) for seed in (0, 1) for m in "ab"]
        assert board_from(records) == board_from(records[::-1])


class TestPublishedRows:
    def test_stand_below_runs_with_their_source_and_references_last(self, table_of, on_sysu, board):
        table = table_of([on_sysu([0.1] * 50, method="chcr")], read_published(board / "published.csv"))
        assert [(row.kind, row.method, row.verified) for row in table.rows] == [
            ("run", "chcr", "run"),
            ("published", "PGM", "published"),
            ("published", "AGW", "published"),
        ]
        assert table.rows[1].source == "the paper"
        assert table.rows[2].marks == ("reference (supervised), not an unsupervised method", "secondary source")
        assert table.without_record == ("PGM", "AGW")
        assert "taken to be of single-shot, seeded galleries" in table.about

    def test_that_a_run_stands_beside_give_it_a_difference(self, table_of, on_sysu, board):
        records = [on_sysu([rank] * 50, method="pgm", seed=seed) for seed, rank in enumerate([0.50, 0.60])]
        table = table_of(records, read_published(board / "published.csv"))
        difference = table.rows[0].differences["rank1"]
        assert (difference.published, difference.points) == (57.27, pytest.approx(55 - 57.27))
        assert difference.low < difference.points < difference.high
        assert difference.source == "PGM: the paper"
        assert "rank5" not in table.rows[0].differences
        assert table.without_record == ("AGW",)

    def test_are_not_claimed_by_combinations_or_reference_rows(self, table_of, on_sysu, board):
        records = [on_sysu([0.5] * 50, method="pgm,tsmem"), on_sysu([0.5] * 50, method="pgm", reference="supervised")]
        rows = table_of(records, read_published(board / "published.csv")).run_rows
        assert [row.differences for row in rows] == [{}, {}]

    def test_prefer_the_papers_own_figure(self, table_of, on_sysu, board):
        path = board / "published.csv"
        line = "PGM (released log),Progressive,CVPR,2023,unsupervised,sysu-mm01,all-search,60,,,,50,,a log"
        path.write_text(path.read_text() + line + "\n")
        table = table_of([on_sysu([0.5] * 50, method="pgm")], read_published(path))
        assert table.rows[0].differences["rank1"].published == 57.27

    def test_alone_make_tables_in_a_fixed_order(self, board, board_from, make_record):
        path = board / "published.csv"
        line = "PGM,Progressive,CVPR,2023,unsupervised,regdb,infrared-to-visible,69,,,,65,,the paper"
        path.write_text(path.read_text() + line + "\n")
        tables = board_from([make_record()], read_published(path)).tables
        assert [table.dataset for table in tables] == ["sysu-mm01", "regdb", "rendered-small-0"]
        assert tables[1].title == "RegDB, infrared to visible"


class TestRegdb:
    def run(self, on_sysu, trial, share, **changes):
        protocol = "regdb/visible-to-infrared/v1"
        values = chance(share, seed=trial, count=40)
        return on_sysu(values, dataset="regdb", protocol=protocol, trial=trial, **changes)

    def test_fewer_than_ten_trials_are_marked(self, table_of, on_sysu):
        few = table_of([self.run(on_sysu, trial, 0.5) for trial in range(1, 10)]).rows[0]
        ten = table_of([self.run(on_sysu, trial, 0.5) for trial in range(1, 11)]).rows[0]
        assert (few.trials, ten.trials) == (9, 10)
        assert few.marks == ("fewer than ten trials: not comparable with published figures",)
        assert ten.marks == ()
        assert ten.figures["rank1"].sd_trials > 0

    def test_rows_are_compared_on_the_trials_that_both_have(self, table_of, on_sysu):
        records = [self.run(on_sysu, trial, 0.5, method="a") for trial in (1, 2)]
        records.append(self.run(on_sysu, 2, 0.5, method="b"))
        rows = {row.method: row for row in table_of(records).rows}
        difference = rows["a"].pairs[rows["b"].identifier]["rank1"]
        assert (difference.mean, difference.low, difference.high) == (0, 0, 0)
        assert rows["a"].group == rows["b"].group == 1
