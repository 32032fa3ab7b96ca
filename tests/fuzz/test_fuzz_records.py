"""Run records: read whole or refused; what was read can be written, read back equal, and put into a table."""

from __future__ import annotations

import json

from hypothesis import strategies as st

from harness.leaderboard import figures_digest, leaderboard, read_record, render_markdown, write_record
from harness.leaderboard.record import canonical_digest
from tests.fuzz.fuzzing import files_like, outcome

WORDS = [b"NaN", b"1e999", b"-0.0", b"9" * 5000, b'"\\ud800"', b"[" * 2000, b"{}", b"null", b'"seed": 1,', b"true"]


def _use(record, folder) -> None:
    """Everything that is done with records. A refusal to write leaves nothing behind."""
    folder.mkdir(exist_ok=True)
    write_record(folder / "record.json", record)
    assert read_record(folder / "record.json") == record
    assert figures_digest(record)
    assert render_markdown(leaderboard([record]))


def test_a_damaged_record_is_read_whole_or_refused(tmp_path, make_record, fuzz, refusing):
    path = tmp_path / "in" / "record.json"
    write_record(path, make_record())

    def check(content: bytes) -> None:
        path.write_bytes(_sealed_again(content))
        record = refusing(path, lambda: read_record(path))
        if record is not None:
            _use(record, tmp_path / "out")

    fuzz(files_like(path.read_bytes(), words=WORDS), check)


def test_a_record_with_any_value_in_the_place_of_another_is_read_whole_or_refused(
    tmp_path, make_record, fuzz, refusing
):
    path = tmp_path / "in" / "record.json"
    write_record(path, make_record())
    valid = json.loads(path.read_text())
    places = list(_places(valid))
    leaves = st.one_of(
        st.none(), st.booleans(), st.integers(), st.floats(), st.text(), st.sampled_from(["0001-01-01T00:00:00+14:00"])
    )
    values = st.recursive(leaves, lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner), max_leaves=5)

    def check(change) -> None:
        (parent, key), value = change
        content = json.loads(json.dumps(valid))
        target = content
        for step in parent:
            target = target[step]
        target[key] = value
        path.write_bytes(_sealed_again(json.dumps(content).encode()))
        record = refusing(path, lambda: read_record(path))
        if record is not None:
            _use(record, tmp_path / "out")

    fuzz(st.tuples(st.sampled_from(places), values), check)


def _sealed_again(content: bytes) -> bytes:
    """The record with a seal that fits, where it is JSON: what is tested lies behind the seal."""
    try:
        values = json.loads(content)
        if values.pop("seal", None) is None:
            return content
        return json.dumps({**values, "seal": canonical_digest(values)}).encode()
    except (ValueError, RecursionError, AttributeError, TypeError):
        return content


def _places(value, above=()):
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, item in items:
        yield above, key
        yield from _places(item, (*above, key))


def test_a_record_that_cannot_be_written_leaves_no_file(tmp_path, make_record, fuzz):
    path = tmp_path / "record.json"
    numbers = st.floats() | st.integers() | st.text(st.characters()) | st.just(float("nan")) | st.just("\ud800")

    def check(value) -> None:
        path.unlink(missing_ok=True)
        record = make_record(recipe={"value": value})
        _, error = outcome(lambda: write_record(path, record))
        if error is None:
            assert read_record(path) == record
        else:
            assert "chcr-0" in str(error)
            assert list(tmp_path.iterdir()) == []

    fuzz(numbers, check)
