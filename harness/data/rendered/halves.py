"""Which images a rendered dataset in the layout of RegDB holds, and its lists of ten random halvings."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from types import MappingProxyType

import numpy as np

from harness.data.regdb import FOLDERS, MODALITIES, SPLITS, TRIALS, Modality, list_file
from harness.data.rendered.cameras import REGDB_THERMAL_CAMERA, REGDB_VISIBLE_CAMERA
from harness.data.rendered.plan import Cell, Plan, find_size

_CAMERA_OF: Mapping[Modality, int] = MappingProxyType(
    {"visible": REGDB_VISIBLE_CAMERA, "thermal": REGDB_THERMAL_CAMERA}
)

_HALVES_STREAM = 5


@dataclass(frozen=True)
class PairedSize:
    """A dataset size: everyone has ``each`` visible and ``each`` thermal images.

    Attributes:
        image_size: height and width in pixels.
        identities: number of identities, even; half of them are trained on in each trial.
        each: images per identity and modality.
    """

    image_size: tuple[int, int]
    identities: int
    each: int


PAIRED_SIZES: Mapping[str, PairedSize] = MappingProxyType(
    {
        "tiny": PairedSize((32, 16), identities=12, each=3),
        "small": PairedSize((64, 32), identities=80, each=5),
        "full": PairedSize((128, 64), identities=412, each=10),
    }
)


def plan_regdb(*, size: str, seed: int) -> Plan:
    """The dataset of this size and seed; a SettingsError if there is no such size."""
    chosen = find_size(size, PAIRED_SIZES)
    everyone = range(1, chosen.identities + 1)
    return Plan(
        image_size=chosen.image_size,
        cells=[Cell(identity, camera, chosen.each) for camera in _CAMERA_OF.values() for identity in everyone],
        place=_place,
        lists="idx",
        write_lists=partial(_write_lists, size=chosen, seed=seed),
    )


def training_half(size: PairedSize, *, seed: int, trial: int) -> frozenset[int]:
    """The identities that ``trial`` trains on."""
    rng = np.random.default_rng(np.random.SeedSequence((seed, _HALVES_STREAM, trial)))
    drawn = rng.permutation(size.identities)[: size.identities // 2]
    return frozenset((drawn + 1).tolist())


def _place(cell: Cell, number: int) -> str:
    modality: Modality = "thermal" if cell.camera == REGDB_THERMAL_CAMERA else "visible"
    return f"{FOLDERS[modality]}/{cell.identity}/{modality[0]}_{number:05d}_{cell.identity}.bmp"


def _write_lists(root: Path, *, size: PairedSize, seed: int) -> None:
    # As RegDB does, the lists of both splits count their identities from 0.
    for trial in TRIALS:
        train = training_half(size, seed=seed, trial=trial)
        test = frozenset(range(1, size.identities + 1)) - train
        for split, half in zip(SPLITS, (train, test), strict=True):
            for modality in MODALITIES:
                list_file(root, split, modality, trial).write_text(_list_of(half, modality, each=size.each))


def _list_of(half: frozenset[int], modality: Modality, *, each: int) -> str:
    return "".join(
        f"{_place(Cell(identity, _CAMERA_OF[modality], each), number)} {label}\n"
        for label, identity in enumerate(sorted(half))
        for number in range(1, each + 1)
    )
