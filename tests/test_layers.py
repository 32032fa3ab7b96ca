"""The core stands on its own: it imports no plugin, and its light modules load nothing heavy."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest

import harness

CORE = Path(harness.__file__).parent
PLUGINS = {path.name for path in (CORE.parent / "plugins").iterdir() if (path / "__init__.py").exists()}
HEAVY = ("torch", "pandas", "faiss", "scipy", "sklearn", "lightning_fabric", "torchvision")


def imported(path: Path) -> set[str]:
    """Top-level names of everything imported anywhere in a file, inside functions too."""
    names = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            names |= {alias.name.split(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.level == 0 and node.module:
            names.add(node.module.split(".")[0])
    return names


def test_there_are_plugins_to_look_for() -> None:
    assert {"harness_baseline", "harness_chcr", "harness_ecul"} <= PLUGINS


@pytest.mark.parametrize("path", sorted(CORE.rglob("*.py")), ids=lambda path: str(path.relative_to(CORE)))
def test_core_file_imports_no_plugin(path: Path) -> None:
    assert not imported(path) & PLUGINS


@pytest.mark.parametrize("path", sorted(CORE.rglob("*.py")), ids=lambda path: str(path.relative_to(CORE)))
def test_core_file_names_no_plugin_factory(path: Path) -> None:
    strings = {node.value for node in ast.walk(ast.parse(path.read_text("utf-8"))) if _is_text(node)}
    assert not [text for text in strings if text.partition(":")[0].split(".")[0] in PLUGINS]


def _is_text(node: ast.AST) -> bool:
    return isinstance(node, ast.Constant) and isinstance(node.value, str)


def test_importing_the_package_and_the_whole_catalogue_loads_nothing_heavy() -> None:
    script = (
        "import sys, harness, harness.cli\n"
        "from harness.plugins import Catalogue\n"
        "problems = [p.problem for p in Catalogue().values() if p.problem]\n"
        f"print(problems, sorted(set(sys.modules) & set({HEAVY})))"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[] []"


def test_every_public_name_is_there_whatever_was_imported_before() -> None:
    import harness.contrast
    import harness.engine.run

    for name in harness.__all__:
        assert not isinstance(getattr(harness, name), type(sys)), name
