"""Directives that write reference pages from the code: options, recipes, settings, protocols, records, commands.

Each writes Markdown, with the functions of the module of its subject, and hands it to the parser of the page.
"""

from __future__ import annotations

from typing import Any, ClassVar

import command_pages
import plugin_pages
import protocol_pages
import record_pages
import settings_pages
from docutils import nodes
from sphinx.application import Sphinx
from sphinx.util.docutils import SphinxDirective


class _Generated(SphinxDirective):
    """Markdown from :meth:`markdown`, in place of the directive: with a heading first, or with none."""

    has_content: ClassVar[bool] = False
    required_arguments: ClassVar[int] = 0

    def markdown(self) -> str:
        raise NotImplementedError

    def run(self) -> list[nodes.Node]:
        self.env.note_reread()  # a change of the code changes no file that the page is made from
        return self.parse_text_to_nodes(self.markdown(), allow_section_headings=True)


class Plugins(_Generated):
    """Every plugin of this repository: card, parts, options, presets, recipe."""

    def markdown(self) -> str:
        return plugin_pages.plugins()


class SettingsTables(_Generated):
    """Every setting of a run."""

    def markdown(self) -> str:
        return settings_pages.settings()


class RecipeTable(_Generated):
    """Every value of a recipe."""

    def markdown(self) -> str:
        return settings_pages.recipe()


class StageTable(_Generated):
    """Every value of a stage."""

    def markdown(self) -> str:
        return settings_pages.stage()


class Protocols(_Generated):
    """The protocols of one dataset."""

    required_arguments: ClassVar[int] = 1

    def markdown(self) -> str:
        return protocol_pages.protocols(self.arguments[0])


class RecordSchema(_Generated):
    """Every field of a run's record."""

    def markdown(self) -> str:
        return record_pages.schema()


class Commands(_Generated):
    """Every command of the command line."""

    def markdown(self) -> str:
        return command_pages.commands()


def setup(app: Sphinx) -> dict[str, Any]:
    app.add_directive("harness-plugins", Plugins)
    app.add_directive("harness-stage", StageTable)
    app.add_directive("harness-settings", SettingsTables)
    app.add_directive("harness-recipe", RecipeTable)
    app.add_directive("harness-protocols", Protocols)
    app.add_directive("harness-record", RecordSchema)
    app.add_directive("harness-commands", Commands)
    return {"version": "1", "parallel_read_safe": True, "parallel_write_safe": True}
