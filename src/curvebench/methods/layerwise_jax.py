"""What the layer-wise preconditioners share in jax: the base transformation, the order of a step, the skipped step.

A preconditioner rewrites the gradients of the layers that taps name, and leaves the step to a base transformation.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from jax import Array

from curvebench.errors import HyperparameterError
from curvebench.methods.validation import check
from curvebench.oracle.layers_jax import Layer, Layers, named_leaves, renamed
from curvebench.spec import Query

_LOG = logging.getLogger("curvebench.methods")
_BOTH = (Query.GRADIENT, Query.LAYER_STATISTICS)
LayerState = dict[str, dict[str, Array]]
"""By layer name, what the method keeps of it."""


class LayerwiseState(NamedTuple):
    """Where the run is, and what is kept between steps.

    Args:
        step: steps so far, skipped ones included, ``[]``.
        skipped: steps that were not taken because the curvature was not finite, ``[]``.
        layers: the method's arrays by layer name.
        base: the base transformation's state.
        more: what a method keeps beside its layers.
    """

    step: Array
    skipped: Array
    layers: LayerState
    base: Any
    more: Any = ()


class Rule(NamedTuple):
    """What a method says.

    Args:
        init: a layer's first arrays.
        curvature: ``(oracle, point, state) -> (arrays of all layers, whether they are finite, more)``; where they are
            not, the arrays are the old ones.
        direct: ``(layers' arrays, gradients by leaf name, old more) -> new gradients by leaf name``.
        more: makes the first value of the state's ``more``.
    """

    init: Callable[[Layer], dict[str, Array]]
    curvature: Callable[[Any, Any, LayerwiseState], tuple[LayerState, Array, Any]]
    direct: Callable[[LayerState, dict[str, Array], Any], dict[str, Array]]
    more: Callable[[], Any] = tuple


def chosen(method: str, layers: Layers, skip: Sequence[str], shared: str, loss_reduction: str) -> tuple[Layer, ...]:
    """The layers to precondition; the parameters that are left to the base are logged by name.

    Raises:
        HyperparameterError: a value outside its range.
        CurvebenchError: see :meth:`Layers.selected`.
    """
    check(method, "shared", shared, ("refuse", "expand"))
    check(method, "loss_reduction", loss_reduction, ("mean", "sum"))
    selected = layers.selected(method, skip, shared)
    if selected.unsupported:
        level = logging.WARNING if selected.surprising else logging.INFO
        _LOG.log(level, "%s: %s", method, unchanged(selected.unsupported))
    return selected.found


def unchanged(unsupported: dict[str, str]) -> str:
    """What becomes of the parameters that are not preconditioned."""
    names = ", ".join(f"{name!r} ({why})" for name, why in unsupported.items())
    return f"not preconditioned, their gradients go to the base optimiser unchanged: {names}"


def base_of(
    method: str,
    base: optax.GradientTransformation | None,
    learning_rate: float | None,
    momentum: float | None,
) -> optax.GradientTransformationExtraArgs:
    """The transformation that takes the step: ``base``, or SGD.

    Raises:
        HyperparameterError: neither or both are given, or a value is outside its range.
    """
    if base is not None:
        if learning_rate is not None or momentum is not None:
            raise HyperparameterError(f"{method}: lr and momentum are the base optimiser's: set them there")
        return optax.with_extra_args_support(base)
    if learning_rate is None:
        raise HyperparameterError(f"{method}: pass base, the optimiser that takes the step, or lr for an SGD")
    check(method, "learning_rate", learning_rate, "[0, inf)")
    check(method, "momentum", momentum or 0.0, "[0, 1)")
    return optax.with_extra_args_support(optax.sgd(learning_rate, momentum or None))


def transformation(
    layers: Sequence[Layer], base: optax.GradientTransformationExtraArgs, rule: Rule, fisher: str = "empirical"
) -> optax.GradientTransformationExtraArgs:
    """The method as an optax transformation; ``update(None, state, params, oracle=...)`` pulls from the oracle.

    Gradient and layer statistics come from one forward and one reverse pass, outside all control flow; what is not
    wanted in a step is not computed.
    """

    def init(params: Any) -> LayerwiseState:
        step, skipped = jnp.zeros((), jnp.int32), jnp.zeros((), jnp.int32)  # no array twice: all are donated
        arrays = {layer.name: rule.init(layer) for layer in layers}
        return LayerwiseState(step, skipped, arrays, base.init(params), rule.more())

    def update(
        grads: Any, state: LayerwiseState, params: Any = None, *, oracle: Any, **extra: Any
    ) -> tuple[Any, LayerwiseState]:
        del grads  # the gradient comes from the point, which shares its forward with the layers
        point = oracle.at(params, needs=_BOTH, fisher=fisher)
        gradient = point.gradient()
        with jax.default_matmul_precision("highest"):
            arrays, finite, more = rule.curvature(oracle, point, state)
            leaves = rule.direct(arrays, named_leaves(gradient), state.more)
        updates, inner = base.update(renamed(gradient, leaves), state.base, params, **extra)
        updates = jax.tree.map(lambda u: jnp.where(finite, u, jnp.zeros_like(u)), updates)
        inner = jax.tree.map(lambda new, old: jnp.where(finite, new, old), inner, state.base)
        after = LayerwiseState(state.step + 1, state.skipped + (~finite).astype(jnp.int32), arrays, inner, more)
        return updates, after

    return optax.GradientTransformationExtraArgs(init, update)


def rows_of(g: Array, convolution: bool) -> int:
    """Rows of a layer's output that its mean gradient is a mean over: samples of a convolution, else all positions."""
    if convolution:
        return len(g) if g.ndim > 3 else 1
    return g[..., 0].size
