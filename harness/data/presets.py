"""Augmentations by the names that recipes use for the views of an image."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

from harness.data.augment import Augmentation, infrared, visible_exchange, visible_plain

_JITTER = {"brightness": 0.5, "contrast": 0.5, "saturation": 0.5, "hue": 0.5}
_RENDERED = {"pad": 4, "brightness_gamma": 0.3, "erase_area": (0.02, 0.2)}

PRESETS: Mapping[str, Augmentation] = MappingProxyType(
    {
        "plain": visible_plain(),
        "exchange": visible_exchange(),
        "infrared": infrared(),
        "infrared-plain": visible_plain(),
        "plain-jitter": visible_plain().model_copy(update=_JITTER),
        "exchange-jitter": visible_exchange().model_copy(update=_JITTER),
        "infrared-jitter": infrared().model_copy(update=_JITTER),
        "rendered-visible": Augmentation(**_RENDERED, channel="mix"),
        "rendered-infrared": Augmentation(**_RENDERED),
    }
)
"""``plain``, ``exchange``, ``infrared``: baseline.md, section 2; ``*-jitter``: with colour jitter, as HIL.

``rendered-*``: rendered.md, part I, section 2.
"""
