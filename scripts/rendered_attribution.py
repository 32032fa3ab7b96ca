"""Put the attribution of a finished sweep into docs/attribution.md, with its plot beside it.

    .venv/bin/harness sweep scripts/rendered_attribution.toml --out sweeps/attribution --jobs 2
    .venv/bin/python scripts/rendered_attribution.py sweeps/attribution

The tables go between the two marks in the document; everything else there is written by hand. The same sweep gives the
same bytes.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from harness.attribution import grid_of, read_records, report_of
from harness.attribution.plot import write_plot
from harness.attribution.tables import markdown
from harness.errors import HarnessError
from harness.evaluation.figures import FigureName
from harness.files import replace_text

DOCUMENT = Path(__file__).parents[1] / "docs" / "attribution.md"
PLOT = Path("images/attribution.svg")  # beside the document
BEGIN, END = "<!-- tables: begin -->\n", "<!-- tables: end -->\n"
FIGURES: tuple[FigureName, ...] = ("rank1", "mAP")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("sweep", type=Path, nargs="+", help="folder of the sweep, or of its runs")
    parser.add_argument("--document", type=Path, default=DOCUMENT)
    given = parser.parse_args()
    try:
        write(given.sweep, given.document)
    except HarnessError as error:
        sys.exit(str(error))


def write(sweep: list[Path], document: Path) -> None:
    """Put the tables and the plot of the records under ``sweep`` in their places."""
    report = report_of(grid_of(read_records(sweep), FIGURES), FIGURES)
    before, rest = document.read_text(encoding="utf-8").split(BEGIN)
    _, after = rest.split(END)
    plot = document.parent / PLOT
    plot.parent.mkdir(exist_ok=True)
    write_plot(report, plot)
    shown = f"![Effects with their intervals]({PLOT})\n\n{_one_level_down(markdown(report))}"
    replace_text(document, f"{before}{BEGIN}\n{shown}\n{END}{after}")


def _one_level_down(text: str) -> str:
    """The report's headings below those of the document."""
    return "".join(f"##{line}" if line.startswith("#") else line for line in text.splitlines(keepends=True))


if __name__ == "__main__":
    main()
