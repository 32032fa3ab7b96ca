"""Evaluation protocols in Markdown."""

from __future__ import annotations

from fields import table

from harness.evaluation.protocols import protocols_of


def protocols(dataset: str) -> str:
    """One section per protocol of ``dataset``: its definition in words."""
    return "\n\n".join(
        f"### {protocol.identifier}\n\n" + table(["subject", "rule"], list(protocol.definition().items()))
        for protocol in protocols_of(dataset)
    )
