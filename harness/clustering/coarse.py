"""Cheap distances with a proved bound on their error.

The rows are moved to their mean, scaled by a power of two so that no norm exceeds 1 (y_i), written in coordinates along
a few directions that hold nearly all of them, if there are such (z_i; else z_i = y_i), and rounded to int8, bfloat16 or
float32 (x_i). A product of the rounded rows costs a fraction of an exact one, and the distance it gives is off by no
more than an error that is computed here from the data themselves.

**The bound.** Write n_i = ‖y_i‖, t_i² = n_i² − ‖z_i‖², r_i = ‖z_i − x_i‖, m_i = ‖x_i‖, and g for the largest of all n_i
and m_i. The directions are orthonormal, so what they leave out of two rows has a product of at most

    |⟨y_i, y_j⟩ − ⟨z_i, z_j⟩| ≤ t_i t_j ≤ (t_i² + t_j²) / 2

From ⟨z_i, z_j⟩ − ⟨x_i, x_j⟩ = ⟨z_i − x_i, z_j⟩ + ⟨x_i, z_j − x_j⟩ and the Cauchy–Schwarz inequality, the rounding of
the rows changes a product by at most g r_i + g r_j. The t_i and r_i are measured, not estimated.

The product itself is computed with an error of at most c m_i m_j ≤ c (m_i² + m_j²) / 2:

- int8: c = 0. Products and their sums are integers below 127² D, exact in int32 for D ≤ 133,000.
- float32: c = γ_D = D u / (1 − D u), u = 2⁻²⁴, in any order of summation (Higham, "Accuracy and Stability of Numerical
  Algorithms", 2nd ed., section 3.1).
- bfloat16: products of two 8-bit significands are exact in float32 and are summed there, γ_D as before; the result is
  rounded to bfloat16, a relative 2⁻⁸. So c = γ_D + 2⁻⁸ (1 + γ_D).

The value a_ij = s_j − 2 ⟨x_i, x_j⟩, s_j = n_j² ≤ 1, is then formed in float32: conversion of the integer and two
multiplications by scales (3 roundings of a number below 3, as m ≤ 1.2), three roundings within s_j, one of e_j below,
the additions, and the later rounding of a threshold (numbers below 4). That is below 24 u. The directions, from a
Householder QR in float64, and the coordinates z_i, computed in float64, are off by far less than another u.
Altogether, with d_ij = ‖y_i − y_j‖², each row has an error of its own:

    |a_ij − (d_ij − s_i)| ≤ e_i + e_j,    e_i = t_i² + 2 g r_i + c m_i² + 2⁻²⁰

Lists hold b_ij = a_ij − e_j. If row j is among the k nearest of row i, then b_ij ≤ A + 2 e_i, where A is the k-th
smallest of the b_ij + 2 e_j: k rows have d ≤ A + s_i + e_i, so the k-th distance is no greater, and d_ij ≥ b_ij + s_i −
e_i. The same holds with A taken over some of the rows only, so rows can be dropped while others have not been seen.

Moving and scaling the rows loses nothing: differences of rows stay as they are, a power of two is exact, and the
roundings of the move and of the coordinates to float32 (u n_i each) are added to r_i.

Shape letters: N rows, D feature size, S rows of a sample, P directions, B and C rows of two panels.
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

_ARITHMETIC = 2.0**-20
"""Bound on the rounding of everything after the product, half for each of two rows."""

_LARGEST_INT8_SIZE = 133_000
"""Feature size up to which a sum of int8 products fits in int32."""

_ELEMENTS = 1 << 19
"""Coordinates that are rounded at once."""

_SAMPLE = 1024
"""Rows, at least, from which directions are found, and rows on which they are tried."""

_LARGEST_TAIL = 0.03
"""Largest squared norm that directions may leave out of a row, as a share of the largest row's: beyond, comparing the
candidates that the error lets through takes what the shorter products save."""


class CoarseRows:
    """Rows rounded to a grade, and how far the distances between them may be off.

    ``features_ND`` float32 or float64, finite; ``directions_DP`` float64, orthonormal, or None for all coordinates.
    ``squares_N`` float32: s_i; ``unit_N`` float32: the value of 1 in row i of the rounded rows; ``errors_N`` float32:
    e_i; ``scale``: the power of two. Distances are ``scale``² times those of the features. ``order_N``: which feature
    row each row is.
    """

    def __init__(self, features_ND: Tensor, grade: Grade, directions_DP: Tensor | None = None) -> None:
        self._features_ND, self.grade, self._directions_DP = features_ND, grade, directions_DP
        total, size = features_ND.shape
        device = features_ND.device
        self._step = max(1, _ELEMENTS // max(1, size))
        self.order_N = torch.arange(total, device=device)
        self._first_scale, self._centre_D = _centre(features_ND, self._step)
        kind = {"int8": torch.int8, "bfloat16": torch.bfloat16, "float32": torch.float32}[grade]
        width = size if directions_DP is None else directions_DP.shape[1]
        unstored = grade == "float32" and directions_DP is None
        self._rows_NP = None if unstored else torch.empty(total, width, dtype=kind, device=device)
        self.unit_N = torch.ones(total, dtype=torch.float32, device=device)
        lengths_4N = self._round()
        norms_N = lengths_4N[0]
        # Norms up to 1 from here on: a power of two that goes into the units.
        factor = min(_power_of_two(float(norms_N.max())), 2.0**120 / self._first_scale)
        self.scale = self._first_scale * factor
        self.unit_N *= factor
        self.squares_N = (factor * norms_N).square().float()
        self.errors_N = self._errors(*(factor * lengths_4N)).float()

    def reorder(self, order_N: Tensor) -> None:
        """Puts the rows into another order: row i becomes what was row ``order_N[i]``."""
        self.order_N = self.order_N[order_N]
        self.unit_N, self.squares_N = self.unit_N[order_N], self.squares_N[order_N]
        self.errors_N = self.errors_N[order_N]
        if self._rows_NP is not None:
            self._rows_NP = self._rows_NP[order_N]

    def panel(self, first: int, last: int) -> Tensor:
        """The rounded rows of a range [B, P], in units of ``unit_N``."""
        if self._rows_NP is not None:
            return self._rows_NP[first:last]
        return self._moved(self.order_N[first:last])

    def lowest(self, products_BC: Tensor, left: slice | Tensor, right: slice | Tensor) -> Tensor:
        """b_ij [B, C], float32, of products of rows ``left`` with rows ``right``."""
        factors_BC = -2 * self.unit_N[left, None] * self.unit_N[right]
        return factors_BC.mul_(products_BC).add_((self.squares_N - self.errors_N)[right])

    def products(self, left_BD: Tensor, right_CD: Tensor) -> Tensor:
        """Inner products of two panels [B, C]: int32 for int8 rows, else float32."""
        if self.grade == "int8":
            return _integer_products(left_BD, right_CD)
        if self.grade == "float32" and torch.get_float32_matmul_precision() != "highest":
            # With reduced-precision products (TF32, bfloat16) the bound on the rounding would not hold.
            return (left_BD.double() @ right_CD.double().T).float()
        return (left_BD @ right_CD.T).float()

    def _moved(self, rows_B: Tensor | slice) -> Tensor:
        """y of some rows, float32."""
        return self._features_ND[rows_B].mul(self._first_scale).sub_(self._centre_D).float()

    def _round(self) -> Tensor:
        """Fills the rounded rows; returns n_N and no less than t_N, r_N and m_N, float64 [4, N], before ``factor``.

        All that outlives a part of the rows is allocated at first, so that the parts take each other's place in memory.
        """
        total = self._features_ND.shape[0]
        found_4N = torch.zeros(4, total, dtype=torch.float64, device=self._features_ND.device)
        for first in range(0, total, self._step):
            own = slice(first, min(first + self._step, total))
            found_4B = found_4N[:, own]
            moved_BP = moved_BD = self._moved(own)
            torch.linalg.vector_norm(moved_BD, dim=1, dtype=torch.float64, out=found_4B[0])
            if self._directions_DP is not None:
                coordinates_BP = moved_BD.double() @ self._directions_DP
                squares_B = found_4B[0].square()
                tails_B = squares_B - coordinates_BP.square().sum(dim=1)
                found_4B[1] = (tails_B.clamp(min=0) + 2.0**-30 * squares_B).sqrt()
                moved_BP = coordinates_BP.float()
            rounded_BP = self._rounded(moved_BP, own)
            found_4B[3] = _norms(rounded_BP)
            found_4B[2] = _norms(rounded_BP.sub_(moved_BP)) + 4 * _UNIT * found_4B[0]
        return found_4N

    def _rounded(self, moved_BP: Tensor, own: slice) -> Tensor:
        """Fills the rounded rows of a range; returns them in float32, a tensor that is free to be changed."""
        if self._rows_NP is None or self.grade == "float32":
            if self._rows_NP is not None:
                self._rows_NP[own] = moved_BP
            return moved_BP.clone()
        if self.grade == "bfloat16":
            self._rows_NP[own] = moved_BP
            return self._rows_NP[own].float()
        # Below 2⁻¹⁰⁰ a row counts as zero: its unit would be no ordinary number.
        unit_B = (moved_BP.abs().amax(dim=1) / 127).clamp(min=2.0**-100)
        self.unit_N[own] = unit_B
        rounded_BP = (moved_BP / unit_B[:, None]).round_().clamp_(-127, 127)
        self._rows_NP[own] = rounded_BP
        return rounded_BP.mul_(unit_B[:, None])

    def _errors(self, norms_N: Tensor, tails_N: Tensor, residuals_N: Tensor, rounded_norms_N: Tensor) -> Tensor:
        largest = torch.maximum(norms_N.max(), rounded_norms_N.max())
        products_N = self._product_error() * rounded_norms_N.square()
        return tails_N.square() + 2 * largest * residuals_N + products_N + _ARITHMETIC

    def _product_error(self) -> float:
        size = (self._features_ND if self._directions_DP is None else self._directions_DP).shape[1]
        sums = summation_error(size)
        return {"int8": 0.0, "float32": sums, "bfloat16": sums + 2.0**-8 * (1 + sums)}[self.grade]


def main_directions(features_ND: Tensor) -> Tensor | None:
    """A few orthonormal directions that hold nearly all of every row, float64 [D, P], or None if there are none.

    Found by two rounds of subspace iteration on a sample of the rows, and tried on others. P is 64 times a power of
    two, at most D / 4.
    """
    total, size = features_ND.shape
    scale, centre_D = _centre(features_ND, max(1, _ELEMENTS // max(1, size)))
    # Every other row of the sample finds, the rest try: rows that were not fitted show what is left out.
    count = 64
    while count <= min(size, total // 32) // 4:
        rows_S = torch.linspace(0, total - 1, 2 * max(_SAMPLE, 4 * count), device=features_ND.device).long()
        sample_SD = features_ND[rows_S].mul_(scale).sub_(centre_D).float()
        found_SD, tried_SD = sample_SD[::2], sample_SD[1::2]
        directions_DP = torch.linalg.qr(found_SD[:count].T).Q
        for _ in range(2):
            directions_DP = torch.linalg.qr(found_SD.T @ (found_SD @ directions_DP)).Q
        squares_S = tried_SD.square().sum(dim=1)
        tails_S = squares_S - (tried_SD @ directions_DP).square().sum(dim=1)
        if bool((tails_S <= _LARGEST_TAIL * squares_S.max()).all()):
            return torch.linalg.qr(directions_DP.double()).Q
        count *= 2
    return None


def _centre(features_ND: Tensor, step: int) -> tuple[float, Tensor]:
    """A power of two that makes all coordinates smaller than 1, and the mean of the rows times it."""
    total, size = features_ND.shape
    largest, sums_D = 0.0, torch.zeros(size, dtype=torch.float64, device=features_ND.device)
    parts = [part for part in features_ND.split(step) if part.numel()]
    for part_BD in parts:
        low, high = part_BD.aminmax()
        largest = max(largest, -float(low), float(high))
    scale = _power_of_two(largest)
    for part_BD in parts:
        sums_D += (part_BD * scale).sum(dim=0).double()
    return scale, (sums_D / max(1, total)).to(features_ND.dtype)


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
