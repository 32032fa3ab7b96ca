"""The reference pages that are written from the code: types, bounds and defaults in words, tables, links."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal

import click
import command_pages
import fields
import plugin_pages
import protocol_pages
import pytest
import record_pages
import repository_links
import settings_pages
from pydantic import BaseModel, Field

from harness import Options, Recipe, Stage
from harness.evaluation import PROTOCOLS
from harness.leaderboard import Record
from harness.providers import LossProvider
from harness.settings import Settings


class Inner(BaseModel):
    """Held by another."""


class ManyOptions(Options):
    """One of each."""

    momentum: float = Field(0.1, ge=0, lt=1, description="Share | of the *old* one.")
    mode: Literal["mean", "hard"] = Field("mean", description="How.")
    rounds: int | None = Field(None, ge=1)
    views: tuple[str, ...] = ("plain",)
    weight: float = Field(description="Required.")
    cameras: bool = Field(False, json_schema_extra={"uses": "camera labels"})


class TestWords:
    @pytest.mark.parametrize(
        ("annotation", "words"),
        [
            (int, "whole number"),
            (bool, "true or false"),
            (Path | None, "path or nothing"),
            (Literal["a", "b"], "`a` or `b`"),
            (list[int], "list of whole numbers"),
            (dict[str, Any], "table"),
            (dict[str, list[float]], "list of numbers, by text"),
            (list[Annotated[float, Field(ge=0, le=1)]], "list of numbers (≥ 0, ≤ 1)"),
            (Inner, "[Inner](#inner)"),
        ],
        ids=str,
    )
    def test_a_type_is_said_in_words(self, annotation: Any, words: str) -> None:
        assert fields.type_words(annotation).replace("\N{NO-BREAK SPACE}", " ") == words

    def test_fields_are_rows_with_type_bounds_default_and_description(self) -> None:
        rows = [[entry.replace("\N{NO-BREAK SPACE}", " ") for entry in row] for row in fields.field_rows(ManyOptions)]
        assert rows[:5] == [
            ["`momentum`", "number (≥ 0, < 1)", "`0.1`", "Share | of the *old* one."],
            ["`mode`", "`mean` or `hard`", "`mean`", "How."],
            ["`rounds`", "whole number or nothing (≥ 1)", "none", ""],
            ["`views`", "list of text", '`["plain"]`', ""],
            ["`weight`", "number", "required", "Required."],
        ]

    def test_a_cell_keeps_code_and_links_and_escapes_what_would_be_markup(self) -> None:
        assert fields.cell("a | *b* <c> [d] ``e|f`` [g](#g)") == r"a \| \*b\* \<c> \[d\] `e\|f` [g](#g)"

    def test_a_column_that_is_empty_in_every_row_is_left_out(self) -> None:
        assert fields.table(["a", "b"], [["1", ""], ["2", ""]]) == "| a |\n| --- |\n| 1 |\n| 2 |\n"
        assert fields.table(["a"], []) == ""


class TestPlugins:
    def test_presets_and_extra_information_stand_beside_the_default(self) -> None:
        provider = LossProvider(
            "many", "x:y", "Many.", ManyOptions, {"rendered": {"momentum": 0.5}, "regdb": {"rounds": 2}}
        )
        rows = {row[0]: row for row in plugin_pages.option_rows(provider)}
        assert rows["`momentum`"][3] == "rendered `0.5`"
        assert rows["`rounds`"][3] == "regdb `2`"
        assert rows["`cameras`"][4].endswith("Uses camera labels.")

    def test_each_part_is_described_once_and_under_its_own_name_if_a_plugin_has_that(self) -> None:
        homes = plugin_pages.homes(plugin_pages.in_tree())
        of = {key.partition(" ")[0]: plugin.name for key, plugin in homes.items()}
        assert of["pgm"] == "pgm"
        assert of["contrast"] == "baseline"

    def test_every_plugin_with_a_recipe_shows_every_stage_of_it(self) -> None:
        text = plugin_pages.plugins()
        for plugin in plugin_pages.in_tree().values():
            assert f"\n## {plugin.name}\n" in f"\n{text}\n"
            if plugin.has_recipe:
                for stage in plugin.recipe("rendered").stages:
                    assert f"`{stage.name}`: {stage.epochs} × {stage.iterations}" in text


def test_every_setting_and_every_value_of_a_recipe_has_a_row() -> None:
    text = settings_pages.settings()
    for name, model in settings_pages.sections().items():
        assert all(f"| `{name}.{field}` |" in text for field in model.model_fields)
    assert all(f"| `{name}` |" in text for name in Settings.model_fields if name not in settings_pages.sections())
    assert all(f"| `recipe.{name}` |" in settings_pages.recipe() for name in Recipe.model_fields if name != "stages")
    assert all(f"| `{name}` |" in settings_pages.stage() for name in Stage.model_fields)


def test_every_protocol_has_a_section_with_its_definition() -> None:
    for protocol in PROTOCOLS.values():
        text = protocol_pages.protocols(protocol.dataset)
        assert f"### {protocol.identifier}\n" in text
        assert all(f"| {subject} | " in text for subject in protocol.definition())


class TestRecord:
    def test_every_model_that_a_record_holds_has_a_section_and_every_field_a_row(self) -> None:
        text = record_pages.schema()
        models = record_pages.models()
        assert {"Record", "DatasetCard", "Figures", "Cost", "PartitionQuality"} <= {model.__name__ for model in models}
        for model in models:
            section = text.partition(f"## {model.__name__}\n")[2].partition("\n## ")[0]
            assert all(f"| `{name}` |" in section for name in model.model_fields)

    def test_what_the_docstring_says_of_a_field_stands_beside_it(self) -> None:
        assert record_pages.described("name: the folder. ``method``: what it is.\n  seed: of the run.") == {
            "name": "the folder.",
            "method": "what it is.",
            "seed": "of the run.",
        }
        said = record_pages.described((Record.__doc__ or "").partition("Attributes:")[2])
        assert set(said) <= set(Record.model_fields)
        assert said["skipped_epochs"] == "epochs without training, because every image was an outlier."


class TestCommands:
    def test_every_command_has_a_section_and_every_flag_a_row(self) -> None:
        text = command_pages.commands()
        found = dict(command_pages.walk(command_pages.cli, "harness"))
        assert {"harness run", "harness data check", "harness leaderboard build"} <= set(found)
        for name, command in found.items():
            section = text.partition(f"## {name}\n")[2].partition("\n## ")[0]
            for parameter in command.params:
                if isinstance(parameter, click.Option):
                    assert all(f"`{flag}`" in section for flag in parameter.opts)

    def test_values_and_defaults_are_said_and_examples_keep_their_lines(self) -> None:
        @click.command()
        @click.argument("folders", nargs=-1)
        @click.option("--trials", type=click.IntRange(1, 10), default=10, show_default=True, help="Galleries.")
        @click.option("--distance", type=click.Choice(["cosine", "euclidean"]))
        def score(**_: object) -> None:
            """Score.

            \b
            score a
            score b
            """

        text = "\n".join(command_pages._command("score", score).split("\N{NO-BREAK SPACE}"))
        assert "```text\nscore a\nscore b\n```" in text
        assert "| `FOLDERS...` |" in text
        assert "| `--trials` | whole number (≥\n1, ≤\n10) |" in text
        assert "| `10` | Galleries. |" in text
        assert "`cosine` or `euclidean`" in text


class TestLinks:
    @pytest.fixture
    def folder(self, tmp_path: Path) -> Path:
        for name in ("docs/hooks.md", "docs/images/a.png", "harness/errors.py", "RULES.md", "plugins/one/README.md"):
            (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
            (tmp_path / name).write_text("# Here\n")
        (tmp_path / "docs" / "rules.md").write_text("```{include} ../RULES.md\n```\n")
        return tmp_path

    def on_the_site(self, text: str, root: Path, *, folder: str = "docs") -> str:
        docs = root / "docs"
        pages = repository_links.files_with_a_page(docs)
        return repository_links.on_the_site(text, folder=root / folder, docs=docs, pages=pages)

    @pytest.mark.parametrize(
        ("there", "here"),
        [
            ("[a](hooks.md#b)", "[a](hooks.md#b)"),
            ("[a](../RULES.md#b)", "[a](rules.md#b)"),
            ("[a](../harness/errors.py)", "a"),
            ("[a](../plugins/one)", "a"),
            ("[a](nowhere.md)", "[a](nowhere.md)"),
            ("[a](https://example.org)", "[a](https://example.org)"),
            ("[a](#b)", "[a](#b)"),
            ("![a](images/a.png)", "![a](images/a.png)"),
            ("```\n[a](../RULES.md)\n```", "```\n[a](../RULES.md)\n```"),
        ],
    )
    def test_a_link_of_a_page_leads_to_a_page_or_is_text(self, folder: Path, there: str, here: str) -> None:
        assert self.on_the_site(there, folder) == here

    def test_links_of_an_included_file_are_seen_from_where_it_stands(self, folder: Path) -> None:
        there = "[a](../../docs/hooks.md) [b](../../RULES.md) [c](README.md)"
        assert self.on_the_site(there, folder, folder="plugins/one") == "[a](hooks.md) [b](rules.md) c"
