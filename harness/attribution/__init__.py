"""What each part is worth: differences of runs that differ in one part alone, over a grid of runs."""

from harness.attribution.grid import Grid, Item, grid_of, read_records
from harness.attribution.report import Effect, Report, report_of

__all__ = ["Effect", "Grid", "Item", "Report", "grid_of", "read_records", "report_of"]
