"""How well a matrix C stands for a symmetric matrix F, as a matrix and as a preconditioner of one gradient.

Letters: ``F [d, d]`` the truth, ``C [d, d]`` the approximation, both symmetric; ``g [d]`` the gradient; ``lam > 0`` the
damping; ``x = (C + lam I)^-1 g``, ``x* = (F + lam I)^-1 g``. An indefinite F (a Hessian) stands with its absolute
eigenvalues wherever it is inverted or measures length.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import scipy.linalg

from curvebench.types import FloatArray

TOP = 10
"""Largest eigenvalues that are compared one by one."""
ROUNDING = 1e-10
"""Eigenvalues of F below zero by less than this share of the largest are rounding."""


@dataclass(frozen=True)
class Quality:
    """What :meth:`Truth.compare` measures; a number that does not exist is None.

    Args:
        relative_error: ``|C - F| / |F|``, Frobenius.
        block_error: the same over the diagonal blocks of the layers alone.
        trace_ratio: ``tr C / tr F``.
        top_error: mean relative error of the ten largest eigenvalues, by rank.
        spectrum: ``W1`` distance of the two spectra over the mean absolute eigenvalue of F.
        inverse_error: ``|x - x*| / |x*|``.
        residual: ``|(F + lam I) x - g| / |g|``.
        cosine: of x and x*.
        eff: ``(g'x)^2 / ((x' F_lam x)(g' F_lam^-1 g))``, the share of the best decrease of the quadratic model that the
            best step along x reaches; in [0, 1].
        scale: ``g'x / (x' F_lam x)``, that best step length; 1 is right, 0.01: the step is 100 times too long.
        stability: largest eigenvalue of ``C_lam^-1 F``: plain steps are stable up to a step size of 2 over it.
    """

    relative_error: float | None
    block_error: float | None
    trace_ratio: float | None
    top_error: float | None
    spectrum: float | None
    inverse_error: float | None
    residual: float | None
    cosine: float | None
    eff: float | None
    scale: float | None
    stability: float | None


class Truth:
    """F with what every comparison needs of it.

    Args:
        matrix: F.
        gradient: g.
        damping: lam.
        blocks: the layers' slices of the parameters; all others count as one block each.
        negligible: a gradient no longer than this is rounding: what is measured along it is None.

    Raises:
        ValueError: shapes that do not fit, numbers that are not finite, or a damping that is not positive.
    """

    def __init__(
        self, matrix: FloatArray, gradient: FloatArray, damping: float, blocks: Sequence[slice] = (),
        negligible: float = 0.0,
    ) -> None:  # fmt: skip
        d = len(gradient)
        if matrix.shape != (d, d) or gradient.ndim != 1:
            raise ValueError(f"F {matrix.shape} and g {gradient.shape}: must be [d, d] and [d]")
        if not (np.isfinite(matrix).all() and np.isfinite(gradient).all()):
            raise ValueError("F and g must be finite")
        if not (damping > 0 and math.isfinite(damping)):
            raise ValueError(f"damping = {damping!r}: must lie in (0, inf)")
        self.matrix, self.gradient, self.damping, self.blocks = matrix, gradient, float(damping), tuple(blocks)
        self.eigenvalues, vectors = np.linalg.eigh(matrix)
        sizes = np.abs(self.eigenvalues)
        self.indefinite = bool(self.eigenvalues[0] < -ROUNDING * sizes.max())
        self.norm, self.trace = float(np.linalg.norm(matrix)), float(np.trace(matrix))
        absolute = (vectors * sizes) @ vectors.T if self.indefinite else matrix
        self.damped = absolute + self.damping * np.eye(d)
        self.direction: FloatArray = vectors @ ((vectors.T @ gradient) / (sizes + self.damping))
        self.length = float(np.linalg.norm(gradient))
        self.vanished = self.length <= negligible
        """Whether the gradient is rounding."""

    def compare(self, matrix: FloatArray, direction: FloatArray | None = None) -> Quality:
        """Measure C.

        Args:
            matrix: C.
            direction: x, where a method has a damping of its own; None: ``(C + lam I)^-1 g``.

        Raises:
            ValueError: C has another shape or is not finite.
        """
        if matrix.shape != self.matrix.shape or not np.isfinite(matrix).all():
            raise ValueError(f"C {matrix.shape}: must be finite and {self.matrix.shape}")
        values = np.linalg.eigvalsh(matrix)
        damped = matrix + self.damping * np.eye(len(matrix))
        x = self.solve(matrix) if direction is None else direction
        along: dict[str, float | None] = dict.fromkeys(("inverse_error", "residual", "cosine", "eff", "scale"))
        if x is not None and not self.vanished and np.isfinite(x).all() and x.any():
            along.update(self.along(x))
        size = float(np.abs(self.eigenvalues).mean())
        truth, found = (np.sort(v)[::-1][:TOP] for v in (self.eigenvalues, values))
        return Quality(
            relative_error=ratio(float(np.linalg.norm(matrix - self.matrix)), self.norm),
            block_error=self._block_error(matrix),
            trace_ratio=ratio(float(np.trace(matrix)), self.trace),
            top_error=float(np.mean(np.abs(found - truth) / np.abs(truth))) if truth.all() else None,
            spectrum=ratio(float(np.abs(values - self.eigenvalues).mean()), size),
            stability=self._stability(damped) if values[0] + self.damping > 0 else None,
            **along,
        )

    def along(self, x: FloatArray) -> dict[str, float]:
        """What is measured of the direction x."""
        best, product = self.direction, self.damped @ x
        inner, curvature = float(self.gradient @ x), float(x @ product)
        norms = float(np.linalg.norm(x)) * float(np.linalg.norm(best))
        return {
            "inverse_error": float(np.linalg.norm(x - best) / np.linalg.norm(best)),
            "residual": float(np.linalg.norm(product - self.gradient)) / self.length,
            "cosine": float(x @ best) / norms,
            "eff": inner**2 / (curvature * float(self.gradient @ best)),
            "scale": inner / curvature,
        }

    def solve(self, matrix: FloatArray) -> FloatArray | None:
        """``(C + lam I)^-1 g``, None where that matrix is singular."""
        damped = matrix + self.damping * np.eye(len(matrix))
        try:
            found: FloatArray = scipy.linalg.solve(damped, self.gradient, assume_a="sym")
        except (np.linalg.LinAlgError, scipy.linalg.LinAlgWarning):
            return None
        return found

    def _block_error(self, matrix: FloatArray) -> float | None:
        if not self.blocks:
            return None
        pairs = [(matrix[b, b], self.matrix[b, b]) for b in self.blocks]
        error = math.fsum(float(np.square(c - f).sum()) for c, f in pairs)
        return ratio(math.sqrt(error), math.sqrt(math.fsum(float(np.square(f).sum()) for _, f in pairs)))

    def _stability(self, damped: FloatArray) -> float | None:
        d = len(damped)
        try:
            top = scipy.linalg.eigh(self.matrix, damped, eigvals_only=True, subset_by_index=(d - 1, d - 1))
        except np.linalg.LinAlgError:
            return None
        return float(top[0])


def ratio(a: float, b: float) -> float | None:
    """``a / b``, None for b = 0."""
    return a / b if b else None
