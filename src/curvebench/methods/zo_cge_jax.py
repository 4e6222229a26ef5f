"""Coordinate-wise zeroth-order SGD as an optax transformation; the update is that of ``zo_cge_torch``."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from curvebench.errors import HyperparameterError
from curvebench.kernels.descent_jax import momentum as heavy_ball
from curvebench.kernels.zeroth_jax import coordinate_gradient
from curvebench.methods.in_place_jax import floating
from curvebench.methods.validation import check


class ZOCGEState(NamedTuple):
    """The sum of past estimates, a tree like the parameters; an empty tuple without momentum."""

    momentum: Any


def zo_cge(
    learning_rate: float,
    *,
    mu: float = 1e-3,
    central: bool = False,
    mask: Sequence[Any] | None = None,
    momentum: float = 0.0,
    weight_decay: float = 0.0,
) -> optax.GradientTransformationExtraArgs:
    """SGD on coordinate-wise estimates; ``update(None, state, params, oracle=...)`` asks one loss per parameter.

    Args:
        learning_rate: step size, >= 0; SGD's, for the estimate has no variance of its own.
        mu: smoothing radius, > 0.
        central: two-sided differences: 2|S| losses a step instead of |S| + 1.
        mask: for each leaf of the parameters, in the tree's order, True where a coordinate is active (a NumPy array),
            or None for all; None: everything.
        momentum: in [0, 1).
        weight_decay: coupled decay, >= 0.

    Raises:
        HyperparameterError: a value outside its range, or a mask that does not fit the parameters.
    """
    for name, value, allowed in (
        ("learning_rate", learning_rate, "[0, inf)"), ("mu", mu, "(0, inf)"), ("momentum", momentum, "[0, 1)"),
        ("weight_decay", weight_decay, "[0, inf)"),
    ):  # fmt: skip
        check("zo_cge", name, value, allowed)

    def init(params: Any) -> ZOCGEState:
        floating("zo_cge", params)
        shapes = [p.shape for p in jax.tree.leaves(params)]
        if mask is not None and (
            len(mask) != len(shapes)
            or any(m is not None and m.shape != shape for m, shape in zip(mask, shapes, strict=True))
        ):
            raise HyperparameterError("zo_cge: mask: must be one per parameter, of its shape, or None")
        return ZOCGEState(jax.tree.map(jnp.zeros_like, params) if momentum else ())

    def update(grads: Any, state: ZOCGEState, params: Any = None, *, oracle: Any, **extra: Any) -> tuple[Any, Any]:
        del grads, extra
        estimate = coordinate_gradient(oracle.loss, params, mu=mu, central=central, masks=mask, loop=oracle.fori_loop)
        updates, kept = heavy_ball(params, estimate.gradient, state.momentum, lr=learning_rate, momentum=momentum,
                                   weight_decay=weight_decay)  # fmt: skip
        return updates, ZOCGEState(kept)

    return optax.GradientTransformationExtraArgs(init, update)
