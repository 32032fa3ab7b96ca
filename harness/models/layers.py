"""Layers of the AGW family: GeM pooling, the BN neck, non-local blocks, batch norm over groups.

Shape suffixes: B images, C channels, K inner channels, N = H * W positions.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from harness.errors import ContractError


class GeM(nn.Module):
    """Generalised-mean pooling with a fixed exponent: (mean of x ** p + 1e-12) ** (1 / p) over positions.

    Input [B, C, H, W] with x >= 0 (it follows a ReLU), any float dtype; output [B, C], at least float32.
    Source: baseline.md 3.1; Radenovic et al., Fine-tuning CNN Image Retrieval with No Human Annotation.
    """

    def __init__(self, p: int = 3) -> None:
        super().__init__()
        self.p = p

    def forward(self, x_BCHW: Tensor) -> Tensor:
        # Cubes of bfloat16 would lose what the root cannot bring back.
        x_BCHW = x_BCHW.float() if x_BCHW.element_size() < 4 else x_BCHW
        powers = x_BCHW.pow(self.p).mean(dim=(2, 3))
        return (powers + 1e-12).pow(1 / self.p)


class GroupedBatchNorm1d(nn.BatchNorm1d):
    """Batch norm that normalises G contiguous groups of the batch apart; the first one feeds the running statistics.

    What a network sees when its batch is split over G replicas without synchronisation. In evaluation, and
    with one group, it is plain batch norm.

    Raises:
        ContractError: a training batch cannot be split into G equal groups.
    """

    def __init__(self, num_features: int, *, groups: int = 1) -> None:
        super().__init__(num_features)
        self.groups = groups

    def forward(self, x: Tensor) -> Tensor:
        return _grouped(self, self.groups, x, super().forward)


class GroupedBatchNorm2d(nn.BatchNorm2d):
    """:class:`GroupedBatchNorm1d` for [B, C, H, W]."""

    def __init__(self, num_features: int, *, groups: int = 1) -> None:
        super().__init__(num_features)
        self.groups = groups

    def forward(self, x: Tensor) -> Tensor:
        return _grouped(self, self.groups, x, super().forward)


def _grouped(norm: nn.Module, groups: int, x: Tensor, plain) -> Tensor:  # type: ignore[no-untyped-def]
    if groups == 1 or not norm.training:
        return plain(x)
    if len(x) % groups:
        raise ContractError(
            f"A batch of {len(x)} images cannot be split into {groups} equal batch-norm groups. Choose batch "
            "sizes that `model.bn_groups` divides, or `--set model.bn_groups=1`."
        )
    first, *others = x.chunk(groups)
    rest = [
        F.batch_norm(other, None, None, norm.weight, norm.bias, training=True, eps=norm.eps)  # type: ignore[arg-type]
        for other in others
    ]
    return torch.cat([plain(first), *rest])


class BNNeck(GroupedBatchNorm1d):
    """Batch norm behind the pooling: weight drawn from N(1, 0.01), bias 0 and never trained.

    Input and output float32 [B, C].
    """

    def __init__(self, num_features: int, *, groups: int = 1) -> None:
        super().__init__(num_features, groups=groups)
        nn.init.normal_(self.weight, 1.0, 0.01)
        self.bias.requires_grad_(False)


class NonLocalBlock(nn.Module):
    """x + BN(W (theta^T phi / N) g), with 1x1 convolutions to K inner channels; the identity at initialisation.

    The scale is a plain division by the number of positions, no softmax, so the product is formed from the right,
    as K x K, never N x N.

    Input and output [B, C, H, W]. Source: baseline.md 3.1; Ye et al., AGW.
    """

    def __init__(self, channels: int, *, inner: int, bn_groups: int = 1) -> None:
        super().__init__()
        self.theta = nn.Conv2d(channels, inner, 1)
        self.phi = nn.Conv2d(channels, inner, 1)
        self.g = nn.Conv2d(channels, inner, 1)
        self.out = nn.Conv2d(inner, channels, 1)
        self.bn = GroupedBatchNorm2d(channels, groups=bn_groups)
        nn.init.zeros_(self.bn.weight)
        nn.init.zeros_(self.bn.bias)

    def forward(self, x_BCHW: Tensor) -> Tensor:
        theta_BKN = self.theta(x_BCHW).flatten(2)
        phi_BKN = self.phi(x_BCHW).flatten(2)
        g_BKN = self.g(x_BCHW).flatten(2)
        pairs_BKK = g_BKN @ phi_BKN.transpose(1, 2) / theta_BKN.shape[2]
        y_BKHW = (pairs_BKK @ theta_BKN).unflatten(2, x_BCHW.shape[2:])
        return x_BCHW + self.bn(self.out(y_BKHW))
