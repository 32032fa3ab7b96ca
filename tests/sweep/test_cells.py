"""From a grid to cells: the product, what is skipped and why, names, and runs that are told apart."""

from __future__ import annotations

from typing import Any

import pytest

from harness.engine.plan import plan_run
from harness.errors import PluginError, SettingsError
from harness.plugins import Catalogue
from harness.settings import make_settings, to_toml
from harness.sweep.cells import Planned, plan_cells
from harness.sweep.grid import make_grid


@pytest.fixture(scope="module")
def catalogue() -> Catalogue:
    return Catalogue()


@pytest.fixture
def planned(catalogue: Catalogue):
    def plan(known: dict[str, str] | None = None, **values: Any) -> Planned:
        return plan_cells(make_grid(values), catalogue, known=known)

    return plan


def names(plan: Planned) -> list[str]:
    return [cell.name for cell in plan.cells]


def parts(plan: Planned) -> dict[str, list[str]]:
    return {cell.name: [part.name for part in cell.plan.selection.parts] for cell in plan.cells}


class TestProduct:
    def test_is_over_roles_and_seeds(self, planned) -> None:
        plan = planned(
            clusterers=["baseline", "chc"], refiners=["none", "brst"], memories=["baseline", "tsmem"], seeds=[0, 1]
        )
        labels = ["baseline", "tsmem", "brst", "brst+tsmem", "chc", "chc+tsmem", "chc+brst", "chc+brst+tsmem"]
        assert names(plan) == [f"{label}-s{seed}" for label in labels for seed in (0, 1)]
        assert [cell.number for cell in plan.cells] == list(range(1, 17))
        assert plan.skipped == ()

    def test_has_the_parts_that_a_cell_names(self, planned) -> None:
        found = parts(planned(clusterers=["emcc"], refiners=["ipr+brst"], memories=["tsmem"], losses=["own+dpcl"]))
        assert found == {"emcc+ipr+brst+tsmem+dpcl-s0": [
            "emcc", "ipr", "brst", "tsmem", "contrast", "dynamic-contrast"
        ]}  # fmt: skip

    def test_leaves_a_role_that_is_not_listed_to_the_other_plugins(self, planned) -> None:
        assert parts(planned(memories=["chcr"])) == {
            "chcr-s0": ["tone", "chc", "ipr", "joint-memory", "contrast", "modality-contrast"]
        }

    def test_is_a_set_of_ordinary_runs(self, planned, catalogue: Catalogue) -> None:
        for cell in planned(clusterers=["chc"], memories=["baseline", "tsmem"], plugins=["ecul"]).cells:
            again = plan_run(make_settings(cell.plan.settings.model_dump()), catalogue)
            assert to_toml(again.settings) == cell.settings
            assert again.settings.name == cell.name

    def test_settings_hold_in_every_cell(self, planned) -> None:
        plan = planned(plugins=["pgm", "chcr"], settings={"recipe": {"epochs": 3}, "compute": {"threads": 1}})
        assert [cell.plan.recipe.epochs for cell in plan.cells] == [3, 3]

    def test_trains_by_one_recipe_if_told_and_says_so_if_not(self, planned) -> None:
        assert "2 recipes (baseline 1, pgm 1)" in planned(refiners=["none", "pgm"]).notes[0]
        plan = planned(refiners=["none", "pgm"], recipe="ecul")
        assert plan.notes == ()
        assert {cell.plan.settings.recipe_of for cell in plan.cells} == {"ecul"}


class TestOptions:
    def test_are_axes_only_where_the_part_is(self, planned) -> None:
        plan = planned(memories=["baseline", "tsmem"], options={"tsmem.step2_momentum": [0.1, 0.2]})
        assert names(plan) == ["baseline-s0", "tsmem-step2_momentum=0.1-s0", "tsmem-step2_momentum=0.2-s0"]
        assert [cell.plan.settings.options.get("tsmem", {}).get("step2_momentum") for cell in plan.cells] == [
            None, 0.1, 0.2
        ]  # fmt: skip

    def test_of_one_value_are_not_in_the_name(self, planned) -> None:
        plan = planned(memories=["tsmem"], options={"tsmem.step2_momentum": 0.3})
        assert names(plan) == ["tsmem-s0"]

    def test_of_the_core_hold_everywhere(self, planned) -> None:
        plan = planned(plugins=["pgm"], options={"recipe.epochs": [2, 3], "data.seed": [1, 2]})
        assert names(plan) == [f"pgm-recipe.epochs={e}-data.seed={d}-s0" for e in (2, 3) for d in (1, 2)]

    def test_that_are_texts_make_names_of_files(self, planned) -> None:
        plan = planned(plugins=["pgm"], options={"model.weights": ["a/b c.pth", "d.pth"]})
        assert names(plan) == ["pgm-model.weights=a_b_c.pth-s0", "pgm-model.weights=d.pth-s0"]


class TestDatasets:
    def test_are_an_axis_and_trials_one_of_those_that_have_them(self, planned) -> None:
        plan = planned(plugins=["pgm"], datasets=["rendered", "regdb"], trials=[1, 2])
        assert names(plan) == ["rendered-pgm-s0", "regdb-pgm-t1-s0", "regdb-pgm-t2-s0"]
        assert [cell.plan.settings.data.get("trial") for cell in plan.cells] == [None, 1, 2]


class TestSkipped:
    def test_are_cells_in_which_a_plugin_brings_more_than_is_named(self, planned) -> None:
        plan = planned(refiners=["none", "brst"], memories=["baseline", "chcr"])
        assert names(plan) == ["baseline-s0", "brst-s0"]
        assert list(map(str, plan.skipped)) == [
            f"refiners = {refiner}, memory = chcr, dataset = rendered: chcr, named as memory, brings the label refiner "
            f"ipr too; this cell has refiners = {refiner}"
            for refiner in ("none", "brst")
        ]

    def test_are_losses_beside_those_that_are_named(self, planned) -> None:
        plan = planned(memories=["baseline", "hpcl"], losses=["baseline", "hpcl", "own"])
        assert parts(plan) == {
            "baseline-s0": ["modality-dbscan", "cluster-memory", "contrast"],
            "memory=baseline+loss=hpcl-s0": ["modality-dbscan", "cluster-memory", "hard-contrast"],
            "memory=hpcl+loss=hpcl-s0": ["modality-dbscan", "hard-memory", "hard-contrast"],
        }
        assert [skip.reason for skip in plan.skipped] == [
            "hpcl, named as memory, brings the loss hard-contrast too; this cell has loss = baseline",
            "the same run as baseline-s0",
            "the same run as memory=hpcl+loss=hpcl-s0",
        ]

    def test_are_refiners_in_another_order(self, planned) -> None:
        plan = planned(clusterers=["chcr", "chc"], refiners=["brst+ipr"])
        assert names(plan) == ["chc+brst+ipr-s0"]
        assert "would run in the order ipr, brst" in plan.skipped[0].reason

    def test_are_combinations_that_a_run_refuses(self, planned) -> None:
        plan = planned(plugins=["pgm", "chcr,ecul"])
        assert names(plan) == ["pgm-s0"]
        assert "A run has one clusterer, and 'chcr' (chc) and 'ecul' (emcc)" in plan.skipped[0].reason

    def test_are_exclusions_told_once(self, planned) -> None:
        plan = planned(
            clusterers=["baseline", "chc"],
            memories=["baseline", "tsmem"],
            seeds=[0, 1],
            exclude=[{"clusterer": "chc", "memory": "tsmem", "reason": "known not to train"}],
        )
        assert names(plan) == [f"{label}-s{seed}" for label in ("baseline", "tsmem", "chc") for seed in (0, 1)]
        assert list(map(str, plan.skipped)) == ["clusterer = chc, memory = tsmem: known not to train"]

    def test_are_excluded_values_of_options_and_seeds(self, planned) -> None:
        plan = planned(
            memories=["baseline", "tsmem"],
            seeds=[0, 1],
            options={"tsmem.step2_momentum": [0.1, 0.2]},
            exclude=[{"tsmem": {"step2_momentum": 0.2}, "seed": [1], "reason": "dear"}],
        )
        assert names(plan) == [
            "baseline-s0", "baseline-s1", "tsmem-step2_momentum=0.1-s0", "tsmem-step2_momentum=0.1-s1",
            "tsmem-step2_momentum=0.2-s0",
        ]  # fmt: skip

    def test_are_cells_that_come_to_the_same_settings(self, planned) -> None:
        plan = planned(memories=["tsmem"], plugins=["tsmem", "pgm,tsmem", "pgm,tsmem"], seeds=[0, 1])
        assert names(plan) == ["tsmem-s0", "tsmem-s1", "pgm+tsmem-s0", "pgm+tsmem-s1"]
        assert [skip.reason for skip in plan.skipped] == ["the same run as tsmem-s0", "the same run as pgm+tsmem-s0"]


class TestNames:
    def test_of_an_earlier_grid_are_kept(self, planned) -> None:
        before = planned(memories=["tsmem"])
        known = {cell.digest: cell.name for cell in before.cells}
        now = planned(known, memories=["baseline", "tsmem"], datasets=["rendered", "regdb"])
        assert names(now) == ["rendered-baseline-s0", "regdb-baseline-s0", "tsmem-s0", "regdb-tsmem-s0"]

    def test_are_never_used_for_other_settings(self, planned) -> None:
        before = planned(memories=["tsmem"])
        known = {cell.digest: cell.name for cell in before.cells}
        (cell,) = planned(known, memories=["tsmem"], settings={"recipe": {"epochs": 2}}).cells
        assert cell.name == f"tsmem-s0-{cell.digest[:8]}"

    def test_stay_short(self, planned) -> None:
        (cell,) = planned(
            plugins=["chcr,brst,joint-branch"], options={"model.weights": ["x" * 300, "y"]}, exclude=[]
        ).cells[:1]
        assert len(cell.name) == 150


class TestRefusals:
    @pytest.mark.parametrize(
        ("values", "error", "complaint"),
        [
            ({"clusterers": ["chx"]}, PluginError, "no plugin 'chx'. Did you mean 'chc'"),
            ({"plugins": ["pgm", "pgn"]}, PluginError, "no plugin 'pgn'. Did you mean 'pgm'"),
            ({"plugins": ["pgm"], "recipe": "pgn"}, PluginError, "no plugin 'pgn'"),
            ({"clusterers": ["tsmem"]}, SettingsError, "offers no clusterer but: memory. Plugins with a clusterer"),
            ({"memories": ["tsmem"], "options": {"tsmen.x": 1}}, SettingsError, "'tsmen.x'.* Did you mean 'tsmem'"),
            ({"memories": ["tsmem"], "options": {"tsmem.swich": 1}}, SettingsError, "Did you mean 'switch'"),
            (
                {"memories": ["tsmem"], "options": {"tsmem.step2_momentum": [0.1, "a"]}},
                SettingsError,
                "tsmem: step2_momentum: .*got 'a'",
            ),
            ({"memories": ["tsmem"], "options": {"data.trial": 1}}, SettingsError, "No cell .* 'data.trial'"),
            ({"memories": ["tsmem"], "trials": [1]}, SettingsError, "none of its datasets has any"),
            ({"plugins": ["chcr,ecul"]}, SettingsError, "No cell of the grid can run.*one clusterer"),
            ({"plugins": ["pgm"], "settings": {"recipe": {"epoch": 1}}}, SettingsError, "Did you mean 'epochs'"),
            ({"plugins": ["pgm"], "datasets": ["sysu"]}, SettingsError, "Did you mean 'sysu-mm01'"),
            (
                {"plugins": ["pgm"], "exclude": [{"memry": "x", "reason": "y"}]},
                SettingsError,
                "An exclusion names 'memry'",
            ),
            (
                {"memories": ["tsmem"], "exclude": [{"memory": "tsmen", "reason": "y"}]},
                SettingsError,
                "Did you mean 'tsmem'",
            ),
            (
                {"memories": ["tsmem"], "exclude": [{"memory": "tsmem", "reason": "y"}]},
                SettingsError,
                "No cell of the grid can run; 1 are skipped. The first: memory = tsmem: y",
            ),
        ],
        ids=str,
    )
    def test_say_what_is_wrong(self, planned, values: dict, error: type[Exception], complaint: str) -> None:
        with pytest.raises(error, match=complaint):
            planned(**values)
