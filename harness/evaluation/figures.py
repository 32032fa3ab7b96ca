"""Figures as they are recorded: fractions rounded to eight decimals, so that equal results are equal bytes."""

from __future__ import annotations

import base64
from collections.abc import Mapping
from typing import Annotated, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import AfterValidator, BaseModel, ConfigDict, Field

DECIMALS = 8

FigureName = Literal["rank1", "rank5", "rank10", "rank20", "mAP", "mINP"]
FIGURE_NAMES: tuple[FigureName, ...] = ("rank1", "rank5", "rank10", "rank20", "mAP", "mINP")


def _rounded(value: float) -> float:
    return round(value, DECIMALS) + 0.0  # no negative zero


Fraction = Annotated[float, Field(ge=0, le=1, allow_inf_nan=False), AfterValidator(_rounded)]
Agreement = Annotated[float, Field(ge=-1, le=1, allow_inf_nan=False), AfterValidator(_rounded)]


class FrozenModel(BaseModel):
    """A value object: unknown fields are refused, fields cannot be reassigned."""

    # NaN stays NaN in a dump, where the writer refuses it; by default it would silently become null
    model_config = ConfigDict(extra="forbid", frozen=True, ser_json_inf_nan="constants")


class Figures(FrozenModel):
    """The result of one protocol: means over the trials, per-trial values, and the sample standard deviation over the
    trials (none for a single trial)."""

    rank1: Fraction
    rank5: Fraction
    rank10: Fraction
    rank20: Fraction
    mAP: Fraction
    mINP: Fraction
    per_trial: dict[FigureName, list[Fraction]]
    sd: dict[FigureName, Fraction | None]
    trials: int = Field(ge=1)
    queries: int = Field(ge=1)
    valid_queries: int = Field(ge=1)
    gallery_size: int = Field(ge=1)


class QueryMeans(FrozenModel):
    """Rank-1 and average precision of every query, each the mean over the trials, in the order of the test set.

    Kept as base64 of little-endian uint16, in units of 1/65000 (65535: a query without a correct image), because a
    record is read by people too. What a paired bootstrap over queries needs.
    """

    rank1: str
    AP: str

    @classmethod
    def of(cls, rank1_Q: NDArray[np.float64], average_precision_Q: NDArray[np.float64]) -> QueryMeans:
        """From fractions, float64 [Q]; NaN for an invalid query."""
        return cls(rank1=_packed(rank1_Q), AP=_packed(average_precision_Q))

    def values(self, figure: Literal["rank1", "AP"]) -> NDArray[np.float64]:
        """Fractions, float64 [Q], to 1/65000; NaN for an invalid query.

        Raises:
            ValueError: the text is not what :meth:`of` makes.
        """
        steps = np.frombuffer(base64.b64decode(getattr(self, figure), validate=True), dtype="<u2")
        return np.where(steps == _INVALID, np.nan, steps / _STEPS)


_STEPS, _INVALID = 65000, 65535


def _packed(fractions_Q: NDArray[np.float64]) -> str:
    steps = np.where(np.isnan(fractions_Q), _INVALID, np.rint(np.nan_to_num(fractions_Q) * _STEPS)).astype("<u2")
    return base64.b64encode(steps.tobytes()).decode("ascii")


def figures_table(figures: Mapping[str, Figures]) -> str:
    """Figures by protocol identifier as a table in percent, ± the sample standard deviation over the trials."""
    from tabulate import tabulate

    headers = ["protocol", *(figure_header(name) for name in FIGURE_NAMES), "trials", "gallery", "queries"]
    rows = [
        [identifier, *(_percent(found, name) for name in FIGURE_NAMES), *_counts(found)]
        for identifier, found in figures.items()
    ]
    align = ["left", *["right"] * (len(headers) - 1)]
    return tabulate(rows, headers=headers, tablefmt="github", disable_numparse=True, colalign=align)


def figure_header(figure: FigureName) -> str:
    """What tables call a figure: rank-1, mAP."""
    return f"rank-{figure.removeprefix('rank')}" if figure.startswith("rank") else figure


def _percent(figures: Figures, name: FigureName) -> str:
    deviation = figures.sd[name]
    value = f"{100 * float(getattr(figures, name)):.2f}"
    return value if deviation is None else f"{value} ± {100 * deviation:.2f}"


def _counts(figures: Figures) -> tuple[str, str, str]:
    valid, every = figures.valid_queries, figures.queries
    return str(figures.trials), str(figures.gallery_size), str(every) if valid == every else f"{valid} of {every}"
