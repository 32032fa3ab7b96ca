"""What this process may use of the machine."""

from __future__ import annotations

import os


def usable_cores() -> int:
    """CPU cores that this process may run on."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def launched_processes() -> int:
    """Processes that ``torchrun``, or the first process of a run, has started for one run, this one among them."""
    return int(os.environ.get("WORLD_SIZE", 1)) if "LOCAL_RANK" in os.environ else 1


def processes_here() -> int:
    """Those of :func:`launched_processes` that run on this machine."""
    return int(os.environ.get("LOCAL_WORLD_SIZE", launched_processes()))


def process_rank() -> int:
    """The number of this process among :func:`launched_processes`; 0 is the one that writes and talks."""
    return int(os.environ.get("RANK", os.environ["LOCAL_RANK"])) if launched_processes() > 1 else 0
