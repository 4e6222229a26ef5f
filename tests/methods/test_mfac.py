"""M-FAC as an optimiser: the authors' trajectory, what it refuses, what it keeps."""

from __future__ import annotations

import copy
import inspect
import io
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from curvebench import cards
from curvebench.errors import CurvebenchError, HyperparameterError
from curvebench.kernels import reference_mfac as reference
from curvebench.methods.mfac_torch import MFAC
from curvebench.procedures.conformance import conformance

GOLDEN = Path(__file__).parents[1] / "golden" / "mfac"
X = torch.randn(40, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
Y = (X[:, 0] + X[:, 1] > 0).long()


def net(dtype: torch.dtype = torch.float64) -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(3, 4), nn.Tanh(), nn.Linear(4, 2)).to(dtype)


def values(module: nn.Module) -> torch.Tensor:
    return torch.cat([p.detach().reshape(-1) for p in module.parameters()])


def steps(module: nn.Module, optimizer: torch.optim.Optimizer, first: int, last: int) -> None:
    """Training steps on mini-batches of 8 that are a function of the step."""
    dtype = next(module.parameters()).dtype
    for t in range(first, last):
        rows = slice(8 * (t % 5), 8 * (t % 5) + 8)
        optimizer.zero_grad()
        F.cross_entropy(
            module(X[rows].to(dtype)).float() if dtype.itemsize < 4 else module(X[rows].to(dtype)), Y[rows]
        ).backward()
        optimizer.step()


def follow(
    start: np.ndarray,
    gradients: np.ndarray,
    shapes: list[tuple[int, ...]],
    dtype: torch.dtype = torch.float64,
    **given_: Any,
) -> np.ndarray:
    """The path ``[T + 1, d]`` of MFAC along given gradients."""
    sizes = [int(np.prod(shape)) for shape in shapes]
    params = [
        nn.Parameter(x.reshape(s)) for x, s in zip(torch.tensor(start, dtype=dtype).split(sizes), shapes, strict=True)
    ]
    optimizer = MFAC(params, **given_)
    path = [start]
    for gradient in gradients:
        for p, g in zip(params, torch.tensor(gradient, dtype=dtype).split(sizes), strict=True):
            p.grad = g.reshape(p.shape)
        optimizer.step()
        path.append(torch.cat([p.detach().flatten() for p in params]).double().numpy())
    return np.array(path)


def displacement(path: np.ndarray, expected: np.ndarray) -> float:
    return float(np.abs(path - expected).max() / np.abs(expected - expected[0]).max())


# -- the authors' trajectory, the reference's --------------------------------------------------------------------------


@pytest.mark.parametrize(("dtype", "formula", "kind", "tolerance"), [
    (torch.float64, "in-span", "dense", 1e-9),
    (torch.float64, "in-span", "f64", 1e-9),
    (torch.float64, "official", "f64", 1e-9),
    (torch.float32, "in-span", "dense", 2e-5),  # the rounding of the parameters themselves
    (torch.float32, "official", "f32", 1e-3),
])  # fmt: skip
def test_trajectory(dtype: torch.dtype, formula: str, kind: str, tolerance: float) -> None:
    with np.load(GOLDEN / "opt_plain.npz") as file:
        golden = dict(file)
    shapes = [tuple(int(n) for n in row if n) for row in golden["shapes"]]
    words = {"lr": "lr", "damping": "damp", "momentum": "momentum", "weight_decay": "weight_decay"}
    given_ = {name: float(golden[word]) for name, word in words.items()}
    start, window = golden["params_f64"][0], int(golden["m"])
    path = follow(start, golden["grads"], shapes, dtype, window=window, formula=formula, **given_)
    assert displacement(path, golden[f"params_{kind}"]) < tolerance


@given(
    st.integers(1, 7), st.floats(1e-3, 1.0), st.sampled_from([0.0, 0.5, 0.9]), st.sampled_from([0.0, 0.05]),
    st.booleans(), st.sampled_from(["in-span", "official"]), st.integers(0, 10**6),
)  # fmt: skip
def test_the_reference_takes_the_same_steps(
    window: int, damping: float, momentum: float, weight_decay: float, sparse: bool, formula: str, seed: int
) -> None:
    rng = np.random.default_rng(seed)
    start, gradients = rng.standard_normal(11), rng.standard_normal((12, 11))
    start[[1, 7]] = 0.0
    expected = reference.train(start, gradients, window, damping, 1e-3, momentum, weight_decay, sparse)
    path = follow(start, gradients, [(2, 3), (5,)], lr=1e-3, window=window, damping=damping, momentum=momentum,
                  weight_decay=weight_decay, sparse=sparse, formula=formula)  # fmt: skip
    assert displacement(path, expected) < 1e-8


def test_the_first_step_has_the_length_in_the_documentation() -> None:
    g = np.full((1, 4), 0.5)
    path = follow(np.zeros(4), g, [(4,)], lr=1.0, window=10, damping=1e-6)
    assert np.linalg.norm(path[1]) == pytest.approx(10 / np.linalg.norm(g), rel=1e-4)


def test_the_constructors_words_are_fixed() -> None:
    """What scripts rely on: the first argument by position, all others by name; later words only after these."""
    parameters = list(inspect.signature(MFAC).parameters.values())
    words = {"lr": 1e-3, "window": 1024, "damping": 1e-5, "momentum": 0.0, "weight_decay": 0.0, "formula": "in-span"}
    assert [p.name for p in parameters[:7]] == ["params", *words]
    assert all(p.kind is inspect.Parameter.KEYWORD_ONLY for p in parameters[1:])
    assert {p.name: p.default for p in parameters[1:7]} == words
    assert {p.name: p.default for p in parameters[7:]} == {"sparse": False, "maximize": False}


# -- in somebody's own loop --------------------------------------------------------------------------------------------


def test_it_trains() -> None:
    module = net(torch.float32)
    optimizer = MFAC(module.parameters(), lr=0.02, window=8, damping=1e-2, momentum=0.5)
    before = F.cross_entropy(module(X.float()), Y).item()
    steps(module, optimizer, 0, 60)
    assert F.cross_entropy(module(X.float()), Y).item() < 0.5 * before
    assert optimizer.skipped == 0


def test_a_closure_gives_the_same_steps_and_the_loss() -> None:
    one, two = net(), net()
    a, b = MFAC(one.parameters(), window=4, damping=0.1), MFAC(two.parameters(), window=4, damping=0.1)
    for _ in range(3):
        a.zero_grad()
        F.cross_entropy(one(X), Y).backward()
        assert a.step() is None
        expected = F.cross_entropy(two(X), Y).item()
        assert float(b.step(lambda: F.cross_entropy(two(X), Y))) == expected
    assert torch.equal(values(one), values(two))


@pytest.mark.parametrize(
    "given_", [{}, {"momentum": 0.9, "weight_decay": 0.01}, {"formula": "official"}, {"sparse": True}]
)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16])
def test_a_restored_state_continues_with_the_same_bits(given_: dict[str, Any], dtype: torch.dtype) -> None:
    module = net(dtype)
    with torch.no_grad():
        module[0].weight[0, 0] = 0.0  # for `sparse`
    optimizer = MFAC(module.parameters(), window=4, damping=0.1, lr=1e-2, **given_)
    steps(module, optimizer, 0, 6)
    file = io.BytesIO()
    torch.save(optimizer.state_dict(), file)
    file.seek(0)
    twin = copy.deepcopy(module)
    with torch.no_grad():
        for p in twin.parameters():
            p.add_(1.0)  # `sparse` must come from the state, not from the parameters at construction
    other = MFAC(twin.parameters(), window=4, damping=0.1, lr=5.0, **given_)
    twin.load_state_dict(module.state_dict())
    other.load_state_dict(torch.load(file))
    steps(module, optimizer, 6, 13)
    steps(twin, other, 6, 13)
    assert torch.equal(values(module), values(twin))
    assert other.param_groups[0]["lr"] == 1e-2


def test_loading_copies() -> None:
    module, twin = net(), net()
    one, two = MFAC(module.parameters(), window=3, damping=0.1), MFAC(twin.parameters(), window=3, damping=0.1)
    steps(module, one, 0, 3)
    saved = copy.deepcopy(one.state_dict()["state"][0])
    two.load_state_dict(one.state_dict())
    steps(twin, two, 3, 5)
    assert torch.equal(one.state_dict()["state"][0]["gradients"], saved["gradients"])
    assert torch.equal(one.state_dict()["state"][0]["gram"], saved["gram"])


def test_an_unused_state_is_restored_too() -> None:
    module, twin = net(), net()
    one, two = MFAC(module.parameters(), window=3, damping=0.1), MFAC(twin.parameters(), window=3, damping=0.1)
    fresh = copy.deepcopy(one.state_dict())
    steps(twin, two, 0, 2)
    two.load_state_dict(fresh)
    twin.load_state_dict(module.state_dict())
    steps(module, one, 0, 3)
    steps(twin, two, 0, 3)
    assert torch.equal(values(module), values(twin))


def test_loading_refuses_another_window() -> None:
    module = net()
    one = MFAC(module.parameters(), window=3, damping=0.1)
    steps(module, one, 0, 1)
    with pytest.raises(CurvebenchError, match=r"saved window has the shape \(3, 26\), this optimiser's has \(4, 26\)"):
        MFAC(module.parameters(), window=4).load_state_dict(one.state_dict())
    with pytest.raises(CurvebenchError, match="sparse = True, but the state was saved with sparse = False"):
        MFAC(module.parameters(), window=3, sparse=True).load_state_dict(one.state_dict())
    with pytest.raises(CurvebenchError, match=r"is torch\.float64, the parameters need torch\.float32"):
        MFAC(net(torch.float32).parameters(), window=3).load_state_dict(one.state_dict())


def test_groups_have_their_own_step_size_and_decay() -> None:
    rng = np.random.default_rng(0)
    start, gradients = rng.standard_normal(5), rng.standard_normal((6, 5))
    p, q = nn.Parameter(torch.tensor(start[:2])), nn.Parameter(torch.tensor(start[2:]))
    optimizer = MFAC([{"params": [p], "weight_decay": 0.3}, {"params": [q], "lr": 0.5}], lr=0.1, window=3, damping=0.2)
    x, G = start.copy(), np.zeros((3, 5))
    for t, g in enumerate(gradients):
        p.grad, q.grad = torch.tensor(g[:2]), torch.tensor(g[2:])
        optimizer.step()
        G[t % 3] = g + np.array([0.3, 0.3, 0, 0, 0]) * x
        x -= np.array([0.1, 0.1, 0.5, 0.5, 0.5]) * np.linalg.solve(reference.fisher(G, 0.2), G[t % 3])
    assert np.allclose(torch.cat([p, q]).detach(), x, rtol=1e-10)


def test_maximize_ascends() -> None:
    gradients = np.random.default_rng(0).standard_normal((5, 3))
    given_ = {"lr": 0.1, "window": 2, "damping": 0.1, "weight_decay": 0.2, "momentum": 0.3}
    down = follow(np.ones(3), -gradients, [(3,)], **given_)
    up = follow(np.ones(3), gradients, [(3,)], maximize=True, **given_)
    assert np.array_equal(down, up)


def test_a_group_may_come_later() -> None:
    """Past gradients count as zero for it."""
    rng = np.random.default_rng(1)
    p, q = nn.Parameter(torch.zeros(2).double()), nn.Parameter(torch.ones(3).double())
    optimizer = MFAC([p], lr=0.1, window=3, damping=0.2, momentum=0.5)
    gradients = rng.standard_normal((5, 5))
    gradients[:2, 2:] = 0.0
    for t, g in enumerate(gradients):
        if t == 2:
            optimizer.add_param_group({"params": [q]})
            MFAC([p, q], window=3).load_state_dict(optimizer.state_dict() | {
                "param_groups": MFAC([p, q], window=3).state_dict()["param_groups"]})  # fmt: skip
        p.grad, q.grad = torch.tensor(g[:2]), torch.tensor(g[2:])
        optimizer.step()
    expected = reference.train(np.array([0, 0, 1, 1, 1.0]), gradients, 3, 0.2, 0.1, momentum=0.5)
    assert np.allclose(torch.cat([p, q]).detach(), expected[-1], rtol=1e-9)


def test_a_parameter_without_gradient_counts_as_zero_and_rests() -> None:
    p, q = nn.Parameter(torch.ones(2).double()), nn.Parameter(torch.ones(3).double())
    optimizer = MFAC([q, p], lr=0.1, window=3, damping=0.2, weight_decay=0.1)
    alone = nn.Parameter(torch.ones(2).double())
    reference_ = MFAC([alone], lr=0.1, window=3, damping=0.2, weight_decay=0.1)
    for t in range(4):
        p.grad = alone.grad = torch.tensor([1.0 + t, -2.0]).double()
        optimizer.step()
        reference_.step()
    assert torch.allclose(p, alone, rtol=1e-12)
    assert torch.equal(q, torch.ones(3).double())
    q.grad = torch.ones(3).double()
    optimizer.step()
    moved = q.detach().clone()
    q.grad = None
    optimizer.step()
    assert not torch.equal(moved, torch.ones(3).double())
    assert torch.equal(q, moved)


@pytest.mark.parametrize("momentum", [0.0, 0.9])
@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_a_gradient_that_is_not_finite_is_skipped_and_counted(bad: float, momentum: float) -> None:
    one, two = net(), net()
    a = MFAC(one.parameters(), window=3, damping=0.1, momentum=momentum, weight_decay=0.1)
    b = MFAC(two.parameters(), window=3, damping=0.1, momentum=momentum, weight_decay=0.1)
    steps(one, a, 0, 5)
    steps(two, b, 0, 5)
    next(one.parameters()).grad[0, 0] = bad  # type: ignore[index]
    a.step()
    assert torch.equal(values(one), values(two))
    assert a.skipped == 1
    steps(one, a, 5, 9)
    steps(two, b, 5, 9)
    assert torch.equal(values(one), values(two))
    assert (a.skipped, b.skipped) == (1, 0)
    b.load_state_dict(a.state_dict())
    assert b.skipped == 1


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_parameters_have_a_float32_window(dtype: torch.dtype) -> None:
    rng = np.random.default_rng(2)
    gradients = torch.tensor(rng.standard_normal((6, 4)), dtype=dtype).double().numpy()
    start = torch.tensor(rng.standard_normal(4), dtype=dtype).double().numpy()
    path = follow(start, gradients, [(4,)], dtype, lr=1e-2, window=3, damping=0.1, momentum=0.5, weight_decay=0.1)
    expected = reference.train(start, gradients, 3, 0.1, 1e-2, 0.5, 0.1)
    assert np.abs(path - expected).max() < 12 * torch.finfo(dtype).eps * np.abs(expected).max()
    p = nn.Parameter(torch.ones(4, dtype=dtype))
    optimizer = MFAC([p], window=3)
    p.grad = torch.ones_like(p)
    optimizer.step()
    assert optimizer.state[p]["gradients"].dtype == torch.float32


def test_layouts_do_not_matter() -> None:
    gradients = torch.randn(3, 2, 3, 2, 2, generator=torch.Generator().manual_seed(0))
    ends = []
    for layout in (torch.contiguous_format, torch.channels_last):
        p = nn.Parameter(torch.ones(2, 3, 2, 2).to(memory_format=layout))
        optimizer = MFAC([p], window=2, damping=0.1, weight_decay=0.1)
        for g in gradients:
            p.grad = g.clone().to(memory_format=layout)
            optimizer.step()
        ends.append(p.detach().contiguous())
    assert torch.equal(*ends)


@pytest.mark.parametrize(
    ("given_", "message"),
    [
        ({"lr": -1.0}, r"MFAC: lr = -1\.0: must lie in \[0, inf\)"),
        ({"window": 0}, r"MFAC: window = 0: must lie in \[1, inf\)"),
        ({"window": -3}, r"MFAC: window = -3: must lie in \[1, inf\)"),
        ({"window": 2.5}, r"MFAC: window = 2\.5: must be a whole number"),
        ({"damping": 0.0}, r"MFAC: damping = 0\.0: must lie in \(0, inf\)"),
        ({"damping": -1e-5}, r"MFAC: damping = -1e-05: must lie in \(0, inf\)"),
        ({"damping": float("nan")}, r"MFAC: damping = nan: must lie in \(0, inf\)"),
        ({"momentum": 1.0}, r"MFAC: momentum = 1\.0: must lie in \[0, 1\)"),
        ({"weight_decay": -0.1}, r"MFAC: weight_decay = -0\.1: must lie in \[0, inf\)"),
        ({"formula": "exact"}, r"MFAC: formula = 'exact': must be one of 'in-span', 'official'"),
    ],
)
def test_bad_hyperparameters_are_named(given_: dict[str, Any], message: str) -> None:
    with pytest.raises(HyperparameterError, match=message):
        MFAC([nn.Parameter(torch.ones(2))], **given_)


def test_bad_groups_are_refused_and_not_kept() -> None:
    optimizer = MFAC([nn.Parameter(torch.ones(2))])
    bad = nn.Parameter(torch.ones(2))
    with pytest.raises(HyperparameterError, match=r"damping = 0\.1 in a group: all parameters share one window"):
        optimizer.add_param_group({"params": [bad], "damping": 0.1})
    with pytest.raises(HyperparameterError, match="lr = -1"):
        optimizer.add_param_group({"params": [bad], "lr": -1})
    assert len(optimizer.param_groups) == 1


def test_bad_parameters_and_gradients_are_refused() -> None:
    with pytest.raises(TypeError, match=r"dtype torch\.complex64"):
        MFAC([nn.Parameter(torch.ones(2, dtype=torch.complex64))])
    with pytest.raises(TypeError, match=r"dtype torch\.int64"):
        MFAC([torch.ones(2, dtype=torch.int64)])
    with pytest.raises(TypeError, match="sparse_coo"):
        MFAC([torch.ones(2).to_sparse()])
    with pytest.raises(CurvebenchError, match="on cpu and meta: must be on one device"):
        MFAC([nn.Parameter(torch.ones(2)), nn.Parameter(torch.ones(2, device="meta"))])
    table = nn.Embedding(3, 2, sparse=True)
    table(torch.tensor([1])).sum().backward()
    with pytest.raises(CurvebenchError, match="a gradient is sparse"):
        MFAC(table.parameters()).step()
    with pytest.raises(CurvebenchError, match="no parameter has a gradient"):
        MFAC([nn.Parameter(torch.ones(2))]).step()


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_conformance(dtype: str) -> None:
    findings = list(conformance(cards.method("mfac"), "mfac", "torch", dtype=dtype))
    assert [f for f in findings if not f.holds] == []
    assert len(findings) >= 10


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("momentum", [0.0, 0.9])
def test_state_has_the_size_on_the_card(momentum: float, dtype: torch.dtype) -> None:
    card = cards.method("mfac")
    module = net(dtype)
    optimizer = MFAC(module.parameters(), window=7, momentum=momentum)
    steps(module, optimizer, 0, 2)
    stated = card.state_numbers(card.resolve({"window": 7, "momentum": momentum}), d=26)
    kept = [t for state in optimizer.state.values() for t in state.values()]
    assert sum(t.numel() * t.element_size() for t in kept) == stated * dtype.itemsize  # type: ignore[operator]


def test_a_step_of_no_length_fills_the_window() -> None:
    p = nn.Parameter(torch.ones(2))
    optimizer = MFAC([p], lr=0.0, window=np.int64(2), damping=np.float32(0.1))
    p.grad = torch.tensor([1.0, 2.0])
    optimizer.step()
    assert torch.equal(p.detach(), torch.ones(2))
    assert torch.equal(optimizer.state[p]["gradients"][0], p.grad)
