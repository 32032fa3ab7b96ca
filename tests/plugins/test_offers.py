"""What the in-tree plugins offer, asked the way the core asks."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from harness import Recipe
from harness.data.presets import PRESETS
from harness.plugins import Catalogue, load, select
from harness_baseline import Baseline, Pgm
from harness_chcr import Chc, Chcr, Ipr
from harness_dmic import Dmic, Dnc, Hmcl, Mie
from harness_ecul import Ecul, Emcc, Tsmem
from harness_hil import Brst, Hil, Mccl, Neighbours
from harness_pclhd import Dpcl, Hpcl, JointBranch, Pclhd, PclhdPaper

PLUGINS = {
    "baseline": Baseline, "pgm": Pgm, "chcr": Chcr, "chc": Chc, "ipr": Ipr, "dmic": Dmic, "dnc": Dnc, "mie": Mie,
    "hmcl": Hmcl, "ecul": Ecul, "emcc": Emcc, "tsmem": Tsmem, "pclhd": Pclhd,
    "pclhd-paper": PclhdPaper, "hpcl": Hpcl, "dpcl": Dpcl, "joint-branch": JointBranch, "hil": Hil,
    "brst": Brst, "mccl": Mccl, "neighbours": Neighbours,
}  # fmt: skip
OFFERS = {
    "baseline": {"modality-dbscan", "cluster-memory", "contrast"},
    "pgm": {"pgm", "contrast", "cross-contrast"},
    "chcr": {"tone", "chc", "ipr", "joint-memory", "contrast", "modality-contrast"},
    "chc": {"chc"},
    "ipr": {"ipr"},
    "dmic": {"dnc", "hmcl", "hybrid-contrast"},
    "dnc": {"dnc"},
    "mie": {"mie"},
    "hmcl": {"hmcl", "hybrid-contrast"},
    "ecul": {"emcc", "united-memory", "united-contrast"},
    "emcc": {"emcc"},
    "tsmem": {"tsmem"},
    "pclhd": {"pgm", "joint-branch", "hard-memory", "hard-contrast", "dynamic-contrast"},
    "pclhd-paper": {"pgm", "joint-branch", "hard-memory", "hard-contrast", "dynamic-contrast"},
    "hpcl": {"hard-memory", "hard-contrast"},
    "dpcl": {"dynamic-contrast"},
    "joint-branch": {"joint-branch"},
    "hil": {"brst", "multi-centre-memory", "branch-contrast", "mccl", "neighbour-contrast"},
    "brst": {"brst"},
    "mccl": {"multi-centre-memory", "mccl"},
    "neighbours": {"neighbour-contrast"},
}
DATASETS = ("sysu-mm01", "regdb", "rendered")


@pytest.fixture
def catalogue() -> Catalogue:
    return Catalogue([], extra=PLUGINS)


@pytest.mark.parametrize("name", PLUGINS)
def test_plugin_registers_and_offers_its_parts(name: str) -> None:
    plugin = load(name, PLUGINS[name])
    assert plugin.problem is None
    assert plugin.card is not None
    assert plugin.card.summary
    assert plugin.card.paper is not None
    assert {provider.name for provider in plugin.providers} == OFFERS[name]


@pytest.mark.parametrize("name", PLUGINS)
@pytest.mark.parametrize("dataset", [*DATASETS, "something-else"])
def test_every_option_is_described_and_every_preset_is_valid(name: str, dataset: str) -> None:
    for provider in load(name, PLUGINS[name]).providers:
        provider.resolve_options(dataset, {})
        assert set(provider.presets) <= set(DATASETS)
        assert all(field.description for field in provider.options.model_fields.values())
        assert callable(provider.load())


def test_importing_the_plugins_leaves_torch_alone() -> None:
    packages = sorted({plugin.__module__ for plugin in PLUGINS.values()})
    code = (
        f"import sys, {', '.join(packages)}\n"
        "from harness.plugins import Catalogue\n"
        "for plugin in Catalogue().values(): plugin.recipe('rendered')\n"
        "heavy = {'torch', 'faiss', 'sklearn', 'scipy', 'pandas'} & set(sys.modules)\n"
        "sys.exit(f'loaded: {heavy}' if heavy else 0)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_tsmem_takes_the_memory_slot_of_chcr(catalogue: Catalogue) -> None:
    chosen = select(catalogue, ["chcr", "tsmem"], dataset="rendered", options={"tsmem": {"step2_momentum": 0.2}})
    assert chosen.memory.name == "tsmem"
    assert chosen.memory.options.step2_momentum == 0.2
    assert [loss.name for loss in chosen.losses] == ["contrast", "modality-contrast"]
    assert [transform.name for transform in chosen.transforms] == ["tone"]


def test_contrast_is_one_loss_however_many_plugins_offer_it(catalogue: Catalogue) -> None:
    chosen = select(catalogue, ["baseline", "pgm", "chcr"], dataset="regdb", clusterer="chc", memory="joint-memory")
    assert [loss.name for loss in chosen.losses] == ["contrast", "cross-contrast", "modality-contrast"]


def _recipe(name: str, dataset: str) -> Recipe:
    recipe = load(name, PLUGINS[name]).recipe(dataset)
    assert recipe is not None
    return recipe


@pytest.mark.parametrize(
    ("name", "dataset", "stages"),
    [
        ("baseline", "sysu-mm01", [(50, 200, False)]),
        ("baseline", "regdb", [(50, 100, False)]),
        ("baseline", "rendered", [(12, 20, False)]),
        ("pgm", "sysu-mm01", [(50, 200, False), (50, 200, True)]),
        ("pgm", "regdb", [(30, 100, False), (30, 100, True)]),
        ("pgm", "rendered", [(2, 20, False), (10, 20, True)]),
        ("chcr", "sysu-mm01", [(60, 400, True)]),
        ("chcr", "regdb", [(60, 400, True)]),
        ("chcr", "rendered", [(12, 20, True)]),
        ("dmic", "sysu-mm01", [(50, 200, False), (50, 200, True)]),
        ("dmic", "regdb", [(50, 100, False), (50, 100, True)]),
        ("dmic", "rendered", [(6, 20, False), (6, 20, True)]),
        ("ecul", "sysu-mm01", [(50, 200, False), (50, 200, True)]),
        ("ecul", "regdb", [(50, 100, False), (50, 100, True)]),
        ("ecul", "rendered", [(6, 20, False), (6, 20, True)]),
    ],
)
def test_recipe_has_the_stages_of_the_spec(name: str, dataset: str, stages: list[tuple[int, int, bool]]) -> None:
    recipe = _recipe(name, dataset)
    assert [(stage.epochs, stage.iterations, stage.cross) for stage in recipe.stages] == stages


def test_batches_of_the_recipes_have_the_published_sizes() -> None:
    baseline, chcr = _recipe("baseline", "sysu-mm01"), _recipe("chcr", "sysu-mm01")
    assert (baseline.visible_clusters * baseline.instances, baseline.infrared_clusters * baseline.instances) == (
        128,
        256,
    )
    assert (chcr.visible_clusters * chcr.instances, chcr.infrared_clusters * chcr.instances) == (64, 64)
    assert _recipe("pgm", "regdb").step_epochs == 10
    assert _recipe("pgm", "sysu-mm01").step_epochs == 20


@pytest.mark.parametrize("name", PLUGINS)
def test_readme_lists_every_option_with_its_default(name: str) -> None:
    readme = (Path(sys.modules[PLUGINS[name].__module__].__file__).parent / "README.md").read_text()
    for provider in load(name, PLUGINS[name]).providers:
        for option, field in provider.options.model_fields.items():
            shared = provider.factory.split(".")[0] != PLUGINS[name].__module__  # another package's part
            assert shared or f"| `{provider.name}.{option}` | {field.default}" in readme


@pytest.mark.parametrize("dataset", DATASETS)
@pytest.mark.parametrize("name", ["baseline", "pgm", "chcr", "dmic", "ecul", "pclhd", "pclhd-paper", "hil"])
def test_recipe_names_augmentations_that_exist(name: str, dataset: str) -> None:
    recipe = _recipe(name, dataset)
    assert {*recipe.visible_views, *recipe.infrared_views} <= set(PRESETS)
