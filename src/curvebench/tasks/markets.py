"""Price paths for hedging, their option prices, and what a delta hedge leaves over.

``black-scholes``: ``dS = sigma S dW``, exact on the grid. ``heston``: ``dS = sqrt(v) S dW`` and ``dv = kappa (theta -
v) dt + xi sqrt(v) dB`` with correlation rho, full truncation Euler with eight steps between two rebalances. Interest is
zero, so that prices are martingales. Shapes: prices and variances ``[paths, N + 1]``; times in years.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import erf, exp, pi, sqrt

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[np.float64]
SUBSTEPS = 8


@dataclass(frozen=True)
class Market:
    """Parameters of a market and of the call that is hedged.

    Args:
        model: ``black-scholes`` or ``heston``.
        steps: rebalances until maturity.
        maturity: years.
        spot: price at time 0, and strike.
        sigma: volatility; for Heston sqrt(theta) and the volatility at time 0.
        kappa: speed of mean reversion of the variance.
        rho: correlation of price and variance.
        xi: volatility of the variance.

    Raises:
        ValueError: an unknown model, steps < 1, or a parameter outside its range.
    """

    model: str
    steps: int
    maturity: float = 30 / 365
    spot: float = 100.0
    sigma: float = 0.2
    kappa: float = 1.0
    rho: float = -0.7
    xi: float = 0.2

    def __post_init__(self) -> None:
        if self.model not in ("black-scholes", "heston"):
            raise ValueError(f"market: model = {self.model!r}: must be 'black-scholes' or 'heston'")
        if self.steps < 1 or min(self.maturity, self.spot, self.sigma, self.kappa) <= 0 or self.xi < 0:
            raise ValueError(f"market: {self}: steps must be >= 1, xi >= 0, the others positive")
        if not -1 <= self.rho <= 1:
            raise ValueError(f"market: rho = {self.rho}: must lie in [-1, 1]")

    def simulate(self, rng: np.random.Generator, paths: int) -> tuple[Array, Array]:
        """Prices and variances ``[paths, N + 1]``."""
        dt = self.maturity / self.steps
        if self.model == "black-scholes":
            shocks = rng.standard_normal((paths, self.steps))
            logs = np.cumsum(self.sigma * sqrt(dt) * shocks - self.sigma**2 * dt / 2, axis=1)
            prices = self.spot * np.exp(np.concatenate([np.zeros((paths, 1)), logs], axis=1))
            return prices, np.full_like(prices, self.sigma**2)
        return self._heston(rng, paths, dt / SUBSTEPS)

    def _heston(self, rng: np.random.Generator, paths: int, dt: float) -> tuple[Array, Array]:
        theta = self.sigma**2
        s, v = np.full(paths, self.spot), np.full(paths, theta)
        prices, variances = [s], [v]
        for _ in range(self.steps):
            for _ in range(SUBSTEPS):
                first, second = rng.standard_normal((2, paths))
                positive = np.maximum(v, 0)
                s = s * np.exp(np.sqrt(positive * dt) * first - positive * dt / 2)
                joint = self.rho * first + sqrt(1 - self.rho**2) * second
                v = v + self.kappa * (theta - positive) * dt + self.xi * np.sqrt(positive * dt) * joint
            prices.append(s)
            variances.append(np.maximum(v, 0))
        return np.stack(prices, axis=1), np.stack(variances, axis=1)

    def black_scholes(self) -> float:
        """Price of the at-the-money call at constant volatility ``sigma``."""
        width = self.sigma * sqrt(self.maturity)
        return self.spot * (2 * _normal(width / 2) - 1)

    def derman_kamal(self) -> float:
        """``sqrt(pi/4) vega sigma / sqrt(N)``: standard deviation of a delta hedge that rebalances N times."""
        width = self.sigma * sqrt(self.maturity)
        vega = self.spot * sqrt(self.maturity) * exp(-(width**2) / 8) / sqrt(2 * pi)
        return sqrt(pi / 4) * vega * self.sigma / sqrt(self.steps)

    def delta_hedge(self, prices: Array) -> Array:
        """What a Black-Scholes delta hedge leaves: ``payoff - price - sum delta_k (S_{k+1} - S_k)`` ``[paths]``."""
        left = self.maturity * (1 - np.arange(self.steps) / self.steps)
        width = self.sigma * np.sqrt(left)
        d1 = np.log(prices[:, :-1] / self.spot) / width + width / 2
        delta = np.vectorize(_normal)(d1)
        payoff = np.maximum(prices[:, -1] - self.spot, 0)
        out: Array = payoff - self.black_scholes() - (delta * np.diff(prices, axis=1)).sum(axis=1)
        return out


def _normal(x: float) -> float:
    return (1 + erf(x / sqrt(2))) / 2


def features(prices: Array, variances: Array, spot: float) -> Array:
    """What the hedger sees at time k: log-moneyness and volatility, scaled to order one: ``[paths, N + 1, 2]``."""
    moneyness = np.log(prices / spot) * 20
    volatility = np.sqrt(variances) * 5
    return np.stack([moneyness, volatility], axis=2)
