"""K-FAC and EKFAC: kfac-pytorch's trajectories, the identities that define them, use in an ordinary loop."""

from __future__ import annotations

import copy
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import nn

from curvebench.errors import CurvebenchError
from curvebench.kernels import reference_kronecker as R
from curvebench.methods.ekfac_torch import EKFAC
from curvebench.methods.kfac_torch import KFAC

GOLDEN = Path(__file__).parents[1] / "golden" / "kfac"
BOTH = pytest.mark.parametrize("method", [KFAC, EKFAC])


def sgd(model: nn.Module, lr: float = 0.1) -> torch.optim.SGD:
    return torch.optim.SGD(model.parameters(), lr=lr)


def seeded(*layers: nn.Module) -> nn.Sequential:
    """A model in float64 whose weights do not depend on other tests."""
    model = nn.Sequential(*layers).double()
    generator = torch.Generator().manual_seed(0)
    for p in model.parameters():
        nn.init.normal_(p, std=0.5, generator=generator)
    return model


def data(*shape: int, seed: int = 1) -> torch.Tensor:
    return torch.randn(*shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


def half_squares(o: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
    return (o - y).square().sum(-1).mean() / 2


def weights(model: nn.Module) -> torch.Tensor:
    return torch.cat([p.detach().flatten() for p in model.parameters()])


# -- kfac-pytorch ------------------------------------------------------------------------------------------------------


def golden_model(problem: str) -> nn.Sequential:
    if problem == "mlp":
        return nn.Sequential(nn.Linear(5, 8), nn.Tanh(), nn.Linear(8, 3))
    return nn.Sequential(nn.Conv2d(2, 3, 3, padding=1), nn.BatchNorm2d(3), nn.Softplus(),
                         nn.Conv2d(3, 4, 3, stride=2, padding=(1, 0), bias=False), nn.Tanh(),
                         nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 3))  # fmt: skip


@pytest.mark.parametrize("name", ["mlp_eigen_every1", "mlp_inverse_every1", "conv_eigen_every1"])
def test_trajectories_of_kfac_pytorch(name: str) -> None:
    stored = np.load(GOLDEN / f"kfacpt_{name}.npz")
    meta = json.loads(str(stored["meta"]))
    model = golden_model(meta["problem"]).double()
    parameters = dict(model.named_parameters())
    with torch.no_grad():
        for key, p in parameters.items():
            p.copy_(torch.from_numpy(stored[f"init/{key}"]))
    base = torch.optim.SGD(model.parameters(), lr=meta["lr"], momentum=meta["momentum"])
    opt = KFAC(model, base=base, damping=meta["damping"], factor_decay=meta["factor_decay"],
               factor_every=meta["factor_update_steps"], inverse_every=meta["inv_update_steps"],
               kl_clip=meta["kl_clip"], solve=meta["method"], convention="kfac-pytorch")  # fmt: skip
    assert [layer.name for layer in opt.layers] == meta["layers"]
    for t in range(len(stored["x"])):
        opt.zero_grad()
        loss = F.cross_entropy(model(torch.from_numpy(stored["x"][t])), torch.from_numpy(stored["y"][t]))
        loss.backward()
        # The stored weights left the reference by the library's float32 eigh: 1e-5 over ten steps.
        assert float(loss.detach()) == pytest.approx(float(stored["loss"][t]), rel=1e-5)
        assert opt.precondition()
        for layer in meta["layers"]:
            for factor, letter in zip(opt.factors(layer), "AG", strict=True):
                expected = stored[f"{letter}/{layer}"][t]
                np.testing.assert_allclose(factor, expected, rtol=1e-11, atol=1e-13 * np.abs(expected).max())
            parts = [parameters[f"{layer}.weight"].grad.flatten(1)]  # type: ignore[union-attr]
            if f"{layer}.bias" in parameters:
                parts.append(parameters[f"{layer}.bias"].grad[:, None])  # type: ignore[index]
            exact = stored[f"pgrad_ref64/{layer}"][t]
            found = torch.cat(parts, 1).numpy()
            assert np.abs(found - exact).max() <= 1e-9 * np.abs(exact).max()
        for key, p in parameters.items():
            expected = stored[f"pgrad/{key}"][t]
            assert p.grad is not None
            # A bias in front of BatchNorm has no gradient but the library's rounding: measure it by its layer.
            size = np.abs(stored[f"pgrad/{key.replace('bias', 'weight')}"][t]).max()
            assert np.abs(p.grad.numpy() - expected).max() <= 1e-5 * size
        base.step()
        with torch.no_grad():  # go on from the stored weights, so that the comparison stays at rounding
            for key, p in parameters.items():
                expected = stored[f"param/{key}"][t]
                assert np.abs(p.numpy() - expected).max() <= 1e-5
                p.copy_(torch.from_numpy(expected))


def test_trajectory_left_to_itself_stays_near_the_library() -> None:
    stored = np.load(GOLDEN / "kfacpt_mlp_eigen_every1.npz")
    model = golden_model("mlp").double()
    with torch.no_grad():
        for key, p in model.named_parameters():
            p.copy_(torch.from_numpy(stored[f"init/{key}"]))
    opt = KFAC(model, base=sgd(model), damping=0.003, inverse_every=1, convention="kfac-pytorch")
    for x, y in zip(stored["x"], stored["y"], strict=True):
        opt.zero_grad()
        F.cross_entropy(model(torch.from_numpy(x)), torch.from_numpy(y)).backward()
        opt.step()
    for key, p in model.named_parameters():
        np.testing.assert_allclose(p.detach(), stored[f"param/{key}"][-1], rtol=1e-4, atol=1e-5)


def test_kl_clip_scales_all_layers_alike() -> None:
    x, y = data(8, 4), data(8, 2, seed=2)
    directions = []
    for clip in (None, 1e-4):
        model = seeded(nn.Linear(4, 5), nn.Tanh(), nn.Linear(5, 2))
        opt = KFAC(model, base=sgd(model, 0.3), kl_clip=clip)
        half_squares(model(x), y).backward()
        raw = [p.grad.clone() for p in model.parameters()]  # type: ignore[union-attr]
        opt.precondition()
        directions.append([p.grad.clone() for p in model.parameters()])  # type: ignore[union-attr]
    product = float(sum((g * p).sum() for g, p in zip(raw, directions[0], strict=True)))
    nu = min(1.0, (1e-4 / abs(product * 0.3**2)) ** 0.5)
    assert nu < 1
    for free, clipped in zip(*directions, strict=True):
        torch.testing.assert_close(clipped, nu * free)


# -- identities --------------------------------------------------------------------------------------------------------


def exact_block(
    model: nn.Module, layer: str, x: torch.Tensor, hessian: Callable[[torch.Tensor], torch.Tensor]
) -> np.ndarray:
    """``mean_rows J' H J`` for the weights (and bias as last column) of one layer, by full Jacobians."""
    named = {k: p.detach() for k, p in model.named_parameters()}
    keys = [f"{layer}.weight", *([f"{layer}.bias"] if f"{layer}.bias" in named else [])]

    def forward(values: dict[str, torch.Tensor]) -> torch.Tensor:
        outputs = torch.func.functional_call(model, {**named, **values}, (x,))
        return outputs.reshape(-1, outputs.shape[-1])

    jacobians = torch.func.jacrev(forward)({k: named[k] for k in keys})
    parts = [jacobians[keys[0]].flatten(3)] + [jacobians[k][..., None] for k in keys[1:]]
    J = torch.cat(parts, 3).flatten(2)  # [rows, C, o i]
    outputs = forward({})
    H = torch.stack([hessian(o) for o in outputs])
    block: np.ndarray = (torch.einsum("nca,ncd,ndb->ab", J, H, J) / len(outputs)).numpy()
    return block


def kron(opt: KFAC, layer: str) -> np.ndarray:
    A, G = opt.factors(layer)
    return np.kron(G.numpy(), A.numpy())


@pytest.mark.parametrize("shape", [(6, 4), (3, 5, 4)])
def test_deep_linear_nets_have_exact_blocks(shape: tuple[int, ...]) -> None:
    model = seeded(nn.Linear(4, 5), nn.Linear(5, 3, bias=False), nn.Linear(3, 2))
    x = data(*shape)
    opt = KFAC(model, base=sgd(model), fisher="type-2")
    outputs = model(x)
    opt.observe(outputs, likelihood="gaussian")
    half_squares(outputs, data(*shape[:-1], 2, seed=2)).backward()
    opt.precondition()
    for layer in ("0", "1", "2"):
        exact = exact_block(model, layer, x, lambda o: torch.eye(len(o), dtype=o.dtype))
        np.testing.assert_allclose(kron(opt, layer), exact, rtol=1e-10, atol=1e-12)


def test_batch_size_one_has_exact_blocks_in_a_nonlinear_net() -> None:
    model = seeded(nn.Linear(4, 5), nn.Tanh(), nn.Linear(5, 3))
    x = data(1, 4)
    opt = KFAC(model, base=sgd(model), fisher="type-2")
    outputs = model(x)
    opt.observe(outputs)
    F.cross_entropy(outputs, torch.tensor([1])).backward()
    opt.precondition()

    def softmax_hessian(o: torch.Tensor) -> torch.Tensor:
        p = o.softmax(-1)
        return torch.diag(p) - torch.outer(p, p)

    for layer in ("0", "2"):
        np.testing.assert_allclose(kron(opt, layer), exact_block(model, layer, x, softmax_hessian), atol=1e-13)


@pytest.mark.parametrize("reduction", ["mean", "sum"])
def test_empirical_factors_are_those_of_per_sample_gradients(reduction: str) -> None:
    model = seeded(nn.Linear(4, 5), nn.Tanh(), nn.Linear(5, 3))
    x, y = data(7, 4), torch.tensor([0, 1, 2, 0, 1, 2, 2])
    opt = KFAC(model, base=sgd(model), loss_reduction=reduction)
    F.cross_entropy(model(x), y, reduction=reduction).backward()
    opt.precondition()
    hidden = model[0](x).detach().requires_grad_()
    F.cross_entropy(model[2](model[1](hidden)), y, reduction="sum").backward()
    assert hidden.grad is not None
    A, G = opt.factors("0")
    np.testing.assert_allclose(A, R.input_factor(R.rows(x.numpy(), True)), rtol=1e-12)
    np.testing.assert_allclose(G, R.gradient_factor(hidden.grad.numpy()[:, None]), rtol=1e-12)


def test_convolution_of_one_position_is_a_linear_layer() -> None:
    linear, conv = seeded(nn.Linear(18, 3)), seeded(nn.Conv2d(2, 3, 3))
    x, y = data(5, 2, 3, 3), data(5, 3, seed=2)
    with torch.no_grad():
        conv[0].weight.copy_(linear[0].weight.view(3, 2, 3, 3))
        conv[0].bias.copy_(linear[0].bias)
    found = []
    for model, inputs in ((linear, x.flatten(1)), (conv, x)):
        opt = KFAC(model, base=sgd(model))
        half_squares(model(inputs).flatten(1), y).backward()
        opt.precondition()
        found.append([*opt.factors("0"), *(p.grad.flatten() for p in model.parameters())])  # type: ignore[union-attr]
    for a, b in zip(*found, strict=True):
        torch.testing.assert_close(a, b)


@pytest.mark.parametrize("solve", ["eigen", "inverse"])
def test_direction_is_the_inverse_of_the_damped_block(solve: str) -> None:
    model = seeded(nn.Linear(4, 3))
    opt = KFAC(model, base=sgd(model), damping=0.05, solve=solve)
    half_squares(model(data(6, 4)), data(6, 3, seed=2)).backward()
    W = torch.cat([model[0].weight.grad, model[0].bias.grad[:, None]], 1).numpy()
    opt.precondition()
    P = torch.cat([model[0].weight.grad, model[0].bias.grad[:, None]], 1).numpy()
    A, G = (X.numpy() for X in opt.factors("0"))
    root, split = 0.05**0.5, R.pi(A, G)
    expected = R.solve(A, G, W, 0.05) if solve == "eigen" else R.solve_factored(A, G, W, root * split, root / split)
    np.testing.assert_allclose(P, expected, rtol=1e-9)


def test_average_has_no_start_value() -> None:
    model = seeded(nn.Linear(4, 3))
    opt = KFAC(model, base=sgd(model, 1e-9), factor_decay=0.8)
    average, weight = None, 0.0
    for t in range(4):
        x = data(6, 4, seed=10 + t)
        opt.zero_grad()
        half_squares(model(x), data(6, 3, seed=2)).backward()
        opt.step()
        average, weight = R.ema(average, weight, R.input_factor(R.rows(x.numpy(), True)), 0.8)
    np.testing.assert_allclose(opt.factors("0")[0], average, rtol=1e-12)


def test_sampled_fisher_is_unbiased_for_the_gauss_newton_factor() -> None:
    torch.manual_seed(3)
    model = seeded(nn.Linear(3, 2))
    x = data(4000, 3)
    found = {}
    for fisher in ("mc", "type-2"):
        opt = KFAC(model, base=sgd(model), fisher=fisher)
        outputs = model(x)
        opt.observe(outputs, "categorical")
        opt.zero_grad()  # statistics are forgotten with the gradients: observe again
        outputs = model(x)
        opt.observe(outputs, "categorical")
        F.cross_entropy(outputs, torch.zeros(4000, dtype=torch.int64)).backward()
        opt.precondition()
        found[fisher] = opt.factors("0")[1]
        opt.detach()
    # Entries are means of 4000 products bounded by 1: five standard errors are 5 / sqrt(4000).
    assert float((found["mc"] - found["type-2"]).abs().max()) < 5 * 4000**-0.5
    assert not torch.equal(found["mc"], found["type-2"])


@pytest.mark.parametrize("layers", [(nn.Linear, (4, 3)), (nn.Conv2d, (2, 3, 3))])
def test_ekfac_trace_is_the_fisher_trace_also_across_bases(layers: tuple[Any, tuple[int, ...]]) -> None:
    kind, sizes = layers
    model = seeded(kind(*sizes), nn.Flatten())
    opt = EKFAC(model, base=sgd(model, 1e-9), inverse_every=2, factor_decay=0.7)
    average: Any = None
    weight = 0.0
    for t in range(4):
        x = data(5, 4, seed=20 + t) if kind is nn.Linear else data(5, 2, 5, 4, seed=20 + t)
        opt.zero_grad()
        outputs = model(x)
        y = data(*outputs.shape, seed=3)
        half_squares(outputs, y).backward()
        opt.step()
        g = (outputs - y).detach().numpy()
        if kind is nn.Linear:
            a, g = R.rows(x.numpy(), True), g[:, None]
        else:
            a, g = R.patches(x.numpy(), (3, 3), bias=True), R.output_rows(g.reshape(5, 3, 3, 2))
        average, weight = R.ema(average, weight, np.array(np.trace(R.fisher_block(a, g))), 0.7)
        assert float(opt.scaling("0").sum()) == pytest.approx(float(average), rel=1e-7)


def test_ekfac_is_exact_where_kfac_is() -> None:
    directions = []
    for method in (KFAC, EKFAC):
        model = seeded(nn.Linear(4, 3))
        opt = method(model, base=sgd(model))
        half_squares(model(data(1, 4)), data(1, 3, seed=2)).backward()
        opt.precondition()
        directions.append([p.grad for p in model.parameters()])
    for a, b in zip(*directions, strict=True):
        torch.testing.assert_close(a, b)


def test_ekfac_scaling_is_never_further_from_the_fisher_block_than_kfacs() -> None:
    model = seeded(nn.Linear(4, 5), nn.Tanh(), nn.Linear(5, 3))
    x, y = data(9, 4), torch.tensor([0, 1, 2, 0, 1, 2, 0, 1, 2])
    opt = EKFAC(model, base=sgd(model))
    F.cross_entropy(model(x), y).backward()
    opt.precondition()
    inner = model[1](model[0](x)).detach()
    outer = (model[2](inner).softmax(-1) - F.one_hot(y, 3)).detach()
    F_exact = R.fisher_block(R.rows(inner.numpy(), True), outer.numpy()[:, None])
    s = opt.layer_state["2"]
    Q = np.kron(s["QG"].numpy(), s["QA"].numpy())

    def near(diagonal: np.ndarray) -> float:
        return float(np.linalg.norm(F_exact - Q @ np.diag(diagonal.reshape(-1)) @ Q.T))

    products = np.outer(s["dG"].numpy(), s["dA"].numpy())
    np.testing.assert_allclose(s["S"].numpy().reshape(-1), np.diag(Q.T @ F_exact @ Q), atol=1e-14)
    assert near(s["S"].numpy()) < near(products)


# -- an ordinary loop --------------------------------------------------------------------------------------------------


def train(model: nn.Module, opt: Any, steps: range) -> list[float]:
    losses = []
    for t in steps:
        opt.zero_grad()
        outputs = model(data(8, 4, seed=t))
        if opt.fisher != "empirical":
            opt.observe(outputs, "gaussian")
        loss = half_squares(outputs, data(8, 3, seed=1000 + t))
        loss.backward()
        opt.step()
        losses.append(float(loss.detach()))
    return losses


@pytest.mark.parametrize("fisher", ["empirical", "mc"])
@BOTH
def test_state_dict_continues_with_the_same_bits(method: type[KFAC], fisher: str) -> None:
    def fresh() -> tuple[nn.Module, KFAC]:
        model = seeded(nn.Linear(4, 6), nn.Tanh(), nn.Linear(6, 3))
        base = torch.optim.Adam(model.parameters(), lr=0.01)
        return model, method(model, base=base, factor_every=2, inverse_every=3, fisher=fisher)

    model, opt = fresh()
    train(model, opt, range(5))
    other, resumed = fresh()
    train(other, resumed, range(2))
    saved = copy.deepcopy(opt.state_dict())
    other.load_state_dict(copy.deepcopy(model.state_dict()))
    resumed.load_state_dict(saved)
    train(model, opt, range(5, 11))
    train(other, resumed, range(5, 11))
    assert torch.equal(weights(model), weights(other))


def test_state_of_another_model_is_refused() -> None:
    model, other = seeded(nn.Linear(4, 3)), seeded(nn.Tanh(), nn.Linear(4, 3))
    opt = KFAC(other, base=sgd(other))
    train(other, opt, range(1))
    with pytest.raises(CurvebenchError, match="layers that this model has not: 1"):
        KFAC(model, base=sgd(model)).load_state_dict(opt.state_dict())


@BOTH
def test_accumulated_micro_batches_equal_one_batch(method: type[KFAC]) -> None:
    found = []
    for parts in (1, 4):
        model = seeded(nn.Linear(4, 5), nn.Tanh(), nn.Linear(5, 3))
        opt = method(model, base=sgd(model))
        x, y = data(8, 4), data(8, 3, seed=2)
        for xs, ys in zip(x.chunk(parts), y.chunk(parts), strict=True):
            (half_squares(model(xs), ys) / parts).backward()
        opt.step()
        found.append(weights(model))
    torch.testing.assert_close(*found)


def test_step_takes_a_closure_and_needs_a_gradient() -> None:
    model = seeded(nn.Linear(4, 3))
    opt = KFAC(model, base=sgd(model))
    with pytest.raises(CurvebenchError, match=r"no parameter has a gradient: call loss.backward\(\)"):
        opt.step()

    def closure() -> torch.Tensor:
        opt.zero_grad()
        loss = half_squares(model(data(6, 4)), data(6, 3, seed=2))
        loss.backward()
        return loss

    first, second = opt.step(closure), opt.step(closure)
    assert float(second.detach()) < float(first.detach())


def test_in_place_activations_and_evaluation_in_between_change_nothing() -> None:
    found = []
    for inplace in (False, True):
        model = seeded(nn.Conv2d(2, 3, 3, padding=1), nn.ReLU(inplace=inplace), nn.Flatten(), nn.Linear(48, 2))
        for fisher in ("empirical", "type-2"):
            opt = KFAC(model, base=sgd(model), fisher=fisher)
            outputs = model(data(3, 2, 4, 4))
            opt.observe(outputs, "gaussian")
            if inplace:
                with torch.no_grad():
                    model(data(3, 2, 4, 4, seed=9))
                model(data(3, 2, 4, 4, seed=9)) if fisher == "empirical" else None  # never differentiated
            half_squares(outputs, data(3, 2, seed=2)).backward()
            opt.step()
            opt.detach()
        found.append(weights(model))
    torch.testing.assert_close(*found)


def test_statistics_are_taken_only_when_they_are_due() -> None:
    model = seeded(nn.Linear(4, 3))
    opt = KFAC(model, base=sgd(model), factor_every=3)
    seen = []
    for t in range(7):
        before = opt.layer_state.get("0", {}).get("A")
        train(model, opt, range(t, t + 1))
        seen.append(opt.layer_state["0"]["A"] is not before)
    assert seen == [True, False, False, True, False, False, True]


def test_half_precision_parameters_have_float32_factors() -> None:
    model = nn.Linear(4, 3).to(torch.bfloat16)
    opt = KFAC(model, base=sgd(model))
    half_squares(model(data(6, 4).bfloat16()), data(6, 3, seed=2).bfloat16()).backward()
    opt.step()
    assert opt.factors("")[0].dtype == torch.float32
    assert model.weight.dtype == torch.bfloat16


def test_gradient_scaler() -> None:
    found = []
    for scale in (1.0, 1024.0):
        model = seeded(nn.Linear(4, 3))
        opt = KFAC(model, base=sgd(model))
        opt.loss_scale = scale
        (scale * half_squares(model(data(6, 4)), data(6, 3, seed=2))).backward()
        for p in model.parameters():
            p.grad /= scale
        opt.step()
        found.append(weights(model))
    torch.testing.assert_close(*found)


def test_shared_layers_can_be_expanded_like_a_sequence() -> None:
    class Twice(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layer = seeded(nn.Linear(4, 3))

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return torch.stack([self.layer(x[:, 0]), self.layer(x[:, 1])], 1)

    x, y = data(5, 2, 4), data(5, 2, 3, seed=2)
    for method in (KFAC, EKFAC):
        found = []
        for model in (Twice(), seeded(nn.Linear(4, 3))):
            opt = method(model, base=sgd(model), shared="expand")
            half_squares(model(x), y).backward()
            opt.step()
            found.append(weights(model))
        torch.testing.assert_close(*found)


def test_mean_over_rows_makes_tokens_samples() -> None:
    for method in (KFAC, EKFAC):
        found = []
        for flat in (False, True):
            model = seeded(nn.Linear(4, 3))
            opt = method(model, base=sgd(model), loss_terms="rows")
            x, y = data(5, 2, 4), data(5, 2, 3, seed=2)
            half_squares(model(x.flatten(0, 1) if flat else x), y.flatten(0, 1) if flat else y).backward()
            opt.step()
            found.append(weights(model))
        torch.testing.assert_close(*found)
