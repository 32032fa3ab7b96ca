"""Runs of the toy method, in this process."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from safetensors.torch import load_file

from harness.engine.run import plan_run, run_planned
from harness.leaderboard.record import Record, figures_digest
from toy_parts import Silent, toy_catalogue, toy_settings


class Ran:
    """A finished run and what it left."""

    def __init__(self, record: Record | None, folder: Path, show: Silent) -> None:
        self.record, self.folder, self.show = record, folder, show

    @property
    def bits(self) -> tuple[str, bytes, dict[str, bytes], str]:
        """What must be equal in equal runs: figures, weights, embeddings, history."""
        embeddings = load_file(self.folder / "embeddings.safetensors")
        return (
            figures_digest(self.record),
            (self.folder / "weights.safetensors").read_bytes(),
            {name: tensor.numpy().tobytes() for name, tensor in embeddings.items()},
            (self.folder / "metrics.jsonl").read_text(),
        )


@pytest.fixture
def run(tiny: Path, tmp_path: Path) -> Callable[..., Ran]:
    """``run(out="a", resume=False, force=False, catalogue=None, **settings)``: a run in a folder of this test."""

    def go(out: str = "runs", *, resume: bool = False, force: bool = False, catalogue=None, **values) -> Ran:
        show = Silent()
        plan = plan_run(toy_settings(**values), toy_catalogue() if catalogue is None else catalogue)
        record = run_planned(plan, tmp_path / out, resume=resume, force=force, show=show)
        return Ran(record, tmp_path / out / plan.settings.name, show)

    return go
