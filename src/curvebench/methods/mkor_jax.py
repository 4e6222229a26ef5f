"""MKOR as an optax transformation; the update is that of :mod:`curvebench.methods.mkor_torch`."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import jax.numpy as jnp
import optax
from jax import Array

from curvebench.errors import HyperparameterError
from curvebench.kernels import mkor_jax as K
from curvebench.methods.layerwise_jax import LayerState, LayerwiseState, Rule, base_of, chosen, rows_of, transformation
from curvebench.methods.validation import check, whole
from curvebench.oracle.capture_jax import LayerStatistics
from curvebench.oracle.layers_jax import Layer, Layers


def mkor(
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
    norm: str = "sum",
    double_average: bool | None = None,
    factor_dtype: Any = None,
    shared: str = "refuse",
    skip: Sequence[str] = (),
) -> optax.GradientTransformationExtraArgs:
    """MKOR; ``update(None, state, params, oracle=...)`` asks the oracle for the gradient and layer statistics.

    The model says what its layers are: ``y = tap(name, x, y)`` after each, unless ``tap`` is None; a convolution hands
    its :class:`~curvebench.kernels.geometry.Geometry` too::

        tx = mkor(find_layers(apply, params, x), 0.1, momentum=0.9)

        @partial(jax.jit, donate_argnums=(0, 1))
        def step(params, state, batch):
            updates, state = tx.update(None, state, params, oracle=model_oracle(apply, criterion, batch))
            return optax.apply_updates(params, updates), state

    Args:
        layers: what :func:`curvebench.jax.find_layers` found in the model.
        learning_rate: step size of the SGD that is built without ``base``, >= 0.
        base: any optax transformation of all parameters.
        momentum: of that SGD, in [0, 1).
        inverse_every: as in torch, like all that follow.
        rule: ``'code'``, ``'ema'`` or ``'paper'``.
        reset: ``'identity'`` or ``'blend'``.
        warmup_steps: this many first steps all update the inverse factors.
        clip: bound of the elements of inputs and gradients before they are averaged, > 0.
        loss_reduction: of the loss over the batch: ``'mean'`` or ``'sum'``.
        norm: the length that a layer's gradient keeps, ``'sum'`` or ``'joint'``.
        double_average: divide ``g`` by the number of a layer's uses once more; None: with ``rule='code'`` only.
        factor_dtype: of the inverse factors, e.g. ``jnp.float16``; None: the parameters'.
        shared: layers used several times in one forward: ``'refuse'`` or ``'expand'``.
        skip: names of layers that are left to the base.

    Raises:
        HyperparameterError: a value outside its range.
        CurvebenchError: no supported layer, or one that is used twice.
    """
    kept = chosen("mkor", layers, skip, shared, loss_reduction)
    taken = base_of("mkor", base, learning_rate, momentum)
    method = mkor_rule("mkor", kept, inverse_every=inverse_every, rule=rule, reset=reset, warmup_steps=warmup_steps,
                       clip=clip, loss_reduction=loss_reduction, norm=norm, double_average=double_average,
                       factor_dtype=factor_dtype)  # fmt: skip
    return transformation(kept, taken, method)


def mkor_rule(
    name: str,
    layers: Sequence[Layer],
    *,
    inverse_every: int,
    rule: str,
    reset: str,
    warmup_steps: int,
    clip: float,
    loss_reduction: str,
    norm: str,
    double_average: bool | None,
    factor_dtype: Any,
    active: Callable[[LayerwiseState], Array] | None = None,
) -> Rule:
    """MKOR's part of a step; arguments as in :func:`mkor`, and ``active``: whether the factors may still change.

    Raises:
        HyperparameterError: a value outside its range.
    """
    every = whole(name, "inverse_every", inverse_every, "[1, inf)")
    check(name, "rule", rule, K.RULES)
    check(name, "reset", reset, ("identity", "blend"))
    warmup = whole(name, "warmup_steps", warmup_steps, "[0, inf)")
    check(name, "clip", clip, "(0, inf)")
    check(name, "norm", norm, K.NORMS)
    if factor_dtype is not None and not jnp.issubdtype(factor_dtype, jnp.floating):
        raise HyperparameterError(f"{name}: factor_dtype = {factor_dtype}: must be floating")
    twice = rule == "code" if double_average is None else bool(double_average)

    def init(layer: Layer) -> dict[str, Array]:
        i, o = layer.sides
        dtype = layer.dtype if factor_dtype is None else factor_dtype
        flags = {f"reset_{side}": jnp.full((), reset == "identity") for side in "AG"}
        return {"JA": jnp.eye(i, dtype=dtype), "JG": jnp.eye(o, dtype=dtype), **flags}

    def vectors(layer: Layer, seen: LayerStatistics) -> tuple[Array, Array]:
        """Mean input ``a [i]`` and mean gradient ``g [o]`` of a sample's loss, averaged over the layer's uses."""
        share, dtype = 1 / len(seen.inputs), K.working(layer.dtype)
        inputs = [layer.inputs(x).astype(dtype) for x in seen.inputs]
        gradients = [layer.outputs(g).astype(dtype) for g in seen.output_gradients]
        a = [K.mean_input(x, layer.geometry, layer.bias is not None, clip, share) for x in inputs]
        g = []
        for gradient in gradients:
            rows = rows_of(gradient, layer.geometry is not None) * (share if twice else 1.0)
            scale = rows if loss_reduction == "mean" else share
            g.append(K.mean_gradient(gradient, layer.geometry, clip, scale))
        return sum(a[1:], a[0]), sum(g[1:], g[0])

    def planned(J: Array, v: Array, flag: Array) -> tuple[K.Step, Array]:
        """A factor's step, which makes it the identity where ``flag``, and the largest element after it."""
        zeta: Array | float = jnp.where(K.largest(J) > K.LIMIT, K.ZETA, 1.0) if reset == "blend" else 1.0
        step = K.rank_one_step(J, v, rule, zeta=zeta)
        return step, jnp.where(flag, 1, jnp.abs(K.diagonal_after(J, step)).max())

    def carried_out(J: Array, step: K.Step, flag: Array) -> Array:
        return jnp.where(flag, jnp.eye(len(J), dtype=J.dtype), K.update_(J, step))

    def refreshed(statistics: dict[str, LayerStatistics], state: LayerState) -> tuple[LayerState, Array]:
        pairs = {layer.name: vectors(layer, statistics[layer.name]) for layer in layers}
        plans: dict[str, Any] = {}
        finite: list[Array] = []
        for key, (a, g) in pairs.items():
            old = state[key]
            ceiling = float(jnp.finfo(old["JA"].dtype).max)  # type: ignore[no-untyped-call]  # jax has no annotation
            plans[key] = planned(old["JA"], a, old["reset_A"]), planned(old["JG"], g, old["reset_G"])
            for v, (_, after) in zip((a, g), plans[key], strict=True):
                finite += [jnp.isfinite(v).all(), after <= ceiling]
        sound = jnp.stack(finite).all()
        fresh = {}
        for key, ((step_A, after_A), (step_G, after_G)) in plans.items():
            old = state[key]
            # The released code treats all input factors first, so that one of these resets its partner at once.
            large_A = (after_A > K.LIMIT) & (reset == "identity")
            large_G = (after_G > K.LIMIT) & (reset == "identity")
            fresh[key] = {
                "JA": jnp.where(sound, carried_out(old["JA"], step_A, old["reset_A"]), old["JA"]),
                "JG": jnp.where(sound, carried_out(old["JG"], step_G, old["reset_G"] | large_A), old["JG"]),
                "reset_A": jnp.where(sound, large_A | large_G, old["reset_A"]),
                "reset_G": jnp.where(sound, ~large_A & large_G, old["reset_G"]),
            }
        return fresh, sound

    def curvature(oracle: Any, point: Any, state: LayerwiseState) -> tuple[LayerState, Array, Any]:
        def refresh(arrays: LayerState) -> tuple[LayerState, Array]:
            fresh, sound = refreshed(point.layer_statistics(), arrays)
            moved = [~entry[flag] for entry in arrays.values() for flag in ("reset_A", "reset_G")]
            oracle.tally(factors=jnp.where(sound, jnp.stack(moved).sum(), 0),
                         inverses=jnp.where(sound, len(moved), 0))  # fmt: skip
            return fresh, sound

        def keep(arrays: LayerState) -> tuple[LayerState, Array]:
            return arrays, jnp.asarray(True)

        if every == 1 and active is None:
            return (*refresh(state.layers), state.more)
        due = (state.step % every == 0) | (state.step < warmup)
        due = due if active is None else due & active(state)
        return (*oracle.cond(due, refresh, keep, state.layers), state.more)

    def direct(state: LayerState, gradients: dict[str, Array], more: Any) -> dict[str, Array]:
        del more
        gradients = dict(gradients)
        for layer in layers:
            dW, db = layer.parts(gradients)
            dtype = K.working(dW.dtype)
            W, b = dW.astype(dtype), None if db is None else db.astype(dtype)
            U, c = K.preconditioned(state[layer.name]["JG"].astype(dtype), state[layer.name]["JA"].astype(dtype), W, b)
            ratio = K.length(W, b, norm) / K.length(U, c, norm)
            sound = jnp.isfinite(ratio)  # else 0/0 or x/0: the layer keeps its plain gradient
            new = jnp.where(sound, ratio * U, W)
            layer.write(gradients, new, None if b is None or c is None else jnp.where(sound, ratio * c, b))
        return gradients

    return Rule(init, curvature, direct)
