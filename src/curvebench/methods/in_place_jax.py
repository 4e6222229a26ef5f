"""What the transformations share that pull from an oracle: their parameters' check, and steps that move in place."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import optax

Step = Callable[[Any, Any, Any], tuple[Any, Any]]
"""``(params, state, oracle) -> (params, state)``."""


class InPlace(optax.GradientTransformationExtraArgs):  # type: ignore[misc]  # optax has no annotations here
    """A transformation that can also make the step itself: with donated parameters it then holds no second set.

    ``params, state = tx.step(params, state, oracle)`` is what the harness runs; ``update`` returns the displacement, as
    optax wants it, from parameters that stay where they are.
    """

    step: Step


def in_place(init: Callable[[Any], Any], update: Callable[..., tuple[Any, Any]], step: Step) -> InPlace:
    """A transformation with a step of its own."""
    made = InPlace(init, update)
    made.step = step
    return made


def floating(method: str, params: Any) -> None:
    """Refuse parameters that are no floats.

    Raises:
        TypeError: naming the dtype.
    """
    for p in jax.tree.leaves(params):
        if not jnp.issubdtype(p.dtype, jnp.floating):
            raise TypeError(f"{method}: a parameter has dtype {p.dtype}: must be floating")
