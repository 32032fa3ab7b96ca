"""The site as Sphinx builds it: no warning, every link inside leads somewhere, the reference is complete."""

from __future__ import annotations

import subprocess
import sys
from collections import defaultdict
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote, urlsplit

import plugin_pages
import pytest

import harness

pytestmark = pytest.mark.slow


class _Page(HTMLParser):
    """Where a page's links lead, and what in it can be led to."""

    def __init__(self) -> None:
        super().__init__()
        self.targets: list[str] = []
        self.anchors: set[str] = set()

    def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        for name, value in attributes:
            if name in ("href", "src", "data-src") and value:
                self.targets.append(value)
            elif value and (name == "id" or (tag == "a" and name == "name")):
                self.anchors.add(value)


@pytest.fixture(scope="module")
def site(docs: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The built pages."""
    out = tmp_path_factory.mktemp("site")
    words = ["-W", "--keep-going", "-q", "-b", "html", "-d", str(out / "doctrees"), str(docs), str(out / "html")]
    done = subprocess.run([sys.executable, "-m", "sphinx", *words], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    return out / "html"


@pytest.fixture(scope="module")
def pages(site: Path) -> dict[Path, _Page]:
    """Every page of the site."""
    found = {}
    for path in site.rglob("*.html"):
        found[path] = _Page()
        found[path].feed(path.read_text(encoding="utf-8"))
    return found


def leads_nowhere(path: Path, target: str, pages: dict[Path, _Page]) -> bool:
    """Whether a link of the page at ``path`` names a file or an anchor of the site that is not there."""
    parts = urlsplit(target)
    if parts.scheme or parts.netloc:
        return False
    file = (path.parent / unquote(parts.path)).resolve() if parts.path else path
    if not file.is_file():
        return True
    fragment = unquote(parts.fragment)
    return bool(fragment) and (file not in pages or fragment not in pages[file].anchors)


def test_every_link_inside_the_site_leads_to_a_file_and_to_an_anchor(site: Path, pages: dict[Path, _Page]) -> None:
    broken = defaultdict(set)
    for path, page in pages.items():
        for target in page.targets:
            if leads_nowhere(path, target, pages):
                broken[str(path.relative_to(site))].add(target)
    assert not broken
    assert sum(len(page.targets) for page in pages.values()) > 1000


@pytest.mark.parametrize("target", ["nowhere.html", "index.html#nowhere", "#nowhere", "_static/none.css"])
def test_a_link_that_leads_nowhere_is_found(site: Path, pages: dict[Path, _Page], target: str) -> None:
    assert leads_nowhere(site / "index.html", target, pages)
    assert not leads_nowhere(site / "index.html", "hooks.html#harness_recipedataset", pages)


def test_pages_ask_nothing_of_the_network(pages: dict[Path, _Page], site: Path) -> None:
    for path in pages:
        text = path.read_text(encoding="utf-8")
        assert 'src="http' not in text
        assert 'rel="stylesheet" href="http' not in text
        assert "@import" not in text


def test_every_public_name_has_an_entry(pages: dict[Path, _Page], site: Path) -> None:
    assert {f"harness.{name}" for name in harness.__all__} <= pages[site / "api.html"].anchors


def test_every_plugin_part_and_option_of_this_repository_is_on_its_page(site: Path) -> None:
    text = (site / "plugins.html").read_text(encoding="utf-8")
    found = plugin_pages.in_tree()
    assert all(f'<section id="{name}">' in text for name in found)
    for key, home in plugin_pages.homes(found).items():
        section = text.partition(f'<section id="{home.name}">')[2]
        provider = next(provider for provider in home.providers if f"{provider.name} {provider.factory}" == key)
        assert f'<span class="pre">{provider.name}</span>' in section
        assert all(f'<span class="pre">{option}</span>' in section for option in provider.options.model_fields)
