"""Runs on a GPU: every method trains there, batches made ahead change nothing, and the host does not wait."""

from __future__ import annotations

import warnings

import pytest
import torch

from harness.engine.train import Trainer
from harness.plugins import Catalogue

pytestmark = [pytest.mark.gpu, pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no GPU here")]
GPU = {"device": "cuda", "precision": "fp32"}
SMALL = {"model": {"backbone": "small"}, "recipe": {"epochs": 2, "iterations": 3}}


@pytest.mark.parametrize("method", ["baseline", "chcr", "dmic", "ecul", "pclhd", "hil", "pgm"])
def test_every_method_trains_on_a_gpu_much_as_on_a_cpu(run, method: str) -> None:
    settings = {**SMALL, "plugins": (method,), "catalogue": Catalogue()}
    if method == "hil":
        settings["model"] = {"backbone": "small-vit"}
    one = {**settings, "recipe": {"epochs": 1, "iterations": 1}}
    found, expected = (run(where, compute={**GPU, "device": where}, **one) for where in ("cuda", "cpu"))
    assert found.show.rows[0]["losses"] == pytest.approx(expected.show.rows[0]["losses"], rel=0.02)
    assert run("longer", compute={**GPU, "precision": "bf16"}, **settings).record is not None


def test_batches_made_ahead_give_the_same_losses(run) -> None:
    on, off = (run(way, compute={**GPU, "prefetch": way}, **SMALL, catalogue=Catalogue()) for way in ("on", "off"))
    for row, other in zip(on.show.rows, off.show.rows, strict=True):
        assert row["losses"] == pytest.approx(other["losses"], rel=1e-3)


def test_an_iteration_of_the_toy_method_does_not_wait_for_the_gpu(run, monkeypatch) -> None:
    waits: list[str] = []
    iteration = Trainer._iteration

    def watched(trainer, going, context):
        if not going.done:  # the first one sets things up
            return iteration(trainer, going, context)
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            torch.cuda.set_sync_debug_mode("warn")
            try:
                return iteration(trainer, going, context)
            finally:
                torch.cuda.set_sync_debug_mode("default")
                waits.extend(f"{w.filename}:{w.lineno}" for w in caught if "/harness/engine/" in w.filename)

    monkeypatch.setattr(Trainer, "_iteration", watched)
    run("toy", compute={**GPU, "prefetch": "on"}, recipe={"iterations": 4})
    assert waits == []
