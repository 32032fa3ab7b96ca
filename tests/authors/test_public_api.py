"""What an author of a plugin may rely on: names, hooks, their version, and how they go."""

from __future__ import annotations

import dataclasses
import inspect
import re
import subprocess
import sys
import types
from pathlib import Path
from typing import Any

import pytest

import harness
from harness import PluginCard, hookimpl, hookspecs
from harness.plugins import Catalogue, load, select
from harness.providers import HOOK_API_VERSION

PUBLIC = {
    # errors
    "HarnessError", "SettingsError", "PluginError", "ContractError", "TrainingError",
    # what a plugin says
    "hookimpl", "PluginCard", "Paper", "Options", "USES_CAMERAS", "CAMERA_LABELS", "Recipe", "Stage",
    "ClustererProvider", "LabelRefinerProvider", "MemoryProvider", "LossProvider", "ImageTransformProvider",
    "BackboneProvider", "DatasetProvider",
    # what its parts are
    "Part", "Clusterer", "LabelRefiner", "Memory", "Loss",
    # values that parts exchange
    "Setup", "TrainIndex", "Modality", "EpochContext", "Partition", "PseudoLabels", "Draw", "Batch", "Embeddings",
    "Bank", "BankKind", "OUTLIER", "compact", "follow",
    # clustering, matching, memory updates, contrast
    "k_reciprocal_jaccard", "dbscan", "cluster_means", "balanced_means", "centre_by_camera",
    "greedy_vote_matching", "mutual_nearest_clusters", "progressive_graph_matching", "NO_PARTNER",
    "momentum_update", "multi_centre_update", "hard_update", "hybrid_update", "random_replacement",
    "cluster_contrast",
    # what observers are told, and what they add to a report
    "ObservedRun", "ObservedEpoch", "ObservedResult", "ObservedFailure", "ReportedRun", "ReportSection",
    "__version__",
}  # fmt: skip
"""A name that goes from here breaks somebody's plugin: deprecate it first, see docs/hooks.md."""


def hooks() -> dict[str, list[str]]:
    """Every hook of the specifications, with its arguments."""
    found = vars(hookspecs).items()
    return {name: list(inspect.signature(spec).parameters) for name, spec in found if name.startswith("harness_")}


def test_the_public_names_are_these_and_no_others() -> None:
    assert set(harness.__all__) == PUBLIC
    assert len(harness.__all__) == len(PUBLIC)


def test_every_public_name_can_be_had_and_says_what_it_is() -> None:
    for name in PUBLIC:
        value = getattr(harness, name)
        plain = isinstance(value, (int, str, dict))
        assert plain or (value.__doc__ and not isinstance(value, types.ModuleType)), name


def test_what_a_plugins_own_tests_need_is_public_too() -> None:
    import harness.testing

    assert "parametrize_with_checks" in harness.testing.__all__


def test_the_hooks_and_their_arguments_are_these_and_no_others() -> None:
    assert hooks() == {
        "harness_plugin": [],
        "harness_clusterers": [],
        "harness_label_refiners": [],
        "harness_memories": [],
        "harness_losses": [],
        "harness_recipe": ["dataset"],
        "harness_image_transforms": [],
        "harness_backbones": [],
        "harness_datasets": [],
        "harness_run_started": ["run"],
        "harness_epoch_ended": ["run", "epoch"],
        "harness_run_finished": ["run", "result"],
        "harness_run_failed": ["run", "failure"],
        "harness_report_sections": ["runs"],
    }


class TestDocumentation:
    @pytest.fixture
    def text(self, repository: Path) -> str:
        return (repository / "docs" / "hooks.md").read_text(encoding="utf-8")

    def test_every_hook_has_a_section_with_its_exact_arguments_and_there_are_no_others(self, text: str) -> None:
        documented = re.findall(r"^### `(harness_\w+)\((.*)\)`$", text, flags=re.MULTILINE)
        assert {name: [word for word in words.split(", ") if word] for name, words in documented} == hooks()
        assert len(documented) == len(hooks())

    def test_every_hook_is_in_the_overview_with_a_link_to_its_section(self, text: str) -> None:
        for name, arguments in hooks().items():
            anchor = name + "-".join(arguments)  # what remains of a heading in its link
            assert f"| [`{name}({', '.join(arguments)})`](#{anchor}) |" in text

    def test_every_field_of_a_provider_and_of_the_card_is_explained(self, text: str) -> None:
        for kind in (harness.LossProvider, harness.PluginCard):
            for field in dataclasses.fields(kind):
                assert f"| `{field.name}` |" in text

    def test_the_version_is_that_of_the_code(self, text: str) -> None:
        assert f"Its version is a whole number, now **{HOOK_API_VERSION}**." in text
        assert f'"part", api={HOOK_API_VERSION})' in text

    @pytest.mark.parametrize("name", ["docs/hooks.md", "docs/first-method.md", "CONTRIBUTING.md"])
    def test_links_to_files_and_sections_resolve(self, repository: Path, name: str) -> None:
        text = (repository / name).read_text(encoding="utf-8")
        headings = re.findall(r"^#+ (.*)$", text, flags=re.MULTILINE)
        anchors = {re.sub(r"[^\w -]", "", heading).lower().replace(" ", "-") for heading in headings}
        for target in re.findall(r"\]\((?!https?://)([^)]+)\)", text):
            path, _, anchor = target.partition("#")
            assert ((repository / name).parent / path).exists(), target
            assert path or anchor in anchors, target


def declaring(**card: Any) -> type:
    class Declaring:
        @hookimpl
        def harness_plugin():
            return PluginCard("Made up.", "part", **card)

    return Declaring


class TestVersion:
    def test_a_plugin_of_this_version_is_sound(self) -> None:
        assert load("mine", declaring(api=HOOK_API_VERSION)).problem is None

    @pytest.mark.parametrize("api", [0, 2, "1", None])
    def test_a_plugin_of_another_version_is_refused_with_both_versions_and_what_to_do(self, api: Any) -> None:
        problem = load("mine", declaring(api=api)).problem
        assert f"hook API {api}; this harness speaks {HOOK_API_VERSION}. Install" in problem

    def test_the_version_is_looked_at_before_hooks_that_only_another_version_has(self) -> None:
        class Later(declaring(api=2)):
            @hookimpl
            def harness_samplers():
                return []

            @hookimpl
            def harness_losses(stage):
                return []

        assert "hook API 2" in load("later", Later).problem

    def test_a_card_that_says_nothing_is_of_the_first_version(self, monkeypatch) -> None:
        assert load("old", declaring()).problem is None
        monkeypatch.setattr("harness.plugins.HOOK_API_VERSION", 2)
        assert "hook API 1; this harness speaks 2" in load("old", declaring()).problem


def specifications(**changed: Any) -> types.SimpleNamespace:
    """The hooks with these put in place of, or beside, their own."""
    return types.SimpleNamespace(**{name: getattr(hookspecs, name) for name in hooks()} | changed, PROJECT="harness")


class TestDeprecation:
    @pytest.fixture
    def old(self, monkeypatch) -> type:
        """A plugin with a hook that is deprecated."""

        @hookspecs.hookspec(warn_on_impl=DeprecationWarning("harness_samplers goes; say it in the recipe."))
        def harness_samplers():
            """Offer samplers."""

        class Old(declaring(api=1)):
            @hookimpl
            def harness_samplers():
                return []

        monkeypatch.setattr("harness.plugins.hookspecs", specifications(harness_samplers=harness_samplers))
        return Old

    def test_a_plugin_with_a_deprecated_hook_works_and_knows_what_to_use_instead(self, old: type) -> None:
        found = load("old", old)
        assert found.problem is None
        assert found.deprecations == ("harness_samplers goes; say it in the recipe.",)

    def test_a_run_that_names_it_says_so_and_no_other_run_does(self, old: type) -> None:
        known = Catalogue(extra={"old": old})
        said = "old: harness_samplers goes; say it in the recipe."
        assert select(known, ["old"], dataset="rendered").notes == (said,)
        assert select(known, ["baseline"], dataset="rendered").notes == ()

    def test_a_deprecated_argument_is_told_likewise(self, monkeypatch) -> None:
        @hookspecs.hookspec(warn_on_impl_args={"dataset": DeprecationWarning("dataset goes; ask the epoch.")})
        def harness_recipe(dataset):
            """The recipe."""

        class Old(declaring(api=1)):
            @hookimpl
            def harness_recipe(dataset):
                return None

        monkeypatch.setattr("harness.plugins.hookspecs", specifications(harness_recipe=harness_recipe))
        assert load("old", Old).deprecations == ("dataset goes; ask the epoch.",)

    def test_nothing_in_this_repository_is_deprecated(self) -> None:
        assert [found.name for found in Catalogue().values() if found.deprecations] == []


def test_importing_the_public_names_that_say_what_there_is_loads_no_torch() -> None:
    light = sorted(name for name in PUBLIC if name not in harness._LAZY)
    code = f"import sys; from harness import {', '.join(light)}; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
