"""Sweeps, cells and Ray nodes as processes of their own: begun, looked at, killed, and none left behind."""

from __future__ import annotations

import os
import re
import secrets
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TypeVar

from harness.sweep.folder import SweepFolder

PATIENCE_S = 1800.0
Found = TypeVar("Found")


def until(look: Callable[[], Found | None], process: subprocess.Popen[bytes]) -> Found:
    """What ``look`` finds at last, while a process is at work."""
    last = time.monotonic() + PATIENCE_S
    while True:
        ended = process.poll() is not None
        found = look()
        if found:
            return found
        assert not ended, f"the sweep ended first, with {process.returncode}"
        assert time.monotonic() < last, "waited in vain"
        time.sleep(0.02)


class Sweep:
    """``harness sweep`` in a process group of its own."""

    def __init__(self, cwd: Path, *arguments: str, environment: dict[str, str] | None = None) -> None:
        self.said = cwd / f"said-{secrets.token_hex(4)}.txt"
        with self.said.open("wb") as file:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "harness", "sweep", *arguments],
                cwd=cwd,
                stdin=subprocess.DEVNULL,
                stdout=file,
                stderr=file,
                env={**os.environ, "OMP_NUM_THREADS": "1", **(environment or {})},
                start_new_session=True,
            )

    def ended(self) -> tuple[int, str]:
        """Exit status and words, once it has ended."""
        return self.process.wait(timeout=PATIENCE_S), self.said.read_text()


@contextmanager
def sweeping(cwd: Path, *arguments: str, environment: dict[str, str] | None = None) -> Iterator[Sweep]:
    """A sweep that does not outlive the block."""
    sweep = Sweep(cwd, *arguments, environment=environment)
    try:
        yield sweep
    finally:
        if sweep.process.poll() is None:
            os.killpg(sweep.process.pid, signal.SIGKILL)
            sweep.process.wait()


def running(folder: SweepFolder) -> dict[str, int]:
    """Process ids of the cells that hold their run folders, by name."""
    found = {}
    for owner in folder.runs.glob("*/owner"):
        try:
            words = owner.read_text().split()
        except FileNotFoundError:
            continue
        if len(words) > 1 and Path(f"/proc/{words[1]}").exists():
            found[owner.parent.name] = int(words[1])
    return found


def done(folder: SweepFolder) -> set[str]:
    """Names of the finished cells."""
    return {record.parent.name for record in folder.runs.glob("*/record.json")}


def kill_all_at_once(sweep: Sweep, folder: SweepFolder) -> None:
    """As the power goes: the sweep's process group and every cell."""
    for pid in [*running(folder).values()]:
        os.kill(pid, signal.SIGKILL)
    os.killpg(sweep.process.pid, signal.SIGKILL)
    sweep.process.wait()


def frozen_with_checkpoint(folder: SweepFolder) -> str | None:
    """A cell that has a checkpoint and no record, stopped where it is so that this stays true; None if there is none.

    It goes on with SIGCONT, or is killed.
    """
    for name, pid in running(folder).items():
        if (folder.runs / name / "record.json").exists() or not _checkpoints(folder, name):
            continue
        try:
            os.kill(pid, signal.SIGSTOP)
        except ProcessLookupError:
            continue
        if not (folder.runs / name / "record.json").exists():
            return name
        os.kill(pid, signal.SIGCONT)
    return None


def _checkpoints(folder: SweepFolder, name: str) -> list[Path]:
    return list((folder.runs / name / "checkpoint").glob("epoch-*.pt"))


def parent_of(pid: int) -> int:
    """The parent of a process; 0 if it is gone."""
    try:
        return int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1])
    except FileNotFoundError:
        return 0


class RayCluster:
    """A head without CPUs, and nodes of one CPU each, on this machine. Every process names the cluster's folder."""

    def __init__(self) -> None:
        self.folder = tempfile.mkdtemp(prefix="ray", dir="/tmp")  # short: sockets are in it
        self.environment = {
            "RAY_USAGE_STATS_ENABLED": "0",
            "RAY_AUTH_MODE": "token",
            "RAY_AUTH_TOKEN": secrets.token_hex(32),
            "RAY_health_check_period_ms": "1000",
            "RAY_health_check_failure_threshold": "3",
        }
        try:
            said = self._start(
                "--head", "--port=0", "--num-cpus=0", "--include-dashboard=false", "--disable-usage-stats",
                f"--temp-dir={self.folder}",
            )  # fmt: skip
            self.address = re.search(r"--address='([^']+)'", said)[1]
        except BaseException:
            self.end()
            raise

    def join(self) -> int:
        """Let a node join. Returns the process id of its raylet."""
        before = self._raylets()
        self._start(f"--address={self.address}", "--num-cpus=1")
        (raylet,) = self._raylets() - before
        return raylet

    def _start(self, *words: str) -> str:
        said = Path(self.folder) / f"start-{secrets.token_hex(4)}.txt"
        command = [sys.executable, "-m", "ray.scripts.scripts", "start", "--object-store-memory=100000000", *words]
        with said.open("wb") as file:  # no pipe: the nodes would keep it open
            subprocess.run(
                command,
                stdin=subprocess.DEVNULL,
                stdout=file,
                stderr=file,
                env={**os.environ, **self.environment, "NO_COLOR": "1"},
                timeout=PATIENCE_S,
                check=False,
                start_new_session=True,
            )
        text = said.read_text()
        assert "Ray runtime started" in text, text
        return text

    def _processes(self) -> dict[int, str]:
        """Command lines of the cluster's processes."""
        found = {}
        for entry in Path("/proc").iterdir():
            try:
                line = (entry / "cmdline").read_bytes().decode(errors="replace") if entry.name.isdigit() else ""
            except (FileNotFoundError, ProcessLookupError, PermissionError):
                continue
            if self.folder in line and int(entry.name) != os.getpid():
                found[int(entry.name)] = line
        return found

    def _raylets(self) -> set[int]:
        return {pid for pid, line in self._processes().items() if line.split("\0")[0].endswith("/raylet")}

    def end(self) -> None:
        """Kill what is left; workers end with their node."""
        last = time.monotonic() + PATIENCE_S
        while (left := self._processes()) and time.monotonic() < last:
            for pid in left:
                try:
                    os.kill(pid, signal.SIGKILL)
                except ProcessLookupError:
                    continue
            time.sleep(0.05)
        shutil.rmtree(self.folder, ignore_errors=True)


@contextmanager
def ray_cluster() -> Iterator[RayCluster]:
    """A cluster that does not outlive the block."""
    cluster = RayCluster()
    try:
        yield cluster
    finally:
        cluster.end()
