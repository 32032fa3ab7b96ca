"""Toy training sets: features made, not extracted, with labels as a clusterer would give them.

Shape letters: N images (visible rows first), B images of a batch, D embedding size, K clusters. A toy set knows which
*image* each of its rows shows, so that the same set with its rows in another order, or its clusters under other names,
can be put beside it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import normalize

from harness.contracts import (
    OUTLIER,
    Batch,
    Draw,
    Embeddings,
    Modality,
    Partition,
    PseudoLabels,
    Setup,
    TrainIndex,
    compact,
    follow,
)
from harness.engine.epoch import VIEWS, Epoch, FeatureStore
from harness.engine.randomness import derive_seed, torch_stream

DATASET = "rendered"
"""Options are taken as for this dataset: its sizes are nearest to those of a toy set."""
FORMS = ("modality", "linked", "joint", "both")
"""Forms in which a clusterer may give its labels: each modality alone, with links, joint, or all three partitions."""
EMBEDDINGS = (("main",), ("main", "deep", "shallow"))
"""The embeddings of an encoder with one, and of one with two that are trained and their union."""
PEOPLE, EACH, SIZE = 12, 8, 24
STAGES, STAGE_EPOCHS = 2, 4
INTRA, CROSS, LATE = 0, 4, 7
"""Epochs of a toy run: the first; the first with cross-modality evidence; the last."""

_VISIBLE_CAMERAS, _INFRARED_CAMERAS = (1, 2, 4, 5), (3, 6)
_BATCH = 24  # images of a modality


@dataclass(frozen=True)
class WatchedEpoch(Epoch):
    """The core's epoch, which remembers whether a part drew from its generator."""

    drawn: list[str] = field(default_factory=list)

    @property
    def rng(self) -> np.random.Generator:
        self.drawn.append(self.part)
        return super().rng


@dataclass(frozen=True, eq=False)
class ToySet:
    """N images: ``image [N]`` says which image a row shows; ``features``: [N, D] by (embedding, view)."""

    train: TrainIndex
    image: Tensor
    features: Mapping[tuple[str, str], Tensor]
    labels: PseudoLabels

    @property
    def setup(self) -> Setup:
        """What parts are told when they are made."""
        return Setup(train=self.train, dataset=DATASET, embedding_dims=self.embedding_dims)

    @property
    def embedding_dims(self) -> dict[str, int]:
        """Sizes of the embeddings by name."""
        return {name: features.shape[1] for (name, view), features in self.features.items() if view == "plain"}

    def epoch(self, index: int, *, teacher: bool = False, seed: int = 0) -> WatchedEpoch:
        """Epoch ``index`` of a run of two stages, without and with cross-modality evidence."""
        stage, within = divmod(index, STAGE_EPOCHS)

        def extract(encoder: str, view: str) -> dict[str, Tensor]:
            return {name: self.features[name, view] for name in self.embedding_dims}

        return WatchedEpoch(
            index=index,
            epochs=STAGES * STAGE_EPOCHS,
            stage=("intra", "cross")[stage],
            stage_number=stage,
            stages=STAGES,
            epoch=within,
            stage_epochs=STAGE_EPOCHS,
            cross=stage > 0,
            dataset=DATASET,
            train=self.train,
            seed=seed,
            store=FeatureStore(extract, encoders=("online", "teacher") if teacher else ("online",)),
        )

    def batch(self, draw: Draw, number: int) -> Batch | None:
        """Batch ``number`` of a draw, or None if no image has a label; the same images whatever the order of rows."""
        views = {name: partition.labels for name, partition in self.labels.views(draw).items()}
        row_of_image = self.image.argsort()
        chosen = []
        for kind in Modality:
            mine = self.train.modality == kind
            masks = [(views[name] >= 0) & mine for name in draw.partitions]
            labelled = next((mask for mask in masks if bool(mask.any())), None)
            if labelled is not None:
                rows = row_of_image[labelled[row_of_image]]
                order = torch.randperm(len(rows), generator=torch_stream(number, "batch", *draw.partitions, int(kind)))
                chosen.append(rows[order[:_BATCH].to(rows.device)])
        if not chosen:
            return None
        index = torch.cat(chosen)
        return Batch(
            index=index,
            modality=self.train.modality[index],
            camera=self.train.camera[index],
            view=torch.zeros_like(index),
            labels={name: labels[index] for name, labels in views.items()},
            draw=draw,
            pseudo_labels=self.labels,
        )

    def embeddings(self, batch: Batch, number: int, *, teacher: bool = False) -> Embeddings:
        """Un-normalised embeddings of a batch, as an encoder gives them after some steps; they take gradient."""

        def moved(name: str, scale: float) -> Tensor:
            rows = self.features[name, "plain"][batch.index]
            noise = torch.randn(rows.shape, generator=torch_stream(number, "queries", name, *batch.draw.partitions))
            return scale * (rows + 0.1 * noise.to(rows))

        tensors = {name: moved(name, 3.0).requires_grad_() for name in self.embedding_dims}
        taught = {name: moved(name, 2.0) for name in self.embedding_dims}
        return Embeddings(tensors, teacher=(lambda: taught) if teacher else None)

    def fresh(self) -> ToySet:
        """A copy that shares no tensor with this one."""
        return self._mapped(lambda tensor: tensor.clone())

    def to(self, device: torch.device) -> ToySet:
        """A copy on another device."""
        return self._mapped(lambda tensor: tensor.to(device))

    def _mapped(self, change: Callable[[Tensor], Tensor]) -> ToySet:
        train = TrainIndex(change(self.train.modality), change(self.train.camera))
        given = {name: change(self.labels[name].labels) for name in self.labels.given}
        links = {pair: change(link) for pair, link in self.labels.links.items()}
        features = {name: change(tensor) for name, tensor in self.features.items()}
        return ToySet(train, change(self.image), features, PseudoLabels(train, given, links))

    def with_cameras(self, camera: int) -> ToySet:
        """The same images, all of one camera; −1: of none that is known."""
        train = TrainIndex(self.train.modality, torch.full_like(self.train.camera, camera))
        given = {name: self.labels[name] for name in self.labels.given}
        return replace(self, train=train, labels=PseudoLabels(train, given, self.labels.links))

    def reordered(self) -> ToySet:
        """The same images with the rows of each modality in another order."""
        visible = self.train.num_visible
        generator = torch.Generator().manual_seed(5)
        infrared = visible + torch.randperm(len(self.train) - visible, generator=generator)
        order = torch.cat([torch.randperm(visible, generator=generator), infrared])
        train = TrainIndex(self.train.modality[order], self.train.camera[order])
        given = {name: self.labels[name].labels[order] for name in self.labels.given}
        features = {name: tensor[order] for name, tensor in self.features.items()}
        return ToySet(train, self.image[order], features, PseudoLabels(train, given, self.labels.links))

    def renamed(self) -> ToySet:
        """The same images and clusters, with other ids for the clusters."""
        generator = torch.Generator().manual_seed(6)
        names = {
            name: torch.randperm(self.labels[name].num_clusters, generator=generator) for name in self.labels.given
        }
        given = {name: follow(self.labels[name].labels, names[name]) for name in self.labels.given}
        links = {
            (source, target): follow(link, names[target])[names[source].argsort()]
            for (source, target), link in self.labels.links.items()
        }
        return replace(self, labels=PseudoLabels(self.train, given, links))


def toy_people(*, form: str = "linked", embeddings: tuple[str, ...] = ("main",)) -> ToySet:
    """Well separated people seen in both modalities; every ninth image is an outlier."""
    person = _shuffled_people()
    cluster = torch.where(torch.arange(len(person)) % 9 == 0, OUTLIER, person)
    return _toy_set(person, cluster, form=form, embeddings=embeddings)


def toy_outliers(*, form: str = "linked") -> ToySet:
    """Images that resemble no other, all outliers."""
    person = torch.arange(2 * PEOPLE * EACH)
    return _toy_set(person, torch.full_like(person, OUTLIER), form=form)


def toy_infrared_only(*, form: str = "linked") -> ToySet:
    """People of whom only infrared images are in clusters; all visible ones are outliers."""
    person = _shuffled_people()
    visible = torch.arange(len(person)) < len(person) // 2
    return _toy_set(person, torch.where(visible, OUTLIER, person), form=form)


def toy_one_cluster(*, form: str = "linked") -> ToySet:
    """One person, one cluster."""
    person = torch.zeros(2 * PEOPLE * EACH, dtype=torch.int64)
    return _toy_set(person, person, form=form)


def toy_apart(*, form: str = "linked") -> ToySet:
    """People seen in one modality only, so that no cluster has images of both and no cluster is linked."""
    person = _shuffled_people()
    person = torch.where(torch.arange(len(person)) < len(person) // 2, person, person + PEOPLE)
    return _toy_set(person, person, form=form)


def toy_singletons(*, form: str = "linked") -> ToySet:
    """Every image is a cluster of its own."""
    person = torch.arange(2 * PEOPLE * EACH)
    return _toy_set(person, person, form=form)


def _shuffled_people() -> Tensor:
    people = torch.arange(PEOPLE).repeat_interleave(EACH)
    generator = torch.Generator().manual_seed(1)
    # Shuffled: the order of the images must not tell who is who.
    return torch.cat([people[torch.randperm(len(people), generator=generator)] for _ in Modality])


def _toy_set(person_N: Tensor, cluster_N: Tensor, *, form: str, embeddings: tuple[str, ...] = ("main",)) -> ToySet:
    count = len(person_N) // 2
    visible_cameras, infrared_cameras = torch.tensor(_VISIBLE_CAMERAS), torch.tensor(_INFRARED_CAMERAS)
    number = torch.arange(count)
    train = TrainIndex(
        torch.cat([torch.zeros_like(number), torch.ones_like(number)]),
        torch.cat([visible_cameras[number % 4], infrared_cameras[number % 2]]),
    )
    features = {(name, view): _features(person_N, train, name, view=view) for name in embeddings for view in VIEWS}
    return ToySet(train, torch.arange(2 * count), features, _labels(train, cluster_N, form=form))


def _features(person_N: Tensor, train: TrainIndex, embedding: str, *, view: str) -> Tensor:
    generator = torch.Generator().manual_seed(derive_seed(0, embedding))
    centres = normalize(torch.randn(int(person_N.max()) + 1, SIZE, generator=generator), dim=1)
    rows = centres[person_N] + 0.06 * torch.randn(len(person_N), SIZE, generator=generator)
    rows[:, 0] += torch.where(train.visible, 0.1, -0.1)
    if view != "plain":
        coloured = torch.Generator().manual_seed(derive_seed(0, embedding, view))
        rows = torch.where(train.visible[:, None], rows + 0.03 * torch.randn(rows.shape, generator=coloured), rows)
    return normalize(rows, dim=1)


def _labels(train: TrainIndex, cluster_N: Tensor, *, form: str) -> PseudoLabels:
    joint, _ = compact(cluster_N)
    visible, _ = compact(torch.where(train.visible, joint, OUTLIER))
    infrared, _ = compact(torch.where(train.infrared, joint, OUTLIER))
    apart, whole = {"visible": visible, "infrared": infrared}, {"joint": joint}
    if form == "joint":
        return PseudoLabels(train, whole)
    if form == "both":
        return PseudoLabels(train, {**apart, **whole})
    if form == "modality":
        return PseudoLabels(train, apart)
    links = {
        ("visible", "infrared"): _link(joint, visible, infrared),
        ("infrared", "visible"): _link(joint, infrared, visible),
    }
    return PseudoLabels(train, apart, links)


def _link(joint_N: Tensor, source_N: Tensor, target_N: Tensor) -> Tensor:
    """The cluster of ``target`` that shares its joint cluster with each of ``source``: int64 [K_source], −1 = none."""
    total = Partition(joint_N).num_clusters
    target_of_joint = torch.full((total,), OUTLIER, dtype=torch.int64)
    target_of_joint[joint_N[target_N >= 0]] = target_N[target_N >= 0]
    link = torch.full((Partition(source_N).num_clusters,), OUTLIER, dtype=torch.int64)
    link[source_N[source_N >= 0]] = target_of_joint[joint_N[source_N >= 0]]
    return link
