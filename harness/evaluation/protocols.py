"""What is compared with what: the evaluation protocols as frozen values with identifiers.

Source: evaluation.md, sections 2 to 5. An identifier names everything that changes a figure apart from the features:

    sysu-mm01/all/single/S/v1        all-search, one image per (identity, camera), seeded galleries
    sysu-mm01/indoor/multi/O/v1      indoor-search, ten images, official permutations
    rendered/all/single/S/v1         the embedded dataset, same rules as SYSU-MM01
    regdb/visible-to-infrared/v1     RegDB, all images of the other modality are the gallery

Galleries *S* come from Python's Mersenne generator seeded with the trial number, as in nearly every Python repository;
galleries *O* from the permutations that the dataset's authors ship. They are different galleries, whose means differ by
tenths of a point, and never share a table.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from harness.errors import ProtocolError, suggest
from harness.evaluation.metrics import CmcEntries

GalleryRule = Literal["S", "O", "fixed"]
"""``S``: seeded draw; ``O``: official permutations; ``fixed``: every image of the gallery cameras."""

_SHOT_NAMES = {1: "single", 10: "multi"}


@dataclass(frozen=True, kw_only=True, slots=True)
class Protocol:
    """One way to query and to score.

    ``excluded`` lists (query camera, gallery camera) pairs: for a query of the first, no gallery image of the second is
    ranked, whatever its identity.
    """

    dataset: str
    search: str
    query_cameras: tuple[int, ...]
    gallery_cameras: tuple[int, ...]
    infrared_cameras: tuple[int, ...]
    cameras: tuple[int, ...]
    gallery_rule: GalleryRule
    shots: int | None = None
    excluded: tuple[tuple[int, int], ...] = ()
    cmc: CmcEntries = "identity"
    version: int = 1

    def __post_init__(self) -> None:
        if (self.shots is None) != (self.gallery_rule == "fixed") or (self.shots is not None and self.shots < 1):
            raise ProtocolError(
                f"A protocol with gallery rule {self.gallery_rule!r} was given shots={self.shots}; rules S and O "
                "need a positive number of images per (identity, camera), the fixed gallery takes none."
            )

    @property
    def identifier(self) -> str:
        """The name under which figures are recorded."""
        parts = [self.dataset, self.search]
        if self.shots is not None:
            parts += [_SHOT_NAMES.get(self.shots, f"{self.shots}-shot"), self.gallery_rule]
        return "/".join([*parts, f"v{self.version}"])

    @property
    def lineup(self) -> tuple[object, ...]:
        """Equal for protocols that can share a ranking: the same queries, order of images, exclusion and CMC."""
        return self.query_cameras, self.gallery_rule, self.excluded, self.cmc

    def definition(self) -> dict[str, str]:
        """The protocol in words, by subject."""
        excluded = [
            f"for queries of camera {query}, every image of camera {gallery}" for query, gallery in self.excluded
        ]
        counted = "identities, each counted at its nearest image" if self.cmc == "identity" else "images"
        means = "over the queries that have a correct image in the gallery"
        if self.gallery_rule == "fixed":
            means += "; published figures are, besides, means over ten splits, each with its own training"
        else:
            means += ", then over the trials: ten galleries, the same features"
        return {
            "query": f"all {self._images(self.query_cameras)}",
            "gallery": self._gallery_words(),
            "excluded": "; ".join(excluded) or "nothing",
            "similarity": "dot product of L2-normalised features; equal ones in gallery order",
            "rank-k": f"share of queries whose identity is among the first k {counted}",
            "mAP, mINP": "over all ranked images, without interpolation",
            "means": means,
        }

    def _images(self, cameras: tuple[int, ...]) -> str:
        modality = "infrared" if set(cameras) <= set(self.infrared_cameras) else "visible"
        return f"{modality} test images (camera{'s' * (len(cameras) > 1)} {', '.join(map(str, cameras))})"

    def _gallery_words(self) -> str:
        images = self._images(self.gallery_cameras)
        if self.gallery_rule == "fixed":
            return f"all {images}"
        each = "1 image" if self.shots == 1 else f"{self.shots} images"
        how = f"trial t takes the first {self.shots} of row t of the official permutations (rand_perm_cam.mat)"
        if self.gallery_rule == "S":
            draw = "choice" if self.shots == 1 else "sample"
            how = (
                f"trial t = 0 .. 9 draws with Python's random.Random(t).{draw} from the sorted file names, identity by "
                "identity (as four-digit strings) and camera by camera"
            )
        return f"{each} of each identity in each camera of the {images}; {how}"


def _sysu(dataset: str, search: str, *, shots: int, rule: GalleryRule) -> Protocol:
    return Protocol(
        dataset=dataset,
        search=search,
        query_cameras=(3, 6),
        gallery_cameras=(1, 2, 4, 5) if search == "all" else (1, 2),
        infrared_cameras=(3, 6),
        cameras=(1, 2, 3, 4, 5, 6),
        gallery_rule=rule,
        shots=shots,
        excluded=((3, 2),),  # cameras 2 and 3 stand in the same room
    )


def _regdb(search: str) -> Protocol:
    visible_camera, infrared_camera = (1,), (2,)
    visible_queries = search == "visible-to-infrared"
    return Protocol(
        dataset="regdb",
        search=search,
        query_cameras=visible_camera if visible_queries else infrared_camera,
        gallery_cameras=infrared_camera if visible_queries else visible_camera,
        infrared_cameras=infrared_camera,
        cameras=visible_camera + infrared_camera,
        gallery_rule="fixed",
        cmc="image",
    )


def _all_protocols() -> dict[str, Protocol]:
    rules: dict[str, tuple[GalleryRule, ...]] = {"sysu-mm01": ("S", "O"), "rendered": ("S",)}
    found = [
        _sysu(dataset, search, shots=shots, rule=rule)
        for dataset, dataset_rules in rules.items()
        for rule in dataset_rules
        for search in ("all", "indoor")
        for shots in (1, 10)
    ]
    found += [_regdb("visible-to-infrared"), _regdb("infrared-to-visible")]
    return {protocol.identifier: protocol for protocol in found}


PROTOCOLS: dict[str, Protocol] = _all_protocols()
"""Every known protocol by identifier; the first of each dataset is its primary one."""


def protocol(identifier: str) -> Protocol:
    """The protocol of that name.

    Raises:
        ProtocolError: there is none; near matches are named.

    >>> protocol("rendered/all/single/S/v1").query_cameras
    (3, 6)
    """
    if identifier not in PROTOCOLS:
        raise ProtocolError(f"There is no evaluation protocol {identifier!r}. {suggest(identifier, PROTOCOLS)}")
    return PROTOCOLS[identifier]


def protocols_beginning(start: str) -> tuple[Protocol, ...]:
    """The protocols whose identifier begins so: one, those of a dataset, or all.

    Raises:
        ProtocolError: there is none; near matches are named.
    """
    found = tuple(entry for identifier, entry in PROTOCOLS.items() if identifier.startswith(start))
    if not found:
        raise ProtocolError(f"No protocol begins with {start!r}. {suggest(start, PROTOCOLS)}")
    return found


def protocols_of(dataset: str) -> tuple[Protocol, ...]:
    """The protocols of a dataset, its primary one first.

    Raises:
        ProtocolError: no protocol is defined for this dataset.
    """
    found = tuple(entry for entry in PROTOCOLS.values() if entry.dataset == dataset)
    if not found:
        known = {entry.dataset for entry in PROTOCOLS.values()}
        raise ProtocolError(f"No evaluation protocol is defined for dataset {dataset!r}. {suggest(dataset, known)}")
    return found
