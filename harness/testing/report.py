"""Results of the conformance kit: one per check and part, as a table and as JSON."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from rich.markup import escape
from rich.table import Column, Table

from harness.reading import printable


class Outcome(StrEnum):
    """What came of one check."""

    PASSED = "passed"
    FAILED = "FAILED"
    EXPECTED = "expected failure"
    UNEXPECTED = "PASSED, though declared to fail"
    SKIPPED = "not tried"


BAD = (Outcome.FAILED, Outcome.UNEXPECTED)
_STYLES = {Outcome.PASSED: "green", Outcome.EXPECTED: "yellow", Outcome.SKIPPED: "dim"}


@dataclass(frozen=True)
class Result:
    """One check of one part (or of the plugin, part ``""``). ``reason``: why not passed; of an expected failure, as
    declared."""

    check: str
    part: str
    outcome: Outcome
    reason: str = ""


@dataclass(frozen=True)
class Report:
    """All results of one plugin."""

    plugin: str
    results: Sequence[Result]

    @property
    def ok(self) -> bool:
        """Whether nothing failed, and nothing passed that was declared to fail."""
        return not any(result.outcome in BAD for result in self.results)

    def count(self, outcome: Outcome) -> int:
        """Results with this outcome."""
        return sum(result.outcome is outcome for result in self.results)

    @property
    def summary(self) -> str:
        """One sentence."""
        counts = ((self.count(outcome), outcome.lower()) for outcome in Outcome)
        return f"{self.plugin}: " + ", ".join(f"{count} {what}" for count, what in counts if count) + "."

    def table(self) -> Table:
        """Check, part, result, reason."""
        table = Table(*(Column(name, overflow="fold") for name in ("check", "part", "result", "reason")))
        for result in self.results:
            style = _STYLES.get(result.outcome, "bold red")
            cells = (result.check, result.part or "(plugin)", result.outcome, result.reason)
            table.add_row(*(escape(printable(cell)) for cell in cells), style=style)
        return table

    def to_json(self) -> str:
        """The same, for machines: sorted keys, byte-stable."""
        rows: list[dict[str, Any]] = [
            {"check": r.check, "part": r.part, "outcome": r.outcome.name.lower(), "reason": r.reason}
            for r in self.results
        ]
        return json.dumps({"plugin": self.plugin, "ok": self.ok, "results": rows}, indent=2, sort_keys=True)
