"""MKOR: the released code's stored runs, state, resets, half precision, bad input."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from curvebench.errors import CurvebenchError, HyperparameterError
from curvebench.kernels import reference_kronecker as R
from curvebench.methods import resolve
from curvebench.methods.mkor_torch import MKOR
from curvebench.procedures.conformance import conformance

GOLDEN = Path(__file__).parents[1] / "golden" / "mkor"


def sgd(model: nn.Module, lr: float = 0.1) -> torch.optim.SGD:
    return torch.optim.SGD(model.parameters(), lr=lr)


def data(*shape: int, seed: int = 1) -> torch.Tensor:
    return torch.randn(*shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


def seeded(*layers: nn.Module) -> nn.Sequential:
    model = nn.Sequential(*layers).double()
    generator = torch.Generator().manual_seed(0)
    for p in model.parameters():
        nn.init.normal_(p, std=0.5, generator=generator)
    return model


def weights(model: nn.Module) -> torch.Tensor:
    return torch.cat([p.detach().flatten() for p in model.parameters()])


def matrix(layer: nn.Linear) -> np.ndarray:
    parts = [layer.weight.grad] + ([layer.bias.grad[:, None]] if layer.bias is not None else [])  # type: ignore[index]
    return torch.cat(parts, 1).numpy()  # type: ignore[arg-type]


def train(model: nn.Module, opt: MKOR, steps: range) -> None:
    for t in steps:
        opt.zero_grad()
        (model(data(8, 4, seed=t)) - data(8, 3, seed=1000 + t)).square().sum(1).mean().backward()
        opt.step()


# -- the released code -------------------------------------------------------------------------------------------------


def golden_model(stored: Any) -> nn.Sequential:
    model = nn.Sequential(nn.Linear(8, 6), nn.Tanh(), nn.Linear(6, 4, bias=False)).double()
    with torch.no_grad():
        for p, key in zip(model.parameters(), ("W1", "b1", "W2"), strict=True):
            p.copy_(torch.from_numpy(stored[key]))
    return model


@pytest.mark.parametrize("name", ["fixed_f64", "fixed_f64_invfreq3_warm2"])
def test_factors_and_gradients_of_the_released_code(name: str) -> None:
    stored = np.load(GOLDEN / f"{name}.npz")
    model = golden_model(stored)
    opt = MKOR(model, base=sgd(model), inverse_every=int(stored["inv_freq"]),
               warmup_steps=int(stored["warmup_steps"]), clip=float(stored["clip"]))  # fmt: skip
    micro, batch = stored["X"].shape[1:3]
    for t in range(10):
        opt.zero_grad()
        for x, c in zip(stored["X"][t], stored["C"][t], strict=True):
            ((model(torch.from_numpy(x)) * torch.from_numpy(c)).sum() / (batch * micro)).backward()
        assert opt.precondition()
        for key, layer in (("L1", "0"), ("L2", "2")):
            JA, JG = opt.factors(layer)
            np.testing.assert_allclose(JA, stored[f"{key}_AA"][t], atol=1e-13)
            np.testing.assert_allclose(JG, stored[f"{key}_GG"][t], atol=1e-13)
            np.testing.assert_allclose(matrix(model.get_submodule(layer)), stored[f"{key}_gfin"][t], atol=1e-13)  # type: ignore[arg-type]


def test_sequences_follow_the_released_code() -> None:
    stored = np.load(GOLDEN / "linear3d_f64.npz")
    model = nn.Linear(7, 3).double()
    with torch.no_grad():
        model.weight.copy_(torch.from_numpy(stored["W"]))
        model.bias.copy_(torch.from_numpy(stored["b"]))
    opt = MKOR(model, base=sgd(model), inverse_every=1)
    for t in range(5):
        opt.zero_grad()
        ((model(torch.from_numpy(stored["X"][t])) * torch.from_numpy(stored["C"][t])).sum() / 20).backward()
        opt.precondition()
        JA, JG = opt.factors("")
        np.testing.assert_allclose(JA, stored["AA"][t], atol=1e-13)
        np.testing.assert_allclose(JG, stored["GG"][t], atol=1e-13)
        np.testing.assert_allclose(matrix(model), stored["gfin"][t], atol=1e-13)


def test_float32_and_half_factors_stay_near_float64() -> None:
    stored = np.load(GOLDEN / "fixed_f64.npz")
    for dtype, bound in ((torch.float32, 2e-7), (torch.float16, 2.5e-3), (torch.bfloat16, 2e-2)):
        model = golden_model(stored).float()
        opt = MKOR(model, base=sgd(model), inverse_every=1, factor_dtype=dtype)
        for t in range(10):
            opt.zero_grad()
            outputs = model(torch.from_numpy(stored["X"][t, 0]).float())
            ((outputs * torch.from_numpy(stored["C"][t, 0]).float()).sum() / 16).backward()
            opt.precondition()
        JA, JG = opt.factors("0")
        assert JA.dtype == dtype
        assert np.abs(JA.double().numpy() - stored["L1_AA"][-1]).max() < bound
        assert np.abs(JG.double().numpy() - stored["L1_GG"][-1]).max() < bound


def test_training_run_equals_the_definition() -> None:
    """Ten steps with SGD against the rule written out in NumPy, inverse factors every second step."""
    model = seeded(nn.Linear(4, 3))
    W = np.concatenate([model[0].weight.detach().numpy(), model[0].bias.detach().numpy()[:, None]], 1)
    opt = MKOR(model, base=sgd(model, 0.05), inverse_every=2)
    train(model, opt, range(10))
    JA, JG = np.eye(5), np.eye(3)
    for t in range(10):
        a, y = R.rows(data(8, 4, seed=t).numpy(), True)[:, 0], data(8, 3, seed=1000 + t).numpy()
        g = 2 * (a @ W.T - y)
        if t % 2 == 0 and t > 0:
            JA, JG = R.rank_one(JA, a.mean(0), "code"), R.rank_one(JG, g.mean(0), "code")
        dW = g.T @ a / 8
        W = W - 0.05 * R.rescaled(dW, JG @ dW @ JA, True)
    np.testing.assert_allclose(model[0].weight.detach(), W[:, :4], rtol=1e-11)
    np.testing.assert_allclose(model[0].bias.detach(), W[:, 4], rtol=1e-11)


@pytest.mark.parametrize(("rule", "factor"), [("code", 0.5), ("ema", 1.0)])
def test_accumulation_divides_twice_only_where_the_code_does(rule: str, factor: float) -> None:
    found = []
    for parts in (1, 2):
        model = seeded(nn.Linear(4, 3))
        opt = MKOR(model, base=sgd(model), inverse_every=1, rule=rule, reset="blend")
        for x, y in zip(data(8, 4).chunk(parts), data(8, 3, seed=2).chunk(parts), strict=True):
            ((model(x) - y).square().sum(1).mean() / parts).backward()
        (passes,) = opt._standalone.at(()).layer_statistics().values()
        found.append([v.clone() for v in opt._vectors(opt.layers[0], passes)])
    torch.testing.assert_close(found[1][0], found[0][0])
    torch.testing.assert_close(found[1][1], factor * found[0][1])


def test_sums_and_means_of_the_loss_give_the_same_factors() -> None:
    found = []
    for reduction in ("mean", "sum"):
        model = seeded(nn.Conv2d(2, 3, 3), nn.Flatten(), nn.Linear(12, 2))
        opt = MKOR(model, base=sgd(model), inverse_every=1, reset="blend", loss_reduction=reduction)
        loss = model(data(5, 2, 4, 4)).square().sum()
        (loss / 5 if reduction == "mean" else loss).backward()
        opt.precondition()
        found.append([*opt.factors("0"), *opt.factors("2")])
    for a, b in zip(*found, strict=True):
        torch.testing.assert_close(a, b)


def test_convolution_uses_mean_patches() -> None:
    model = seeded(nn.Conv2d(2, 3, 3, padding=1, stride=2))
    opt = MKOR(model, base=sgd(model), inverse_every=1, reset="blend")
    x, c = data(4, 2, 5, 6), data(4, 3, 3, 3, seed=2)
    ((model(x) * c).sum() / 4).backward()
    opt.precondition()
    JA, JG = opt.factors("0")
    a = R.patches(x.numpy(), (3, 3), (2, 2), (1, 1), bias=True).mean((0, 1))
    np.testing.assert_allclose(JA, R.rank_one(np.eye(19), a, "code"), rtol=1e-9, atol=1e-12)
    np.testing.assert_allclose(JG, R.rank_one(np.eye(3), c.numpy().mean((0, 2, 3)), "code"), rtol=1e-9, atol=1e-12)


# -- resets ------------------------------------------------------------------------------------------------------------


def test_first_update_is_the_identity_only_with_identity_resets() -> None:
    for reset, expected in (("identity", True), ("blend", False)):
        model = seeded(nn.Linear(4, 3))
        opt = MKOR(model, base=sgd(model), reset=reset)
        train(model, opt, range(1))
        assert torch.equal(opt.factors("0")[0], torch.eye(5, dtype=torch.float64)) is expected


def grown(reset: str, large: str) -> MKOR:
    """One step of rule ema whose old factor has grown to 1.95 in a direction that this step does not see."""
    model = seeded(nn.Linear(2, 2, bias=False))
    opt = MKOR(model, base=sgd(model), inverse_every=1, rule="ema", reset=reset)
    eye = torch.eye(2, dtype=torch.float64)
    big = torch.diag(torch.tensor([1.0, 1.95 if reset == "identity" else 2.5], dtype=torch.float64))
    opt.layer_state["0"] = {"JA": big if large == "A" else eye, "JG": big if large == "G" else eye,
                            "reset_A": False, "reset_G": False}  # fmt: skip
    x = torch.tensor([[1.0, 0.0]], dtype=torch.float64)
    model(x)[:, 0].sum().backward()
    opt.precondition()
    return opt


def test_identity_reset_in_the_order_of_the_code() -> None:
    # Input factors of all layers first: a large one resets its partner in the same step, itself in the next.
    opt = grown("identity", "A")
    state = opt.layer_state["0"]
    assert float(state["JA"].max()) == pytest.approx(1.95 / 0.95)
    assert torch.equal(state["JG"], torch.eye(2, dtype=torch.float64))
    assert (state["reset_A"], state["reset_G"]) == (True, False)
    # A large output factor marks both for the next update.
    state = grown("identity", "G").layer_state["0"]
    assert float(state["JG"].max()) == pytest.approx(1.95 / 0.95)
    assert (state["reset_A"], state["reset_G"]) == (True, True)


def test_blend_mixes_before_the_update() -> None:
    state = grown("blend", "A").layer_state["0"]
    assert float(state["JA"][1, 1]) == pytest.approx((0.9 * 2.5 + 0.1) / 0.95)
    assert (state["reset_A"], state["reset_G"]) == (False, False)


def test_a_flagged_factor_becomes_the_identity_at_the_next_update() -> None:
    model = seeded(nn.Linear(4, 3))
    opt = MKOR(model, base=sgd(model), inverse_every=1)
    train(model, opt, range(3))
    opt.layer_state["0"]["reset_A"] = True
    train(model, opt, range(3, 4))
    assert torch.equal(opt.factors("0")[0], torch.eye(5, dtype=torch.float64))
    assert not torch.equal(opt.factors("0")[1], torch.eye(3, dtype=torch.float64))


# -- an ordinary loop --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", [None, torch.float16])
def test_state_dict_continues_with_the_same_bits(dtype: torch.dtype | None) -> None:
    def fresh() -> tuple[nn.Module, MKOR]:
        model = seeded(nn.Linear(4, 6), nn.Tanh(), nn.Linear(6, 3))
        base = torch.optim.AdamW(model.parameters(), lr=0.01)
        return model, MKOR(model, base=base, inverse_every=3, warmup_steps=2, factor_dtype=dtype)

    model, opt = fresh()
    train(model, opt, range(5))
    other, resumed = fresh()
    train(other, resumed, range(2))
    other.load_state_dict(copy.deepcopy(model.state_dict()))
    resumed.load_state_dict(copy.deepcopy(opt.state_dict()))
    train(model, opt, range(5, 10))
    train(other, resumed, range(5, 10))
    assert torch.equal(weights(model), weights(other))


def test_before_the_factors_move_it_is_the_base_optimiser() -> None:
    found = []
    for wrapped in (False, True):
        model = seeded(nn.Linear(4, 6), nn.Tanh(), nn.Linear(6, 3))
        opt: Any = sgd(model)
        if wrapped:
            opt = MKOR(model, base=opt, inverse_every=10)
        train(model, opt, range(10))
        found.append(weights(model))
    torch.testing.assert_close(*found)


def test_the_gradient_keeps_its_length() -> None:
    model = seeded(nn.Linear(4, 3, bias=False))
    opt = MKOR(model, base=sgd(model), inverse_every=1, reset="blend")
    model(data(8, 4)).square().sum().backward()
    before = model[0].weight.grad.clone()
    opt.precondition()
    after = model[0].weight.grad
    assert float(after.norm()) == pytest.approx(float(before.norm()), rel=1e-12)
    assert not torch.allclose(after, before)


def test_a_zero_gradient_stays_zero() -> None:
    model = seeded(nn.Linear(4, 3))
    opt = MKOR(model, base=sgd(model), inverse_every=1, reset="blend")
    (0 * model(data(8, 4)).sum()).backward()
    opt.precondition()
    assert float(weights(model).isfinite().all())
    assert float(model[0].weight.grad.abs().max()) == 0.0


# -- bad input ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"inverse_every": 0}, r"MKOR: inverse_every = 0: must lie in \[1, inf\)"),
        ({"rule": "hkor"}, "rule = 'hkor': must be one of 'code', 'ema', 'paper'"),
        ({"reset": "zero"}, "reset = 'zero'"),
        ({"warmup_steps": -1}, "warmup_steps = -1"),
        ({"warmup_steps": 0.5}, r"MKOR: warmup_steps = 0.5: must be a whole number in \[0, inf\)"),
        ({"inverse_every": 1.5}, "inverse_every = 1.5: must be a whole number"),
        ({"clip": 0.0}, "clip = 0.0"),
        ({"loss_reduction": "none"}, "loss_reduction = 'none'"),
        ({"factor_dtype": torch.int8}, "factor_dtype = torch.int8: must be floating"),
    ],
)
def test_bad_options(options: dict[str, Any], message: str) -> None:
    model = nn.Linear(4, 3)
    with pytest.raises(HyperparameterError, match=message):
        MKOR(model, base=sgd(model), **options)


def test_tied_weights_and_double_use_are_refused() -> None:
    layer = nn.Linear(4, 4)
    twice = nn.Sequential(layer, layer)
    opt = MKOR(twice, base=sgd(twice))
    twice(torch.ones(2, 4)).sum().backward()
    with pytest.raises(CurvebenchError, match="MKOR: '0' was used 2 times"):
        opt.step()
    tied = nn.Sequential(nn.Linear(4, 4), nn.Linear(4, 4))
    tied[1].weight = tied[0].weight
    with pytest.raises(CurvebenchError, match="MKOR: tied weights: '0' and '1'"):
        MKOR(tied, base=sgd(tied))


@pytest.mark.parametrize("rule", ["code", "ema", "paper"])
def test_non_finite_vectors_skip_the_step(rule: str) -> None:
    model = seeded(nn.Linear(4, 3))
    opt = MKOR(model, base=sgd(model), inverse_every=1, rule=rule)
    train(model, opt, range(3))
    before, factors = weights(model), [J.clone() for J in opt.factors("0")]
    x = data(8, 4)
    x[0, 0] = float("nan")
    opt.zero_grad()
    model(x).sum().backward()
    opt.step()
    assert opt.skipped == 1
    assert torch.equal(weights(model), before)
    for now, then in zip(opt.factors("0"), factors, strict=True):
        assert torch.equal(now, then)
    train(model, opt, range(3, 4))
    assert opt.skipped == 1


def test_factors_that_outgrow_half_precision_are_not_kept() -> None:
    model = seeded(nn.Linear(4, 3)).float()
    opt = MKOR(model, base=sgd(model), inverse_every=1, rule="paper", reset="blend", factor_dtype=torch.float16)
    g = torch.Generator().manual_seed(0)
    for _ in range(60):
        opt.zero_grad()
        model(torch.randn(8, 4, generator=g)).square().mean().backward()
        opt.step()
        assert all(bool(J.isfinite().all()) for J in opt.factors("0"))
    assert bool(weights(model).isfinite().all())


# -- in the harness ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("framework", ["torch", "jax"])
def test_conformance(framework: str) -> None:
    findings = list(conformance(resolve("mkor"), "mkor", framework))
    assert [f for f in findings if not f.holds] == []
