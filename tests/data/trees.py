"""Small dataset trees, written by the tests themselves."""

from __future__ import annotations

from pathlib import Path

from PIL import Image

TRAIN, VAL, TEST = (1, 2, 5), (4,), (3, 6)


def write_sysu_mm01(root: Path, *, images: int = 2, cameras=(1, 2, 3, 4, 5, 6)) -> Path:
    """Every identity in every one of ``cameras``."""
    for camera in cameras:
        for identity in (*TRAIN, *VAL, *TEST):
            folder = root / f"cam{camera}" / f"{identity:04d}"
            folder.mkdir(parents=True)
            for number in range(1, images + 1):
                Image.new("RGB", (8, 12), (camera * 20, identity * 20, number)).save(folder / f"{number:04d}.jpg")
    (root / "exp").mkdir(parents=True)
    for name, identities in (("train", TRAIN), ("val", VAL), ("test", TEST)):
        (root / "exp" / f"{name}_id.txt").write_text(",".join(map(str, identities)) + "\n")
    return root


REGDB_TRAIN = {1: (1, 2, 5), 2: (3, 4, 6)}
"""Trained on, by trial; the others of 1 .. 6 are tested on."""


def write_regdb(root: Path, *, images: int = 2) -> Path:
    """Six identities, trials 1 and 2; each list counts its labels from 0, as the published lists do."""
    for modality, folder in (("visible", "Visible"), ("thermal", "Thermal")):
        for identity in range(1, 7):
            (root / folder / str(identity)).mkdir(parents=True)
            for number in range(images):
                file = root / folder / str(identity) / f"{modality[0]}{number}.bmp"
                Image.new("RGB" if modality == "visible" else "L", (6, 8), identity * 20 + number).save(file)
    (root / "idx").mkdir()
    for trial, train in REGDB_TRAIN.items():
        halves = {"train": train, "test": tuple(sorted({1, 2, 3, 4, 5, 6} - set(train)))}
        for split, half in halves.items():
            for modality, folder in (("visible", "Visible"), ("thermal", "Thermal")):
                lines = [
                    f"{folder}/{identity}/{modality[0]}{number}.bmp {label}"
                    for label, identity in enumerate(half)
                    for number in range(images)
                ]
                (root / "idx" / f"{split}_{modality}_{trial}.txt").write_text("\n".join(lines) + "\n")
    return root
