"""Hessian and Gauss-Newton products with k vectors at once in jax: one batched pass in place of k.

Shapes: vectors ``[k, *shape]``, one array per parameter; results likewise.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
from jax import Array

from curvebench.kernels.products_jax import gauss_newton_product


def hessian_products(gradient: Callable[[Any], Any], parameters: Any, vectors: Any) -> Any:
    """``H v_j`` for ``j = 1..k``: one linearisation of the gradient, then k times its arithmetic in one pass.

    Args:
        gradient: ``theta -> g``.
        parameters: ``theta``.
        vectors: ``[k, *shape]`` for every parameter.
    """
    return jax.vmap(jax.linearize(gradient, parameters)[1])(vectors)


def gauss_newton_products(
    outputs: Callable[[Any], Array], parameters: Any, vectors: Any, criterion: Callable[[Array], Array]
) -> Any:
    """``J' H_out J v_j`` for ``j = 1..k``: one forward for all of them.

    Args:
        outputs: ``theta -> o``.
        parameters: ``theta``.
        vectors: ``[k, *shape]`` for every parameter.
        criterion: the loss ``[]`` as a function of outputs.
    """
    return jax.vmap(gauss_newton_product(outputs, parameters, criterion))(vectors)
