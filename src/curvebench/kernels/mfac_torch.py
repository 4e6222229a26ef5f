"""M-FAC's sliding window in torch: products with the inverse of ``F = damping I + (1/m) G'G`` while ``G`` changes.

Shapes: ``m`` gradients in the window, ``d`` parameters; ``G [m, d]`` holds one gradient a row, ``S = G G' [m, m]``.
Source: Frantar, Kurtic, Alistarh 2021, arXiv 2107.03356. The static counterpart is in ``mfac_static_torch``.
"""

from __future__ import annotations

import math
from functools import lru_cache
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.linalg.blas import ddot, sdot
from scipy.linalg.lapack import dposv
from torch import Tensor

from curvebench.errors import CurvebenchError, HyperparameterError
from curvebench.kernels.precision_torch import full_precision, is_full

FORMULAS = ("in-span", "official")
PIECE = 1 << 17
"""Most columns of the window that one partial product reads: long float32 sums lose digits, short ones cost time."""
SMALL = 1 << 17
"""Numbers in a float32 window up to which its products are float64: there, calls cost more than arithmetic."""


_DOT = {"f": sdot, "d": ddot}


class _Views(NamedTuple):
    """A window on the CPU as NumPy arrays on the same memory, and room for the vectors of ``m`` numbers of a step.

    After a pass over a long window all but its end is out of the cache, the code of the next call too: each call then
    costs some ten times what it costs otherwise. So a step makes few.

    Args:
        gradients: the tensor behind ``rows``.
        store: the tensor behind ``gram``.
        rows: ``G [m, d]``.
        gram: ``S [m, m]``.
        transposed: ``G' [d, m]``.
        dots: ``[m]`` in the window's dtype.
        dots_array: the same memory.
        weights: ``[m]`` in the window's dtype.
        weights_array: the same memory.
        right: ``[m]``, float64, zero.
        small: whether products are float64.
        pieces: the columns of the window, cut into what one product reads.
        direct: whether a product in span is one call.
    """

    gradients: Tensor
    store: Tensor
    rows: NDArray[Any]
    gram: NDArray[np.float64]
    transposed: Tensor
    dots: Tensor
    dots_array: NDArray[Any]
    weights: Tensor
    weights_array: NDArray[Any]
    right: NDArray[np.float64]
    small: bool
    pieces: tuple[slice, ...]
    direct: bool


class SlidingWindow:
    """The last ``m`` gradients in a ring, oldest replaced first, and ``S`` beside them.

    The divisor is ``m`` also while rows are still zero. ``S`` is float64: rounded to float32, and amplified by its
    condition, it would be the largest error of a product.

    Args:
        window: ``m``, at least 1.
        dimension: ``d``.
        damping: ``damping`` > 0.
        dtype: float32 or float64.
        device: where the window lives.
        formula: ``'in-span'``, or ``'official'``: the authors' recursion in the window's own precision, for comparison.

    Raises:
        HyperparameterError: a value outside its range.

    Differs from the authors' code: it subtracts two vectors of length ``|x| / damping``, so that float32 loses
    ``eps cond(F)`` for a gradient of the window; here nothing of that size appears (``formula='in-span'``).
    """

    def __init__(
        self,
        window: int,
        dimension: int,
        damping: float,
        *,
        dtype: torch.dtype = torch.float32,
        device: torch.device | str = "cpu",
        formula: str = "in-span",
    ) -> None:
        if not window >= 1:
            raise HyperparameterError(f"M-FAC: window = {window!r}: must lie in [1, inf)")
        check_damping(damping)
        if formula not in FORMULAS:
            raise HyperparameterError(f"M-FAC: formula = {formula!r}: must be one of {', '.join(map(repr, FORMULAS))}")
        if dtype not in (torch.float32, torch.float64):
            raise HyperparameterError(f"M-FAC: dtype = {dtype}: must be torch.float32 or torch.float64")
        self.damping = float(damping)
        self.formula = formula
        self._eps = torch.finfo(dtype).eps
        self.gradients = torch.zeros(window, dimension, dtype=dtype, device=device)
        # In any dtype 2 m^2 numbers of it, so that one formula gives the size: with float64 one half is idle.
        self.store = torch.zeros(window, window * dtype.itemsize // 4, dtype=torch.float64, device=device)
        self.slot = 0
        """The row that the next gradient replaces."""
        self._views: _Views | None = None

    @property
    def gram(self) -> Tensor:
        """``S [m, m]``, float64: a view of the store."""
        return self.store[:, : len(self.store)]

    def __getstate__(self) -> dict[str, Any]:
        """What is copied or pickled: views would become arrays of their own."""
        return self.__dict__ | {"_views": None}

    @torch.no_grad()
    def push(self, gradient: Tensor) -> bool:
        """Let ``gradient [d]`` replace the oldest row; False, and nothing has changed, if its square is not finite."""
        with full_precision(gradient.device):
            return self._push(gradient)

    @torch.no_grad()
    def direction(self, out: Tensor | None = None, *, keep: float = 0.0, scale: float = 1.0) -> Tensor:
        """``keep out + scale F^-1 g [d]`` for the newest gradient ``g``.

        In span: ``F^-1 g_j = m G' (m damping I + S)^-1 e_j``, one pass over the window.

        Args:
            out: overwritten with the result; by default a new vector, and ``keep`` is 0.
            keep: factor of what ``out`` holds.
            scale: factor of ``F^-1 g``.
        """
        with full_precision(self.gradients.device):
            return self._direction(out, keep, scale)

    def update(
        self, gradient: Tensor, out: Tensor | None = None, *, keep: float = 0.0, scale: float = 1.0
    ) -> Tensor | None:
        """:meth:`push`, then :meth:`direction` into ``out``; None, and nothing has changed, if ``g`` is not finite."""
        if not (gradient.requires_grad or (out is not None and out.requires_grad)) and is_full(gradient.device.type):
            return self._update(gradient, out, keep, scale)  # nothing to switch off: switches are calls too
        with torch.no_grad(), full_precision(gradient.device):
            return self._update(gradient, out, keep, scale)

    def _update(self, gradient: Tensor, out: Tensor | None, keep: float, scale: float) -> Tensor | None:
        if out is None or (host := self._host()) is None or not host.direct or gradient.requires_grad:
            return self._direction(out, keep, scale) if self._push(gradient) else None
        values, row = gradient.numpy(), self.slot  # the same without a function for each part
        if not math.isfinite(_DOT[values.dtype.char](values, values)):
            return None
        host.rows[row] = values
        torch.mv(host.gradients, gradient, out=host.dots)
        host.gram[row] = host.dots_array
        host.gram[:, row] = host.dots_array
        self.slot = (row + 1) % len(host.gram)
        host.right[row] = len(host.gram) * scale
        host.weights_array[:] = self._solved_on(host, host.right)
        host.right[row] = 0.0
        return torch.addmv(out, host.transposed, host.weights, beta=keep, out=out)

    def _push(self, gradient: Tensor) -> bool:
        # By Cauchy-Schwarz no product with another row overflows where no square does.
        if (host := self._host()) is not None:
            values = gradient.detach().numpy()
            if not math.isfinite(_DOT[values.dtype.char](values, values)):
                return False
            host.rows[self.slot] = values
            gram: Any = host.gram
            dots: Any = self._products(gradient, host).numpy()
        else:
            if not math.isfinite(torch.dot(gradient, gradient)):
                return False
            self.gradients[self.slot].copy_(gradient)
            gram, dots = self.gram, self._products(gradient, None)
        gram[self.slot] = dots
        gram[:, self.slot] = dots
        self.slot = (self.slot + 1) % len(self.gradients)
        return True

    def _direction(self, out: Tensor | None, keep: float, scale: float) -> Tensor:
        m, host = len(self.gradients), self._host()
        newest = (self.slot - 1) % m
        if out is None:
            out, keep = self.gradients.new_empty(self.gradients.shape[1]), 0.0
        if self.formula == "official":
            weights = _official_weights(self.gram.to(out.dtype), self.damping, self.gram[newest]).mul_(-scale)
            out = out.mul_(keep) if keep else out.zero_()
            out.add_(self.gradients[newest], alpha=scale / self.damping)
            return out.addmv_(self.gradients.t(), weights)
        weights = self._column(newest, m * scale, host)
        if host.small if host is not None else self._is_small():
            combination = torch.mv(self.gradients.t().double(), weights)
            return out.copy_(combination.add_(out, alpha=keep) if keep else combination)
        return self._combine(out, weights, keep, host)

    @torch.no_grad()
    def solve(self, vector: Tensor) -> Tensor:
        """``F^-1 x = (x - G' (m damping I + S)^-1 G x) / damping`` for any ``vector [d]``: two passes over the window.

        For a gradient of the window itself :meth:`direction` is exact where this one cancels.
        """
        with full_precision(vector.device):
            dots = self._products(vector, host := self._host())
            if self.formula == "official":
                weights = _official_weights(self.gram.to(vector.dtype), self.damping, dots)
                return torch.addmv(vector / self.damping, self.gradients.t(), weights, alpha=-1)
            weights = self._solved(dots.double())
            if self._is_small():
                rest = vector - torch.mv(self.gradients.t().double(), weights)
                return rest.div_(self.damping).to(vector.dtype)
            return self._combine(vector.clone(), weights.neg_().to(vector.dtype), 1.0, host).div_(self.damping)

    def widen(self, dimension: int) -> None:
        """Append parameters: the gradients so far count as zero there."""
        more = dimension - self.gradients.shape[1]
        self.gradients = torch.cat([self.gradients, self.gradients.new_zeros(len(self.gradients), more)], dim=1)

    def _column(self, row: int, factor: float, host: _Views | None) -> Tensor:
        """``factor (m damping I + S)^-1 e_row [m]``: in the window's dtype, of a small window float64."""
        if host is not None:
            right = np.zeros(len(host.gram))
            right[row] = factor
            found = self._solved_on(host, right)
            if host.small:
                return torch.from_numpy(found)
            host.weights_array[:] = found
            return host.weights
        unit = torch.zeros(len(self.store), dtype=torch.float64, device=self.store.device)
        unit[row] = factor
        return self._solved(unit).to(torch.float64 if self._is_small() else self.gradients.dtype)

    def _solved(self, right: Tensor) -> Tensor:
        """``(m damping I + S)^-1 right [m]``, float64."""
        if (host := self._host()) is not None:
            return torch.from_numpy(self._solved_on(host, right.numpy()))
        factor = cholesky(self.gram, len(self.store) * self.damping, self._eps)
        return torch.cholesky_solve(right[:, None], factor).squeeze(1)

    def _solved_on(self, host: _Views, right: NDArray[np.float64]) -> NDArray[np.float64]:
        """By LAPACK at once: at all sizes faster than torch's two calls, which also copy."""
        m = len(right)
        shift = m * self.damping
        _, found, info = dposv((host.gram + _multiple(m, shift)).T, right, overwrite_a=1)
        if info == 0:
            return np.asarray(found)
        factor = cholesky(self.gram, shift, self._eps)
        return np.asarray(torch.cholesky_solve(torch.from_numpy(right[:, None]), factor).numpy()[:, 0])

    def _host(self) -> _Views | None:
        """The window and ``S`` as NumPy arrays on the same memory; None if they are not on the CPU."""
        views = self._views
        if views is not None and views.gradients is self.gradients and views.store is self.store:
            return views
        if self.store.device.type != "cpu":
            return None
        G, (dots, weights) = self.gradients, self.gradients.new_empty(2, len(self.gradients))
        small, pieces = self._is_small(), self._pieces()
        self._views = _Views(
            G, self.store, G.numpy(), self.gram.numpy(), G.t(), dots, dots.numpy(), weights, weights.numpy(),
            np.zeros(len(G)), small, pieces, not small and len(pieces) == 1 and self.formula == "in-span",
        )  # fmt: skip
        return self._views

    def _is_small(self) -> bool:
        return self.gradients.numel() <= SMALL and self.formula == "in-span"

    def _products(self, vector: Tensor, host: _Views | None) -> Tensor:
        """``G x [m]``: float64, or a single product of the window's dtype; partial sums where one would lose digits."""
        if host.small if host is not None else self._is_small():
            return torch.mv(self.gradients.double(), vector.double())
        pieces = host.pieces if host is not None else self._pieces()
        if len(pieces) == 1:
            return torch.mv(self.gradients, vector, out=host.dots if host is not None else None)
        partial = vector.new_empty(len(pieces), len(self.gradients))
        for row, piece in zip(partial, pieces, strict=True):
            torch.mv(self.gradients[:, piece], vector[piece], out=row)
        return partial.sum(0, dtype=torch.float64)

    def _combine(self, out: Tensor, weights: Tensor, keep: float, host: _Views | None) -> Tensor:
        """``keep out + G' weights [d]`` in ``out``, from the end: what :meth:`_products` read last is in cache."""
        transposed = host.transposed if host is not None else self.gradients.t()
        pieces = host.pieces if host is not None else self._pieces()
        if len(pieces) == 1:
            return torch.addmv(out, transposed, weights, beta=keep, out=out)
        for piece in reversed(pieces):
            part = out[piece]
            torch.addmv(part, transposed[piece], weights, beta=keep, out=part)
        return out

    def _pieces(self) -> tuple[slice, ...]:
        """The columns of the window, cut into what one product reads."""
        d = self.gradients.shape[1]
        return _pieces(d, PIECE if self.gradients.device.type == "cpu" else d)


@lru_cache(maxsize=8)
def _pieces(dimension: int, width: int) -> tuple[slice, ...]:
    return tuple(slice(start, min(start + width, dimension)) for start in range(0, dimension, width))


@lru_cache(maxsize=8)
def _multiple(rows: int, factor: float) -> NDArray[np.float64]:
    """``factor I [rows, rows]``."""
    return factor * np.eye(rows)


def check_damping(damping: float) -> None:
    """Refuse a damping that leaves ``F`` singular.

    Raises:
        HyperparameterError: it is not in (0, inf).
    """
    if not 0 < damping < float("inf"):
        raise HyperparameterError(f"M-FAC: damping = {damping!r}: must lie in (0, inf)")


def cholesky(gram: Tensor, shift: float, eps: float) -> Tensor:
    """Lower ``C [..., m, m]`` with ``C C' = S + shift I``.

    Args:
        gram: ``S [..., m, m]``, float64, positive semi-definite up to rounding.
        shift: > 0.
        eps: unit of rounding with which ``S`` was computed: what may be added to its diagonal, times its trace, where
            rounding has made it indefinite.

    Raises:
        CurvebenchError: ``S`` is not finite.
    """
    identity = torch.eye(gram.shape[-1], dtype=gram.dtype, device=gram.device)
    shifted = torch.add(gram, identity, alpha=shift)
    factor: Tensor
    factor, info = torch.linalg.cholesky_ex(shifted)
    if not (info.any() if info.dim() else info):
        return factor
    diagonal = shifted.diagonal(dim1=-2, dim2=-1)
    nudge = eps * gram.diagonal(dim1=-2, dim2=-1).sum(-1, keepdim=True)
    for _ in range(8):
        diagonal.add_(nudge * (info != 0).unsqueeze(-1))
        factor, info = torch.linalg.cholesky_ex(shifted)
        if not info.any():
            return factor
        nudge = 4 * nudge
    raise CurvebenchError("M-FAC: the products of the gradients in the window are not finite")


def _official_weights(gram: Tensor, damping: float, dots: Tensor) -> Tensor:
    """``c [m]`` of ``F^-1 x = x/damping - G'c`` by the authors' recursion, in the dtype of ``gram``.

    ``D_ij = S_ij/damping - sum_{k<i} D_ki D_kj / delta_k`` (upper), ``delta = m + diag D``; ``B_ii = 1/damping``,
    ``B_i = -sum_{k<i} D_ki/delta_k B_k`` (lower); ``p_k = (G x)_k/damping - sum_{l<k} D_lk/delta_l p_l``;
    ``c = (p/delta) B``.
    """
    m = len(gram)
    D, B, delta = gram.new_zeros(m, m), torch.eye(m, dtype=gram.dtype, device=gram.device) / damping, gram.new_zeros(m)
    p = dots.to(gram.dtype) / damping
    for i in range(m):
        ratio = D[:i, i] / delta[:i]
        D[i, i:] = gram[i, i:] / damping - ratio @ D[:i, i:]
        delta[i] = m + D[i, i]
        B[i, :i] = -ratio @ B[:i, :i]
        p[i] -= ratio @ p[:i]
    return (p / delta) @ B
