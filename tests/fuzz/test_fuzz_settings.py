"""Settings from a file and from ``--set``: a plan whose saved file gives the same plan again, or a refusal."""

from __future__ import annotations

import json
import math
import tomllib

import pytest
import tomli_w
from hypothesis import strategies as st

from harness.engine.plan import plan_run
from harness.files import replace_text
from harness.plugins import Catalogue
from harness.recipe import Recipe
from harness.settings import Settings, make_settings, merge, parse_assignments, read_settings, to_toml
from tests.fuzz.fuzzing import files_like, outcome

WORDS = [b"nan", b"-inf", b"1979-05-27", b"0x" + b"f" * 40, b"9" * 5000, b"[" * 2000, b'"\\u0000"', b"a." * 900, b"{}"]
TEXTS = ["nan", "inf", "1979-05-27", "[" * 3000, "9" * 5000, "0x" + "f" * 40, "1\n[x]", '"\\u0000"', "{a={b=1}}", "1 #"]
KEYS = [
    *Settings.model_fields,
    *(f"recipe.{name}" for name in (*Recipe.model_fields, "epochs", "iterations")),
    *("model.backbone", "model.weights", "model.pretrained", "data.size", "data.trial", "data.permutations"),
    *("evaluation.trials", "features.batch", "compute.threads", "clustering.probes", "pgm.matching", "tsmem.rate"),
]

edges = st.sampled_from([math.inf, -math.inf, math.nan, 2**63, 2**64, -1, 1e300, 5e-324, "", "\0"])
fit = st.integers(0, 20) | st.floats(0, 1) | st.booleans() | st.sampled_from(["pgm", "small", "tiny", "cpu", "mutual"])
plain = st.one_of(fit, fit, fit, st.integers(-(2**70), 2**70), st.floats(), st.text(max_size=8))
values = st.recursive(plain, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3))


@pytest.fixture(scope="module")
def catalogue() -> Catalogue:
    return Catalogue()


def _plan_again(values, catalogue, path) -> None:
    """Saved as a run saves them, the settings of a plan give that plan; and a record can keep them."""
    plan = plan_run(make_settings(values), catalogue)
    assert json.dumps(plan.settings.model_dump(mode="json"), allow_nan=False).encode()
    replace_text(path, to_toml(plan.settings))
    assert plan_run(make_settings(read_settings(path)), catalogue).settings == plan.settings


def test_a_damaged_settings_file_is_planned_or_refused(tmp_path, catalogue, fuzz, refusing):
    path, saved = tmp_path / "in" / "settings.toml", tmp_path / "saved.toml"
    path.parent.mkdir()
    valid = [to_toml(plan_run(make_settings({"plugins": names}), catalogue).settings) for names in (["pgm"], ["hil"])]

    def check(content: bytes) -> None:
        path.write_bytes(content)
        found = refusing(path, lambda: read_settings(path))
        if found is not None:
            outcome(lambda: _plan_again(found, catalogue, saved))

    fuzz(files_like(*(text.encode() for text in valid), b"", words=WORDS), check)


def test_any_value_of_any_setting_is_planned_or_refused(tmp_path, catalogue, fuzz):
    def check(given) -> None:
        key, value = given
        nested = value
        for step in reversed(key.split(".")):
            nested = {step: nested}
        outcome(lambda: _plan_again(nested, catalogue, tmp_path / "settings.toml"))

    fuzz(st.tuples(st.sampled_from(KEYS), fit | edges | values), check)


def test_any_assignment_is_planned_or_refused(tmp_path, catalogue, fuzz):
    known = st.sampled_from(KEYS)
    names = known | known | st.text(max_size=10) | st.from_regex(r"[a-z]{1,3}(\.[a-z]{1,3}){1,60}")
    texts = (
        fit.map(_as_toml)
        | edges.map(_as_toml)
        | values.map(_as_toml)
        | st.sampled_from(TEXTS)
        | st.text(st.characters(), max_size=12)
    )
    assignments = st.lists(st.builds("{}={}".format, names, texts), min_size=1, max_size=3)

    def check(given) -> None:
        outcome(lambda: _plan_again(merge({}, parse_assignments(given)), catalogue, tmp_path / "settings.toml"))

    fuzz(assignments, check)


def _as_toml(value) -> str:
    try:
        return tomli_w.dumps({"value": value}).partition("=")[2]
    except (UnicodeEncodeError, ValueError):
        return repr(value)


def test_the_settings_that_are_mutated_are_valid(catalogue):
    assert tomllib.loads(to_toml(plan_run(make_settings({}), catalogue).settings))["plugins"] == ["baseline"]
