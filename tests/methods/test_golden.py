"""Parity with the authors' own code: AdaHessian and MeZO replay stored trajectories, alone and in the harness."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import tiny
import torch
import torch.nn.functional as F
from torch import nn

from curvebench.kernels.hutchinson_torch import hutchinson_diagonal
from curvebench.kernels.products_torch import differentiate, hessian_vector_product, on_vectors
from curvebench.methods.adahessian_jax import adahessian
from curvebench.methods.adahessian_torch import AdaHessian
from curvebench.methods.mezo_jax import mezo
from curvebench.methods.mezo_torch import MeZO
from curvebench.oracle.jax import JaxOracle
from curvebench.oracle.jax import Objective as JaxObjective
from curvebench.oracle.torch import Objective, TorchOracle
from curvebench.spec import Query
from curvebench.tasks.criteria_jax import cross_entropy
from curvebench.tasks.layers_jax import batch_norm, conv2d, linear

# torch's advice to whoever calls backward(create_graph=True); the optimiser's own docstring says what to do about it
pytestmark = pytest.mark.filterwarnings("ignore:Using backward:UserWarning")

GOLDEN = Path(__file__).resolve().parents[1] / "golden"
FILES = {
    "ic_mlp_base": "conv", "ic_lnmlp_base": "conv", "ic_conv_gentle": "conv", "instr_mlp_1_2_1_1": (1, 2, 1, 1),
}  # fmt: skip
SECOND = frozenset({Query.GRADIENT, Query.HVP})
STEP = 1e-10


class Given:
    """A stream that hands out stored draws in the order of the parameters, from the start whenever it is opened."""

    def __init__(self, draws: list[np.ndarray]) -> None:
        self._draws = iter(draws)

    def draw(self, kind: str, shape: tuple[int, ...]) -> Any:
        value = next(self._draws)
        assert value.shape == shape
        return torch.tensor(value)


class Golden:
    """One file: arrays, hyperparameters, parameters' names."""

    def __init__(self, name: str) -> None:
        with np.load(GOLDEN / f"adahessian_{name}.npz") as file:
            self.arrays = {key: file[key] for key in file.files}
        meta = json.loads(str(self.arrays["meta"]))
        self.problem, self.names, self.config = meta["problem"], meta["names"], meta["cfg"]
        assert meta.get("lrs") is None
        self.averaging = FILES[name]

    def z(self, step: int) -> list[np.ndarray]:
        return [self.arrays[f"z/{n}"][step] for n in self.names]

    def options(self) -> dict[str, Any]:
        c = self.config
        return {"eps": c["eps"], "weight_decay": c["wd"], "hessian_power": c["k"], "averaging": self.averaging}

    def batch(self, step: int) -> tuple[torch.Tensor, torch.Tensor]:
        return torch.tensor(self.arrays["x"][step]), torch.tensor(self.arrays["y"][step])

    def module(self) -> nn.Module:
        class Pool(nn.Module):
            def forward(self, x: torch.Tensor) -> torch.Tensor:
                return x.mean(dim=(2, 3))

        built = {
            "mlp": lambda: nn.Sequential(nn.Linear(5, 8), nn.Tanh(), nn.Linear(8, 3)),
            "lnmlp": lambda: nn.Sequential(nn.Linear(4, 8), nn.LayerNorm(8), nn.GELU(), nn.Linear(8, 4)),
            "conv": lambda: nn.Sequential(
                nn.Conv2d(2, 3, 3, padding=1), nn.BatchNorm2d(3), nn.Softplus(),
                nn.Conv2d(3, 4, 3, stride=2, padding=1, bias=False), nn.Tanh(), nn.Conv2d(4, 4, 1), nn.Tanh(),
                Pool(), nn.Flatten(), nn.Linear(4, 3),
            ),
        }[self.problem]().double()  # fmt: skip
        with torch.no_grad():
            for name, p in built.named_parameters():
                p.copy_(torch.tensor(self.arrays[f"init/{name}"]))
        assert [n for n, _ in built.named_parameters()] == self.names
        return built

    def apply(self, params: Any, buffers: Any, x: Any, tap: Any) -> Any:
        """The jax twin of :meth:`module`."""
        if self.problem == "mlp":
            return linear(params, "2", jnp.tanh(linear(params, "0", x, tap)), tap), {}
        if self.problem == "lnmlp":
            h = linear(params, "0", x, tap)
            h = (h - h.mean(-1, keepdims=True)) / jnp.sqrt(h.var(-1, keepdims=True) + 1e-5)
            h = jax.nn.gelu(h * params["1.weight"] + params["1.bias"], approximate=False)
            return linear(params, "3", h, tap), {}
        statistics: dict[str, Any] = {}
        h = jax.nn.softplus(
            batch_norm(params, buffers, "1", conv2d(params, "0", x, tap, padding=1), statistics, train=True)
        )
        h = jnp.tanh(conv2d(params, "3", h, tap, stride=2, padding=1))
        h = jnp.tanh(conv2d(params, "5", h, tap))
        return linear(params, "9", h.mean(axis=(2, 3)), tap), statistics


def check(golden: Golden, step: int, found: dict[str, Any]) -> None:
    """Parameters and moments after a step."""
    for kind, values in found.items():
        for name in golden.names:
            truth = golden.arrays[f"{kind}/{name}"][step]
            error = np.abs(np.asarray(values[name]) - truth).max()
            assert error < STEP * max(1.0, np.abs(truth).max()), (kind, name, step, error)


@pytest.fixture(params=list(FILES))
def golden(request: pytest.FixtureRequest) -> Golden:
    return Golden(request.param)


@pytest.mark.parametrize("way", ["backward", "closure", "closure with backward"])
def test_adahessian_alone_replays_the_authors_trajectory(golden: Golden, way: str) -> None:
    module = golden.module()
    c = golden.config
    optimizer = AdaHessian(module.parameters(), lr=c["lr"], betas=(c["b1"], c["b2"]), **golden.options())
    names = dict(zip(module.parameters(), golden.names, strict=True))
    for step in range(10):
        probes = [torch.tensor(z) for z in golden.z(step)]
        x, y = golden.batch(step)
        optimizer.zero_grad()

        def closure(x: torch.Tensor = x, y: torch.Tensor = y) -> torch.Tensor:
            loss = F.cross_entropy(module(x), y)
            if way != "closure":
                loss.backward(create_graph=True)
            return loss

        if way == "backward":
            loss = closure()
            optimizer.step(probes=probes)
        else:
            loss = optimizer.step(closure, probes=probes)
        assert abs(float(loss.detach()) - golden.arrays["loss"][step]) < STEP
        state = {names[p]: s for p, s in optimizer.state.items()}
        check(golden, step, {
            "param": {n: p.detach().numpy() for n, p in module.named_parameters()},
            "m": {n: s["m"].numpy() for n, s in state.items()}, "v": {n: s["v"].numpy() for n, s in state.items()},
        })  # fmt: skip
    optimizer.zero_grad()


def test_adahessian_in_the_torch_harness_replays_it_too(golden: Golden, monkeypatch: pytest.MonkeyPatch) -> None:
    module = golden.module()
    oracle = TorchOracle(Objective(module, F.cross_entropy, "categorical"), SECOND)
    c = golden.config
    optimizer = AdaHessian(oracle.parameters, lr=c["lr"], betas=(c["b1"], c["b2"]), **golden.options())
    optimizer.oracle = oracle
    for step in range(10):
        monkeypatch.setattr(TorchOracle, "stream", lambda self, name, step=step: Given(golden.z(step)))
        oracle.begin_step(step, golden.batch(step))
        loss = optimizer.step()
        oracle.end_step()
        assert abs(float(loss) - golden.arrays["loss"][step]) < STEP
        check(golden, step, {"param": {n: p.detach().numpy() for n, p in module.named_parameters()}})
    assert tiny.ledger.as_dict(oracle.counts)["hvp"] == tiny.ledger.as_dict(oracle.counts)["gradient"] == 10


@pytest.fixture
def x64() -> Iterator[None]:
    with jax.enable_x64(True):
        yield


@pytest.mark.usefixtures("x64")
def test_adahessian_in_jax_replays_it_too(golden: Golden) -> None:
    c = golden.config
    method = adahessian(c["lr"], b1=c["b1"], b2=c["b2"], **golden.options())
    objective = JaxObjective(golden.apply, cross_entropy, "categorical")
    params = {n: jnp.asarray(golden.arrays[f"init/{n}"]) for n in golden.names}
    state = method.init(params)

    class Replay(JaxOracle):
        def probes(self, kind: str, stream: str, params: Any) -> Any:
            assert (kind, stream) == ("rademacher", "hutchinson")
            return self.given  # type: ignore[attr-defined]

    @jax.jit
    def step_of(params: Any, state: Any, batch: Any, z: Any) -> Any:
        oracle = Replay(
            objective, SECOND, batch, np.int32(0), jax.random.key(0), {}, tuple(golden.names), np.dtype(float)
        )
        oracle.given = z  # type: ignore[attr-defined]
        updates, state = method.update(None, state, params, oracle=oracle)
        return {n: params[n] + updates[n] for n in params}, state

    for step in range(10):
        z = {n: golden.arrays[f"z/{n}"][step] for n in golden.names}
        batch = (golden.arrays["x"][step], golden.arrays["y"][step])
        params, state = step_of(params, state, batch, z)
        check(golden, step, {"param": params, "m": state.m, "v": state.v})


@pytest.mark.parametrize("name", list(FILES))
def test_the_oracles_gradient_and_hvp_are_the_authors(name: str) -> None:
    golden = Golden(name)
    module = golden.module()
    oracle = TorchOracle(Objective(module, F.cross_entropy, "categorical"), SECOND)
    for step in (0, 9):
        with torch.no_grad():
            for n, p in module.named_parameters():
                p.copy_(torch.tensor(golden.arrays[f"param/{n}"][step - 1] if step else golden.arrays[f"init/{n}"]))
        oracle.begin_step(step, golden.batch(step))
        point = oracle.at()
        gradient, product = point.gradient(), point.hvp([torch.tensor(z) for z in golden.z(step)])
        for n, g, hz in zip(golden.names, gradient, product, strict=True):
            assert np.abs(g.detach().numpy() - golden.arrays[f"grad/{n}"][step]).max() < STEP
            assert np.abs(hz.numpy() - golden.arrays[f"hz/{n}"][step]).max() < STEP


@pytest.mark.parametrize("name", list(FILES))
def test_hutchinsons_diagonal_is_unbiased_for_the_stored_exact_one(name: str) -> None:
    """500 Rademacher probes: within five of its standard errors of every entry; by unit vectors exactly."""
    golden = Golden(name)
    module, d = golden.module(), sum(golden.arrays[f"init/{n}"].size for n in golden.names)
    x, y = golden.batch(0)
    live = list(module.parameters())
    gradient = differentiate([F.cross_entropy(module(x), y)], live, create_graph=True)
    product = on_vectors(lambda v: hessian_vector_product(gradient, live, v), live)
    exact = torch.cat([torch.tensor(golden.arrays[f"exact_diag/{n}"][0]).reshape(-1) for n in golden.names])
    units = torch.stack([e @ product(e) for e in torch.eye(d, dtype=torch.float64)])
    assert (units - exact).abs().max() < STEP
    found = hutchinson_diagonal(product, torch.tensor(np.random.default_rng(0).integers(0, 2, (500, d)) * 2.0 - 1))
    assert ((found.value - exact).abs() <= 5 * found.standard_error + 1e-12).all()


# -- MeZO --------------------------------------------------------------------------------------------------------------


class Text(nn.Module):
    """embedding 11-6, mean over the tokens, dense 6-7, tanh, LayerNorm, out 7-3."""

    def __init__(self) -> None:
        super().__init__()
        self.emb, self.dense = nn.Embedding(11, 6), nn.Linear(6, 7)
        self.layer_norm, self.out = nn.LayerNorm(7), nn.Linear(7, 3)

    def forward(self, ids: torch.Tensor) -> torch.Tensor:
        logits: torch.Tensor = self.out(self.layer_norm(torch.tanh(self.dense(self.emb(ids).mean(1)))))
        return logits


@pytest.fixture(scope="module")
def steps() -> dict[str, np.ndarray]:
    with np.load(GOLDEN / "mezo_steps.npz") as file:
        return {key: file[key] for key in file.files}


def text(steps: dict[str, np.ndarray], dtype: torch.dtype, which: str, step: int = 0) -> Text:
    module = Text().to(dtype)
    with torch.no_grad():
        for n, p in module.named_parameters():
            p.copy_(torch.tensor(steps[f"{which}/theta{step}/{n}"]))
    return module


@pytest.mark.parametrize("restore", ["replay", "copy"])
@pytest.mark.parametrize(("which", "count", "tolerance"), [("f64", 5, 1e-10), ("f32", 3, 2e-6)])
def test_mezo_replays_the_authors_steps(
    steps: dict[str, np.ndarray],
    which: str,
    count: int,
    tolerance: float,
    restore: str,
) -> None:
    """The authors' decay skips biases and norms, by name: two parameter groups here."""
    dtype = {"f64": torch.float64, "f32": torch.float32}[which]
    module = text(steps, dtype, which)
    ids, labels = torch.tensor(steps["ids"]), torch.tensor(steps["labels"])
    eps, lr, decay = (float(v) for v in steps[f"{which}/hyper_eps_lr_wd"])
    named = dict(module.named_parameters())
    plain = [n for n in named if "bias" in n or "layer_norm" in n]
    decayed = [n for n in named if n not in plain]
    groups = [
        {"params": [named[n] for n in decayed], "weight_decay": decay},
        {"params": [named[n] for n in plain], "weight_decay": 0.0},
    ]
    optimizer = MeZO(groups, lr=lr, eps=eps, restore=restore)
    losses: list[float] = []

    def closure() -> torch.Tensor:
        loss = F.cross_entropy(module(ids), labels)
        losses.append(float(loss))
        return loss

    for step in range(count):
        z = [steps[f"{which}/z{step}/{n}"] for n in (*decayed, *plain)]
        losses.clear()
        optimizer.step(closure, probes=[torch.tensor(u) for u in z])
        assert np.abs(np.array(losses) - steps[f"{which}/losses"][step]).max() < tolerance
        for n, p in named.items():
            error = np.abs(p.detach().numpy() - steps[f"{which}/theta{step + 1}/{n}"]).max()
            assert error < tolerance, (n, step, error)
        if which == "f32":  # one step each from the recorded state: losses of float32 divide by 2 eps
            with torch.no_grad():
                for n, p in named.items():
                    p.copy_(torch.tensor(steps[f"f32/theta{step + 1}/{n}"]))


@pytest.mark.usefixtures("x64")
def test_mezo_in_jax_replays_the_authors_steps(steps: dict[str, np.ndarray]) -> None:
    """optax has no parameter groups: each stored step is redone from its start with the decay on and off."""
    eps, lr, decay = (float(v) for v in steps["f64/hyper_eps_lr_wd"])
    names = [n for n, _ in Text().named_parameters()]

    def apply(params: Any, buffers: Any, ids: Any, tap: Any) -> Any:
        h = jnp.tanh(linear(params, "dense", params["emb.weight"][ids].mean(1)))
        h = (h - h.mean(-1, keepdims=True)) / jnp.sqrt(h.var(-1, keepdims=True) + 1e-5)
        return linear(params, "out", h * params["layer_norm.weight"] + params["layer_norm.bias"]), {}

    class Replay(JaxOracle):
        def walk(self, kind: str, stream: Any, function: Any, *trees: Any) -> Any:
            moved = {n: function(z, *(tree[n] for tree in trees)) for n, z in self.given.items()}  # type: ignore[attr-defined]
            return tuple({n: new[i] for n, new in moved.items()} for i in range(len(trees)))

    @jax.jit
    def both(params: Any, z: Any) -> Any:
        out = []
        for wd in (decay, 0.0):
            oracle = Replay(JaxObjective(apply, cross_entropy, "categorical"), frozenset({Query.LOSS}),
                            (steps["ids"], steps["labels"]), np.int32(0), jax.random.key(0))  # fmt: skip
            oracle.given = z  # type: ignore[attr-defined]
            method = mezo(lr, eps=eps, weight_decay=wd)
            out.append((method.update(None, (), params, oracle=oracle)[0], method.step(params, (), oracle)[0]))
        return out

    for step in range(5):
        params = {n: steps[f"f64/theta{step}/{n}"] for n in names}
        decayed, plain = both(params, {n: steps[f"f64/z{step}/{n}"] for n in names})
        for n in names:
            displacement, moved = plain if "bias" in n or "layer_norm" in n else decayed
            for found in (params[n] + np.asarray(displacement[n]), moved[n]):
                assert np.abs(found - steps[f"f64/theta{step + 1}/{n}"]).max() < 1e-10
