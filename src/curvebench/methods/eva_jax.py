"""Eva as an optax transformation; the update is that of :mod:`curvebench.methods.eva_torch`."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import optax
from jax import Array

from curvebench.errors import HyperparameterError
from curvebench.kernels import mkor_jax as K
from curvebench.kernels.rank_one_jax import eva_direction
from curvebench.methods.layerwise_jax import LayerState, LayerwiseState, Rule, base_of, chosen, rows_of, transformation
from curvebench.methods.validation import check
from curvebench.oracle.capture_jax import LayerStatistics
from curvebench.oracle.layers_jax import Layer, Layers


def eva(
    layers: Layers,
    learning_rate: float | None = None,
    *,
    base: optax.GradientTransformation | None = None,
    momentum: float | None = None,
    damping: float = 0.03,
    factor_decay: float = 0.95,
    kl_clip: float = 1e-3,
    loss_reduction: str = "mean",
    shared: str = "refuse",
    skip: Sequence[str] = (),
) -> optax.GradientTransformationExtraArgs:
    """Eva; ``update(None, state, params, oracle=...)`` asks the oracle for the gradient and layer statistics.

    Args:
        layers: what :func:`curvebench.jax.find_layers` found in the model.
        learning_rate: step size of the SGD that is built without ``base``, >= 0.
        base: any optax transformation of all parameters, without ``kl_clip``.
        momentum: of that SGD, in [0, 1).
        damping: > 0.
        factor_decay: of the running means of a and g, in [0, 1).
        kl_clip: bound on the step's size in the metric; 0: none.
        loss_reduction: of the loss over the batch: ``'mean'`` or ``'sum'``.
        shared: layers used several times in one forward: ``'refuse'`` or ``'expand'``.
        skip: names of layers that are left to the base.

    Raises:
        HyperparameterError: a value outside its range.
        CurvebenchError: no supported layer, or one that is used twice.
    """
    check("eva", "damping", damping, "(0, inf)")
    check("eva", "factor_decay", factor_decay, "[0, 1)")
    check("eva", "kl_clip", kl_clip, "[0, inf)")
    if kl_clip and learning_rate is None and base is not None:
        raise HyperparameterError(
            f"eva: kl_clip = {kl_clip}: the bound needs the step size, which a base keeps to itself: pass lr instead "
            "of base, or kl_clip=0"
        )
    kept = chosen("eva", layers, skip, shared, loss_reduction)
    taken = base_of("eva", base, learning_rate, momentum)

    def init(layer: Layer) -> dict[str, Array]:
        (i, o), dtype = layer.sides, K.working(layer.dtype)
        return {"a": jnp.zeros(i, dtype), "g": jnp.zeros(o, dtype), "weight": jnp.zeros((), dtype)}

    def means(layer: Layer, seen: LayerStatistics) -> tuple[Array, Array]:
        share, geo, dtype = 1 / len(seen.inputs), layer.geometry, K.working(layer.dtype)
        a = [K.mean_input(layer.inputs(x).astype(dtype), geo, layer.bias is not None, math.inf, share)
             for x in seen.inputs]  # fmt: skip
        g = []
        for gradient in (layer.outputs(g).astype(dtype) for g in seen.output_gradients):
            scale = float(rows_of(gradient, geo is not None)) if loss_reduction == "mean" else share
            g.append(K.mean_gradient(gradient, geo, math.inf, scale))
        return sum(a[1:], a[0]), sum(g[1:], g[0])

    def curvature(oracle: Any, point: Any, state: LayerwiseState) -> tuple[LayerState, Array, Any]:
        seen = point.layer_statistics()
        new: LayerState = {}
        for layer in kept:
            (a, g), old = means(layer, seen[layer.name]), state.layers[layer.name]
            new[layer.name] = {"a": a + factor_decay * old["a"], "g": g + factor_decay * old["g"],
                               "weight": 1 + factor_decay * old["weight"]}  # fmt: skip
        finite = jnp.stack([jnp.isfinite(jnp.linalg.norm(entry[k])) for entry in new.values() for k in "ag"]).all()
        oracle.tally(factors=jnp.where(finite, 2 * len(kept), 0))
        return jax.tree.map(lambda n, o: jnp.where(finite, n, o), new, state.layers), finite, state.more

    def direct(state: LayerState, gradients: dict[str, Array], more: Any) -> dict[str, Array]:
        del more
        gradients, found = dict(gradients), []
        for layer in kept:
            entry = state[layer.name]
            W = layer.matrix(gradients).astype(entry["a"].dtype)
            found.append(
                (layer, W, eva_direction(W, entry["a"] / entry["weight"], entry["g"] / entry["weight"], damping))
            )
        if kl_clip and learning_rate is not None:
            size = jnp.abs(jnp.stack([(P * W).sum() * learning_rate**2 for _, W, P in found]).sum())
            scale = jnp.where(size > 0, jnp.minimum(jnp.sqrt(kl_clip / size), 1), 1)
            found = [(layer, W, P * scale) for layer, W, P in found]
        for layer, _, P in found:
            layer.write(gradients, P)
        return gradients

    return transformation(kept, taken, Rule(init, curvature, direct))
