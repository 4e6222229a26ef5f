"""Kronecker factors of linear and convolutional layers in torch, their eigenbases and inverses, and EKFAC's scaling.

Shapes: ``N`` samples, ``T`` positions of a sample (sequence or output pixels; 1 without weight sharing), ``i`` inputs
and ``o`` outputs of a layer; ``i`` counts the homogeneous coordinate of a bias as its last. Inputs ``[N, ..., n]``
(Linear) or ``[N, c, h, w]`` (Conv2d); a layer's gradient matrix is ``W [o, i]``. Not here: ``nn.Embedding``, whose
input factor is diagonal with an entry per word, and convolutions with groups. Definitions in NumPy:
:mod:`curvebench.kernels.reference_kronecker`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from curvebench.errors import CurvebenchError
from curvebench.kernels.geometry import Geometry

CHUNK = 1 << 22
"""Numbers unfolded at a time (16 MiB in float32): larger im2col buffers leave the cache, smaller starve the GEMM."""


NOT_SOLVED: type[Exception] = torch.linalg.LinAlgError  # type: ignore[attr-defined]  # public, says torch's manual
"""What a decomposition raises if it fails."""


def geometry(layer: nn.Module) -> Geometry | None:
    """The geometry of an ``nn.Conv2d``, None for an ``nn.Linear``.

    Raises:
        CurvebenchError: any other layer, or a convolution with groups.
    """
    if isinstance(layer, nn.Linear):
        return None
    if not isinstance(layer, nn.Conv2d):
        raise CurvebenchError(f"{type(layer).__name__} has no Kronecker factors here: supported are Linear and Conv2d")
    if layer.groups != 1:
        raise CurvebenchError(
            f"Conv2d with groups = {layer.groups} has one pair of factors for each group, which is not implemented: "
            "leave the layer to the base optimiser"
        )
    kernel, stride, dilation = (_pair(v) for v in (layer.kernel_size, layer.stride, layer.dilation))
    if layer.padding == "same":
        (up, down), (left, right) = ((d * (k - 1) // 2, d * (k - 1) - d * (k - 1) // 2)
                                     for k, d in zip(kernel, dilation, strict=True))  # fmt: skip
    else:
        up, left = (0, 0) if isinstance(layer.padding, str) else _pair(layer.padding)
        down, right = up, left
    return Geometry(kernel, stride, (left, right, up, down), dilation, layer.padding_mode)


def _pair(value: Sequence[int]) -> tuple[int, int]:
    first, second = value
    return int(first), int(second)


# -- rows --------------------------------------------------------------------------------------------------------------


def batched(x: Tensor, geo: Geometry | None) -> Tensor:
    """A layer's input or output with its dimension ``N``: a lone sample ``[n]`` or ``[c, h, w]`` gets ``N = 1``."""
    return x if x.dim() > (1 if geo is None else 3) else x[None]


def padded(x: Tensor, geo: Geometry) -> Tensor:
    """``x [N, c, h, w]`` with the convolution's padding around it."""
    if not any(geo.padding):
        return x
    return F.pad(x, geo.padding, "constant" if geo.mode == "zeros" else geo.mode)


def input_rows(x: Tensor, geo: Geometry | None, bias: bool) -> Tensor:
    """``a [N, T, i]``: inputs, or patches in the order (channel, row, column), and a one for the bias."""
    x = batched(x, geo)
    if geo is None:
        a = x.reshape(x.shape[0], -1, x.shape[-1])
    else:
        a = F.unfold(padded(x, geo), geo.kernel, geo.dilation, 0, geo.stride).transpose(1, 2)
    return torch.cat([a, a.new_ones(*a.shape[:2], 1)], 2) if bias else a


def output_rows(g: Tensor, geo: Geometry | None) -> Tensor:
    """``g [N, T, o]`` from a tensor of the layer's output shape."""
    g = batched(g, geo)
    return g.reshape(g.shape[0], -1, g.shape[-1]) if geo is None else g.flatten(2).transpose(1, 2)


# -- factors -----------------------------------------------------------------------------------------------------------


PANEL = 64
"""Least number of columns of a panel of :func:`gram`: narrower ones starve the GEMM."""


def gram(rows: Tensor) -> Tensor:
    """``X'X [n, n]`` of ``rows [N, n]``; of wide ones on the CPU one half is copied, not computed."""
    n = rows.shape[1]
    if n < 4 * PANEL or rows.device.type != "cpu":
        return rows.T @ rows
    out = rows.new_empty(n, n)
    width = max(PANEL, n // 4)
    for start in range(0, n, width):
        stop = min(start + width, n)
        torch.mm(rows[:, start:stop].T, rows[:, start:], out=out[start:stop, start:])
        out[stop:, start:stop] = out[start:stop, stop:].T
    return out


def input_gram(x: Tensor, geo: Geometry | None, bias: bool) -> tuple[Tensor, int, int]:
    """``sum_nt a a' [i, i]``, the number of samples ``N`` and of positions ``T``."""
    if geo is None:
        a = input_rows(x, None, False)
        flat = a.reshape(-1, a.shape[-1])
        total = gram(flat)
        return _with_bias(total, flat.sum(0), len(flat)) if bias else total, a.shape[0], a.shape[1]
    x = batched(x, geo)
    if geo.same3:
        outer, total = shifted_gram(x)
        positions = x.shape[2] * x.shape[3]
    else:
        outer, total, positions = _patch_gram(padded(x, geo), geo)
    n = x.shape[0]
    return _with_bias(outer, total, n * positions) if bias else outer, n, positions


def output_gram(g: Tensor, geo: Geometry | None) -> Tensor:
    """``sum_nt g g' [o, o]``."""
    flat = batched(g, geo).transpose(0, 1).flatten(1).T if geo is not None else g.reshape(-1, g.shape[-1])
    return gram(flat)


def _with_bias(gram: Tensor, total: Tensor, count: int) -> Tensor:
    """Border a Gram matrix with the sums over its rows, as a column of ones would."""
    n = len(total)
    out = gram.new_empty(n + 1, n + 1)
    out[:n, :n] = gram
    out[n, :n] = total
    out[:n, n] = total
    out[n, n] = count
    return out


def _patch_gram(x: Tensor, geo: Geometry) -> tuple[Tensor, Tensor, int]:
    """Gram and sum of the patches of the padded image by im2col, in chunks of samples; and ``T``."""
    kernel, stride, dilation = geo.kernel, geo.stride, geo.dilation
    height, width = ((x.shape[2 + k] - dilation[k] * (kernel[k] - 1) - 1) // stride[k] + 1 for k in (0, 1))
    size = x.shape[1] * kernel[0] * kernel[1]
    outer, total = x.new_zeros(size, size), x.new_zeros(size)
    for part in torch.split(x, max(1, CHUNK // (size * height * width))):
        rows = F.unfold(part, kernel, dilation, 0, stride).transpose(0, 1).flatten(1)
        outer.addmm_(rows, rows.T)
        total += rows.sum(1)
    return outer, total, height * width


def shifted_gram(x: Tensor) -> tuple[Tensor, Tensor]:
    """Gram ``[9c, 9c]`` and sum ``[9c]`` of all 3 x 3 patches of the zero-padded ``x [N, c, h, w]``, without im2col.

    The block of window offsets (i, j) is the autocorrelation of the image at lag ``j - i``, of which there are 25 (13
    by symmetry), less the border pixels whose window is centred outside: row 0 if ``i_y = j_y = 1``, the last row if
    both are -1, columns likewise, and the corner, taken away twice, put back. All other border terms are zero already.
    """
    n, c, height, width = x.shape
    length = n * (height + 2) * (width + 2)
    # Two rows and columns of zeros between images: a shift of the flat array never meets a foreign pixel.
    flat = x.new_zeros(c, length + 2 * (width + 2) + 2)
    image = flat[:, :length].view(c, n, height + 2, width + 2)
    image[:, :, :height, :width] = x.transpose(0, 1)
    lags = x.new_empty(5, 5, c, c)
    for dy in range(3):
        for dx in range(-2 if dy else 0, 3):
            start = dy * (width + 2) + dx
            lags[dy + 2, dx + 2] = block = flat[:, :length] @ flat[:, start : start + length].T
            lags[2 - dy, 2 - dx] = block.T
    shift = torch.arange(9, device=x.device)
    y, z = shift // 3, shift % 3
    blocks = lags[y[None, :] - y[:, None] + 2, z[None, :] - z[:, None] + 2].view(3, 3, 3, 3, c, c)
    total = x.sum((0, 2, 3)).repeat(3, 3, 1)
    sides = ((2, 0), (0, -1))  # window offset +1 (index 2) leaves at the first line, -1 (index 0) at the last
    for k, line in sides:
        row, column = x[:, :, line, :].transpose(0, 1), x[:, :, :, line].transpose(0, 1)
        blocks[k, :, k, :] -= _line_lags(row)
        blocks[:, k, :, k] -= _line_lags(column)
        total[k] -= row.sum((1, 2))
        total[:, k] -= column.sum((1, 2))
        for k2, line2 in sides:
            corner = x[:, :, line, line2]
            blocks[k, k2, k, k2] += corner.T @ corner
            total[k, k2] += corner.sum(0)
    return blocks.permute(4, 0, 1, 5, 2, 3).reshape(9 * c, 9 * c), total.permute(2, 0, 1).reshape(-1)


def _line_lags(line: Tensor) -> Tensor:
    """Autocorrelations ``[3, 3, c, c]`` of ``line [c, N, length]`` at the lags ``j - i`` of three window offsets."""
    c, length = line.shape[0], line.shape[2]
    lags = line.new_zeros(5, c, c)
    for lag in range(min(3, length)):
        block = line[:, :, : length - lag].flatten(1) @ line[:, :, lag:].flatten(1).T
        lags[2 + lag] = block
        lags[2 - lag] = block.T
    shift = torch.arange(3, device=line.device)
    return lags[shift[None, :] - shift[:, None] + 2]


# -- solves ------------------------------------------------------------------------------------------------------------


def pi(A: Tensor, G: Tensor) -> Tensor:
    """``sqrt((tr A / dim A) / (tr G / dim G))``, scalar; 1 where a trace is 0."""
    a, g = A.trace() / len(A), G.trace() / len(G)
    return torch.where((a > 0) & (g > 0), (a / g).sqrt(), torch.ones_like(a))


def eigenbasis(X: Tensor) -> tuple[Tensor, Tensor]:
    """Eigenvalues ``[n]``, those below zero set to zero, and eigenvectors ``[n, n]`` of a symmetric factor.

    Raises:
        torch.linalg.LinAlgError: the iteration does not converge, as with entries that are not finite.
    """
    values, vectors = torch.linalg.eigh(X)
    return values.clamp_min_(0), vectors


def damped_inverse(X: Tensor, damping: float | Tensor) -> Tensor:
    """``(X + damping I)^-1`` by Cholesky.

    Raises:
        torch.linalg.LinAlgError: the damped factor is not positive definite in this precision.
    """
    damped = X.clone()
    damped.diagonal().add_(damping)
    inverse: Tensor = torch.cholesky_inverse(torch.linalg.cholesky(damped))
    return inverse


def solve_eigen(W: Tensor, QA: Tensor, QG: Tensor, scale: Tensor, damping: float) -> Tensor:
    """``QG [(QG' W QA) / (scale + damping)] QA'``; ``scale [o, i]`` is ``dG dA'`` (K-FAC) or ``S`` (EKFAC)."""
    inner = _product(_product(QG.T, W), QA) / (scale + damping)
    return _product(_product(QG, inner), QA.T)


def _product(left: Tensor, right: Tensor) -> Tensor:
    """``left @ right``; wide results have rows of a multiple of 64 bytes, which MKL fills up to half as fast again.

    A bias makes a layer's matrices one column wider than its input, so that every row would begin off a boundary.
    """
    n = right.shape[1]
    if n < 512 or left.device.type != "cpu" or n % 16 == 0:
        return left @ right
    out = left.new_empty(left.shape[0], (n + 15) // 16 * 16)[:, :n]
    return torch.mm(left, right, out=out)


def second_moments(a: Tensor, g: Tensor, QA: Tensor, QG: Tensor) -> Tensor:
    """``sum_n (QG' W_n QA)^2 [o, i]`` with ``W_n = sum_t g a'``; ``a [N, T, i]``, ``g [N, T, o]``."""
    if a.shape[1] == 1:
        return (g[:, 0] @ QG).square().T @ (a[:, 0] @ QA).square()
    out = a.new_zeros(g.shape[2], a.shape[2])
    size = max(1, CHUNK // out.numel())
    for a_part, g_part in zip(torch.split(a, size), torch.split(g, size), strict=True):
        # Sums over positions first: rotating o x i numbers a sample is cheaper than rotating all of its rows.
        out += (QG.T @ torch.bmm(g_part.transpose(1, 2), a_part) @ QA).square_().sum(0)
    return out


def transported(S: Tensor, old_A: Tensor, old_G: Tensor, QA: Tensor, QG: Tensor) -> Tensor:
    """EKFAC's scaling carried to a new basis, ``(RG o RG) S (RA o RA)'`` with ``R = Q_new' Q_old``.

    Exact where the second moment is diagonal in the old basis. ``R o R`` is doubly stochastic: the trace stays.
    """
    return (QG.T @ old_G).square() @ S @ (QA.T @ old_A).square().T


# -- Fisher ------------------------------------------------------------------------------------------------------------

LIKELIHOODS = ("categorical", "gaussian", "bernoulli")


FISHERS = ("empirical", "mc", "type-2")


def fisher_columns(
    outputs: Tensor, likelihood: str, fisher: str, draw: Callable[[str, tuple[int, ...]], Tensor]
) -> Iterator[Tensor]:
    """Vectors to pull back through the network, of the outputs' shape ``[..., C]``; each row is one term of the loss.

    Args:
        outputs: the network's outputs: logits, with the classes in the last dimension, or means.
        likelihood: ``categorical``; ``gaussian`` of unit variance, loss ``|o - y|^2 / 2`` a row; ``bernoulli``, where
            each output is a logit.
        fisher: ``mc``: one gradient of each row's loss, at targets sampled from the model's own distribution;
            ``type-2``: ``C`` columns whose outer products sum to the Hessian of a row's loss in the outputs.
        draw: for ``mc``: ``draw(kind, shape)`` gives ``normal`` or ``uniform`` numbers; ``categorical`` takes one for
            each row, the others one for each output.
    """
    o = outputs.detach()
    if fisher == "mc":
        yield _sampled(o, likelihood, draw)
        return
    eye = torch.eye(o.shape[-1], dtype=o.dtype, device=o.device)
    for c, unit in enumerate(eye):
        if likelihood == "categorical":
            p = o.softmax(-1)
            yield p[..., c : c + 1].sqrt() * (unit - p)
        elif likelihood == "bernoulli":
            p = o.sigmoid()
            yield (p * (1 - p)).sqrt() * unit
        else:
            yield unit.expand_as(o)


def _sampled(o: Tensor, likelihood: str, draw: Callable[[str, tuple[int, ...]], Tensor]) -> Tensor:
    if likelihood == "gaussian":
        return draw("normal", tuple(o.shape)).to(o)
    if likelihood == "bernoulli":
        p = o.sigmoid()
        return p - (draw("uniform", tuple(o.shape)).to(o) < p).to(p.dtype)
    p = o.softmax(-1).reshape(-1, o.shape[-1])
    below = p.cumsum(1)
    # The sum of all probabilities is 1 but for rounding: scaled by it, no class beyond the last can be drawn.
    label = (draw("uniform", (len(p), 1)).to(o) * below[:, -1:] >= below[:, :-1]).sum(1, keepdim=True)
    return p.scatter_add(1, label, -torch.ones_like(p[:, :1])).view_as(o)
