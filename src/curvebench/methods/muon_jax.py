"""Muon in jax: ``optax.contrib``'s for hidden matrices, ``optax.adamw`` for the rest.

``optax.contrib.muon`` itself takes the rest by NAdamW, with Muon's eps, and every matrix; its parts are put together
here as :mod:`curvebench.methods.muon_torch` does.
"""

from __future__ import annotations

import math
from typing import Any

import jax
import optax
from jax import Array
from optax.contrib import MuonDimensionNumbers, scale_by_muon

from curvebench.methods.validation import check


def muon(
    learning_rate: float,
    *,
    momentum: float = 0.95,
    weight_decay: float = 0.0,
    nesterov: bool = True,
    ns_steps: int = 5,
    eps: float = 1e-7,
    adamw_learning_rate: float = 1e-3,
    adamw_b1: float = 0.9,
    adamw_b2: float = 0.999,
    adamw_eps: float = 1e-8,
    adamw_weight_decay: float = 0.0,
) -> optax.GradientTransformationExtraArgs:
    """Muon and AdamW; parameters are a dict of arrays, weights ``[o, i]``.

    Args:
        learning_rate: Muon's step size, >= 0.
        momentum: in [0, 1).
        weight_decay: of Muon's matrices, multiplied by its step size, >= 0.
        nesterov: look ahead.
        ns_steps: Newton-Schulz iterations, in [1, 99].
        eps: added to the norm that a momentum is divided by, > 0.
        adamw_learning_rate: AdamW's step size, >= 0.
        adamw_b1: AdamW's decay of the gradient, in [0, 1).
        adamw_b2: AdamW's decay of its square, in [0, 1).
        adamw_eps: added to AdamW's root, > 0.
        adamw_weight_decay: of AdamW's parameters, multiplied by its step size, >= 0.

    Raises:
        HyperparameterError: a value outside its range.
    """
    for name, value, allowed in (
        ("learning_rate", learning_rate, "[0, inf)"), ("momentum", momentum, "[0, 1)"),
        ("weight_decay", weight_decay, "[0, inf)"), ("ns_steps", ns_steps, "[1, 99]"), ("eps", eps, "(0, inf)"),
        ("adamw_learning_rate", adamw_learning_rate, "[0, inf)"), ("adamw_b1", adamw_b1, "[0, 1)"),
        ("adamw_b2", adamw_b2, "[0, 1)"), ("adamw_eps", adamw_eps, "(0, inf)"),
        ("adamw_weight_decay", adamw_weight_decay, "[0, inf)"),
    ):  # fmt: skip
        check("muon", name, value, allowed)

    def sides(tree: Any) -> Any:
        return jax.tree.map(lambda _: MuonDimensionNumbers(reduction_axis=1, output_axis=0), tree)

    def widened(update: Array) -> Array:
        rows, columns = update.shape
        return update * math.sqrt(max(1, rows / columns))

    matrices = optax.chain(
        scale_by_muon(ns_steps=ns_steps, beta=momentum, eps=eps, nesterov=nesterov, weight_dimension_numbers=sides),
        optax.stateless(lambda updates, _: jax.tree.map(widened, updates)),
        optax.add_decayed_weights(weight_decay),
        optax.scale_by_learning_rate(learning_rate),
    )
    rest = optax.adamw(adamw_learning_rate, adamw_b1, adamw_b2, adamw_eps, weight_decay=adamw_weight_decay)

    def labels(params: dict[str, Any]) -> dict[str, str]:
        hidden = hidden_matrices(params)
        return {name: "muon" if name in hidden else "adamw" for name in params}

    return optax.partition({"muon": matrices, "adamw": rest}, labels)


def hidden_matrices(params: dict[str, Any]) -> list[str]:
    """Names of the weights of two dimensions but the last one, which makes the outputs."""
    return [name for name, p in params.items() if p.ndim == 2][:-1]
