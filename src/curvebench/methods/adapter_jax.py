"""The generic adapter for jax: any optax transformation is a method through its card."""

from __future__ import annotations

import inspect
from collections.abc import Collection
from typing import Any

import jax
import optax
import optax.contrib

from curvebench.cards import MethodCard
from curvebench.methods.resolve import load_target
from curvebench.methods.state_kinds import kind
from curvebench.oracle.jax import JaxOracle, Params
from curvebench.oracle.ledger import REPORTED
from curvebench.spec import Query, Scalar


class JaxMethod:
    """A gradient transformation driven by an oracle.

    A transformation whose ``update`` has an argument ``oracle`` (curvebench's own) pulls from it; any other is handed
    the gradient and, as extra arguments, the loss, the gradient and, if it declares ``loss_function``, the bare loss.

    Args:
        card: the method's card, with a jax implementation.
        hyperparameters: resolved ``(name, value)`` pairs.
    """

    def __init__(self, card: MethodCard, hyperparameters: Collection[tuple[str, Scalar]]) -> None:
        target = load_target(card.implementation["jax"].target)
        transformation = target(**card.arguments("jax", hyperparameters))
        self._pulls = "oracle" in inspect.signature(transformation.update).parameters
        self._transformation = optax.with_extra_args_support(transformation)

    def init(self, params: Params) -> Any:
        """The method's state, a pytree."""
        return self._transformation.init(params)

    def step(self, params: Params, state: Any, oracle: JaxOracle) -> tuple[Params, Any]:
        """One step on the oracle's batch; traced."""
        if self._pulls:
            updates, state = self._transformation.update(None, state, params, oracle=oracle)
        else:
            point = oracle.at(params, needs=(Query.GRADIENT,))
            gradient = point.gradient()
            extra: dict[str, Any] = {"value": point.loss(), "grad": gradient}
            if Query.LOSS_FUNCTION in oracle.needs:
                extra["value_fn"] = oracle.loss_function()
            updates, state = self._transformation.update(gradient, state, params, **extra)
        return optax.apply_updates(params, updates), state

    def uncounted(self, state: Any) -> tuple[str, ...]:
        """Columns of the ledger that nobody fills: a library that keeps factors does not say when it renews them."""
        return REPORTED[:2] if not self._pulls and {"factors", "inverses"} & state_bytes(state).keys() else ()

    def evaluated(self, params: Params, state: Any) -> Params:
        """Where the method is to be evaluated: Schedule-Free's average, else the parameters."""
        if isinstance(state, optax.contrib.ScheduleFreeState):
            found: Params = optax.contrib.schedule_free_eval_params(state, params)
            return found
        return params


def state_bytes(state: Any) -> dict[str, int]:
    """Bytes of the arrays that the method keeps between steps, by kind; scalars (counters) are left out."""
    sizes: dict[str, int] = {}
    for path, leaf in jax.tree_util.tree_flatten_with_path(state)[0]:
        if getattr(leaf, "ndim", 0) > 0:
            names = [str(getattr(key, "name", getattr(key, "key", ""))) for key in path]
            sizes[kind(names)] = sizes.get(kind(names), 0) + leaf.nbytes
    return sizes
