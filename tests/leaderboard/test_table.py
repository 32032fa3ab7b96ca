"""Which runs share a row, which share a table, and what the table says."""

from __future__ import annotations

import re
from datetime import UTC, datetime

import numpy as np
import pytest

from harness.errors import RunError
from harness.leaderboard import Extraction, find_records, leaderboard, render_markdown, write_record
from harness.leaderboard.table import escape_markdown

PROTOCOL = "rendered/all/single/S/v1"
INDOOR = "rendered/indoor/single/S/v1"


def test_seeds_of_the_same_settings_become_one_row_with_their_spread(make_record):
    ranks = [0.20, 0.25, 0.27]
    frame = leaderboard(make_record(seed=seed, rank1=rank) for seed, rank in enumerate(ranks))
    assert len(frame) == 1
    row = frame.iloc[0]
    assert (row.seeds, row.seed_list) == (3, "0, 1, 2")
    assert row.rank1_mean == pytest.approx(100 * np.mean(ranks))
    assert row.rank1_sd == pytest.approx(100 * np.std(ranks, ddof=1))


def test_other_recipes_of_a_method_have_rows_of_their_own(make_record):
    frame = leaderboard([make_record(), make_record(seed=1, recipe={"epochs": 99})])
    assert frame.seeds.tolist() == [1, 1]
    assert frame.settings.nunique() == 2


def test_of_two_runs_with_the_same_seed_the_later_one_counts(make_record):
    earlier = make_record(rank1=0.1, created=datetime(2026, 1, 1, tzinfo=UTC))
    later = make_record(rank1=0.3, created=datetime(2026, 1, 3, tzinfo=UTC))
    for order in ([earlier, later], [later, earlier]):
        frame = leaderboard(order)
        assert (frame.seeds[0], frame.rank1_mean[0]) == (1, pytest.approx(30))


def test_rows_stand_in_order_of_rank_1(make_record):
    frame = leaderboard([make_record(method="a", rank1=0.1), make_record(method="b", rank1=0.3)])
    assert frame.method.tolist() == ["b", "a"]


def test_each_protocol_has_a_table_of_its_own(make_record):
    figures = make_record().protocols[PROTOCOL]
    text = render_markdown(leaderboard([make_record(protocols={PROTOCOL: figures, INDOOR: figures})]))
    assert text.count("## ") == 2
    assert text.index(f"## {PROTOCOL}") < text.index(f"## {INDOOR}")


def test_only_the_protocols_asked_for_are_shown(make_record):
    figures = make_record().protocols[PROTOCOL]
    frame = leaderboard([make_record(protocols={PROTOCOL: figures, INDOOR: figures})], protocols=[INDOOR])
    assert frame.protocol.tolist() == [INDOOR]


def test_versions_of_a_dataset_never_share_a_table(make_record):
    record = make_record()
    other = make_record(dataset=record.dataset.model_copy(update={"fingerprint": "0ther" * 4}))
    text = render_markdown(leaderboard([record, other]))
    assert text.count("## ") == 2
    assert "fingerprint f00dfeedf00d" in text
    assert "fingerprint 0ther0ther0t" in text


def test_camera_centred_features_never_share_a_table_with_plain_ones(make_record):
    text = render_markdown(leaderboard([make_record(), make_record(extraction=Extraction(camera_centred=True))]))
    assert text.count("## ") == 2
    assert f"## {PROTOCOL}, camera-centred features" in text


def test_the_table_reads_as_documented(make_record):
    records = [make_record(seed=0, rank1=0.2), make_record(seed=1, rank1=0.3)]
    records.append(make_record(method="supervised", reference="supervised", rank1=0.4))
    records.append(make_record(method="peek", selection="oracle", rank1=0.1))
    lines = [line for line in render_markdown(leaderboard(records)).splitlines() if line]
    cells = [[cell.strip() for cell in line.strip("|").split("|")] for line in lines if line.startswith("|")]
    assert lines[:2] == [
        f"## {PROTOCOL}",
        "Dataset rendered (small, seed 0, fingerprint f00dfeedf00d). Figures in percent.",
    ]
    assert cells[0] == ["method", "rank-1", "rank-10", "mAP", "mINP", "seeds", "selection", "settings"]
    assert [row[:7] for row in cells[2:]] == [
        ["supervised † (supervised)", "40.00", "60.00", "45.00", "40.00", "1", "last"],
        ["chcr,tsmem", "25.00 ± 7.07", "45.00 ± 7.07", "30.00 ± 7.07", "25.00 ± 7.07", "2", "last"],
        ["peek", "10.00", "30.00", "15.00", "10.00", "1", "oracle ‡"],
    ]
    assert lines[-3:] == [
        "mean ± sample standard deviation over the seeds.",
        "† reference row, not an unsupervised method.",
        "‡ epoch chosen by test figures: optimistic.",
    ]


@pytest.mark.parametrize(
    ("name", "shown"),
    [
        ("a|b", r"a\|b"),
        ("a\nb\r# c", r"a\\nb\\r\# c"),
        ("<script>alert(1)</script>", r"\<script\>alert(1)\</script\>"),
        ("&lt;b&gt;", r"\&lt;b\&gt;"),
        ("`rm -rf`", r"\`rm -rf\`"),
        ("[here](https://host)", r"\[here\](https\://host)"),
        ("![x](y)", r"!\[x\](y)"),
        ("WWW.host and mail@host", r"WWW\.host and mail\@host"),
        ("*a* _b_ __c__ ~~d~~ $e$ #1", r"\*a\* \_b\_ \_\_c\_\_ \~\~d\~\~ \$e\$ \#1"),
        ("back\\slash", r"back\\slash"),
        ("\x1b[31mred", r"\\x1b\[31mred"),
        ("\u202egnp", r"\\u202egnp"),
        ("chcr,tsmem", "chcr,tsmem"),
        ("small_vit-2.0+x", "small_vit-2.0+x"),
        ("sysu-mm01/all/single/S/v1", "sysu-mm01/all/single/S/v1"),
        ("Körper 人物", "Körper 人物"),
    ],
)
def test_names_are_shown_as_they_are_written_and_nothing_else(name, shown):
    assert escape_markdown(name) == shown


def test_names_of_plugins_and_users_cannot_leave_their_cell(make_record):
    wild = "x | y <script>`[a](b)`"
    record = make_record(method=wild, dataset=make_record().dataset.model_copy(update={"name": wild, "size": "# | s"}))
    record = record.model_copy(update={"protocols": {wild: record.protocols[PROTOCOL]}, "primary_protocol": wild})
    lines = [line for line in render_markdown(leaderboard([record])).splitlines() if line]
    escaped = r"x \| y \<script\>\`\[a\](b)\`"
    assert lines[0] == f"## {escaped}"
    assert lines[1].startswith(rf"Dataset {escaped} (\# \| s, seed 0, fingerprint")
    rows = [line for line in lines if line.startswith("|")]
    assert len(rows) == 3
    assert {len(re.findall(r"(?<!\\)\|", row)) for row in rows} == {9}
    assert escaped in rows[2]


def test_other_ranks_are_shown_when_named(make_record):
    text = render_markdown(leaderboard([make_record()]), figures=("rank5", "rank20"))
    assert "rank-5" in text
    assert "rank-1 " not in text


def test_the_table_does_not_depend_on_the_order_of_the_records(make_record):
    records = [make_record(seed=seed, method=method) for seed in (2, 0, 1) for method in ("b", "a")]
    assert render_markdown(leaderboard(records)) == render_markdown(leaderboard(records[::-1]))


def test_no_records_make_an_empty_table():
    assert render_markdown(leaderboard([])) == "No finished run.\n"


def test_records_are_found_in_files_and_folders_two_levels_deep(tmp_path, make_record):
    places = ["record.json", "one/record.json", "sweep/two/record.json", "too/deep/for/record.json"]
    for seed, place in enumerate(places):
        write_record(tmp_path / place, make_record(seed=seed))
    assert [record.seed for record in find_records([tmp_path])] == [0, 1, 2]
    assert [record.seed for record in find_records([tmp_path / places[3]])] == [3]


def test_a_record_named_twice_is_read_once(tmp_path, make_record):
    write_record(tmp_path / "run" / "record.json", make_record())
    assert len(find_records([tmp_path, tmp_path / "run" / "record.json"])) == 1


def test_a_folder_without_records_is_named(tmp_path):
    with pytest.raises(RunError, match=r"No record\.json was found"):
        find_records([tmp_path])
    with pytest.raises(RunError, match="no run folder"):
        find_records([tmp_path / "missing"])


class TestTrials:
    def at(self, make_record, *, trial, seed, rank1):
        dataset = make_record().dataset.model_copy(update={"trial": trial})
        return make_record(seed=seed, rank1=rank1, dataset=dataset)

    def test_with_one_seed_the_spread_is_that_of_the_trials(self, make_record):
        ranks = [0.2, 0.3, 0.4]
        frame = leaderboard(
            self.at(make_record, trial=trial, seed=0, rank1=rank) for trial, rank in enumerate(ranks, start=1)
        )
        row = frame.iloc[0]
        assert (row.seeds, row.trials) == (1, 3)
        assert row.rank1_mean == pytest.approx(30)
        assert row.rank1_sd == pytest.approx(10)

    def test_with_several_seeds_the_spread_is_that_of_the_seeds_means(self, make_record):
        ranks = {(0, 1): 0.2, (0, 2): 0.4, (1, 1): 0.3, (1, 2): 0.5, (1, 3): 0.4}
        records = [self.at(make_record, trial=trial, seed=seed, rank1=rank) for (seed, trial), rank in ranks.items()]
        row = leaderboard(records).iloc[0]
        assert (row.seeds, row.trials) == (2, 2)
        assert row.rank1_mean == pytest.approx(35)
        assert row.rank1_sd == pytest.approx(np.std([30, 40], ddof=1))

    def test_fewer_than_ten_are_said_not_to_compare(self, make_record):
        few = [self.at(make_record, trial=trial, seed=0, rank1=0.2) for trial in range(1, 4)]
        ten = [self.at(make_record, trial=trial, seed=0, rank1=0.2) for trial in range(1, 11)]
        assert "fewer than ten trials" in render_markdown(leaderboard(few))
        text = render_markdown(leaderboard(ten))
        assert "fewer than ten trials" not in text
        assert "over the trials" in text
        assert "trials" not in render_markdown(leaderboard([make_record()]))
