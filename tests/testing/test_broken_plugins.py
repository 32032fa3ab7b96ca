"""Every check finds what it is for, and nothing else."""

from __future__ import annotations

from typing import Any

import pytest
from broken_heavy import Heavy
from broken_plugins import BROKEN, SOUND, SOUND_PARTS, offering

from harness.testing import CHECKS, Outcome, Session

ALL = [*BROKEN, ("loads_nothing_heavy", "torch at import", Heavy)]
NEEDS_AN_ACCELERATOR = {"computes_on_an_accelerator"}


def failed(plugin: Any) -> list[str]:
    return [result.check for result in Session(plugin).report().results if result.outcome is Outcome.FAILED]


def test_a_sound_plugin_passes_every_check() -> None:
    report = Session(SOUND).report()
    assert [result for result in report.results if result.outcome is not Outcome.PASSED] == [
        result for result in report.results if result.check in NEEDS_AN_ACCELERATOR
    ]
    assert {result.check for result in report.results} == set(CHECKS)
    assert {result.part for result in report.results} == {"", *(part.name for part in SOUND_PARTS)}
    assert report.ok


@pytest.mark.parametrize(("check", "plugin"), [pytest.param(c, p, id=f"{c}: {what}") for c, what, p in ALL])
def test_a_broken_plugin_fails_exactly_the_check_meant_for_it(check: str, plugin: Any) -> None:
    assert failed(plugin) == [check]


def test_there_is_a_broken_plugin_for_every_check() -> None:
    assert {check for check, _, _ in ALL} == set(CHECKS) - NEEDS_AN_ACCELERATOR


def test_a_plugin_that_offers_nothing_has_nothing_to_break() -> None:
    assert Session(offering()).report().ok


def test_every_check_says_what_it_means() -> None:
    assert [check.name for check in CHECKS.values() if not check.meaning.endswith(".")] == []
