"""Sampled and type-2 Fisher matrices in the harness: exact blocks, the ledger, and two libraries as second opinions."""

from __future__ import annotations

import warnings
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from curvebench.errors import CurvebenchError
from curvebench.kernels import reference_kronecker as R
from curvebench.methods import resolve
from curvebench.methods.ekfac_torch import EKFAC
from curvebench.methods.kfac_torch import KFAC
from curvebench.oracle import ledger
from curvebench.oracle.torch import Objective, TorchOracle
from curvebench.procedures.conformance import STEPS, _Lab, conformance
from curvebench.spec import Query
from curvebench.tasks import toy
from curvebench.tasks.criteria_torch import CRITERIA
from curvebench.tasks.problem import LIKELIHOODS as OF_CRITERION

LIKELIHOODS = {c: name for c, name in OF_CRITERION.items() if name != "none"}
NEEDS = frozenset({Query.GRADIENT, Query.LAYER_STATISTICS, Query.GGNVP})
each_criterion = pytest.mark.parametrize("criterion", list(LIKELIHOODS))


def seeded(*layers: nn.Module) -> nn.Sequential:
    model = nn.Sequential(*layers).double()
    generator = torch.Generator().manual_seed(0)
    for p in model.parameters():
        nn.init.normal_(p, std=0.5, generator=generator)
    return model


def data(*shape: int, seed: int = 1) -> Tensor:
    return torch.randn(*shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


def targets(criterion: str, n: int, outputs: int) -> Tensor:
    if LIKELIHOODS[criterion] == "categorical":
        return torch.arange(n) % outputs
    values = data(n, outputs, seed=2)
    return {"logistic": values.sign(), "bernoulli": values.sigmoid()}.get(criterion, values)


def harness(model: nn.Module, criterion: str, x: Tensor, outputs: int, draws: str = "reference") -> TorchOracle:
    """A counting oracle at a batch of ``x``."""
    oracle = TorchOracle(Objective(model, CRITERIA[criterion], LIKELIHOODS[criterion]), NEEDS, 5, draws)
    oracle.begin_step(0, (x, targets(criterion, len(x), outputs)))
    return oracle


def prepared(model: nn.Module, oracle: TorchOracle, method: type[KFAC] = KFAC, **options: Any) -> KFAC:
    opt = method(model, lr=0.1, **options)
    opt.oracle = oracle
    opt.precondition()
    return opt


def exact_block(oracle: TorchOracle, layer: str) -> np.ndarray:
    """The layer's block of the mean loss's Gauss-Newton matrix, bias last, by products with unit vectors."""
    named = dict(zip(oracle.names, oracle.parameters, strict=True))
    keys = [k for k in (f"{layer}.weight", f"{layer}.bias") if k in named]
    point = oracle.at(needs=(Query.GGNVP,))
    columns = []
    for key in keys:
        for k in range(named[key].numel()):
            v = {n: torch.zeros_like(p) for n, p in named.items()}
            v[key].view(-1)[k] = 1.0
            product = dict(zip(oracle.names, point.ggnvp(list(v.values())), strict=True))
            columns.append(torch.cat([product[name].flatten() for name in keys]))
    block = torch.stack(columns, 1).detach().numpy()
    o, i = named[keys[0]].flatten(1).shape
    order = [r * i + c for r in range(o) for c in range(i)]
    if len(keys) == 2:  # from [weights, biases] to the rows of [W, b]
        order = [k for r in range(o) for k in [*range(r * i, (r + 1) * i), o * i + r]]
    return np.asarray(block[np.ix_(order, order)])


def kron(opt: KFAC, layer: str) -> np.ndarray:
    A, G = opt.factors(layer)
    return np.kron(G.numpy(), A.numpy())


# -- exact blocks ------------------------------------------------------------------------------------------------------


def test_deep_linear_nets_have_exact_blocks_in_the_harness() -> None:
    """Squared loss, where the Hessian in the outputs is the same for all samples: G kron A is the block."""
    model = seeded(nn.Linear(4, 5), nn.Linear(5, 3, bias=False), nn.Linear(3, 2))
    oracle = harness(model, "squared", data(7, 4), 2)
    opt = prepared(model, oracle, fisher="type-2")
    for layer in ("0", "1", "2"):
        np.testing.assert_allclose(kron(opt, layer), exact_block(oracle, layer), rtol=1e-10, atol=1e-13)


@each_criterion
def test_batch_size_one_has_exact_blocks_in_the_harness(criterion: str) -> None:
    model = seeded(nn.Linear(4, 5), nn.Tanh(), nn.Linear(5, 3))
    oracle = harness(model, criterion, data(1, 4), 3)
    opt = prepared(model, oracle, fisher="type-2")
    for layer in ("0", "2"):
        np.testing.assert_allclose(kron(opt, layer), exact_block(oracle, layer), rtol=1e-10, atol=1e-13)


def test_criteria_that_are_no_mean_of_a_likelihood_are_refused() -> None:
    model = seeded(nn.Linear(4, 3))
    for criterion, likelihood, message in (
        (CRITERIA["quartic-norm"], "none", "no negative log-likelihood"),
        (CRITERIA["quartic-norm"], "gaussian", "not the mean over terms"),
        (CRITERIA["mean"], "gaussian", "not the mean over terms"),
        (lambda o, y: F.cross_entropy(o, y, weight=torch.tensor([1.0, 2.0, 3.0]).double()), "categorical", "not the"),
        (lambda o, y: 0.4 * CRITERIA["squared"](o, y), "gaussian", "not the mean over terms"),
    ):
        oracle = TorchOracle(Objective(model, criterion, likelihood), NEEDS, 5)
        y = torch.arange(5) % 3 if likelihood == "categorical" else data(5, 3, seed=2)
        oracle.begin_step(0, (data(5, 4), y))
        with pytest.raises(CurvebenchError, match=message):
            oracle.at().layer_statistics("mc")


@each_criterion
@pytest.mark.parametrize("layers", ["linear", "conv"])
def test_ekfac_scaling_is_the_diagonal_of_the_exact_block(criterion: str, layers: str) -> None:
    """Whatever the batch and the weight sharing: S = diag(Q' F Q), so its sum is the block's trace."""
    if layers == "linear":
        model, x = seeded(nn.Linear(4, 3), nn.Tanh(), nn.Linear(3, 2)), data(6, 4)
    else:
        model = seeded(nn.Conv2d(1, 2, 2, stride=2), nn.Tanh(), nn.Flatten(), nn.Linear(8, 2))
        x = data(6, 1, 4, 5)
    oracle = harness(model, criterion, x, 2)
    opt = prepared(model, oracle, EKFAC, fisher="type-2")
    state = opt.layer_state["0"]
    Q = np.kron(state["QG"].numpy(), state["QA"].numpy())
    exact = np.diag(Q.T @ exact_block(oracle, "0") @ Q)
    np.testing.assert_allclose(state["S"].numpy().reshape(-1), exact, rtol=1e-9, atol=1e-13)


def test_language_model_outputs_and_ignored_targets() -> None:
    """Classes last or second; a target of -100 is no term: at one counted term the block is exact."""

    class Second(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return x.transpose(1, 2)

    def classes_last(o: Tensor, y: Tensor) -> Tensor:
        return F.cross_entropy(o.flatten(0, 1), y.flatten())

    y = torch.full((2, 3), -100)
    y[1, 2] = 1
    for criterion, tail in ((classes_last, ()), (F.cross_entropy, (Second(),))):
        model = seeded(nn.Linear(4, 5), *tail)
        oracle = TorchOracle(Objective(model, criterion, "categorical"), NEEDS, 5, "reference")
        oracle.begin_step(0, (data(2, 3, 4), y))
        opt = prepared(model, oracle, fisher="type-2")
        a = R.rows(data(2, 3, 4).numpy(), True).reshape(-1, 5)
        # A is a mean over all rows, G over the counted term: the block of that row is G kron its own a a'.
        np.testing.assert_allclose(opt.factors("0")[0], a.T @ a / 6, rtol=1e-12)
        np.testing.assert_allclose(np.kron(opt.factors("0")[1], np.outer(a[5], a[5])), exact_block(oracle, "0"),
                                   rtol=1e-10, atol=1e-14)  # fmt: skip


def test_classes_that_cannot_be_told_are_refused() -> None:
    model = seeded(nn.Linear(4, 3))
    oracle = TorchOracle(Objective(model, lambda o, y: o.mean(), "categorical"), NEEDS, 5)
    oracle.begin_step(0, (data(2, 3, 4), torch.zeros(2, 3, 3, dtype=torch.int64)))
    with pytest.raises(CurvebenchError, match=r"outputs \[2, 3, 3\] and targets \[2, 3, 3\]: the classes must be"):
        oracle.at().layer_statistics("mc")


# -- sampled targets ---------------------------------------------------------------------------------------------------


@each_criterion
def test_sampled_factors_are_unbiased(criterion: str) -> None:
    """At one sample repeated n times, G is a mean of n independent outer products with expectation ``G (type-2)``.

    Bound: five standard errors, from the empirical variance of an entry's n products.
    """
    n = 4000
    model = seeded(nn.Linear(3, 4), nn.Tanh(), nn.Linear(4, 3))
    oracle = harness(model, criterion, data(1, 3).repeat(n, 1), 3)
    found = {fisher: prepared(model, oracle, fisher=fisher).factors("0")[1] for fisher in ("mc", "type-2")}
    (g,) = oracle.at(fisher="mc").layer_statistics("mc")["0"].columns[0]  # type: ignore[union-attr]
    terms = 3 * n if criterion in {"squared", "logistic"} else n
    products = torch.einsum("no,np->nop", g, g) * (n / terms)
    torch.testing.assert_close(products.mean(0), found["mc"])
    error = (found["mc"] - found["type-2"]).abs() / (products.std(0) / n**0.5)
    assert float(error.max()) < 5
    assert float(error.max()) > 0


def test_probes_come_from_the_oracle() -> None:
    """The same step draws the same bits, another step others; type-2 draws nothing."""
    model = seeded(nn.Linear(3, 4), nn.Tanh(), nn.Linear(4, 3))
    oracle = harness(model, "cross-entropy", data(20, 3), 3)
    first = prepared(model, oracle, fisher="mc").factors("0")[1]
    assert oracle.counts[ledger.DRAWS] == 20
    assert torch.equal(prepared(model, oracle, fisher="mc").factors("0")[1], first)
    oracle.begin_step(1, oracle.batch)  # type: ignore[arg-type]
    assert not torch.equal(prepared(model, oracle, fisher="mc").factors("0")[1], first)
    drawn = oracle.counts[ledger.DRAWS]
    prepared(model, oracle, fisher="type-2")
    assert oracle.counts[ledger.DRAWS] == drawn == 60


# -- the ledger --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("fisher", "backwards"), [("empirical", 0), ("mc", 1), ("type-2", 3)])
def test_every_backward_of_its_own_is_counted(fisher: str, backwards: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Against a counter in autograd that knows nothing of the ledger, over seven steps with factors every third."""
    lab = _Lab(resolve("kfac"), "kfac", "torch", "cpu", "float64")
    engine = lab.engine(toy.classifier(), {"factor_every": 3, "fisher": fisher})
    seen = {"all": 0}
    differentiate = torch.autograd.grad

    def grad(*args: Any, **more: Any) -> Any:
        seen["all"] += not isinstance(args[1], torch.Tensor)  # the criterion alone is differentiated in one tensor
        return differentiate(*args, **more)

    monkeypatch.setattr(torch.autograd, "grad", grad)
    for step in range(7):
        engine.step(step, float("inf"))
    counts = ledger.as_dict(engine.counts())
    assert counts["gradient"] == 7
    assert counts["layer_statistics"] == 3 * (1 + backwards)
    assert counts["samples"] == 16 * (7 + 3 * (1 + backwards))
    assert counts["draws"] == (3 * 16 if fisher == "mc" else 0)
    assert seen["all"] == 7 + 3 * backwards, "one backward a step, and those that the ledger adds"


def test_the_order_of_asking_and_what_a_point_announces() -> None:
    model = seeded(nn.Linear(3, 4), nn.Tanh(), nn.Linear(4, 3))
    oracle = harness(model, "cross-entropy", data(5, 3), 3)
    needs = (Query.GRADIENT, Query.LAYER_STATISTICS)
    unannounced = oracle.at(needs=needs)
    unannounced.gradient()
    with pytest.raises(CurvebenchError, match=r"open the point with at\(fisher='type-2'\)"):
        unannounced.layer_statistics("type-2")
    first, second = oracle.at(needs=needs), oracle.at(needs=needs, fisher="type-2")
    before = first.layer_statistics("type-2")["0"]
    first.gradient()
    second.gradient()
    after = second.layer_statistics("type-2")["0"]
    assert second.layer_statistics("type-2")["0"] is after, "an answer asked again is not computed again"
    assert len(second.layer_statistics()["0"].output_gradients) == 1
    for a, b in zip(before.columns, after.columns, strict=True):  # type: ignore[union-attr]
        assert torch.equal(a[0], b[0])
    with pytest.raises(ValueError, match="fisher = 'exact': must be one of 'empirical', 'mc', 'type-2'"):
        oracle.at(needs=needs).layer_statistics("exact")


@pytest.mark.parametrize("name", ["kfac", "ekfac"])
@pytest.mark.parametrize("fisher", ["mc", "type-2"])
def test_runs_in_the_harness(name: str, fisher: str) -> None:
    """Training with each Fisher matrix: the loss falls, the same seed gives the same bits."""
    lab = _Lab(resolve(name), name, "torch", "cpu", "float64")
    runs = [lab.run(toy.classifier(), {"fisher": fisher}) for _ in range(2)]
    assert runs[0].loss == runs[1].loss
    assert runs[0].loss[-1] < 0.5 * runs[0].loss[0]
    assert runs[0].consumed["step"] == STEPS


def test_conformance_of_cards_is_unchanged_by_the_option() -> None:
    assert [f for f in conformance(resolve("kfac"), "kfac", "torch") if not f.holds] == []


# -- second opinions ---------------------------------------------------------------------------------------------------


def second_opinion(criterion: str) -> tuple[nn.Sequential, TorchOracle, nn.Module, Tensor, Tensor]:
    """A net with a convolution, its oracle, and the criterion as a module, scaled to the library's mean."""
    outputs = 3
    model = seeded(nn.Conv2d(1, 2, 2, stride=2), nn.Tanh(), nn.Flatten(), nn.Linear(8, 4), nn.Tanh(), nn.Linear(4, 3))
    x = data(6, 1, 4, 5)
    oracle = harness(model, criterion, x, outputs)
    loss = nn.CrossEntropyLoss() if criterion == "cross-entropy" else nn.MSELoss()
    assert oracle.batch is not None
    return model, oracle, loss, x, oracle.batch[1]


def test_outputs_without_a_class_dimension() -> None:
    """The toy least squares has outputs [batch]: its block is the Hessian A'A / n."""
    lab = _Lab(resolve("kfac"), "kfac", "torch", "cpu", "float64")
    engine = lab.engine(toy.quadratic(), {"fisher": "type-2"})
    engine.step(0, float("inf"))
    a = toy.quadratic().train.inputs
    np.testing.assert_allclose(kron(engine.method.optimizer, "0"), a.T @ a / len(a), rtol=1e-10)


@pytest.mark.parametrize("criterion", ["squared", "cross-entropy"])
def test_curvlinops_agrees(criterion: str) -> None:
    """``KFACLinearOperator`` (type-2, expand): products with random vectors to 1e-10."""
    curvlinops = pytest.importorskip("curvlinops", reason="curvlinops-for-pytorch is a package of the dev extra")
    model, oracle, loss, x, y = second_opinion(criterion)
    opt = prepared(model, oracle, fisher="type-2")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        operator = curvlinops.KFACLinearOperator(
            model, loss, list(model.parameters()), [(x, y)], fisher_type="type-2", kfac_approx="expand",
            separate_weight_and_bias=False, check_deterministic=False,
        )  # fmt: skip
        v = [data(*p.shape, seed=7 + k) for k, p in enumerate(model.parameters())]
        theirs = operator @ v
    # F.mse_loss is (o - y)^2 where ours is half of it: its Hessian is twice ours.
    scale = 2.0 if criterion == "squared" else 1.0
    for k, layer in enumerate(("0", "3", "5")):
        A, G = opt.factors(layer)
        V = torch.cat([v[2 * k].flatten(1), v[2 * k + 1][:, None]], 1)
        found = scale * G @ V @ A
        expected = torch.cat([theirs[2 * k].flatten(1), theirs[2 * k + 1][:, None]], 1)
        torch.testing.assert_close(found, expected, rtol=1e-10, atol=1e-10 * float(expected.abs().max()))


@pytest.mark.parametrize("criterion", ["squared", "cross-entropy"])
def test_backpack_agrees(criterion: str) -> None:
    """``KFLR`` is type 2 with the bias apart: its weight factors are our A and G without the bias' row.

    Linear layers alone: over the positions of a convolution the library sums g before its outer product.
    """
    backpack = pytest.importorskip("backpack", reason="backpack-for-pytorch is a package of the dev extra")
    from backpack.extensions import KFLR

    model, oracle, loss, x, y = second_opinion(criterion)
    opt = prepared(model, oracle, fisher="type-2")
    theirs: nn.Module = backpack.extend(model)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        with backpack.backpack(KFLR()):
            backpack.extend(loss)(theirs(x), y).backward()
    scale = 2.0 if criterion == "squared" else 1.0
    for name in ("3", "5"):
        A, G = opt.factors(name)
        module = model.get_submodule(name)
        first, second = module.weight.kflr  # type: ignore[union-attr]
        n = module.weight[0].numel()  # type: ignore[index]
        found = scale * torch.kron(G, A[:n, :n].contiguous())
        torch.testing.assert_close(found, torch.kron(first, second), rtol=1e-10, atol=1e-12)
