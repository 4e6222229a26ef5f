"""Layer-wise methods alone, in an ordinary optax loop: donated, compiled once, continued from a checkpoint."""

from __future__ import annotations

import io
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from curvebench.jax import find_layers, kfac, mkor, model_oracle
from curvebench.tasks.criteria_jax import cross_entropy


def apply(params: Any, x: Any, tap: Any) -> Any:
    for name in ("in", "out"):
        y = x @ params[name]["kernel"] + params[name]["bias"]
        x = jnp.tanh(y if tap is None else tap(name, x, y))
    return x


def start() -> Any:
    rng = np.random.default_rng(0)
    return {"in": {"kernel": jnp.asarray(rng.standard_normal((4, 6)), jnp.float32), "bias": jnp.zeros(6)},
            "out": {"kernel": jnp.asarray(rng.standard_normal((6, 3)), jnp.float32), "bias": jnp.zeros(3)}}  # fmt: skip


def batches(n: int) -> list[Any]:
    rng = np.random.default_rng(1)
    return [(rng.standard_normal((8, 4), np.float32), rng.integers(0, 3, 8)) for _ in range(n)]


@pytest.mark.parametrize("method", [partial(mkor, inverse_every=2), partial(kfac, inverse_every=2, kl_clip=1e-3)])
def test_an_optax_loop(method: Any) -> None:
    given = batches(6)
    tx = method(find_layers(apply, start(), given[0][0]), 0.1, momentum=0.9)

    @partial(jax.jit, donate_argnums=(0, 1))
    def step(params: Any, state: Any, batch: Any) -> Any:
        updates, state = tx.update(None, state, params, oracle=model_oracle(apply, cross_entropy, batch))
        return optax.apply_updates(params, updates), state

    params = jax.tree.map(jnp.copy, start())
    state = tx.init(params)
    for k, batch in enumerate(given):
        before = jax.tree.leaves((params, state))
        params, state = step(params, state, batch)
        assert all(leaf.is_deleted() for leaf in before if leaf.ndim > 1), "the step works where the arrays lie"
        if k == 2:  # a checkpoint is the leaves of a tree
            kept = io.BytesIO()
            leaves, tree = jax.tree.flatten((params, state))
            np.savez(kept, *leaves)
    assert step._cache_size() == 1, "refresh or not, it is one program"  # type: ignore[attr-defined]
    kept.seek(0)
    with np.load(kept) as file:
        params2, state2 = jax.tree.unflatten(tree, [jnp.asarray(file[name]) for name in file.files])
    for batch in given[3:]:
        params2, state2 = step(params2, state2, batch)
    for a, b in zip(jax.tree.leaves((params, state)), jax.tree.leaves((params2, state2)), strict=True):
        np.testing.assert_array_equal(a, b)
    assert not np.array_equal(params["in"]["kernel"], start()["in"]["kernel"])
