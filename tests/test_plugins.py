"""Choosing parts by name, and keeping a plugin's faults to itself."""

from __future__ import annotations

from importlib.metadata import EntryPoint
from types import SimpleNamespace
from typing import Any

import pytest
from pydantic import Field

from harness import hookimpl
from harness.errors import HarnessError, PluginError, SettingsError
from harness.plugins import SECTIONS, Catalogue, load, select
from harness.providers import (
    ClustererProvider,
    ImageTransformProvider,
    LabelRefinerProvider,
    LossProvider,
    MemoryProvider,
    Options,
    Paper,
    PluginCard,
    Provider,
)
from harness.recipe import Recipe, Stage
from harness.settings import Settings

SMALL_PLUGIN = """
from types import SimpleNamespace
from harness.hookspecs import hookimpl
from harness.providers import LossProvider, Options, PluginCard

class Knobs(Options):
    weight: int = 1

@hookimpl
def harness_plugin():
    return PluginCard("Small.", "part")

@hookimpl
def harness_losses():
    return [LossProvider("small-loss", "nowhere:Loss", "Small.", Knobs)]

plugin = SimpleNamespace(harness_plugin=harness_plugin, harness_losses=harness_losses)
"""

RECIPE = Recipe(stages=(Stage(name="only", epochs=1, iterations=1),))
SHARED = LossProvider("shared", "nowhere:Shared", "Offered by several.")


class Knobs(Options):
    eps: float = Field(0.5, ge=0, le=1, description="Radius.")
    k1: int = Field(20, ge=1, description="Neighbours.")


def plugin(*providers: Provider, kind: str = "method", recipe: Any = None, api: int = 1) -> Any:
    """A plugin object that offers these providers; it counts how often it is asked."""
    asked: list[str] = []

    def of(wanted: type[Provider], hook: str):
        def offer():
            asked.append(hook)
            return [provider for provider in providers if type(provider) is wanted]

        offer.__name__ = hook
        return hookimpl(offer)

    members: dict[str, Any] = {
        hook: of(wanted, hook)
        for hook, wanted in {
            "harness_clusterers": ClustererProvider,
            "harness_label_refiners": LabelRefinerProvider,
            "harness_memories": MemoryProvider,
            "harness_losses": LossProvider,
            "harness_image_transforms": ImageTransformProvider,
        }.items()
    }

    @hookimpl
    def harness_plugin():
        asked.append("harness_plugin")
        return PluginCard("Made up.", kind, api=api)

    members["harness_plugin"] = harness_plugin
    if recipe is not None:

        @hookimpl
        def harness_recipe(dataset):
            asked.append("harness_recipe")
            return recipe(dataset)

        members["harness_recipe"] = harness_recipe
    return SimpleNamespace(**members, asked=asked)


def clusterer(name: str) -> ClustererProvider:
    return ClustererProvider(name, f"nowhere:{name}", "", Knobs, {"rendered": {"k1": 14}})


def memory(name: str) -> MemoryProvider:
    return MemoryProvider(name, f"nowhere:{name}", "")


def refiner(name: str) -> LabelRefinerProvider:
    return LabelRefinerProvider(name, f"nowhere:{name}", "")


def loss(name: str) -> LossProvider:
    return LossProvider(name, f"nowhere:{name}", "")


def transform(name: str) -> ImageTransformProvider:
    return ImageTransformProvider(name, f"nowhere:{name}", "")


def catalogue(**extra: Any) -> Catalogue:
    ground = plugin(clusterer("plain-c"), memory("plain-m"), SHARED, recipe=lambda dataset: RECIPE)
    return Catalogue(points=[], extra={"baseline": ground, **extra})


def named(selection) -> tuple[Any, ...]:
    return (
        selection.clusterer.name,
        tuple(part.name for part in selection.refiners),
        selection.memory.name,
        tuple(part.name for part in selection.losses),
    )


class TestSelection:
    def test_the_baseline_fills_every_slot_that_is_left_open(self) -> None:
        chosen = select(catalogue(fine=plugin(refiner("r"), kind="part")), ["fine"], dataset="rendered")
        assert named(chosen) == ("plain-c", ("r",), "plain-m", ("shared",))
        assert chosen.recipe == RECIPE
        assert chosen.recipe_plugin.name == "baseline"

    def test_nothing_named_is_the_baseline(self) -> None:
        assert named(select(catalogue(), [], dataset="rendered")) == ("plain-c", (), "plain-m", ("shared",))

    @pytest.mark.parametrize("names", [["whole", "piece"], ["piece", "whole"]])
    def test_a_part_takes_the_slot_of_a_method_whatever_the_order(self, names: list[str]) -> None:
        known = catalogue(
            whole=plugin(clusterer("c"), memory("m"), loss("l")), piece=plugin(memory("better"), kind="part")
        )
        chosen = select(known, names, dataset="rendered")
        assert named(chosen) == ("c", (), "better", ("l",))
        assert chosen.notes == ("memory: better takes the place of the one that whole brings.",)

    def test_refiners_losses_and_transforms_come_in_the_order_named(self) -> None:
        known = catalogue(
            one=plugin(refiner("r1"), loss("l1"), transform("t1")),
            two=plugin(refiner("r2"), loss("l2"), transform("t2")),
        )
        for names in (["one", "two"], ["two", "one"]):
            chosen = select(known, names, dataset="rendered")
            ends = ["1" if name == "one" else "2" for name in names]
            assert [part.name for part in chosen.refiners] == [f"r{end}" for end in ends]
            assert [part.name for part in chosen.losses] == [f"l{end}" for end in ends]
            assert [part.name for part in chosen.transforms] == [f"t{end}" for end in ends]

    def test_the_order_of_the_catalogue_changes_nothing(self) -> None:
        one, two = plugin(refiner("r1"), clusterer("c")), plugin(refiner("r2"), memory("m"))
        there, back = catalogue(one=one, two=two), catalogue(two=two, one=one)
        names = ["one", "two"]
        assert named(select(there, names, dataset="rendered")) == named(select(back, names, dataset="rendered"))

    def test_a_shared_loss_is_used_once(self) -> None:
        known = catalogue(one=plugin(SHARED, loss("l1")), two=plugin(SHARED, loss("l2")))
        assert named(select(known, ["one", "two"], dataset="rendered"))[3] == ("shared", "l1", "l2")

    def test_naming_a_plugin_twice_is_naming_it_once(self) -> None:
        known = catalogue(one=plugin(refiner("r")))
        assert named(select(known, ["one", "one"], dataset="rendered"))[1] == ("r",)

    @pytest.mark.parametrize(("make", "flag"), [(clusterer, "--clusterer"), (memory, "--memory")])
    def test_two_for_one_slot_are_both_named_with_the_flag_that_chooses(self, make, flag: str) -> None:
        known = catalogue(one=plugin(make("x")), two=plugin(make("y")))
        with pytest.raises(PluginError, match=rf"'one' \(x\) and 'two' \(y\).*{flag} one or {flag} two") as caught:
            select(known, ["one", "two"], dataset="rendered")
        assert caught.value.exit_code == 2

    def test_two_parts_for_one_slot_conflict_as_well(self) -> None:
        known = catalogue(
            one=plugin(memory("x"), kind="part"), two=plugin(memory("y"), kind="part"), whole=plugin(memory("z"))
        )
        with pytest.raises(PluginError, match=r"'one'.*'two'"):
            select(known, ["whole", "one", "two"], dataset="rendered")

    @pytest.mark.parametrize("wanted", ["two", "y"])
    def test_the_flag_takes_a_plugin_or_a_part_by_name(self, wanted: str) -> None:
        known = catalogue(one=plugin(clusterer("x"), memory("x-m")), two=plugin(clusterer("y"), memory("y-m")))
        chosen = select(known, ["one", "two"], dataset="rendered", clusterer=wanted, memory="one")
        assert named(chosen) == ("y", (), "x-m", ("shared",))

    def test_the_flag_may_go_back_to_the_baseline(self) -> None:
        known = catalogue(one=plugin(clusterer("x"), memory("x-m")))
        chosen = select(known, ["one"], dataset="rendered", clusterer="baseline", memory="plain-m")
        assert named(chosen)[::2] == ("plain-c", "plain-m")

    def test_a_flag_that_names_nothing_suggests_what_there_is(self) -> None:
        known = catalogue(one=plugin(clusterer("density")))
        with pytest.raises(PluginError, match=r"clusterer 'densty'.*Did you mean 'density'"):
            select(known, ["one"], dataset="rendered", clusterer="densty")

    def test_one_provider_offered_by_two_plugins_is_no_conflict(self) -> None:
        same = clusterer("same")
        known = catalogue(one=plugin(same), two=plugin(same))
        assert named(select(known, ["one", "two"], dataset="rendered"))[0] == "same"

    def test_two_different_parts_under_one_name_are_refused(self) -> None:
        known = catalogue(one=plugin(loss("l")), two=plugin(LossProvider("l", "elsewhere:l", "")))
        with pytest.raises(PluginError, match=r"called 'l'.*'one'.*'two'"):
            select(known, ["one", "two"], dataset="rendered")

    def test_the_first_named_recipe_rules_unless_another_is_chosen(self) -> None:
        def recipe(name: str):
            return lambda dataset: Recipe(stages=(Stage(name=f"{name} on {dataset}", epochs=1, iterations=1),))

        known = catalogue(bare=plugin(), one=plugin(recipe=recipe("one")), two=plugin(recipe=recipe("two")))
        names = ["bare", "two", "one"]
        assert select(known, names, dataset="regdb").recipe.stages[0].name == "two on regdb"
        chosen = select(known, names, dataset="regdb", recipe="one")
        assert (chosen.recipe.stages[0].name, chosen.recipe_plugin.name) == ("one on regdb", "one")

    def test_a_recipe_of_none_leaves_it_to_the_next(self) -> None:
        known = catalogue(one=plugin(recipe=lambda dataset: None))
        assert select(known, ["one"], dataset="rendered").recipe_plugin.name == "baseline"
        with pytest.raises(PluginError, match="'one' has no recipe for the dataset 'rendered'"):
            select(known, ["one"], dataset="rendered", recipe="one")

    def test_a_recipe_that_is_none_of_ours_is_blamed_on_its_plugin(self) -> None:
        known = catalogue(one=plugin(recipe=lambda dataset: {"epochs": 3}))
        with pytest.raises(PluginError, match=r"harness_recipe of plugin 'one' must return a harness.Recipe.*dict"):
            select(known, ["one"], dataset="rendered")

    def test_a_recipe_hook_that_raises_is_blamed_on_its_plugin(self) -> None:
        known = catalogue(one=plugin(recipe=lambda dataset: {}[dataset]))
        with pytest.raises(PluginError, match="harness_recipe of plugin 'one' failed for 'rendered': KeyError"):
            select(known, ["one"], dataset="rendered")


class TestOptions:
    def test_defaults_presets_and_choices_lie_over_each_other(self) -> None:
        chosen = select(catalogue(), [], dataset="rendered", options={"plain-c": {"eps": 0.7}})
        assert chosen.clusterer.options == Knobs(eps=0.7, k1=14)
        assert select(catalogue(), [], dataset="regdb").clusterer.options == Knobs()

    def test_an_unknown_option_suggests_the_near_ones(self) -> None:
        with pytest.raises(SettingsError, match=r"clusterer 'plain-c' has no option 'esp'\. Did you mean 'eps'"):
            select(catalogue(), [], dataset="rendered", options={"plain-c": {"esp": 1}})

    def test_an_unknown_option_far_from_all_lists_the_known(self) -> None:
        with pytest.raises(SettingsError, match="Known: eps, k1"):
            select(catalogue(), [], dataset="rendered", options={"plain-c": {"temperature": 1}})

    @pytest.mark.parametrize("value", ["wide", 7, None, [0.1], float("nan")])
    def test_an_ill_typed_or_unfit_value_is_named(self, value: Any) -> None:
        with pytest.raises(SettingsError, match=r"plain-c: eps: .*got"):
            select(catalogue(), [], dataset="rendered", options={"plain-c": {"eps": value}})

    def test_options_of_a_part_that_is_not_used_are_refused(self) -> None:
        known = catalogue(one=plugin(clusterer("c")))
        with pytest.raises(SettingsError, match="No part named 'plain-c' is used in this run"):
            select(known, ["one"], dataset="rendered", options={"plain-c": {"eps": 0.1}})


class TestFaults:
    def problem(self, target: Any) -> str:
        found = load("odd", target)
        assert found.problem is not None
        assert found.providers == ()
        return found.problem

    def test_a_misspelt_hook(self) -> None:
        class Odd:
            @hookimpl
            def harness_plugin():
                return PluginCard("", "part")

            @hookimpl
            def harness_clusterer():
                return []

        assert "harness_clusterer" in self.problem(Odd)

    def test_a_hook_with_an_argument_too_many(self) -> None:
        class Odd:
            @hookimpl
            def harness_plugin(card):
                return PluginCard("", "part")

        assert "card" in self.problem(Odd)

    def test_no_card(self) -> None:
        class Odd:
            @hookimpl
            def harness_losses():
                yield loss("l")

        assert "harness_plugin is missing" in self.problem(Odd)
        assert "harness_plugin is missing" in self.problem(SimpleNamespace())

    def test_a_card_of_another_type(self) -> None:
        class Odd:
            @hookimpl
            def harness_plugin():
                return {"summary": "x"}

        assert "PluginCard" in self.problem(Odd)

    def test_another_hook_api(self) -> None:
        assert "hook API 99; this harness speaks 1" in self.problem(plugin(api=99))

    def test_two_parts_of_one_role_under_one_name(self) -> None:
        assert "two parts of one role under the name 'l'" in self.problem(plugin(loss("l"), loss("l")))

    def test_a_provider_of_another_role(self) -> None:
        class Odd:
            @hookimpl
            def harness_plugin():
                return PluginCard("", "part")

            @hookimpl
            def harness_memories():
                yield loss("l")

        assert "harness_memories yields MemoryProvider values; got LossProvider" in self.problem(Odd)

    def test_a_hook_that_raises_or_yields_no_providers(self) -> None:
        class Raises:
            @hookimpl
            def harness_plugin():
                return PluginCard("", "part")

            @hookimpl
            def harness_losses():
                raise OSError("no such weights")

        class Odd(Raises):
            @hookimpl
            def harness_losses():
                return 7

        assert "OSError: no such weights" in self.problem(Raises)
        assert "TypeError" in self.problem(Odd)

    def test_are_raised_only_for_a_plugin_that_is_named(self) -> None:
        known = catalogue(odd=plugin(api=99), fine=plugin(loss("l")))
        assert [name for name in known if known[name].problem] == ["odd"]
        assert named(select(known, ["fine"], dataset="rendered"))[3] == ("l",)
        with pytest.raises(PluginError, match=r"plugin 'odd'.*hook API 99"):
            select(known, ["odd"], dataset="rendered")

    def test_an_unknown_plugin_suggests_near_names(self) -> None:
        known = catalogue(tsmem=plugin(), chcr=plugin())
        with pytest.raises(PluginError, match=r"no plugin 'tsmen'\. Did you mean 'tsmem'\?.*harness plugins"):
            select(known, ["tsmen"], dataset="rendered")

    def test_hooks_of_a_plugin_that_is_not_named_are_not_called(self) -> None:
        other, used = plugin(loss("x"), recipe=lambda dataset: RECIPE), plugin(loss("l"))
        select(catalogue(other=other, used=used), ["used"], dataset="rendered")
        assert other.asked == []
        assert "harness_losses" in used.asked


class TestEntryPoints:
    def point(self, name: str, value: str) -> EntryPoint:
        return EntryPoint(name=name, value=value, group="harness.plugins")

    def test_a_plugin_that_cannot_be_imported_is_listed_with_the_reason(self, tmp_path, monkeypatch) -> None:
        (tmp_path / "raising_plugin.py").write_text("raise RuntimeError('no licence')\n")
        (tmp_path / "leaving_plugin.py").write_text("import sys; sys.exit(3)\n")
        monkeypatch.syspath_prepend(tmp_path)
        known = Catalogue(
            points=[
                self.point("raising", "raising_plugin:Plugin"),
                self.point("leaving", "leaving_plugin:Plugin"),
                self.point("absent", "no_such_module_anywhere:Plugin"),
                self.point("hollow", "json:Plugin"),
            ],
            extra={"fine": plugin(loss("l"))},
        )
        problems = {name: known[name].problem for name in known}
        assert "RuntimeError: no licence" in problems["raising"]
        assert "SystemExit: 3" in problems["leaving"]
        assert "ModuleNotFoundError" in problems["absent"]
        assert "AttributeError" in problems["hollow"]
        assert problems["fine"] is None

    def test_a_name_that_two_distributions_claim_is_broken(self, monkeypatch) -> None:
        points = [self.point("twin", "json:loads"), self.point("twin", "json:dumps")]
        owners = iter([("first", "1.0"), ("second", "2.0")])
        by_point = {id(point): next(owners) for point in points}
        monkeypatch.setattr("harness.plugins._owner", lambda point: by_point[id(point)])
        problem = Catalogue(points=points)["twin"].problem
        assert problem == "two distributions claim this name: first and second."

    @pytest.mark.parametrize(
        ("lines", "complaint"),
        [
            ("import torch", "loads torch when it is imported"),
            ("from torch.nn import Linear as anything", "loads torch when it is imported"),
            ("from pandas import read_csv", "loads pandas when it is imported"),
        ],
    )
    def test_a_plugin_that_loads_a_heavy_library_is_broken(self, lines, complaint, tmp_path, monkeypatch) -> None:
        module = f"heavy_{complaint.split()[1]}_{len(lines)}"
        (tmp_path / f"{module}.py").write_text(f"{lines}\n{SMALL_PLUGIN}")
        monkeypatch.syspath_prepend(tmp_path)
        known = Catalogue(points=[self.point("slow", f"{module}:plugin"), self.point("light", "harness_chcr:Chcr")])
        assert complaint in str(known["slow"].problem)
        assert known["light"].problem is None
        with pytest.raises(PluginError, match=f"The plugin 'slow'.*{complaint}"):
            known.require("slow")

    @pytest.mark.parametrize(
        ("part", "complaint"),
        [
            ("clustering", "'clustering', a section of the core's settings"),
            ("a.b", "use letters, digits"),
            ("tsmem", "'tsmem', which is what the in-tree plugin"),
            pytest.param(
                "shadowing",
                "shadowing.uses, a name that every Options class has",
                marks=pytest.mark.filterwarnings("ignore:Field name .uses. in .Knobs. shadows"),
            ),
        ],
    )
    def test_a_plugin_whose_names_clash_is_broken(self, part, complaint, tmp_path, monkeypatch) -> None:
        module = f"clashing_{part.replace('.', '_')}"
        option = "uses" if part == "shadowing" else "weight"
        text = SMALL_PLUGIN.replace("small-loss", part).replace("weight", option)
        (tmp_path / f"{module}.py").write_text(text)
        monkeypatch.syspath_prepend(tmp_path)
        monkeypatch.setattr(
            "harness.plugins._owner",
            lambda point: ("elsewhere", "1.0") if point.module == module else ("vireid-harness", "0.1.0"),
        )
        points = [self.point("clashing", f"{module}:plugin"), self.point("tsmem", "harness_ecul:Tsmem")]
        known = Catalogue(points=[*points, self.point("baseline", "harness_baseline:Baseline")])
        assert complaint in str(known["clashing"].problem)
        assert known["baseline"].problem is None
        assert known["tsmem"].problem is None

    def test_a_plugin_may_lend_an_in_tree_part(self, tmp_path, monkeypatch) -> None:
        text = "from harness_ecul import Tsmem\nplugin = Tsmem\n"
        (tmp_path / "lending_plugin.py").write_text(text)
        monkeypatch.syspath_prepend(tmp_path)
        owners = {"lending_plugin": ("elsewhere", "1.0")}
        monkeypatch.setattr("harness.plugins._owner", lambda point: owners.get(point.module, ("vireid-harness", "1")))
        points = [self.point("lending", "lending_plugin:plugin"), self.point("tsmem", "harness_ecul:Tsmem")]
        known = Catalogue(points=[*points, self.point("baseline", "harness_baseline:Baseline")])
        assert known["lending"].problem is None

    def test_the_sections_are_those_of_the_settings(self) -> None:
        nested = {name for name, field in Settings.model_fields.items() if field.default_factory or name in SECTIONS}
        assert nested - {"options"} == set(SECTIONS)

    def test_are_not_imported_before_they_are_asked_for(self) -> None:
        known = Catalogue(points=[self.point("absent", "no_such_module_anywhere:Plugin")])
        assert list(known) == ["absent"]
        assert len(known) == 1
        assert "absent" not in known._loaded

    def test_in_tree_plugins_are_all_found_and_sound(self) -> None:
        known = Catalogue()
        assert {"baseline", "pgm", "chcr", "chc", "ipr", "tsmem"} <= set(known)
        assert [found.problem for found in known.values() if found.problem] == []


class TestMaking:
    def chosen(self, factory: str):
        part = ClustererProvider("c", factory, "")
        return select(catalogue(one=plugin(part)), ["one"], dataset="rendered").clusterer

    @pytest.mark.parametrize(
        ("factory", "complaint"),
        [
            ("no_such_module_anywhere:C", "ModuleNotFoundError"),
            ("json:NoSuchThing", "AttributeError"),
            ("json:loads", "TypeError"),
            ("math:sqrt", "TypeError"),
            ("json", "AttributeError"),
        ],
    )
    def test_a_factory_that_fails_is_blamed_on_its_plugin(self, factory: str, complaint: str) -> None:
        with pytest.raises(PluginError, match=f"clusterer 'c' of plugin 'one'.*{factory}.*{complaint}"):
            self.chosen(factory).make()

    def test_any_exception_of_a_factory_names_the_plugin(self, monkeypatch) -> None:
        def refuse(options):
            raise ValueError("no room")

        monkeypatch.setattr("json.loads", refuse)
        with pytest.raises(PluginError, match=r"plugin 'one'.*ValueError: no room"):
            self.chosen("json:loads").make()

    def test_an_error_meant_for_the_user_passes_unchanged(self, monkeypatch) -> None:
        def refuse(options):
            raise HarnessError("fetch the weights first")

        monkeypatch.setattr("json.loads", refuse)
        with pytest.raises(HarnessError, match=r"^fetch the weights first$"):
            self.chosen("json:loads").make()


def test_a_plugin_tells_its_roles_in_the_order_of_the_pipeline() -> None:
    found = load("x", plugin(loss("l"), memory("m"), clusterer("c")))
    assert found.roles == ("clusterer", "memory", "loss")
    assert not found.has_recipe
    assert PluginCard("s", "method", Paper("t", "CVPR", 2023)).paper.year == 2023
