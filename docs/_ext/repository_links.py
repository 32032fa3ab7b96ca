"""Links of pages that also read well as plain Markdown: to files beside ``docs/``, which are no pages of the site.

On the code host ``[CONTRIBUTING.md](../CONTRIBUTING.md)`` leads to the file. Here it leads to the page that includes
the file or says what it holds, and what has no page stays as text.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from sphinx.application import Sphinx

_FENCED = re.compile(r"(^(?:```|:::).*?^(?:```|:::)\s*?$)", flags=re.MULTILINE | re.DOTALL)
_LINK = re.compile(r"(?<!!)\[(?P<text>[^\]]*)\]\((?P<target>[^)\s]+)\)")
_TOLD = {"harness/contracts.py": "api.md"}
"""Files of the repository of which a page tells the content."""

_INCLUDED = re.compile(r"^```\{include\} (\S+)$", flags=re.MULTILINE)


def files_with_a_page(docs: Path) -> dict[Path, str]:
    """The files that pages of ``docs`` include or tell of, each with the name of its page."""
    found = {docs.parent / file: page for file, page in _TOLD.items()}
    for page in sorted(docs.glob("*.md")):
        for target in _INCLUDED.findall(page.read_text(encoding="utf-8")):
            found[(docs / target).resolve()] = page.name
    return found


def on_the_site(text: str, *, folder: Path, docs: Path, pages: Mapping[Path, str]) -> str:
    """The Markdown ``text`` of a file in ``folder`` with its links as the site has them; ``docs`` is one flat folder.

    ``pages``: the page of each file outside of ``docs`` that has one.
    """

    def replaced(match: re.Match[str]) -> str:
        words, target = match["text"], match["target"]
        path, separator, anchor = target.partition("#")
        if not path or "://" in path or path.startswith("mailto:"):
            return match[0]
        file = (folder / path).resolve()
        if not file.exists():
            return match[0]  # left as it is, so that the build says that it leads nowhere
        if file.is_relative_to(docs):
            return f"[{words}]({file.relative_to(docs).as_posix()}{separator}{anchor})"
        if file in pages:
            return f"[{words}]({pages[file]}{separator}{anchor})"
        return words

    pieces = _FENCED.split(text)
    return "".join(piece if place % 2 else _LINK.sub(replaced, piece) for place, piece in enumerate(pieces))


def _read_page(app: Sphinx, page: str, source: list[str]) -> None:
    docs = Path(app.srcdir).resolve()
    source[0] = on_the_site(source[0], folder=docs, docs=docs, pages=files_with_a_page(docs))


def _read_included(app: Sphinx, path: Path, page: str, source: list[str]) -> None:
    docs = Path(app.srcdir).resolve()
    source[0] = on_the_site(source[0], folder=(docs / path).resolve().parent, docs=docs, pages=files_with_a_page(docs))


def setup(app: Sphinx) -> dict[str, Any]:
    app.connect("source-read", _read_page)
    app.connect("include-read", _read_included)
    return {"version": "1", "parallel_read_safe": True, "parallel_write_safe": True}
