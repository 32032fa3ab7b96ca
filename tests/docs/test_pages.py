"""Pages as plain Markdown: links lead somewhere, commands and settings exist, the API page names every public name."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import click
import pytest

import harness
from harness.builtin import Core
from harness.cli import cli
from harness.plugins import Catalogue
from harness.recipe import Recipe
from harness.settings import Settings

REPOSITORY = Path(__file__).parents[2]
DOCS = REPOSITORY / "docs"
PAGES = sorted(DOCS.glob("*.md"))
TEXTS = [*PAGES, *(REPOSITORY / name for name in ("README.md", "CONTRIBUTING.md"))]
FENCE = re.compile(r"^```(?P<kind>[\w{}-]*)[^\n]*\n(?P<body>.*?)^```\s*$", flags=re.MULTILINE | re.DOTALL)
OTHERS_FLAGS = {"--array", "--gres", "--signal", "--nnodes", "--small", "--rdzv-endpoint", "--benchmark-only"}
"""Flags of Slurm, of torchrun and of pytest."""
PLACEHOLDER = "VALUE"


def fenced(text: str, *kinds: str) -> list[str]:
    """The bodies of the fenced blocks of these kinds."""
    return [match["body"] for match in FENCE.finditer(text) if match["kind"] in kinds]


def prose(text: str) -> str:
    """A page without its fenced blocks."""
    return FENCE.sub("", text)


def anchors(text: str) -> set[str]:
    """The anchors of a page's headings, as the code host makes them."""
    found: list[str] = []
    for heading in re.findall(r"^#+ (.*)$", prose(text), flags=re.MULTILINE):
        plain = re.sub(r"\[([^\]]*)\]\([^)]*\)", r"\1", heading)
        found.append(re.sub(r"[^\w -]", "", plain).strip().lower().replace(" ", "-"))
    return set(found)


def included(page: Path) -> Path:
    """The file that a page consists of, or the page."""
    (target,) = re.findall(r"\A```\{include\} (\S+)\n```\s*\Z", page.read_text(encoding="utf-8")) or [page.name]
    return (page.parent / target).resolve()


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_of_a_page_lead_to_files_and_headings_also_without_the_site(page: Path) -> None:
    text = page.read_text(encoding="utf-8")
    for target in re.findall(r"\]\((?!https?://)([^)\s]+)\)", prose(text)):
        path, _, anchor = target.partition("#")
        file = (page.parent / path).resolve() if path else page
        assert file.exists(), target
        generated = re.search(r"^```\{harness-", file.read_text(encoding="utf-8"), re.MULTILINE) if anchor else None
        if anchor and not generated:  # headings that the build writes are held against the built page
            assert anchor in anchors(included(file).read_text(encoding="utf-8")), target


def test_a_page_is_of_one_folder_and_in_the_table_of_contents_once() -> None:
    listed = re.findall(r"^([a-z][\w-]*)$", "\n".join(fenced((DOCS / "index.md").read_text(), "{toctree}")), re.M)
    assert sorted(listed) == sorted(page.stem for page in PAGES if page.stem != "index")


def test_every_plugin_of_this_repository_has_its_card_among_the_pages() -> None:
    cards = {path.resolve() for path in REPOSITORY.glob("plugins/*/README.md")}
    assert cards
    assert cards <= {included(page) for page in PAGES}


def test_the_reference_of_roles_and_functions_names_every_public_name_and_no_other() -> None:
    text = (DOCS / "api.md").read_text(encoding="utf-8")
    named = re.findall(r"^\.\. (?:auto|py:)\w+:: harness\.(\w+)$", text, flags=re.MULTILINE)
    assert sorted(named) == sorted(harness.__all__)


def commands(text: str) -> Iterator[list[str]]:
    """Every ``harness`` command of a page: of its console and shell blocks, and those in the running text."""
    for body in fenced(text, "console"):
        for line in re.findall(r"^\$ (.*)$", body, flags=re.MULTILINE):
            yield shlex.split(line, comments=True)
    for body in fenced(text, "bash", ""):
        for line in re.findall(r"^(?:srun |torchrun .* -m )?(harness .*)$", body, flags=re.MULTILINE):
            yield shlex.split(line, comments=True)
    for span in re.findall(r"`(harness [a-z][^`]*)`", prose(text)):
        words = shlex.split(span)
        yield [*words, PLACEHOLDER] if words[-1].startswith("--") else words  # a flag that is named without its value


def resolved(words: list[str]) -> tuple[click.Command, list[str]]:
    """The command that ``harness WORDS`` calls, with the words that are left for it."""
    command: click.Command = cli
    while isinstance(command, click.Group) and words and not words[0].startswith("-"):
        inner = command.get_command(click.Context(command), words[0])
        assert inner is not None, f"there is no command {words[0]!r} in {command.name}"
        command, words = inner, words[1:]
    return command, words


def require_known(words: list[str]) -> None:
    """That ``harness`` takes these words: commands, flags, choices, numbers, keys of settings."""
    command, rest = resolved([word.strip("[]") for word in words])
    context = click.Context(command, info_name=command.name)
    given, left, _ = command.make_parser(context).parse_args([word for word in rest if word not in ("...", "…")])
    assert set(left) <= {PLACEHOLDER}, f"{command.name} takes no {left}"
    for parameter in command.params:
        value = given.get(str(parameter.name))
        if isinstance(parameter.type, (click.Choice, click.IntRange)) and isinstance(value, str) and value.islower():
            parameter.type.convert(value, parameter, context)
    for assignment in given.get("assignments") or ():
        require_setting(assignment.partition("=")[0])


def require_setting(key: str) -> None:
    """That a key of ``--set`` is one, unless it is of a part that is not of this repository."""
    section, _, field = key.partition(".")
    if section in known():
        assert field in known()[section], key


@cache
def known() -> dict[str, set[str]]:
    """Keys of settings by section or part."""
    core = Catalogue([], extra={"core": Core})["core"]
    plugins = [plugin for plugin in Catalogue().values() if plugin.distribution == "vireid-harness"]
    found: dict[str, set[str]] = {"data": set(), "model": {"backbone"}, "recipe": {"epochs", "iterations"}}
    found["recipe"] |= set(Recipe.model_fields)
    for name in ("features", "clustering", "evaluation", "compute"):
        found[name] = set(type(Settings.model_fields[name].default).model_fields)
    for provider in core.providers:
        found["data" if provider.role == "dataset" else "model"] |= set(provider.options.model_fields)
    for plugin in plugins:
        for provider in plugin.providers:
            found.setdefault(provider.name, set()).update(provider.options.model_fields)
    return found


@pytest.mark.parametrize("page", TEXTS, ids=lambda page: page.name)
def test_every_command_of_a_page_exists_with_its_flags_choices_and_settings(page: Path) -> None:
    for words in commands(page.read_text(encoding="utf-8")):
        if words[0] == "make":
            assert set(words[1:]) <= make_targets(), words
        if words[0] == "harness":
            try:
                require_known(words[1:])
            except click.ClickException as error:
                pytest.fail(f"{shlex.join(words)}: {error.format_message()}")


def make_targets() -> set[str]:
    """What ``make`` can be asked for."""
    return set(re.findall(r"^([a-z-]+):", (REPOSITORY / "Makefile").read_text(encoding="utf-8"), flags=re.MULTILINE))


@pytest.mark.parametrize("page", TEXTS, ids=lambda page: page.name)
def test_every_flag_named_in_the_text_of_a_page_is_one(page: Path) -> None:
    flags = {flag for command in walked(cli) for parameter in command.params for flag in parameter.opts}
    spans = re.findall(r"`(-[^`]*)`", prose(page.read_text(encoding="utf-8")))
    for flag in re.findall(r"(?:^|\s)(--[a-z-]+)", "\n".join(spans)):
        assert flag in flags | OTHERS_FLAGS, flag


def walked(command: click.Command) -> Iterator[click.Command]:
    yield command
    if isinstance(command, click.Group):
        for inner in command.commands.values():
            yield from walked(inner)


@pytest.mark.parametrize(
    "words",
    [
        "harnes", "run pgm", "run --plugin-name pgm", "leaderboard list", "run --precision fp64",
        "run --set recipe.rate=1", "run --set pgm.match=mutual", "data render --size huge --out DIR",
    ],
)  # fmt: skip
def test_a_command_or_setting_that_does_not_exist_is_found(words: str) -> None:
    with pytest.raises((AssertionError, click.ClickException)):
        require_known(words.split())
