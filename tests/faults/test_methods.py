"""Every method, and parts of several, killed once in each stage of the loop."""

from __future__ import annotations

from pathlib import Path

import pytest

from harness.engine import run as run_module
from harness.engine import train
from harness.plugins import Catalogue
from tests.faults.workbench import Tampering
from toy_runs import run_toy

SETTINGS = {
    "catalogue": Catalogue(),
    "model": {"backbone": "small", "pretrained": False},
    "recipe": {"epochs": 2, "iterations": 2},
    "evaluation": {"trials": 1},
}

STAGES = [
    ("clustering, first epoch", train, "checked_labels", 1),
    ("a step, first epoch", train.Trainer, "_step", 2),
    ("writing the first checkpoint", run_module, "save_checkpoint", 1),
    ("extraction, second epoch", train.Trainer, "_labels", 2),
    ("refining", train, "checked_labels", 1),
    ("building memories", train, "check_memory", 1),
    ("drawing a batch", train.DrawStream, "next", 2),
    ("the losses", train, "objective", 2),
    ("updating memories", train.Trainer, "_update", 2),
    ("evaluation", run_module, "evaluate_all", 1),
    ("saving weights", run_module, "save_file", 2),
    ("writing the record", run_module, "write_record", 1),
]
"""One after the other: what is called, and which call of the process is its last."""

METHODS = [
    ("baseline",), ("pgm",), ("chcr",), ("dmic",), ("ecul",), ("hil",), ("pclhd",), ("pclhd-paper",),
    ("chcr", "tsmem"), ("chcr", "brst", "mccl"), ("dnc", "pclhd"), ("mie", "hmcl", "neighbours"),
]  # fmt: skip


class Killed(BaseException):
    """Stands for the end of the process: nothing in the harness may catch it."""


@pytest.mark.slow
@pytest.mark.parametrize("plugins", METHODS, ids="+".join)
def test_a_method_killed_in_every_stage_ends_with_the_same_bits(
    tiny: Path, tmp_path: Path, plugins: tuple[str, ...], monkeypatch
) -> None:
    whole = run_toy(tmp_path / "whole", plugins=plugins, **SETTINGS)
    out = tmp_path / "killed"
    for stage, owner, name, call in STAGES:
        Tampering(monkeypatch, out).raising(owner, name, Killed(stage), call=call)
        with pytest.raises(Killed, match=stage):
            run_toy(out, resume=True, plugins=plugins, **SETTINGS)
        monkeypatch.undo()
    assert run_toy(out, resume=True, plugins=plugins, **SETTINGS).bits == whole.bits
