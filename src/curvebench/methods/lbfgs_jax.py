"""L-BFGS in jax: ``optax.lbfgs`` with its zoom line search, and the evaluations its line search reports."""

from __future__ import annotations

from typing import Any

import jax.numpy as jnp
import optax
import optax.tree_utils as otu
from jax import Array

from curvebench.spec import Query


def lbfgs(history: int, max_linesearch_steps: int) -> optax.GradientTransformationExtraArgs:
    """One L-BFGS direction and one zoom line search (strong Wolfe) per step.

    The value and gradient at the step's start are asked anew, since the mini-batch changes from step to step; those
    inside the line search are counted from its own state.

    Args:
        history: number of stored (step, gradient difference) pairs, >= 1.
        max_linesearch_steps: evaluations per line search at most, >= 1.
    """
    inner = optax.lbfgs(
        memory_size=history,
        scale_init_precond=True,
        linesearch=optax.scale_by_zoom_linesearch(
            max_linesearch_steps=max_linesearch_steps, initial_guess_strategy="one"
        ),
    )

    def update(grads: Any, state: Any, params: Any = None, *, oracle: Any, **extra: Any) -> tuple[Any, Any]:
        del grads, extra
        point = oracle.at(params, needs=(Query.GRADIENT,))
        gradient, value = point.gradient(), point.loss()
        function = oracle.loss_function(counted_by=Query.GRADIENT)
        updates, state = inner.update(gradient, state, params, value=value, grad=gradient, value_fn=function)
        evaluations: Array = otu.tree_get(state, "info").num_linesearch_steps
        oracle.add(Query.GRADIENT, jnp.asarray(evaluations))
        return updates, state

    return optax.GradientTransformationExtraArgs(inner.init, update)
