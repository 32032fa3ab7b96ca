"""The examples in docstrings of the public functions and classes run, and show what they say."""

from __future__ import annotations

import doctest
import importlib
import inspect
import pkgutil
from types import ModuleType

import pytest

import harness

WITH_EXAMPLES = {
    "Bank", "Draw", "Embeddings", "Options", "Partition", "PseudoLabels", "Recipe", "TrainIndex", "balanced_means",
    "centre_by_camera", "cluster_contrast", "cluster_means", "compact", "dbscan", "follow", "greedy_vote_matching",
    "hard_update", "hybrid_update", "k_reciprocal_jaccard", "momentum_update", "multi_centre_update",
    "mutual_nearest_clusters", "progressive_graph_matching", "random_replacement",
}  # fmt: skip
"""Public names whose docstrings (or those of their methods) show how they are used."""

NOT_HERE = {"harness.memory_updates.cuda_kernel", "harness.__main__"}
"""The first needs Triton, the second runs the command line when it is imported."""


def modules() -> list[str]:
    """Every module of the harness that can be imported anywhere."""
    found = pkgutil.walk_packages(harness.__path__, "harness.")
    return sorted({"harness", *(entry.name for entry in found)} - NOT_HERE)


def with_examples(name: str) -> bool:
    """Whether the text of the module holds an example."""
    spec = importlib.util.find_spec(name)
    assert spec is not None
    assert spec.origin is not None
    with open(spec.origin, encoding="utf-8") as file:
        return ">>> " in file.read()


def examples_of(module: ModuleType) -> list[doctest.DocTest]:
    """The docstrings of a module that hold examples."""
    return [found for found in doctest.DocTestFinder().find(module) if found.examples]


MODULES = [name for name in modules() if with_examples(name)]


@pytest.mark.parametrize("name", MODULES)
def test_the_examples_of_a_module_show_what_they_say(name: str) -> None:
    shown: list[str] = []
    runner = doctest.DocTestRunner()
    tests = examples_of(importlib.import_module(name))
    assert tests
    for test in tests:
        runner.run(test, out=shown.append)
    assert runner.summarize(verbose=False).failed == 0, "".join(shown)


def test_every_public_function_and_the_values_that_parts_exchange_have_an_example() -> None:
    functions = {name for name in harness.__all__ if inspect.isfunction(getattr(harness, name))}
    assert functions <= WITH_EXAMPLES
    for name in sorted(WITH_EXAMPLES):
        public = getattr(harness, name)
        found = doctest.DocTestFinder().find(public, name, module=False)
        assert any(test.examples for test in found), name


def test_an_example_that_is_wrong_fails() -> None:
    wrong = ModuleType("wrong", ">>> 1 + 1\n3\n")
    (test,) = examples_of(wrong)
    assert doctest.DocTestRunner().run(test, out=lambda text: None).failed == 1
