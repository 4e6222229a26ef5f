"""The oracle of a transformation that is used alone, in somebody's own optax loop: nothing is counted.

It answers what :class:`~curvebench.oracle.jax.JaxOracle` answers, from a loss or from a model; parameters are any
pytree of arrays where only losses, gradients and Hessian-vector products are asked, else a flat dict.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from jax import Array

from curvebench.errors import CurvebenchError
from curvebench.oracle.capture_jax import Tap
from curvebench.oracle.jax import JaxOracle, Objective
from curvebench.oracle.streams_jax import Stream
from curvebench.spec import Query

_EVERYTHING = frozenset(Query)


class StandaloneOracle(JaxOracle):
    """One step's oracle; made anew in every step, inside the jitted function."""

    def stream(self, name: str) -> Stream:
        """Open (rewind) the named stream of random probes of this step.

        Raises:
            CurvebenchError: no key was given.
        """
        if self.key is None:
            raise CurvebenchError(
                "a method that draws noise needs a key, another one in every step: "
                "oracle(loss, jax.random.fold_in(key, step))"
            )
        return super().stream(name)


def oracle(loss: Callable[[Any], Array], key: Array | None = None) -> StandaloneOracle:
    """The oracle of a loss: ``updates, state = tx.update(None, state, params, oracle=oracle(loss, key))``.

    Args:
        loss: the mini-batch's mean loss ``[]`` as a function of the parameters.
        key: key of this step, such as ``jax.random.fold_in(key, step)``; None if the method draws no noise.

    Layer statistics, per-sample gradients and Gauss-Newton products need :func:`model_oracle`.
    """
    objective = Objective(lambda params, buffers, inputs, tap: (loss(params), {}), _itself, "gaussian")
    needs = _EVERYTHING - {Query.GGNVP, Query.PER_SAMPLE_GRADIENT, Query.LAYER_STATISTICS}
    return StandaloneOracle(objective, needs, _NO_BATCH, np.int32(0), key, dtype=None)  # type: ignore[arg-type]


def model_oracle(
    apply: Callable[[Any, Array, Tap | None], Array],
    criterion: Callable[[Array, Array], Array],
    batch: tuple[Array, Array],
    key: Array | None = None,
    *,
    likelihood: str = "categorical",
) -> StandaloneOracle:
    """The oracle of a model, for methods that look at its outputs, its layers or its samples.

    Args:
        apply: ``(params, inputs, tap) -> outputs``; after every layer with weights it calls ``y = tap(name, x, y)``
            unless ``tap`` is None.
        criterion: mean loss over the batch, ``(outputs, targets) -> []``.
        batch: ``(inputs, targets)``.
        key: key of this step; None if the method draws no noise.
        likelihood: ``gaussian``, ``bernoulli`` or ``categorical``.
    """
    objective = Objective(lambda params, buffers, inputs, tap: (apply(params, inputs, tap), {}), criterion, likelihood)
    return StandaloneOracle(objective, _EVERYTHING, batch, np.int32(0), key, dtype=None)  # type: ignore[arg-type]


def _itself(outputs: Array, targets: Array) -> Array:
    del targets
    return outputs


_NO_BATCH: Any = (np.zeros(1, np.float32), np.zeros(1, np.float32))
