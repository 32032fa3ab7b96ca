"""``harness data check``: what a dataset's folder holds, and what is wrong with it."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from harness.data import regdb as regdb_tree
from harness.data import sysu_mm01 as sysu_mm01_tree
from harness.data.check.regdb import check_regdb
from harness.data.check.report import CheckReport, Progress, format_check
from harness.data.check.sysu_mm01 import check_sysu_mm01
from harness.data.trees import nested_hint, refuse_prepared, require_folder
from harness.errors import DataError

__all__ = ["CheckReport", "check_dataset", "check_regdb", "check_sysu_mm01", "detect_dataset", "format_check"]

_MARKS: Mapping[str, tuple[str, ...]] = {
    "regdb": ("idx", "Visible", "Thermal"),
    "sysu-mm01": ("exp", *(f"cam{camera}" for camera in sysu_mm01_tree.CAMERAS)),
}
_EITHER = f"that of SYSU-MM01 ({sysu_mm01_tree.LAYOUT}) or that of RegDB ({regdb_tree.LAYOUT})"


def check_dataset(root: Path, *, dataset: str = "auto", progress: Progress | None = None) -> CheckReport:
    """Count and decode every image of a dataset.

    Args:
        root: the dataset's folder.
        dataset: ``"sysu-mm01"``, ``"regdb"``, or ``"auto"`` to tell by the layout.
        progress: called with (images decoded, images in all).

    Raises:
        DataError: the folder has not the dataset's layout at all.
    """
    root = Path(root)
    checks = {"sysu-mm01": check_sysu_mm01, "regdb": check_regdb}
    return checks[detect_dataset(root) if dataset == "auto" else dataset](root, progress=progress)


def detect_dataset(root: Path) -> str:
    """``"sysu-mm01"`` or ``"regdb"``, by the folders in ``root``; a part of a layout is enough.

    Raises:
        DataError: the folders are of neither dataset, or of both.
    """
    require_folder(root, layout=f"one of two layouts: {_EITHER}")
    found = [name for name, marks in _MARKS.items() if any((root / mark).is_dir() for mark in marks)]
    if len(found) == 1:
        return found[0]
    if found:
        raise DataError(f"{root} holds folders of SYSU-MM01 and of RegDB. Say which one is meant with --dataset.")
    refuse_prepared(root, dataset="SYSU-MM01 or RegDB", layout=_EITHER)
    raise DataError(f"{root} has the layout of no known dataset. Expected {_EITHER}.{nested_hint(root, 'exp', 'idx')}")
