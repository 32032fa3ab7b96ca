"""Datasets as the engine sees them: two manifests and the protocols that score them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from harness.builtin import RegdbOptions, RenderedOptions, SysuOptions
from harness.data.manifest import Manifest, content_fingerprint
from harness.data.published import SysuPart, regdb_differences, sysu_mm01_differences
from harness.data.regdb import read_regdb
from harness.data.rendered import ensure_rendered
from harness.data.sysu_mm01 import read_sysu_mm01
from harness.errors import DataError, ProtocolError, SettingsError
from harness.evaluation import Permutations, Protocol, TestSet, protocols_of, read_official_permutations
from harness.evaluation.galleries import draw_galleries
from harness.evaluation.official import permutations_in

Progress = Callable[[int, int], None]


@dataclass(frozen=True)
class Dataset:
    """A dataset on disk.

    Attributes:
        protocols: all that are scored; the first is the one that tables show first.
        variant: tells apart datasets of one name (the rendered one's size and seed).
        trial: which of the dataset's splits this is, for datasets that are trained and tested on several.
        permutations: the official ones, for protocols that need them.
        fingerprint: of all images and lists, where both manifests together are more than one trial; None: that of the
            images of the manifests.
        notes: what a reader of the figures should know; recorded with each run.
    """

    name: str
    root: Path
    train: Manifest
    test: Manifest
    protocols: tuple[Protocol, ...]
    variant: str = ""
    trial: int | None = None
    permutations: Permutations | None = None
    fingerprint: str | None = None
    notes: tuple[str, ...] = ()

    @property
    def test_set(self) -> TestSet:
        """The labels of the test images."""
        return labels_of(self.test)


def labels_of(test: Manifest) -> TestSet:
    """The labels of test images, numbered by file name within (identity, camera)."""
    return TestSet.from_names(test.identity, test.camera, names=[Path(path).name for path in test.paths])


def rendered(options: RenderedOptions, root: Path | None, progress: Progress | None = None) -> Dataset:
    """The rendered dataset; drawn into the user's cache on first use, or read from ``root`` if one is given."""
    folder = root or ensure_rendered(size=options.size, seed=options.seed, progress=progress)
    return Dataset(
        name="rendered",
        root=folder,
        train=read_sysu_mm01(folder, split="train"),
        test=read_sysu_mm01(folder, split="test"),
        protocols=tuple(protocol for protocol in protocols_of("rendered") if protocol.shots == 1),
        variant=f"{options.size}, seed {options.seed}" if root is None else str(root.name),
    )


def sysu_mm01(options: SysuOptions, root: Path | None, progress: Progress | None = None) -> Dataset:
    """SYSU-MM01 from its own tree. Raises SettingsError without a folder, DataError if the tree is not as expected."""
    root = _required(root, "sysu-mm01", "the folder holding cam1 .. cam6 and exp")
    train = read_sysu_mm01(root, split="train", include_val=options.include_val)
    test = read_sysu_mm01(root, split="test")
    part: SysuPart = "train + val" if options.include_val else "train"
    differences = (*sysu_mm01_differences(train, part=part), *sysu_mm01_differences(test, part="test"))
    permutations, why_not = _official_permutations(options.permutations, root, test)
    rules = "S" if permutations is None else "SO"
    return Dataset(
        name="sysu-mm01",
        root=root,
        train=train,
        test=test,
        protocols=tuple(protocol for protocol in protocols_of("sysu-mm01") if protocol.gallery_rule in rules),
        variant=part,
        permutations=permutations,
        notes=(*_not_published("SYSU-MM01", differences), *why_not),
    )


def regdb(options: RegdbOptions, root: Path | None, progress: Progress | None = None) -> Dataset:
    """One trial of RegDB from its own tree. Raises SettingsError without a folder, DataError for an unexpected tree."""
    root = _required(root, "regdb", "the folder holding Visible, Thermal and idx")
    train, test = (read_regdb(root, split=split, trial=options.trial) for split in ("train", "test"))
    differences = (*regdb_differences(train, part="train"), *regdb_differences(test, part="test"))
    return Dataset(
        name="regdb",
        root=root,
        train=train,
        test=test,
        protocols=protocols_of("regdb"),
        variant=f"trial {options.trial}",
        trial=options.trial,
        fingerprint=content_fingerprint(root, [*train.paths, *test.paths, *_lists(root)]),
        notes=_not_published("RegDB", differences),
    )


def _lists(root: Path) -> list[str]:
    return [file.relative_to(root).as_posix() for file in (root / "idx").glob("*.txt")]


def _required(root: Path | None, name: str, what: str) -> Path:
    if root is None:
        raise SettingsError(f"The dataset {name!r} is read from disk: add --data DIR, {what}.")
    return root


def _not_published(name: str, differences: tuple[str, ...]) -> tuple[str, ...]:
    if not differences:
        return ()
    listed = "; ".join(differences)
    return (f"These are not the published {name}'s images, so figures do not compare with published ones: {listed}.",)


def _official_permutations(
    given: Path | None, root: Path, test: Manifest
) -> tuple[Permutations | None, tuple[str, ...]]:
    """The permutations that fit the test images, or why there are none. A file that was asked for must fit."""
    path = given or permutations_in(root)
    if given is None and not path.is_file():
        return None, (
            f"Galleries from the official permutations (O) are not evaluated: there is no {path}. Put the file from "
            "the dataset's evaluation code there, or name it with --set data.permutations=FILE.",
        )
    try:
        permutations = read_official_permutations(path)
        official = next(protocol for protocol in protocols_of("sysu-mm01") if protocol.gallery_rule == "O")
        draw_galleries(labels_of(test), official, trials=1, permutations=permutations)
    except (DataError, ProtocolError) as error:
        if given is not None:
            raise
        return None, (f"Galleries from the official permutations (O) are not evaluated: {error}",)
    return permutations, ()
