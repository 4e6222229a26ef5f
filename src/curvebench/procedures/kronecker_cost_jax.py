"""What the Kronecker family costs in jax: MKOR beside its own matrix products, a step beside SGD's bare loop; float32.

``python -m curvebench.procedures.kronecker_cost_jax`` prints the ratios; ``--clock cpu`` under ``taskset -c 0`` on a
machine that others use. XLA sizes its thread pool by the process's cores, so threads are set by affinity alone.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax import lax

from curvebench.methods.kfac_jax import kfac
from curvebench.methods.mkor_jax import mkor
from curvebench.oracle.capture_jax import LayerStatistics
from curvebench.oracle.layers_jax import find_layers
from curvebench.oracle.standalone_jax import model_oracle
from curvebench.statistics.pairs import Ratio, interleave
from curvebench.tasks.criteria_jax import cross_entropy

CLOCKS = {"wall": time.perf_counter, "cpu": time.process_time}
METHODS: dict[str, Callable[..., Any]] = {"kfac": kfac, "mkor": mkor}


class Known:
    """An oracle, and its point, whose answers are given: what is left of a step is the optimiser's own."""

    def __init__(self, gradient: Any, statistics: dict[str, LayerStatistics]) -> None:
        self._gradient, self._statistics = gradient, statistics

    def at(self, *_: Any, **__: Any) -> Known:
        """The point."""
        return self

    def gradient(self) -> Any:
        """As given."""
        return self._gradient

    def layer_statistics(self) -> dict[str, LayerStatistics]:
        """As given."""
        return self._statistics

    def cond(self, *args: Any) -> Any:
        """``lax.cond``; nothing is counted."""
        return lax.cond(*args)

    def tally(self, **_: Any) -> None:
        """Nothing is counted."""


def mkor_beside_its_products(width: int, rows: int, pairs: int, clock: str = "wall") -> Ratio:
    """MKOR's step (factors every step, base SGD) against ``JG [dW, db] JA`` of each of three dense layers.

    Args:
        width: inputs and outputs of each layer.
        rows: samples.
        pairs: interleaved measurements of each side.
        clock: ``wall`` or ``cpu``.
    """
    rng = np.random.default_rng(0)
    names = ("0", "1", "2")

    def random(*shape: int) -> Any:
        return jnp.asarray(rng.standard_normal(shape, np.float32) / width**0.5)

    params = {f"{k}.weight": random(width, width) for k in names} | {f"{k}.bias": random(width) for k in names}
    gradient = jax.tree.map(jnp.copy, params)
    seen = {k: LayerStatistics((random(rows, width),), (random(rows, width),)) for k in names}

    def apply(p: Any, x: Any, tap: Any) -> Any:
        for k in names:
            x = tap(k, x, x @ p[f"{k}.weight"].T + p[f"{k}.bias"])
        return x

    tx = mkor(find_layers(apply, params, jnp.zeros((rows, width))), 1e-6, inverse_every=1)

    @partial(jax.jit, donate_argnums=(0, 1))
    def step(params: Any, state: Any, gradient: Any, seen: Any) -> Any:
        updates, state = tx.update(None, state, params, oracle=Known(gradient, seen))
        return optax.apply_updates(params, updates), state

    factors = [(random(width, width), random(width, width + 1), random(width + 1, width + 1)) for _ in names]
    products = jax.jit(lambda factors: [JG @ W @ JA for JG, W, JA in factors])
    held = [params, tx.init(params)]

    def ours() -> None:
        held[:] = jax.block_until_ready(step(*held, gradient, seen))

    return _warm(ours, lambda: jax.block_until_ready(products(factors)), pairs, clock)


def step_beside_sgd(
    workload: str, method: str, pairs: int, clock: str = "wall", batch: int = 128, width: int = 1024
) -> Ratio:
    """A step with factors every step and inverses every ten (MKOR: both every ten), times jax's own bare SGD loop.

    Args:
        workload: ``resnet20`` (GroupNorm, 32 x 32 images) or ``mlp`` (3 hidden layers).
        method: ``kfac`` or ``mkor``.
        pairs: interleaved measurements of each side.
        clock: ``wall`` or ``cpu``.
        batch: samples.
        width: of the hidden layers.
    """
    apply, params, x = resnet20(batch) if workload == "resnet20" else mlp(batch, width)
    y = np.arange(batch) % 10
    base = optax.sgd(1e-3, 0.9)
    tx = METHODS[method](find_layers(apply, params, x), 1e-3, momentum=0.9, inverse_every=10)

    @partial(jax.jit, donate_argnums=(0, 1))
    def bare(params: Any, state: Any, batch: Any) -> Any:
        gradient = jax.grad(lambda p: cross_entropy(apply(p, batch[0], None), batch[1]))(params)
        updates, state = base.update(gradient, state, params)
        return optax.apply_updates(params, updates), state

    @partial(jax.jit, donate_argnums=(0, 1))
    def step(params: Any, state: Any, batch: Any) -> Any:
        updates, state = tx.update(None, state, params, oracle=model_oracle(apply, cross_entropy, batch))
        return optax.apply_updates(params, updates), state

    def loop(run: Any, init: Any) -> Callable[[], None]:
        held = [jax.tree.map(jnp.copy, params), jax.tree.map(jnp.copy, init(params))]

        def once() -> None:
            held[:] = jax.block_until_ready(run(*held, (x, y)))

        return once

    return _warm(loop(step, tx.init), loop(bare, base.init), pairs, clock)


def _warm(ours: Callable[[], Any], theirs: Callable[[], Any], pairs: int, clock: str) -> Ratio:
    for _ in range(2):  # the first one compiles
        ours()
        theirs()
    return interleave(ours, theirs, pairs, CLOCKS[clock])


def resnet20(batch: int) -> tuple[Any, Any, Any]:
    """Model, parameters and a batch."""
    from curvebench.tasks.cifar_resnet import blocks
    from curvebench.tasks.cifar_resnet_jax import jax_resnet

    shapes = {"conv1.weight": (16, 3, 3, 3), "norm1.weight": (16,), "norm1.bias": (16,), "linear.weight": (10, 64),
              "linear.bias": (10,)}  # fmt: skip
    plan = list(blocks(20))
    for name, wide_in, wide, stride in plan:
        shapes |= {f"{name}.conv1.weight": (wide, wide_in, 3, 3), f"{name}.conv2.weight": (wide, wide, 3, 3)}
        if stride != 1:
            shapes[f"{name}.shortcut.0.weight"] = (wide, wide_in, 1, 1)
        for norm in ("norm1", "norm2", *(["shortcut.1"] if stride != 1 else [])):
            shapes |= {f"{name}.{norm}.weight": (wide,), f"{name}.{norm}.bias": (wide,)}
    network = jax_resnet(plan, "group", 8, True)
    return lambda p, x, tap: network(p, {}, x, tap)[0], _drawn(shapes), _images(batch, 3, 32, 32)


def mlp(batch: int, width: int) -> tuple[Any, Any, Any]:
    """Likewise."""
    from curvebench.tasks.layers_jax import linear

    def apply(p: Any, x: Any, tap: Any) -> Any:
        for k in range(3):
            x = jnp.tanh(linear(p, str(k), x, tap))
        return linear(p, "3", x, tap)

    shapes: dict[str, tuple[int, ...]] = {"3.weight": (10, width), "3.bias": (10,)}
    for k in range(3):
        shapes |= {f"{k}.weight": (width, width), f"{k}.bias": (width,)}
    return apply, _drawn(shapes), _images(batch, width)


def _drawn(shapes: dict[str, tuple[int, ...]]) -> dict[str, Any]:
    rng = np.random.default_rng(0)
    return {name: jnp.asarray(rng.standard_normal(s, np.float32) / np.prod(s[1:]) ** 0.5) for name, s in shapes.items()}


def _images(*shape: int) -> Any:
    return jnp.asarray(np.random.default_rng(1).standard_normal(shape, np.float32))


def main() -> None:
    """Print every ratio."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--pairs", type=int, default=50)
    parser.add_argument("--clock", choices=list(CLOCKS), default="wall")
    given = parser.parse_args()
    found = {"MKOR step / JG W JA, 3 x 1024, 128 rows": mkor_beside_its_products(1024, 128, given.pairs, given.clock)}
    for workload in ("resnet20", "mlp"):
        for method in METHODS:
            found[f"{method} / SGD, {workload}"] = step_beside_sgd(workload, method, given.pairs, given.clock)
    for what, ratio in found.items():
        print(
            f"{what}: {ratio.ratio:.3f} [{ratio.low:.3f}, {ratio.high:.3f}], n = {ratio.n} pairs, {given.clock} clock"
        )


if __name__ == "__main__":
    main()
