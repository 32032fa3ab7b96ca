"""The conformance kit for plugin authors: ``harness check NAME``, or as tests with :func:`parametrize_with_checks`.

It tries a plugin's parts on toy feature sets and on a tiny rendered set, on the CPU, without any download: the contract
of each role, repetition under a seed, resumption, independence from ids and order, hard cases, hidden identities, every
partner, options. :mod:`harness.testing.checks` has the checks, each with what it expects.
"""

from harness.testing.checks import CHECKS, Check
from harness.testing.parametrize import parametrize_with_checks
from harness.testing.report import Outcome, Report, Result
from harness.testing.session import Session

__all__ = ["CHECKS", "Check", "Outcome", "Report", "Result", "Session", "parametrize_with_checks"]
