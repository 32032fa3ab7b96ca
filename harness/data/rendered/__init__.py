"""The embedded dataset: procedurally rendered people, in the layout of SYSU-MM01 or of RegDB."""

from harness.data.rendered.halves import PAIRED_SIZES
from harness.data.rendered.image import render_image, render_person
from harness.data.rendered.layout import SIZES
from harness.data.rendered.writer import RENDERER_VERSION, ensure_rendered, rendered_folder, write_rendered

__all__ = [
    "PAIRED_SIZES",
    "RENDERER_VERSION",
    "SIZES",
    "ensure_rendered",
    "render_image",
    "render_person",
    "rendered_folder",
    "write_rendered",
]
