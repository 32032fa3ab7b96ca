"""The report of runs: did it learn, were the pseudo-labels any good, who is confused, what did it cost."""

from harness.report.page import Choices, Report, write_report

__all__ = ["Choices", "Report", "write_report"]
