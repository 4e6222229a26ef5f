"""The oracle in torch: points, queries, probes, and the ledger that counts them.

Shapes: ``d`` parameters in tensors of any shape; ``[batch, ...]`` inputs and targets of one mini-batch. The objective
at a batch is ``f(theta) = criterion(module(x), y) + l2/2 ||theta||^2`` with ``criterion`` the mean over the batch.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from typing import Any, cast, overload

import torch
from torch import Tensor, nn
from torch.func import functional_call

from curvebench.errors import CurvebenchError
from curvebench.kernels.batched_products_torch import gauss_newton_products, hessian_products
from curvebench.kernels.kronecker_torch import FISHERS
from curvebench.kernels.per_sample_torch import per_sample_gradients
from curvebench.kernels.products_torch import differentiate, gauss_newton_vector_product, hessian_vector_product
from curvebench.oracle import ledger as L
from curvebench.oracle.batchnorm_torch import RunningStatistics
from curvebench.oracle.capture_torch import (
    FisherStatistics,
    LayerCapture,
    LayerStatistics,
    Record,
    fisher_statistics,
    statistics,
)
from curvebench.oracle.double_backward_torch import SECOND_DERIVATIVES, AttentionSwitch, explained
from curvebench.oracle.fisher_torch import pulled_vectors
from curvebench.oracle.streams_torch import Stream, open_stream
from curvebench.spec import Query, seed

Batch = tuple[Tensor, Tensor]
PRODUCTS = frozenset({Query.HVP, Query.GGNVP, Query.JVP})


class BudgetExhausted(CurvebenchError):
    """A budget ran out inside a step that asks several queries; the message says which."""


@dataclass(frozen=True)
class Objective:
    """``criterion(module(x), y) + l2/2 ||theta||^2``.

    Args:
        module: maps inputs ``[batch, ...]`` to outputs; its parameters are the optimisation variables.
        criterion: mean loss over the batch, ``(outputs, targets) -> []``, twice differentiable in the outputs.
        likelihood: ``gaussian``, ``bernoulli`` or ``categorical``: the distribution that ``criterion`` is the negative
            log-likelihood of, for methods that sample it.
        l2: coefficient of the quadratic regulariser.
    """

    module: nn.Module
    criterion: Callable[[Tensor, Tensor], Tensor]
    likelihood: str
    l2: float = 0.0

    def loss(self, outputs: Tensor, targets: Tensor, parameters: Sequence[Tensor]) -> Tensor:
        """Mean loss ``[]`` including the regulariser."""
        value = self.criterion(outputs, targets)
        if self.l2:
            value = value + self.l2 / 2 * torch.stack([p.square().sum() for p in parameters]).sum()
        return value


class TorchOracle:
    """Answers queries about one task at the current mini-batch and counts them.

    Args:
        objective: the task.
        needs: the queries that the method declares; any other raises.
        noise_seed: seed of the method's own draws.
        draws: ``native`` (torch generators) or ``reference`` (NumPy Philox, same bits as jax).
    """

    def __init__(
        self, objective: Objective, needs: Collection[Query], noise_seed: int = 0, draws: str = "native"
    ) -> None:
        self.objective = objective
        self.needs = frozenset(needs)
        self.names = [name for name, _ in objective.module.named_parameters()]
        self.parameters: list[nn.Parameter] = list(objective.module.parameters())
        self.counts = [0] * len(L.COLUMNS)
        self.deadline = float("inf")
        self.most_calls: int | None = None
        self._asked = False
        self.batch: Batch | None = None
        self.step = -1
        self._noise_seed = noise_seed
        self._draws = draws
        self._stream_seeds: dict[str, int] = {}
        self._generators: dict[str, torch.Generator] = {}
        self._statistics = RunningStatistics(objective.module)
        self.attention = AttentionSwitch()
        self.capture = LayerCapture(objective.module) if Query.LAYER_STATISTICS in self.needs else None

    # -- the harness's side ------------------------------------------------------------------------------------------

    def begin_step(self, step: int, batch: Batch) -> None:
        """Set the step and its mini-batch ``(inputs [batch, ...], targets [batch, ...])``."""
        self.step = step
        self.batch = batch
        self._asked = False
        if self._statistics.layers:
            self._statistics.arm()

    def end_step(self) -> None:
        """Fold the step's batch statistics into BatchNorm's running ones, whichever queries were asked."""
        if not self._statistics.layers:
            return
        if not self._statistics.layers[0].recorded and self.batch is not None:
            with torch.no_grad():  # the method asked functional queries only: one uncounted forward supplies them
                self.objective.module(self.batch[0])
        self._statistics.commit()

    # -- the method's side -------------------------------------------------------------------------------------------

    def at(
        self,
        parameters: Sequence[Tensor] | None = None,
        batch: Batch | None = None,
        needs: Collection[Query] | None = None,
        fisher: str = "empirical",
    ) -> Point:
        """A point: the live parameters (default) or others of the same shapes, on the step's batch or another.

        Args:
            parameters: tensors shaped like ``self.parameters``, or None for the live ones.
            batch: ``(inputs, targets)``, or None for the step's.
            needs: what will be asked here, if less than the method's needs: a graph is kept only when needed.
            fisher: whose layer statistics will be asked here: the graph is kept for them.

        Raises:
            BudgetExhausted: the run's seconds or queries are spent, and this step has had a point already.
        """
        if self._asked:
            if time.perf_counter() > self.deadline:
                raise BudgetExhausted("seconds")
            if self.most_calls is not None and L.oracle_calls(self.counts) >= self.most_calls:
                raise BudgetExhausted("gradient-equivalents")
        self._asked = True  # a step has its first point in any case: a method of one query ends between two steps
        return Point(self, parameters, batch or self.batch, self.needs if needs is None else frozenset(needs), fisher)

    def loss(self) -> Tensor:
        """The loss ``[]`` at the live parameters on the step's batch; no graph is built."""
        return self.at(needs=(Query.LOSS,)).loss()

    def stream(self, name: str) -> Stream:
        """Open (rewind) the named stream of random probes of this step."""
        base = self._stream_seeds.get(name)
        if base is None:
            base = self._stream_seeds[name] = seed("stream", self._noise_seed, name)
            if self._draws == "native":  # one each, so that two streams can be drawn from in turn
                self._generators[name] = torch.Generator(self.parameters[0].device)
        return open_stream(
            self._generators.get(name), base, self._noise_seed, self.step, name, self.parameters[0], self.counts
        )

    def draw(self, kind: str, stream: str, shape: Sequence[int]) -> Tensor:
        """The first draws of a stream: ``normal``, ``rademacher`` or ``uniform`` of the given shape."""
        return self.stream(stream).draw(kind, tuple(shape))

    def loss_function(self) -> Callable[[], Tensor]:
        """The bare loss at the live parameters, for a library that owns its loop; each call is counted."""
        self.require(Query.LOSS_FUNCTION)

        def evaluate() -> Tensor:
            point = self.at(needs=(Query.GRADIENT,))
            self.count(Query.LOSS_FUNCTION, len(point.batch[0]))
            return point.forward()

        return evaluate

    def notes(self) -> list[str]:
        """Sentences for the record: what the queries needed to be answered at all."""
        return self.attention.notes()

    def require(self, query: Query) -> None:
        """Refuse a query that was not declared.

        Raises:
            UndeclaredQueryError: the method's needs do not list it.
        """
        if query not in self.needs:
            raise L.undeclared(query, self.needs)

    def count(self, query: Query, samples: int) -> None:
        """Enter one query over ``samples`` samples into the ledger.

        Raises:
            UndeclaredQueryError: the method's needs do not list it.
        """
        self.require(query)
        self.counts[L.COLUMN[query.value]] += 1
        self.counts[L.SAMPLES] += samples

    def tally(self, *, factors: int = 0, inverses: int = 0, sent: int = 0) -> None:
        """Enter what the method did with curvature: factor updates, inverse updates, bytes sent to other workers."""
        self.counts[L.FACTOR_UPDATES] += factors
        self.counts[L.INVERSE_UPDATES] += inverses
        self.counts[L.BYTES_COMMUNICATED] += sent


class Point:
    """Queries at one set of parameters on one batch; they share one forward and one graph."""

    def __init__(
        self,
        oracle: TorchOracle,
        parameters: Sequence[Tensor] | None,
        batch: Batch | None,
        needs: frozenset[Query],
        fisher: str = "empirical",
    ) -> None:
        if batch is None:
            raise CurvebenchError("the oracle has no batch yet: call begin_step first")
        self._oracle = oracle
        self._live = parameters is None
        self._parameters: list[Tensor] = (
            list(oracle.parameters) if parameters is None else [p.detach().requires_grad_() for p in parameters]
        )
        self.batch = batch
        self._needs = needs
        self._fisher = fisher
        self._outputs: Tensor | None = None
        self._loss: Tensor | None = None
        self._gradient: list[Tensor] | None = None
        self._gradient_asked = False
        self._records: list[Record] = []
        self._layers: dict[str, LayerStatistics] | None = None
        self._fisher_layers: dict[str, dict[str, FisherStatistics]] = {}
        self._graph_is_gone = False
        self._products = 0

    # -- queries -----------------------------------------------------------------------------------------------------

    def loss(self) -> Tensor:
        """``f(theta)`` as a detached scalar ``[]``."""
        if self._loss is None:
            self._count(Query.LOSS)
            if self._needs <= {Query.LOSS}:
                with torch.no_grad():
                    self._loss = self._evaluate()
            else:
                self.forward()
        assert self._loss is not None
        return self._loss.detach()

    def gradient(self) -> list[Tensor]:
        """``grad f(theta)``: tensors shaped like the parameters (with their graph if HVP was announced)."""
        if not self._gradient_asked:
            self._count(Query.GRADIENT)
            self._gradient_asked = True
        if self._gradient is None:
            self._differentiate()
        assert self._gradient is not None
        return self._gradient

    def hvp(self, vector: Sequence[Tensor]) -> list[Tensor]:
        """``H(theta) v`` with the Hessian of ``f`` over all parameters jointly, by reverse over reverse."""
        self._count(Query.HVP)
        if self._gradient is None:
            self._differentiate()
        assert self._gradient is not None
        with explained():
            return hessian_vector_product(self._gradient, self._parameters, vector)

    def ggnvp(self, vector: Sequence[Tensor]) -> list[Tensor]:
        """``(J' H_out J + l2 I) v``: the generalised Gauss-Newton matrix of ``f`` times ``v``.

        ``J`` is the Jacobian of the module's outputs, ``H_out`` the Hessian of the criterion in the outputs.
        """
        self._count(Query.GGNVP)
        self.forward()
        assert self._outputs is not None
        criterion, l2, targets = self._oracle.objective.criterion, self._oracle.objective.l2, self.batch[1]
        with explained():
            product = gauss_newton_vector_product(
                self._outputs, self._parameters, vector, lambda outputs: criterion(outputs, targets)
            )
        return [g + l2 * v for g, v in zip(product, vector, strict=True)] if l2 else product

    def hvps(self, vectors: Sequence[Tensor]) -> list[Tensor]:
        """``H v_j`` for k vectors ``[k, *shape]`` at once, counted as k queries."""
        self._count(Query.HVP, len(vectors[0]))
        if self._gradient is None:
            self._differentiate()
        assert self._gradient is not None
        with explained():
            return hessian_products(self._gradient, self._parameters, vectors)

    def ggnvps(self, vectors: Sequence[Tensor]) -> list[Tensor]:
        """``(J' H_out J + l2 I) v_j`` for k vectors ``[k, *shape]`` at once, counted as k queries."""
        self._count(Query.GGNVP, len(vectors[0]))
        self.forward()
        assert self._outputs is not None
        criterion, l2, targets = self._oracle.objective.criterion, self._oracle.objective.l2, self.batch[1]
        with explained():
            products = gauss_newton_products(
                self._outputs, self._parameters, vectors, lambda outputs: criterion(outputs, targets)
            )
        return [g + l2 * v for g, v in zip(products, vectors, strict=True)] if l2 else products

    def jvp(self, vector: Sequence[Tensor]) -> Tensor:
        """The directional derivative ``grad f(theta) . v`` ``[]``, by forward mode: exact, and no graph is kept."""
        self._count(Query.JVP)
        self._record_statistics()
        names = self._oracle.names
        primals = dict(zip(names, (p.detach() for p in self._parameters), strict=True))
        tangents = dict(zip(names, vector, strict=True))
        with self._oracle.attention(), explained():
            pair: Any = torch.func.jvp(lambda p: self._functional_loss(p, *self.batch), (primals,), (tangents,))
        value, derivative = cast("tuple[Tensor, Tensor]", pair)
        self._loss = value.detach() if self._loss is None else self._loss
        return derivative

    def per_sample_gradient(self) -> list[Tensor]:
        """Gradients of each sample's loss, ``[batch, *shape]`` for every parameter; their mean is the gradient."""
        self._count(Query.PER_SAMPLE_GRADIENT)
        primals = dict(zip(self._oracle.names, (p.detach() for p in self._parameters), strict=True))
        with self._oracle.attention():  # fused attention has no rule for a batch of samples either
            per_sample = per_sample_gradients(self._functional_loss, primals, *self.batch)
        return [per_sample[name] for name in self._oracle.names]

    @overload
    def layer_statistics(self) -> dict[str, LayerStatistics]: ...
    @overload
    def layer_statistics(self, fisher: str) -> dict[str, LayerStatistics] | dict[str, FisherStatistics]: ...
    def layer_statistics(self, fisher: str = "empirical") -> dict[str, LayerStatistics] | dict[str, FisherStatistics]:
        """Inputs and output gradients of layers with weights, by module name; the regulariser has no part in them.

        Args:
            fisher: ``empirical``: gradients of the mean loss, from the gradient's own backward; ``mc``: of each term's
                loss at a target sampled from the model, one more backward; ``type-2``: the columns of the loss's
                Hessian in the outputs, one backward for each output. The ledger counts one query, and one more for
                every backward beside the gradient's.

        Raises:
            CurvebenchError: the graph is gone, as after a gradient at a point that was not opened with this ``fisher``.
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
        if fisher not in self._fisher_layers:
            self._fisher_layers[fisher] = self._pull(fisher)
        return self._fisher_layers[fisher]

    def _count(self, query: Query, times: int = 1) -> None:
        """Enter a query into the ledger, unless this point was opened without it."""
        self._oracle.require(query)
        if query in PRODUCTS:
            if self._products and time.perf_counter() > self._oracle.deadline:
                raise BudgetExhausted("seconds")  # a step of hundreds of products at one point is stopped between two
            self._products += 1
        if query in L.GRAPH_QUERIES and query not in self._needs:
            raise L.unannounced(query, self._needs)
        for _ in range(times):
            self._oracle.count(query, len(self.batch[0]))

    # -- one forward, one backward -----------------------------------------------------------------------------------

    def forward(self) -> Tensor:
        """The loss with its graph; evaluated once."""
        if self._outputs is None or self._loss is None:
            capture = self._oracle.capture if Query.LAYER_STATISTICS in self._needs else None
            switched = self._oracle.attention() if self._needs & SECOND_DERIVATIVES else nullcontext()
            with torch.enable_grad(), switched:
                if capture is None:
                    self._loss = self._evaluate()
                else:
                    with capture.recording() as self._records:
                        self._loss = self._evaluate()
        return self._loss

    def _evaluate(self) -> Tensor:
        oracle = self._oracle
        inputs, targets = self.batch
        if self._live:
            outputs = oracle.objective.module(inputs)
        else:
            live = dict(zip(oracle.names, self._parameters, strict=True))
            outputs = functional_call(oracle.objective.module, live, (inputs,))
        if torch.is_grad_enabled():
            self._outputs = outputs
        return oracle.objective.loss(outputs, targets, self._parameters)

    def _differentiate(self) -> None:
        loss = self.forward()
        n = len(self._parameters)
        second = Query.HVP in self._needs
        keep = second or Query.GGNVP in self._needs or self._fisher != "empirical"
        gradients = differentiate([loss], [*self._parameters, *(r.output for r in self._records)],
                                  create_graph=second, retain_graph=keep)  # fmt: skip
        self._graph_is_gone = not keep
        self._gradient = list(gradients[:n])
        if self._records:
            self._layers = statistics(self._records, gradients[n:])

    def _pull(self, fisher: str) -> dict[str, FisherStatistics]:
        """Pull the columns of a Fisher matrix that is not of the batch's targets back to the layers' outputs."""
        if self._graph_is_gone:
            raise CurvebenchError(
                f"layer_statistics({fisher!r}) after a gradient whose graph was not kept: open the point with "
                f"at(fisher={fisher!r})"
            )
        self.forward()
        assert self._outputs is not None
        oracle, pulled = self._oracle, []
        objective, draw = oracle.objective, oracle.stream("fisher").draw
        columns, terms = pulled_vectors(
            objective.criterion, self._outputs, self.batch[1], objective.likelihood, fisher, draw
        )
        for column in columns:
            oracle.count(Query.LAYER_STATISTICS, len(self.batch[0]))
            pulled.append(differentiate([self._outputs], [r.output for r in self._records], [column]))
        return fisher_statistics(self._records, pulled, terms)

    def _record_statistics(self) -> None:
        """Function transforms cannot write buffers: an uncounted forward records the step's batch statistics here."""
        layers = self._oracle._statistics.layers
        if layers and layers[0].pending:
            with torch.no_grad():
                self._evaluate()

    def _functional_loss(self, parameters: dict[str, Tensor], inputs: Tensor, targets: Tensor) -> Tensor:
        objective = self._oracle.objective
        outputs = functional_call(objective.module, parameters, (inputs,))
        return objective.loss(outputs, targets, list(parameters.values()))
