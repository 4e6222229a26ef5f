"""MKOR-H as an optax transformation; its switching rule, ours, is that of :mod:`curvebench.methods.mkor_h_torch`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import jax.numpy as jnp
import optax
from jax import Array, lax

from curvebench.methods.layerwise_jax import LayerState, LayerwiseState, Rule, base_of, chosen, transformation
from curvebench.methods.mkor_jax import mkor_rule
from curvebench.methods.validation import check, whole
from curvebench.oracle.layers_jax import Layers


class Switch(NamedTuple):
    """What the switch has seen, all ``[]``.

    Args:
        switched_at: number of steps that were taken with second order; -1: it has not switched.
        losses: how many finite losses entered the averages.
        mean: averaged loss.
        first: the first one.
        fall: averaged fall of ``mean``.
    """

    switched_at: Array
    losses: Array
    mean: Array
    first: Array
    fall: Array

    def notes(self) -> list[str]:
        """Whose rule it is, and when it switched."""
        when = int(self.switched_at)
        seen = "it has not switched" if when < 0 else f"it switched to the base optimiser alone after step {when}"
        return [f"MKOR-H's switch is curvebench's own rule (the paper prints none): {seen}"]


def mkor_h(
    layers: Layers,
    learning_rate: float | None = None,
    *,
    base: optax.GradientTransformation | None = None,
    momentum: float | None = None,
    inverse_every: int = 10,
    rule: str = "code",
    reset: str = "identity",
    warmup_steps: int = 0,
    clip: float = 100.0,
    loss_reduction: str = "mean",
    patience: int = 100,
    ratio: float = 0.1,
    smoothing: float = 0.9,
    norm: str = "sum",
    double_average: bool | None = None,
    factor_dtype: Any = None,
    shared: str = "refuse",
    skip: Sequence[str] = (),
) -> optax.GradientTransformationExtraArgs:
    """MKOR until the loss slows down, then the base alone; it never switches back.

    The loss comes from the oracle's own point. After the switch no statistics are asked and gradients reach the base
    unchanged; the inverse factors keep their room, since the shapes of a program's state are fixed.

    Args:
        layers: as in MKOR, like all arguments that are not named in torch's MKOR-H.
        learning_rate: step size of the SGD that is built without ``base``, >= 0.
        base: any optax transformation of all parameters.
        momentum: of that SGD, in [0, 1).
        inverse_every: steps between two updates of the inverse factors.
        rule: ``'code'``, ``'ema'`` or ``'paper'``.
        reset: ``'identity'`` or ``'blend'``.
        warmup_steps: this many first steps all update the inverse factors.
        clip: bound of the elements of inputs and gradients before they are averaged, > 0.
        loss_reduction: ``'mean'`` or ``'sum'``.
        patience: no switch before this many steps, at least 2.
        ratio: of the loss's mean pace, below which it switches, in [0, 1).
        smoothing: decay of the averages of the loss and of its fall, in [0, 1).
        norm: ``'sum'`` or ``'joint'``.
        double_average: as in MKOR.
        factor_dtype: of the inverse factors; None: the parameters'.
        shared: ``'refuse'`` or ``'expand'``.
        skip: names of layers that are left to the base.

    Raises:
        HyperparameterError: a value outside its range.
        CurvebenchError: no supported layer, or one that is used twice.
    """
    least = whole("mkor_h", "patience", patience, "[2, inf)")
    check("mkor_h", "ratio", ratio, "[0, 1)")
    check("mkor_h", "smoothing", smoothing, "[0, 1)")
    kept = chosen("mkor_h", layers, skip, shared, loss_reduction)
    taken = base_of("mkor_h", base, learning_rate, momentum)
    inner = mkor_rule("mkor_h", kept, inverse_every=inverse_every, rule=rule, reset=reset, warmup_steps=warmup_steps,
                      clip=clip, loss_reduction=loss_reduction, norm=norm, double_average=double_average,
                      factor_dtype=factor_dtype, active=lambda state: state.more.switched_at < 0)  # fmt: skip

    def curvature(oracle: Any, point: Any, state: LayerwiseState) -> tuple[LayerState, Array, Any]:
        arrays, finite, more = inner.curvature(oracle, point, state)
        return arrays, finite, followed(more, point.loss(), state.step + 1, least, ratio, smoothing)

    def direct(arrays: LayerState, gradients: dict[str, Array], more: Switch) -> dict[str, Array]:
        found: dict[str, Array] = lax.cond(
            more.switched_at < 0, lambda g: inner.direct(arrays, g, more), lambda g: g, gradients
        )
        return found

    def start() -> Switch:
        mean, first, fall = (jnp.zeros((), jnp.result_type(float)) for _ in range(3))
        return Switch(jnp.full((), -1, jnp.int32), jnp.zeros((), jnp.int32), mean, first, fall)

    return transformation(kept, taken, Rule(inner.init, curvature, direct, start))


def followed(old: Switch, loss: Array, steps: Array, patience: int, ratio: float, smoothing: float) -> Switch:
    """The averages with this step's loss, and the decision about the next; a loss that is not finite is left out."""
    loss = loss.astype(old.mean.dtype)
    n = old.losses + 1
    first = jnp.where(n == 1, loss, old.first)
    count = n.astype(loss.dtype)
    # Weights without a start value: 1 / n at first, 1 - smoothing in the long run.
    mean = old.mean + (loss - old.mean) * (1 - smoothing) / (1 - smoothing**count)
    before = jnp.maximum(count - 1, 1)
    fall = old.fall + (old.mean - mean - old.fall) * (1 - smoothing) / (1 - smoothing**before)
    fall = jnp.where(n == 1, 0, fall)
    now = (n >= patience) & (fall < ratio * (first - mean) / before)
    new = Switch(jnp.where(now, steps, -1), n, mean, first, fall)
    live = (old.switched_at < 0) & jnp.isfinite(loss)
    return Switch(*(jnp.where(live, a, b).astype(b.dtype) for a, b in zip(new, old, strict=True)))
