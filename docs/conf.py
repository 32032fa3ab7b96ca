"""How Sphinx builds this documentation: ``make docs``. Nothing is fetched from the network."""

from __future__ import annotations

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent / "_ext"))

from harness import __version__

project = "vireid-harness"
author = "The vireid-harness authors"
project_copyright = author
version = release = __version__
language = "en-GB"

extensions = [
    "myst_parser",
    "sphinx.ext.autodoc",
    "sphinx.ext.napoleon",
    "sphinx.ext.viewcode",
    "generated",
    "repository_links",
]
exclude_patterns = ["_build"]

myst_heading_anchors = 4
myst_enable_extensions = ["colon_fence"]

autodoc_class_signature = "mixed"
autodoc_member_order = "bysource"
autodoc_typehints = "signature"
autodoc_typehints_format = "short"
autodoc_preserve_defaults = True
python_maximum_signature_line_length = 120
toc_object_entries_show_parents = "hide"
python_use_unqualified_type_names = True
napoleon_numpy_docstring = False
viewcode_line_numbers = True

# Every reference must resolve. Types of other libraries have no page here, and none is fetched.
nitpicky = True
nitpick_ignore_regex = [
    ("py:class", r"(abc|annotated_types|collections\.abc|numpy|pathlib|scipy|torch|types)\..*|tuple\[str"),
]

html_theme = "furo"
html_title = "vireid-harness"
html_static_path = ["_static"]
html_css_files = ["site.css"]
html_copy_source = False
html_show_sphinx = False
html_theme_options = {"navigation_with_keys": True}
pygments_style = "tango"
pygments_dark_style = "monokai"
