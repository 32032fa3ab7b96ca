"""Observers for tests: one that notes all it is told, one that does its worst, one that never comes back."""

from __future__ import annotations

import gc
import json
import os
import random
import sys
import time

from harness import PluginCard, ReportSection, hookimpl
from harness.observations import to_plain


def card():
    return PluginCard("Observes.", "part")


class Noting:
    """Notes what it is told in a file of its folder."""

    @hookimpl
    def harness_plugin():
        return card()

    @hookimpl
    def harness_run_started(run):
        note(run, "started", run)

    @hookimpl
    def harness_epoch_ended(run, epoch):
        note(run, "epoch", epoch)

    @hookimpl
    def harness_run_finished(run, result):
        note(run, "finished", result)

    @hookimpl
    def harness_run_failed(run, failure):
        note(run, "failed", failure)

    @hookimpl
    def harness_report_sections(runs):
        rows = [(name, f"{points[-1][1]:.4f}") for name, points in sorted(runs[0].curves.items())]
        yield ReportSection("Last values", "One.\n\nTwo <b>bold</b>.", (("curve", "value"), *rows), "<svg/>")


def note(run, what, value):
    with (run.folder / "noted").open("a") as file:
        file.write(json.dumps([what, to_plain(value), os.getpid(), "torch" in sys.modules]) + "\n")


class Hostile:
    """Seeds, changes what it is handed, looks for weights, writes to what would be the answers, and raises."""

    @hookimpl
    def harness_plugin():
        return card()

    @hookimpl
    def harness_run_started(run):
        spoil(run)

    @hookimpl
    def harness_epoch_ended(run, epoch):
        spoil(run)
        epoch.figures.clear()
        print(json.dumps({"complaint": "not said by the harness"}))
        raise ValueError("no \x1b[31mluck")

    @hookimpl
    def harness_report_sections(runs):
        yield ReportSection(
            "<script>alert(1)</script>",
            "</main><script>alert(2)</script>",
            (("<img src=x onerror=alert(3)>",), ("\x1b[2J",)),
            '<svg xmlns="http://www.w3.org/2000/svg"><script>alert(4)</script><image href="http://example.com/x"/></svg>',
        )


def spoil(run):
    import numpy
    import torch

    random.seed(1)
    numpy.random.seed(1)  # noqa: NPY002
    torch.manual_seed(1)
    torch.set_num_threads(2)
    torch.set_default_dtype(torch.float64)
    torch.set_grad_enabled(False)
    for parameter in [found for found in gc.get_objects() if isinstance(found, torch.nn.Parameter)]:
        parameter.zero_()
    object.__setattr__(run, "seed", 99)


class Stuck(Noting):
    """Never comes back from an epoch."""

    @hookimpl
    def harness_epoch_ended(run, epoch):
        time.sleep(10_000)


class Dying(Noting):
    """Ends the process that it lives in."""

    @hookimpl
    def harness_epoch_ended(run, epoch):
        os._exit(3)


class Broken:
    """Yields something else than sections."""

    @hookimpl
    def harness_plugin():
        return card()

    @hookimpl
    def harness_report_sections(runs):
        return ["a text"]
