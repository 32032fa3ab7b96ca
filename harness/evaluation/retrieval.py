"""From features of the test images to the figures of a protocol.

Similarity is the dot product of unit rows, computed in float64 and rounded to float32: images with equal features then
tie exactly, whatever the order in which a matrix product happened to add, and ties go to the earlier gallery image.
All protocols share one similarity matrix, and those that rank the same images one sort; queries are taken in blocks, so
that memory does not grow with queries x gallery x trials (evaluation.md, sections 1 to 5).
"""

from __future__ import annotations

import statistics
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from numpy.typing import NDArray

from harness.errors import ProtocolError
from harness.evaluation.figures import FIGURE_NAMES, FigureName, Figures, QueryMeans
from harness.evaluation.galleries import Permutations, draw_galleries, gallery_order
from harness.evaluation.metrics import Galleries, QueryFigures, Scores
from harness.evaluation.protocols import Protocol
from harness.evaluation.test_set import TestSet
from harness.machine import usable_cores

if TYPE_CHECKING:
    import torch

Distance = Literal["cosine", "euclidean"]

_BLOCK_ENTRIES = 2**21
_UNIT_TOLERANCE = 1e-2  # wide enough for rows that were normalised in half precision


@dataclass(frozen=True, slots=True)
class EvaluationResult:
    """The scores of every trial of a protocol; means over the trials are of each trial's figure."""

    protocol: Protocol
    trials: tuple[Scores, ...]
    by_query: QueryMeans

    def per_trial(self, figure: FigureName) -> list[float]:
        """One figure over the trials, as fractions."""
        if figure.startswith("rank"):
            return [scores.rank(int(figure.removeprefix("rank"))) for scores in self.trials]
        return [float(getattr(scores, figure)) for scores in self.trials]

    def mean(self, figure: FigureName) -> float:
        """Arithmetic mean of a figure over the trials."""
        return statistics.fmean(self.per_trial(figure))

    def sd(self, figure: FigureName) -> float | None:
        """Sample standard deviation over the trials; none for a single trial."""
        values = self.per_trial(figure)
        return statistics.stdev(values) if len(values) > 1 else None

    @property
    def mean_cmc(self) -> NDArray[np.float64]:
        """The whole CMC curve, float64 [K], averaged over the trials."""
        return np.mean([scores.cmc for scores in self.trials], axis=0)

    def figures(self) -> Figures:
        """What a run record keeps of this result."""
        first = self.trials[0]
        return Figures(
            **{name: self.mean(name) for name in FIGURE_NAMES},
            per_trial={name: self.per_trial(name) for name in FIGURE_NAMES},
            sd={name: self.sd(name) for name in FIGURE_NAMES},
            trials=len(self.trials),
            queries=first.queries,
            valid_queries=first.valid_queries,
            gallery_size=first.gallery_size,
        )


def evaluate(
    features_MD: torch.Tensor | NDArray[np.floating[Any]],
    test_set: TestSet,
    protocol: Protocol,
    *,
    trials: int = 10,
    permutations: Permutations | None = None,
    distance: Distance = "cosine",
) -> EvaluationResult:
    """Rank the gallery of every trial for every query and score the rankings; see :func:`evaluate_all`."""
    results = evaluate_all(
        features_MD, test_set, [protocol], trials=trials, permutations=permutations, distance=distance
    )
    return results[protocol.identifier]


def evaluate_all(
    features_MD: torch.Tensor | NDArray[np.floating[Any]],
    test_set: TestSet,
    protocols: Iterable[Protocol],
    *,
    trials: int = 10,
    permutations: Permutations | None = None,
    distance: Distance = "cosine",
    threads: int | None = None,
    not_defined: Callable[[Protocol, ProtocolError], None] | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> dict[str, EvaluationResult]:
    """The results of several protocols by identifier, from one similarity matrix.

    Args:
        features_MD: float [M, D], one row per image of ``test_set``; NumPy, or torch on any device.
        test_set: labels of the M images.
        protocols: what is query, gallery and excluded, and how galleries are drawn.
        trials: number of galleries. RegDB has one fixed gallery per split and always one trial.
        permutations: the official ones, (camera, identity) -> [10, n]; needed by the O protocols only.
        distance: ``"cosine"``: similarity is the dot product of rows, which must be unit rows; ``"euclidean"``: the
            negative Euclidean distance of the rows as they are.
        threads: blocks of queries that are scored at the same time; default: one per usable core. Figures do not depend
            on it.
        not_defined: called instead of raising for a protocol that is not defined on this test set (no image of one
            modality, too few images for the shots, permutations that are missing or do not fit).
        progress: called with (queries scored, queries in all).

    Raises:
        ProtocolError: features that are not finite (unit) rows or do not fit the labels, a protocol that is not defined
            on the test set, or no query with a correct image.
    """
    features = _checked_features(features_MD, test_set, unit=distance == "cosine")
    if trials < 1:
        raise ProtocolError(f"An evaluation over {trials} trials was asked for; at least one is needed.")
    drawn: dict[Protocol, list[NDArray[np.int64]]] = {}
    for protocol in protocols:
        with _tolerating(protocol, not_defined):
            _require_cameras(test_set, protocol)
            drawn[protocol] = draw_galleries(test_set, protocol, trials=trials, permutations=permutations)
    lineups = _lineups(test_set, drawn)
    results: dict[str, EvaluationResult] = {}
    for cameras in dict.fromkeys(lineup.query_cameras for lineup in lineups):
        same_queries = [lineup for lineup in lineups if lineup.query_cameras == cameras]
        figures = _query_figures(
            features, test_set, same_queries, distance=distance, threads=threads or usable_cores(), progress=progress
        )
        for lineup, found in zip(same_queries, figures, strict=True):
            for protocol in lineup.protocols:
                with _tolerating(protocol, not_defined):
                    results[protocol.identifier] = lineup.result(protocol, found)
    return {name: results[name] for name in (protocol.identifier for protocol in drawn) if name in results}


@contextmanager
def _tolerating(protocol: Protocol, not_defined: Callable[[Protocol, ProtocolError], None] | None) -> Iterator[None]:
    try:
        yield
    except ProtocolError as error:
        if not_defined is None:
            raise
        not_defined(protocol, error)


@dataclass(frozen=True)
class _Lineup:
    """Protocols that rank the same images for the same queries and differ in which of them form the galleries.

    ``pool`` int64 [P], rows of the test set in gallery order; ``numbers``: which of ``galleries`` a protocol has.
    """

    numbers: dict[Protocol, range]
    pool: NDArray[np.int64]
    galleries: Galleries

    @property
    def protocols(self) -> tuple[Protocol, ...]:
        return tuple(self.numbers)

    @property
    def query_cameras(self) -> tuple[int, ...]:
        return self.protocols[0].query_cameras

    def result(self, protocol: Protocol, figures: QueryFigures) -> EvaluationResult:
        numbers = self.numbers[protocol]
        trials = tuple(self.galleries.scores(figures, number) for number in numbers)
        return EvaluationResult(protocol, trials, _query_means(figures, numbers))


def _query_means(figures: QueryFigures, numbers: range) -> QueryMeans:
    of_trials = slice(numbers.start, numbers.stop)
    rank_QT, precision_QT = figures.rank[:, of_trials], figures.average_precision[:, of_trials]
    valid_Q = (rank_QT > 0).all(axis=1)
    rank1_Q = np.where(valid_Q, (rank_QT == 1).mean(axis=1), np.nan)
    return QueryMeans.of(rank1_Q, np.where(valid_Q, precision_QT.mean(axis=1), np.nan))


def _lineups(test_set: TestSet, drawn: Mapping[Protocol, list[NDArray[np.int64]]]) -> list[_Lineup]:
    together: defaultdict[Any, list[Protocol]] = defaultdict(list)
    for protocol in drawn:
        together[protocol.lineup].append(protocol)
    return [_lineup(test_set, {protocol: drawn[protocol] for protocol in group}) for group in together.values()]


def _lineup(test_set: TestSet, drawn: Mapping[Protocol, list[NDArray[np.int64]]]) -> _Lineup:
    every = [gallery for galleries in drawn.values() for gallery in galleries]
    protocols = list(drawn)
    cameras = {camera for protocol in protocols for camera in protocol.gallery_cameras}
    in_order = gallery_order(test_set, protocols[0].gallery_rule, cameras)
    used = np.zeros(len(test_set), dtype=bool)
    used[np.concatenate(every)] = True
    pool = in_order[used[in_order]]
    place = np.empty(len(test_set), dtype=np.int64)
    place[pool] = np.arange(len(pool))
    galleries = Galleries(test_set.identity[pool], [place[gallery] for gallery in every], cmc=protocols[0].cmc)
    ends = np.cumsum([len(galleries) for galleries in drawn.values()]).tolist()
    starts = [0, *ends[:-1]]
    return _Lineup(dict(zip(protocols, map(range, starts, ends), strict=True)), pool, galleries)


def _query_figures(
    features: NDArray[np.floating[Any]],
    test_set: TestSet,
    lineups: list[_Lineup],
    *,
    distance: Distance,
    threads: int,
    progress: Callable[[int, int], None] | None,
) -> list[QueryFigures]:
    """The figures of the queries that all these lineups share, for each of them."""
    queries = np.flatnonzero(np.isin(test_set.camera, lineups[0].query_cameras))
    images = np.unique(np.concatenate([lineup.pool for lineup in lineups]))
    columns = [np.searchsorted(images, lineup.pool) for lineup in lineups]
    gallery = features[images].astype(np.float64)

    def score(rows: NDArray[np.int64]) -> list[QueryFigures]:
        similarity = _similarity(features[rows].astype(np.float64), gallery, distance=distance)
        return [
            lineup.galleries.query_figures(
                similarity,
                test_set.identity[rows],
                columns=column,
                excluded=_excluded(test_set.camera[rows], test_set.camera[lineup.pool], lineup.protocols[0]),
            )
            for lineup, column in zip(lineups, columns, strict=True)
        ]

    block = max(1, _BLOCK_ENTRIES // len(images))
    parts = [queries[start : start + block] for start in range(0, len(queries), block)]
    blocks, done = [], 0
    with ThreadPoolExecutor(threads) as pool:  # sorting and walking release the interpreter's lock
        for part, found in zip(parts, pool.map(score, parts), strict=True):
            blocks.append(found)
            done += len(part)
            if progress is not None:
                progress(done, len(queries))
    return [QueryFigures.concatenate(of_lineup) for of_lineup in zip(*blocks, strict=True)]


def _similarity(
    query_QD: NDArray[np.float64], gallery_PD: NDArray[np.float64], *, distance: Distance
) -> NDArray[np.float32]:
    products = query_QD @ gallery_PD.T
    if distance == "euclidean":
        lengths = np.einsum("pd,pd->p", gallery_PD, gallery_PD) + np.einsum("qd,qd->q", query_QD, query_QD)[:, None]
        products = -np.sqrt(np.maximum(lengths - 2 * products, 0))
    return products.astype(np.float32)


def _excluded(
    query_camera: NDArray[np.int64], gallery_camera: NDArray[np.int64], protocol: Protocol
) -> NDArray[np.bool_]:
    mask = np.zeros((len(query_camera), len(gallery_camera)), dtype=bool)
    for from_camera, removed_camera in protocol.excluded:
        mask |= (query_camera == from_camera)[:, None] & (gallery_camera == removed_camera)
    return mask


def _checked_features(
    features_MD: torch.Tensor | NDArray[np.floating[Any]], test_set: TestSet, *, unit: bool
) -> NDArray[np.floating[Any]]:
    features = _to_numpy(features_MD)
    if features.ndim != 2 or len(features) != len(test_set) or not np.issubdtype(features.dtype, np.floating):
        raise ProtocolError(
            f"Features of shape {features.shape} and type {features.dtype} were given for {len(test_set)} test images; "
            "expected a floating-point matrix with one row per image."
        )
    norms = np.sqrt(np.einsum("md,md->m", features, features, dtype=np.float64))
    bad = np.flatnonzero(~np.isfinite(norms))
    if len(bad):
        raise ProtocolError(
            f"The features of {len(bad)} of {len(test_set)} test images hold NaN or infinite values, the first of them "
            f"in row {bad[0]}; the encoder has diverged or an image is damaged."
        )
    if unit and len(norms) and np.abs(norms - 1).max() > _UNIT_TOLERANCE:
        row = int(np.abs(norms - 1).argmax())
        raise ProtocolError(
            f"The feature row {row} has length {norms[row]:.4g}, but similarity is defined on unit rows; L2-normalise "
            "the features before the evaluation."
        )
    return features


def _to_numpy(features: torch.Tensor | NDArray[np.floating[Any]]) -> NDArray[np.floating[Any]]:
    if isinstance(features, np.ndarray):
        return features
    features = features.detach().cpu()
    # NumPy has no bfloat16; widening is exact
    return features.float().numpy() if features.element_size() < 4 else features.numpy()


def _require_cameras(test_set: TestSet, protocol: Protocol) -> None:
    present = {int(camera) for camera in np.unique(test_set.camera)}
    unknown = present - set(protocol.cameras)
    if unknown:
        raise ProtocolError(
            f"The test set has images of cameras {sorted(unknown)}, which {protocol.identifier} does not know; its "
            f"cameras are {list(protocol.cameras)}."
        )
    for role, cameras in (("query", protocol.query_cameras), ("gallery", protocol.gallery_cameras)):
        if present.isdisjoint(cameras):
            modality = "infrared" if set(cameras) <= set(protocol.infrared_cameras) else "visible"
            raise ProtocolError(
                f"The test set has no {modality} image that could be a {role} image: {protocol.identifier} takes them "
                f"from cameras {list(cameras)}, and the test set has cameras {sorted(present)}."
            )
