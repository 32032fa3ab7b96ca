"""A record is written whole or not at all, reads back equal, and says clearly what is wrong with a bad one."""

from __future__ import annotations

import json
import os

import numpy as np
import pytest
from pydantic import ValidationError

from harness.errors import RunError
from harness.evaluation.figures import QueryMeans
from harness.leaderboard import figures_digest, read_record, settings_digest, write_record


def test_a_record_reads_back_equal(tmp_path, make_record):
    record = make_record()
    write_record(tmp_path / "run" / "record.json", record)
    assert read_record(tmp_path / "run" / "record.json") == record


def test_writing_what_was_read_gives_the_same_bytes(tmp_path, make_record):
    first, second = tmp_path / "a.json", tmp_path / "b.json"
    write_record(first, make_record())
    write_record(second, read_record(first))
    assert first.read_bytes() == second.read_bytes()
    assert first.read_bytes().endswith(b"}\n")


def test_keys_are_sorted_whatever_order_they_came_in(tmp_path, make_record):
    write_record(tmp_path / "a.json", make_record(recipe={"a": 1, "b": {"x": 1, "y": 2}}))
    write_record(tmp_path / "b.json", make_record(recipe={"b": {"y": 2, "x": 1}, "a": 1}))
    assert (tmp_path / "a.json").read_bytes() == (tmp_path / "b.json").read_bytes()


def test_figures_are_rounded_and_settings_are_not(tmp_path, make_record):
    write_record(tmp_path / "record.json", make_record(rank1=1 / 3))
    content = json.loads((tmp_path / "record.json").read_text())
    assert content["protocols"]["rendered/all/single/S/v1"]["rank1"] == 0.33333333
    assert content["recipe"]["weight_decay"] == 1e-9
    assert content["created"] == "2026-01-02T03:04:05Z"


def test_a_write_that_fails_leaves_the_old_record_and_no_temporary_file(tmp_path, make_record, monkeypatch):
    path = tmp_path / "record.json"
    write_record(path, make_record())
    before = path.read_bytes()

    def refuse(*_):
        raise OSError("disk full")

    monkeypatch.setattr(os, "replace", refuse)
    with pytest.raises(OSError, match="disk full"):
        write_record(path, make_record(rank1=0.5))
    assert path.read_bytes() == before
    assert [file.name for file in tmp_path.iterdir()] == ["record.json"]


@pytest.mark.parametrize("value", [float("nan"), float("inf"), object()])
def test_a_setting_that_json_cannot_hold_is_refused_before_anything_is_written(tmp_path, make_record, value):
    with pytest.raises(RunError, match="cannot be written as JSON"):
        write_record(tmp_path / "record.json", make_record(recipe={"temperature": value}))
    assert list(tmp_path.iterdir()) == []


def test_the_figures_digest_ignores_times_names_and_machines(make_record):
    record = make_record()
    elsewhere = make_record(
        name="other",
        cost=record.cost.model_copy(update={"total_seconds": 999.0, "device": "gpu"}),
        environment=record.environment.model_copy(update={"platform": "Darwin"}),
    )
    assert figures_digest(elsewhere) == figures_digest(record)


def test_the_figures_digest_sees_figures_and_pseudo_labels(make_record):
    record = make_record()
    others = [make_record(rank1=0.26), make_record(pseudo_labels=[]), make_record(skipped_epochs=[3])]
    assert all(figures_digest(other) != figures_digest(record) for other in others)


def test_the_settings_digest_joins_seeds_and_separates_settings(make_record):
    record = make_record()
    assert settings_digest(make_record(seed=1, rank1=0.4)) == settings_digest(record)
    other_part = [record.parts[0].model_copy(update={"options": {"step2_momentum": 0.3}})]
    encoders = [
        record.encoder.model_copy(update=change)
        for change in ({"options": {"bn_groups": 2}}, {"weights_sha256": "0" * 64}, {"weights": "mine.pth"})
    ]
    for change in (
        {"recipe": {"epochs": 3}},
        {"parts": other_part},
        {"selection": "oracle"},
        {"extraction": record.extraction.model_copy(update={"flip_mean_renorm": False})},
        *({"encoder": encoder} for encoder in encoders),
    ):
        assert settings_digest(make_record(**change)) != settings_digest(record)


def test_what_records_came_to_hold_later_is_read_back_and_left_out_where_it_says_nothing(make_record, tmp_path):
    usual = make_record()
    assert {"options", "weights_sha256"}.isdisjoint(usual.encoder.model_dump())
    encoder = usual.encoder.model_copy(update={"options": {"non_local": "half"}, "weights_sha256": "0" * 64})
    write_record(tmp_path / "record.json", make_record(encoder=encoder))
    assert read_record(tmp_path / "record.json").encoder == encoder


@pytest.mark.parametrize(
    "changes",
    [
        {"unknown": 1},
        {"primary_protocol": "x"},
        {"selection": "best"},
        {"protocols": {}},
        {"created": "2026-01-01T00:00:00"},
    ],
)
def test_a_record_that_makes_no_sense_cannot_be_built(make_record, changes):
    with pytest.raises(ValidationError):
        make_record(**changes)


def _damage(path, change):
    content = json.loads(path.read_text())
    change(content)
    path.write_text(json.dumps(content))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda content: content.update(extra=1), "not valid at extra"),
        (lambda content: content["cost"].pop("device"), r"not valid at cost\.device: Field required"),
        (lambda content: content.update(schema_version=99), "schema version 99.*reads version 2"),
        (lambda content: content.pop("schema_version"), "schema version None"),
        (lambda content: content.update(primary_protocol="x"), "'x' is not among"),
        (lambda content: content.update(seed="0"), r"not valid at seed: Input should be a valid integer"),
        (lambda content: content.update(method="a\x1b[2Jb"), "not valid at method: .*printable text on one line"),
        (lambda content: content.update(method="x" * 1001), "not valid at method: .*at most 1000 characters"),
        (lambda content: content["parts"][0].update(plugin="a\nb"), r"not valid at parts\.0\.plugin: .*on one line"),
        (lambda content: content.update({"\x1b[2J": 1}), r"not valid at \\x1b\[2J: Extra inputs"),
        (
            lambda content: content.update(created="0001-01-01T00:00:00+14:00"),
            "not valid at created: .*years 1 to 9999",
        ),
        (lambda content: content["recipe"].update(rate=float("nan")), "cannot be read: rate is nan"),
        (lambda content: content["recipe"].update(rate=2**64), "cannot be read: rate is a whole number of more than"),
        (lambda content: content["recipe"].update(text="\ud800"), "cannot be read: text holds .*no character"),
    ],
)
def test_a_damaged_record_is_described_in_one_sentence(tmp_path, make_record, change, message):
    path = tmp_path / "record.json"
    write_record(path, make_record())
    _damage(path, change)
    with pytest.raises(RunError, match=message) as caught:
        read_record(path)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "content", [b"{", b"\xff\xfe", b"[]", b"3", b"", b"[" * 100_000, b'{"seed": 1, "seed": 2}', b"9" * 5000, b"NaN"]
)
def test_a_file_that_is_no_record_is_named(tmp_path, content):
    (tmp_path / "record.json").write_bytes(content)
    with pytest.raises(RunError, match=r"record\.json"):
        read_record(tmp_path / "record.json")


def test_a_missing_record_is_named(tmp_path):
    with pytest.raises(RunError, match="no run record"):
        read_record(tmp_path / "record.json")


def test_a_file_larger_than_any_record_is_refused_before_it_is_read(tmp_path):
    with (tmp_path / "record.json").open("wb") as file:
        file.truncate(1 << 40)
    with pytest.raises(RunError, match=r"run record .*record\.json is larger than 67,108,864 bytes"):
        read_record(tmp_path / "record.json")


@pytest.mark.parametrize("value", ["\ud800", 2**64, [[[[1]]]] * 2])
def test_what_can_be_written_can_be_read_again(tmp_path, make_record, value):
    path = tmp_path / "record.json"
    record = make_record(recipe={"value": value})
    if isinstance(value, list):
        write_record(path, record)
        assert read_record(path) == record
    else:
        with pytest.raises(RunError, match="cannot be written as JSON"):
            write_record(path, record)
        assert list(tmp_path.iterdir()) == []


def test_a_figure_changed_by_hand_is_refused(make_record, tmp_path):
    path = tmp_path / "record.json"
    write_record(path, make_record(rank1=0.25))
    content = path.read_text()
    path.write_text(content.replace('"mAP": 0.3,', '"mAP": 0.4,', 1))
    assert path.read_text() != content
    with pytest.raises(RunError, match="changed after it was written: its seal does not fit"):
        read_record(path)


def test_a_record_without_a_seal_is_refused(make_record, tmp_path):
    path = tmp_path / "record.json"
    write_record(path, make_record())
    content = json.loads(path.read_text())
    del content["seal"]
    path.write_text(json.dumps(content))
    with pytest.raises(RunError, match="seal"):
        read_record(path)


def test_the_figures_of_single_queries_come_back_to_a_hundredth_of_a_percent():
    rank1 = np.array([0.0, 0.3, 1.0, np.nan])
    means = QueryMeans.of(rank1, rank1 / 3)
    assert means.values("rank1") == pytest.approx(rank1, abs=1e-5, nan_ok=True)
    assert means.values("AP") == pytest.approx(rank1 / 3, abs=1e-5, nan_ok=True)
