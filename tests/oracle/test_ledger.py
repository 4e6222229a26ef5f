"""The ledger counts what was asked: once per distinct answer, per branch taken, per turn of a loop, past 2^31."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import tiny
from tiny import ALL, FRAMEWORKS

from curvebench.errors import UndeclaredQueryError
from curvebench.oracle import ledger
from curvebench.run.engine_jax import accumulate
from curvebench.spec import Query

N = 10  # samples of the tiny classification problems
VECTORS = ("jvp", "hvp", "ggnvp")


def oracle_of(framework: str, needs: Any = ALL) -> Any:
    return {"torch": tiny.Torch, "jax": tiny.Jax}[framework](tiny.mlp(), needs)


def asked(oracle: Any, queries: tuple[str, ...], needs: Any = None) -> dict[str, int]:
    """The counts after these queries at one point, zeros left out."""
    v = tiny.tangent(oracle.problem)
    if isinstance(oracle, tiny.Torch):
        point = oracle.oracle.at(needs=needs)
        for query in queries:
            oracle.answer(point, query, v if query in VECTORS else None)
    else:

        def ask(jaxed: Any, params: Any) -> Any:
            point = jaxed.at(params, needs=needs)
            return [getattr(point, q)(*([v] if q in VECTORS else [])) for q in queries]

        oracle.trace(ask)
    return {name: n for name, n in oracle.counts().items() if n}


@pytest.mark.parametrize("framework", FRAMEWORKS)
@pytest.mark.parametrize(
    ("queries", "expected"),
    [
        (("loss",), {"loss": 1}),
        (("loss", "loss"), {"loss": 1}),
        (("gradient",), {"gradient": 1}),
        (("gradient", "gradient", "loss"), {"gradient": 1}),
        (("loss", "gradient"), {"loss": 1, "gradient": 1}),
        (("gradient", "hvp", "hvp"), {"gradient": 1, "hvp": 2}),
        (("hvp", "loss"), {"hvp": 1}),
        (("hvp", "gradient"), {"hvp": 1, "gradient": 1}),
        (("ggnvp", "loss"), {"ggnvp": 1}),
        (("ggnvp", "ggnvp", "gradient"), {"ggnvp": 2, "gradient": 1}),
        (("jvp", "jvp", "loss"), {"jvp": 2}),
        (("per_sample_gradient",), {"per_sample_gradient": 1}),
        (("layer_statistics", "gradient"), {"layer_statistics": 1, "gradient": 1}),
    ],
)
def test_counts_of_one_point(framework: str, queries: tuple[str, ...], expected: dict[str, int]) -> None:
    """The loss that comes with a derivative and an answer asked again are free; samples follow the queries."""
    expected = {**expected, "samples": N * sum(expected.values())}
    assert asked(oracle_of(framework), queries) == expected


@pytest.mark.parametrize("framework", FRAMEWORKS)
def test_two_points_are_two_questions_and_a_smaller_batch_counts_its_own_samples(framework: str) -> None:
    oracle = oracle_of(framework)
    if framework == "torch":
        x, y = oracle.task.batch(0)
        oracle.oracle.at().gradient()
        oracle.oracle.at(batch=(x[:3], y[:3])).gradient()
        oracle.oracle.loss()
    else:

        def ask(jaxed: Any, params: Any) -> Any:
            x, y = jaxed.batch
            return jaxed.at(params).gradient(), jaxed.at(params, (x[:3], y[:3])).gradient(), jaxed.loss(params)

        oracle.trace(ask)
    counts = {name: n for name, n in oracle.counts().items() if n}
    assert counts == {"gradient": 2, "loss": 1, "samples": 2 * N + 3}


@pytest.mark.parametrize("framework", FRAMEWORKS)
def test_draws_are_counted_by_scalars_and_are_no_oracle_calls(framework: str) -> None:
    oracle = oracle_of(framework)
    if framework == "torch":
        oracle.oracle.draw("normal", "a", (3, 4))
        oracle.oracle.stream("b").draw("rademacher", (5,))
        oracle.oracle.stream("b").draw("uniform", ())
    else:

        def draw(jaxed: Any, params: Any) -> Any:
            b = jaxed.stream("b")
            return jaxed.draw("normal", "a", (3, 4)), b.draw("rademacher", (5,)), b.draw("uniform", ())

        oracle.trace(draw)
    counts = oracle.counts()
    assert counts == {**dict.fromkeys(ledger.COLUMNS, 0), "draws": 12 + 5 + 1}
    assert ledger.oracle_calls(counts.values()) == 0


def test_columns_are_the_queries_then_samples_draws_and_what_is_reported() -> None:
    assert (*(q.value for q in Query), "samples", "draws", *ledger.REPORTED) == ledger.COLUMNS
    constants = [ledger.LOSS, ledger.GRADIENT, ledger.JVP, ledger.HVP, ledger.GGNVP, ledger.PER_SAMPLE_GRADIENT,
                 ledger.LAYER_STATISTICS, ledger.LOSS_FUNCTION, ledger.SAMPLES, ledger.DRAWS,
                 ledger.FACTOR_UPDATES, ledger.INVERSE_UPDATES, ledger.BYTES_COMMUNICATED]  # fmt: skip
    assert [ledger.COLUMNS[i].upper() for i in constants] == [
        "LOSS", "GRADIENT", "JVP", "HVP", "GGNVP", "PER_SAMPLE_GRADIENT", "LAYER_STATISTICS", "LOSS_FUNCTION",
        "SAMPLES", "DRAWS", "FACTOR_UPDATES", "INVERSE_UPDATES", "BYTES_COMMUNICATED",
    ]  # fmt: skip
    assert ledger.oracle_calls(range(1, 14)) == sum(range(1, 9))


def test_a_tally_in_jax_counts_the_branch_taken_and_every_turn() -> None:
    oracle = oracle_of("jax", {Query.LOSS})

    def work(jaxed: Any, params: Any) -> Any:
        def dear(x: Any) -> Any:
            jaxed.tally(factors=2, inverses=3)
            return x + 1

        def turn(i: Any, x: Any) -> Any:
            jaxed.tally(inverses=1, sent=8)
            return x + i

        x = jaxed.cond(jaxed.step > 5, dear, lambda x: x, jnp.float32(0))
        x = jaxed.cond(jaxed.step <= 5, dear, lambda x: x, x)
        jaxed.tally(factors=jnp.where(x > 100, 1000, 20), inverses=100)
        return jaxed.fori_loop(0, 4, turn, x)

    oracle.trace(work)
    found = {name: n for name, n in oracle.counts().items() if n}
    assert found == {"factor_updates": 22, "inverse_updates": 107, "bytes_communicated": 32}


def test_a_torch_librarys_own_loop_is_counted_call_by_call() -> None:
    oracle = oracle_of("torch", {Query.LOSS_FUNCTION})
    evaluate = oracle.oracle.loss_function()
    for _ in range(3):
        evaluate().backward()
    assert {k: n for k, n in oracle.counts().items() if n} == {"loss_function": 3, "samples": 3 * N}


# -- under jit ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("taken", "expected"), [(True, {"gradient": 1, "hvp": 2, "draws": 4}), (False, {"loss": 1})])
def test_cond_counts_the_branch_taken(taken: bool, expected: dict[str, int]) -> None:
    oracle = oracle_of("jax")
    v = tiny.tangent(oracle.problem)

    def ask(jaxed: Any, params: Any, predicate: Any) -> Any:
        def true(p: Any) -> Any:
            point = jaxed.at(p)
            point.hvp(v)
            jaxed.draw("normal", "s", (4,))
            return jax.tree.map(jnp.add, point.gradient(), point.hvp(v))

        def false(p: Any) -> Any:
            loss = jaxed.loss(p)
            return {n: value * loss for n, value in p.items()}

        return jaxed.cond(predicate, true, false, params)

    oracle.trace(ask, None, np.bool_(taken))
    calls = sum(n for name, n in expected.items() if name != "draws")
    assert {k: n for k, n in oracle.counts().items() if n} == {**expected, "samples": N * calls}


def test_loops_count_every_turn_and_conditions_inside_loops_what_was_taken() -> None:
    """A fori_loop of 5 gradients, of which the even turns ask a loss too, then a while_loop of ``turns`` HVPs."""
    oracle = oracle_of("jax")
    v = tiny.tangent(oracle.problem)
    ran: list[str] = []

    def ask(jaxed: Any, params: Any, turns: Any) -> Any:
        def descend(i: Any, p: Any) -> Any:
            jax.debug.callback(lambda: ran.append("gradient"))
            gradient = jaxed.at(p, needs=(Query.GRADIENT,)).gradient()
            p = {n: p[n] - 0.1 * gradient[n] for n in p}

            def look(p: Any) -> Any:
                jax.debug.callback(lambda: ran.append("loss"))
                return jaxed.loss(p)

            value = jaxed.cond(i % 2 == 0, look, lambda p: jnp.zeros(()), p)
            return {n: p[n] + 0 * value for n in p}

        def curve(carry: Any) -> Any:
            i, p = carry
            jax.debug.callback(lambda: ran.append("hvp"))
            product = jaxed.at(p).hvp(v)
            return i + 1, {n: p[n] + 0.01 * product[n] for n in p}

        params = jaxed.fori_loop(0, 5, descend, params)
        jaxed.loss(params)
        return jaxed.while_loop(lambda carry: carry[0] < turns, curve, (jnp.int32(0), params))

    oracle.trace(ask, None, np.int32(3))
    jax.effects_barrier()
    assert {name: ran.count(name) for name in set(ran)} == {"gradient": 5, "loss": 3, "hvp": 3}
    counts = {k: n for k, n in oracle.counts().items() if n}
    assert counts == {"gradient": 5, "loss": 4, "hvp": 3, "samples": 12 * N}
    oracle.trace(ask, None, np.int32(0))  # the same compiled program, another number of turns
    counts = {k: n for k, n in oracle.counts().items() if n}
    assert counts == {"gradient": 10, "loss": 8, "hvp": 3, "samples": 21 * N}


def test_loops_compute_what_lax_computes() -> None:
    oracle = tiny.asker("jax", "mlp", 0.3)

    def descend(step: Any, p: Any) -> Any:
        gradient = step(p)
        return {n: p[n] - 0.1 * gradient[n] for n in p}

    def looped(jaxed: Any, params: Any) -> Any:
        def body(i: Any, p: Any) -> Any:
            return descend(lambda q: jaxed.at(q, needs=(Query.GRADIENT,)).gradient(), p)

        return jaxed.fori_loop(0, 4, body, params)

    params = oracle.problem.parameters
    found = oracle.trace(looped, params)
    for _ in range(4):
        params = descend(lambda p: oracle.ask("gradient", p, needs=("gradient",)), params)
    assert tiny.relative(found, params) < 1e-12


def test_a_foreign_loops_own_state_is_added() -> None:
    oracle = oracle_of("jax", {Query.GRADIENT})

    def ask(jaxed: Any, params: Any, times: Any) -> Any:
        evaluate = jaxed.loss_function(counted_by=Query.GRADIENT)
        out = jax.lax.fori_loop(0, times, lambda i, p: {n: p[n] - jax.grad(evaluate)(p)[n] for n in p}, params)
        jaxed.add(Query.GRADIENT, times)
        return out

    oracle.trace(ask, None, np.int32(6))
    assert {k: n for k, n in oracle.counts().items() if n} == {"gradient": 6, "samples": 6 * N}
    with pytest.raises(UndeclaredQueryError, match="hvp"):
        oracle.trace(lambda jaxed, params: jaxed.add(Query.HVP, jnp.int32(1)))


def test_two_words_are_exact_past_two_to_the_31() -> None:
    """A step of 2^31 - 2^20 - 1 samples, a thousand times: 2^41 in int32 words."""
    big = 2**31 - 2**20 - 1
    step = np.zeros(len(ledger.COLUMNS), np.int32)
    step[ledger.SAMPLES], step[ledger.GRADIENT], step[ledger.DRAWS] = big, 1, 123_457
    totals = jnp.zeros((2, len(ledger.COLUMNS)), jnp.int32)
    add = jax.jit(accumulate)
    for _ in range(1000):
        totals = add(totals, step)
    assert totals.dtype == jnp.int32
    low, high = np.asarray(totals).astype(object)
    found = [int(h) * 2**20 + int(part) for part, h in zip(low, high, strict=True)]
    assert found[ledger.SAMPLES] == 1000 * big > 2**40
    assert (found[ledger.GRADIENT], found[ledger.DRAWS]) == (1000, 123_457_000)


def test_the_engine_reads_both_words() -> None:
    engine = tiny.engine(tiny.run_spec("sgd", framework="jax"), tiny.squared())
    engine.step(0, float("inf"))
    carry = list(engine.carry)
    carry[3] = carry[3].at[0, ledger.SAMPLES].set(2**20 - 1).at[1, ledger.SAMPLES].set(2**21)
    engine.carry = tuple(carry)
    engine.step(1, float("inf"))
    assert engine.counts()[ledger.SAMPLES] == 2**41 + 2**20 - 1 + 12
    assert engine.counts()[ledger.GRADIENT] == 2
