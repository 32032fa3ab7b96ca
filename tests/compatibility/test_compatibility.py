"""Any in-tree parts train together, or it is declared why not; ``docs/compatibility.md`` says the same."""

from __future__ import annotations

import itertools

import pytest

from tests.compatibility.product import (
    GAPS,
    NONE,
    ROLES,
    catalogue,
    cells,
    chunks,
    covering,
    declared,
    parts,
    plugins,
    selected,
    tried,
    tried_by_name,
)
from tests.compatibility.table import DOCUMENT, document


@pytest.mark.parametrize("cell", covering(), ids="+".join)
def test_parts_that_are_selected_by_name_train(cell) -> None:
    clusterer, refiner, memory, loss = cell
    selection = selected(cell)
    assert (selection.clusterer.name, selection.memory.name) == (clusterer, memory)
    assert refiner == NONE or refiner in [part.name for part in selection.refiners]
    assert loss in [part.name for part in selection.losses]
    assert tried_by_name(selection) is None


@pytest.mark.parametrize("cell", covering(), ids="+".join)
def test_parts_train_with_no_others_beside_them(cell) -> None:
    assert tried(cell) is None


@pytest.mark.slow
@pytest.mark.parametrize(("clusterer", "loss"), chunks())
def test_every_combination_does_as_is_declared(clusterer: str, loss: str) -> None:
    for refiner, memory in itertools.product(parts("label refiner"), parts("memory")):
        cell = (clusterer, refiner, memory, loss)
        assert (tried(cell) is None) == (declared(cell) is None), cell


@pytest.mark.parametrize("gap", GAPS, ids=lambda gap: "+".join(gap.losses))
def test_a_combination_that_is_declared_not_to_train_says_so_and_ends_without_error(gap) -> None:
    said = {tried(cell) for cell in _one_of_each(cell for cell in cells() if gap.holds(cell))}
    assert said == {"no loss had a term: the encoder was not trained"}


def _one_of_each(found):
    """One cell for each loss and clusterer."""
    return {(cell[3], cell[0]): cell for cell in found}.values()


def test_no_selection_by_name_has_a_loss_alone_that_may_have_no_term() -> None:
    for gap in GAPS:
        for plugin in plugins():
            offered = {part.name for part in plugin.offers(ROLES["loss"])}
            assert not offered & set(gap.losses) or "contrast" in offered, plugin.name


def test_the_covering_set_holds_every_pair_of_parts_and_every_part() -> None:
    held = {pair for cell in covering() for pair in itertools.combinations(enumerate(cell), 2)}
    wanted = {
        ((one, a), (other, b))
        for (one, first), (other, second) in itertools.combinations(enumerate(ROLES), 2)
        for a in parts(first)
        for b in parts(second)
    }
    assert held == wanted
    assert all(declared(cell) is None for cell in covering())
    assert len(covering()) < len(cells()) / 15


def test_the_product_is_of_every_plugin_that_comes_with_the_harness() -> None:
    assert {plugin.problem for plugin in plugins()} == {None}
    for number, role in enumerate(ROLES):
        offered = {part.name for plugin in plugins() for part in plugin.offers(ROLES[role])}
        assert {cell[number] for cell in cells()} - {NONE} == offered
    names = [part.name for plugin in plugins() for part in plugin.providers]
    known = {part.name for role in ROLES for part in _providers(role)}
    assert known <= set(names)
    assert len(set(cells())) == len(cells()) == 5 * 5 * 7 * 10


def _providers(role: str):
    return [part for plugin in catalogue().values() for part in plugin.offers(ROLES[role]) if part.name in parts(role)]


def test_every_gap_is_of_parts_that_exist_and_has_cells() -> None:
    for gap in GAPS:
        assert set(gap.losses) <= set(parts("loss"))
        assert set(gap.clusterers) <= set(parts("clusterer"))
        assert set(gap.refiners) <= set(parts("label refiner"))
        assert any(gap.holds(cell) for cell in cells())


def test_the_document_is_what_is_declared() -> None:
    mend = "docs/compatibility.md is not what trains: run `python -m tests.compatibility.table`"
    assert DOCUMENT.read_text(encoding="utf-8") == document(), mend
