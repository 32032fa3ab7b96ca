"""No path leads from anything a part is handed to the identities of the images."""

from __future__ import annotations

import gc
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from harness import ClustererProvider, LabelRefinerProvider, LossProvider, MemoryProvider, PluginCard, hookimpl
from harness.contracts import LabelRefiner
from harness.data.sysu_mm01 import read_sysu_mm01
from harness.testing.identities import Walk
from toy_parts import IndexClusterer, MeanMemory, PlainContrast, Toy, toy_catalogue

WALK: list[Walk] = []
HANDED: set[str] = set()


def handed(part: Any, **values: Any) -> None:
    for name, value in {"part": part, **values}.items():
        HANDED.add(name)
        WALK[-1](value, f"{type(part).__name__}:{name}")


class SpyClusterer(IndexClusterer):
    def __init__(self, options, setup):
        super().__init__(options, setup)
        handed(self, setup=setup, options=options)

    def cluster(self, epoch):
        for view in ("plain", "red"):
            features = epoch.features(view=view)
            handed(self, features=features)
        handed(self, epoch=epoch, rng=epoch.rng, bound=epoch.features)
        return super().cluster(epoch)


class SpyRefiner(LabelRefiner):
    def refine(self, epoch, labels):
        handed(self, epoch=epoch, labels=labels)
        return labels


class SpyMemory(MeanMemory):
    def build(self, epoch, labels):
        super().build(epoch, labels)
        handed(self, epoch=epoch, labels=labels)

    def update(self, batch, embeddings):
        handed(self, batch=batch, embeddings=embeddings)
        super().update(batch, embeddings)


class SpyLoss(PlainContrast):
    def terms(self, batch, embeddings, memory, epoch):
        handed(self, batch=batch, embeddings=embeddings, memory=memory, epoch=epoch)
        return super().terms(batch, embeddings, memory, epoch)


def spy_transform(options):
    def transform(images, modality):
        handed(transform, images=images, modality=modality)
        return images

    return transform


class Spy(Toy):
    @hookimpl
    def harness_plugin():
        return PluginCard("Looks at everything.", "method")

    @hookimpl
    def harness_clusterers():
        (toy,) = Toy.harness_clusterers()
        yield ClustererProvider("spy-c", f"{__name__}:SpyClusterer", "", toy.options)

    @hookimpl
    def harness_label_refiners():
        yield LabelRefinerProvider("spy-r", f"{__name__}:SpyRefiner", "")

    @hookimpl
    def harness_memories():
        (toy,) = Toy.harness_memories()
        yield MemoryProvider("spy-m", f"{__name__}:SpyMemory", "", toy.options, needs=("teacher",))

    @hookimpl
    def harness_losses():
        (toy,) = Toy.harness_losses()
        yield LossProvider("spy-l", f"{__name__}:SpyLoss", "", toy.options)


@pytest.fixture
def secrets(tiny: Path) -> list[np.ndarray]:
    train, test = (read_sysu_mm01(tiny, split=split) for split in ("train", "test"))
    found = [train.identity, test.identity]
    return found + [train.identity[train.modality == code] for code in (0, 1)]


def test_the_walk_finds_what_is_planted(secrets, tiny: Path) -> None:
    identity = secrets[0]
    manifest = read_sysu_mm01(tiny, split="train")
    renamed = torch.as_tensor(identity) * 7 + 3

    class Slotted:
        __slots__ = ("hidden",)

    slotted = Slotted()
    slotted.hidden = {"deep": [identity]}
    secret_path = manifest.paths[0]

    def counting():
        held = renamed
        yield len(held)

    begun = counting()
    next(begun)
    planted = {
        "array": identity,
        "tensor": renamed,
        "list": identity.tolist(),
        "slots": slotted,
        "closure": lambda: renamed,
        "bound method": manifest.file,
        "path": lambda: secret_path,
        "column": torch.stack([renamed, renamed * 0], 1),
        "generator": begun,
        "embedding": torch.nn.ParameterDict({"x": torch.nn.Parameter(renamed.float())}),
    }
    for name, value in planted.items():
        walk = Walk(secrets)
        walk(value, name)
        assert walk.leaks, name
    walk = Walk(secrets)
    walk({"random": torch.randperm(len(identity)), "modality": manifest.modality, "camera": manifest.camera}, "")
    assert walk.leaks == []


@pytest.mark.parametrize("form", ["modality", "linked", "joint"])
def test_nothing_handed_to_a_part_leads_to_the_identities(run, secrets, form: str) -> None:
    WALK.append(Walk(secrets))
    HANDED.clear()
    run(plugins=["spy"], catalogue=toy_catalogue(spy=Spy), options={"spy-c": {"form": form}}, evaluation={"every": 1})
    assert {"setup", "epoch", "bound", "features", "labels", "batch", "embeddings", "memory", "part"} <= HANDED
    assert len(WALK[-1].seen) > 500
    assert WALK[-1].leaks == []


def test_nothing_leads_to_the_run_that_holds_them(run, secrets, monkeypatch) -> None:
    """The trainer, the manifest and the run itself are out of reach, whatever they hold."""
    WALK.append(Walk(secrets))
    run(plugins=["spy"], catalogue=toy_catalogue(spy=Spy))
    reached = {type(value).__name__ for value in WALK[-1].seen.values()}
    assert not reached & {"Manifest", "Dataset", "Trainer", "_Run", "TestSet", "Plan", "Record", "RunFolder"}
    gc.collect()
