"""What the readers of dataset folders say alike.

No entry of a list names a file outside the dataset's folder: absolute paths, drives and ``..`` are refused with the
line they stand on. Links in the folder are followed wherever they point, as trees on clusters are often made of them:
who can put a link there can put any file there.
"""

from __future__ import annotations

import os
from collections.abc import Iterable
from pathlib import Path

from harness.errors import DataError

_PREPARED_FOLDERS = ("ir_modify", "rgb_modify", "bounding_box_train", "bounding_box_test")


def require_folder(root: Path, *, layout: str) -> None:
    """Raise a DataError unless ``root`` is a folder; ``layout`` says what is expected in it."""
    if not os.path.exists(root):  # Path.exists raises on a path too long
        raise DataError(f"The dataset folder {root} does not exist. Expected a folder with {layout}.")
    if not root.is_dir():
        raise DataError(f"{root} is a file, not a dataset folder. Expected a folder with {layout}.")


def refuse_prepared(root: Path, *, dataset: str, layout: str) -> None:
    """Raise a DataError if ``root`` is a tree, or lies in one, that older code copies its images into.

    Source: baseline.md 1.3.
    """
    found = [name for name in _PREPARED_FOLDERS if (root / name).is_dir()]
    found += [name for name in (root.name, root.parent.name) if name in _PREPARED_FOLDERS and name not in found]
    if found:
        raise DataError(
            f"{root} is a tree prepared for older code (it has {', '.join(found)}), in which images were copied "
            f"and renamed. Point at the original {dataset} tree instead: {layout}."
        )


def nested_hint(root: Path, *folders: str) -> str:
    """A question that names the first folder inside ``root`` that holds one of ``folders``; empty if none does."""
    for child in sorted(root.iterdir()):
        if child.is_dir() and any((child / folder).is_dir() for folder in folders):
            return f" Did you mean {child}?"
    return ""


def name_some(names: Iterable[str], *, most: int = 10) -> str:
    """The first ``most`` names, and how many more there are.

    >>> name_some(["a", "b", "c"], most=2)
    'a, b and 1 more'
    """
    names = list(names)
    more = f" and {len(names) - most} more" if len(names) > most else ""
    return ", ".join(names[:most]) + more
