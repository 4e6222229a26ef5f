"""K-FAC, EKFAC, MKOR-H and Eva in jax: torch's trajectories, kfac-pytorch's runs, every kind of layer, bad input."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import layerwise
import numpy as np
import optax
import pytest
import tiny
import torch
from torch import nn

from curvebench.errors import CurvebenchError, HyperparameterError
from curvebench.kernels.geometry import Geometry
from curvebench.methods.ekfac_jax import ekfac
from curvebench.methods.ekfac_torch import EKFAC
from curvebench.methods.eva_jax import eva
from curvebench.methods.eva_torch import Eva
from curvebench.methods.kfac_jax import kfac
from curvebench.methods.kfac_torch import KFAC
from curvebench.methods.layerwise_jax import unchanged
from curvebench.methods.mkor_h_jax import mkor_h
from curvebench.methods.mkor_jax import mkor
from curvebench.methods.mkor_torch import MKOR
from curvebench.tasks.criteria_jax import cross_entropy

GOLDEN = Path(__file__).parents[1] / "golden" / "kfac"
RUNS: list[tuple[str, str, dict[str, Any]]] = [
    ("kfac", "mlp", {"inverse_every": 3}),
    ("kfac", "conv", {"inverse_every": 2, "factor_every": 3, "solve": "inverse", "kl_clip": 0.0, "damping": 0.1,
                      "fisher": "mc"}),
    ("kfac", "norm", {"convention": "kfac-pytorch", "factor_every": 2, "inverse_every": 4}),
    ("kfac", "mlp", {"fisher": "type-2", "inverse_every": 1, "solve": "inverse", "convention": "kfac-pytorch"}),
    ("ekfac", "conv", {"inverse_every": 2, "factor_every": 2, "fisher": "type-2"}),
    ("ekfac", "norm", {"convention": "kfac-pytorch", "inverse_every": 4, "fisher": "mc"}),
    ("mkor-h", "mlp", {"inverse_every": 2, "patience": 3, "ratio": 0.9, "smoothing": 0.3, "lr": 2.0}),
    ("eva", "conv", {}),
]  # fmt: skip


@pytest.mark.parametrize(("method", "task", "given"), RUNS)
def test_ten_steps_of_torch_are_ten_steps_of_jax(method: str, task: str, given: dict[str, Any]) -> None:
    """Parameters after every step, the whole ledger, and the bytes of the state."""
    pair = layerwise.agree(method, task, {"lr": 0.1, **given}, 1e-9, state=method != "mkor-h")
    if method == "mkor-h":
        theirs, ours = (running.notes()[0] for running in pair[:2])
        assert "after step" in ours
        assert ours.rpartition(" ")[2] == theirs.rpartition(" ")[2]


# -- kfac-pytorch ------------------------------------------------------------------------------------------------------


def golden_apply(problem: str) -> Any:
    def mlp(p: Any, x: Any, tap: Any) -> Any:
        hidden = jnp.tanh(tap("0", x, x @ p["0.weight"].T + p["0.bias"]))
        return tap("2", hidden, hidden @ p["2.weight"].T + p["2.bias"])

    def conv(p: Any, x: Any, tap: Any) -> Any:
        from curvebench.tasks.layers_jax import batch_norm, conv2d, linear

        hidden = batch_norm(p, {}, "1", conv2d(p, "0", x, tap, padding=1), {}, train=True)
        hidden = jnp.tanh(conv2d(p, "3", jax.nn.softplus(hidden), tap, stride=2, padding=(1, 0)))
        return linear(p, "7", hidden.mean((2, 3)), tap)

    return mlp if problem == "mlp" else conv


@pytest.mark.parametrize("name", ["mlp_eigen_every1", "mlp_inverse_every1", "conv_eigen_every1"])
def test_trajectories_of_kfac_pytorch(name: str) -> None:
    stored = np.load(GOLDEN / f"kfacpt_{name}.npz")
    meta = json.loads(str(stored["meta"]))
    apply = golden_apply(meta["problem"])
    names = [key.removeprefix("init/") for key in stored if key.startswith("init/")]
    with jax.enable_x64(True):
        params = {key: jnp.asarray(stored[f"init/{key}"]) for key in names}
        layers = layerwise.found(apply, params, stored["x"][0])
        assert [layer.name for layer in layers.found] == meta["layers"]
        tx = kfac(layers, meta["lr"], momentum=meta["momentum"], damping=meta["damping"],
                  factor_decay=meta["factor_decay"], factor_every=meta["factor_update_steps"],
                  inverse_every=meta["inv_update_steps"], kl_clip=meta["kl_clip"], solve=meta["method"],
                  convention="kfac-pytorch")  # fmt: skip
        state = tx.init(params)
        step = layerwise.stepper(tx, apply, cross_entropy, "categorical")
        velocity = {key: np.zeros(p.shape) for key, p in params.items()}
        for t in range(len(stored["x"])):
            updates, state = step(params, state, (stored["x"][t], stored["y"][t]))
            for layer in meta["layers"]:
                for letter in "AG":
                    expected = stored[f"{letter}/{layer}"][t]
                    found = state.layers[layer][letter]
                    np.testing.assert_allclose(found, expected, rtol=1e-11, atol=1e-13 * np.abs(expected).max())
                # the gradient that the base was handed, from what SGD made of it
                made = {key: -np.asarray(updates[key]) / meta["lr"] - meta["momentum"] * velocity[key] for key in names}
                exact = stored[f"pgrad_ref64/{layer}"][t]
                assert np.abs(layerwise.matrix(made, layer) - exact).max() <= 1e-9 * np.abs(exact).max()
            velocity = {key: -np.asarray(updates[key]) / meta["lr"] for key in names}
            for key in names:  # go on from the stored weights, so that the comparison stays at rounding
                expected = stored[f"param/{key}"][t]
                assert np.abs(np.asarray(params[key] + updates[key]) - expected).max() <= 1e-5
                params[key] = jnp.asarray(expected)


# -- every kind of layer -----------------------------------------------------------------------------------------------


class Odd(nn.Module):
    """A dilated convolution of uneven stride, a layer on sequences that is used twice, and a classifier."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(2, 3, (3, 2), stride=(1, 2), padding=(2, 1), dilation=(2, 1))
        self.shared = nn.Linear(3, 3)
        self.head = nn.Linear(3, 2, bias=False)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        rows = torch.tanh(self.conv(x)).flatten(2).transpose(1, 2)
        hidden = torch.tanh(self.shared(torch.tanh(self.shared(rows))))
        out: torch.Tensor = self.head(hidden.mean(1))
        return out


def odd(p: Any, x: Any, tap: Any) -> Any:
    from curvebench.tasks.layers_jax import conv2d, linear

    hidden = jnp.tanh(conv2d(p, "conv", x, tap, stride=(1, 2), padding=(2, 1), dilation=(2, 1)))
    hidden = hidden.reshape(*hidden.shape[:2], -1).swapaxes(1, 2)
    for _ in range(2):
        hidden = jnp.tanh(linear(p, "shared", hidden, tap))
    return linear(p, "head", hidden.mean(1), tap)


def odd_flax(p: Any, x: Any, tap: Any) -> Any:
    """The same in Flax's layout: channels last, inputs first, a tree of dicts."""
    conv, shared, head = p["Conv_0"], p["Dense_0"], p["Dense_1"]
    hidden = jax.lax.conv_general_dilated(x, conv["kernel"], (1, 2), ((2, 2), (1, 1)), rhs_dilation=(2, 1),
                                          dimension_numbers=("NHWC", "HWIO", "NHWC")) + conv["bias"]  # fmt: skip
    hidden = jnp.tanh(tap("Conv_0", x, hidden, Geometry((3, 2), (1, 2), (1, 1, 2, 2), (2, 1))))
    hidden = hidden.reshape(len(hidden), -1, hidden.shape[-1])
    for _ in range(2):
        hidden = jnp.tanh(tap("Dense_0", hidden, hidden @ shared["kernel"] + shared["bias"]))
    pooled = hidden.mean(1)
    return tap("Dense_1", pooled, pooled @ head["kernel"])


def in_flax(p: dict[str, np.ndarray]) -> dict[str, Any]:
    conv = {"kernel": p["conv.weight"].transpose(2, 3, 1, 0), "bias": p["conv.bias"]}
    shared = {"kernel": p["shared.weight"].T, "bias": p["shared.bias"]}
    return {"Conv_0": conv, "Dense_0": shared, "Dense_1": {"kernel": p["head.weight"].T}}


@pytest.mark.parametrize(
    ("ours", "theirs", "given"),
    [
        (mkor, MKOR, {"inverse_every": 1, "rule": "ema"}),
        (kfac, KFAC, {"inverse_every": 2, "kl_clip": 1e-3}),
        (ekfac, EKFAC, {"inverse_every": 2, "loss_terms": "rows"}),
        (eva, Eva, {}),
    ],
)
def test_strides_dilation_sequences_and_shared_layers(ours: Any, theirs: Any, given: dict[str, Any]) -> None:
    """Each against torch, from a flat dict of torch's names; MKOR also from a tree in Flax's layout."""
    model = Odd().double()
    generator = torch.Generator().manual_seed(0)
    for p in model.parameters():
        nn.init.normal_(p, std=0.5, generator=generator)
    opt = theirs(model, lr=0.3, momentum=0.5, shared="expand", **given)
    rng = np.random.default_rng(0)
    with jax.enable_x64(True):
        start = {name: p.detach().numpy().copy() for name, p in model.named_parameters()}
        xs = [rng.standard_normal((4, 2, 5, 6)) for _ in range(4)]
        sides = []
        for apply, params, moved in (
            (odd, start, lambda x: x),
            (odd_flax, in_flax(start), lambda x: x.transpose(0, 2, 3, 1)),
        )[: 1 + (ours is mkor)]:
            params = jax.tree.map(jnp.asarray, params)
            tx = ours(layerwise.found(apply, params, moved(xs[0])), 0.3, momentum=0.5, shared="expand", **given)
            sides.append([layerwise.stepper(tx, apply, cross_entropy, "categorical"), params, tx.init(params), moved])
        for x in xs:
            y = rng.integers(0, 2, 4)
            opt.zero_grad()
            nn.functional.cross_entropy(model(torch.from_numpy(x)), torch.from_numpy(y)).backward()
            opt.step()
            for side in sides:
                step, params, state, moved = side
                updates, side[2] = step(params, state, (moved(x), y))
                side[1] = jax.tree.map(lambda p, u: np.asarray(p) + np.asarray(u), params, updates)
    expected = {name: p.detach().numpy() for name, p in model.named_parameters()}
    assert tiny.relative(expected, start) > 1e-3
    for side, wanted in zip(sides, (expected, in_flax(expected)), strict=False):
        assert tiny.relative(side[1], wanted) < 1e-10


# -- bad input ---------------------------------------------------------------------------------------------------------


def plain(p: Any, x: Any, tap: Any) -> Any:
    return tap("0", x, x @ p["0.weight"].T)


PARAMS = {"0.weight": jnp.zeros((3, 2))}
X = jnp.zeros((4, 2))


@pytest.mark.parametrize(
    ("method", "given", "message"),
    [
        (kfac, {"damping": 0.0}, r"kfac: damping = 0.0: must lie in \(0, inf\)"),
        (kfac, {"factor_decay": 1.0}, r"kfac: factor_decay = 1.0: must lie in \[0, 1\)"),
        (kfac, {"factor_every": 0}, r"kfac: factor_every = 0: must lie in \[1, inf\)"),
        (kfac, {"inverse_every": 2.5}, "kfac: inverse_every = 2.5: must be a whole number"),
        (kfac, {"kl_clip": -1.0}, r"kfac: kl_clip = -1.0: must lie in \[0, inf\)"),
        (kfac, {"solve": "cg"}, "kfac: solve = 'cg': must be one of 'eigen', 'inverse'"),
        (kfac, {"fisher": "exact"}, "kfac: fisher = 'exact': must be one of 'empirical', 'mc', 'type-2'"),
        (kfac, {"convention": "jax"}, "kfac: convention = 'jax': must be one of 'ggn', 'kfac-pytorch'"),
        (kfac, {"loss_terms": "all"}, "kfac: loss_terms = 'all': must be one of 'samples', 'rows'"),
        (kfac, {"learning_rate": None, "base": optax.sgd(0.1), "kl_clip": 1e-3}, "kl_clip = 0.001: the bound needs"),
        (ekfac, {"solve": "inverse"}, "ekfac: solve = 'inverse': must be one of 'eigen'"),
        (eva, {"damping": -1.0}, r"eva: damping = -1.0: must lie in \(0, inf\)"),
        (eva, {"learning_rate": None, "base": optax.sgd(0.1)}, "eva: kl_clip = 0.001: the bound needs the step size"),
        (mkor_h, {"patience": 1}, r"mkor_h: patience = 1: must lie in \[2, inf\)"),
        (mkor_h, {"ratio": 1.0}, r"mkor_h: ratio = 1.0: must lie in \[0, 1\)"),
        (mkor_h, {"smoothing": 1.0}, r"mkor_h: smoothing = 1.0: must lie in \[0, 1\)"),
    ],
)  # fmt: skip
def test_bad_input(method: Any, given: dict[str, Any], message: str) -> None:
    with pytest.raises(HyperparameterError, match=message):
        method(layerwise.found(plain, PARAMS, X), **{"learning_rate": 0.1, **given})


@pytest.mark.parametrize(
    ("apply", "params", "message"),
    [
        (lambda p, x, tap: tap("one", x, x @ p["0.weight"].T), PARAMS, r"tap\('one', ...\): no leaf of the"),
        (lambda p, x, tap: tap("d", x, x), {"a.d.weight": X, "b.d.weight": X}, r"tap\('d', ...\): 2 leaves fit"),
        (lambda p, x, tap: tap("0", x, x), PARAMS, r"tap\('0', x, y\): x \[4, 2\] and y \[4, 2\] are not"),
        (lambda p, x, tap: tap("0", x, x), {"0.weight": jnp.zeros((2, 2, 1, 1))}, r"its weight 0.weight has shape"),
    ],
)  # fmt: skip
def test_taps_that_do_not_fit_the_parameters(apply: Any, params: Any, message: str) -> None:
    with pytest.raises(CurvebenchError, match=message):
        layerwise.found(apply, params, X)


def test_what_no_tap_watches_and_groups_are_left_to_the_base_and_named() -> None:
    params = {"0": {"weight": jnp.zeros((2, 2))}, "emb": {"weight": jnp.zeros((5, 2))}, "scale": jnp.ones(2),
              "g": {"weight": jnp.zeros((4, 1, 1, 1))}}  # fmt: skip

    def apply(p: Any, x: Any, tap: Any) -> Any:
        image = jnp.zeros((4, 2, 3, 3))
        tap("g", image, jnp.zeros((4, 4, 3, 3)), Geometry((1, 1), (1, 1), (0, 0, 0, 0), (1, 1)))
        return tap("0", x, x @ p["0"]["weight"].T)

    layers = layerwise.found(apply, params, X)
    assert [layer.name for layer in layers.found] == ["0"]
    assert layers.unsupported == {
        "g": "Conv2d with groups = 2",
        "emb": "no tap watches it",
        "scale": "no tap watches it",
    }
    assert set(layers.surprising) == {"g", "emb"}
    assert unchanged({"emb": "no tap watches it"}).endswith("the base optimiser unchanged: 'emb' (no tap watches it)")


def test_a_criterion_that_is_no_mean_of_a_likelihoods_terms_is_refused_before_training() -> None:
    import dataclasses

    at = dataclasses.replace(layerwise.problem("mlp"), criterion="log-sum-exp")
    with pytest.raises(CurvebenchError, match="fisher = 'mc': the task's criterion is no negative log-likelihood"):
        tiny.engine(tiny.run_spec("kfac", framework="jax", fisher="mc"), at)
    from curvebench.oracle.fisher_jax import refuse

    def scaled(o: Any, y: Any) -> Any:
        return 0.4 * jnp.square(o - y).mean() / 2

    with pytest.raises(CurvebenchError, match=r"differ by 2.5 in one direction .* use fisher = 'empirical'"):
        refuse(scaled, jax.ShapeDtypeStruct((1, 1), jnp.float32), jnp.zeros((1, 1)), "gaussian", "mc")
