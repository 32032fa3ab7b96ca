"""What encoders share: reading weights files, and telling a batch's modalities apart."""

from __future__ import annotations

import pickle
from collections.abc import Mapping
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from harness.errors import ContractError, WeightsError

_WRAPPERS = ("model", "state_dict", "teacher")
"""Keys under which training code keeps the state of the network, outermost first."""


def read_state(path: Path, *, remedy: str) -> Mapping[str, Tensor]:
    """The tensors of a ``.safetensors`` or PyTorch file by name; what training code wraps around them is taken off.

    Raises:
        WeightsError: there is no such file, or it does not hold tensors by name. The message ends in ``remedy``.
    """
    if not path.is_file():
        raise WeightsError(f"The weights file {path} does not exist. {remedy}")
    try:
        state: object = (
            load_file(path)
            if path.suffix == ".safetensors"
            else torch.load(path, map_location="cpu", weights_only=True)
        )
    except (OSError, RuntimeError, EOFError, ValueError, pickle.UnpicklingError, SafetensorError) as error:
        raise WeightsError(
            f"The weights file {path} cannot be read ({one_line(error)}). Expected a .safetensors file or a "
            "PyTorch file that holds tensors only."
        ) from error
    for wrapper in _WRAPPERS:
        if isinstance(state, Mapping) and isinstance(state.get(wrapper), Mapping):
            state = state[wrapper]
    if not isinstance(state, Mapping) or not all(isinstance(value, Tensor) for value in state.values()):
        raise WeightsError(f"The weights file {path} does not hold a mapping from names to tensors. {remedy}")
    return state


def split_by_modality(images_BCHW: Tensor, modality_B: Tensor) -> tuple[Tensor, Tensor]:
    """Rows of the visible and rows of the infrared images. Raises ContractError unless every image has a known code."""
    if modality_B.shape != (len(images_BCHW),):
        raise ContractError(
            f"Expected one modality code per image, [{len(images_BCHW)}]; got {list(modality_B.shape)}."
        )
    modality_B = modality_B.to(images_BCHW.device)
    visible = torch.nonzero(modality_B == 0).flatten()
    infrared = torch.nonzero(modality_B == 1).flatten()
    if len(visible) + len(infrared) != len(images_BCHW) or not len(images_BCHW):
        raise ContractError("A batch must hold images of modality 0 (visible) and 1 (infrared) only, at least one.")
    return visible, infrared


def some(kind: str, names: list[str]) -> str:
    """How many names there are, with the first three; nothing for none."""
    if not names:
        return ""
    more = f" and {len(names) - 3} more" if len(names) > 3 else ""
    return f"{len(names)} entries {kind} ({', '.join(names[:3])}{more})"


def one_line(error: BaseException) -> str:
    """The first words of an error, for use inside a sentence."""
    lines = str(error).split("\n")
    return " ".join(line.strip() for line in lines[:2])[:200] or type(error).__name__
