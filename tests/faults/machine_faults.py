"""Faults of the machine: full disks, files that cannot be read, signals, two runs in one folder."""

from __future__ import annotations

import errno
import os
import signal
from typing import Any

from filelock import FileLock

from harness.data import cache
from harness.data.rendered import writer
from harness.engine import checkpoint, folder, train
from harness.engine import run as run_module
from harness.errors import DataError, PluginError, RunError, RunStopped, TrainingError
from tests.faults.workbench import Fault, Tampering

NO_ROOM = r".*File too large.*mend the disk and add --resume"


def full(name: str, owner: Any, function: str, size: int, says: str, **how: Any) -> Fault:
    where = how.pop("where", f"after {size} bytes" if size else "at the first byte")
    call = how.pop("call", 1)
    return Fault(
        f"disk full, {name}", where, lambda t: t.full_disk(owner, function, size, call=call), says,
        **{"error": RunError, **how},
    )  # fmt: skip


def stopped_on_a_full_disk(t: Tampering) -> None:
    t.signals(train.Trainer, "_iteration", signal.SIGTERM, call=2)
    t.full_disk(run_module, "save_midway", 100)


def signalled(*numbers: int, where: str, owner: Any, name: str, call: int, says: str) -> Fault:
    named = ", then ".join("Ctrl-C" if n == signal.SIGINT else signal.Signals(n).name for n in numbers)
    error = KeyboardInterrupt if len(numbers) > 1 else RunStopped
    return Fault(named, where, lambda t: t.signals(owner, name, *numbers, call=call), says, error)


def within(number: int, says: str) -> Fault:
    where = "iteration 2"
    return signalled(number, where=where, owner=train.Trainer, name="_iteration", call=2, says=says)


def gone_before_decoding(t: Tampering) -> None:
    def without(before: Any, *args: Any, **kwargs: Any) -> None:
        t.image.unlink()
        before(*args, **kwargs)

    t.changing(cache, "_build", without)


def not_to_be_read(t: Tampering) -> None:
    def with_a_folder_in_its_place(before: Any, *args: Any, **kwargs: Any) -> None:
        image = t.image
        image.unlink()
        image.mkdir()
        before(*args, **kwargs)

    t.changing(cache, "_build", with_a_folder_in_its_place)


def unreadable(t: Tampering, *, files: int) -> None:
    """Input/output errors while the newest checkpoints are read."""
    spoilt = t.checkpoints[-files:]

    def reading(before: Any, path: Any, *args: Any, **kwargs: Any) -> Any:
        if path in spoilt:
            raise OSError(errno.EIO, "Input/output error")
        return before(path, *args, **kwargs)

    t.changing(checkpoint.torch, "load", reading)


def cut(t: Tampering, number: int) -> None:
    path = t.checkpoints[number]
    path.write_bytes(path.read_bytes()[:-100])


def midway_cut(t: Tampering) -> None:
    """The run is stopped in its third epoch, and what it saved is damaged before it goes on."""
    t.signals(train.Trainer, "_iteration", signal.SIGTERM, call=2)
    t.changing(run_module, "save_midway", lambda before, *a, **k: before(*a, **k).write_bytes(b"PK"))


def held(t: Tampering) -> None:
    (t.out / "toy" / "owner").write_text("process 4242 on node7\n")
    lock = FileLock(t.out / "toy" / ".lock")
    lock.acquire()
    release = t.patch.undo

    def undo() -> None:
        lock.release()
        release()

    t.patch.undo = undo  # type: ignore[method-assign]


def worker_killed(t: Tampering) -> None:
    """Images are drawn by two processes, one of which is killed."""

    class Pool(writer.ProcessPoolExecutor):
        def map(self, *args: Any, **kwargs: Any) -> Any:
            results = super().map(*args, **kwargs)
            os.kill(next(iter(self._processes)), signal.SIGKILL)
            return results

    t.patch.setattr(writer, "_default_workers", lambda plan: 2)
    t.patch.setattr(writer, "ProcessPoolExecutor", Pool)


FAULTS = [
    full("writing a checkpoint", run_module, "save_checkpoint", 0, "Cannot write the checkpoint" + NO_ROOM),
    full("writing a checkpoint", run_module, "save_checkpoint", 700, "Cannot write the checkpoint" + NO_ROOM),
    full("writing a checkpoint", run_module, "save_checkpoint", 9000, "Cannot write the checkpoint" + NO_ROOM),
    Fault(
        "disk full, writing a checkpoint on SIGTERM", "iteration 2", stopped_on_a_full_disk,
        "Cannot write the checkpoint" + NO_ROOM, RunError,
    ),
    full("writing metrics.jsonl", folder.RunFolder, "write_metrics", 10, "Cannot read or write" + NO_ROOM, call=2),
    full("writing settings.toml", run_module, "replace_text", 10, "Cannot read or write" + NO_ROOM),
    full("writing embeddings", run_module, "save_file", 700, "Cannot write .*embeddings.*" + NO_ROOM),
    full("writing weights", run_module, "save_file", 700, "Cannot write .*weights.*" + NO_ROOM, call=2),
    full("writing the record", run_module, "write_record", 700, "Cannot read or write" + NO_ROOM),
    full(
        "making the image cache", run_module, "build_cache", 4000, "Cannot read or write" + NO_ROOM,
        begun=False, own_cache=True,
    ),
    full(
        "rendering the dataset", writer, "write_rendered", 900,
        "dataset 'rendered' .*could not be made.*File too large", error=PluginError, begun=False, own_cache=True,
    ),
    Fault(
        "a worker process is killed", "rendering the dataset", worker_killed,
        "A rendering process ended early; nothing of the dataset is kept", DataError, begun=False, own_cache=True,
    ),
    Fault(
        "an image cut short", "decoding", lambda t: t.image.write_bytes(t.image.read_bytes()[:300]),
        r"1 of 128 images cannot be decoded", DataError, begun=False, own_data=True,
    ),
    Fault(
        "an image that cannot be read", "decoding", not_to_be_read,
        r"1 of 128 images cannot be decoded.*Is a directory\)", DataError, begun=False, own_data=True,
    ),
    Fault(
        "an image that vanishes after it was listed", "decoding", gone_before_decoding,
        r"1 of 128 images cannot be decoded.*No such file or directory\)", DataError, begun=False, own_data=True,
    ),
    Fault(
        "a decoding thread is refused memory", "decoding", lambda t: t.raising(cache, "_decode", MemoryError(), call=9),
        r"The memory of this machine ran out \(MemoryError\)\. 0 of 3 epochs are kept", TrainingError, begun=False,
        own_data=True,
    ),
    Fault(
        "the newest checkpoint is cut short", "resuming", lambda t: cut(t, -1),
        r"epoch-00002\.pt is damaged .*An older checkpoint is used", None,
    ),
    Fault(
        "a read error on the newest checkpoint", "resuming", lambda t: unreadable(t, files=1),
        r"epoch-00002\.pt cannot be read \(.*Input/output error\).*An older checkpoint is used", None,
    ),
    Fault(
        "a read error on every checkpoint", "resuming", lambda t: unreadable(t, files=2),
        r"No checkpoint .* can be read \(.*Input/output error\)\. They were left alone", RunError,
    ),
    Fault("the checkpoint within an epoch is cut short", "resuming", midway_cut,
        r"stopped by SIGTERM .*step-00002\.pt is damaged .*An older checkpoint is used", RunStopped,
    ),
    Fault("a run in a folder that another one holds", "beginning", held, "in use by process 4242 on node7", RunError),
    within(signal.SIGINT, "stopped by Ctrl-C after 2 of 3 epochs and 2 iterations of the next"),
    within(signal.SIGTERM, "stopped by SIGTERM after 2 of 3 epochs and 2 iterations of the next"),
    within(signal.SIGUSR1, "stopped by SIGUSR1 after 2 of 3 epochs and 2 iterations of the next"),
    signalled(
        signal.SIGTERM, where="extraction", owner=train, name="extract_features", call=1,
        says="stopped by SIGTERM after 2 of 3 epochs",
    ),
    signalled(
        signal.SIGTERM, where="checkpoint", owner=run_module, name="save_checkpoint", call=1,
        says="stopped by SIGTERM after 3 of 3 epochs",
    ),
    signalled(
        signal.SIGTERM, where="evaluation", owner=run_module, name="evaluate_all", call=1,
        says="stopped by SIGTERM after 3 of 3 epochs",
    ),
    signalled(
        signal.SIGINT, signal.SIGINT, where="iteration 2", owner=train.Trainer, name="_iteration", call=2,
        says="KeyboardInterrupt",
    ),
]  # fmt: skip
