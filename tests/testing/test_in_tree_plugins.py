"""Every in-tree plugin passes the conformance kit."""

from __future__ import annotations

import pytest

from harness.plugins import Catalogue
from harness.testing import Session, parametrize_with_checks
from harness.testing.report import BAD

IN_TREE = [plugin.name for plugin in Catalogue().values() if plugin.distribution == "vireid-harness"]


@parametrize_with_checks("tsmem")
def test_a_part_passes(check) -> None:
    check()


@pytest.mark.slow
@pytest.mark.parametrize("name", IN_TREE)
def test_every_plugin_passes(name: str) -> None:
    report = Session(name).report()
    assert [result for result in report.results if result.outcome in BAD] == []


@pytest.mark.slow
@pytest.mark.parametrize("name", ["tsmem", "pgm"])
def test_a_plugin_passes_beside_every_combination_of_partners(name: str) -> None:
    assert Session(name, full=True, only=["trains_beside_every_partner"]).report().ok
