"""What a board takes in, and with what reason it refuses."""

from __future__ import annotations

import json
from datetime import UTC, datetime

import numpy as np
import pytest

from harness.errors import RunError
from harness.leaderboard import CodeState, filing, read_record
from harness.leaderboard.record import canonical_digest

PROTOCOL = "rendered/all/single/S/v1"


def edited(path, change):
    """Change a record's file and make a new seal, as one would who knows how."""
    content = json.loads(path.read_text())
    content.pop("seal")
    change(content)
    content["seal"] = canonical_digest(content)
    path.write_text(json.dumps(content, sort_keys=True, indent=2, ensure_ascii=False) + "\n")


class TestARecord:
    def test_is_filed_as_it_was_written_under_its_name_and_seal(self, board, make_record):
        record = make_record(name="My Run/1")
        path = filing.file_record(board, record)
        assert path.name == f"my-run-1-{json.loads(path.read_text())['seal'][:8]}.json"
        assert read_record(path) == record
        (entry,) = filing.read_filed(board)
        assert (entry.record, entry.version, entry.verified) == (record, "rendered-small-0", "run")

    def test_that_is_filed_already_is_refused(self, board, make_record):
        filing.file_record(board, make_record())
        with pytest.raises(RunError, match=r"on the board already, as .*records.chcr-0-"):
            filing.require_new(make_record(), board)
        filing.require_new(make_record(rank1=0.26), board)

    def test_under_an_unknown_protocol_is_refused(self, make_record):
        figures = make_record().protocols[PROTOCOL]
        unknown = "rendered/all/single/S/v9"
        record = make_record(protocols={unknown: figures}, primary_protocol=unknown)
        with pytest.raises(RunError, match=r"'rendered/all/single/S/v9', which this harness does not define. Did you"):
            filing.require_known_protocols(record)

    def test_under_another_datasets_protocol_is_refused(self, make_record):
        figures = make_record().protocols[PROTOCOL]
        record = make_record(protocols={PROTOCOL: figures, "sysu-mm01/all/single/S/v1": figures})
        with pytest.raises(RunError, match=r"dataset 'rendered', but has .* a protocol of 'sysu-mm01'"):
            filing.require_known_protocols(record)

    @pytest.mark.parametrize("change", [{"fingerprint": "bad"}, {"size": "tiny"}, {"seed": 7}, {"name": "sysu-mm01"}])
    def test_of_unknown_images_is_refused_with_what_to_add(self, versions, make_record, change):
        record = make_record(dataset=make_record().dataset.model_copy(update=change))
        with pytest.raises(
            RunError, match=r"images that the board does not know(.|\n)*--new-dataset(.|\n)*fingerprints"
        ):
            filing.require_known_version(record, versions)

    def test_of_uncommitted_code_is_refused(self, make_record):
        with pytest.raises(RunError, match=r"uncommitted changes on top of revision abc(.|\n)*--allow-dirty"):
            filing.require_committed_code(make_record(code=CodeState(revision="abc", dirty=True)))
        filing.require_committed_code(make_record())
        filing.require_committed_code(make_record(code=CodeState()))

    def test_without_a_seed_is_refused(self, board, make_record):
        path = filing.file_record(board, make_record())
        edited(path, lambda content: content.pop("seed"))
        with pytest.raises(RunError, match="not valid at seed: Field required"):
            filing.read_filed(board)

    def test_under_another_name_is_refused(self, board, make_record):
        path = filing.file_record(board, make_record())
        path.rename(path.with_name("best.json"))
        with pytest.raises(RunError, match=r"not filed under its name: rename it to chcr-0-\w{8}\.json"):
            filing.read_filed(board)


class TestOneChangedDigit:
    def test_breaks_the_seal(self, board, make_record):
        path = filing.file_record(board, make_record())
        path.write_text(path.read_text().replace('"mAP": 0.3,', '"mAP": 0.4,', 1))
        with pytest.raises(RunError, match="its seal does not fit"):
            filing.read_filed(board)

    @pytest.mark.parametrize(
        ("change", "reason"),
        [
            (lambda figures: figures.update(rank1=0.26), "the mean rank1 of the trials is not 0.26"),
            (lambda figures: figures["per_trial"]["mAP"].append(0.3), "3 values of mAP are kept for 2 trials"),
            (lambda figures: figures["sd"].update(rank5=0.1), "the deviation of rank5 over the trials is not 0.1"),
            (lambda figures: figures["sd"].update(rank5=None), "the deviation of rank5 over the trials is not None"),
            (
                lambda figures: figures.update(rank1=0.26, per_trial=figures["per_trial"] | {"rank1": [0.26, 0.26]}),
                r"the mean rank1 of the single queries is 0.25000, but 0.26000 is stated",
            ),
            (
                lambda figures: figures.update(mAP=0.4, per_trial=figures["per_trial"] | {"mAP": [0.4, 0.4]}),
                r"the mean AP of the single queries is 0.30000, but 0.40000 is stated",
            ),
            (
                lambda figures: figures.update(rank5=0.2, per_trial=figures["per_trial"] | {"rank5": [0.2, 0.2]}),
                "do not rise",
            ),
            (lambda figures: figures.update(valid_queries=39), "38 of 40 queries, not 39 of 40"),
        ],
    )
    def test_under_a_new_seal_does_not_fit_the_rest(self, board, make_record, change, reason):
        path = filing.file_record(board, make_record())
        edited(path, lambda content: change(content["protocols"][PROTOCOL]))
        with pytest.raises(RunError, match=rf"do not fit one another: .*{reason}"):
            filing.read_filed(board)

    def test_of_a_single_query_under_a_new_seal_does_not_fit_the_mean(self, board, make_queried):
        record = make_queried([0.2] * 50)
        path = filing.file_record(board, record)
        other = make_queried([0.2] * 49 + [0.3]).by_query.rank1
        edited(path, lambda content: content["by_query"].update(rank1=other))
        with pytest.raises(RunError, match=r"the mean rank1 of the single queries is 0.20200"):
            filing.read_filed(board)

    def test_that_makes_single_queries_unreadable_is_said(self, board, make_queried):
        path = filing.file_record(board, make_queried([0.2] * 50))
        edited(path, lambda content: content["by_query"].update(AP="!!"))
        with pytest.raises(RunError, match="the single AP values cannot be read"):
            filing.read_filed(board)


class TestAReScoring:
    def test_raises_the_level(self, board, make_record):
        record = make_record()
        filing.file_record(board, record)
        filing.file_rescoring(board, record, record.protocols)
        assert [entry.verified for entry in filing.read_filed(board)] == ["re-scored"]

    def test_with_other_figures_is_refused_and_leaves_no_note(self, board, make_record):
        record = make_record()
        filing.file_record(board, record)
        with pytest.raises(RunError, match="do not give the figures of its record under rendered/all"):
            filing.file_rescoring(board, record, make_record(rank1=0.3).protocols)
        assert not (board / "rescored").exists()

    def test_of_a_run_that_is_not_filed_is_refused(self, board, make_record):
        with pytest.raises(RunError, match="not on the board"):
            filing.file_rescoring(board, make_record(), make_record().protocols)

    @pytest.mark.parametrize("field", ["record", "embeddings_sha256", "figures"])
    def test_that_is_of_another_record_is_refused(self, board, make_record, field):
        record = make_record()
        filing.file_record(board, record)
        path = filing.file_rescoring(board, record, record.protocols)
        path.write_text(json.dumps(json.loads(path.read_text()) | {field: "0" * 64}))
        with pytest.raises(RunError, match="does not fit the record of that name"):
            filing.read_filed(board)

    def test_that_outlived_its_record_or_is_none_is_refused(self, board, make_record):
        record = make_record()
        path = filing.file_record(board, record)
        note = filing.file_rescoring(board, record, record.protocols)
        path.unlink()
        with pytest.raises(RunError, match="a record that the board does not hold"):
            filing.read_filed(board)
        note.write_text('{"record": 1}')
        with pytest.raises(RunError, match="cannot be read"):
            filing.read_filed(board)


class TestARetraining:
    first, later = datetime(2026, 1, 1, tzinfo=UTC), datetime(2026, 2, 1, tzinfo=UTC)

    def both(self, board, make_queried, first, second, **changes):
        filing.file_record(board, make_queried(first, created=self.first))
        filing.file_record(board, make_queried(second, created=self.later, **changes))
        return filing.read_filed(board)

    def test_that_agrees_raises_both(self, board, make_queried):
        values = np.random.default_rng(0).random(100)
        entries = self.both(board, make_queried, values, np.random.default_rng(1).permutation(values))
        assert [(entry.verified, entry.disagrees) for entry in entries] == [("retrained", False)] * 2

    def test_that_disagrees_raises_none_and_is_told(self, board, make_queried):
        values = np.random.default_rng(0).random(100) / 2
        entries = self.both(board, make_queried, values, values + 0.3)
        assert [(entry.verified, entry.disagrees) for entry in entries] == [("run", True)] * 2

    @pytest.mark.parametrize("changes", [{"seed": 1}, {"recipe": {"epochs": 3}}])
    def test_with_another_seed_or_settings_is_none(self, board, make_queried, changes):
        entries = self.both(board, make_queried, [0.2] * 50, [0.2] * 50, **changes)
        assert [entry.verified for entry in entries] == ["run", "run"]

    def test_a_copy_under_another_name_is_none(self, board, make_queried):
        filing.file_record(board, make_queried([0.2] * 50))
        filing.file_record(board, make_queried([0.2] * 50, name="copy"))
        assert [entry.verified for entry in filing.read_filed(board)] == ["run", "run"]
