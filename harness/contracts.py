"""The four roles and the values that parts exchange.

Shape letters: N training images (visible rows first, then infrared), B images of a batch, D embedding size, K clusters
of a partition, M rows of a bank. Indices and labels are int64, features float32, all on the device of the run. An
image's row is its *global index*, everywhere. Ground-truth identities are reachable from none of these values.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from enum import IntEnum
from typing import Any, ClassVar

import numpy as np
import torch
from scipy.sparse import coo_matrix
from scipy.sparse.csgraph import connected_components
from torch import Tensor
from torch.nn.functional import normalize

from harness.errors import ContractError

OUTLIER = -1
"""The label of an image that belongs to no cluster, or that is out of a partition's scope."""


class Modality(IntEnum):
    """Codes used in every ``modality`` tensor."""

    VISIBLE = 0
    INFRARED = 1


class BankKind(IntEnum):
    """What a row of a bank stands for."""

    CENTROID = 0
    HARD = 1
    DYNAMIC = 2
    SUB_CENTRE = 3
    INSTANCE = 4


@dataclass(frozen=True, slots=True, eq=False)
class TrainIndex:
    """All that a plugin may know of the N training images: ``modality [N]``, ``camera [N]`` (as numbered on disk).

    >>> train = TrainIndex(modality=torch.tensor([0, 0, 1]), camera=torch.tensor([1, 4, 3]))
    >>> len(train), train.num_visible, train.infrared.tolist()
    (3, 2, [False, False, True])
    """

    modality: Tensor
    camera: Tensor

    def __len__(self) -> int:
        return self.modality.numel()

    @property
    def visible(self) -> Tensor:
        """Boolean mask [N] of the visible rows."""
        return self.modality == Modality.VISIBLE

    @property
    def infrared(self) -> Tensor:
        """Boolean mask [N] of the infrared rows."""
        return self.modality == Modality.INFRARED

    @property
    def num_visible(self) -> int:
        """Number of visible images; rows ``[:num_visible]`` are visible, the rest infrared."""
        return int(self.visible.sum())


@dataclass(frozen=True, slots=True, eq=False)
class Partition:
    """A labelling of all N images: ``labels [N]``, consecutive ids from 0, −1 = outlier or out of scope.

    Raises ContractError if the labels are not such.

    >>> partition = Partition(torch.tensor([0, 1, 1, -1]))
    >>> partition.num_clusters, partition.sizes.tolist()
    (2, [1, 2])
    """

    labels: Tensor
    num_clusters: int = field(init=False)

    def __post_init__(self) -> None:
        labels = self.labels
        if not isinstance(labels, Tensor) or labels.dtype != torch.int64 or labels.ndim != 1:
            got = (
                f"{labels.dtype} of shape {tuple(labels.shape)}"
                if isinstance(labels, Tensor)
                else type(labels).__name__
            )
            raise ContractError(
                f"labels must be a one-dimensional int64 tensor, one entry per training image; got {got}."
            )
        count = int(labels.max()) + 1 if labels.numel() else 0
        if labels.numel() and int(labels.min()) < OUTLIER:
            raise ContractError(f"labels must be cluster ids from 0, or -1; got {int(labels.min())}.")
        if count and int(torch.bincount(labels[labels >= 0], minlength=count).min()) == 0:
            raise ContractError("cluster ids must be consecutive from 0: some id has no image. Use compact(labels).")
        object.__setattr__(self, "num_clusters", max(count, 0))

    @property
    def sizes(self) -> Tensor:
        """Images per cluster, int64 [K]."""
        return torch.bincount(self.labels[self.labels >= 0], minlength=self.num_clusters)


def compact(labels: Tensor, *, min_size: int = 1) -> tuple[Tensor, Tensor]:
    """Renumber labels consecutively in the order of the old ids, dissolving clusters of fewer than ``min_size`` images.

    ``labels`` int64 [N]. Returns (labels [N], old_to_new [largest old id + 1], −1 where dissolved).

    >>> labels, old_to_new = compact(torch.tensor([4, 4, 2, -1]), min_size=2)
    >>> labels.tolist(), old_to_new.tolist()
    ([0, 0, -1, -1], [-1, -1, -1, -1, 0])
    """
    size = int(labels.max()) + 1 if labels.numel() else 0
    counts = torch.bincount(labels[labels >= 0], minlength=max(size, 0))
    kept = counts >= max(1, min_size)
    old_to_new = torch.where(kept, torch.cumsum(kept, 0) - 1, OUTLIER)
    return follow(labels, old_to_new), old_to_new


def follow(labels: Tensor, mapping: Tensor) -> Tensor:
    """Map labels [..] through ``mapping`` [K]; −1 stays −1.

    >>> follow(torch.tensor([0, 1, -1]), torch.tensor([5, -1])).tolist()
    [5, -1, -1]
    """
    if mapping.numel() == 0:
        return torch.full_like(labels, OUTLIER)
    return torch.where(labels >= 0, mapping[labels.clamp(min=0)], OUTLIER)


@dataclass(frozen=True, slots=True)
class Draw:
    """One batch per iteration, drawn from these partitions; a modality's images come from the first that labels any.

    >>> Draw(("visible", "infrared")).partitions
    ('visible', 'infrared')
    """

    partitions: tuple[str, ...]


Links = Mapping[tuple[str, str], Tensor]


class PseudoLabels:
    """Named partitions of the training images, and links between their clusters.

    ``partitions``: ``"visible"``, ``"infrared"``, ``"joint"``, or names of a plugin's own; values are Partition or
    labels [N]. ``links``: ``(source, target) -> [K_source]`` cluster of the target partition, −1 = none.

    What was not given is derived on request: ``"visible"`` and ``"infrared"`` as the restrictions of ``"joint"``,
    linked through it; ``"joint"`` as the union of ``"visible"`` and ``"infrared"`` clusters connected by links.
    ``labels[name]`` and ``labels.link(a, b)`` serve given and derived alike, so that a part written for one form works
    after the other.

    Raises ContractError on wrong lengths, ids, or links to clusters that do not exist.

    >>> train = TrainIndex(modality=torch.tensor([0, 0, 1, 1]), camera=torch.tensor([1, 2, 3, 6]))
    >>> apart = {"visible": torch.tensor([0, 1, -1, -1]), "infrared": torch.tensor([-1, -1, 0, 0])}
    >>> labels = PseudoLabels(train, apart, {("visible", "infrared"): torch.tensor([-1, 0])})
    >>> labels["joint"].labels.tolist(), labels.link("infrared", "joint").tolist()
    ([0, 1, 1, 1], [1])
    >>> labels.drop(torch.tensor([False, True, False, False]))["joint"].labels.tolist()
    [0, -1, 1, 1]
    """

    def __init__(
        self,
        train: TrainIndex,
        partitions: Mapping[str, Partition | Tensor],
        links: Links | None = None,
        *,
        draws: tuple[Draw, ...] | None = None,
    ) -> None:
        self.train = train
        self._given = {n: p if isinstance(p, Partition) else Partition(p) for n, p in partitions.items()}
        self._links = dict(links or {})
        self._draws = draws
        self._derived: dict[str, Partition] = {}
        self._derived_links: dict[tuple[str, str], Tensor] = {}
        self._check()

    def _check(self) -> None:
        if not self._given:
            raise ContractError("pseudo-labels need at least one partition.")
        for name, partition in self._given.items():
            if len(partition.labels) != len(self.train):
                raise ContractError(
                    f"partition {name!r} labels {len(partition.labels)} images; the training set has {len(self.train)}."
                )
        scopes = {"visible": self.train.infrared, "infrared": self.train.visible}
        for name, foreign in scopes.items():
            if name in self._given and bool((self._given[name].labels[foreign] >= 0).any()):
                raise ContractError(f"partition {name!r} labels images of the other modality; they must be -1.")
        for (source, target), link in self._links.items():
            if not (self._linkable(source) and self._linkable(target)):
                raise ContractError(f"link {source!r} -> {target!r} joins partitions that were not given.")
            rows, limit = self[source].num_clusters, self[target].num_clusters
            if not isinstance(link, Tensor) or link.dtype != torch.int64 or link.shape != (rows,):
                got = f"{link.dtype} {list(link.shape)}" if isinstance(link, Tensor) else type(link).__name__
                raise ContractError(f"link {source!r} -> {target!r} must be an int64 tensor [{rows}]; got {got}.")
            if rows and (int(link.min()) < OUTLIER or int(link.max()) >= limit):
                raise ContractError(f"link {source!r} -> {target!r} points outside the {limit} clusters of {target!r}.")
        for name in (name for draw in self._draws or () for name in draw.partitions):
            if name not in self:
                raise ContractError(f"a draw names the partition {name!r}; available: {', '.join(self.available)}.")

    @property
    def given(self) -> tuple[str, ...]:
        """Names of the partitions that were given, in the order given."""
        return tuple(self._given)

    @property
    def available(self) -> tuple[str, ...]:
        """Names of all partitions that can be had, given first."""
        names = ("visible", "infrared", "joint")
        return self.given + tuple(n for n in names if n not in self._given and self._derivable(n))

    def _linkable(self, name: str) -> bool:
        return name in self._given or (name in ("visible", "infrared") and "joint" in self._given)

    def _derivable(self, name: str) -> bool:
        if name in ("visible", "infrared"):
            return "joint" in self._given
        return name == "joint" and bool({("visible", "infrared"), ("infrared", "visible")} & set(self._links))

    def __contains__(self, name: object) -> bool:
        return name in self._given or (isinstance(name, str) and self._derivable(name))

    def __iter__(self) -> Iterator[str]:
        return iter(self.available)

    def __getitem__(self, name: str) -> Partition:
        if name in self._given:
            return self._given[name]
        if name not in self._derived:
            if not self._derivable(name):
                raise KeyError(f"no partition {name!r}; available: {', '.join(self.available)}")
            self._derive(name)
        return self._derived[name]

    def _derive(self, name: str) -> None:
        if name == "joint":
            self._derive_joint()
        else:
            self._derive_restriction(name)

    def _derive_restriction(self, name: str) -> None:
        joint = self._given["joint"]
        scope = self.train.visible if name == "visible" else self.train.infrared
        labels, joint_to_part = compact(torch.where(scope, joint.labels, OUTLIER))
        missing = joint.num_clusters - joint_to_part.numel()
        joint_to_part = torch.cat([joint_to_part, joint_to_part.new_full((missing,), OUTLIER)])
        self._derived[name] = Partition(labels)
        self._derived_links["joint", name] = joint_to_part
        self._derived_links[name, "joint"] = torch.nonzero(joint_to_part >= 0).squeeze(1)

    def _derive_joint(self) -> None:
        visible, infrared = self._given["visible"], self._given["infrared"]
        offset, total = visible.num_clusters, visible.num_clusters + infrared.num_clusters
        edges = []
        for (source, target), link in self._links.items():
            if {source, target} == {"visible", "infrared"}:
                linked = torch.nonzero(link >= 0).squeeze(1)
                ends = torch.stack([linked, link[linked]])
                edges.append(
                    ends + torch.tensor([[0], [offset]]).to(ends)
                    if source == "visible"
                    else ends + torch.tensor([[offset], [0]]).to(ends)
                )
        rows, columns = torch.cat(edges, 1).cpu().numpy()
        graph = coo_matrix((np.ones(len(rows), dtype=np.int8), (rows, columns)), shape=(total, total))
        component = torch.as_tensor(connected_components(graph, directed=False)[1].astype(np.int64))
        component = component.to(visible.labels.device)
        to_joint = {"visible": component[:offset], "infrared": component[offset:]}
        labels = torch.maximum(
            follow(visible.labels, to_joint["visible"]), follow(infrared.labels, to_joint["infrared"])
        )
        self._derived["joint"] = Partition(labels)
        for name, mapping in to_joint.items():
            self._derived_links[name, "joint"] = mapping

    def link(self, source: str, target: str) -> Tensor | None:
        """Clusters of ``target`` that the clusters of ``source`` correspond to, int64 [K_source], −1 = none.

        None if the two partitions are not linked at all.
        """
        if (source, target) in self._links:
            return self._links[source, target]
        for name in (source, target):
            if name in self and name not in self._given:
                self[name]
        if (source, target) in self._derived_links:
            return self._derived_links[source, target]
        to_joint, from_joint = (
            self._derived_links.get((source, "joint")),
            self._derived_links.get(("joint", target)),
        )
        if to_joint is not None and from_joint is not None:
            return follow(to_joint, from_joint)
        return None

    @property
    def links(self) -> Links:
        """The links that were given."""
        return dict(self._links)

    @property
    def draws(self) -> tuple[Draw, ...]:
        """The draw plan, as given, or one draw from visible + infrared and one from joint, if that kind was given."""
        if self._draws is not None:
            return self._draws
        pair = tuple(n for n in ("visible", "infrared") if n in self._given)
        plan = [Draw(pair)] if pair else []
        if "joint" in self._given:
            plan.append(Draw(("joint",)))
        return tuple(plan) or (Draw(self.given),)

    def views(self, draw: Draw) -> dict[str, Partition]:
        """The partitions by which a batch of ``draw`` is labelled: its own, and those derived from them."""
        own = {name: self[name] for name in draw.partitions}
        if "joint" in own:
            derived = [n for n in ("visible", "infrared") if n not in self._given and self._derivable(n)]
        elif {"visible", "infrared"} <= set(own) and "joint" not in self._given and self._derivable("joint"):
            derived = ["joint"]
        else:
            derived = []
        return {**own, **{name: self[name] for name in derived}}

    def replace(
        self,
        partitions: Mapping[str, Partition | Tensor] | None = None,
        links: Links | None = None,
    ) -> PseudoLabels:
        """A copy with these partitions and links put in place of, or beside, the given ones.

        Links may also join the restrictions of the joint partition; they then stand in for the links through it. Links
        of a replaced partition, and of restrictions of a replaced joint one, are dropped.
        """
        changed = dict(partitions or {})
        stale = set(changed) | ({"visible", "infrared"} - set(self._given) if "joint" in changed else set())
        kept = {pair: link for pair, link in self._links.items() if not set(pair) & stale}
        return PseudoLabels(self.train, {**self._given, **changed}, {**kept, **(links or {})}, draws=self._draws)

    def drop(self, rows: Tensor, *, min_size: int = 1) -> PseudoLabels:
        """A copy in which the images of the boolean mask ``rows`` [N] are outliers of every partition.

        Clusters left with fewer than ``min_size`` images dissolve; ids are compacted and links follow.
        """
        new, maps = {}, {}
        for name, partition in self._given.items():
            new[name], old_to_new = compact(torch.where(rows, OUTLIER, partition.labels), min_size=min_size)
            missing = partition.num_clusters - old_to_new.numel()
            maps[name] = torch.cat([old_to_new, old_to_new.new_full((missing,), OUTLIER)])
        after = PseudoLabels(self.train, new)
        for name in {name for pair in self._links for name in pair} - set(maps):
            to_joint, from_joint = self.link(name, "joint"), after.link("joint", name)
            if to_joint is not None and from_joint is not None:
                maps[name] = follow(follow(to_joint, maps["joint"]), from_joint)
        links = {
            (source, target): follow(link, maps[target])[maps[source] >= 0]
            for (source, target), link in self._links.items()
        }
        return PseudoLabels(self.train, new, links, draws=self._draws)


class Embeddings(Mapping[str, Tensor]):
    """A batch's embeddings by name, [B, D] float32, un-normalised, with gradient. ``"main"`` is always there.

    >>> embeddings = Embeddings({"main": torch.tensor([[0.0, 2.0]])})
    >>> embeddings.unit().tolist()
    [[0.0, 1.0]]
    """

    def __init__(
        self, tensors: Mapping[str, Tensor], *, teacher: Callable[[], Mapping[str, Tensor]] | None = None
    ) -> None:
        self._tensors = dict(tensors)
        self._unit: dict[str, Tensor] = {}
        self._ask_teacher = teacher
        self._taught: Embeddings | None = None

    def __getitem__(self, name: str) -> Tensor:
        return self._tensors[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._tensors)

    def __len__(self) -> int:
        return len(self._tensors)

    @property
    def main(self) -> Tensor:
        """``self["main"]``."""
        return self._tensors["main"]

    def unit(self, name: str = "main") -> Tensor:
        """The L2-normalised rows of one embedding, computed once per batch, [B, D]."""
        if name not in self._unit:
            self._unit[name] = normalize(self._tensors[name], dim=1)
        return self._unit[name]

    @property
    def teacher(self) -> Embeddings:
        """The teacher's embeddings of the same images, in training mode and without gradient, made on first request.

        Raises ContractError if the run has no teacher: a part that needs it says ``needs=("teacher",)``.
        """
        if self._taught is None:
            if self._ask_teacher is None:
                raise ContractError(
                    "the teacher's embeddings were asked for in a run without a teacher. A part that needs the teacher "
                    "says so with needs=('teacher',) in its provider."
                )
            self._taught = Embeddings(self._ask_teacher())
        return self._taught

    def detach(self) -> Embeddings:
        """The same values without gradient."""
        teacher = None if self._ask_teacher is None else (lambda: self.teacher)
        return Embeddings({name: tensor.detach() for name, tensor in self._tensors.items()}, teacher=teacher)


@dataclass(frozen=True, slots=True, eq=False)
class Batch:
    """What is known of the B images of a batch. Order: visible images view by view, then infrared ones likewise.

    ``index``, ``modality``, ``camera`` int64 [B]; ``view`` int64 [B] numbers the augmented view (0 = plain, 1 = the
    channel-augmented one). ``labels``: cluster ids [B] per partition of the draw and per partition derived from those.
    ``pseudo_labels``: the epoch's labels, for links and cluster counts.
    """

    index: Tensor
    modality: Tensor
    camera: Tensor
    view: Tensor
    labels: Mapping[str, Tensor]
    draw: Draw
    pseudo_labels: PseudoLabels

    def __len__(self) -> int:
        return self.index.numel()

    def linked(self, source: str, target: str) -> Tensor | None:
        """Labels [B] of ``source`` carried over to ``target`` by the links; −1 = none. None if they are not linked."""
        link = self.pseudo_labels.link(source, target)
        return None if link is None or source not in self.labels else follow(self.labels[source], link)


@dataclass(frozen=True, slots=True, eq=False)
class Bank:
    """Prototypes of one partition: ``vectors [M, D]``, unit rows; ``cluster [M]`` (−1: a negative of every cluster).

    ``modality [M]`` and ``kind [M]`` (:class:`BankKind`) may be given. One centroid per cluster is the case M = K with
    ``cluster = 0..K-1``. ``similarity``, if given, replaces the plain product (a memory that reproduces released code
    whose backward pass changes the bank gives one). ``unit = False``: rows of other lengths, as some papers have them.

    >>> bank = Bank.of_centroids(torch.eye(2))
    >>> bank.single, bank.num_clusters, bank.similarities(torch.tensor([[0.0, 1.0]]), torch.tensor([1])).tolist()
    (True, 2, [[0.0, 1.0]])
    """

    vectors: Tensor
    cluster: Tensor
    modality: Tensor | None = None
    kind: Tensor | None = None
    similarity: Callable[[Tensor, Tensor], Tensor] | None = None
    unit: bool = True

    @staticmethod
    def of_centroids(
        vectors: Tensor, *, similarity: Callable[[Tensor, Tensor], Tensor] | None = None, unit: bool = True
    ) -> Bank:
        """One row per cluster, in the order of cluster ids."""
        return Bank(vectors, torch.arange(len(vectors), device=vectors.device), similarity=similarity, unit=unit)

    @property
    def num_clusters(self) -> int:
        """One more than the largest cluster id, K."""
        return int(self.cluster.max()) + 1 if self.cluster.numel() else 0

    @property
    def single(self) -> bool:
        """Whether row k is the one prototype of cluster k."""
        return bool((self.cluster == torch.arange(self.cluster.numel(), device=self.cluster.device)).all())

    def similarities(self, queries_BD: Tensor, labels_B: Tensor) -> Tensor:
        """Dot products [B, M] of unit queries with the prototypes; gradient flows to the queries only.

        ``labels_B`` are the queries' clusters in this partition: a ``similarity`` of the memory's own may need them.
        """
        if self.similarity is not None:
            return self.similarity(queries_BD, labels_B)
        return queries_BD @ self.vectors.T


class EpochContext(ABC):
    """What a part may ask about the epoch it works in. The core passes one; parts never make one.

    Attributes: ``index`` (epochs since the start of the run), ``epochs`` (of the whole run), ``stage`` (name),
    ``stage_number``, ``stages`` (how many), ``epoch`` (within the stage), ``stage_epochs``, ``cross`` (whether the
    stage uses cross-modality evidence), ``dataset`` (preset name), ``train`` (TrainIndex).
    """

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

    @property
    @abstractmethod
    def rng(self) -> np.random.Generator:
        """This part's own generator for this epoch, seeded from the run's seed, the epoch and the part's name."""

    @abstractmethod
    def features(self, *, encoder: str = "online", embedding: str = "main", view: str = "plain") -> Tensor:
        """Features of all training images as the epoch began: image and mirror image averaged, [N, D] float32.

        ``encoder``: "online" or "teacher". ``view``: "plain", or "red" / "green" / "blue" (that channel of the visible
        images in all three; infrared rows equal those of "plain"). Extracted on first request and kept for the epoch.
        Raises ContractError for unknown names, and once the epoch's training has begun if not extracted before.
        """

    @abstractmethod
    def neighbours(self, features_ND: Tensor, k: int) -> Tensor:
        """The k nearest rows of every row of ``features_ND`` [N, D] (itself among them), nearest first: int64 [N, k].

        As the run searches: exactly, unless it was asked for an approximate search
        (``--set clustering.search=approximate``). Hand them to ``k_reciprocal_jaccard`` as ``ranking_NK``.
        """

    def note(self, text: str) -> None:
        """Put on record, once per run and under this part's name, that it can do less than it is meant to, and why."""
        return None


@dataclass(frozen=True, slots=True, eq=False)
class Setup:
    """What a part is told when it is made: the training images, the dataset's preset name and the embeddings' sizes."""

    train: TrainIndex
    dataset: str
    embedding_dims: Mapping[str, int]


class Part:
    """Base of the four roles. ``self.options`` and ``self.setup`` are as resolved for the run.

    ``changing`` names the attributes that change between two batches (banks, generators): tensors, torch generators,
    Banks, plain values, and dictionaries of those. The core saves them when a run is stopped in the middle of an epoch,
    and puts them back after that epoch has been begun again, so that no iteration is lost. None: not declared; such an
    epoch is begun anew.
    """

    changing: ClassVar[tuple[str, ...] | None] = ()

    def __init__(self, options: Any, setup: Setup) -> None:
        self.options: Any = options
        self.setup = setup

    def state_dict(self) -> dict[str, Tensor]:
        """State that must outlive an epoch, as tensors by name; the core puts it into checkpoints. Default: none."""
        return {}

    def load_state_dict(self, state: Mapping[str, Tensor]) -> None:
        """Take back what :meth:`state_dict` gave."""


class Clusterer(Part, ABC):
    """Groups the training images once per epoch. Subclass it and override :meth:`cluster`."""

    @abstractmethod
    def cluster(self, epoch: EpochContext) -> PseudoLabels:
        """Pseudo-labels of all training images from ``epoch.features(...)``."""


class LabelRefiner(Part, ABC):
    """Improves pseudo-labels once per epoch. Subclass it and override :meth:`refine`."""

    @abstractmethod
    def refine(self, epoch: EpochContext, labels: PseudoLabels) -> PseudoLabels:
        """New pseudo-labels; ``labels`` itself is left as it is. Return it unchanged to do nothing."""


class Memory(Part, ABC):
    """Keeps prototypes. Subclass it and override :meth:`build`, :meth:`bank`, :meth:`update` and :attr:`names`.

    Declare :attr:`changing`, so that a run can be stopped and resumed in the middle of an epoch.
    """

    changing: ClassVar[tuple[str, ...] | None] = None

    @abstractmethod
    def build(self, epoch: EpochContext, labels: PseudoLabels) -> None:
        """Make the banks of all partitions in ``labels.available`` from the epoch's features."""

    @property
    @abstractmethod
    def names(self) -> tuple[str, ...]:
        """Partitions of which there is a bank."""

    @abstractmethod
    def bank(self, name: str, *, embedding: str = "main") -> Bank:
        """The bank of one partition as it is now. Its vectors must carry no gradient."""

    def instances(self, name: str) -> Bank | None:
        """Rows of the single images of a partition (kind INSTANCE), in image order; None if the memory keeps none."""
        return None

    @abstractmethod
    def update(self, batch: Batch, embeddings: Embeddings) -> None:
        """Take in a batch after its optimiser step. ``embeddings`` carry no gradient."""


class Loss(Part, ABC):
    """Adds terms to the training objective. Subclass it and override :meth:`terms`.

    A loss with prototypes of its own makes them in :meth:`begin`, moves them in :meth:`update` and declares
    ``changing``.
    """

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        if "update" in vars(cls) and "changing" not in vars(cls):
            cls.changing = None

    def begin(self, epoch: EpochContext, labels: PseudoLabels, memory: Memory) -> None:
        """Called once per epoch, when the banks are made and before the first batch; ask for features here."""
        return None

    def update(self, batch: Batch, embeddings: Embeddings) -> None:
        """Called after a batch's optimiser step and the memory's update. ``embeddings`` carry no gradient."""
        return None

    @abstractmethod
    def terms(self, batch: Batch, embeddings: Embeddings, memory: Memory, epoch: EpochContext) -> dict[str, Tensor]:
        """Weighted scalar terms by name; the core sums and logs them. Leave out a term that has nothing to say."""
