"""What this process may use of the machine."""

from __future__ import annotations

import ctypes
import os
import platform

_M_TRIM_THRESHOLD, _M_MMAP_MAX = -1, -4  # malloc.h
_ALLOCATOR_SETTINGS = ("MALLOC_TRIM_THRESHOLD_", "MALLOC_MMAP_MAX_", "GLIBC_TUNABLES")


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


def keep_freed_memory() -> None:
    """Let the C library keep what this process frees, for the next tensor of that size.

    As it comes, glibc gives every freed block of 32 MiB or more back to the system, which clears each of its pages
    anew at the next pass of the same batch: a tenth of a run on a CPU. The most memory that is resident hardly changes
    (docs/performance.md). Does nothing without glibc, or where the environment sets its allocator.
    """
    if platform.libc_ver()[0] != "glibc" or any(name in os.environ for name in _ALLOCATOR_SETTINGS):
        return
    libc = ctypes.CDLL(None)
    libc.mallopt(_M_MMAP_MAX, 0)
    libc.mallopt(_M_TRIM_THRESHOLD, -1)
