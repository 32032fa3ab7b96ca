"""The Python blocks of the pages run: those of one page one after the other, files in the package that they name."""

from __future__ import annotations

import ast
import importlib
import re
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from harness.leaderboard import leaderboard, render_markdown
from harness.plugins import Catalogue, load
from harness.settings import make_settings
from toy_parts import Silent

DOCS = Path(__file__).parents[2] / "docs"
EXAMPLE = DOCS.parent / "examples" / "harness-adca"
BLOCK = re.compile(r"^```python\n(.*?)^```$", flags=re.MULTILINE | re.DOTALL)
FILE = re.compile(r"\A# (\S+\.py)\n")
TINY = {
    "recipe": {"epochs": 2, "iterations": 2},
    "evaluation": {"trials": 1},
    "compute": {"device": "cpu", "precision": "fp32", "threads": 1},
}


def blocks(page: str) -> list[str]:
    return BLOCK.findall((DOCS / page).read_text(encoding="utf-8"))


def run_blocks(page: str, names: dict[str, Any]) -> dict[str, Any]:
    """The blocks of a page, executed in one namespace."""
    for number, block in enumerate(blocks(page)):
        exec(compile(block, f"{page}, block {number + 1}", "exec"), names)
    return names


@pytest.mark.parametrize("page", sorted(page.name for page in DOCS.glob("*.md") if BLOCK.search(page.read_text())))
def test_python_is_python_and_names_what_the_harness_has(page: str) -> None:
    for block in blocks(page):
        for node in ast.walk(ast.parse(block)):
            if isinstance(node, ast.ImportFrom) and str(node.module).split(".")[0] == "harness":
                module = importlib.import_module(str(node.module))
                assert all(hasattr(module, name.name) for name in node.names)


def test_the_pseudo_labels_of_the_concepts_are_derived_as_it_says() -> None:
    assert run_blocks("concepts.md", {})["labels"].available == ("visible", "infrared", "joint")


class TestPortingAPaper:
    @pytest.fixture(autouse=True)
    def importable(self, monkeypatch) -> None:
        monkeypatch.syspath_prepend(EXAMPLE)

    def test_what_it_shows_of_the_example_stands_there_to_the_letter(self) -> None:
        shown = [block for block in blocks("port-a-paper.md") if FILE.match(block)]
        assert len(shown) == 2
        for block in shown:
            path, code = FILE.match(block)[1], FILE.sub("", block)
            assert code in (DOCS.parent / path).read_text(encoding="utf-8")

    def test_its_blocks_run_and_its_refiner_links_as_the_example_does(self) -> None:
        import harness_adca.losses
        import harness_adca.memory
        import torch
        from harness_adca.association import Association
        from harness_adca.options import AssociationOptions

        from harness import PseudoLabels, Setup, TrainIndex

        names = run_blocks("port-a-paper.md", {**vars(harness_adca.losses), **vars(harness_adca.memory)})
        train = TrainIndex(modality=torch.arange(96) // 48, camera=torch.arange(96) // 48 + 1)
        features = names["features_ND"]
        person = names["labels_N"]
        labels = PseudoLabels(
            train, {"visible": compacted(person, train.visible), "infrared": compacted(person, train.infrared)}
        )

        class Epoch:
            cross = True

            def features(self):
                return torch.cat([features[:48], features[:48]])

        setup = Setup(train=train, dataset="test", embedding_dims={"main": 64})
        options = AssociationOptions()
        ours, example = (part(options, setup).refine(Epoch(), labels) for part in (names["Votes"], Association))
        for pair in (("visible", "infrared"), ("infrared", "visible")):
            assert ours.link(*pair).tolist() == example.link(*pair).tolist()
        assert set(ours.link("visible", "infrared").tolist()) != {-1}


def compacted(labels, rows):
    import torch

    from harness import compact

    return compact(torch.where(rows, labels, -1))[0]


@pytest.fixture
def written(tmp_path: Path, monkeypatch) -> Iterator[Any]:
    """``written(page)``: the files of a page, in an empty folder, importable."""
    before = set(sys.modules)

    def write(page: str) -> None:
        for block in blocks(page):
            folder, _, file = FILE.match(block)[1].partition("/")
            path = tmp_path / folder / file
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(FILE.sub("", block), encoding="utf-8")
            monkeypatch.syspath_prepend(tmp_path / folder)

    yield write
    for name in set(sys.modules) - before:
        if name.startswith(("harness_warehouse", "harness_resnet18")):
            del sys.modules[name]


def trained(out: Path, plugin: Any, name: str, **values: Any):
    """The record of a tiny run beside the plugin ``name``."""
    from harness.engine.run import plan_run, run_planned

    settings = make_settings({**TINY, **values})
    return run_planned(
        plan_run(settings, Catalogue(extra={name: plugin})), out, resume=False, force=False, show=Silent()
    )


@pytest.mark.slow
def test_the_own_dataset_is_read_trained_on_and_scored(written, tiny: Path, tmp_path: Path) -> None:
    written("own-dataset.md")
    from harness_warehouse import Warehouse

    root, identities = tmp_path / "data", set()
    for kind, cameras in {"visible": ("cam1", "cam2"), "infrared": ("cam3", "cam6")}.items():
        for image in sorted(path for camera in cameras for path in (tiny / camera).glob("*/*.jpg")):
            target = root / kind / image.parent.name / f"{image.parts[-3]}-{image.name}"
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(image, target)
            identities.add(image.parent.name)
    (root / "test.txt").write_text("\n".join(sorted(identities)[::2]))
    assert load("warehouse", Warehouse).problem is None
    record = trained(
        tmp_path / "runs", Warehouse, "warehouse", plugins=("warehouse", "pgm"), dataset="warehouse", data_root=root
    )
    assert record.dataset.name == "warehouse"
    assert list(record.protocols) == ["warehouse/infrared-to-visible/v1"]
    assert [part.name for part in record.parts][:2] == ["modality-dbscan", "pgm"]
    assert record.recipe["backbone"] == "small"
    assert "## warehouse/infrared-to-visible/v1" in render_markdown(leaderboard([record]))


@pytest.mark.slow
def test_the_own_encoder_trains_and_comes_back_from_its_file(written, tiny: Path, tmp_path: Path) -> None:
    written("own-encoder.md")
    import torch
    from harness_resnet18 import ResNet18, ResNet18Options
    from harness_resnet18.network import from_options

    assert load("resnet18", ResNet18).problem is None
    first, again = (from_options(ResNet18Options(), seed=3) for _ in range(2))
    file = tmp_path / "weights.pth"
    torch.save(first.state_dict(), file)
    loaded = from_options(ResNet18Options(weights=file), seed=4)
    for other in (again, loaded):
        assert all(torch.equal(tensor, other.state_dict()[name]) for name, tensor in first.state_dict().items())
    record = trained(
        tmp_path / "runs",
        ResNet18,
        "resnet18",
        plugins=("baseline", "resnet18"),
        data={"size": "tiny"},
        model={"backbone": "resnet18"},
        recipe={"epochs": 1, "iterations": 1, "visible_clusters": 2, "infrared_clusters": 2, "instances": 2},
    )
    assert record.encoder.name == "resnet18"
    assert record.encoder.embeddings == {"main": 512}


def test_the_sections_of_an_observer_are_yielded() -> None:
    import harness

    observer = run_blocks("report.md", {name: getattr(harness, name) for name in harness.__all__})["MySections"]
    assert load("my-sections", observer).problem is None
    run = SimpleNamespace(curves={"loss align": ((1, 0.5), (2, 0.25)), "rank-1": ((2, 0.3),)})
    (section,) = observer.harness_report_sections((run,))
    assert section.table == (("term", "value"), ("loss align", "0.250"))


def test_the_records_are_read_as_the_page_reads_them(tmp_path: Path, monkeypatch, capsys) -> None:
    import harness.leaderboard

    filed = sorted((DOCS.parent / "leaderboards" / "records").glob("*.json"))[:4]
    for path in filed:
        (tmp_path / "runs" / path.stem).mkdir(parents=True)
        shutil.copy(path, tmp_path / "runs" / path.stem / harness.leaderboard.RECORD_NAME)
    monkeypatch.chdir(tmp_path)
    names = run_blocks("records.md", {})
    assert len(names["rows"]) == len(filed) == 4
    assert names["labels"]["ARI"].notna().any()
    assert len(names["flat"]) == 4
    assert "rank-1" in capsys.readouterr().out
