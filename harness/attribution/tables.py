"""A report as Markdown, CSV and JSON. Equal reports are equal bytes; numbers have two decimals, p-values three."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Sequence
from typing import Any

from harness.attribution.report import LEVEL, Effect, Report
from harness.evaluation.figures import FigureName, figure_header
from harness.leaderboard.table import escape_markdown

_HOW = (
    "Each row is the mean over all pairs of runs that differ in this alone, with the same {unit} and the same "
    "partners, in percentage points of {figure}. 95 %: t-interval that counts {unit}s and sets of partners as drawn at "
    "random; with one set of partners it says nothing of others. p: adjusted by Holm for the {tests} of {figure}."
)
_READING = (
    "Readings. *Stands after Holm*: adjusted p at most 0.05. *95 % only*: the interval excludes 0, but among so many "
    "rows one may do so by chance. *Within noise*: the interval includes 0. *No interval*: one {unit} only."
)
_SEVERAL = (
    "Parts that never change apart: the row is of all of them together, and none of it can be given to one. Settings "
    "among them (recipe, ...) are part of the difference."
)


def markdown(report: Report) -> str:
    """The whole report."""
    paragraphs = [_title(report), _about(report)]
    for figure in report.figures:
        name = figure_header(figure)
        parts, several = report.of(figure, ["part"]), report.of(figure, ["several"])
        tests = _count([*parts, *several])
        how = _HOW.format(unit=report.unit, figure=name, tests=tests)
        paragraphs += [f"## {name}: what each part is worth", how]
        paragraphs.append(_table(report, parts) if parts else _NOTHING_ALONE)
        if several:
            paragraphs += [f"### {name}: several at once", _SEVERAL, _table(report, several)]
        paragraphs += _interactions(report, figure)
    paragraphs += [_READING.format(unit=report.unit), *(_notes(report))]
    return "\n\n".join(paragraphs) + "\n"


_NOTHING_ALONE = "No two cells differ in one part or setting alone."


def _title(report: Report) -> str:
    return f"# Attribution: {escape_markdown(report.dataset)}, {escape_markdown(report.protocol)}"


def _about(report: Report) -> str:
    units = ", ".join(map(str, report.units))
    reference = f" Compared with: {escape_markdown(report.reference)}." if report.reference else ""
    return f"{report.cells} cells, {report.runs} runs; {report.unit}s {units}.{reference}"


def _count(family: Sequence[Effect]) -> str:
    tested = [effect for effect in family if effect.p_holm is not None]
    standing = sum(effect.p_holm is not None and effect.p_holm <= LEVEL for effect in tested)
    rows = "1 row" if len(tested) == 1 else f"{len(tested)} rows"
    return f"{rows} tested ({standing} stand)"


def _interactions(report: Report, figure: FigureName) -> list[str]:
    found = report.of(figure, ["interaction"])
    name = figure_header(figure)
    if not found:
        return [f"No interaction of {name} can be given: there is no complete 2 × 2 block of cells."]
    tests = _count(found)
    how = (
        f"What both give together beyond the sum of what each gives alone, over complete 2 × 2 blocks. p: adjusted for "
        f"the {tests} of this table."
    )
    return [f"### {name}: interactions", how, _table(report, found)]


def _table(report: Report, effects: Sequence[Effect]) -> str:
    from tabulate import tabulate

    what = "blocks" if effects[0].kind == "interaction" else "pairs"
    figure = figure_header(effects[0].figure)
    headers = ["change", f"{figure}, points", "95 %", what, "partners", f"{report.unit}s", "p", "reading"]
    body = [[escape_markdown(cell) for cell in _cells(effect)] for effect in effects]
    align = ["left", *["right"] * 6, "left"]
    if effects[0].kind == "part":  # the other kinds are of several roles
        headers, align = ["role", *headers], ["left", *align]
        body = [[escape_markdown(effect.roles), *row] for effect, row in zip(effects, body, strict=True)]
    return tabulate(body, headers=headers, tablefmt="pipe", disable_numparse=True, colalign=align)


def _cells(effect: Effect) -> list[str]:
    mean = effect.mean
    confounded = f"CONFOUNDED with {_sections(effect)}; " if effect.confounded else ""
    return [
        effect.change,
        f"{mean.points:+.2f}",
        "" if mean.low is None or mean.high is None else f"{mean.low:+.2f} to {mean.high:+.2f}",
        str(mean.pairs),
        str(mean.partners),
        str(mean.units),
        "" if effect.p_holm is None else f"{effect.p_holm:.3f}",
        f"{confounded}{effect.reading}",
    ]


def _sections(effect: Effect) -> str:
    return ", ".join(dict.fromkeys(name.partition(".")[0] for name in effect.confounded))


def _notes(report: Report) -> list[str]:
    if not report.notes:
        return []
    return ["\n".join(["## Notes", "", *(f"- {escape_markdown(note)}" for note in report.notes)])]


def comma_separated(report: Report) -> str:
    """One line per effect and figure; an empty field is a value that there is not."""
    rows = [_row(report, effect) for effect in (*report.effects, *report.interactions)]
    text = io.StringIO()
    writer = csv.DictWriter(text, [*_COLUMNS], lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return text.getvalue()


_COLUMNS = (
    *("dataset", "protocol", "figure", "kind", "roles", "change", "points", "low", "high", "p", "p_holm"),
    *("pairs", "partners", "units", "confounded", "reading"),
)


def _row(report: Report, effect: Effect) -> dict[str, str]:
    mean = effect.mean
    return {
        "dataset": _guarded(report.dataset),
        "protocol": _guarded(report.protocol),
        "figure": effect.figure,
        "kind": effect.kind,
        "roles": _guarded(effect.roles),
        "change": _guarded(effect.change),
        "points": f"{mean.points:.2f}",
        **{name: "" if value is None else f"{value:.2f}" for name, value in (("low", mean.low), ("high", mean.high))},
        **{name: "" if value is None else f"{value:.4f}" for name, value in (("p", mean.p), ("p_holm", effect.p_holm))},
        "pairs": str(mean.pairs),
        "partners": str(mean.partners),
        "units": str(mean.units),
        "confounded": _guarded(" ".join(effect.confounded)),
        "reading": effect.reading,
    }


def _guarded(text: str) -> str:
    """With an apostrophe before what a spreadsheet would take for a formula."""
    return f"'{text}" if text.startswith(("=", "+", "-", "−", "@")) else text


def as_json(report: Report) -> str:
    """The whole report, for programs: keys sorted, numbers rounded to six decimals."""
    content: dict[str, Any] = {
        "dataset": report.dataset,
        "protocol": report.protocol,
        "reference": report.reference,
        "figures": list(report.figures),
        "unit": report.unit,
        "units": list(report.units),
        "cells": report.cells,
        "runs": report.runs,
        "effects": [_entry(effect) for effect in (*report.effects, *report.interactions)],
        "notes": list(report.notes),
    }
    return json.dumps(content, sort_keys=True, indent=2, ensure_ascii=False, allow_nan=False) + "\n"


def _entry(effect: Effect) -> dict[str, Any]:
    mean = effect.mean
    numbers = {"points": mean.points, "low": mean.low, "high": mean.high, "p": mean.p, "p_holm": effect.p_holm}
    return {
        "figure": effect.figure,
        "kind": effect.kind,
        "roles": effect.roles,
        "change": effect.change,
        **{name: None if value is None else round(value, 6) + 0.0 for name, value in numbers.items()},
        "pairs": mean.pairs,
        "partners": mean.partners,
        "units": mean.units,
        "confounded": list(effect.confounded),
        "reading": effect.reading,
    }
