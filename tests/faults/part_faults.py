"""Faults of parts and encoders: values that break a contract, NaN, errors of their own."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from harness.contracts import Bank, PseudoLabels
from harness.engine import train
from harness.errors import TrainingError
from tests.faults.workbench import ITERATIONS, Fault, Tampering
from toy_parts import IndexClusterer, MeanMemory, PlainContrast, ToyEncoder, Unchanged

Change = Callable[[Any], Any]


def clustering(name: str, change: Change, says: str) -> Fault:
    return Fault(name, "clusterer", lambda t: t.result(IndexClusterer, "cluster", change), says)


def refining(name: str, change: Change, says: str) -> Fault:
    return Fault(name, "label refiner", lambda t: t.result(Unchanged, "refine", change), says)


def remembering(name: str, change: Callable[[Tensor], Tensor], says: str) -> Fault:
    def changed(bank: Bank) -> Bank:
        vectors = change(bank.vectors)
        return replace(bank, vectors=vectors, cluster=bank.cluster[: len(vectors)])

    return Fault(name, "memory, after build", lambda t: t.result(MeanMemory, "bank", changed), says)


def contrasting(
    name: str, spoil: Callable[[dict[str, Tensor], Any], Any], says: str, *, call: int = 2, **how: Any
) -> Fault:
    def changed(before: Any, part: Any, batch: Any, embeddings: Any, *rest: Any) -> Any:
        return spoil(before(part, batch, embeddings, *rest), embeddings)

    where = f"iteration {call}, loss"
    return Fault(name, where, lambda t: t.changing(PlainContrast, "terms", changed, call=call), says, **how)


def adding(value: Callable[[Any], Any]) -> Callable[[dict[str, Tensor], Any], Any]:
    return lambda terms, embeddings: {**terms, "spoilt": value(embeddings)}


def relabelled(change: Change, *names: str) -> Change:
    """Labels in which ``change`` was made to the visible partition (and the others named)."""

    def changed(labels: PseudoLabels) -> PseudoLabels:
        parts = {name: labels[name].labels for name in labels.given}
        return PseudoLabels(labels.train, {**parts, **{name: change(parts[name]) for name in ("visible", *names)}})

    return changed


def raised(error: BaseException) -> Callable[..., Any]:
    def fail(*_: Any) -> Any:
        raise error

    return fail


def nan_after_update(t: Tampering, *, call: int) -> None:
    def spoilt(before: Any, part: Any, *rest: Any) -> None:
        before(part, *rest)
        part.banks["infrared"] = part.banks["infrared"] * float("nan")

    t.changing(MeanMemory, "update", spoilt, call=call)


def embedding(t: Tampering, change: Callable[[Tensor], Tensor], *, training: bool) -> None:
    def changed(before: Any, encoder: ToyEncoder, *rest: Any) -> dict[str, Tensor]:
        found = before(encoder, *rest)
        return {name: change(value) for name, value in found.items()} if encoder.training == training else found

    t.changing(ToyEncoder, "forward", changed)


def no_number(values: Tensor) -> Tensor:
    return values * float("nan")


CLUSTERER = "clusterer 'by-index' of plugin 'baseline' "
REFINER = "label refiner 'steady' of plugin 'steady' broke its contract in refine: "
MEMORY = "memory 'means' of plugin 'baseline' broke its contract in "
LOSS = "loss 'plain' of plugin 'baseline' "

FAULTS = [
    clustering("the clusterer raises", raised(ValueError("nothing fits")), CLUSTERER + "failed in cluster: .*"),
    clustering("a list for labels", lambda labels: [0, 1], CLUSTERER + "broke its contract in cluster: .*"),
    refining("labels one too few", relabelled(lambda labels: labels[:-1]), REFINER + ".*"),
    refining("float labels", relabelled(Tensor.float), REFINER + ".*"),
    refining("labels of two columns", relabelled(lambda labels: labels[:, None]), REFINER + ".*"),
    refining(
        "gaps in the ids", relabelled(lambda labels: torch.where(labels > 0, labels * 2, labels)), REFINER + "[^.]*"
    ),
    refining("labels below -1", relabelled(lambda labels: labels - 1), REFINER + ".*"),
    refining("labels out of scope", relabelled(lambda labels: labels.clamp(min=0)), REFINER + ".*"),
    refining("nothing returned", lambda labels: None, REFINER + ".*"),
    remembering("rows not of unit length", lambda rows: rows * 2, MEMORY + r"build: .*: rows must have length 1"),
    remembering("NaN rows", no_number, MEMORY + r"build: .*rows hold NaN or infinite values"),
    remembering("rows with gradient", lambda rows: rows.requires_grad_(), MEMORY + "build: .*must carry no gradient"),
    remembering("float64 rows", Tensor.double, MEMORY + "build: .*must be a float32 tensor"),
    remembering("a cluster without a row", lambda rows: rows[:-1], MEMORY + "build: .*clusters needs a row"),
    Fault(
        "names of no partition",
        "memory, after build",
        lambda t: t.patch.setattr(MeanMemory, "names", property(lambda part: ("nowhere",))),
        MEMORY + "build: names must be a tuple of partitions that the labels have",
    ),
    Fault(
        "NaN rows by an update",
        "iteration 1, memory update",
        lambda t: nan_after_update(t, call=1),
        f"term 'plain/infrared' of the {LOSS}became nan",
        TrainingError,
    ),
    Fault(
        "NaN rows by an update",
        "iteration 3, memory update",
        lambda t: nan_after_update(t, call=ITERATIONS),
        MEMORY + "update: .*rows hold NaN or infinite values",
    ),
    contrasting("a vector for a scalar", adding(lambda e: e.main.mean(1)), LOSS + "broke its contract in terms: .*"),
    contrasting("a Python number", adding(lambda e: 1.5), LOSS + "broke its contract in terms: .*"),
    contrasting("a list for terms", lambda terms, _: [*terms.values()], LOSS + "broke its contract in terms: .*"),
    contrasting("the loss raises", raised(IndexError("past the end")), LOSS + "failed in terms: .*"),
    contrasting(
        "NaN in a loss", adding(lambda e: no_number(e.main.sum())), f"term 'spoilt' of the {LOSS}became nan",
        error=TrainingError,
    ),
    contrasting(
        "NaN in the gradient only", adding(lambda e: (e.main * 0).sum().sqrt()),
        f"term 'plain/visible' of the {LOSS}became nan", error=TrainingError,
    ),
    contrasting(
        "NaN in the gradient only", adding(lambda e: (e.main * 0).sum().sqrt()),
        "weights of the encoder became NaN or infinite in epoch 3, though every term was finite",
        call=ITERATIONS, error=TrainingError,
    ),
    contrasting(
        "a detached scalar", adding(lambda e: e.main.mean().detach()),
        "plain: the term 'spoilt' carries no gradient, so it trains nothing", error=None, same="weights",
    ),
    Fault(
        "NaN in the features",
        "encoder, extraction",
        lambda t: embedding(t, no_number, training=False),
        r"features \(main, plain view\) are NaN or infinite for 128 of 128 images",
        TrainingError,
    ),
    Fault(
        "embeddings of another size than declared",
        "encoder, training",
        lambda t: embedding(t, lambda found: found[:, :6], training=True),
        "The encoder must return the embedding 'main' as float .*",
    ),
    Fault(
        "state that is no tensor",
        "state_dict of the memory",
        lambda t: t.patch.setattr(MeanMemory, "state_dict", lambda part: {"count": 3}),
        MEMORY + "state_dict: .*",
    ),
    Fault(
        "a part of another role",
        "making the parts",
        lambda t: t.patch.setattr("toy_parts.PlainContrast", MeanMemory),
        f"The {LOSS}is not a harness.Loss",
    ),
    Fault(
        "an accelerator out of memory (simulated)",
        "iteration 2, step",
        lambda t: t.raising(train.Trainer, "_step", torch.OutOfMemoryError("CUDA out of memory."), call=2),
        r"The memory of cpu ran out \(CUDA out of memory\.\)\. 2 of 3 epochs are kept",
        TrainingError,
    ),
    Fault(
        "the host refuses memory (a tensor of 4 EiB)",
        "iteration 2, memory update",
        lambda t: t.changing(MeanMemory, "update", lambda *_: torch.empty(1 << 60), call=2),
        r"The memory of cpu ran out \(.*can't allocate memory.*2 of 3 epochs are kept",
        TrainingError,
    ),
    Fault(
        "MemoryError",
        "label refiner",
        lambda t: t.raising(Unchanged, "refine", MemoryError()),
        r"The memory of cpu ran out \(MemoryError\)\. 2 of 3 epochs are kept",
        TrainingError,
    ),
]  # fmt: skip
