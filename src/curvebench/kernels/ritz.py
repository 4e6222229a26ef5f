"""What Ritz values say about a spectrum, for both frameworks."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, Protocol


class _Quadratures(Protocol):
    @property
    def nodes(self) -> Sequence[Any]: ...

    @property
    def bounds(self) -> Sequence[Any]: ...


class RitzValues:
    """Ends and smoothing width of quadratures that have ``nodes`` and ``bounds``, one array ``[k]`` for every start.

    ``nodes[s]``: Ritz values, ascending; an eigenvalue of H lies within ``bounds[s][i]`` of ``nodes[s][i]``.
    """

    def smoothing(self: _Quadratures, margin: float = 0.05, kappa: float = 3.0) -> float:
        """Papyan's width for the density: two Gaussians at the mean distance of nodes overlap at 1/kappa of the peak.

        ``(1 + 2 margin) (max - min) / ((k - 1) sqrt(8 log kappa))`` (jmlr.org/papers/v21/20-933.html, section D.2).
        """
        (low, _), (high, _) = RitzValues.extremes(self)
        k = max(map(len, self.nodes))
        return (1 + 2 * margin) * (high - low) / (max(k - 1, 1) * math.sqrt(8 * math.log(kappa)))

    def extremes(self: _Quadratures) -> tuple[tuple[float, float], tuple[float, float]]:
        """Smallest and largest Ritz value over all starts, each ``(value, bound)``: an eigenvalue is within the bound.

        Ritz values lie inside the spectrum: the true extremes are these or farther out.
        """
        ends = [[(float(t[i]), float(b[i])) for t, b in zip(self.nodes, self.bounds, strict=True)] for i in (0, -1)]
        return min(ends[0]), max(ends[1])
