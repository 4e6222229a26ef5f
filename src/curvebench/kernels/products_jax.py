"""Products of curvature matrices with vectors in jax, from functions of the parameters; no matrix is formed.

``theta``: parameters, a tree of arrays, ``d`` numbers in all. ``f``: the objective; ``o [batch, ...]``: the model's
outputs, ``J`` their Jacobian in ``theta``; ``H_out`` the Hessian of the criterion in ``o``. Where torch takes a graph
that a forward left behind, these take the function: ``jax.linearize`` of it is what several products share.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
from jax import Array
from jax.flatten_util import ravel_pytree


def differentiate(outputs: Callable[[Any], Any], inputs: Any, vectors: Any = None) -> Any:
    """``J'v`` in one reverse pass, shaped like the inputs; zero for those that the outputs do not depend on.

    Args:
        outputs: a function of the inputs.
        inputs: where.
        vectors: ``v``, shaped like the outputs; None for a function that returns one number.
    """
    if vectors is None:
        return jax.grad(outputs)(inputs)
    return jax.vjp(outputs, inputs)[1](vectors)[0]


def hessian_vector_product(gradient: Callable[[Any], Any], parameters: Any, vector: Any) -> Any:
    """``H v = d/dt g(theta + t v)`` by forward over reverse: about two gradients.

    For many vectors at one point ``jax.linearize(gradient, parameters)[1]`` is the same product, its forward shared.

    Args:
        gradient: ``theta -> g``, shaped like the parameters: ``jax.grad`` of the objective.
        parameters: ``theta``.
        vector: ``v``, shaped like the parameters.
    """
    return jax.jvp(gradient, (parameters,), (vector,))[1]


def gauss_newton_vector_product(
    outputs: Callable[[Any], Array], parameters: Any, vector: Any, criterion: Callable[[Array], Array]
) -> Any:
    """``J' H_out J v``: the generalised Gauss-Newton matrix of ``criterion(o(theta))`` times ``v``.

    One forward, linearised: ``J v`` forward, ``H_out`` forward over reverse, ``J'`` transposed: about two gradients.

    Args:
        outputs: ``theta -> o``.
        parameters: ``theta``.
        vector: ``v``, shaped like the parameters.
        criterion: the loss ``[]`` as a function of outputs, twice differentiable.
    """
    return gauss_newton_product(outputs, parameters, criterion)(vector)


def gauss_newton_product(
    outputs: Callable[[Any], Array], parameters: Any, criterion: Callable[[Array], Array]
) -> Callable[[Any], Any]:
    """``v -> J' H_out J v`` at one point, whose forward all vectors share."""
    at, push = jax.linearize(outputs, parameters)
    pull, curve = jax.linear_transpose(push, parameters), jax.linearize(jax.grad(criterion), at)[1]

    def product(vector: Any) -> Any:
        return pull(curve(push(vector)))[0]

    return product


def on_vectors(product: Callable[[Any], Any], like: Any) -> Callable[[Array], Array]:
    """The same product on one vector ``[d]``: the tree's arrays flattened, one after another.

    Args:
        product: takes and returns trees of the parameters' shapes.
        like: the parameters, of one dtype.
    """
    unflatten = ravel_pytree(like)[1]

    def flat(vector: Array) -> Array:
        found: Array = ravel_pytree(product(unflatten(vector)))[0]
        return found

    return flat
