"""EKFAC as an optax transformation; the update is that of :mod:`curvebench.methods.ekfac_torch`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import jax.numpy as jnp
import optax
from jax import Array

from curvebench.kernels import kronecker_jax as K
from curvebench.methods.kfac_jax import Seen, Settings, kfac_rule, per_term
from curvebench.methods.layerwise_jax import LayerState, base_of, chosen, transformation
from curvebench.methods.validation import check
from curvebench.oracle.layers_jax import Layer, Layers


def ekfac(
    layers: Layers,
    learning_rate: float | None = None,
    *,
    base: optax.GradientTransformation | None = None,
    momentum: float | None = None,
    damping: float = 1e-3,
    factor_decay: float = 0.95,
    factor_every: int = 1,
    inverse_every: int = 10,
    kl_clip: float | None = None,
    solve: str = "eigen",
    fisher: str = "empirical",
    loss_reduction: str = "mean",
    convention: str = "ggn",
    pi: bool = True,
    loss_terms: str = "samples",
    shared: str = "refuse",
    skip: Sequence[str] = (),
) -> optax.GradientTransformationExtraArgs:
    """EKFAC: the arguments of :func:`~curvebench.methods.kfac_jax.kfac`, with ``solve='eigen'`` alone.

    Args:
        layers: as there, like all arguments.
        learning_rate: step size of the SGD that is built without ``base``, >= 0.
        base: any optax transformation of all parameters, without ``kl_clip``.
        momentum: of that SGD, in [0, 1).
        damping: added to the second moments, > 0.
        factor_decay: decay of the averaged factors and second moments, in [0, 1).
        factor_every: steps between two updates of both.
        inverse_every: steps between two eigendecompositions.
        kl_clip: bound of ``|sum <P, W>| lr^2``; None or 0: none.
        solve: ``'eigen'``.
        fisher: ``'empirical'``, ``'mc'`` or ``'type-2'``.
        loss_reduction: ``'mean'`` or ``'sum'``.
        convention: ``'ggn'`` or ``'kfac-pytorch'``.
        pi: without effect, since ``solve`` is ``'eigen'``.
        loss_terms: ``'samples'`` or ``'rows'``.
        shared: ``'refuse'`` or ``'expand'``.
        skip: names of layers that are left to the base.

    Raises:
        HyperparameterError: a value outside its range.
        CurvebenchError: no supported layer, or one that is used twice.
    """
    check("ekfac", "solve", solve, ("eigen",))
    kept = chosen("ekfac", layers, skip, shared, loss_reduction)
    taken = base_of("ekfac", base, learning_rate, momentum)
    settings = Settings.checked(
        "ekfac", rate=learning_rate, damping=damping, factor_decay=factor_decay, factor_every=factor_every,
        inverse_every=inverse_every, kl_clip=kl_clip, solve=solve, fisher=fisher, loss_reduction=loss_reduction,
        convention=convention, pi=pi, loss_terms=loss_terms,
    )  # fmt: skip

    def moments(arrays: LayerState, seen: dict[str, Seen]) -> LayerState:
        return {layer.name: _with_moments(layer, arrays[layer.name], seen[layer.name], settings) for layer in kept}

    return transformation(kept, taken, kfac_rule(kept, settings, moments), fisher)


def _with_moments(layer: Layer, entry: dict[str, Array], seen: Seen, s: Settings) -> dict[str, Array]:
    """A layer's arrays with this step's second moments in ``S [o, i]``."""
    new = second_moments(layer, entry, seen, s)
    if s.convention == "ggn":
        return {**entry, "S": entry["S"] + (new - entry["S"]) / entry["weight"]}
    return {**entry, "S": s.factor_decay * entry["S"] + (1 - s.factor_decay) * new}


def second_moments(layer: Layer, entry: dict[str, Array], seen: Seen, s: Settings) -> Array:
    """``mean_n (QG' W_n QA)^2 [o, i]`` of this step's samples, whose positions and uses are summed in ``W_n``."""
    geo, bias = layer.geometry, layer.bias is not None
    to_term, terms = per_term(seen, s)
    positions = seen.rows // seen.samples
    scale: Any = to_term**2 / terms
    if s.convention == "kfac-pytorch":
        scale = (to_term / terms) ** 2 / (seen.samples * positions * (positions**4 if geo is not None else 1))
    total = jnp.zeros(entry["S"].shape, entry["S"].dtype)
    size = max(1, K.CHUNK // (positions * total.shape[1]))
    for start in range(0, seen.samples, size):
        part = slice(start, start + size)
        a = jnp.concatenate([K.input_rows(x[part], geo, bias) for x in seen.inputs], 1)
        for k in range(len(seen.columns[0])):
            g = jnp.concatenate([K.output_rows(column[k, part], geo) for column in seen.columns], 1)
            pair = (a, g)
            if s.loss_terms == "rows" and seen.terms is None:
                pair = (a.reshape(-1, 1, a.shape[-1]), g.reshape(-1, 1, g.shape[-1]))
            total = total + scale * K.second_moments(*pair, entry["QA"], entry["QG"])
    return total
