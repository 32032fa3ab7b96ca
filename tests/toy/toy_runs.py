"""Runs of the toy method in this process, and what they leave."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from safetensors.torch import load_file

from harness.engine.run import plan_run, run_planned
from harness.leaderboard.record import Record, figures_digest
from harness.plugins import Catalogue
from toy_parts import Silent, toy_catalogue, toy_settings


class Ran:
    """A finished run and what it left."""

    def __init__(self, record: Record | None, folder: Path, show: Silent) -> None:
        self.record, self.folder, self.show = record, folder, show

    @property
    def weights(self) -> bytes:
        """The file of weights."""
        return (self.folder / "weights.safetensors").read_bytes()

    @property
    def bits(self) -> tuple[str, bytes, dict[str, bytes], str]:
        """What must be equal in equal runs: figures, weights, embeddings, history."""
        embeddings = load_file(self.folder / "embeddings.safetensors")
        return (
            figures_digest(self.record),
            self.weights,
            {name: tensor.numpy().tobytes() for name, tensor in embeddings.items()},
            (self.folder / "metrics.jsonl").read_text(),
        )


def run_toy(
    out: Path,
    *,
    resume: bool = False,
    force: bool = False,
    catalogue: Catalogue | None = None,
    show: Silent | None = None,
    **values: Any,
) -> Ran:
    """Run the toy method, or what ``values`` name, in a folder of ``out``."""
    show = Silent() if show is None else show
    plan = plan_run(toy_settings(**values), toy_catalogue() if catalogue is None else catalogue)
    record = run_planned(plan, out, resume=resume, force=force, show=show)
    return Ran(record, out / str(plan.settings.name), show)
