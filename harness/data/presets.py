"""Augmentations by the names that recipes use for the views of an image."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

from harness.data.augment import Augmentation, infrared, visible_exchange, visible_plain

_RENDERED = {"pad": 4, "brightness_gamma": 0.3, "erase_area": (0.02, 0.2)}

PRESETS: Mapping[str, Augmentation] = MappingProxyType(
    {
        "plain": visible_plain(),
        "exchange": visible_exchange(),
        "infrared": infrared(),
        "infrared-plain": visible_plain(),
        "rendered-visible": Augmentation(**_RENDERED, channel="mix"),
        "rendered-infrared": Augmentation(**_RENDERED),
    }
)
"""``plain``, ``exchange``, ``infrared``: baseline.md, section 2. ``rendered-*``: rendered.md, part I, section 2."""
