"""One point of the jax oracle: queries at one set of parameters on one batch share one forward."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, overload

import jax
from jax import Array

from curvebench.errors import CurvebenchError
from curvebench.oracle import capture_jax as capture
from curvebench.oracle import ledger as L
from curvebench.oracle.capture_jax import FisherStatistics, LayerStatistics, Tap, Uses
from curvebench.oracle.fisher_jax import FISHERS, pulled_vectors
from curvebench.spec import Query

if TYPE_CHECKING:
    from curvebench.oracle.jax import Batch, Buffers, JaxOracle, Params


class Point:
    """Queries at one set of parameters on one batch; they share one forward."""

    def __init__(
        self, oracle: JaxOracle, params: Params, batch: Batch, needs: frozenset[Query], fisher: str = "empirical"
    ) -> None:
        self._oracle = oracle
        self._params = params
        self.batch = batch
        self._needs = needs
        self._fisher = fisher
        self._loss: Array | None = None
        self._gradient: Params | None = None
        self._gradient_asked = False
        self._layers: dict[str, LayerStatistics] | None = None
        self._pull: tuple[Array, Uses, Callable[[Array], tuple[Params, Uses]]] | None = None
        self._hessian: Callable[[Params], Params] | None = None
        self._outputs: tuple[Array, Callable[[Params], Array]] | None = None

    def loss(self) -> Array:
        """``f(theta)`` ``[]``."""
        if self._loss is None:
            self._count(Query.LOSS)
            if self._needs <= {Query.LOSS}:
                self._loss, (_, statistics) = self._oracle.evaluate(self._params, self.batch)
                self._oracle.record(statistics)
            else:
                self._differentiate()
        assert self._loss is not None
        return self._loss

    def gradient(self) -> Params:
        """``grad f(theta)``, shaped like the parameters."""
        if not self._gradient_asked:
            self._count(Query.GRADIENT)
            self._gradient_asked = True
        if self._gradient is None:
            self._differentiate()
        assert self._gradient is not None
        return self._gradient

    def hvp(self, vector: Params) -> Params:
        """``H(theta) v``: the linearisation of the gradient (forward over reverse), its forward shared."""
        self._count(Query.HVP)
        if self._hessian is None:
            self._differentiate()
        assert self._hessian is not None
        return self._hessian(vector)

    def ggnvp(self, vector: Params) -> Params:
        """``(J' H_out J + l2 I) v`` with ``J`` the Jacobian of the outputs and ``H_out`` the criterion's Hessian."""
        self._count(Query.GGNVP)
        objective = self._oracle.objective
        outputs, push = self._linear_outputs()

        def residual(out: Array) -> Array:
            slope: Array = jax.grad(lambda o: objective.criterion(o, self.batch[1]))(out)
            return slope

        _, curved = jax.jvp(residual, (outputs,), (push(vector),))
        product: Params = jax.linear_transpose(push, self._params)(curved)[0]
        return {name: product[name] + objective.l2 * v for name, v in vector.items()}

    def jvp(self, vector: Params) -> Array:
        """The directional derivative ``grad f(theta) . v`` ``[]`` by forward mode."""
        self._count(Query.JVP)
        value, derivative, (_, statistics) = jax.jvp(
            lambda p: self._oracle.evaluate(p, self.batch), (self._params,), (vector,), has_aux=True
        )
        self._oracle.record(statistics)
        self._loss = value if self._loss is None else self._loss
        slope: Array = derivative
        return slope

    def per_sample_gradient(self) -> Params:
        """Gradients of each sample's loss, ``[batch, *shape]``; their mean is the gradient."""
        self._count(Query.PER_SAMPLE_GRADIENT)

        def one(params: Params, x: Array, y: Array) -> Array:
            return self._oracle.evaluate(params, (x[None], y[None]))[0]

        per_sample: Params = jax.vmap(jax.grad(one), in_axes=(None, 0, 0))(self._params, *self.batch)
        return per_sample

    @overload
    def layer_statistics(self) -> dict[str, LayerStatistics]: ...
    @overload
    def layer_statistics(self, fisher: str) -> dict[str, LayerStatistics] | dict[str, FisherStatistics]: ...
    def layer_statistics(self, fisher: str = "empirical") -> dict[str, LayerStatistics] | dict[str, FisherStatistics]:
        """Inputs and output gradients of every layer with weights, by layer name (of the mean loss).

        Args:
            fisher: as in torch: ``empirical``; ``mc``: one more reverse pass; ``type-2``: one for each output, in a
                loop. The ledger counts one query, and one more for every reverse pass beside the gradient's.

        Raises:
            CurvebenchError: the point was not opened with this ``fisher``.
            ValueError: ``fisher`` is another word.
        """
        if fisher not in FISHERS:
            raise ValueError(f"fisher = {fisher!r}: must be one of {', '.join(map(repr, FISHERS))}")
        self._count(Query.LAYER_STATISTICS)
        if fisher == "empirical":
            if self._layers is None:
                self._differentiate()
            assert self._layers is not None
            return self._layers
        if fisher != self._fisher:
            raise CurvebenchError(
                f"layer_statistics({fisher!r}) at a point that was not opened for it: open the point with "
                f"at(fisher={fisher!r})"
            )
        if self._pull is None:
            self._differentiate()
        assert self._pull is not None
        outputs, inputs, pull = self._pull
        objective = self._oracle.objective
        columns, terms = pulled_vectors(
            objective.criterion,
            outputs,
            self.batch[1],
            objective.likelihood,
            fisher,
            self._oracle.stream("fisher").draw,
        )
        for _ in range(len(columns)):
            self._oracle.count(Query.LAYER_STATISTICS, len(self.batch[0]))
        if len(columns) == 1:
            pulled = {key: g[None] for key, g in pull(columns[0])[1].items()}
        else:  # one after the other: memory for one reverse pass
            pulled = jax.lax.map(lambda column: pull(column)[1], columns)
        return capture.fisher_statistics(inputs, pulled, terms)

    def _count(self, query: Query) -> None:
        """Enter one query into the ledger, unless this point was opened without it."""
        self._oracle.require(query)
        if query in L.GRAPH_QUERIES and query not in self._needs:
            raise L.unannounced(query, self._needs)
        self._oracle.count(query, len(self.batch[0]))

    def _linear_outputs(self) -> tuple[Array, Callable[[Params], Array]]:
        if self._outputs is None:
            outputs, push, statistics = jax.linearize(
                lambda p: self._oracle.objective.apply(p, self._oracle.buffers, self.batch[0], None),
                self._params,
                has_aux=True,
            )
            self._oracle.record(statistics)
            self._outputs = outputs, push
            if self._loss is None:
                self._loss = self._oracle.objective.loss(outputs, self.batch[1], self._params)
        return self._outputs

    def _differentiate(self) -> None:
        """One forward and one reverse pass; linearised when HVPs are announced, tapped when layers are."""
        oracle, batch = self._oracle, self.batch
        if Query.LAYER_STATISTICS in self._needs:
            self._differentiate_layers()
        elif Query.HVP in self._needs:

            def gradient(p: Params) -> tuple[Params, tuple[Array, Buffers]]:
                (value, (_, statistics)), g = jax.value_and_grad(oracle.evaluate, has_aux=True)(p, batch)
                return g, (value, statistics)

            self._gradient, self._hessian, (self._loss, statistics) = jax.linearize(
                gradient, self._params, has_aux=True
            )
            oracle.record(statistics)
        elif Query.GGNVP in self._needs:
            outputs, push = self._linear_outputs()
            objective = oracle.objective
            residual = jax.grad(lambda o: objective.criterion(o, batch[1]))(outputs)
            (pulled,) = jax.linear_transpose(push, self._params)(residual)
            self._gradient = {name: pulled[name] + objective.l2 * p for name, p in self._params.items()}
        else:
            (self._loss, (_, statistics)), self._gradient = jax.value_and_grad(oracle.evaluate, has_aux=True)(
                self._params, batch
            )
            oracle.record(statistics)

    def _differentiate_layers(self) -> None:
        oracle, batch = self._oracle, self.batch
        objective = oracle.objective
        probes = capture.probes(lambda p, tap: objective.apply(p, oracle.buffers, batch[0], tap), self._params)
        if self._fisher != "empirical":
            self._linear_layers(probes)
            return

        def tapped(p: Params, probe: Uses) -> Any:
            tap = Tap(probe)
            value, (_, statistics) = oracle.evaluate(p, batch, tap)
            return value, (statistics, tap.inputs)

        if Query.HVP in self._needs:

            def gradient(p: Params) -> Any:
                (value, aux), (g, outputs) = jax.value_and_grad(tapped, argnums=(0, 1), has_aux=True)(p, probes)
                return g, (value, aux, outputs)

            self._gradient, self._hessian, (self._loss, aux, gradients) = jax.linearize(
                gradient, self._params, has_aux=True
            )
        else:
            (self._loss, aux), (self._gradient, gradients) = jax.value_and_grad(tapped, argnums=(0, 1), has_aux=True)(
                self._params, probes
            )
        statistics, inputs = aux
        oracle.record(statistics)
        self._layers = capture.statistics(inputs, gradients)

    def _linear_layers(self, probes: Uses) -> None:
        """As :meth:`_differentiate_layers`, by a reverse pass from the outputs that is kept for more vectors."""
        oracle, (x, y), objective = self._oracle, self.batch, self._oracle.objective

        def outputs_of(p: Params, probe: Uses) -> Any:
            tap = Tap(probe)
            outputs, statistics = objective.apply(p, oracle.buffers, x, tap)
            return outputs, (statistics, tap.inputs)

        outputs, pull, (statistics, inputs) = jax.vjp(outputs_of, self._params, probes, has_aux=True)
        oracle.record(statistics)
        self._loss = objective.loss(outputs, y, self._params)
        gradient, gradients = pull(jax.grad(lambda o: objective.criterion(o, y))(outputs))
        if objective.l2:
            gradient = jax.tree.map(lambda g, p: g + objective.l2 * p, gradient, self._params)
        self._gradient = gradient
        self._layers = capture.statistics(inputs, gradients)
        self._pull = outputs, inputs, pull
