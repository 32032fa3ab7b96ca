"""What changes within an epoch: taken when a run is stopped in the middle of one, put back when it goes on.

An epoch that is gone on with is begun as any other, from the checkpoint at its start: its features, labels and banks
are functions of that. Then what its iterations have changed is put in place, and the next iteration follows. So nothing
is saved twice, and labels or layouts that cannot change need no form on disk.
"""

from __future__ import annotations

import json
import random
from typing import Any

import numpy as np
import torch
from torch import Tensor

from harness.contracts import Bank, Part
from harness.errors import ContractError

Plain = Any
"""Tensors, numbers and texts in lists and dictionaries: what a checkpoint may hold."""


def snapshot(part: Part) -> Plain | None:
    """What a part declares as changing, as plain values; None if it does not declare it.

    Raises ContractError for attributes that are missing or of a kind that cannot be saved.
    """
    if part.changing is None:
        return None
    return {name: _taken(getattr(part, name, _MISSING), name) for name in part.changing}


def put_back(part: Part, taken: Plain) -> None:
    """The inverse of :func:`snapshot`, on a part that has begun the same epoch. Tensors are filled in place."""
    for name in part.changing or ():
        setattr(part, name, _given(getattr(part, name, None), taken[name]))


_MISSING = object()


def _taken(value: Any, name: str) -> Plain:
    if value is None or isinstance(value, (bool, int, float, str, Tensor)):
        return value
    if isinstance(value, torch.Generator):
        return value.get_state()
    if isinstance(value, Bank):
        return value.vectors
    if isinstance(value, dict):
        return [(key, _taken(item, name)) for key, item in value.items()]
    what = "is not there" if value is _MISSING else f"is a {type(value).__name__}"
    raise ContractError(
        f"its attribute {name!r}, declared in `changing`, {what}; tensors, torch generators, banks, plain values and "
        "dictionaries of those can be saved."
    )


def _given(value: Any, taken: Plain) -> Any:
    if isinstance(value, torch.Generator):
        value.set_state(taken.cpu())
    elif isinstance(value, Bank):
        value.vectors.copy_(taken)
    elif isinstance(value, dict):
        return {key: _given(value.get(key), item) for key, item in taken}
    elif isinstance(value, Tensor) and value.shape == taken.shape:
        value.copy_(taken)  # others may hold views of it
    else:
        return taken
    return value


def random_states() -> Plain:
    """The states of the generators that all share: torch's (of every device), numpy's and Python's."""
    kind, keys, *rest = np.random.get_state()  # noqa: NPY002 - plugins may draw from it
    return {
        "torch": torch.get_rng_state(),
        "cuda": torch.cuda.get_rng_state_all() if torch.cuda.is_initialized() else [],
        "numpy": json.dumps([kind, np.asarray(keys).tolist(), *rest]),
        "python": json.dumps(random.getstate()),
    }


def set_random_states(states: Plain) -> None:
    """The inverse of :func:`random_states`."""
    torch.set_rng_state(states["torch"])
    if states["cuda"]:
        torch.cuda.set_rng_state_all(states["cuda"])
    kind, keys, *rest = json.loads(states["numpy"])
    np.random.set_state((kind, np.array(keys, dtype=np.uint32), *rest))  # noqa: NPY002
    version, inner, gauss = json.loads(states["python"])
    random.setstate((version, tuple(inner), gauss))


def seed_all(seed: int) -> None:
    """Seed the generators that all share, so that a part that draws from them still repeats itself."""
    torch.manual_seed(seed)
    np.random.seed(seed % 2**32)  # noqa: NPY002
    random.seed(seed)
