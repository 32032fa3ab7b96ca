"""A toy method: an encoder of one layer, clusters by index, mean prototypes, plain contrast.

It trains an epoch in a tenth of a second, and its options make it misbehave on request.
"""

from __future__ import annotations

import os
import signal
from pathlib import Path
from typing import Any

import torch
from pydantic import Field
from torch import Tensor, nn
from torch.nn.functional import normalize

from harness import (
    BackboneProvider,
    ClustererProvider,
    LabelRefinerProvider,
    LossProvider,
    MemoryProvider,
    Options,
    PluginCard,
    Recipe,
    Stage,
    hookimpl,
)
from harness.contracts import Bank, Clusterer, Draw, LabelRefiner, Loss, Memory, PseudoLabels
from harness.contrast import contrast
from harness.plugins import Catalogue
from harness.settings import Settings, make_settings, merge


class ToyEncoder(nn.Module):
    input_size = (16, 8)

    def __init__(self, seed: int) -> None:
        super().__init__()
        self.embedding_dims = {"main": 12}
        self.layer = nn.Conv2d(3, 12, 4, stride=4)
        self.norm = nn.BatchNorm1d(12)
        with torch.no_grad():
            for parameter in self.layer.parameters():
                parameter.copy_(torch.randn(parameter.shape, generator=torch.Generator().manual_seed(seed)) / 7)

    def forward(self, images: Tensor, modality: Tensor) -> dict[str, Tensor]:
        return {"main": self.norm(self.layer(images).relu().mean(dim=(2, 3)))}


def encoder(options: Options, seed: int) -> ToyEncoder:
    return ToyEncoder(seed)


class Killable(Options):
    """``kill``: "HOOK:EPOCH:CALL"; the process kills itself there unless the marker file exists already."""

    kill: str = ""
    marker: str = ""


class Counting:
    """Kills the process at a given call of a hook in a given epoch, once."""

    def reach(self, options: Any, hook: str, epoch: int) -> None:
        self.calls = getattr(self, "calls", {})
        self.calls[hook, epoch] = self.calls.get((hook, epoch), 0) + 1
        if options.kill == f"{hook}:{epoch}:{self.calls[hook, epoch]}" and not Path(options.marker).exists():
            Path(options.marker).touch()
            os.kill(os.getpid(), signal.SIGKILL)


class ClusterOptions(Killable):
    clusters: int = Field(6, ge=1, description="Clusters of each modality.")
    form: str = Field("modality", description="modality, linked or joint.")
    fault: str = Field("", description="What goes wrong.")
    outlier_epochs: tuple[int, ...] = Field((), description="Epochs in which every image is an outlier.")


class IndexClusterer(Counting, Clusterer):
    """Cluster = row modulo the number of clusters; the features are asked for, and shift it by their sign."""

    options: ClusterOptions

    def cluster(self, epoch):
        self.reach(self.options, "cluster", epoch.index)
        features = epoch.features()
        train, count = epoch.train, self.options.clusters
        rows = torch.arange(len(train))
        labels = (rows + int(features[0, 0] > 0)) % count
        if epoch.index in self.options.outlier_epochs:
            labels = torch.full_like(labels, -1)
        return self._spoiled(epoch, labels)

    def _spoiled(self, epoch, labels):
        train, fault = epoch.train, self.options.fault
        if fault == "list":
            return labels.tolist()
        if fault == "raises":
            raise ValueError("nothing fits")
        if fault == "int32":
            labels = labels.int()
        if fault == "short":
            labels = labels[:-1]
        if fault == "gap":
            labels = labels * 2
        if fault == "draw":
            return PseudoLabels(train, {"joint": labels}, draws=(Draw(("nowhere",)),))
        if fault == "teacher":
            epoch.features(encoder="teacher")
        if fault == "view":
            epoch.features(view="sepia")
        if self.options.form == "joint" or fault in ("int32", "short", "gap"):
            return PseudoLabels(train, {"joint": labels})
        visible, infrared = torch.where(train.visible, labels, -1), torch.where(train.infrared, labels, -1)
        links = {("visible", "infrared"): torch.arange(int(visible.max()) + 1)}
        return PseudoLabels(
            train, {"visible": visible, "infrared": infrared}, links if self.options.form == "linked" else None
        )


class Unchanged(LabelRefiner):
    """Leaves the labels as they are."""

    def refine(self, epoch, labels):
        return labels


class MeanMemory(Counting, Memory):
    """Mean of each cluster; an update moves prototypes to the last query."""

    changing = ("banks",)

    def build(self, epoch, labels):
        self.reach(self.options, "build", epoch.index)
        self.epoch, features = epoch.index, epoch.features()
        self.banks = {}
        for name in labels.available:
            partition = labels[name]
            sums = torch.zeros(partition.num_clusters, features.shape[1])
            chosen = partition.labels >= 0
            sums.index_add_(0, partition.labels[chosen], features[chosen])
            self.banks[name] = normalize(sums, dim=1)

    @property
    def names(self):
        return tuple(self.banks)

    def bank(self, name, *, embedding="main"):
        return Bank.of_centroids(self.banks[name])

    def update(self, batch, embeddings):
        self.reach(self.options, "update", self.epoch)
        for name, labels in batch.labels.items():
            bank = self.banks[name].clone()
            chosen = labels >= 0
            bank[labels[chosen]] = embeddings.unit()[chosen]
            self.banks[name] = bank


class LossOptions(Killable):
    fault: str = Field("", description="What goes wrong.")
    from_epoch: int = Field(0, description="When it goes wrong first.")


class PlainContrast(Counting, Loss):
    options: LossOptions

    def terms(self, batch, embeddings, memory, epoch):
        self.reach(self.options, "terms", epoch.index)
        terms = {}
        for name in batch.draw.partitions:
            value = contrast(memory.bank(name), embeddings.unit(), batch.labels[name], temperature=0.5)
            if value is not None:
                terms[f"plain/{name}"] = value
        return self._spoiled(terms, embeddings, epoch) if epoch.index >= self.options.from_epoch else terms

    def _spoiled(self, terms, embeddings, epoch):
        fault = self.options.fault
        spoilt = {
            "vector": embeddings.main.mean(dim=1),
            "nan": embeddings.main.sum() * float("nan"),
            "infinite": embeddings.main.sum().abs() + float("inf"),
            "float": 1.5,
            "nan gradient": (embeddings.main * 0).sum().sqrt(),
        }
        if fault == "raises":
            raise IndexError("past the end")
        if fault == "list":
            return list(terms.values())
        if fault == "late features":
            epoch.features(view="red")
        return {**terms, "spoilt": spoilt[fault]} if fault in spoilt else terms


TOY_RECIPE = Recipe(
    stages=(Stage(name="intra", epochs=2, iterations=2, cross=False), Stage(name="cross", epochs=2, iterations=2)),
    backbone="toy",
    visible_clusters=4,
    infrared_clusters=4,
    instances=2,
    visible_views=("rendered-visible",),
    infrared_views=("rendered-infrared",),
    learning_rate=0.01,
    schedule="cosine",
)

TOY_BACKBONE = BackboneProvider("toy", "toy_parts:encoder", "One layer.")


class Toy:
    """The toy method; stands in the baseline's place in a catalogue of its own."""

    @hookimpl
    def harness_plugin():
        return PluginCard("A toy.", "method")

    @hookimpl
    def harness_clusterers():
        yield ClustererProvider("by-index", "toy_parts:IndexClusterer", "By index.", ClusterOptions)

    @hookimpl
    def harness_memories():
        yield MemoryProvider("means", "toy_parts:MeanMemory", "Means.", Killable)

    @hookimpl
    def harness_losses():
        yield LossProvider("plain", "toy_parts:PlainContrast", "Contrast.", LossOptions)

    @hookimpl
    def harness_backbones():
        yield TOY_BACKBONE

    @hookimpl
    def harness_recipe(dataset):
        return TOY_RECIPE


class Steady:
    """A part beside the toy: a label refiner that changes nothing."""

    @hookimpl
    def harness_plugin():
        return PluginCard("A refiner that changes nothing.", "part")

    @hookimpl
    def harness_label_refiners():
        yield LabelRefinerProvider("steady", "toy_parts:Unchanged", "Nothing is changed.")


def toy_catalogue(**extra: Any) -> Catalogue:
    """The toy as the baseline, and plugins of the test's own."""
    return Catalogue(points=[], extra={"baseline": Toy, **extra})


def toy_settings(**values: Any) -> Settings:
    """Settings of a run on the tiny dataset, on one thread."""
    ground = {
        "name": "toy",
        "plugins": ("baseline",),
        "data": {"size": "tiny"},
        "compute": {"threads": 1, "device": "cpu", "precision": "fp32"},
    }
    return make_settings(merge(ground, values))


class Silent:
    """Keeps what a run tells its user."""

    def __init__(self) -> None:
        self.warnings: list[str] = []
        self.resumed_at: int | None = None
        self.rows: list[dict[str, Any]] = []
        self.worked: set[str] = set()

    def started(self, plan, dataset, folder, *, resumed_at, iterations):
        self.resumed_at, self.iterations = resumed_at, iterations

    def progress(self, what, done, total):
        return None

    def work(self, what, done, total):
        self.worked.add(what)

    def step(self, epoch, epochs, step, steps):
        return None

    def epoch(self, report, row, *, epochs, images_per_s):
        self.rows.append(row)

    def warned(self, message):
        self.warnings.append(message)

    def profiled(self, rows, trace):
        self.profile = rows, trace

    def lost(self, message):
        print(message, flush=True)

    def finished(self, record, folder):
        return None
