"""The oracle in jax: points, queries, probes inside one traced step, and the ledger in the step's carried state.

Shapes: parameters are a flat dict of arrays; ``[batch, ...]`` inputs and targets of one mini-batch. The objective is
``f(theta) = criterion(apply(theta, x), y) + l2/2 ||theta||^2`` with ``criterion`` the mean over the batch.

Counting under jit: a query at the top level of the trace is a constant of the program, so the counts of a step are one
constant vector added to the carried ledger; inside the oracle's own ``cond``, ``while_loop`` and ``fori_loop`` the
counts travel in the carry. A Python counter would count traces, a host callback costs 70 microseconds.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array, lax

from curvebench.oracle import ledger as L
from curvebench.oracle.capture_jax import Tap
from curvebench.oracle.point_jax import Point
from curvebench.oracle.streams_jax import NativeStream, PhiloxStream, Stream, Walk
from curvebench.spec import Query

Params = dict[str, Array]
Buffers = dict[str, Array]
Batch = tuple[Array, Array]
Apply = Callable[[Params, Buffers, Array, Tap | None], tuple[Array, Buffers]]
_K = len(L.COLUMNS)


@dataclass(frozen=True)
class Objective:
    """``criterion(apply(theta, buffers, x, tap)[0], y) + l2/2 ||theta||^2``.

    Args:
        apply: ``(params, buffers, inputs, tap) -> (outputs, batch statistics)`` in training mode.
        criterion: mean loss over the batch, ``(outputs, targets) -> []``.
        likelihood: ``gaussian``, ``bernoulli`` or ``categorical``.
        l2: coefficient of the quadratic regulariser.
    """

    apply: Apply
    criterion: Callable[[Array, Array], Array]
    likelihood: str
    l2: float = 0.0

    def loss(self, outputs: Array, targets: Array, params: Params) -> Array:
        """Mean loss ``[]`` including the regulariser."""
        value: Array = self.criterion(outputs, targets)
        if self.l2:
            value = value + self.l2 / 2 * sum(jnp.vdot(p, p) for p in params.values())
        return value


@dataclass
class JaxOracle:
    """Answers queries about one task at the current mini-batch and counts them; lives inside one traced step.

    Args:
        objective: the task.
        needs: the queries that the method declares; any other raises while tracing.
        batch: the step's mini-batch.
        step: the optimiser step, traced int32 ``[]``.
        key: typed key of the step (native draws).
        buffers: model state that queries read and never change.
        names: the parameters' names in the task's order, which draws follow.
        dtype: of the parameters and of the draws.
        noise_seed: seed of the reference draws.
        draws: ``native`` or ``reference``.
        tick: counts one evaluation of the loss by a foreign loop, on the host.
    """

    objective: Objective
    needs: frozenset[Query]
    batch: Batch
    step: Array
    key: Array
    buffers: Buffers = field(default_factory=dict)
    names: tuple[str, ...] = ()
    dtype: Any = np.float32
    noise_seed: int = 0
    draws: str = "native"
    tick: Callable[[], None] | None = None
    batch_statistics: Buffers | None = field(default=None, init=False)
    _static: list[int] = field(default_factory=lambda: [0] * _K, init=False)
    _dynamic: Array | None = field(default=None, init=False)
    _depth: int = field(default=0, init=False)

    def at(
        self,
        params: Params,
        batch: Batch | None = None,
        needs: Collection[Query] | None = None,
        fisher: str = "empirical",
    ) -> Point:
        """A point: queries here share one forward.

        Args:
            params: the parameters.
            batch: ``(inputs, targets)``, or None for the step's.
            needs: what will be asked here, if less than the method's needs.
            fisher: which layer statistics will be asked here.
        """
        return Point(self, params, batch or self.batch, self.needs if needs is None else frozenset(needs), fisher)

    def loss(self, params: Params) -> Array:
        """The loss ``[]`` at ``params`` on the step's batch."""
        return self.at(params, needs=(Query.LOSS,)).loss()

    def stream(self, name: str) -> Stream:
        """Open (rewind) the named stream of random probes of this step."""
        if self.draws == "native":
            return NativeStream(self.key, name, self.dtype, self._count_draws)
        return PhiloxStream(self.noise_seed, self.step, name, self.dtype, self._count_draws)

    def draw(self, kind: str, stream: str, shape: tuple[int, ...]) -> Array:
        """The first draws of a stream: ``normal``, ``rademacher`` or ``uniform`` of the given shape."""
        return self.stream(stream).draw(kind, shape)

    def loss_function(self, counted_by: Query | None = None) -> Callable[[Params], Array]:
        """The bare loss ``params -> []``, for a library that owns its loop.

        Args:
            counted_by: the query as which the caller reports the library's evaluations through :meth:`add`, from the
                library's own state. None: each evaluation ticks a host counter (70 microseconds a call), and the
                record says that the count is self-reported.
        """
        self.require(counted_by or Query.LOSS_FUNCTION)

        def evaluate(params: Params) -> Array:
            if counted_by is None and self.tick is not None:
                jax.debug.callback(self.tick)
            return self.evaluate(params, self.batch)[0]

        return evaluate

    def seeded(self, name: str, seed: Array) -> Stream:
        """A stream that a seed kept by the method opens again in any step, from :meth:`fresh_seed`."""
        if self.draws == "native":
            return NativeStream(jax.random.key(seed), name, self.dtype, self._count_draws)
        return PhiloxStream(seed, 0, name, self.dtype, self._count_draws)

    def fresh_seed(self, name: str) -> Array:
        """32 bits ``[]`` of a stream of this step, to seed noise that later steps draw again instead of keeping it."""
        bytes_ = self.stream(name).draw("uniform", (4,), self.dtype or np.float32)  # 8 bits each
        shifts = np.array([0, 8, 16, 24], np.uint32)
        seed: Array = jnp.sum(jnp.left_shift((bytes_ * 256).astype(jnp.uint32), shifts), dtype=jnp.uint32)
        return seed

    def probes(self, kind: str, stream: str, params: Any, round: Any = 0) -> Any:
        """One draw per parameter, shaped like ``params``: the first, or the ``round``-th, tree of a stream.

        The order is the task's (torch's ``named_parameters``), not the sorted one of a dict's leaves, so that torch and
        jax draw the same reference bits for the same parameter.

        Args:
            kind: ``normal``, ``rademacher`` or ``uniform``.
            stream: name of the stream.
            params: what the draws are shaped like.
            round: how many trees before it are passed over; may be traced, so that a loop draws one after another.
        """
        opened = self.stream(stream)
        leaves = self.ordered(params)
        opened.skip(round, kind, [p.shape for _, p in leaves])
        drawn = {at: opened.draw(kind, p.shape, self.dtype or p.dtype) for at, p in leaves}
        return self.arranged(drawn, params)

    def walk(self, kind: str, stream: str | Stream, function: Walk, *trees: Any, reads: int = 0) -> tuple[Any, ...]:
        """``function(z, *leaves)`` on every parameter with draws ``z`` of its shape that are never all in memory.

        Large parameters are overwritten part by part, where they lie if the trees are not used afterwards.

        Args:
            kind: ``normal``, ``rademacher`` or ``uniform``.
            stream: name of the stream, or an open one.
            function: elementwise ``(z, *leaves) -> leaves``.
            *trees: shaped like the parameters.
            reads: how many of them, the last ones, are only read: the function returns the others.
        """
        opened = self.stream(stream) if isinstance(stream, str) else stream
        flat = [dict(self.ordered(tree)) for tree in trees]
        moved = {at: opened.walk(kind, function, [leaves[at] for leaves in flat], reads) for at in flat[0]}
        changed = trees[: len(trees) - reads]
        return tuple(self.arranged({at: new[i] for at, new in moved.items()}, tree) for i, tree in enumerate(changed))

    def ordered(self, params: Any) -> list[tuple[Any, Array]]:
        """``(place, leaf)`` of a tree in the order of draws: the task's names, else the tree's own."""
        if isinstance(params, dict) and set(self.names) == set(params):
            return [(name, params[name]) for name in self.names]
        return list(enumerate(jax.tree.leaves(params)))

    def arranged(self, leaves: Mapping[Any, Any], like: Any) -> Any:
        """The tree shaped ``like`` another one of leaves by the places of :meth:`ordered`."""
        if isinstance(like, dict) and set(self.names) == set(like):
            return {name: leaves[name] for name in like}
        return jax.tree.unflatten(jax.tree.structure(like), [leaves[i] for i in range(len(leaves))])

    # -- counting ----------------------------------------------------------------------------------------------------

    def require(self, query: Query) -> None:
        """Refuse a query that was not declared.

        Raises:
            UndeclaredQueryError: the method's needs do not list it.
        """
        if query not in self.needs:
            raise L.undeclared(query, self.needs)

    def count(self, query: Query, samples: int) -> None:
        """Enter one query over ``samples`` samples into the ledger."""
        self.require(query)
        self._static[L.COLUMN[query.value]] += 1
        self._static[L.SAMPLES] += samples

    def add(self, query: Query, times: Array) -> None:
        """Enter ``times`` (traced int) queries on the step's batch, as counted by a foreign loop's own state."""
        self.require(query)
        unit = np.zeros(_K, np.int32)
        unit[L.COLUMN[query.value]] = 1
        unit[L.SAMPLES] = len(self.batch[0])
        self._dynamic = self._sum(self._dynamic, jnp.asarray(times, jnp.int32) * unit)

    def tally(self, *, factors: int | Array = 0, inverses: int | Array = 0, sent: int | Array = 0) -> None:
        """Enter what the method did with curvature: factor updates, inverse updates, bytes sent to other workers.

        Under :meth:`cond` and the loops below each branch tallies its own. Under jax's own ``lax.cond`` the branch
        cannot: tally outside of it, a traced number such as ``jnp.where(due, n, 0)``.
        """
        for column, times in ((L.FACTOR_UPDATES, factors), (L.INVERSE_UPDATES, inverses), (L.BYTES_COMMUNICATED, sent)):
            if isinstance(times, Array):
                unit = np.zeros(_K, np.int32)
                unit[column] = 1
                self._dynamic = self._sum(self._dynamic, jnp.asarray(times, jnp.int32) * unit)
            else:
                self._static[column] += int(times)

    def counts(self) -> Array:
        """What this trace has asked so far, int32 ``[columns]``."""
        static = jnp.asarray(self._static, jnp.int32)
        return static if self._dynamic is None else static + self._dynamic

    def _count_draws(self, n: int) -> None:
        self._static[L.DRAWS] += n

    @staticmethod
    def _sum(a: Array | None, b: Array) -> Array:
        return b if a is None else a + b

    def _counted(self, function: Callable[..., Any]) -> Callable[..., tuple[Any, Array]]:
        """Wrap ``function`` so that it also returns what it asked, instead of writing it into the outer trace."""

        def wrapped(*args: Any) -> tuple[Any, Array]:
            outer = self._static, self._dynamic
            self._static, self._dynamic = [0] * _K, None
            self._depth += 1
            try:
                out = function(*args)
                return out, self.counts()
            finally:
                self._depth -= 1
                self._static, self._dynamic = outer

        return wrapped

    # -- control flow whose queries are counted ----------------------------------------------------------------------

    def cond(self, predicate: Array, true: Callable[..., Any], false: Callable[..., Any], *operands: Any) -> Any:
        """``lax.cond`` whose branches may ask queries: only the branch taken is counted."""
        out, asked = lax.cond(predicate, self._counted(true), self._counted(false), *operands)
        self._dynamic = self._sum(self._dynamic, asked)
        return out

    def while_loop(self, condition: Callable[[Any], Array], body: Callable[[Any], Any], init: Any) -> Any:
        """``lax.while_loop`` whose body may ask queries (its condition may not)."""

        def counted_body(carry: tuple[Any, Array]) -> tuple[Any, Array]:
            state, asked = carry
            state, more = self._counted(body)(state)
            return state, asked + more

        zero = jnp.zeros(_K, jnp.int32)
        out, asked = lax.while_loop(lambda carry: condition(carry[0]), counted_body, (init, zero))
        self._dynamic = self._sum(self._dynamic, asked)
        return out

    def fori_loop(self, lower: int, upper: int | Array, body: Callable[[Array, Any], Any], init: Any) -> Any:
        """``lax.fori_loop`` whose body may ask queries."""

        def counted_body(i: Array, carry: tuple[Any, Array]) -> tuple[Any, Array]:
            state, more = self._counted(body)(i, carry[0])
            return state, carry[1] + more

        out, asked = lax.fori_loop(lower, upper, counted_body, (init, jnp.zeros(_K, jnp.int32)))
        self._dynamic = self._sum(self._dynamic, asked)
        return out

    # -- evaluation --------------------------------------------------------------------------------------------------

    def evaluate(self, params: Params, batch: Batch, tap: Tap | None = None) -> tuple[Array, tuple[Array, Buffers]]:
        """Uncounted ``(loss, (outputs, batch statistics))``."""
        outputs, statistics = self.objective.apply(params, self.buffers, batch[0], tap)
        return self.objective.loss(outputs, batch[1], params), (outputs, statistics)

    def record(self, statistics: Buffers) -> None:
        """Keep the batch statistics of the step's first forward; a forward inside a loop cannot hand them out."""
        if self.batch_statistics is None and self._depth == 0:
            self.batch_statistics = statistics
