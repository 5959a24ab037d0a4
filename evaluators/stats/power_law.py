"""Power laws along a scaling axis: y = c + a·x^b, by least squares.

For a given exponent b the curve is linear in a and c, so that only b is searched (variable
projection, Golub & Pereyra 1973): a grid finds the valley, scipy's elementwise search its bottom,
for all bootstrap samples at once. The interval of a prediction is that of the samples' predictions.

With four sizes or more the limit c is fitted too, and b is negative: the curve levels off. With
fewer, c is 0 and b may have either sign: a curve of three numbers through three sizes fits any
three.

Shapes: N sizes, S bootstrap samples (or the values themselves, as one), G exponents of the grid.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy.optimize import elementwise

from evaluators.stats.intervals import percentile_interval

LEAST_SIZES = 3
"""Sizes that a fit needs."""
SIZES_FOR_LIMIT = 4
"""Sizes from which the limit c is fitted."""
_STEEPEST, _FLATTEST = 3.0, 0.02
_GRID = 61


@dataclass(frozen=True, slots=True)
class PowerLaw:
    """y = limit + scale·x^exponent.

    Attributes:
        scale: a, in units of y; negative for what grows towards its limit.
        exponent: b.
        limit: c, in units of y; 0 where it was not fitted.
    """

    scale: float
    exponent: float
    limit: float

    def __call__(self, x_X: np.ndarray) -> np.ndarray:
        """Return y at each x."""
        y_X: np.ndarray = self.limit + self.scale * x_X**self.exponent
        return y_X

    def __str__(self) -> str:
        """Format as `1.20 + 3.4·n^−0.35`."""
        exponent = f"{self.exponent:.2f}".replace("-", "−")
        scale = f"{abs(self.scale):.3g}"
        if not self.limit:
            return f"{'−' if self.scale < 0 else ''}{scale}·n^{exponent}"
        sign = "−" if self.scale < 0 else "+"
        return f"{self.limit:.2f} {sign} {scale}·n^{exponent}".replace("-", "−")


@dataclass(frozen=True, slots=True)
class SampledLaws:
    """The power law of each bootstrap sample, S of each number."""

    scale_S: np.ndarray
    exponent_S: np.ndarray
    limit_S: np.ndarray

    def __call__(self, x: float) -> np.ndarray:
        """Return y at `x` of each law."""
        y_S: np.ndarray = self.limit_S + self.scale_S * x**self.exponent_S
        return y_S


@dataclass(frozen=True, slots=True)
class FittedCurve:
    """A power law with what its bootstrap samples say of it.

    Attributes:
        law: the fit of the values themselves.
        exponent: ends of the 95 % interval of the exponent; None without samples.
        laws: the fits of the samples; None without any.
        n: number of controls behind each value, for the interval's width.
    """

    law: PowerLaw
    exponent: tuple[float, float] | None
    laws: SampledLaws | None
    n: int

    def predict(self, x: float) -> tuple[float, float | None, float | None]:
        """Return y at `x` with the ends of its 95 % interval; None where there are no samples."""
        estimate = float(self.law(np.array([x]))[0])
        if self.laws is None:
            return estimate, None, None
        low, high = percentile_interval(estimate, self.laws(x), self.n)
        return estimate, low, high


def fit_curve(
    x_N: np.ndarray, y_N: np.ndarray, drawn_SN: np.ndarray | None, *, n: int, positive: bool
) -> FittedCurve:
    """Fit a power law, and one to each bootstrap sample.

    Args:
        x_N: sizes, above zero, distinct.
        y_N: the value at each size.
        drawn_SN: the values in each bootstrap sample; None gives no interval.
        n: number of controls.
        positive: whether y, such as a loss, has a limit that cannot be below zero.

    Raises:
        ValueError: there are fewer than `LEAST_SIZES` sizes.
    """
    law = fit_power_law(x_N, y_N, positive=positive)
    if drawn_SN is None or n < 2:
        return FittedCurve(law, None, None, n)
    laws = _fit(x_N, drawn_SN, positive=positive)
    return FittedCurve(law, percentile_interval(law.exponent, laws.exponent_S, n), laws, n)


def fit_power_law(x_N: np.ndarray, y_N: np.ndarray, *, positive: bool) -> PowerLaw:
    """Fit y = c + a·x^b by least squares.

    Args:
        x_N: sizes, above zero, distinct.
        y_N: the value at each size.
        positive: whether the limit c is kept from falling below zero.

    Raises:
        ValueError: there are fewer than `LEAST_SIZES` sizes.
    """
    if len(x_N) < LEAST_SIZES:
        raise ValueError(f"expected at least {LEAST_SIZES} sizes, got {len(x_N)}")
    found = _fit(x_N, y_N[None], positive=positive)
    return PowerLaw(
        scale=float(found.scale_S[0]),
        exponent=float(found.exponent_S[0]),
        limit=float(found.limit_S[0]),
    )


def _fit(x_N: np.ndarray, y_SN: np.ndarray, *, positive: bool) -> SampledLaws:
    # numbers near 1 keep the powers of large sizes from underflowing
    unit = float(np.exp(np.log(x_N).mean()))
    with_limit = len(x_N) >= SIZES_FOR_LIMIT
    scaled_N, rows_S = x_N / unit, np.arange(len(y_SN))

    def solve(exponent_S: np.ndarray, rows_S: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        return _linear(scaled_N ** exponent_S[:, None], y_SN[rows_S], with_limit, positive)

    def residual(exponent_S: np.ndarray, rows_S: np.ndarray) -> np.ndarray:
        shape = exponent_S.shape
        exponent_S, rows_S = exponent_S.ravel(), rows_S.ravel()
        scale_S, limit_S = solve(exponent_S, rows_S)
        law_SN = limit_S[:, None] + scale_S[:, None] * scaled_N ** exponent_S[:, None]
        away_SN = law_SN - y_SN[rows_S]
        found: np.ndarray = (away_SN**2).sum(1).reshape(shape)
        return found

    grid_G = np.linspace(-_STEEPEST, -_FLATTEST if with_limit else _STEEPEST, _GRID)
    on_grid_GS = np.stack([residual(np.full(len(rows_S), b), rows_S) for b in grid_G])
    best_S = on_grid_GS.argmin(0)
    # a valley at an end of the grid has no bracket: its bottom is that end
    inner_S = np.clip(best_S, 1, _GRID - 2)
    bracket = grid_G[inner_S - 1], grid_G[inner_S], grid_G[inner_S + 1]
    found = elementwise.find_minimum(residual, bracket, args=(rows_S,))
    exponent_S = np.where(found.success & (inner_S == best_S), found.x, grid_G[best_S])
    scale_S, limit_S = solve(exponent_S, rows_S)
    return SampledLaws(scale_S / unit**exponent_S, exponent_S, limit_S)


def _linear(
    power_SN: np.ndarray, y_SN: np.ndarray, with_limit: bool, positive: bool
) -> tuple[np.ndarray, np.ndarray]:
    """Return the scales and the limits that fit best where x^b is given."""
    plain_S = (power_SN * y_SN).sum(1) / (power_SN**2).sum(1)
    none_S = np.zeros(len(y_SN))
    if not with_limit:
        return plain_S, none_S
    away_SN = power_SN - power_SN.mean(1, keepdims=True)
    scale_S = (away_SN * y_SN).sum(1) / (away_SN**2).sum(1)
    limit_S = y_SN.mean(1) - scale_S * power_SN.mean(1)
    if not positive:
        return scale_S, limit_S
    below_S = limit_S < 0
    return np.where(below_S, plain_S, scale_S), np.where(below_S, none_S, limit_S)
