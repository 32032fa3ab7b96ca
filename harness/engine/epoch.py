"""The core's implementation of what a part may ask about an epoch."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace

import numpy as np
from torch import Tensor

from harness.contracts import EpochContext, TrainIndex
from harness.engine.randomness import numpy_stream
from harness.engine.search import NeighbourSearch
from harness.errors import ContractError

Extract = Callable[[str, str], dict[str, Tensor]]
"""``(encoder, view) -> {embedding: features [N, D]}``."""

VIEWS = ("plain", "red", "green", "blue")


class FeatureStore:
    """Features of the training images as the epoch began, extracted on first request and kept."""

    def __init__(self, extract: Extract, *, encoders: tuple[str, ...]) -> None:
        self._extract = extract
        self._encoders = encoders
        self._kept: dict[tuple[str, str], dict[str, Tensor]] = {}
        self._closed = False

    def get(self, encoder: str, embedding: str, view: str) -> Tensor:
        """The features [N, D]. Raises ContractError for unknown names or a request that comes too late."""
        if encoder not in self._encoders:
            raise ContractError(
                f"there is no encoder {encoder!r} in this run (there is: {', '.join(self._encoders)}). A part that "
                "needs the teacher says so with needs=('teacher',) in its provider."
            )
        if view not in VIEWS:
            raise ContractError(f"there is no view {view!r}; views are {', '.join(VIEWS)}.")
        if (encoder, view) not in self._kept:
            if self._closed:
                raise ContractError(
                    f"features ({encoder}, {view}) were first asked for after the epoch's training had begun; "
                    "ask in cluster, refine or build."
                )
            self._kept[encoder, view] = self._extract(encoder, view)
        found = self._kept[encoder, view]
        if embedding not in found:
            raise ContractError(f"the encoder has no embedding {embedding!r}; it has {', '.join(found)}.")
        return found[embedding].clone()

    def close(self) -> None:
        """Training begins: what was not extracted cannot be had any more this epoch."""
        self._closed = True


@dataclass(frozen=True)
class Epoch(EpochContext):
    """One epoch as seen by one part; :meth:`bound_to` gives each part its own random stream."""

    index: int
    epochs: int
    stage: str
    stage_number: int
    stages: int
    epoch: int
    stage_epochs: int
    cross: bool
    dataset: str
    train: TrainIndex
    seed: int
    store: FeatureStore
    search: NeighbourSearch = field(default_factory=NeighbourSearch)
    part: str = ""
    notes: list[str] = field(default_factory=list)

    def bound_to(self, part: str) -> Epoch:
        """The same epoch for the part called ``part``."""
        return replace(self, part=part)

    @property
    def rng(self) -> np.random.Generator:
        return numpy_stream(self.seed, "part", self.part, "epoch", self.index)

    def features(self, *, encoder: str = "online", embedding: str = "main", view: str = "plain") -> Tensor:
        return self.store.get(encoder, embedding, view)

    def neighbours(self, features_ND: Tensor, k: int) -> Tensor:
        return self.search(features_ND, k)

    def note(self, text: str) -> None:
        note = f"{self.part}: {text}"
        if note not in self.notes:
            self.notes.append(note)
