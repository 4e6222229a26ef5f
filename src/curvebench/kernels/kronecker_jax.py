"""Kronecker factors in jax: the functions of :mod:`curvebench.kernels.kronecker_torch`, of the same names and shapes.

``N`` samples, ``T`` positions of a sample, ``i`` inputs (with the bias' homogeneous coordinate as the last) and ``o``
outputs of a layer. All are traceable; a factorisation that fails gives NaN instead of an exception.
"""

from __future__ import annotations

from collections.abc import Callable

import jax
import jax.numpy as jnp
from jax import Array, lax

from curvebench.kernels.geometry import Geometry

CHUNK = 1 << 22
"""Numbers unfolded at a time, as in torch."""
LIKELIHOODS = ("categorical", "gaussian", "bernoulli")
FISHERS = ("empirical", "mc", "type-2")


# -- rows --------------------------------------------------------------------------------------------------------------


def batched(x: Array, geo: Geometry | None) -> Array:
    """A layer's input or output with its dimension ``N``: a lone sample ``[n]`` or ``[c, h, w]`` gets ``N = 1``."""
    return x if x.ndim > (1 if geo is None else 3) else x[None]


def padded(x: Array, geo: Geometry) -> Array:
    """``x [N, c, h, w]`` with the convolution's padding around it."""
    if not any(geo.padding):
        return x
    left, right, top, bottom = geo.padding
    modes = {"zeros": "constant", "reflect": "reflect", "replicate": "edge", "circular": "wrap"}
    return jnp.pad(x, ((0, 0), (0, 0), (top, bottom), (left, right)), mode=modes[geo.mode])


def windows(x: Array, geo: Geometry) -> list[Array]:
    """For each offset in the window, row by row, the pixels ``[N, c, rows, columns]`` of the padded ``x`` under it."""
    (kh, kw), (sh, sw), (dh, dw) = geo.kernel, geo.stride, geo.dilation
    height, width = x.shape[2] - dh * (kh - 1), x.shape[3] - dw * (kw - 1)
    return [x[:, :, i * dh : i * dh + height : sh, j * dw : j * dw + width : sw] for i in range(kh) for j in range(kw)]


def input_rows(x: Array, geo: Geometry | None, bias: bool) -> Array:
    """``a [N, T, i]``: inputs, or patches in the order (channel, row, column), and a one for the bias."""
    x = batched(x, geo)
    if geo is None:
        a = x.reshape(x.shape[0], -1, x.shape[-1])
    else:
        seen = jnp.stack(windows(padded(x, geo), geo), 2)  # [N, c, k, rows, columns]
        a = seen.reshape(x.shape[0], seen.shape[1] * seen.shape[2], -1).swapaxes(1, 2)
    return jnp.concatenate([a, jnp.ones((*a.shape[:2], 1), a.dtype)], 2) if bias else a


def output_rows(g: Array, geo: Geometry | None) -> Array:
    """``g [N, T, o]`` from an array of the layer's output shape."""
    g = batched(g, geo)
    if geo is None:
        return g.reshape(g.shape[0], -1, g.shape[-1])
    return g.reshape(*g.shape[:2], -1).swapaxes(1, 2)


# -- factors -----------------------------------------------------------------------------------------------------------


def gram(rows: Array) -> Array:
    """``X'X [n, n]`` of ``rows [N, n]``."""
    return rows.T @ rows


def input_gram(x: Array, geo: Geometry | None, bias: bool) -> tuple[Array, int, int]:
    """``sum_nt a a' [i, i]``, the number of samples ``N`` and of positions ``T``."""
    if geo is None:
        a = input_rows(x, None, False)
        flat = a.reshape(-1, a.shape[-1])
        total = gram(flat)
        return _with_bias(total, flat.sum(0), len(flat)) if bias else total, a.shape[0], a.shape[1]
    x = batched(x, geo)
    if geo.same3:
        outer, sums = shifted_gram(x)
        positions = x.shape[2] * x.shape[3]
    else:
        outer, sums, positions = _patch_gram(padded(x, geo), geo)
    n = x.shape[0]
    return _with_bias(outer, sums, n * positions) if bias else outer, n, positions


def output_gram(g: Array, geo: Geometry | None) -> Array:
    """``sum_nt g g' [o, o]``."""
    if geo is None:
        return gram(g.reshape(-1, g.shape[-1]))
    flat = batched(g, geo).swapaxes(0, 1).reshape(g.shape[-3], -1)
    return flat @ flat.T


def _with_bias(gram: Array, total: Array, count: int) -> Array:
    """Border a Gram matrix with the sums over its rows, as a column of ones would."""
    corner = jnp.full((1, 1), count, gram.dtype)
    return jnp.block([[gram, total[:, None]], [total[None, :], corner]])


def _patch_gram(x: Array, geo: Geometry) -> tuple[Array, Array, int]:
    """Gram and sum of the patches of the padded image, by im2col; and ``T``."""
    seen = jnp.stack(windows(x, geo), 1)  # [N, k, c, rows, columns]
    positions = seen.shape[3] * seen.shape[4]
    rows = seen.transpose(2, 1, 0, 3, 4).reshape(seen.shape[2] * seen.shape[1], -1)
    return rows @ rows.T, rows.sum(1), positions


def shifted_gram(x: Array) -> tuple[Array, Array]:
    """Gram ``[9c, 9c]`` and sum ``[9c]`` of all 3 x 3 patches of the zero-padded ``x [N, c, h, w]``, without im2col.

    From 13 autocorrelations of the image and its border terms, as explained in torch.
    """
    n, c, height, width = x.shape
    length = n * (height + 2) * (width + 2)
    # Two rows and columns of zeros between images: a shift of the flat array never meets a foreign pixel.
    image = jnp.pad(x.swapaxes(0, 1), ((0, 0), (0, 0), (0, 2), (0, 2))).reshape(c, length)
    flat = jnp.pad(image, ((0, 0), (0, 2 * (width + 2) + 2)))
    lags: dict[tuple[int, int], Array] = {}
    for dy in range(3):
        for dx in range(-2 if dy else 0, 3):
            start = dy * (width + 2) + dx
            lags[dy, dx] = image @ flat[:, start : start + length].T
            lags[-dy, -dx] = lags[dy, dx].T
    shift = [(k // 3, k % 3) for k in range(9)]
    blocks = jnp.stack([jnp.stack([lags[y[0] - z[0], y[1] - z[1]] for y in shift]) for z in shift])
    blocks = blocks.reshape(3, 3, 3, 3, c, c)
    total = jnp.broadcast_to(x.sum((0, 2, 3)), (3, 3, c))
    sides = ((2, 0), (0, -1))  # window offset +1 (index 2) leaves at the first line, -1 (index 0) at the last
    for k, line in sides:
        row, column = x[:, :, line, :].swapaxes(0, 1), x[:, :, :, line].swapaxes(0, 1)
        blocks = blocks.at[k, :, k, :].add(-_line_lags(row)).at[:, k, :, k].add(-_line_lags(column))
        total = total.at[k].add(-row.sum((1, 2))).at[:, k].add(-column.sum((1, 2)))
        for k2, line2 in sides:
            corner = x[:, :, line, line2]
            blocks = blocks.at[k, k2, k, k2].add(corner.T @ corner)
            total = total.at[k, k2].add(corner.sum(0))
    return blocks.transpose(4, 0, 1, 5, 2, 3).reshape(9 * c, 9 * c), total.transpose(2, 0, 1).reshape(-1)


def _line_lags(line: Array) -> Array:
    """Autocorrelations ``[3, 3, c, c]`` of ``line [c, N, length]`` at the lags ``j - i`` of three window offsets."""
    c, length = line.shape[0], line.shape[2]
    lags = {lag: jnp.zeros((c, c), line.dtype) for lag in range(-2, 3)}
    for lag in range(min(3, length)):
        lags[lag] = line[:, :, : length - lag].reshape(c, -1) @ line[:, :, lag:].reshape(c, -1).T
        lags[-lag] = lags[lag].T
    return jnp.stack([jnp.stack([lags[j - i] for j in range(3)]) for i in range(3)])


# -- solves ------------------------------------------------------------------------------------------------------------


def pi(A: Array, G: Array) -> Array:
    """``sqrt((tr A / dim A) / (tr G / dim G))``, scalar; 1 where a trace is 0."""
    a, g = jnp.trace(A) / len(A), jnp.trace(G) / len(G)
    return jnp.where((a > 0) & (g > 0), jnp.sqrt(a / g), jnp.ones_like(a))


def eigenbasis(X: Array) -> tuple[Array, Array]:
    """Eigenvalues ``[n]``, those below zero set to zero, and eigenvectors ``[n, n]``; NaN if it does not converge."""
    values, vectors = jnp.linalg.eigh(X, symmetrize_input=False)
    return jnp.maximum(values, 0), vectors


def damped_inverse(X: Array, damping: float | Array) -> Array:
    """``(X + damping I)^-1`` by Cholesky; NaN if the damped factor is not positive definite in this precision."""
    eye = jnp.eye(len(X), dtype=X.dtype)
    factor = jnp.linalg.cholesky(X + damping * eye, symmetrize_input=False)
    half = lax.linalg.triangular_solve(factor, eye, left_side=True, lower=True)
    return half.T @ half


def solve_eigen(W: Array, QA: Array, QG: Array, scale: Array, damping: float) -> Array:
    """``QG [(QG' W QA) / (scale + damping)] QA'``; ``scale [o, i]`` is ``dG dA'`` (K-FAC) or ``S`` (EKFAC)."""
    return QG @ ((QG.T @ W @ QA) / (scale + damping)) @ QA.T


def second_moments(a: Array, g: Array, QA: Array, QG: Array) -> Array:
    """``sum_n (QG' W_n QA)^2 [o, i]`` with ``W_n = sum_t g a'``; ``a [N, T, i]``, ``g [N, T, o]``."""
    if a.shape[1] == 1:
        return jnp.square(g[:, 0] @ QG).T @ jnp.square(a[:, 0] @ QA)
    out = jnp.zeros((g.shape[2], a.shape[2]), a.dtype)
    size = max(1, CHUNK // out.size)
    for k in range(0, len(a), size):
        # Sums over positions first: rotating o x i numbers a sample is cheaper than rotating all of its rows.
        each = jnp.einsum("nto,nti->noi", g[k : k + size], a[k : k + size])
        out = out + jnp.square(QG.T @ each @ QA).sum(0)
    return out


def transported(S: Array, old_A: Array, old_G: Array, QA: Array, QG: Array) -> Array:
    """EKFAC's scaling carried to a new basis, ``(RG o RG) S (RA o RA)'`` with ``R = Q_new' Q_old``."""
    return jnp.square(QG.T @ old_G) @ S @ jnp.square(QA.T @ old_A).T


# -- Fisher ------------------------------------------------------------------------------------------------------------


def fisher_columns(
    outputs: Array, likelihood: str, fisher: str, draw: Callable[[str, tuple[int, ...]], Array]
) -> Array:
    """Vectors ``[K, ..., C]`` to pull back through the network; each row ``[C]`` is of one term of the loss.

    Args:
        outputs: ``[..., C]``: logits, with the classes in the last dimension, or means.
        likelihood: ``categorical``, ``gaussian`` or ``bernoulli``, as in torch.
        fisher: ``mc``: one gradient of each row's loss at a target sampled from the model (``K = 1``); ``type-2``:
            ``K = C`` columns whose outer products sum to the Hessian of a row's loss in the outputs.
        draw: for ``mc``: ``draw(kind, shape)`` gives ``normal`` or ``uniform`` numbers, as many as in torch.
    """
    o = lax.stop_gradient(outputs)
    if fisher == "mc":
        return _sampled(o, likelihood, draw)[None]
    units = jnp.eye(o.shape[-1], dtype=o.dtype).reshape(o.shape[-1], *(1,) * (o.ndim - 1), o.shape[-1])
    if likelihood == "categorical":
        p = jax.nn.softmax(o)
        return jnp.sqrt(jnp.moveaxis(p, -1, 0)[..., None]) * (units - p)
    if likelihood == "bernoulli":
        p = jax.nn.sigmoid(o)
        return jnp.sqrt(p * (1 - p)) * units
    return jnp.broadcast_to(units, (o.shape[-1], *o.shape))


def _sampled(o: Array, likelihood: str, draw: Callable[[str, tuple[int, ...]], Array]) -> Array:
    if likelihood == "gaussian":
        return draw("normal", o.shape).astype(o.dtype)
    if likelihood == "bernoulli":
        p = jax.nn.sigmoid(o)
        return p - (draw("uniform", o.shape).astype(o.dtype) < p).astype(p.dtype)
    p = jax.nn.softmax(o).reshape(-1, o.shape[-1])
    below = jnp.cumsum(p, 1)
    # The sum of all probabilities is 1 but for rounding: scaled by it, no class beyond the last can be drawn.
    label = (draw("uniform", (len(p), 1)).astype(o.dtype) * below[:, -1:] >= below[:, :-1]).sum(1, keepdims=True)
    chosen = jnp.arange(o.shape[-1])[None] == label
    return (p - chosen.astype(p.dtype)).reshape(o.shape)
