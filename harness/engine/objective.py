"""The training objective: the sum of every loss's terms, checked where they are handed over."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

import torch
from torch import Tensor

from harness.contracts import Batch, Clusterer, Embeddings, LabelRefiner, Loss, Memory, Part
from harness.engine.compute import is_compiler_failure, is_out_of_memory
from harness.engine.epoch import Epoch
from harness.engine.seam import check_terms
from harness.errors import ContractError, HarnessError, TrainingError
from harness.plugins import Chosen

Role = TypeVar("Role", bound=Part)

ROLES: dict[str, type[Part]] = {
    "clusterer": Clusterer,
    "label refiner": LabelRefiner,
    "memory": Memory,
    "loss": Loss,
}


@dataclass(frozen=True)
class Working(Generic[Role]):
    """A part at work: what was chosen, and the object made from it. Raises ContractError if it is of another role."""

    chosen: Chosen
    part: Role

    def __post_init__(self) -> None:
        role = ROLES[self.chosen.provider.role]
        if not isinstance(self.part, role):
            raise ContractError(f"The {self.label} is not a harness.{role.__name__}.")

    @property
    def label(self) -> str:
        """How errors name it."""
        plugin = self.chosen.plugin
        origin = f" ({plugin.distribution} {plugin.version})" if plugin.distribution else ""
        return f"{self.chosen.provider.role} {self.chosen.name!r} of plugin {plugin.name!r}{origin}"


def objective(
    losses: Sequence[Working[Loss]],
    batch: Batch,
    embeddings: Embeddings,
    memory: Memory,
    epoch: Epoch,
    *,
    origins: dict[str, Working[Any]] | None = None,
) -> tuple[Tensor | None, dict[str, Tensor]]:
    """The sum of all terms that carry gradient (None if there is none), and each term's value by name.

    ``origins`` takes in whose each term is: with it, terms on a GPU are not looked at, which would wait for them; the
    caller does so now and then, by :func:`require_finite`.

    Raises ContractError for a term that is not a scalar tensor; TrainingError, naming term and plugin, for one that is
    NaN or infinite.
    """
    total: Tensor | None = None
    values: dict[str, Tensor] = {}
    for working in losses:
        with blame(working, "terms"):
            terms = check_terms(working.part.terms(batch, embeddings, memory, epoch.bound_to(working.chosen.name)))
        for name, term in terms.items():
            if origins is None or term.device.type == "cpu":
                _require_finite(term, name, working)
            if origins is not None:
                origins[name] = working
            values[name] = term.detach()
            if term.requires_grad:
                total = term if total is None else total + term
            else:
                epoch.bound_to(working.chosen.name).note(
                    f"the term {name!r} carries no gradient, so it trains nothing."
                )
    return total, values


def require_finite(sums: Mapping[str, Tensor], origins: Mapping[str, Working[Any]]) -> None:
    """The terms of many iterations, added up by name: what was NaN or infinite once stays so. One wait for all.

    Raises TrainingError, naming term and plugin.
    """
    names = list(sums)
    if names:
        finite = torch.isfinite(torch.stack([sums[name] for name in names])).tolist()
        for name in (name for name, fine in zip(names, finite, strict=True) if not fine):
            _require_finite(sums[name], name, origins[name])


def _require_finite(term: Tensor, name: str, working: Working[Any]) -> None:
    if not bool(torch.isfinite(term)):
        raise TrainingError(
            f"The term {name!r} of the {working.label} became {float(term.detach())}. Training stopped; the last "
            "checkpoint is kept. A lower learning rate (--set recipe.learning_rate=...) or a higher temperature often "
            "helps."
        )


class blame:
    """Names the part at fault, and what it was asked, in errors that arise inside the block. Harness errors keep their
    class."""

    def __init__(self, working: Working[Any], call: str) -> None:
        self.label, self.call = working.label, call

    def __enter__(self) -> None:
        return None

    def __exit__(self, kind: Any, error: BaseException | None, trace: Any) -> None:
        if isinstance(error, ContractError):
            raise ContractError(f"The {self.label} broke its contract in {self.call}: {error}") from error
        if isinstance(error, HarnessError) or not isinstance(error, Exception):
            return
        if is_out_of_memory(error) or is_compiler_failure(error):
            return
        raise ContractError(f"The {self.label} failed in {self.call}: {type(error).__name__}: {error}") from error
