"""How checks try a part, and compare what it found."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence

import torch
from torch import Tensor

from harness.contracts import PseudoLabels
from harness.engine.train import Parts
from harness.providers import ClustererProvider
from harness.testing.cases import CROSS, EMBEDDINGS, FORMS, INTRA, LATE, ToySet, toy_people
from harness.testing.driving import SAME, Driven
from harness.testing.subject import CheckFailed, NotTried, Subject, Team
from harness.testing.tiny import tiny_rendered, train_tiny

_TOLERANCE = 1e-4
"""Of sums in another order, far below what another cluster or another row would change."""


def forms(subject: Subject, make: Callable[..., ToySet], **values: object) -> list[ToySet]:
    """A toy set under every form of labels; a clusterer sees no labels, so one is enough for it."""
    return [make(form=form, **values) for form in (FORMS[:1] if isinstance(subject.part, ClustererProvider) else FORMS)]


def people(subject: Subject) -> list[ToySet]:
    """People under every form of labels, for every kind of encoder."""
    return [toys for names in EMBEDDINGS for toys in forms(subject, toy_people, embeddings=names)]


def go_through(subject: Subject, sets: Sequence[ToySet]) -> None:
    """A first and a last epoch on every set. Raises ContractError if something is amiss."""
    for toys in sets:
        driven = subject.on(toys)
        driven.epoch(INTRA)
        driven.epoch(LATE)


def require_same_result(subject: Subject, toys: ToySet, changed: ToySet, what: str) -> None:
    """The part finds the same on both sets. Raises CheckFailed if not, NotTried for a part that draws at random."""
    one, other = subject.on(toys), subject.on(changed)
    for driven in (one, other):
        driven.epoch(CROSS)
    if one.drew or other.drew:
        raise NotTried("it draws at random (epoch.rng)")
    for name in _common(one, other, what, only=SAME):
        if not _close(one.found[name], other.found[name]):
            raise CheckFailed(f"{what} changed {name}.")


def require_same_bits(one: Driven, other: Driven, what: str, *, prefix: str = "") -> None:
    """Both found the same bits, under names that begin with ``prefix``. Raises CheckFailed if not."""
    for name in _common(one, other, what, prefix=prefix):
        if not torch.equal(one.found[name], other.found[name]):
            raise CheckFailed(f"{what} changed {name}.")


def _common(one: Driven, other: Driven, what: str, *, prefix: str = "", only: str = "") -> Iterable[str]:
    """The names that both found, which must be the same names."""
    names, others = ({n for n in d.found if n.startswith(prefix) and only in n} for d in (one, other))
    if names != others:
        raise CheckFailed(f"{what} changed what there is: {sorted(names ^ others)[0]} is there only once.")
    return sorted(names)


def _close(one: Tensor, other: Tensor) -> bool:
    if one.shape != other.shape:
        return False
    if not one.is_floating_point():
        return torch.equal(one, other)
    return torch.allclose(one, other, rtol=_TOLERANCE, atol=_TOLERANCE)


def pictures() -> Tensor:
    """The rendered images, uint8 [N, 3, H, W], to be changed at will."""
    return tiny_rendered().pixels.clone()


def transformed(subject: Subject, images: Tensor) -> Tensor:
    """The images after the transform. Raises CheckFailed if they are not such as the engine takes."""
    kinds = tiny_rendered().train.modality
    changed = subject.make()(images, kinds)
    if not isinstance(changed, Tensor) or changed.dtype != torch.uint8 or changed.shape != images.shape:
        got = f"{changed.dtype} {list(changed.shape)}" if isinstance(changed, Tensor) else type(changed).__name__
        raise CheckFailed(f"it must return uint8 {list(images.shape)}, as it was given; got {got}.")
    return changed


def train(team: Team) -> tuple[Parts, list[PseudoLabels]]:
    """The parts of a tiny run, and the labels of its epochs."""
    parts, reports = train_tiny(
        clusterer=team.clusterer,
        refiners=team.refiners,
        memory=team.memory,
        losses=team.losses,
        transforms=[transform.make() for transform in team.transforms],
    )
    return parts, [report.labels for report in reports if report.labels is not None]
