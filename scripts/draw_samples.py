"""Draw the sample sheet of the rendered dataset: one row per identity, one column per camera.

python scripts/draw_samples.py docs/images/rendered-samples.png
"""

from __future__ import annotations

import argparse
from pathlib import Path

from PIL import Image, ImageDraw, ImageFont

from harness.data.rendered import SIZES, render_image

_COLUMNS = ((1, 1), (1, 2), (2, 1), (4, 1), (5, 1), (3, 1), (3, 2), (6, 1), (6, 2))  # camera, image number
_ZOOM, _GAP, _TOP, _LEFT = 2, 6, 40, 64


def draw_sheet(identities: list[int], *, seed: int) -> Image.Image:
    """The sheet for the given identities of size ``small``."""
    height, width = SIZES["small"].image_size
    step_x, step_y = width * _ZOOM + _GAP, height * _ZOOM + _GAP
    sheet = Image.new("RGB", (_LEFT + len(_COLUMNS) * step_x, _TOP + len(identities) * step_y), "white")
    pen, font = ImageDraw.Draw(sheet), ImageFont.load_default(13)
    for column, (camera, number) in enumerate(_COLUMNS):
        x = _LEFT + column * step_x
        spectrum = "infrared" if camera in (3, 6) else "visible"
        pen.multiline_text((x, 4), f"camera {camera}\n{spectrum}", fill="black", font=font)
        for row, identity in enumerate(identities):
            pixels = render_image(seed, identity=identity, camera=camera, number=number, size=(height, width))
            zoomed = Image.fromarray(pixels).resize((width * _ZOOM, height * _ZOOM), Image.Resampling.NEAREST)
            sheet.paste(zoomed, (x, _TOP + row * step_y))
    for row, identity in enumerate(identities):
        pen.multiline_text(
            (4, _TOP + row * step_y + height * _ZOOM // 2 - 14), f"identity\n{identity}", fill="black", font=font
        )
    return sheet


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("output", type=Path)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--identities", type=int, nargs="+", default=list(range(1, 9)))
    options = parser.parse_args()
    draw_sheet(options.identities, seed=options.seed).quantize(256).save(options.output, optimize=True)


if __name__ == "__main__":
    main()
