"""The jax kernels of :mod:`curvebench.procedures.kernel_cases`: each is jitted, and waited for."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from curvebench.kernels import reference_kronecker as rk
from curvebench.kernels import reference_mfac as rm
from curvebench.kernels import reference_transforms as rt
from curvebench.kernels import reference_zeroth as rz
from curvebench.procedures.kernel_cases import ROWS, WINDOW, Case, Ready, normal, positive

DAMPING = 0.1


def _jitted(device: Any, function: Callable[..., Any], *arrays: Any) -> Callable[[], Any]:
    """Call the compiled function on arrays that are on the device, and wait."""
    import jax

    placed = [jax.device_put(a, device) for a in arrays]
    compiled = jax.jit(function).lower(*placed).compile()
    return lambda: jax.block_until_ready(compiled(*placed))


def _inverse(n: int, device: Any) -> Ready:
    from curvebench.kernels.kronecker_jax import damped_inverse

    X = positive(n)
    return Ready(
        _jitted(device, lambda x: damped_inverse(x, DAMPING), X), lambda: np.linalg.inv(X + DAMPING * np.eye(n))
    )


def _gram(n: int, device: Any) -> Ready:
    from curvebench.kernels.kronecker_jax import input_gram

    rows = normal(ROWS, n)
    return Ready(
        _jitted(device, lambda x: input_gram(x, None, bias=False)[0], rows),
        lambda: rows.astype(float).T @ rows.astype(float),
        _jitted(device, lambda x: x.T @ x, rows),
    )


def _mkor(n: int, device: Any) -> Ready:
    from curvebench.kernels.mkor_jax import rank_one

    J, v = positive(n), normal(n, seed=1)
    return Ready(
        _jitted(device, lambda a, b: rank_one(a, b, "code", 0.95), J, v),
        lambda: rk.rank_one(J.astype(float), v.astype(float), "code", 0.95),
        _jitted(device, lambda a, b: a @ b, J, v),
    )


def _eva(n: int, device: Any) -> Ready:
    from curvebench.kernels.rank_one_jax import eva_direction

    W, a, g = normal(n, n), normal(n, seed=1), normal(n, seed=2)
    return Ready(
        _jitted(device, lambda w, x, y: eva_direction(w, x, y, DAMPING), W, a, g),
        lambda: rt.eva_direction(W.astype(float), a.astype(float), g.astype(float), DAMPING),
    )


def _mfac(n: int, device: Any) -> Ready:
    from curvebench.kernels.mfac_jax import push, sliding_window, solve

    G, x = normal(WINDOW, n), normal(n, seed=1)

    def call(rows: Any, vector: Any) -> Any:
        ring = sliding_window(WINDOW, n)
        for row in rows:
            ring, _ = push(ring, row)
        return solve(ring, DAMPING, vector)

    return Ready(_jitted(device, call, G, x), lambda: rm.woodbury(G.astype(float), DAMPING, x))


def _coordinate(n: int, device: Any) -> Ready:
    import jax.numpy as jnp

    from curvebench.kernels.zeroth_jax import coordinate_gradient

    c, x = np.abs(normal(n, seed=3)), normal(n)

    def gradient(p: Any, scale: Any) -> Any:
        return coordinate_gradient(lambda q: 0.5 * jnp.sum(scale * q * q), p, mu=1e-2, central=True).gradient

    return Ready(
        _jitted(device, gradient, x, c),
        lambda: rz.coordinate_gradient(lambda at: 0.5 * float(c @ (at * at)), x.astype(float), 1e-2, central=True),
    )


def _two_point(n: int, device: Any) -> Ready:
    import jax.numpy as jnp

    from curvebench.kernels.replay_jax import two_point

    x, u = normal(n), normal(n, seed=1)

    def losses(p: Any, direction: Any) -> Any:
        seen = two_point(lambda q: jnp.vdot(q, q), lambda q, by: q + by * direction, p, 1e-2, copy=True)
        return seen.above, seen.below

    a, b = x.astype(float), u.astype(float)
    return Ready(
        _jitted(device, losses, x, u),
        lambda: (np.sum((a + 1e-2 * b) ** 2), np.sum((a - 1e-2 * b) ** 2)),
        _jitted(device, lambda p: jnp.vdot(p, p), x),
    )


def _descent(n: int, device: Any) -> Ready:
    from curvebench.kernels.descent_jax import momentum

    p, g, b = normal(n), normal(n, seed=1), normal(n, seed=2)
    return Ready(
        _jitted(device, lambda x, y, z: momentum(x, y, z, lr=0.1, momentum=0.9, weight_decay=0.0)[0], p, g, b),
        lambda: -0.1 * (0.9 * b.astype(float) + g),
    )


CASES: dict[str, Case] = {
    f"{file}: {what}": Case(file, "jax", build, largest)
    for file, what, build, largest in (
        ("kronecker_jax", "damped inverse [n, n]", _inverse, 1024),
        ("kronecker_jax", "input gram [64, n]", _gram, 1024),
        ("mkor_jax", "rank-one update [n, n]", _mkor, 1024),
        ("rank_one_jax", "Eva direction [n, n]", _eva, 32),
        ("mfac_jax", "16 pushes and a product, d = n", _mfac, 10**6),
        ("zeroth_jax", "every coordinate, d = n", _coordinate, 512),
        ("replay_jax", "two losses, d = n", _two_point, 10**6),
        ("descent_jax", "momentum, d = n", _descent, 10**6),
    )
}
