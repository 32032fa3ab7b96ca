"""Batch norm over the shares of all processes, as if one process had the whole batch.

Shape letters: C channels, W processes.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, distributed
from torch.nn import functional as F
from torch.overrides import TorchFunctionMode

from harness.engine.processes import Processes, talking


class SynchronisedBatchNorm(TorchFunctionMode):
    """While it is entered, every batch norm in training mode normalises by the statistics of all processes' rows.

    It works by the function that batch-norm layers call, so it covers any encoder, and any device whose processes can
    talk. All of them must call the same layers in the same order, with at least one row somewhere.
    """

    def __init__(self, processes: Processes) -> None:
        super().__init__()
        self.processes = processes

    def __torch_function__(
        self, func: Callable[..., Any], types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        if func is F.batch_norm:
            return self._batch_norm(*args, **(kwargs or {}))
        return func(*args, **(kwargs or {}))

    def _batch_norm(
        self,
        x: Tensor,
        running_mean: Tensor | None,
        running_var: Tensor | None,
        weight: Tensor | None = None,
        bias: Tensor | None = None,
        training: bool = False,
        momentum: float = 0.1,
        eps: float = 1e-5,
    ) -> Tensor:
        if not training:
            return F.batch_norm(x, running_mean, running_var, weight, bias, training, momentum, eps)
        channels = x.shape[1]
        scale = weight if weight is not None else x.new_ones(channels, dtype=torch.float32)
        shift = bias if bias is not None else x.new_zeros(channels, dtype=torch.float32)
        normalised, mean_C, var_C, count = _Normalised.apply(x, scale, shift, eps, self.processes)
        with torch.no_grad():
            if running_mean is not None:
                running_mean.lerp_(mean_C.to(running_mean.dtype), momentum)
            if running_var is not None:
                unbiased_C = var_C * (count / (count - 1).clamp(min=1))
                running_var.lerp_(unbiased_C.to(running_var.dtype), momentum)
        return normalised  # type: ignore[no-any-return]


class _Normalised(torch.autograd.Function):
    """(x, weight [C], bias [C]) to x normalised, and the mean [C], variance [C] and number of values of all processes.

    The gradients of weight and bias are those of this process's rows; they are added up with all others.
    """

    @staticmethod
    def forward(
        ctx: Any, x: Tensor, weight_C: Tensor, bias_C: Tensor, eps: float, processes: Processes
    ) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        mean_C, var_C, count = _moments(x, processes)
        wide = _at_least_single(x)
        centre_C, inverse_C = mean_C.to(wide.dtype), torch.rsqrt(var_C + eps).to(wide.dtype)
        ctx.save_for_backward(x, weight_C, centre_C, inverse_C, count)
        ctx.processes = processes
        out = (wide - _wide(centre_C, x)) * _wide(weight_C * inverse_C, x) + _wide(bias_C, x)
        ctx.mark_non_differentiable(mean_C, var_C, count)
        return out.to(x.dtype), mean_C, var_C, count

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, Tensor, Tensor, None, None]:
        x, weight_C, mean_C, inverse_C, count = ctx.saved_tensors
        gradient = _at_least_single(gradients[0])
        unit = (_at_least_single(x) - _wide(mean_C, x)) * _wide(inverse_C, x)
        others = _all_but_channels(x)
        own_2C = torch.stack([gradient.sum(others), (gradient * unit).sum(others)])
        all_2C = own_2C.clone()
        with talking():
            distributed.all_reduce(all_2C)
        shift_C, slope_C = (all_2C / count.to(all_2C.dtype)).unbind()
        inner = gradient - _wide(shift_C, x) - unit * _wide(slope_C, x)
        found = inner * _wide(weight_C * inverse_C, x)
        return found.to(x.dtype), own_2C[1].to(weight_C.dtype), own_2C[0].to(weight_C.dtype), None, None


def _moments(x: Tensor, processes: Processes) -> tuple[Tensor, Tensor, Tensor]:
    """Mean [C] and (biased) variance [C] over all processes, float64, and the number of values of a channel, scalar."""
    own = x.numel() // x.shape[1]
    if own:
        var_C, mean_C = torch.var_mean(_at_least_single(x), dim=_all_but_channels(x), correction=0)
    else:
        var_C, mean_C = x.new_zeros((2, x.shape[1]), dtype=torch.float32).unbind()
    row = torch.cat([mean_C.double(), var_C.double(), mean_C.new_full((1,), own, dtype=torch.float64)])
    everyones = row.new_empty(processes.count * len(row))
    with talking():
        distributed.all_gather_into_tensor(everyones, row)
    table_WX = everyones.view(processes.count, -1)
    counts_W1 = table_WX[:, -1:]
    means_WC, vars_WC = table_WX[:, :-1].chunk(2, dim=1)
    count = counts_W1.sum()
    mean_C = (counts_W1 * means_WC).sum(0) / count
    var_C = (counts_W1 * (vars_WC + (means_WC - mean_C).square())).sum(0) / count
    return mean_C, var_C, count


def _at_least_single(x: Tensor) -> Tensor:
    return x.float() if x.element_size() < 4 else x


def _all_but_channels(x: Tensor) -> tuple[int, ...]:
    return (0, *range(2, x.ndim))


def _wide(values_C: Tensor, like: Tensor) -> Tensor:
    return values_C.view(1, -1, *[1] * (like.ndim - 2))
