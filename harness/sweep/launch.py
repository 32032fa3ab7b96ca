"""``python launch.py PARENT WORD ...``: become ``harness WORD ...``, asked to stop as soon as PARENT is gone.

Run by its path, so that nothing is imported that the command does not import anyway.
"""

import ctypes
import os
import signal
import sys

_PR_SET_PDEATHSIG = 1


def stop_with_parent(parent: int) -> None:
    """Ask the kernel (Linux) for SIGTERM when the parent ends, in whatever way: no orphan goes on training.

    To the kernel the parent is the thread that began this process; it waits for its end.
    """
    if sys.platform != "linux":
        return
    ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)
    if os.getppid() != parent:  # it ended before it could be watched
        sys.exit(128 + signal.SIGTERM)


if __name__ == "__main__":
    stop_with_parent(int(sys.argv[1]))
    os.execv(sys.executable, [sys.executable, "-m", "harness", *sys.argv[2:]])
