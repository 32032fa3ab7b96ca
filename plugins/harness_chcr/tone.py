"""Grey conversion and tone map of visible images (chcr.md 3.1; public preprocessing code of CHCR's first author).

Deviation: that code stores the result as JPEG (SYSU-MM01); here nothing is stored, so there is no second compression.
"""

from __future__ import annotations

import torch
from torch import Tensor

from harness.contracts import Modality
from harness_chcr.options import ToneOptions


def grey(images_B3HW: Tensor) -> Tensor:
    """Luminance 0.299 R + 0.587 G + 0.114 B in Pillow's 16-bit fixed point, rounded to nearest; uint8 [B, H, W].

    Equal channels come out unchanged.
    """
    red, green, blue = images_B3HW.to(torch.int32).unbind(dim=1)
    return ((red * 19595 + green * 38470 + blue * 7471 + 32768) >> 16).to(torch.uint8)


def tone_curve(options: ToneOptions) -> Tensor:
    """The output level of each of the 256 grey levels, uint8 [256]; computed in float64, rounded half to even."""
    levels = torch.arange(256, dtype=torch.float64)
    if options.tone == "gamma":
        levels = 255 * (levels / 255) ** options.gamma
    elif options.tone == "linear":
        levels = options.k * levels + options.b
    return levels.round().clamp(0, 255).to(torch.uint8)


class ToneMap:
    """``transform(images uint8 [B, 3, H, W], modality int64 [B])``: maps visible images, leaves infrared ones alone."""

    def __init__(self, options: ToneOptions) -> None:
        self.options = options
        self._curve = tone_curve(options)

    def __call__(self, images_B3HW: Tensor, modality_B: Tensor) -> Tensor:
        visible = (modality_B == Modality.VISIBLE).to(images_B3HW.device)
        if self.options.tone == "none" or not bool(visible.any()):
            return images_B3HW
        mapped = self._curve.to(images_B3HW.device)[grey(images_B3HW[visible]).long()]
        result = images_B3HW.clone()
        result[visible] = mapped.unsqueeze(1).expand(-1, 3, -1, -1)
        return result
