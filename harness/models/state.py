"""What encoders share: reading and packing weights, and telling a batch's modalities apart."""

from __future__ import annotations

from collections.abc import Mapping
from importlib import resources
from pathlib import Path

import torch
from safetensors.torch import load_file
from torch import Tensor, nn

from harness.errors import ContractError, WeightsError

_WRAPPERS = ("model", "state_dict", "teacher")
"""Keys under which training code keeps the state of the network, outermost first."""
_ONE_STEM = "stem."
"""Begins the names of the one stem that a packed file holds for both modalities."""


def shipped_weights(name: str) -> Path:
    """The file ``name`` of the weights that are installed with the harness."""
    return Path(str(resources.files("harness.models") / "weights" / name))


def packed(model: nn.Module, *, visible: str, infrared: str) -> dict[str, Tensor]:
    """What a shipped file holds of ``model``: tensors in half precision, with the visible stem as the one ``stem.``.

    ``visible`` and ``infrared`` begin the names of the stems' entries.
    """
    return {
        name.replace(visible, _ONE_STEM): tensor.half() if tensor.is_floating_point() else tensor
        for name, tensor in model.state_dict().items()
        if not name.startswith(infrared)
    }


def unpacked(state: Mapping[str, Tensor], *, visible: str, infrared: str) -> dict[str, Tensor]:
    """``state`` with the entries of its one ``stem.``, if it has such, under the names of both stems.

    Half precision stays: ``load_state_dict`` copies into the model's own dtype.
    """
    whole: dict[str, Tensor] = {}
    for name, tensor in state.items():
        one = name.startswith(_ONE_STEM)
        names = [stem + name.removeprefix(_ONE_STEM) for stem in (visible, infrared)] if one else [name]
        whole.update(dict.fromkeys(names, tensor))
    return whole


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
    except Exception as error:  # a damaged file makes the unpickler raise nearly anything
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
    """Rows of the visible and rows of the infrared images, on the device of the images.

    Codes on the host spare to wait for a GPU. Raises ContractError unless every image has a known code.
    """
    if modality_B.shape != (len(images_BCHW),):
        raise ContractError(
            f"Expected one modality code per image, [{len(images_BCHW)}]; got {list(modality_B.shape)}."
        )
    visible = torch.nonzero(modality_B == 0).flatten().to(images_BCHW.device, non_blocking=True)
    infrared = torch.nonzero(modality_B == 1).flatten().to(images_BCHW.device, non_blocking=True)
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
