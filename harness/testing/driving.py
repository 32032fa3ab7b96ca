"""A part at work on a toy set, called as the engine calls it; what it hands over is checked and kept.

Names under which values are kept begin with ``epoch N``. A value under ``.../same/...`` does not depend on the order of
the images nor on the names of clusters, unless the part does.

Shape letters: N images, B images of a batch, K clusters, M rows of a bank, D embedding size.
"""

from __future__ import annotations

import io
from abc import ABC, abstractmethod
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor

from harness.contracts import Batch, Embeddings, Memory, Partition, PseudoLabels, follow
from harness.contrast import contrast
from harness.engine.midway import put_back, random_states, seed_all, set_random_states, snapshot
from harness.engine.objective import Working, blame, objective
from harness.engine.randomness import derive_seed
from harness.engine.seam import check_memory, check_state, checked_labels
from harness.errors import ContractError
from harness.plugins import Chosen
from harness.providers import Options
from harness.testing.cases import ToySet, WatchedEpoch
from harness.testing.identities import walk
from harness.testing.plain import PlainMemory

STEPS = 2
"""Iterations of a toy epoch."""
SAME = "/same/"


class Driven(ABC):
    """One part on one toy set. ``found``: what it handed over, by name. ``guarded``: watch for changes in place."""

    def __init__(self, chosen: Chosen, toys: ToySet, *, guarded: bool = False) -> None:
        self.toys = toys.fresh()
        self.working: Working[Any] = Working(chosen, chosen.make(self.toys.setup))
        self.teacher = "teacher" in chosen.provider.needs
        self.guarded = guarded
        self.found: dict[str, Tensor] = {}
        self.drew = False

    @property
    def parts(self) -> tuple[Any, ...]:
        """The part, and those beside it that change within an epoch."""
        return (self.working.part,)

    def epoch(self, index: int, *, first: int = 0) -> None:
        """Begin epoch ``index`` and go through its iterations."""
        self.begin(index)
        for number in range(first, STEPS):
            self.step(number)

    def begin(self, index: int) -> None:
        """What comes before an epoch's iterations."""
        seed_all(derive_seed(0, "torch", index))
        self.where = f"epoch {index}"
        watched = self.toys.epoch(index, teacher=self.teacher)
        self.context: WatchedEpoch = watched.bound_to(self.working.chosen.name)  # type: ignore[assignment]
        self._begin()
        watched.store.close()

    def step(self, number: int) -> None:
        """Iteration ``number``: one batch of every draw."""
        for draw in self.toys.labels.draws:
            batch = self.toys.batch(draw, number)
            if batch is not None:
                where, self.where = self.where, f"{self.where}/step {number} of {'+'.join(draw.partitions)}"
                self._step(batch, self.toys.embeddings(batch, number, teacher=self.teacher))
                self.where = where
        self.drew |= self.working.chosen.name in self.context.drawn

    def state(self) -> Any:
        """What a checkpoint at the end of an epoch keeps, written and read."""
        with blame(self.working, "state_dict"):
            state = self.working.part.state_dict()
            check_state(state)
        return _written_and_read(state)

    def midway(self) -> Any:
        """What a checkpoint between two iterations keeps, written and read."""
        with blame(self.working, "changing"):
            return _written_and_read({"parts": [snapshot(part) for part in self.parts], "random": random_states()})

    def go_on(self, midway: Any) -> None:
        """Take back :meth:`midway` in an epoch that has begun."""
        with blame(self.working, "changing"), torch.no_grad():
            for part, taken in zip(self.parts, midway["parts"], strict=True):
                put_back(part, taken)
        set_random_states(midway["random"])

    @abstractmethod
    def _begin(self) -> None: ...

    def _step(self, batch: Batch, embeddings: Embeddings) -> None:
        return None

    def _keep(self, name: str, value: Tensor) -> None:
        expected = self.toys.train.modality.device
        if value.device != expected:
            raise ContractError(f"The {self.working.label}: {name} is on {value.device}; expected {expected}.")
        self.found[f"{self.where}/{name}"] = value.detach().clone()

    @contextmanager
    def _calling(self, call: str, **handed: Any) -> Iterator[None]:
        before = _tensors({**handed, "setup": self.toys.setup}) if self.guarded else []
        with blame(self.working, call):
            yield
        for path, tensor, copy in before:
            if not torch.equal(tensor, copy):
                raise ContractError(
                    f"The {self.working.label} changed in place, in {call}, what it was handed: {path}. Work on a copy."
                )

    def _keep_labels(self, labels: PseudoLabels) -> None:
        order, image_N = self.toys.image.argsort(), self.toys.image
        first = {name: _first_images(labels[name], image_N) for name in labels.available}
        for name in labels.given:
            ids_N = labels[name].labels
            self._keep(f"labels/{name}", ids_N)
            self._keep(f"same/labels/{name}", follow(ids_N, first[name])[order])
        for (source, target), link_K in labels.links.items():
            self._keep(f"links/{source}>{target}", link_K)
            carried_N = follow(labels[source].labels, link_K)
            self._keep(f"same/links/{source}>{target}", follow(carried_N, first[target])[order])


class DrivenClusterer(Driven):
    """Clusters once per epoch."""

    def _begin(self) -> None:
        with self._calling("cluster", epoch=self.context):
            labels = checked_labels(self.working.part.cluster(self.context), self.toys.train)
        self._keep_labels(labels)


class DrivenRefiner(Driven):
    """Refines the toy set's labels once per epoch."""

    def _begin(self) -> None:
        labels = self.toys.labels
        with self._calling("refine", epoch=self.context, labels=labels):
            refined = checked_labels(self.working.part.refine(self.context, labels), self.toys.train)
        self._keep_labels(refined)


class DrivenMemory(Driven):
    """Builds banks of the toy set's labels, answers a plain contrast and takes in the batches."""

    def _begin(self) -> None:
        labels = self.toys.labels
        with self._calling("build", epoch=self.context, labels=labels):
            self.working.part.build(self.context, labels)
        self._keep_banks()

    def _step(self, batch: Batch, embeddings: Embeddings) -> None:
        memory = self.working.part
        with blame(self.working, "bank"):
            values = [
                contrast(memory.bank(name, embedding=embedding), embeddings.unit(embedding), ids_B, temperature=0.1)
                for name, ids_B in batch.labels.items()
                if name in memory.names
                for embedding in self.toys.embedding_dims
            ]
            total = sum(value for value in values if value is not None)
            if isinstance(total, Tensor):
                total.backward()  # type: ignore[no-untyped-call]
                self._keep("similarities", total)
        with torch.no_grad(), self._calling("update", batch=batch, embeddings=embeddings):
            memory.update(batch, embeddings.detach())
        self._keep_banks()

    def _keep_banks(self) -> None:
        memory: Memory = self.working.part
        labels = self.toys.labels
        with blame(self.working, "bank"):
            check_memory(memory, labels, self.toys.embedding_dims)
            for name in memory.names:
                first_K = _first_images(labels[name], self.toys.image)
                for embedding in self.toys.embedding_dims:
                    bank = memory.bank(name, embedding=embedding)
                    self._keep(f"bank/{name}/{embedding}", bank.vectors)
                    sums = bank.vectors.new_zeros(len(first_K) + 1, bank.vectors.shape[1])
                    sums.index_add_(0, bank.cluster + 1, bank.vectors)
                    self._keep(f"same/bank/{name}/{embedding}", sums[1:][first_K.argsort()])
                instances = memory.instances(name)
                if instances is not None:
                    self._keep(f"instances/{name}", instances.vectors)


class DrivenLoss(Driven):
    """Gives terms on the toy set's batches beside a plain memory, and takes them in."""

    def __init__(self, chosen: Chosen, toys: ToySet, *, guarded: bool = False) -> None:
        super().__init__(chosen, toys, guarded=guarded)
        self.memory = PlainMemory(Options(), self.toys.setup)

    @property
    def parts(self) -> tuple[Any, ...]:
        return self.working.part, self.memory

    def _begin(self) -> None:
        labels, loss = self.toys.labels, self.working.part
        self.memory.build(self.context, labels)
        with self._calling("begin", epoch=self.context, labels=labels, memory=self.memory):
            loss.begin(self.context, labels, self.memory)

    def _step(self, batch: Batch, embeddings: Embeddings) -> None:
        with self._calling("terms", batch=batch, embeddings=embeddings, memory=self.memory, epoch=self.context):
            total, values = objective([self.working], batch, embeddings, self.memory, self.context)
        for name, value in values.items():
            self._keep(f"same/terms/{name}", value)
        if total is not None:
            self._require_finite_gradient(total, embeddings)
        self.memory.update(batch, embeddings.detach())
        with torch.no_grad(), self._calling("update", batch=batch, embeddings=embeddings):
            self.working.part.update(batch, embeddings.detach())

    def _require_finite_gradient(self, total: Tensor, embeddings: Embeddings) -> None:
        with blame(self.working, "terms"):
            total.backward()  # type: ignore[no-untyped-call]
        for name, tensor in embeddings.items():
            if tensor.grad is not None:
                if not bool(torch.isfinite(tensor.grad).all()):
                    raise ContractError(
                        f"The gradient of the {self.working.label} is NaN or infinite, though its terms are finite "
                        f"(embedding {name!r})."
                    )
                self._keep(f"same/gradient/{name}", tensor.grad)


DRIVERS: dict[str, type[Driven]] = {
    "clusterer": DrivenClusterer,
    "label refiner": DrivenRefiner,
    "memory": DrivenMemory,
    "loss": DrivenLoss,
}


def _first_images(partition: Partition, image_N: Tensor) -> Tensor:
    """The lowest image of every cluster: a name for it that does not depend on ids nor on rows. int64 [K]."""
    chosen = partition.labels >= 0
    found = torch.full((partition.num_clusters,), len(image_N), dtype=torch.int64, device=image_N.device)
    return found.scatter_reduce(0, partition.labels[chosen], image_N[chosen], reduce="amin")


def _tensors(handed: dict[str, Any]) -> list[tuple[str, Tensor, Tensor]]:
    seen: dict[int, Any] = {}
    reached = [pair for name, value in handed.items() for pair in walk(value, name, seen=seen)]
    return [(path, value, value.detach().clone()) for path, value in reached if isinstance(value, Tensor)]


def _written_and_read(state: Any) -> Any:
    file = io.BytesIO()
    torch.save(state, file)
    file.seek(0)
    return torch.load(file, weights_only=True)
