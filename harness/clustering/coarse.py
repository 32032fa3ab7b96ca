"""Cheap distances with a proved bound on their error.

The rows are moved to their mean, scaled by a power of two so that no norm exceeds 1, and rounded to int8, bfloat16 or
float32: y_i becomes x_i. A product of the rounded rows costs a fraction of an exact one on hardware with such units,
and the distance it gives is off by no more than a margin that is computed here from the data themselves.

**The bound.** Write r_i = ‖y_i − x_i‖, m_i = ‖x_i‖, n_i = ‖y_i‖, and r, m, n for their maxima. From

    ⟨y_i, y_j⟩ − ⟨x_i, x_j⟩ = ⟨y_i − x_i, y_j⟩ + ⟨x_i, y_j − x_j⟩

and the Cauchy–Schwarz inequality, the rounding of the rows changes a product by at most r_i n + m_i r. The r_i are
measured, not estimated: for bfloat16 (8 significant bits) they are at most 2⁻⁸ n_i, usually a third of it.

The product itself is computed with an error of at most c m_i m:

- int8: c = 0. Products and their sums are integers below 127² D, exact in int32 for D ≤ 133,000.
- float32: c = γ_D = D u / (1 − D u), u = 2⁻²⁴, in any order of summation (Higham, "Accuracy and Stability of Numerical
  Algorithms", 2nd ed., section 3.1).
- bfloat16: products of two 8-bit significands are exact in float32 and are summed there, γ_D as before; the result is
  rounded to bfloat16, a relative 2⁻⁸. So c = γ_D + 2⁻⁸ (1 + γ_D).

The value a_ij = s_j − 2 ⟨x_i, x_j⟩, s_j = n_j² ≤ 1, is then formed in float32: conversion of the integer and two
multiplications by scales (3 roundings of a number below 3, as m ≤ 1.2), three roundings within s_j, the addition, and
the later rounding of a threshold (numbers below 4). That is below 20 u < 2⁻¹⁹. Altogether, with d_ij = ‖y_i − y_j‖²:

    |a_ij − (d_ij − s_i)| ≤ E_i = 2 (r_i n + m_i r + c m_i m) + 2⁻¹⁹

If a row j is among the k nearest of row i, then a_ij ≤ A + 2 E_i, where A is the k-th smallest of the a_ij: k rows have
d ≤ A + s_i + E_i, so the k-th distance is no greater, and a_ij exceeds d_ij − s_i by at most E_i. The same holds with A
taken over some of the rows only, so rows can be dropped while others have not been seen.

Moving and scaling the rows loses nothing: differences of rows stay as they are, a power of two is exact, and the one
rounding of the move (u n_i) is added to r_i.
"""

from __future__ import annotations

from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

Grade = Literal["int8", "bfloat16", "float32"]
GRADES: tuple[Grade, ...] = ("int8", "bfloat16", "float32")

_UNIT = 2.0**-24
"""Unit roundoff of float32."""

_ARITHMETIC = 2.0**-19
"""Bound on the rounding of everything after the product."""

_LARGEST_INT8_SIZE = 133_000
"""Feature size up to which a sum of int8 products fits in int32."""

_ELEMENTS = 1 << 19
"""Coordinates that are rounded at once."""


class CoarseRows:
    """Rows rounded to a grade, and how far the distances between them may be off.

    ``features_ND`` float32 or float64, finite. ``squares_N`` float32: s_i; ``unit_N`` float32: the value of 1 in row i
    of the rounded rows; ``margin_N`` float64: E_i; ``scale``: the power of two. Distances are ``scale``² times those of
    the features.
    """

    def __init__(self, features_ND: Tensor, grade: Grade) -> None:
        self._features_ND, self.grade = features_ND, grade
        total, size = features_ND.shape
        self._step = max(1, _ELEMENTS // max(1, size))
        largest = max((float(part.abs().amax()) for part in self._raw_parts()), default=0.0)
        self._first_scale = _power_of_two(largest)
        self._centre_D = self._mean()
        kind = {"int8": torch.int8, "bfloat16": torch.bfloat16, "float32": torch.float32}[grade]
        self._rows_ND = None if grade == "float32" else torch.empty(total, size, dtype=kind, device=features_ND.device)
        self.unit_N = torch.ones(total, dtype=torch.float32, device=features_ND.device)
        norms_N, residuals_N, rounded_norms_N = self._round()
        # Norms up to 1 from here on: a power of two that goes into the units.
        factor = min(_power_of_two(float(norms_N.max())), 2.0**120 / self._first_scale)
        self.scale = self._first_scale * factor
        self.unit_N *= factor
        self.squares_N = (factor * norms_N).square().float()
        self.margin_N = self._margins(factor * norms_N, factor * residuals_N, factor * rounded_norms_N)

    def panel(self, first: int, last: int) -> Tensor:
        """The rounded rows of a range [B, D], in units of ``unit_N``."""
        if self._rows_ND is not None:
            return self._rows_ND[first:last]
        return torch.cat([self._moved(start)[: last - start] for start in range(first, last, self._step)])

    def products(self, left_BD: Tensor, right_CD: Tensor) -> Tensor:
        """Inner products of two panels [B, C]: int32 for int8 rows, else float32."""
        if self.grade == "int8":
            return _integer_products(left_BD, right_CD)
        if self.grade == "float32" and torch.get_float32_matmul_precision() != "highest":
            # With reduced-precision products (TF32, bfloat16) the bound on the rounding would not hold.
            return (left_BD.double() @ right_CD.double().T).float()
        return (left_BD @ right_CD.T).float()

    def _raw_parts(self) -> list[Tensor]:
        return [part for part in self._features_ND.split(self._step) if part.numel()]

    def _mean(self) -> Tensor:
        total, size = self._features_ND.shape
        sums_D = torch.zeros(size, dtype=torch.float64, device=self._features_ND.device)
        for part_BD in self._raw_parts():
            sums_D += (part_BD * self._first_scale).sum(dim=0).double()
        return (sums_D / max(1, total)).to(self._features_ND.dtype)

    def _moved(self, first: int) -> Tensor:
        """y of ``_step`` rows from ``first`` on, float32."""
        return (self._features_ND[first : first + self._step] * self._first_scale - self._centre_D).float()

    def _round(self) -> tuple[Tensor, Tensor, Tensor]:
        """Fills the rounded rows; returns n_N, and no less than r_N and m_N, before the second scaling."""
        found = []
        for first in range(0, self._features_ND.shape[0], self._step):
            moved_BD = self._moved(first)
            rounded_BD = self._rounded(moved_BD, first)
            own = torch.linalg.vector_norm(moved_BD, dim=1, dtype=torch.float64)
            found.append((own, _norms(rounded_BD - moved_BD) + 2 * _UNIT * own, _norms(rounded_BD)))
        norms_N, residuals_N, rounded_norms_N = (torch.cat(part) for part in zip(*found, strict=True))
        return norms_N, residuals_N, rounded_norms_N

    def _rounded(self, moved_BD: Tensor, first: int) -> Tensor:
        if self._rows_ND is None:
            return moved_BD
        own = slice(first, first + moved_BD.shape[0])
        if self.grade == "bfloat16":
            self._rows_ND[own] = moved_BD.bfloat16()
            return self._rows_ND[own].float()
        # Below 2⁻¹⁰⁰ a row counts as zero: its unit would be no ordinary number.
        unit_B = (moved_BD.abs().amax(dim=1) / 127).clamp(min=2.0**-100)
        self.unit_N[own] = unit_B
        self._rows_ND[own] = (moved_BD / unit_B[:, None]).round_().clamp_(-127, 127).to(torch.int8)
        return self._rows_ND[own].float() * unit_B[:, None]

    def _margins(self, norms_N: Tensor, residuals_N: Tensor, rounded_norms_N: Tensor) -> Tensor:
        largest = rounded_norms_N.max()
        rounding = residuals_N * norms_N.max() + rounded_norms_N * residuals_N.max()
        return 2 * (rounding + self._product_error() * rounded_norms_N * largest) + _ARITHMETIC

    def _product_error(self) -> float:
        sums = summation_error(self._features_ND.shape[1])
        return {"int8": 0.0, "float32": sums, "bfloat16": sums + 2.0**-8 * (1 + sums)}[self.grade]


def summation_error(size: int, *, unit: float = _UNIT) -> float:
    """γ_D: the relative error of an inner product of D terms, against the product of the norms."""
    return size * unit / (1 - size * unit)


def possible_grades(features_ND: Tensor) -> tuple[Grade, ...]:
    """The grades whose bound holds for this feature size on this device, cheapest first."""
    if features_ND.shape[1] <= _LARGEST_INT8_SIZE and _integer_products_are_exact(features_ND.device):
        return GRADES
    return GRADES[1:]


def _integer_products(left_BD: Tensor, right_CD: Tensor) -> Tensor:
    if left_BD.device.type == "cpu":
        return torch._int_mm(left_BD, right_CD.T)
    # Tensor cores ask for more than 16 rows and for multiples of 8.
    height, width, size = left_BD.shape[0], right_CD.shape[0], left_BD.shape[1]
    left = torch.nn.functional.pad(left_BD, (0, -size % 8, 0, max(0, 24 - height) + (-max(24, height) % 8)))
    right = torch.nn.functional.pad(right_CD, (0, -size % 8, 0, -width % 8))
    return torch._int_mm(left, right.T)[:height, :width]


def _integer_products_are_exact(device: torch.device) -> bool:
    """Whether int8 products are there and do not saturate on the way, as they do on processors without VNNI."""
    if not hasattr(torch, "_int_mm"):
        return False
    extreme_BD = torch.full((32, 64), 127, dtype=torch.int8, device=device)
    signs_D = torch.tensor([1, 1, -1, 1], dtype=torch.int8, device=device).repeat(16)
    for right_BD in (extreme_BD, -extreme_BD, extreme_BD * signs_D):
        expected = (extreme_BD.double() @ right_BD.double().T).to(torch.int32)
        try:
            found = _integer_products(extreme_BD, right_BD)
        except RuntimeError:
            return False
        if not torch.equal(found, expected):
            return False
    return True


def _norms(rows_BD: Tensor) -> Tensor:
    """No less than the norms of the rows [B], float64, whatever the rounding of their float32 sums."""
    return torch.linalg.vector_norm(rows_BD, dim=1).double() * (1 + summation_error(rows_BD.shape[1]) + 2.0**-20)


def _power_of_two(largest: float) -> float:
    """A power of two that brings ``largest`` into [1/2, 1), or below if float32 cannot hold it; 1 for zero."""
    mantissa, exponent = np.frexp(largest)
    return float(np.ldexp(1.0, min(int(-exponent), 120))) if mantissa else 1.0


def numbers(tensor: Tensor) -> NDArray[Any]:
    """The tensor as a numpy array that kernels can read."""
    return np.ascontiguousarray(tensor.detach().cpu().numpy())
