"""Event files as TensorBoard reads them, written with its own writer (which needs neither torch nor TensorFlow)."""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import Any

from harness import ObservedRun

_WRITERS: dict[str, Any] = {}
"""The open writer of each run, by the run's folder."""


def begin(run: ObservedRun) -> None:
    """Open an event file and note the settings. Raises RuntimeError, saying what to install, without TensorBoard."""
    rows = [("method", run.method), ("dataset", run.dataset), ("seed", run.seed), *run.parts, *run.settings.items()]
    lines = ["| setting | value |", "|:--|:--|", *(f"| {name} | {value} |" for name, value in rows)]
    _note(run, "settings", "\n".join(lines))


def write(run: ObservedRun, figures: Mapping[str, float], *, step: int) -> None:
    """One scalar for each figure; a kind of figure (``loss``, ``ARI``) is a group of charts."""
    from tensorboard.compat.proto.summary_pb2 import Summary

    values = [Summary.Value(tag=_tag(name), simple_value=float(value)) for name, value in sorted(figures.items())]
    _add(run, Summary(value=values), step=step)


def end(run: ObservedRun, *, said: str = "") -> None:
    """Close the event file, with a word on how the run failed if it did."""
    if said:
        _note(run, "failure", said)
    writer = _WRITERS.pop(str(run.folder), None)
    if writer is not None:
        writer.close()


def _tag(name: str) -> str:
    """``loss contrast`` as ``loss/contrast``; what has a slash is a protocol's figure."""
    return f"test/{name}" if "/" in name.partition(" ")[0] else name.replace(" ", "/", 1)


def _note(run: ObservedRun, tag: str, text: str) -> None:
    _writer(run)  # first: without TensorBoard it says so
    from tensorboard.compat.proto.summary_pb2 import Summary, SummaryMetadata
    from tensorboard.compat.proto.tensor_pb2 import TensorProto
    from tensorboard.compat.proto.tensor_shape_pb2 import TensorShapeProto

    shape = TensorShapeProto(dim=[TensorShapeProto.Dim(size=1)])
    tensor = TensorProto(dtype="DT_STRING", string_val=[text.encode()], tensor_shape=shape)
    metadata = SummaryMetadata(plugin_data=SummaryMetadata.PluginData(plugin_name="text"))
    _add(run, Summary(value=[Summary.Value(tag=tag, metadata=metadata, tensor=tensor)]), step=run.epochs_done)


def _add(run: ObservedRun, summary: Any, *, step: int) -> None:
    from tensorboard.compat.proto.event_pb2 import Event

    writer = _writer(run)
    writer.add_event(Event(wall_time=time.time(), step=step, summary=summary))
    writer.flush()


def _writer(run: ObservedRun) -> Any:
    if str(run.folder) not in _WRITERS:
        try:
            from tensorboard.summary.writer.event_file_writer import EventFileWriter
        except ImportError as error:
            raise RuntimeError("TensorBoard is not installed: pip install 'vireid-harness[tensorboard]'") from error
        _WRITERS[str(run.folder)] = EventFileWriter(str(run.folder))
    return _WRITERS[str(run.folder)]
