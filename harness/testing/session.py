"""Trying the checks on one plugin: which concern it, in which order, and what was declared to fail."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib.metadata import entry_points
from typing import Any

from harness.errors import HarnessError, PluginError, SettingsError, suggest
from harness.plugins import GROUP, Catalogue, Plugin
from harness.providers import Provider
from harness.testing.checks import CHECKS, PLUGIN, Check
from harness.testing.report import Outcome, Report, Result
from harness.testing.subject import NotTried, Subject


@dataclass(frozen=True)
class _Found:
    """What a check found, before anything declared is looked at. ``after``: it failed, or waits for what failed."""

    outcome: Outcome
    reason: str = ""
    after: bool = False


class Session:
    """The checks of one plugin, each tried once, when it is first asked for.

    ``plugin``: the name of an installed plugin, or a plugin object. ``expected_failures``: reasons by ``"check"`` (of
    any part) or ``"part.check"``, beside those of the plugin's card. ``full``: every combination of partners. ``only``:
    the checks to try; what they need is tried as well, and not reported. Raises PluginError for an unknown or broken
    plugin, SettingsError for a check that does not exist.
    """

    def __init__(
        self,
        plugin: str | Any,
        *,
        expected_failures: Mapping[str, str] | None = None,
        full: bool = False,
        only: Sequence[str] = (),
    ) -> None:
        self.plugin, self.catalogue, module = _plugin_of(plugin)
        card = self.plugin.card
        self.expected = {**(card.expected_failures if card else {}), **(expected_failures or {})}
        self._module, self._full = module, full
        self._require_known(only)
        self._found: dict[tuple[str, str], _Found] = {}
        self.items: list[tuple[Check, Provider | None]] = [
            (check, provider)
            for check in CHECKS.values()
            for provider in (None, *self.plugin.providers)
            if check.concerns(provider.role if provider else PLUGIN) and (not only or check.name in only)
        ]

    def _require_known(self, only: Sequence[str]) -> None:
        for name in only:
            if name not in CHECKS:
                raise SettingsError(f"There is no check {name!r}. {suggest(name, CHECKS)}")
        parts = {provider.name for provider in self.plugin.providers}
        for key in self.expected:
            part, _, name = key.rpartition(".")
            if name not in CHECKS or (part and part not in parts):
                known = [*CHECKS, *(f"{part}.{name}" for part in parts)]
                raise PluginError(
                    f"The plugin {self.plugin.name!r} declares that {key!r} fails, which is no check of it. "
                    f"{suggest(key, known)}"
                )

    def result(self, check: Check, provider: Provider | None) -> Result:
        """The result of one check of one part."""
        part = provider.name if provider else ""
        found = self._try(check, provider)
        reason = self.expected.get(f"{part}.{check.name}") or self.expected.get(check.name)
        if reason is None:
            return Result(check.name, part, found.outcome, found.reason)
        if found.outcome is Outcome.FAILED:
            return Result(check.name, part, Outcome.EXPECTED, reason)
        if found.outcome is Outcome.PASSED and not self._fails_elsewhere(check, part):
            return Result(check.name, part, Outcome.UNEXPECTED, f"declared: {reason}. Take the declaration out.")
        return Result(check.name, part, found.outcome, found.reason)

    def report(self) -> Report:
        """All results."""
        return Report(self.plugin.name, [self.result(check, provider) for check, provider in self.items])

    def _fails_elsewhere(self, check: Check, part: str) -> bool:
        """Whether the declaration is of the check alone, and another part fails it."""
        return f"{part}.{check.name}" not in self.expected and any(
            self._try(other, provider).outcome is Outcome.FAILED for other, provider in self.items if other is check
        )

    def _try(self, check: Check, provider: Provider | None) -> _Found:
        key = check.name, f"{provider.role} {provider.name}" if provider else ""
        if key not in self._found:
            self._found[key] = self._tried(check, provider)
        return self._found[key]

    def _tried(self, check: Check, provider: Provider | None) -> _Found:
        for needed in check.needs:
            if self._try(CHECKS[needed], provider).after:
                return _Found(Outcome.SKIPPED, f"needs {needed}", after=True)
        try:
            check.run(Subject(self.plugin, provider, self.catalogue, self._module, self._full))
        except NotTried as reason:
            return _Found(Outcome.SKIPPED, str(reason))
        except HarnessError as error:
            return _Found(Outcome.FAILED, str(error), after=True)
        except Exception as error:
            return _Found(Outcome.FAILED, f"{type(error).__name__}: {error}", after=True)
        return _Found(Outcome.PASSED)


def _plugin_of(plugin: str | Any) -> tuple[Plugin, Catalogue, str]:
    """The plugin, all that are installed, and the module in which the plugin object lives."""
    if isinstance(plugin, str):
        catalogue = Catalogue()
        loaded = catalogue.require(plugin)
        point = next(iter(entry_points(group=GROUP, name=plugin)))
        return loaded, catalogue, point.module
    name = getattr(plugin, "__name__", type(plugin).__name__).rpartition(".")[2].lower()
    catalogue = Catalogue(extra={name: plugin})
    return catalogue.require(name), catalogue, getattr(plugin, "__module__", None) or plugin.__name__
