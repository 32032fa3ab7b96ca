"""Settings: parsing, precedence, and the resolved file that gives the same run again."""

from __future__ import annotations

import tomllib
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from harness import BackboneProvider, PluginCard, hookimpl
from harness.engine.plan import plan_run
from harness.errors import PluginError, SettingsError
from harness.plugins import Catalogue
from harness.recipe import Recipe, Stage
from harness.settings import (
    Settings,
    apply_recipe,
    make_settings,
    merge,
    parse_assignments,
    read_settings,
    to_toml,
)

RECIPE = Recipe(stages=(Stage(name="a", epochs=10, iterations=7), Stage(name="b", epochs=30, iterations=7)))


class TestAssignments:
    @pytest.mark.parametrize(
        ("text", "value"),
        [
            ("3", 3),
            ("-1", -1),
            ("0.2", 0.2),
            ("1e-3", 1e-3),
            ("true", True),
            ("false", False),
            ("[1, 2]", [1, 2]),
            ('["a", "b"]', ["a", "b"]),
            ('"quoted"', "quoted"),
            ("mutual", "mutual"),
            ("mean-then-hard", "mean-then-hard"),
            ("/data/a=b", "/data/a=b"),
            ("", ""),
            (" spaced ", "spaced"),
            ("True", "True"),
        ],
    )
    def test_values_are_toml_or_else_text(self, text: str, value) -> None:
        parsed = parse_assignments([f"tsmem.switch={text}"])["options"]["tsmem"]["switch"]
        assert parsed == value
        assert type(parsed) is type(value)

    def test_sections_parts_and_plain_settings_go_where_they_belong(self) -> None:
        assert parse_assignments(
            ["recipe.epochs=3", "model.backbone=agw", "seed=4", "pgm.matching=mutual", "options.chc.k1=9"]
        ) == {
            "recipe": {"epochs": 3},
            "model": {"backbone": "agw"},
            "seed": 4,
            "options": {"pgm": {"matching": "mutual"}, "chc": {"k1": 9}},
        }

    def test_the_last_of_two_for_one_option_holds(self) -> None:
        assert parse_assignments(["seed=1", "seed=2"]) == {"seed": 2}

    @pytest.mark.parametrize("text", ["seed", "=3", "a..b=3", ".b=1", "a.=1", ""])
    def test_anything_else_is_refused_and_shown(self, text: str) -> None:
        with pytest.raises(SettingsError, match=r"NAME.OPTION=VALUE"):
            parse_assignments([text])

    def test_an_unknown_plain_setting_suggests_the_near_one(self) -> None:
        with pytest.raises(SettingsError, match=r"no setting 'sed'.*'seed'"):
            parse_assignments(["sed=3"])

    def test_a_plain_value_cannot_hold_a_field(self) -> None:
        with pytest.raises(SettingsError, match="plain value"):
            parse_assignments(["recipe=3", "recipe.epochs=3"])


class TestMaking:
    @pytest.mark.parametrize(
        ("values", "complaint"),
        [
            ({"sead": 1}, "no setting 'sead'.*'seed'"),
            ({"seed": "many"}, "seed.*got 'many'"),
            ({"seed": -1}, "seed.*got -1"),
            ({"evaluation": {"trial": 3}}, "evaluation.trial"),
            ({"evaluation": {"trials": 0}}, "evaluation.trials"),
            ({"evaluation": 3}, "evaluation"),
            ({"compute": {"precision": "fp8"}}, "compute.precision"),
            ({"reference": "magic"}, "reference"),
            ({"recipe": 3}, "recipe"),
            ({"options": {"pgm": 3}}, "options.pgm"),
        ],
    )
    def test_unknown_and_unfit_fields_are_named(self, values, complaint: str) -> None:
        with pytest.raises(SettingsError, match=complaint) as caught:
            make_settings(values)
        assert caught.value.exit_code == 2

    def test_the_run_is_named_after_what_it_is(self) -> None:
        assert make_settings({"plugins": ["chcr", "tsmem"], "seed": 2}).run_name == "rendered-chcr+tsmem-s2"
        assert make_settings({"reference": "supervised"}).run_name == "rendered-supervised-s0"
        assert make_settings({"name": "mine"}).run_name == "mine"

    def test_later_layers_lie_over_earlier_ones(self) -> None:
        assert merge({"a": {"x": 1, "y": 2}, "b": 1}, {"a": {"y": 3}}, {"b": {"z": 1}}) == {
            "a": {"x": 1, "y": 3},
            "b": {"z": 1},
        }


class TestRecipeChanges:
    def test_values_replace_and_epochs_shorten(self) -> None:
        changed = apply_recipe(RECIPE, {"instances": 3, "epochs": 4, "iterations": 2})
        assert changed.instances == 3
        assert [(stage.epochs, stage.iterations) for stage in changed.stages] == [(1, 2), (3, 2)]

    @pytest.mark.parametrize(
        ("changes", "complaint"),
        [
            ({"epoch": 3}, "no field 'epoch'.*'epochs'"),
            ({"epochs": 0}, "recipe.epochs must be a whole number from 1; got 0"),
            ({"epochs": True}, "whole number"),
            ({"iterations": 2.5}, "recipe.iterations"),
            ({"learning_rate": "high"}, "learning_rate.*'high'"),
            ({"optimiser": "lion"}, "optimiser"),
            ({"stages": []}, ""),
        ],
    )
    def test_unfit_values_are_named(self, changes, complaint: str) -> None:
        if changes == {"stages": []}:
            assert apply_recipe(RECIPE, changes).epochs == 0
            return
        with pytest.raises(SettingsError, match=complaint):
            apply_recipe(RECIPE, changes)


class TestFiles:
    def test_a_file_that_is_not_there_or_no_toml_is_named(self, tmp_path: Path) -> None:
        with pytest.raises(SettingsError, match=r"none\.toml: No such file"):
            read_settings(tmp_path / "none.toml")
        with pytest.raises(SettingsError, match="Is a directory"):
            read_settings(tmp_path)
        bad = tmp_path / "bad.toml"
        bad.write_text("seed = = 3")
        with pytest.raises(SettingsError, match=r"bad\.toml is not a TOML file"):
            read_settings(bad)
        bad.write_bytes(b"\xff\xfe")
        with pytest.raises(SettingsError, match="not a TOML file"):
            read_settings(bad)

    @given(
        seed=st.integers(0, 2**31),
        rate=st.floats(0.0, 1e6, exclude_min=True),
        text=st.text(st.characters(codec="utf-8"), max_size=20),
        flag=st.booleans(),
        numbers=st.lists(st.integers(-5, 5), max_size=3),
    )
    def test_settings_survive_the_file(self, seed: int, rate: float, text: str, flag: bool, numbers) -> None:
        settings = make_settings(
            {
                "seed": seed,
                "plugins": ["a", "b"],
                "data_root": "some/where",
                "recipe": {"learning_rate": rate},
                "options": {"part": {"text": text, "flag": flag, "numbers": numbers}},
                "evaluation": {"flip": flag},
            }
        )
        written = to_toml(settings)
        assert make_settings(tomllib.loads(written)) == settings
        assert to_toml(make_settings(tomllib.loads(written))) == written

    def test_the_file_has_no_line_for_what_is_not_set(self) -> None:
        written = to_toml(Settings())
        assert "clusterer" not in written
        assert make_settings(tomllib.loads(written)) == Settings()


class TestResolved:
    @pytest.mark.parametrize("reference", [None, "pretrained", "supervised", "oracle-association"])
    @pytest.mark.parametrize(
        "plugins", [("baseline",), ("tsmem",), ("pgm",), ("chcr", "tsmem"), ("chcr",), ("ipr", "chc", "pgm")]
    )
    def test_the_resolved_file_resolves_to_itself(self, plugins, reference, tmp_path: Path) -> None:
        changes = {"recipe": {"epochs": 4, "instances": 3}, "options": {"contrast": {"weight": 0.5}}}
        first = plan_run(make_settings({"plugins": plugins, "reference": reference, "seed": 5, **changes}))
        file = tmp_path / "settings.toml"
        file.write_text(to_toml(first.settings), encoding="utf-8")
        second = plan_run(make_settings(read_settings(file)))
        assert second.settings == first.settings
        assert second.recipe == first.recipe
        assert [part.options for part in second.selection.parts] == [part.options for part in first.selection.parts]
        assert to_toml(second.settings) == to_toml(first.settings)

    def test_every_option_of_every_part_is_in_the_file(self) -> None:
        plan = plan_run(make_settings({"plugins": ["chcr", "tsmem"]}))
        written = tomllib.loads(to_toml(plan.settings))
        for part in plan.selection.parts:
            assert set(written["options"].get(part.name, {})) == set(part.provider.options.model_fields)
        assert written["compute"]["threads"] >= 1
        assert written["recipe"]["stages"]
        assert written["model"]["backbone"] == plan.backbone.name

    @pytest.mark.parametrize(
        ("values", "error", "complaint"),
        [
            ({"dataset": "sysu"}, PluginError, "no dataset 'sysu'.*'sysu-mm01'"),
            ({"model": {"backbone": "smal"}}, PluginError, "no backbone 'smal'.*'small'"),
            ({"model": {"pretraind": False}}, SettingsError, "no option model.pretraind.*'pretrained'"),
            ({"data": {"sead": 1}}, SettingsError, "no option data.sead.*'seed'"),
            ({"data": {"size": "huge"}}, SettingsError, "data: size"),
            ({"model": {"pretrained": "perhaps"}}, SettingsError, "model: pretrained"),
            ({"recipe_of": "tsmem"}, PluginError, "'tsmem' has no recipe"),
            ({"plugins": ["chrc"]}, PluginError, "no plugin 'chrc'.*'chcr'"),
        ],
    )
    def test_a_plan_that_cannot_be_made_says_why(self, values, error, complaint: str) -> None:
        with pytest.raises(error, match=complaint):
            plan_run(make_settings(values))

    def test_an_encoder_that_a_plugin_offers_under_a_taken_name_is_refused(self) -> None:
        class Odd:
            @hookimpl
            def harness_plugin():
                return PluginCard("", "part")

            @hookimpl
            def harness_backbones():
                yield BackboneProvider("small", "nowhere:Small", "")

        with pytest.raises(PluginError, match="'core' and 'odd' each provide a backbone 'small'"):
            plan_run(make_settings({"plugins": ["odd"]}), Catalogue(extra={"odd": Odd}))
