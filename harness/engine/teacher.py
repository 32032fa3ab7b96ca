"""The teacher: an exponential moving average of the encoder's parameters."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

Embed = Callable[[nn.Module, Tensor, Tensor], Mapping[str, Tensor]]


def make_teacher(encoder: nn.Module, *, decay: float) -> AveragedModel:
    """An EMA copy: θ' ← decay θ' + (1 − decay) θ over parameters, once per iteration.

    PCLHD (NeurIPS 2024): decay 0.999.
    """
    teacher = AveragedModel(encoder, multi_avg_fn=get_ema_multi_avg_fn(decay))
    teacher.n_averaged.fill_(1)  # else the first update would copy the encoder instead of averaging
    for parameter in teacher.parameters():
        parameter.requires_grad_(False)
    return teacher


class TeacherPass:
    """The teacher's embeddings of one batch, made when asked for; ``ran`` says whether they were.

    It reaches the teacher and the batch's pixels and nothing else of the run: parts hold it. ``embed(encoder, images,
    modality)`` calls the teacher; default: plainly.
    """

    def __init__(
        self, teacher: AveragedModel, images_B3HW: Tensor, modality_B: Tensor, *, embed: Embed | None = None
    ) -> None:
        self._module, self._images, self._modality = teacher.module, images_B3HW, modality_B
        self._embed = embed or (lambda encoder, images, modality: encoder(images, modality))
        self.ran = False

    @torch.no_grad()
    def __call__(self) -> Mapping[str, Tensor]:
        self.ran = True
        return self._embed(self._module, self._images, self._modality)


@torch.no_grad()
def update_teacher(teacher: AveragedModel, encoder: nn.Module, *, buffers: bool = True, follow: bool = False) -> None:
    """Move the teacher after an iteration's optimiser steps: one fused operation, and no wait for the device.

    ``buffers``: copy the encoder's running statistics (a teacher that ran on the batch itself has its own). ``follow``:
    become a copy of the encoder instead of averaging.
    """
    if follow:
        teacher.module.load_state_dict(encoder.state_dict())
        return
    average: Any = teacher.multi_avg_fn
    average(list(teacher.module.parameters()), list(encoder.parameters()), teacher.n_averaged)
    teacher.n_averaged += 1
    own = list(teacher.module.buffers()) if buffers else []
    if own:
        torch._foreach_copy_(own, list(encoder.buffers()))
