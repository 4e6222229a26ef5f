"""M-FAC for a fixed set of gradients in torch: ``F^-1`` for ``F = damping I + (1/m) G'G``, whole or in diagonal blocks.

Shapes: ``m`` gradients, ``d`` weights, ``G [m, d]``; blocks are contiguous pieces of ``b`` weights, the last shorter.

The authors run one Sherman-Morrison update a gradient: ``2 m`` matrix-vector products. Their result is, up to a factor
per row, ``Z = C^-1 G`` with ``C`` the Cholesky factor of ``m damping I + G G'``: two matrix products, and
``F^-1 = (I - Z'Z) / damping``. A block of at most ``m`` weights is inverted directly: ``F^-1 = K^-T K^-1``.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from curvebench.errors import CurvebenchError, HyperparameterError
from curvebench.kernels.mfac_torch import check_damping, cholesky
from curvebench.kernels.precision_torch import full_precision

PIECE_BYTES = 1 << 21
"""Bytes of the gradients that one partial product reads: they stay in cache between two of its row blocks."""
ROWS = 32
"""Rows of a triangular product that are computed at once: the other triangle is left out down to this size."""
BATCH_BYTES = 1 << 28
"""Working memory of the blocks that are factored together."""


@dataclass(frozen=True)
class _Span:
    """Equal blocks side by side: each inverse is ``identity I + sign W'W``.

    Args:
        start: first weight.
        factor: ``W [blocks, rank, b]``, rank = min(m, b).
        identity: ``1/damping``, or 0.
        sign: ``-1/damping``, or 1.
    """

    start: int
    factor: Tensor
    identity: float
    sign: float

    @property
    def stop(self) -> int:
        return self.start + self.factor.shape[0] * self.factor.shape[2]


class StaticInverse:
    """``F^-1`` of a matrix of gradients. O(m d min(m, b)) to set up, O(m d) a product or the diagonal, O(m) an element.

    Args:
        gradients: ``G [m, d]`` of float32 or float64; it is only read, and need not be kept.
        damping: > 0.
        block: ``b``, at least 1; by default one block for all weights.
        device: where products are computed, if the gradients are too large for it: they and the result, of the same
            size, stay where they are and pass through in pieces.

    Raises:
        HyperparameterError: a value outside its range.
        CurvebenchError: gradients of another shape or dtype, or not finite.

    Differs from the authors' code: gradients are not overwritten, and all of the given rows count.
    """

    def __init__(
        self, gradients: Tensor, damping: float, *, block: int | None = None, device: torch.device | str | None = None
    ) -> None:
        check_damping(damping)
        if block is not None and not block >= 1:
            raise HyperparameterError(f"M-FAC: block = {block!r}: must lie in [1, inf)")
        if gradients.dim() != 2 or not gradients.numel() or gradients.dtype not in (torch.float32, torch.float64):
            raise CurvebenchError(
                f"M-FAC: gradients of shape {list(gradients.shape)} and {gradients.dtype}: "
                "must be [m, d], float32 or float64"
            )
        self.damping = float(damping)
        self.rows, self.dimension = gradients.shape
        self.block = min(block or self.dimension, self.dimension)
        self._eps = torch.finfo(gradients.dtype).eps
        self._device = torch.device(device) if device is not None else gradients.device
        whole = self.dimension // self.block
        with torch.no_grad(), full_precision(self._device):
            self._spans = [self._span(gradients.detach(), 0, whole, self.block)]
            if rest := self.dimension - whole * self.block:
                self._spans.append(self._span(gradients.detach(), self.dimension - rest, 1, rest))

    # -- queries --------------------------------------------------------------------------------------------------

    @torch.no_grad()
    def ihvp(self, vectors: Tensor) -> Tensor:
        """``F^-1 x`` for ``vectors [d]`` or ``[k, d]``, in their shape."""
        with full_precision(self._device):
            if vectors.dim() > 1:
                return torch.stack([self.ihvp(vector) for vector in vectors])
            out = vectors / self.damping
            for span in self._spans:
                target = out[span.start : span.stop]
                self._apply(span, vectors[span.start : span.stop], target)
            return out

    @torch.no_grad()
    def diagonal(self) -> Tensor:
        """``diag(F^-1) [d]``."""
        parts = []
        for span in self._spans:
            squares = torch.linalg.vector_norm(span.factor, dim=1).square_()
            parts.append(squares.mul_(span.sign).add_(span.identity).flatten())
        return torch.cat(parts)

    @torch.no_grad()
    def elements(self, i: Tensor, j: Tensor) -> Tensor:
        """``[F^-1]_ij [k]`` for index vectors ``i [k]`` and ``j [k]``, O(m) each; zero between blocks.

        Raises:
            IndexError: an index outside ``[0, d)``.
        """
        for index in (i, j):
            if bool(((index < 0) | (index >= self.dimension)).any()):
                raise IndexError(
                    f"M-FAC: elements from {int(index.min())} to {int(index.max())}: must lie in [0, {self.dimension})"
                )
        out = self._spans[0].factor.new_zeros(len(i))
        same = i // self.block == j // self.block
        for span in self._spans:
            here = same & (i >= span.start) & (i < span.stop)
            width = span.factor.shape[2]
            number, p, q = (
                (i[here] - span.start) // width,
                (i[here] - span.start) % width,
                (j[here] - span.start) % width,
            )
            inner = (span.factor[number, :, p] * span.factor[number, :, q]).sum(-1)
            out[here] = span.identity * (i[here] == j[here]).to(inner.dtype) + span.sign * inner
        return out

    def _apply(self, span: _Span, x: Tensor, out: Tensor) -> None:
        """Write ``identity x + sign W'(W x)`` into ``out``."""
        blocks, _, width = span.factor.shape
        if blocks > 1:
            columns = x.view(blocks, width, 1)
            product = torch.bmm(span.factor.transpose(1, 2), torch.bmm(span.factor, columns)).view(-1)
        else:
            product = torch.mv(span.factor[0].t(), torch.mv(span.factor[0], x))
        torch.add(product.mul_(span.sign), x, alpha=span.identity, out=out)

    # -- set-up ---------------------------------------------------------------------------------------------------

    def _span(self, gradients: Tensor, start: int, blocks: int, width: int) -> _Span:
        direct = width <= self.rows
        make = self._direct if direct else self._downdate
        factor = gradients.new_empty(blocks, min(width, self.rows), width)
        if not direct and self.rows * width * gradients.element_size() > PIECE_BYTES:
            for number in range(blocks):
                first = start + number * width
                self._long(gradients[:, first : first + width], factor[number])
        else:
            step = max(1, BATCH_BYTES // (8 * max(width, self.rows) ** 2))
            for number in range(0, blocks, step):
                count = min(step, blocks - number)
                piece = gradients[:, start + number * width : start + (number + count) * width].to(self._device)
                make(piece.reshape(self.rows, count, width).transpose(0, 1), factor[number : number + count])
        if direct:
            return _Span(start, factor, 0.0, 1.0)
        return _Span(start, factor, 1 / self.damping, -1 / self.damping)

    def _long(self, gradients: Tensor, out: Tensor) -> None:
        """``Z = C^-1 G`` of one long block ``[m, b]``, piece by piece of its columns."""
        width = max(1, PIECE_BYTES // (self.rows * gradients.element_size()))
        pieces = [slice(a, a + width) for a in range(0, gradients.shape[1], width)]
        lower = torch.zeros(self.rows, self.rows, dtype=torch.float64, device=self._device)
        row_blocks = [slice(a, a + ROWS) for a in range(0, self.rows, ROWS)]
        for piece in pieces:
            part = gradients[:, piece].to(self._device)
            for rows in row_blocks:
                lower[rows, : rows.stop] += part[rows] @ part[: rows.stop].t()
        inverse = self._inverse_factor(lower.tril() + lower.tril(-1).t()).to(gradients.dtype)
        for piece in pieces:
            part = gradients[:, piece].to(self._device)
            for rows in row_blocks:
                out[rows, piece] = inverse[rows, : rows.stop] @ part[: rows.stop]

    def _downdate(self, gradients: Tensor, out: Tensor) -> None:
        """``Z = C^-1 G`` of blocks ``[k, m, b]`` that are longer than ``m``."""
        gram = torch.bmm(gradients, gradients.transpose(1, 2)).double()
        out.copy_(torch.bmm(self._inverse_factor(gram).to(gradients.dtype), gradients))

    def _direct(self, gradients: Tensor, out: Tensor) -> None:
        """``K^-1`` of blocks ``[k, m, b]`` with at most ``m`` weights: ``F = K K'``."""
        fisher = torch.bmm(gradients.transpose(1, 2), gradients).double() / self.rows
        out.copy_(_lower_inverse(cholesky(fisher, self.damping, self._eps)))

    def _inverse_factor(self, gram: Tensor) -> Tensor:
        """``C^-1`` with ``C C' = m damping I + S``, float64."""
        return _lower_inverse(cholesky(gram, self.rows * self.damping, self._eps))


def _lower_inverse(factor: Tensor) -> Tensor:
    identity = torch.eye(factor.shape[-1], dtype=factor.dtype, device=factor.device)
    inverse: Tensor = torch.linalg.solve_triangular(factor, identity.expand_as(factor), upper=False)
    return inverse


# -- optimal brain surgeon ---------------------------------------------------------------------------------------


def obs_scores(weights: Tensor, diagonal: Tensor) -> Tensor:
    """``w_p^2 / (2 [F^-1]_pp) [d]``: by how much the quadratic model grows when weight ``p`` alone is removed."""
    return weights.square().div_(diagonal).div_(2)


def obs_update(inverse: StaticInverse, weights: Tensor, diagonal: Tensor, drop: Tensor) -> Tensor:
    """The weights ``[d]`` after those at the indices ``drop`` are removed and the others make up for it.

    ``w + F^-1 t`` with ``t_p = -w_p/[F^-1]_pp`` on the dropped ones: the sum of single removals, cross terms left out
    as in the authors' code; then exactly zero at ``drop``.
    """
    step = torch.zeros_like(weights)
    step[drop] = -weights[drop] / diagonal[drop]
    out = inverse.ihvp(step).add_(weights)
    out[drop] = 0.0
    return out


def obs_joint_update(inverse: StaticInverse, weights: Tensor, drop: Tensor) -> Tensor:
    """The weights ``[d]`` after those at ``drop [k]`` are removed, where the quadratic model is least: for comparison.

    ``w - F^-1 E (E' F^-1 E)^-1 E' w`` with ``E`` the columns of the identity at ``drop``; O(m k^2 + k^3).
    """
    if not len(drop):
        return weights.clone()
    rows, columns = torch.meshgrid(drop, drop, indexing="ij")
    inner = inverse.elements(rows.flatten(), columns.flatten()).view(len(drop), len(drop)).double()
    step = torch.zeros_like(weights)
    step[drop] = -torch.linalg.solve(inner, weights[drop].double()).to(weights.dtype)
    out = inverse.ihvp(step).add_(weights)
    out[drop] = 0.0
    return out
