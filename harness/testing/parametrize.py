"""The conformance kit as pytest tests."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from harness.providers import Provider
from harness.testing.checks import Check
from harness.testing.report import BAD, Outcome
from harness.testing.session import Session


@dataclass(frozen=True)
class BoundCheck:
    """One check of one part; call it within a test."""

    session: Session
    check: Check
    provider: Provider | None

    def __call__(self) -> None:
        """Pass, fail, or tell pytest that it is skipped or fails as declared."""
        import pytest

        result = self.session.result(self.check, self.provider)
        if result.outcome in BAD:
            pytest.fail(f"{result.outcome}: {result.reason}\n({self.check.meaning})", pytrace=False)
        if result.outcome is Outcome.EXPECTED:
            pytest.xfail(result.reason)
        if result.outcome is Outcome.SKIPPED:
            pytest.skip(result.reason)

    @property
    def id(self) -> str:
        """How pytest names it."""
        return f"{self.provider.name if self.provider else 'plugin'}-{self.check.name}"


def parametrize_with_checks(
    plugin: str | Any, *, expected_failures: Mapping[str, str] | None = None, full: bool = False
) -> Any:
    """Parametrize a test with every check that concerns a plugin.

    ``plugin``: the name of an installed plugin, or the plugin object. ``expected_failures``: ``{check: reason}``, or
    ``{"part.check": reason}``; a declared failure that passes is an error. ``full``: train with every combination of
    partners, not only with each::

        @parametrize_with_checks("my-method")
        def test_my_method_keeps_the_rules(check):
            check()
    """
    import pytest

    session = Session(plugin, expected_failures=expected_failures, full=full)
    bound = [BoundCheck(session, check, provider) for check, provider in session.items]
    return pytest.mark.parametrize("check", bound, ids=lambda check: check.id)
