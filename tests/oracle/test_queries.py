"""Every query of both oracles against central differences, explicit matrices, and the other framework."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import tiny
import torch
import torch.nn.functional as F
from tiny import ALL, FRAMEWORKS, asker, dot, relative, shifted, tangent
from torch.func import functional_call

from curvebench.errors import CurvebenchError, UndeclaredQueryError
from curvebench.oracle.torch import TorchOracle
from curvebench.spec import Query

CASES = [("squared", 0.0), ("logistic", 0.3), ("mlp", 0.0), ("mlp", 0.3), ("conv", 0.3), ("norm", 0.0), ("twice", 0.3)]
COUPLED = {"norm"}  # BatchNorm: there is no gradient of one sample

each = pytest.mark.parametrize("framework", FRAMEWORKS)
cases = pytest.mark.parametrize(("name", "l2"), CASES)


@each
@cases
def test_gradient_is_the_slope_of_the_loss(framework: str, name: str, l2: float) -> None:
    oracle = asker(framework, name, l2)
    params, v, h = oracle.problem.parameters, tangent(oracle.problem), 1e-5
    difference = (oracle.ask("loss", shifted(params, h, v)) - oracle.ask("loss", shifted(params, -h, v))) / (2 * h)
    assert relative(dot(oracle.ask("gradient", params), v), difference) < 1e-8
    assert relative(oracle.ask("jvp", params, v), difference) < 1e-8


@each
@cases
def test_jvp_is_the_gradient_along_the_direction(framework: str, name: str, l2: float) -> None:
    oracle = asker(framework, name, l2)
    v = tangent(oracle.problem)
    assert relative(oracle.ask("jvp", v=v), dot(oracle.ask("gradient"), v)) < 1e-12


@each
@cases
def test_hvp_is_the_slope_of_the_gradient(framework: str, name: str, l2: float) -> None:
    oracle = asker(framework, name, l2)
    params, v, h = oracle.problem.parameters, tangent(oracle.problem), 1e-5
    above, below = (oracle.ask("gradient", shifted(params, s, v)) for s in (h, -h))
    difference = {n: (above[n] - below[n]) / (2 * h) for n in params}
    assert relative(oracle.ask("hvp", params, v), difference) < 1e-7


@each
@cases
def test_hvp_is_symmetric(framework: str, name: str, l2: float) -> None:
    oracle = asker(framework, name, l2)
    u, v = tangent(oracle.problem, 3), tangent(oracle.problem, 4)
    assert relative(dot(u, oracle.ask("hvp", v=v)), dot(v, oracle.ask("hvp", v=u))) < 1e-10


def gauss_newton(oracle: Any, l2: float) -> np.ndarray:
    """``J' H_out J + l2 I`` as a dense matrix ``[d, d]`` in the parameters' order, H_out by formulas in NumPy."""
    task, problem = oracle.task, oracle.problem
    names = list(problem.parameters)
    inputs, targets = task.batch(0)

    def outputs(*values: torch.Tensor) -> torch.Tensor:
        return functional_call(task.objective.module, dict(zip(names, values, strict=True)), (inputs,))

    live = tuple(p.detach().clone() for p in task.objective.module.parameters())
    jacobian = torch.autograd.functional.jacobian(outputs, live)
    out = outputs(*live).detach()
    j = torch.cat([part.reshape(out.numel(), -1) for part in jacobian], dim=1).numpy()
    n = len(targets)
    if problem.criterion == "squared":
        curvature = np.eye(n) / n
    elif problem.criterion == "logistic":
        p = torch.sigmoid(out).numpy()
        curvature = np.diag(p * (1 - p)) / n
    else:
        p = torch.softmax(out, -1).numpy()
        blocks = np.stack([np.diag(row) - np.outer(row, row) for row in p]) / n
        curvature = np.zeros((out.numel(), out.numel()))
        for i, block in enumerate(blocks):
            at = slice(i * p.shape[1], (i + 1) * p.shape[1])
            curvature[at, at] = block
    return j.T @ curvature @ j + l2 * np.eye(j.shape[1])


@each
@cases
def test_ggnvp_is_the_explicit_gauss_newton_matrix_times_the_vector(framework: str, name: str, l2: float) -> None:
    oracle = asker(framework, name, l2)
    v = tangent(oracle.problem)
    names = list(oracle.problem.parameters)
    expected = gauss_newton(asker("torch", name, l2), l2) @ np.concatenate([v[n].reshape(-1) for n in names])
    found = oracle.ask("ggnvp", v=v)
    assert relative(np.concatenate([np.asarray(found[n]).reshape(-1) for n in names]), expected) < 1e-11


@each
def test_ggnvp_differs_from_hvp_where_the_model_is_curved_and_equals_it_where_it_is_linear(framework: str) -> None:
    for name, same in (("mlp", False), ("logistic", True), ("squared", True)):
        oracle = asker(framework, name, 0.3)
        v = tangent(oracle.problem)
        assert (relative(oracle.ask("hvp", v=v), oracle.ask("ggnvp", v=v)) < 1e-11) == same


@each
@cases
def test_per_sample_gradients_are_each_samples_own_and_their_mean_is_the_gradient(
    framework: str, name: str, l2: float
) -> None:
    if name in COUPLED:
        pytest.skip("BatchNorm couples the samples")
    oracle = asker(framework, name, l2)
    rows = oracle.ask("per_sample_gradient")
    n = len(oracle.problem.train)
    assert {k: r.shape for k, r in rows.items()} == {k: (n, *p.shape) for k, p in oracle.problem.parameters.items()}
    assert relative({k: r.mean(0) for k, r in rows.items()}, oracle.ask("gradient")) < 1e-12
    assert relative({k: r.std(0) for k, r in rows.items()}, {k: 0 * r[0] for k, r in rows.items()}) > 1e-3
    torch_oracle = asker("torch", name, l2)
    inputs, targets = torch_oracle.task.batch(0)
    one = torch_oracle.oracle.at(batch=(inputs[4:5], targets[4:5])).gradient()
    assert relative({k: r[4] for k, r in rows.items()}, torch_oracle.names(one)) < 1e-12


@each
@cases
def test_layer_statistics_give_back_the_gradient_of_the_weights(framework: str, name: str, l2: float) -> None:
    """Sum over samples, positions and uses of outer(output gradient, input) = gradient of the mean loss in W."""
    oracle = asker(framework, name, l2)
    layers = oracle.ask("layer_statistics")
    gradient = oracle.ask("gradient")
    params = oracle.problem.parameters
    weights = [n for n in params if params[n].ndim > 1]
    assert sorted(f"{layer}.weight" for layer in layers) == sorted(weights)
    for layer, (inputs, slopes) in layers.items():
        assert len(inputs) == len(slopes) == (2 if name == "twice" else 1)
        weight = params[f"{layer}.weight"]
        total = np.zeros_like(weight)
        bias = np.zeros(len(weight))
        for x, g in zip(inputs, slopes, strict=True):
            assert len(x) == len(g) == oracle.problem.order().size
            assert g.shape[1] == len(weight), "[batch, out, ...]: one column per output of the layer"
            if weight.ndim == 4:
                stride = x.shape[-1] // g.shape[-1]
                columns = F.unfold(torch.tensor(np.array(x)), weight.shape[2:], padding=1, stride=stride).numpy()
                flat = g.reshape(*g.shape[:2], -1)
                total += np.einsum("bop,bip->oi", flat, columns).reshape(weight.shape)
                bias += flat.sum((0, 2))
            else:
                total += g.T @ x
                bias += g.sum(0)
        assert relative(total + l2 * weight, gradient[f"{layer}.weight"]) < 1e-11
        if f"{layer}.bias" in params:
            assert relative(bias + l2 * params[f"{layer}.bias"], gradient[f"{layer}.bias"]) < 1e-11


@cases
def test_torch_and_jax_give_the_same_answers(name: str, l2: float) -> None:
    left, right = asker("torch", name, l2), asker("jax", name, l2)
    v = tangent(left.problem)
    for query in ("loss", "gradient", "jvp", "hvp", "ggnvp", "per_sample_gradient", "layer_statistics"):
        if query == "per_sample_gradient" and name in COUPLED:
            continue
        direction = v if query in ("jvp", "hvp", "ggnvp") else None
        assert relative(left.ask(query, v=direction), right.ask(query, v=direction)) < 1e-11, query


@pytest.mark.parametrize(("framework", "name"), [("torch", "mlp"), ("torch", "norm"), ("jax", "mlp")])
def test_queries_that_share_a_point_answer_as_queries_alone(framework: str, name: str) -> None:
    """Whatever the order of asking and whatever else is announced."""
    oracle = asker(framework, name, 0.3 if name == "mlp" else 0.0)
    v = tangent(oracle.problem)
    vectors = {"jvp": v, "hvp": v, "ggnvp": v}
    queries = ["loss", "gradient", "jvp", "hvp", "ggnvp", "layer_statistics"]
    alone = {q: oracle.ask(q, v=vectors.get(q)) for q in queries}
    announced = [ALL, frozenset({Query.GRADIENT, Query.GGNVP}), frozenset({Query.HVP, Query.LAYER_STATISTICS})]
    for needs in announced if name == "mlp" else announced[:1]:
        answerable = [q for q in queries if q in ("loss", "gradient", "jvp") or Query(q) in needs]
        for order in (answerable, answerable[::-1])[framework == "jax" and needs != ALL :]:
            if framework == "torch":
                point = oracle.oracle.at(needs=needs)
                together = {q: oracle.answer(point, q, vectors.get(q)) for q in order}
            else:

                def everything(jaxed: Any, params: Any, order: list[str] = order, needs: Any = needs) -> Any:
                    point = jaxed.at(params, needs=needs)
                    return {q: getattr(point, q)(*([vectors[q]] if q in vectors else [])) for q in order}

                found = oracle.trace(everything)
                together = {q: oracle.plain(q, found[q]) for q in order}
            for q in order:
                assert relative(together[q], alone[q]) < 1e-12, (q, order)


@each
def test_a_point_may_be_elsewhere_or_on_another_batch(framework: str) -> None:
    oracle = asker(framework, "mlp", 0.3)
    params = shifted(oracle.problem.parameters, 0.1, tangent(oracle.problem))
    here, there = oracle.ask("gradient"), oracle.ask("gradient", params)
    assert relative(here, there) > 1e-3
    moved = asker("torch", "mlp", 0.3)
    with torch.no_grad():
        backup = [p.clone() for p in moved.oracle.parameters]
        for p, q in zip(moved.oracle.parameters, moved.tensors(params), strict=True):
            p.copy_(q)
    assert relative(moved.ask("gradient"), there) < 1e-12
    with torch.no_grad():
        for p, q in zip(moved.oracle.parameters, backup, strict=True):
            p.copy_(q)
    data = oracle.problem.train
    split = len(data) // 2
    if framework == "torch":
        halves = [
            oracle.names(
                oracle.oracle.at(batch=(torch.tensor(data.inputs[s]), torch.tensor(data.targets[s]))).gradient()
            )
            for s in (slice(split), slice(split, None))
        ]
    else:

        def on_halves(jaxed: Any, p: Any) -> Any:
            x, y = jaxed.batch
            return [jaxed.at(p, (x[s], y[s])).gradient() for s in (slice(split), slice(split, None))]

        halves = oracle.trace(on_halves)
    assert relative({n: (halves[0][n] + halves[1][n]) / 2 for n in here}, here) < 1e-12


# -- one forward per point ---------------------------------------------------------------------------------------------


def forwards(oracle: TorchOracle) -> list[int]:
    calls: list[int] = []
    oracle.objective.module.register_forward_hook(lambda *_: calls.append(1))
    return calls


@pytest.mark.parametrize("name", ["mlp", "norm"])
@pytest.mark.parametrize("elsewhere", [False, True])
def test_one_forward_serves_a_torch_point(name: str, elsewhere: bool) -> None:
    oracle = tiny.Torch(tiny.PROBLEMS[name](0.1))
    calls = forwards(oracle.oracle)
    v = tangent(oracle.problem)
    point = oracle.oracle.at(oracle.tensors(oracle.problem.parameters) if elsewhere else None)
    for query in ("gradient", "loss", "hvp", "ggnvp", "layer_statistics", "hvp", "gradient"):
        oracle.answer(point, query, v if query in ("hvp", "ggnvp") else None)
    assert len(calls) == 1
    oracle.ask("loss", needs=(Query.LOSS,))
    assert len(calls) == 2
    oracle.ask("gradient", needs=(Query.GRADIENT,))
    assert len(calls) == 3


@pytest.mark.parametrize(
    ("needs", "queries"),
    [
        (("gradient",), ("gradient", "loss")),
        (("gradient", "hvp"), ("gradient", "hvp", "hvp", "loss")),
        (("gradient", "ggnvp"), ("gradient", "ggnvp", "ggnvp", "loss")),
        (("ggnvp",), ("ggnvp", "loss")),
        (("loss",), ("loss", "loss")),
    ],
)
def test_one_forward_serves_a_jax_point(needs: tuple[str, ...], queries: tuple[str, ...]) -> None:
    """The model is traced once: XLA cannot run more forwards than the program has."""
    oracle = tiny.Jax(tiny.mlp(0.1))
    traced: list[int] = []
    apply = oracle.task.objective.apply

    def counting(*args: Any) -> Any:
        traced.append(1)
        return apply(*args)

    object.__setattr__(oracle.task.objective, "apply", counting)
    v = tangent(oracle.problem)

    def asked(jaxed: Any, params: Any) -> Any:
        point = jaxed.at(params, needs=[Query(need) for need in needs])
        return [getattr(point, q)(*([v] if q in ("hvp", "ggnvp") else [])) for q in queries]

    oracle.trace(asked)
    assert len(traced) == 1


# -- what may not be asked ---------------------------------------------------------------------------------------------

UNDECLARED = "the method asked for hvp but declares needs = [gradient, loss]: add 'hvp' to the card's needs"


@each
@pytest.mark.parametrize("query", [q.value for q in Query if q is not Query.LOSS_FUNCTION])
def test_an_undeclared_query_raises_and_is_not_counted(framework: str, query: str) -> None:
    oracle = {"torch": tiny.Torch, "jax": tiny.Jax}[framework](tiny.mlp(), ALL - {Query(query)})
    v = tangent(oracle.problem) if query in ("jvp", "hvp", "ggnvp") else None
    with pytest.raises(UndeclaredQueryError, match=f"the method asked for {query} but declares needs"):
        oracle.ask(query, v=v)
    assert sum(oracle.counts().values()) == 0


@each
def test_the_sentence_of_an_undeclared_query(framework: str) -> None:
    oracle = {"torch": tiny.Torch, "jax": tiny.Jax}[framework](tiny.mlp(), (Query.GRADIENT, Query.LOSS))
    with pytest.raises(UndeclaredQueryError) as caught:
        oracle.ask("hvp", v=tangent(oracle.problem))
    assert str(caught.value) == UNDECLARED


@each
@pytest.mark.parametrize("query", ["hvp", "ggnvp", "layer_statistics"])
def test_a_query_left_out_when_the_point_was_opened_raises_instead_of_answering_zero(
    framework: str, query: str
) -> None:
    oracle = asker(framework, "mlp")
    v = None if query == "layer_statistics" else tangent(oracle.problem)
    with pytest.raises(UndeclaredQueryError, match=rf"asked for {query} at a point opened with needs = \[gradient\]"):
        oracle.ask(query, v=v, needs=("gradient",))


@each
def test_the_bare_loss_must_be_declared(framework: str) -> None:
    if framework == "torch":
        with pytest.raises(UndeclaredQueryError, match="loss_function"):
            tiny.Torch(tiny.mlp(), (Query.GRADIENT,)).oracle.loss_function()
    else:
        with pytest.raises(UndeclaredQueryError, match="loss_function"):
            tiny.Jax(tiny.mlp(), (Query.GRADIENT,)).trace(lambda oracle, params: oracle.loss_function()(params))


def test_a_torch_oracle_without_a_batch_says_so() -> None:
    task = tiny.Torch(tiny.mlp()).task
    with pytest.raises(CurvebenchError, match="call begin_step first"):
        TorchOracle(task.objective, ALL).loss()


@each
def test_the_bare_loss_is_the_objective(framework: str) -> None:
    oracle = asker(framework, "mlp", 0.3)
    if framework == "torch":
        value = oracle.oracle.loss_function()()
        assert value.requires_grad
        assert relative(float(value.detach()), oracle.ask("loss")) == 0
    else:
        value = oracle.trace(lambda jaxed, params: jaxed.loss_function()(params))
        assert relative(value, oracle.ask("loss")) < 1e-15


# -- queries change nothing --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["mlp", "norm"])
@pytest.mark.parametrize("elsewhere", [False, True])
def test_queries_never_change_parameters_gradients_or_buffers(name: str, elsewhere: bool) -> None:
    oracle = tiny.Torch(tiny.PROBLEMS[name](0.1))
    module = oracle.task.objective.module
    before = {k: t.clone() for k, t in module.state_dict().items()}
    v = tangent(oracle.problem)
    for query in ("loss", "gradient", "jvp", "hvp", "ggnvp", "layer_statistics"):
        oracle.ask(
            query, oracle.problem.parameters if elsewhere else None, v if query in ("jvp", "hvp", "ggnvp") else None
        )
    after = module.state_dict()
    assert all(torch.equal(before[k], after[k]) for k in before)
    assert all(p.grad is None and p.requires_grad for p in module.parameters())
    assert module.training


def test_answers_of_loss_and_gradient_carry_a_graph_only_when_curvature_was_announced() -> None:
    oracle = tiny.Torch(tiny.mlp())
    assert not oracle.oracle.at().loss().requires_grad
    assert all(g.requires_grad for g in oracle.oracle.at().gradient())
    assert not any(g.requires_grad for g in oracle.oracle.at(needs=(Query.GRADIENT,)).gradient())
    assert not any(h.requires_grad for h in oracle.oracle.at().hvp(oracle.tensors(tangent(oracle.problem))))


@pytest.mark.parametrize("framework", FRAMEWORKS)
def test_on_every_device_the_answers_are_the_cpus(framework: str, device: str) -> None:
    made = {"torch": tiny.Torch, "jax": tiny.Jax}[framework]
    here = asker(framework, "conv", 0.3) if device == "cpu" else made(tiny.conv(0.3), device=device)
    reference = asker("torch", "conv", 0.3)
    v = tangent(reference.problem)
    for query, direction in (
        ("loss", None),
        ("gradient", None),
        ("hvp", v),
        ("ggnvp", v),
        ("per_sample_gradient", None),
    ):
        assert relative(here.ask(query, v=direction), reference.ask(query, v=direction)) < 1e-9, query
