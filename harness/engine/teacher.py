"""The teacher: an exponential moving average of the encoder's parameters."""

from __future__ import annotations

import torch
from torch import nn
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn


def make_teacher(encoder: nn.Module, *, decay: float) -> AveragedModel:
    """An EMA copy: θ' ← decay θ' + (1 − decay) θ over parameters; buffers follow the encoder (copied).

    PCLHD (NeurIPS 2024): decay 0.999.
    """
    teacher = AveragedModel(encoder, multi_avg_fn=get_ema_multi_avg_fn(decay))
    for parameter in teacher.parameters():
        parameter.requires_grad_(False)
    return teacher


@torch.no_grad()
def update_teacher(teacher: AveragedModel, encoder: nn.Module) -> None:
    """Move the teacher after an optimiser step."""
    teacher.update_parameters(encoder)
    for own, theirs in zip(teacher.module.buffers(), encoder.buffers(), strict=True):
        own.copy_(theirs)
