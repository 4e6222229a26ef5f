"""MeZO as an optax transformation; the update is that of :mod:`curvebench.methods.mezo_torch`."""

from __future__ import annotations

from typing import Any

import jax
import optax

from curvebench.methods.validation import check


def mezo(
    learning_rate: float, *, eps: float = 1e-3, weight_decay: float = 0.0
) -> optax.GradientTransformationExtraArgs:
    """Two-point zeroth-order SGD; ``update(None, state, params, oracle=...)`` asks the oracle for two losses.

    The noise is regenerated from its key wherever it is used, so no tree of it is kept beside the parameters.

    Args:
        learning_rate: step size, > 0.
        eps: half the distance between the two evaluations, > 0.
        weight_decay: decay, multiplied by the step size, >= 0.

    Raises:
        HyperparameterError: a value outside its range.
    """
    check("mezo", "learning_rate", learning_rate, "(0, inf)")
    check("mezo", "eps", eps, "(0, inf)")
    check("mezo", "weight_decay", weight_decay, "[0, inf)")

    def init(params: Any) -> optax.EmptyState:
        del params
        return optax.EmptyState()

    def update(
        grads: Any, state: optax.EmptyState, params: Any = None, *, oracle: Any, **extra: Any
    ) -> tuple[Any, Any]:
        del grads, extra

        def moved(scale: float) -> Any:
            return jax.tree.map(lambda p, z: p + scale * z, params, oracle.probes("normal", "mezo", params))

        slope = (oracle.loss(moved(eps)) - oracle.loss(moved(-eps))) / (2 * eps)
        noise = oracle.probes("normal", "mezo", params)
        updates = jax.tree.map(lambda p, z: -learning_rate * (slope * z + weight_decay * p), params, noise)
        return updates, state

    return optax.GradientTransformationExtraArgs(init, update)
