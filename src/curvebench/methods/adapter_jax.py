"""The generic adapter for jax: any optax transformation is a method through its card."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import optax.contrib
from jax import Array

from curvebench.cards import MethodCard
from curvebench.methods.in_place_jax import InPlace
from curvebench.methods.layerwise_jax import unchanged
from curvebench.methods.resolve import load_target
from curvebench.methods.state_kinds import kind
from curvebench.oracle.jax import JaxOracle, Params
from curvebench.oracle.layers_jax import Layers
from curvebench.oracle.ledger import REPORTED
from curvebench.spec import Query, Scalar


class JaxMethod:
    """A gradient transformation driven by an oracle.

    A transformation whose ``update`` has an argument ``oracle`` (curvebench's own) pulls from it; any other is handed
    the gradient and, as extra arguments, the loss, the gradient and, if it declares ``loss_function``, the bare loss.

    Args:
        card: the method's card, with a jax implementation.
        hyperparameters: resolved ``(name, value)`` pairs.
        multipliers: of the learning rates at every step; empty: they are constant. The last one holds on.
        layers: finds the task's layers, for a target whose first argument is ``layers``.
    """

    def __init__(
        self,
        card: MethodCard,
        hyperparameters: Collection[tuple[str, Scalar]],
        multipliers: Sequence[float] = (),
        layers: Callable[[], Layers] | None = None,
    ) -> None:
        self._card, self._hyperparameters = card, dict(hyperparameters)
        self._target = load_target(card.implementation["jax"].target)
        self._layers = layers() if layers is not None and _takes_layers(self._target) else None
        self._transformation = self._make({})
        self._pulls = "oracle" in inspect.signature(self._transformation.update).parameters
        self._scheduled = card.rates if multipliers else ()
        self._multipliers = multipliers

    def _make(self, rates: Mapping[str, Any]) -> optax.GradientTransformationExtraArgs:
        arguments = self._card.arguments("jax", {**self._hyperparameters, **rates})
        first = () if self._layers is None else (self._layers,)
        return optax.with_extra_args_support(self._target(*first, **arguments))

    def rates(self, dtype: Any) -> np.ndarray[Any, Any] | None:
        """The scheduled learning rates ``[steps, rates]``, rounded once from float64; None where they are constant."""
        if not self._scheduled:
            return None
        base = [float(self._hyperparameters[name]) for name in self._scheduled]
        return np.outer(np.array(self._multipliers), np.array(base)).astype(dtype)

    def init(self, params: Params) -> Any:
        """The method's state, a pytree."""
        return self._transformation.init(params)

    def step(self, params: Params, state: Any, oracle: JaxOracle, rates: Array | None = None) -> tuple[Params, Any]:
        """One step on the oracle's batch; traced. ``rates`` is :meth:`rates` on the device.

        The transformation is made anew with the step's rates as traced numbers: one program for all steps, and a rate
        inside a state (Prodigy) or a bound (K-FAC's clip) is the step's too.
        """
        transformation = self._transformation
        if rates is not None:
            row = rates[jnp.minimum(oracle.step, len(rates) - 1)]
            transformation = self._make({name: row[i] for i, name in enumerate(self._scheduled)})
        if isinstance(transformation, InPlace):
            return transformation.step(params, state, oracle)
        if self._pulls:
            updates, state = transformation.update(None, state, params, oracle=oracle)
        else:
            point = oracle.at(params, needs=(Query.GRADIENT,))
            gradient = point.gradient()
            extra: dict[str, Any] = {"value": point.loss(), "grad": gradient}
            if Query.LOSS_FUNCTION in oracle.needs:
                extra["value_fn"] = oracle.loss_function()
            updates, state = transformation.update(gradient, state, params, **extra)
        return optax.apply_updates(params, updates), state

    def uncounted(self, state: Any) -> tuple[str, ...]:
        """Columns of the ledger that nobody fills: a library that keeps factors does not say when it renews them."""
        return REPORTED[:2] if not self._pulls and {"factors", "inverses"} & state_bytes(state).keys() else ()

    def notes(self, state: Any, steps: int) -> list[str]:
        """Sentences for a record: what was not preconditioned, the steps that the state counts as ``skipped``."""
        layered = self._layers is not None
        found = [unchanged(self._layers.unsupported)] if self._layers is not None and self._layers.unsupported else []
        if hasattr(getattr(state, "more", None), "notes"):
            found = [*state.more.notes(), *found]
        if skipped := int(getattr(state, "skipped", 0)):
            why = "the curvature was not finite" if layered else "the gradient or H z was not finite"
            found.append(f"{skipped} of {steps} steps skipped: {why}")
        return found

    def evaluated(self, params: Params, state: Any) -> Params:
        """Where the method is to be evaluated: Schedule-Free's average, else the parameters."""
        if isinstance(state, optax.contrib.ScheduleFreeState):
            found: Params = optax.contrib.schedule_free_eval_params(state, params)
            return found
        return params


def _takes_layers(target: Any) -> bool:
    """Whether the first argument of a constructor is ``layers``."""
    try:
        return next(iter(inspect.signature(target).parameters), "") == "layers"
    except (TypeError, ValueError):  # a callable without a signature
        return False


def state_bytes(state: Any) -> dict[str, int]:
    """Bytes of the arrays that the method keeps between steps, by kind; scalars (counters) are left out."""
    sizes: dict[str, int] = {}
    for path, leaf in jax.tree_util.tree_flatten_with_path(state)[0]:
        if getattr(leaf, "ndim", 0) > 0:
            names = [str(getattr(key, "name", getattr(key, "key", ""))) for key in path]
            sizes[kind(names)] = sizes.get(kind(names), 0) + leaf.nbytes
    return sizes
