"""Cells on a Ray cluster: Ray has the machines, the queue and the retries; a cell is the same process as elsewhere.

The sweep's folder must be the same folder on every node. A cell whose node is lost goes on from its checkpoint on
another one.
"""

from __future__ import annotations

import logging
import os
import signal
import socket
from collections.abc import Iterable, Mapping
from typing import Any

from harness.engine.stopping import Stop, Stopped, stoppable
from harness.errors import SweepError
from harness.reading import printable, shortened
from harness.sweep.attempt import Attempts, Ended
from harness.sweep.folder import SweepFolder
from harness.sweep.local import Watcher

RETRIES = 10
"""How often Ray begins a cell again whose worker or node was lost."""

_FORWARDED = ("HARNESS_",)
"""Variables of the environment that cells on other machines need as well."""

_LOOK_S = 1.0
_REACH_S = 20.0
_LAST_WORDS_S = 120.0


class Again(Exception):
    """An attempt that came to nothing through no fault of the cell: Ray is to try again."""


def attempt_on_node(root: str, name: str, environment: Mapping[str, str]) -> dict[str, Any]:
    """What a Ray worker does: run one cell. Returns the fields of :class:`Ended`. Raises Again."""
    from pathlib import Path

    folder = SweepFolder(Path(root))
    if not folder.settings(name).exists():
        return vars(Ended(name, "failed", 1, 0.0, f"{folder.settings(name)} is not there: the folder is not shared"))
    ended = Attempts(folder).run(name, environment=environment, patience_s=_LAST_WORDS_S)
    if ended.state in ("stopped", "elsewhere"):
        raise Again(f"{name}: {ended.state} {ended.error}")
    return vars(ended)


def run_on_ray(
    folder: SweepFolder,
    names: Iterable[str],
    *,
    address: str | None,
    cpus: float,
    gpus: float | None,
    watcher: Watcher,
) -> list[Ended]:
    """Run cells as tasks of a Ray cluster.

    Args:
        folder: of the sweep, on a file system that all nodes share.
        names: of the cells.
        address: of the cluster; None: RAY_ADDRESS, else a cluster of this machine alone, for the time of the sweep.
        cpus, gpus: what a cell takes; None: one GPU if the cluster has any now.
        watcher: is told of every end.

    Raises:
        SweepError: Ray is not installed, or there is no cluster at the address.
        Stopped: the process was asked to stop; cells put down what they have done.
    """
    ray = _connected(address)
    try:
        with stoppable() as stop, stop.whole():  # a request raises nothing within Ray; it is looked for in between
            return _Tasks(ray, folder, _resources(ray, cpus, gpus, watcher), watcher).run(list(names), stop)
    except (Stopped, KeyboardInterrupt):
        raise Stopped(stop.number or signal.SIGINT) from None
    finally:
        ray.shutdown()


def _connected(address: str | None) -> Any:
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    try:
        import ray
    except ImportError as error:
        raise SweepError("--on ray needs Ray: pip install 'vireid-harness[ray]'.") from error
    address = address or os.environ.get("RAY_ADDRESS")
    try:
        _reach(address)
        ray.init(address=address, log_to_driver=False, logging_level=logging.ERROR)
    except (ConnectionError, RuntimeError, ValueError, OSError) as error:
        said = getattr(error, "strerror", None) or str(error).strip() or type(error).__name__
        why = shortened(printable(said.splitlines()[0]), most=300)
        raise SweepError(
            f"There is no Ray cluster for this sweep at {address or 'this machine'}: {why.rstrip('.')}. Begin one with "
            "`ray start --head`, which prints its address, or leave --address out to use this machine alone."
        ) from error
    return ray


def _reach(address: str | None) -> None:
    """Raise OSError if nobody listens at ``HOST:PORT``: Ray itself tries for many minutes."""
    host, _, port = (address or "").removeprefix("ray://").rpartition(":")
    if host and port.isdigit():
        socket.create_connection((host, int(port)), timeout=_REACH_S).close()


def _resources(ray: Any, cpus: float, gpus: float | None, watcher: Watcher) -> dict[str, float]:
    """What Ray sets aside for a cell. Nodes may still join, so that too little is only said."""
    there = ray.cluster_resources()
    wanted = {"CPU": cpus, "GPU": gpus if gpus is not None else min(1.0, there.get("GPU", 0.0))}
    largest = {kind: max((node["Resources"].get(kind, 0.0) for node in _nodes(ray)), default=0.0) for kind in wanted}
    for kind, amount in wanted.items():
        if amount > largest[kind]:
            watcher.note(f"no node has {amount:g} {kind} for a cell (most: {largest[kind]:g}): waiting for one to join")
    return {"num_cpus": wanted["CPU"], "num_gpus": wanted["GPU"]}


def _nodes(ray: Any) -> list[dict[str, Any]]:
    return [node for node in ray.nodes() if node["Alive"]]


class _Tasks:
    """One task per cell."""

    def __init__(self, ray: Any, folder: SweepFolder, resources: Mapping[str, float], watcher: Watcher) -> None:
        self.ray, self.folder, self.watcher = ray, folder, watcher
        self._task = ray.remote(
            max_retries=RETRIES, retry_exceptions=[Again], scheduling_strategy="SPREAD", **resources
        )(attempt_on_node)
        self._pending: dict[Any, str] = {}

    def run(self, names: list[str], stop: Stop) -> list[Ended]:
        """Submit all, and gather the ends in whichever order they come. Raises Stopped."""
        environment = {key: value for key, value in os.environ.items() if key.startswith(_FORWARDED)}
        ended = []
        try:
            for name in names:
                self._pending[self._task.remote(str(self.folder.path), name, environment)] = name
            while self._pending:
                stop.now()
                for task in self.ray.wait(list(self._pending), num_returns=1, timeout=_LOOK_S)[0]:
                    ended.append(self._ended(task, self._pending.pop(task)))
                    self.watcher.ended(ended[-1])
        except BaseException:
            self._cancel()
            raise
        return ended

    def _ended(self, task: Any, name: str) -> Ended:
        try:
            return Ended(**self.ray.get(task))
        except self.ray.exceptions.RayError as error:
            text = shortened(printable(str(error).strip().splitlines()[-1]), most=300)
            self.folder.note_failure(name, code=1, error=text)
            return Ended(name, "failed", 1, 0.0, text)

    def _cancel(self) -> None:
        """Interrupt the running tasks, which put their cells down, and take back the others."""
        for task in self._pending:
            self.ray.cancel(task, force=False)
        if self._pending:
            self.watcher.note("stopping: the running cells put down what they have done")
            pending = list(self._pending)
            self.ray.wait(pending, num_returns=len(pending), timeout=_LAST_WORDS_S)
