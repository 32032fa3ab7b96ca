"""What the writer needs to know of a dataset, whatever its layout."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from harness.errors import SettingsError, suggest

_Size = TypeVar("_Size")


@dataclass(frozen=True)
class Cell:
    """The images of one identity in one camera: numbers 1 .. ``images``."""

    identity: int
    camera: int
    images: int


@dataclass(frozen=True)
class Plan:
    """A dataset to render.

    Attributes:
        image_size: height and width in pixels.
        cells: all images.
        place: where an image lies, relative to the dataset's folder, from its cell and number; its suffix decides
            the format. A function of a module, so that processes can share it.
        lists: folder of the lists and of the description, relative to the dataset's folder.
        write_lists: writes the lists into the existing folder ``lists`` of the dataset's folder it is given.
    """

    image_size: tuple[int, int]
    cells: list[Cell]
    place: Callable[[Cell, int], str]
    lists: str
    write_lists: Callable[[Path], None]

    @property
    def images(self) -> int:
        """Images in all."""
        return sum(cell.images for cell in self.cells)


def find_size(name: str, sizes: Mapping[str, _Size]) -> _Size:
    """The size of this name.

    Raises:
        SettingsError: there is none.
    """
    if name not in sizes:
        raise SettingsError(f"There is no rendered dataset of size {name!r}. {suggest(name, sizes)}")
    return sizes[name]
